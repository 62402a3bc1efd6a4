//! One resource: its objects as a persistent map, its recent changes as a ring.
//!
//! One writer (the pump) applies changes; readers clone the map's root or copy slices of the ring
//! under a read lock. A watcher holds a position in the ring, not a queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use imbl::OrdMap;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::dispatch::{Dispatch, Interest, Sleeper};
use crate::object::{Obj, ObjKey};
use crate::registry::Kind;

/// Events younger than this stay, as long as the bytes' bound allows (upstream keeps 75 s).
pub(super) const RING_AGE: Duration = Duration::from_secs(120);
/// Events that stay at any age.
pub(super) const RING_EVENTS_MIN: usize = 128;
/// Bytes of objects that one ring may hold.
pub(super) const RING_BYTES_MAX: usize = 16 << 20;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It is new.
    Added,
    /// It has a new version.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change of one object.
#[derive(Debug)]
pub struct Event {
    /// Revision of the change.
    pub rv: u64,
    /// What happened.
    pub kind: EventKind,
    /// The new version; for a deletion the last one, as of the deletion's revision.
    pub obj: Arc<Obj>,
    /// The version before.
    pub prev: Option<Arc<Obj>>,
}

impl Event {
    fn size(&self) -> usize {
        // `prev` is the object of an earlier event, or was never counted because it came from the
        // store: counting it here would count most objects twice.
        self.obj.size()
    }
}

/// Objects by key, immutable and shared.
pub(crate) type ObjMap = OrdMap<ObjKey, Arc<Obj>>;

#[derive(Debug, Default)]
struct State {
    objects: ObjMap,
    ring: VecDeque<(Instant, Arc<Event>)>,
    /// Sequence number of the ring's first event.
    first_seq: u64,
    /// Every change after this revision is in the ring.
    floor: u64,
    bytes: usize,
    /// No position is valid any more.
    closed: bool,
    /// Who is woken by which change.
    dispatch: Dispatch,
}

/// The objects and recent changes of one resource.
#[derive(Debug)]
pub struct ResourceCache {
    /// The kind whose objects these are.
    pub kind: Arc<Kind>,
    state: RwLock<State>,
    /// Sequence number after the newest event; wakes watchers.
    tail: watch::Sender<u64>,
    /// Counts changes of the objects, a reset as one.
    version: AtomicU64,
}

/// What a watcher finds at its position.
#[derive(Debug)]
pub(super) enum Slice {
    /// Events from the position on, and the position after them.
    Events(Vec<Arc<Event>>, u64),
    /// The position fell off the ring.
    Gone,
}

impl ResourceCache {
    pub(crate) fn new(kind: Arc<Kind>) -> Self {
        Self {
            kind,
            state: RwLock::default(),
            tail: watch::Sender::new(0),
            version: AtomicU64::new(1),
        }
    }

    /// A cache of nothing, of a kind that is gone.
    pub(super) fn closed(kind: Arc<Kind>) -> Self {
        let state = State {
            closed: true,
            ..State::default()
        };
        Self {
            state: RwLock::new(state),
            ..Self::new(kind)
        }
    }

    /// Empties the cache and ends its watches: the kind is gone or has changed.
    pub(crate) fn close(&self) {
        self.state.write().closed = true;
        self.reset(ObjMap::new(), 0);
    }

    /// The object, as of now.
    #[must_use]
    pub fn get(&self, key: &ObjKey) -> Option<Arc<Obj>> {
        self.state.read().objects.get(key).cloned()
    }

    /// The objects, as of now. O(1).
    #[must_use]
    pub fn snapshot(&self) -> OrdMap<ObjKey, Arc<Obj>> {
        self.state.read().objects.clone()
    }

    /// Number of objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Whether there is no object.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes with every change of an object; what was read before is older than it.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn tail(&self) -> watch::Receiver<u64> {
        self.tail.subscribe()
    }

    /// The objects and the ring position that continues them without a gap.
    pub(super) fn snapshot_and_position(&self) -> (ObjMap, u64) {
        let state = self.state.read();
        (state.objects.clone(), state.end())
    }

    /// The objects, the ring position that continues them, and a revision that they hold at: the
    /// newest change's.
    pub(super) fn state(&self) -> (ObjMap, u64, u64) {
        let state = self.state.read();
        let newest = state.ring.back().map_or(state.floor, |(_, event)| event.rv);
        (state.objects.clone(), state.end(), newest)
    }

    /// The ring position of the first event after `rv`; `None` when it may have fallen off.
    pub(super) fn position_after(&self, rv: u64) -> Option<u64> {
        let state = self.state.read();
        if rv < state.floor || state.closed {
            return None;
        }
        let index = state.ring.partition_point(|(_, event)| event.rv <= rv);
        Some(state.first_seq + index as u64)
    }

    /// How many watchers are woken together: by every change, or by what is of `interest`.
    pub(super) fn watchers(&self, interest: Option<&Interest>) -> usize {
        match interest {
            None => self.tail.receiver_count(),
            Some(interest) => self.state.read().dispatch.count(interest),
        }
    }

    /// Adds a watcher that sleeps through what does not concern it; it stands at the ring's end
    /// when `position` is there, otherwise it is roused at once.
    pub(super) fn sleep(&self, interest: &Interest, position: u64) -> (u64, Arc<Sleeper>) {
        let mut state = self.state.write();
        let (number, sleeper) = state.dispatch.add(interest);
        if position < state.end() || state.closed {
            sleeper.put_back(position);
        }
        (number, sleeper)
    }

    pub(super) fn leave(&self, interest: &Interest, number: u64) {
        self.state.write().dispatch.remove(interest, number);
    }

    /// Up to `max` events from `position` on, or from the first that concerns `sleeper`.
    pub(super) fn slice(&self, position: u64, sleeper: Option<&Sleeper>, max: usize) -> Slice {
        let state = self.state.read();
        if state.closed {
            return Slice::Gone;
        }
        let position = match sleeper.map(Sleeper::take) {
            None => position,
            Some(Some(first)) => position.max(first),
            // Nothing up to the end concerns it.
            Some(None) => position.max(state.end()),
        };
        let Some(skip) = position.checked_sub(state.first_seq) else {
            return Slice::Gone;
        };
        let Ok(skip) = usize::try_from(skip) else {
            return Slice::Events(Vec::new(), position);
        };
        let events: Vec<Arc<Event>> = state
            .ring
            .iter()
            .skip(skip)
            .take(max)
            .map(|(_, event)| Arc::clone(event))
            .collect();
        let next = position + events.len() as u64;
        if let Some(sleeper) = sleeper
            && next < state.end()
        {
            sleeper.put_back(next);
        }
        Slice::Events(events, next)
    }

    /// The objects as they were at `rv`: the present ones with later changes undone. `None` when
    /// those changes are no longer known. Takes time in the number of later changes.
    pub(super) fn snapshot_at(&self, rv: u64) -> Option<ObjMap> {
        let (mut objects, later) = {
            let state = self.state.read();
            if rv < state.floor {
                return None;
            }
            let later: Vec<Arc<Event>> = state
                .ring
                .iter()
                .rev()
                .take_while(|(_, event)| event.rv > rv)
                .map(|(_, event)| Arc::clone(event))
                .collect();
            (state.objects.clone(), later)
        };
        for event in later {
            match &event.prev {
                Some(prev) => objects.insert(prev.key.clone(), Arc::clone(prev)),
                None => objects.remove(&event.obj.key),
            };
        }
        Some(objects)
    }

    /// Replaces everything: the state of the store at `rv`, at start or after a gap.
    pub(crate) fn reset(&self, objects: ObjMap, rv: u64) {
        let tail = {
            let mut state = self.state.write();
            let next = state.end();
            // Positions before the reset must read as gone, also one at the very end.
            let dispatch = std::mem::take(&mut state.dispatch);
            dispatch.rouse_all();
            *state = State {
                dispatch,
                objects,
                first_seq: next + 1,
                floor: rv,
                closed: state.closed,
                ..State::default()
            };
            self.version.fetch_add(1, Ordering::Release);
            next + 1
        };
        self.tail.send_replace(tail);
    }

    /// Applies one change. Only the pump calls this, in revision order.
    pub(crate) fn apply(&self, key: &ObjKey, rv: u64, new: Option<Arc<Obj>>, now: Instant) {
        let tail = {
            let mut state = self.state.write();
            let prev = match &new {
                Some(obj) => state.objects.insert(key.clone(), Arc::clone(obj)),
                None => state.objects.remove(key),
            };
            let event = match (new, prev) {
                (Some(obj), None) => Event {
                    rv,
                    kind: EventKind::Added,
                    obj,
                    prev: None,
                },
                (Some(obj), prev) => Event {
                    rv,
                    kind: EventKind::Modified,
                    obj,
                    prev,
                },
                (None, Some(prev)) => {
                    let obj = Arc::new(prev.at_revision(rv));
                    Event {
                        rv,
                        kind: EventKind::Deleted,
                        obj,
                        prev: Some(prev),
                    }
                }
                (None, None) => return,
            };
            self.version.fetch_add(1, Ordering::Release);
            state.bytes += event.size();
            let prev = event.prev.as_deref();
            state.dispatch.rouse(state.end(), &event.obj, prev);
            state.ring.push_back((now, Arc::new(event)));
            state.trim(now);
            state.end()
        };
        self.tail.send_replace(tail);
    }

    /// Drops events that are too old; called from time to time, so that an idle resource frees
    /// what its ring keeps.
    pub(super) fn trim(&self, now: Instant) {
        self.state.write().trim(now);
    }
}

impl State {
    /// Sequence number after the newest event.
    fn end(&self) -> u64 {
        self.first_seq + self.ring.len() as u64
    }

    fn trim(&mut self, now: Instant) {
        while let Some((at, _)) = self.ring.front() {
            let old = now.duration_since(*at) > RING_AGE && self.ring.len() > RING_EVENTS_MIN;
            if !old && self.bytes <= RING_BYTES_MAX {
                break;
            }
            if let Some((_, event)) = self.ring.pop_front() {
                self.bytes -= event.size();
                self.first_seq += 1;
                self.floor = self.floor.max(event.rv);
            }
        }
    }
}
