//! Names outside the cluster: asked upstream, shared, cached, and answered stale when upstream is
//! down.
//!
//! One question is asked once, however many clients wait for it. A stale answer is given when a
//! fresh one takes longer than [`STALE_AFTER`] or does not come (RFC 8767); a failure is kept for
//! [`FAILURE_TTL`] (RFC 9520) and never replaces a stale answer.

mod cache;
mod exchange;
mod group;
mod provider;
mod resolv_conf;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, Record};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::DnsConfig;
use crate::metrics::Metrics;
use crate::names;

use self::cache::{Cache, Found};
use self::group::Group;
use self::provider::Provider;

pub(crate) use exchange::ExchangeError;
pub use resolv_conf::{ResolvConfError, upstreams_from_resolv_conf};

/// How long a client waits for a fresh answer when there is a stale one.
const STALE_AFTER: Duration = Duration::from_millis(200);
/// How long a failure is kept.
const FAILURE_TTL: Duration = Duration::from_secs(2);
/// Between two looks for forwarding loops.
const PROBE_EVERY: Duration = Duration::from_secs(30);

/// What is asked; equal questions have equal answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// Lower case, whole.
    pub(crate) name: Box<[u8]>,
    pub(crate) qtype: u16,
    pub(crate) qclass: u16,
    pub(crate) dnssec_ok: bool,
    pub(crate) checking_disabled: bool,
}

/// An answer from upstream, without its OPT record.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) rcode: ResponseCode,
    pub(crate) authentic: bool,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
}

/// An answer and what its records' times to live are now.
#[derive(Clone, Debug)]
pub(crate) struct Aged {
    pub(crate) resolved: Arc<Resolved>,
    pub(crate) age: Age,
}

/// How old an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// So many seconds less than upstream said.
    Seconds(u32),
    /// Out of date; good for as long as [`cache::STALE_TTL_S`].
    Stale,
}

impl Age {
    pub(crate) fn ttl(self, ttl: u32, max: u32) -> u32 {
        match self {
            Self::Seconds(age) => ttl.min(max).saturating_sub(age),
            Self::Stale => cache::STALE_TTL_S.min(max),
        }
    }
}

/// No answer could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no upstream answered")]
pub(crate) struct Failed;

type Outcome = Result<Arc<Resolved>, Failed>;

/// Asks upstream servers.
#[derive(Debug)]
pub(crate) struct Forwarder {
    /// Longest domain first.
    stubs: Vec<(Box<[u8]>, Arc<Group>)>,
    default: Option<Arc<Group>>,
    cache: Mutex<Cache>,
    waiting: Mutex<HashMap<Question, watch::Receiver<Option<Outcome>>>>,
    ttl_max_s: u32,
    tasks: TaskTracker,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
}

impl Forwarder {
    /// `own`: addresses that lead back here; upstreams among them are left out.
    pub(crate) fn new(
        config: &DnsConfig,
        own: &[IpAddr],
        tasks: TaskTracker,
        stop: CancellationToken,
        metrics: Arc<Metrics>,
    ) -> Self {
        let provider = Provider::new(tasks.clone(), stop.clone());
        let group = |upstreams: &[_]| Group::new(upstreams, own, &provider).map(Arc::new);
        let mut stubs: Vec<_> = config
            .stub_domains
            .iter()
            .filter_map(|stub| Some((names::absolute(&stub.domain)?, group(&stub.upstreams)?)))
            .collect();
        stubs.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.len()));
        Self {
            stubs,
            default: group(&config.upstreams),
            cache: Mutex::new(Cache::new(config.cache_bytes_max)),
            waiting: Mutex::default(),
            ttl_max_s: config.cache_ttl_max_s,
            tasks,
            stop,
            metrics,
        }
    }

    /// Whether there is anybody to ask.
    pub(crate) fn is_any(&self) -> bool {
        self.default.is_some() || !self.stubs.is_empty()
    }

    /// The longest time to live that is told.
    pub(crate) fn ttl_max_s(&self) -> u32 {
        self.ttl_max_s
    }

    fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.stubs
            .iter()
            .map(|(_, group)| group)
            .chain(&self.default)
    }

    fn group(&self, name: &[u8]) -> Option<&Arc<Group>> {
        let stub = self
            .stubs
            .iter()
            .find(|(domain, _)| names::before(name, domain).is_some());
        stub.map(|(_, group)| group).or(self.default.as_ref())
    }

    /// The answer to a question, from the cache or from upstream.
    pub(crate) async fn resolve(self: &Arc<Self>, question: Question) -> Result<Aged, Failed> {
        let now = Instant::now();
        let found = self.cache.lock().get(&question, now);
        let stale = match found {
            Found::Fresh(aged) => {
                self.metrics.cache_hit(aged.resolved.rcode);
                return Ok(aged);
            }
            Found::Failed => {
                self.metrics.cache_hit(ResponseCode::ServFail);
                return Err(Failed);
            }
            Found::Stale(resolved) => Some(resolved),
            Found::Nothing => None,
        };
        self.metrics.cache_miss();
        let mut waiting = self.ask(question).ok_or(Failed)?;
        let fresh = async move {
            // The task always leaves a result, unless it is stopped.
            match waiting.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone().unwrap_or(Err(Failed)),
                Err(_) => Err(Failed),
            }
        };
        let outcome = match &stale {
            None => fresh.await,
            Some(_) => tokio::time::timeout(STALE_AFTER, fresh)
                .await
                .unwrap_or(Err(Failed)),
        };
        match (outcome, stale) {
            (Ok(resolved), _) => Ok(Aged {
                resolved,
                age: Age::Seconds(0),
            }),
            (Err(Failed), Some(resolved)) => {
                self.metrics.served_stale.inc();
                Ok(Aged {
                    resolved,
                    age: Age::Stale,
                })
            }
            (Err(Failed), None) => Err(Failed),
        }
    }

    /// Joins those who wait for the same answer, or begins to ask.
    fn ask(self: &Arc<Self>, question: Question) -> Option<watch::Receiver<Option<Outcome>>> {
        let mut waiting = self.waiting.lock();
        if let Some(receiver) = waiting.get(&question) {
            return Some(receiver.clone());
        }
        let group = Arc::clone(self.group(&question.name)?);
        let (sender, receiver) = watch::channel(None);
        waiting.insert(question.clone(), receiver.clone());
        drop(waiting);
        let this = Arc::clone(self);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let asked = stop
                .run_until_cancelled(group.ask(&question, &this.metrics))
                .await;
            let outcome = asked.unwrap_or(Err(Failed)).map(Arc::new);
            this.keep(&question, &outcome);
            this.waiting.lock().remove(&question);
            sender.send_replace(Some(outcome));
        });
        Some(receiver)
    }

    fn keep(&self, question: &Question, outcome: &Outcome) {
        let now = Instant::now();
        let mut cache = self.cache.lock();
        match outcome {
            Ok(resolved) => {
                if let Some(ttl_s) = ttl_s(resolved) {
                    let ttl = Duration::from_secs(ttl_s.min(self.ttl_max_s).into());
                    cache.put(question.clone(), Arc::clone(resolved), now, ttl);
                }
            }
            Err(Failed) => cache.put_failure(question.clone(), now, FAILURE_TTL),
        }
        let (entries, evicted) = cache.take_figures();
        drop(cache);
        self.metrics.cache_entries.set(entries);
        self.metrics.cache_evictions.inc_by(evicted);
    }

    /// Servers at these addresses are not asked from now on: they lead back here.
    pub(crate) fn exclude(&self, own: &[IpAddr]) {
        for group in self.groups() {
            group.exclude(own);
        }
    }

    /// Whether this question is our own probe come back. Notes the loop.
    pub(crate) fn is_probe(&self, name: &[u8]) -> bool {
        self.groups().any(|group| group.sees(name))
    }

    /// Looks for forwarding loops until it is stopped: an upstream that brings our own probe back
    /// is not asked any more, until it stops doing so.
    pub(crate) async fn watch_loops(self: Arc<Self>) -> ! {
        loop {
            for group in self.groups() {
                group.probe().await;
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }
}

/// How long an answer holds. `None`: it must not be kept.
fn ttl_s(resolved: &Resolved) -> Option<u32> {
    let answers = resolved.answers.iter().map(|record| record.ttl).min();
    let soa = resolved
        .authorities
        .iter()
        .find_map(|record| match &record.data {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
            _ => None,
        });
    match resolved.rcode {
        // NODATA behind an alias holds as long as both.
        ResponseCode::NoError => match (answers, soa) {
            (Some(answers), Some(soa)) => Some(answers.min(soa)),
            (answers, soa) => answers.or(soa),
        },
        ResponseCode::NXDomain => soa.map(|soa| answers.map_or(soa, |answers| answers.min(soa))),
        _ => None,
    }
}
