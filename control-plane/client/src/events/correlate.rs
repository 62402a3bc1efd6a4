//! What becomes of an event: written anew, counted on one that exists, merged with similar ones, dropped.
//!
//! Owns: the rules, which are those of every Kubernetes component: the same event again raises `count`;
//! more than ten messages of one reason in ten minutes become one combined event; one object gets a
//! burst of 25 and then one in five minutes. Beside that a budget for the whole process. Pure: time
//! comes in.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use super::Note;

/// Distinct messages of one reason before they are merged.
pub(super) const SIMILAR_MAX: usize = 10;
/// How long similar messages are counted together.
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// Events one object may have at once, and how long until it may have one more.
pub(super) const OBJECT_BURST: u32 = 25;
const OBJECT_REFILL: Duration = Duration::from_secs(300);
/// Writes the process may make at once, and how long until it may make one more.
pub(super) const TOTAL_BURST: u32 = 2000;
const TOTAL_REFILL: Duration = Duration::from_millis(5);
/// Entries each memory holds at most; the longest unused go first.
pub(super) const REMEMBERED_MAX: usize = 4096;

/// The identity of "the same event".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct EventId(u64);

#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    New { id: EventId, message: String },
    Again { name: String, count: i32 },
    Drop,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    refilled: Instant,
    used: Instant,
}

impl Bucket {
    fn full(burst: u32, now: Instant) -> Self {
        Self {
            tokens: burst,
            refilled: now,
            used: now,
        }
    }

    fn take(&mut self, burst: u32, refill: Duration, now: Instant) -> bool {
        let periods = now.duration_since(self.refilled).as_nanos() / refill.as_nanos();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        self.refilled += refill.saturating_mul(periods);
        self.tokens = self.tokens.saturating_add(periods).min(burst);
        if self.tokens == burst {
            self.refilled = now;
        }
        self.used = now;
        if self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        true
    }
}

#[derive(Debug)]
struct Similar {
    messages: Vec<u64>,
    since: Instant,
}

#[derive(Debug)]
struct Written {
    name: String,
    count: i32,
    used: Instant,
}

#[derive(Debug)]
pub(super) struct Correlator {
    objects: HashMap<u64, Bucket>,
    similar: HashMap<u64, Similar>,
    written: HashMap<EventId, Written>,
    total: Option<Bucket>,
}

fn hash(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

fn object_key(note: &Note) -> u64 {
    let about = &note.regarding;
    hash((
        note.component,
        &about.kind,
        &about.namespace,
        &about.name,
        &about.uid,
    ))
}

impl Correlator {
    pub(super) fn new() -> Self {
        Self {
            objects: HashMap::new(),
            similar: HashMap::new(),
            written: HashMap::new(),
            total: None,
        }
    }

    pub(super) fn take(&mut self, note: &Note, now: Instant) -> Verdict {
        let object = object_key(note);
        let bucket = self
            .objects
            .entry(object)
            .or_insert_with(|| Bucket::full(OBJECT_BURST, now));
        if !bucket.take(OBJECT_BURST, OBJECT_REFILL, now) {
            return Verdict::Drop;
        }
        let total = self
            .total
            .get_or_insert_with(|| Bucket::full(TOTAL_BURST, now));
        if !total.take(TOTAL_BURST, TOTAL_REFILL, now) {
            return Verdict::Drop;
        }
        let (id, message) = self.merge(object, note, now);
        let verdict = match self.written.get_mut(&id) {
            Some(written) => {
                written.count = written.count.saturating_add(1);
                written.used = now;
                Verdict::Again {
                    name: written.name.clone(),
                    count: written.count,
                }
            }
            None => Verdict::New { id, message },
        };
        self.bound();
        verdict
    }

    /// The event `id` now exists as `name`.
    pub(super) fn written(&mut self, id: EventId, name: String) {
        self.written.insert(
            id,
            Written {
                name,
                count: 1,
                used: Instant::now(),
            },
        );
    }

    /// The event that `note` would be counted on does not exist any more.
    pub(super) fn forget(&mut self, note: &Note) {
        let group = group_key(object_key(note), note);
        self.written.remove(&EventId(hash((group, &note.message))));
        self.written.remove(&EventId(group));
    }

    fn merge(&mut self, object: u64, note: &Note, now: Instant) -> (EventId, String) {
        let group = group_key(object, note);
        let similar = self.similar.entry(group).or_insert_with(|| Similar {
            messages: Vec::new(),
            since: now,
        });
        if now.duration_since(similar.since) > SIMILAR_WINDOW {
            similar.messages.clear();
            similar.since = now;
        }
        let message = hash(&note.message);
        if !similar.messages.contains(&message) {
            if similar.messages.len() >= SIMILAR_MAX {
                let text = format!("(combined from similar events): {}", note.message);
                return (EventId(group), text);
            }
            similar.messages.push(message);
        }
        (EventId(hash((group, &note.message))), note.message.clone())
    }

    fn bound(&mut self) {
        keep_newest(&mut self.objects, |bucket| bucket.used);
        keep_newest(&mut self.similar, |similar| similar.since);
        keep_newest(&mut self.written, |written| written.used);
    }
}

fn group_key(object: u64, note: &Note) -> u64 {
    hash((object, note.event_type, note.reason))
}

/// Over the bound, forgets the older half: one pass in every `REMEMBERED_MAX / 2` insertions.
fn keep_newest<K: Eq + Hash, V>(all: &mut HashMap<K, V>, used: impl Fn(&V) -> Instant) {
    if all.len() <= REMEMBERED_MAX {
        return;
    }
    let mut times: Vec<Instant> = all.values().map(&used).collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let median = *median;
    all.retain(|_, value| used(value) > median);
}
