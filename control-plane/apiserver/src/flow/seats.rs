//! The seats of the server: which level may use how many, and who is next.
//!
//! One lock over all levels, held for a few comparisons: seats that one level lends are another's.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::config::{Limits, Queuing};
use super::metrics::LevelGauges;

/// Requests that wait for a seat, in all levels together.
pub(super) const WAITING_MAX: usize = 16_384;
/// Seats of one request.
const WIDTH_MAX: u64 = 10;

/// A level, for as long as somebody runs or waits in it.
pub(super) type LevelId = u64;

/// Why there was no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The level has no queues.
    NoSeat,
    QueueFull,
    TimedOut,
}

impl Refused {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::NoSeat => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimedOut => "time-out",
        }
    }

    pub(super) const fn why(self) -> &'static str {
        match self {
            Self::NoSeat => "all its seats are taken and it has no queue",
            Self::QueueFull => "its queue is full",
            Self::TimedOut => "no seat came free in time",
        }
    }
}

/// What a level is to be.
#[derive(Debug, Clone)]
pub(super) struct LevelPlan {
    pub(super) name: Arc<str>,
    pub(super) limits: Limits,
    pub(super) queuing: Option<Queuing>,
    pub(super) gauges: LevelGauges,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    width: u64,
    sender: oneshot::Sender<Seat>,
}

/// Requests of some flows, first come first served.
#[derive(Debug, Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    /// Seats it has been given, on the level's clock: who has been given least is next.
    turn: u64,
}

impl Queue {
    fn seats(&self) -> u64 {
        self.waiters.iter().map(|waiter| waiter.width).sum()
    }
}

#[derive(Debug)]
struct Level {
    plan: LevelPlan,
    /// It was taken out of the configuration.
    gone: bool,
    used: u64,
    queues: HashMap<u32, Queue>,
    /// The queues that are not empty, by turn.
    order: BTreeSet<(u64, u32)>,
    clock: u64,
}

#[derive(Debug, Default)]
struct State {
    levels: BTreeMap<LevelId, Level>,
    names: HashMap<Arc<str>, LevelId>,
    next_level: LevelId,
    next_waiter: u64,
    waiting: usize,
    /// Seats that levels lend.
    lent: u64,
    /// Those of them that are used.
    lent_used: u64,
}

/// All levels.
#[derive(Debug, Default)]
pub(super) struct Seats {
    state: Mutex<State>,
}

/// The right to run. Dropping it lets the next one run.
pub(crate) struct Seat {
    seats: Option<Arc<Seats>>,
    level: LevelId,
    width: u64,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seat({} of level {})", self.width, self.level)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(seats) = self.seats.take() {
            seats.give_back(self.level, self.width);
        }
    }
}

/// A place in a queue. Dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct Place {
    seats: Arc<Seats>,
    level: LevelId,
    queue: u32,
    number: u64,
    pub(super) seat: oneshot::Receiver<Seat>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.seats.leave(self.level, self.queue, self.number);
    }
}

/// What became of asking for a seat.
#[derive(Debug)]
pub(super) enum Asked {
    Seat(Seat),
    Place(Place),
    Refused(Refused),
    /// The configuration has changed meanwhile.
    NoLevel,
}

/// Seats that lie above what a level has for itself.
const fn above(used: u64, limits: Limits) -> u64 {
    used.saturating_sub(limits.min)
}

impl State {
    fn fits(&self, level: &Level, width: u64) -> bool {
        let limits = level.plan.limits;
        // Its own first seat runs even what is wider.
        if level.used == 0 && limits.min > 0 {
            return true;
        }
        let after = level.used + width;
        let more = above(after, limits) - above(level.used, limits);
        after <= limits.max && (more == 0 || self.lent_used + more <= self.lent)
    }

    /// The level of this name, also one that was taken out and is not over yet; or a new one.
    fn id_of(&mut self, name: &Arc<str>) -> LevelId {
        let known = self.names.get(name).copied();
        let known = known.or_else(|| {
            let mut levels = self.levels.iter();
            levels.find_map(|(id, level)| (level.plan.name == *name).then_some(*id))
        });
        let id = known.unwrap_or(self.next_level);
        self.next_level = self.next_level.max(id + 1);
        self.names.insert(Arc::clone(name), id);
        id
    }

    fn take(&mut self, id: LevelId, width: u64) {
        if let Some(level) = self.levels.get_mut(&id) {
            let before = above(level.used, level.plan.limits);
            level.used += width;
            self.lent_used += above(level.used, level.plan.limits) - before;
            level.plan.gauges.executing_seats(level.used);
        }
    }

    fn give_back(&mut self, id: LevelId, width: u64) {
        if let Some(level) = self.levels.get_mut(&id) {
            let before = above(level.used, level.plan.limits);
            level.used = level.used.saturating_sub(width);
            let after = above(level.used, level.plan.limits);
            self.lent_used = self.lent_used.saturating_sub(before - after);
            level.plan.gauges.executing_seats(level.used);
        }
        self.forget(id);
    }

    /// Drops a level that is no longer configured when nobody runs or waits in it.
    fn forget(&mut self, id: LevelId) {
        if self.levels.get(&id).is_some_and(Level::is_over) {
            self.levels.remove(&id);
        }
    }

    /// The next request that may run: of the level that uses the least part of its share, so that
    /// owners get back what they lent before others borrow more.
    fn next(&mut self) -> Option<(LevelId, Waiter)> {
        if self.waiting == 0 {
            return None;
        }
        let ready = |(id, level): (&LevelId, &Level)| {
            let (_, queue) = level.order.first()?;
            let width = level.queues.get(queue)?.waiters.front()?.width;
            let part = (level.used << 16) / level.plan.limits.nominal.max(1);
            self.fits(level, width).then_some((part, *id))
        };
        let (_, id) = self.levels.iter().filter_map(ready).min()?;
        let level = self.levels.get_mut(&id)?;
        let (turn, at) = level.order.pop_first()?;
        let queue = level.queues.get_mut(&at)?;
        let waiter = queue.waiters.pop_front()?;
        level.clock = turn;
        queue.turn = turn + waiter.width;
        if queue.waiters.is_empty() {
            level.queues.remove(&at);
        } else {
            level.order.insert((queue.turn, at));
        }
        self.waiting -= 1;
        Some((id, waiter))
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        self.plan.gauges.forget();
    }
}

impl Level {
    /// Whether it is no longer configured, and nobody runs or waits in it.
    fn is_over(&self) -> bool {
        self.gone && self.used == 0 && self.order.is_empty()
    }

    /// Puts a waiter into the shortest of the queues that its flow may use.
    fn enqueue(&mut self, queuing: Queuing, flow: u64, waiter: Waiter) -> Result<u32, Refused> {
        let load = |at: &u32| self.queues.get(at).map_or(0, Queue::seats);
        let at = hand(flow, queuing).into_iter().min_by_key(load);
        let at = at.unwrap_or_default();
        let clock = self.clock;
        let queue = self.queues.entry(at).or_default();
        if queue.waiters.len() >= queuing.length {
            return Err(Refused::QueueFull);
        }
        if queue.waiters.is_empty() {
            queue.turn = queue.turn.max(clock);
            self.order.insert((queue.turn, at));
        }
        queue.waiters.push_back(waiter);
        Ok(at)
    }

    /// Seats that one request of this level may ask for.
    fn widest(&self) -> u64 {
        let limits = self.plan.limits;
        let part = (limits.nominal * 15).div_ceil(100);
        WIDTH_MAX.min(part).min(limits.min).max(1)
    }
}

/// The queues of a flow: `hand` different ones, dealt by its hash.
pub(super) fn hand(flow: u64, queuing: Queuing) -> Vec<u32> {
    let mut rest = flow;
    let mut dealt: Vec<u32> = Vec::with_capacity(queuing.hand as usize);
    for turn in 0..queuing.hand {
        let cards = u64::from(queuing.queues - turn);
        let mut card = u32::try_from(rest % cards).unwrap_or_default();
        rest /= cards;
        // The card counts those that are still there.
        let mut taken = dealt.clone();
        taken.sort_unstable();
        for other in taken {
            if card >= other {
                card += 1;
            }
        }
        dealt.push(card);
    }
    dealt
}

impl Seats {
    /// Makes the levels what `plans` say; who runs and who waits stays. Returns their ids.
    pub(super) fn configure(self: &Arc<Self>, plans: Vec<LevelPlan>) -> Vec<LevelId> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let kept: Vec<Arc<str>> = plans.iter().map(|plan| Arc::clone(&plan.name)).collect();
        state.names.retain(|name, id| {
            let stays = kept.contains(name);
            if let Some(level) = state.levels.get_mut(id).filter(|_| !stays) {
                level.gone = true;
                // One after the other, until nobody waits.
                level.plan.limits = Limits {
                    min: 1,
                    nominal: 1,
                    max: 1,
                };
            }
            stays
        });
        let ids = plans
            .into_iter()
            .map(|plan| {
                let id = state.id_of(&plan.name);
                let level = state.levels.entry(id).or_insert_with(|| Level {
                    plan: plan.clone(),
                    gone: false,
                    used: 0,
                    queues: HashMap::new(),
                    order: BTreeSet::new(),
                    clock: 0,
                });
                plan.gauges.limits(plan.limits);
                level.plan = plan;
                level.gone = false;
                id
            })
            .collect();
        let lends = |level: &Level| level.plan.limits.nominal - level.plan.limits.min;
        state.lent = state.levels.values().map(lends).sum();
        let borrowed = |level: &Level| above(level.used, level.plan.limits);
        state.lent_used = state.levels.values().map(borrowed).sum();
        state.levels.retain(|_, level| !level.is_over());
        drop(guard);
        self.serve();
        ids
    }

    /// Asks for `width` seats of a level. `flow`: the hash of the request's flow.
    pub(super) fn ask(self: &Arc<Self>, id: LevelId, flow: u64, width: u64) -> Asked {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(level) = state.levels.get(&id) else {
            return Asked::NoLevel;
        };
        let width = width.clamp(1, level.widest());
        if level.order.is_empty() && state.fits(level, width) {
            state.take(id, width);
            return Asked::Seat(self.seat(id, width));
        }
        let Some(queuing) = level.plan.queuing else {
            return Asked::Refused(Refused::NoSeat);
        };
        if state.waiting >= WAITING_MAX {
            return Asked::Refused(Refused::QueueFull);
        }
        let (sender, seat) = oneshot::channel();
        let number = state.next_waiter;
        let waiter = Waiter {
            number,
            width,
            sender,
        };
        let Some(level) = state.levels.get_mut(&id) else {
            return Asked::NoLevel;
        };
        let queue = match level.enqueue(queuing, flow, waiter) {
            Ok(queue) => queue,
            Err(refused) => return Asked::Refused(refused),
        };
        state.next_waiter += 1;
        state.waiting += 1;
        Asked::Place(Place {
            seats: Arc::clone(self),
            level: id,
            queue,
            number,
            seat,
        })
    }

    fn seat(self: &Arc<Self>, level: LevelId, width: u64) -> Seat {
        Seat {
            seats: Some(Arc::clone(self)),
            level,
            width,
        }
    }

    fn give_back(self: &Arc<Self>, level: LevelId, width: u64) {
        self.state.lock().give_back(level, width);
        self.serve();
    }

    /// Gives seats to all that may run now.
    fn serve(self: &Arc<Self>) {
        let mut state = self.state.lock();
        while let Some((level, waiter)) = state.next() {
            state.take(level, waiter.width);
            let seat = self.seat(level, waiter.width);
            if let Err(mut unwanted) = waiter.sender.send(seat) {
                // It gave up; the lock is held, so not by its drop.
                unwanted.seats = None;
                state.give_back(level, unwanted.width);
            }
        }
    }

    /// Takes a waiter out of its queue, if it is still there.
    fn leave(&self, id: LevelId, at: u32, number: u64) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(level) = state.levels.get_mut(&id) else {
            return;
        };
        let Some(queue) = level.queues.get_mut(&at) else {
            return;
        };
        let before = queue.waiters.len();
        queue.waiters.retain(|waiter| waiter.number != number);
        state.waiting -= before - queue.waiters.len();
        if queue.waiters.is_empty() {
            level.order.remove(&(queue.turn, at));
            level.queues.remove(&at);
        }
        state.forget(id);
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> bool {
        let state = self.state.lock();
        state.waiting == 0 && state.lent_used == 0 && state.levels.values().all(|it| it.used == 0)
    }
}
