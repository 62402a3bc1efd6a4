//! Answers from outside, bounded in bytes. Time comes in as an argument.
//!
//! An entry stays for an hour beyond its time, to be given stale. When the bound is reached the
//! oldest entry goes, unless it was used since it was last looked at (second chance).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::upstream::{Age, Aged, Question, Resolved};

/// How long an answer may be given after its time, RFC 8767 section 5.
const STALE_FOR: Duration = Duration::from_secs(3600);
/// The time to live of a stale answer.
pub(crate) const STALE_TTL_S: u32 = 30;
/// What an entry costs beside its records.
const ENTRY_BYTES: usize = 256;
/// What a record costs, about: hickory's types are larger than the wire.
const RECORD_BYTES: usize = 256;

#[derive(Debug)]
pub(crate) struct Cache {
    entries: HashMap<Question, Entry>,
    /// Questions in the order in which they came, or were spared last.
    order: VecDeque<Question>,
    bytes: usize,
    bytes_max: usize,
    evicted: u64,
}

#[derive(Debug)]
struct Entry {
    resolved: Option<Arc<Resolved>>,
    stored: Instant,
    fresh_until: Instant,
    /// The failure after which nothing is asked for a while.
    failed_until: Option<Instant>,
    used: bool,
    bytes: usize,
}

/// What the cache has.
#[derive(Debug)]
pub(crate) enum Found {
    Fresh(Aged),
    Stale(Arc<Resolved>),
    /// Upstream failed a moment ago and there is nothing stale.
    Failed,
    Nothing,
}

impl Cache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let (entries, order) = (HashMap::new(), VecDeque::new());
        Self {
            entries,
            order,
            bytes: 0,
            bytes_max,
            evicted: 0,
        }
    }

    pub(crate) fn get(&mut self, question: &Question, now: Instant) -> Found {
        let Some(entry) = self.entries.get_mut(question) else {
            return Found::Nothing;
        };
        entry.used = true;
        let failed = entry.failed_until.is_some_and(|until| now < until);
        let Some(resolved) = &entry.resolved else {
            return if failed {
                Found::Failed
            } else {
                Found::Nothing
            };
        };
        let resolved = Arc::clone(resolved);
        if now < entry.fresh_until {
            let age = u32::try_from((now - entry.stored).as_secs()).unwrap_or(u32::MAX);
            return Found::Fresh(Aged {
                resolved,
                age: Age::Seconds(age),
            });
        }
        if now >= entry.fresh_until + STALE_FOR {
            return if failed {
                Found::Failed
            } else {
                Found::Nothing
            };
        }
        if failed {
            // Asking again would only make the client wait.
            return Found::Fresh(Aged {
                resolved,
                age: Age::Stale,
            });
        }
        Found::Stale(resolved)
    }

    pub(crate) fn put(
        &mut self,
        question: Question,
        resolved: Arc<Resolved>,
        now: Instant,
        ttl: Duration,
    ) {
        let records =
            resolved.answers.len() + resolved.authorities.len() + resolved.additionals.len();
        let bytes = ENTRY_BYTES + 2 * question.name.len() + records * RECORD_BYTES;
        let entry = Entry {
            resolved: Some(resolved),
            stored: now,
            fresh_until: now + ttl,
            failed_until: None,
            used: false,
            bytes,
        };
        self.insert(question, entry);
    }

    /// Notes a failure; a stale answer stays.
    pub(crate) fn put_failure(&mut self, question: Question, now: Instant, ttl: Duration) {
        if let Some(entry) = self.entries.get_mut(&question) {
            entry.failed_until = Some(now + ttl);
            return;
        }
        let bytes = ENTRY_BYTES + 2 * question.name.len();
        let failed_until = Some(now + ttl);
        let entry = Entry {
            resolved: None,
            stored: now,
            fresh_until: now,
            failed_until,
            used: false,
            bytes,
        };
        self.insert(question, entry);
    }

    fn insert(&mut self, question: Question, entry: Entry) {
        self.bytes += entry.bytes;
        match self.entries.insert(question.clone(), entry) {
            Some(before) => self.bytes -= before.bytes,
            None => self.order.push_back(question),
        }
        while self.bytes > self.bytes_max && self.evict() {}
    }

    /// Drops one entry; the loop ends because a spared entry is not spared twice in a row.
    fn evict(&mut self) -> bool {
        while let Some(question) = self.order.pop_front() {
            let Some(entry) = self.entries.get_mut(&question) else {
                continue;
            };
            if std::mem::take(&mut entry.used) {
                self.order.push_back(question);
                continue;
            }
            self.bytes -= entry.bytes;
            self.entries.remove(&question);
            self.evicted += 1;
            return true;
        }
        false
    }

    /// Entries now, and how many were dropped since the last call.
    pub(crate) fn take_figures(&mut self) -> (i64, u64) {
        let entries = i64::try_from(self.entries.len()).unwrap_or(i64::MAX);
        (entries, std::mem::take(&mut self.evicted))
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::ResponseCode;

    use super::*;

    fn question(n: u32) -> Question {
        Question {
            name: n.to_be_bytes().into(),
            qtype: 1,
            qclass: 1,
            dnssec_ok: false,
            checking_disabled: false,
        }
    }

    fn resolved() -> Arc<Resolved> {
        Arc::new(Resolved {
            rcode: ResponseCode::NoError,
            authentic: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        })
    }

    fn found(cache: &mut Cache, now: Instant) -> String {
        match cache.get(&question(1), now) {
            Found::Fresh(aged) => format!("fresh {:?}", aged.age),
            Found::Stale(_) => "stale".to_owned(),
            Found::Failed => "failed".to_owned(),
            Found::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn an_answer_ages_then_goes_stale_then_away() {
        let (mut cache, start) = (Cache::new(1 << 20), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(found(&mut cache, start), "nothing");
        cache.put(question(1), resolved(), start, Duration::from_secs(30));
        assert_eq!(found(&mut cache, after(0)), "fresh Seconds(0)");
        assert_eq!(found(&mut cache, after(29)), "fresh Seconds(29)");
        assert_eq!(found(&mut cache, after(30)), "stale");
        cache.put_failure(question(1), after(40), Duration::from_secs(2));
        assert_eq!(
            found(&mut cache, after(41)),
            "fresh Stale",
            "without asking again"
        );
        assert_eq!(found(&mut cache, after(42)), "stale");
        assert_eq!(found(&mut cache, after(3629)), "stale");
        assert_eq!(found(&mut cache, after(3630)), "nothing");
    }

    #[test]
    fn a_failure_is_kept_for_a_moment() {
        let (mut cache, start) = (Cache::new(1 << 20), Instant::now());
        cache.put_failure(question(1), start, Duration::from_secs(2));
        assert_eq!(found(&mut cache, start), "failed");
        assert_eq!(found(&mut cache, start + Duration::from_secs(2)), "nothing");
    }

    #[test]
    fn bytes_are_bounded_and_what_is_used_stays() {
        let start = Instant::now();
        let mut cache = Cache::new(10 * (ENTRY_BYTES + 8));
        for n in 0..100 {
            cache.put(question(n), resolved(), start, Duration::from_secs(30));
            cache.get(&question(0), start);
            assert!(cache.bytes <= cache.bytes_max);
        }
        assert!(matches!(cache.get(&question(0), start), Found::Fresh(_)));
        assert!(matches!(cache.get(&question(50), start), Found::Nothing));
        let (entries, evicted) = cache.take_figures();
        assert_eq!((entries, evicted), (10, 90));
        assert_eq!(cache.order.len(), 10);
    }
}
