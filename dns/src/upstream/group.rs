//! Servers that can answer the same questions: which one is asked, and which not.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::names;
use crate::upstream::exchange::{self, Server};
use crate::upstream::provider::Provider;
use crate::upstream::{Failed, Question, Resolved};
use crate::wire::{CLASS_IN, rtype};

/// All attempts of one question together: well below the 5 s after which clients ask again.
const TOTAL: Duration = Duration::from_secs(2);
/// One attempt.
const ATTEMPT: Duration = Duration::from_millis(700);
/// Failures in a row after which a server is asked last.
const DOWN_AFTER: u32 = 2;

#[derive(Debug)]
pub(crate) struct Group {
    upstreams: Vec<Upstream>,
    /// A name that nobody else asks for, while a probe runs.
    probe: Mutex<Option<Box<[u8]>>>,
    probe_seen: AtomicBool,
}

#[derive(Debug)]
struct Upstream {
    server: Server,
    failures: AtomicU32,
    looped: AtomicBool,
    /// Its address is one of ours, as we learned after the start.
    ours: AtomicBool,
}

impl Group {
    /// `None`: no server is left besides our own, or there is nothing to ask with.
    pub(crate) fn new(
        addresses: &[SocketAddr],
        own: &[IpAddr],
        provider: &Provider,
    ) -> Option<Self> {
        let context = exchange::context(ATTEMPT)
            .inspect_err(|error| tracing::error!(%error, "upstreams cannot be asked"))
            .ok()?;
        let upstreams: Vec<_> = addresses
            .iter()
            .filter(|address| {
                let ours = own.contains(&address.ip());
                if ours {
                    tracing::error!(upstream = %address, "upstream is this server, not used");
                }
                !ours
            })
            .map(|address| Upstream {
                server: Server::new(*address, provider.clone(), Arc::clone(&context)),
                failures: AtomicU32::new(0),
                looped: AtomicBool::new(false),
                ours: AtomicBool::new(false),
            })
            .collect();
        let (probe, probe_seen) = (Mutex::new(None), AtomicBool::new(false));
        (!upstreams.is_empty()).then_some(Self {
            upstreams,
            probe,
            probe_seen,
        })
    }

    /// Asks one server after the other until one has an answer or the time is over.
    pub(crate) async fn ask(
        &self,
        question: &Question,
        metrics: &Arc<Metrics>,
    ) -> Result<Resolved, Failed> {
        let deadline = Instant::now() + TOTAL;
        let order = self.order();
        // A single server is asked again: the packet may have been lost.
        for upstream in order.iter().chain(&order) {
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            let until = deadline.min(now + ATTEMPT);
            let asked = upstream.server.ask(question, until).await;
            metrics.proxied(upstream.server.address(), &asked, now.elapsed());
            match asked {
                Ok(resolved) if is_answer(resolved.rcode) => {
                    upstream.failures.store(0, Ordering::Relaxed);
                    return Ok(resolved);
                }
                // It is there, but cannot say: the next one may.
                Ok(_) => upstream.failures.store(0, Ordering::Relaxed),
                Err(error) => {
                    upstream.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(
                        upstream = %upstream.server.address(),
                        name = %names::text(&question.name), ?error,
                        "upstream gave no answer"
                    );
                }
            }
        }
        Err(Failed)
    }

    /// In random order, those that failed lately last, those that loop not at all.
    fn order(&self) -> Vec<&Upstream> {
        use rand::seq::SliceRandom as _;
        let usable = |upstream: &&Upstream| {
            !upstream.looped.load(Ordering::Relaxed) && !upstream.ours.load(Ordering::Relaxed)
        };
        let mut order: Vec<_> = self.upstreams.iter().filter(usable).collect();
        order.shuffle(&mut rand::rng());
        order.sort_by_key(|upstream| upstream.failures.load(Ordering::Relaxed) >= DOWN_AFTER);
        order
    }

    /// Servers at these addresses are not asked from now on: they are this server.
    pub(crate) fn exclude(&self, own: &[IpAddr]) {
        for upstream in &self.upstreams {
            let address = upstream.server.address();
            let ours = own.contains(&address.ip());
            if ours && !upstream.ours.swap(ours, Ordering::Relaxed) {
                tracing::error!(upstream = %address, "upstream is this server, not used");
            }
        }
    }

    /// Whether this is the name of a running probe.
    pub(crate) fn sees(&self, name: &[u8]) -> bool {
        let seen = self.probe.lock().as_deref() == Some(name);
        if seen {
            self.probe_seen.store(true, Ordering::Relaxed);
        }
        seen
    }

    /// Asks each server for a name that only we know, and looks whether it asks us.
    pub(crate) async fn probe(&self) {
        for upstream in &self.upstreams {
            let labels = [rand::random::<u64>(), rand::random()].map(|n| n.to_string());
            let Some(name) = names::absolute(&labels.join(".")) else {
                return;
            };
            self.probe_seen.store(false, Ordering::Relaxed);
            *self.probe.lock() = Some(name.clone());
            let question = Question {
                name,
                qtype: rtype::HINFO,
                qclass: CLASS_IN,
                dnssec_ok: false,
                checking_disabled: false,
            };
            // Only whether the question comes back matters, not the answer.
            drop(
                upstream
                    .server
                    .ask(&question, Instant::now() + ATTEMPT)
                    .await,
            );
            *self.probe.lock() = None;
            let looped = self.probe_seen.load(Ordering::Relaxed);
            if looped != upstream.looped.swap(looped, Ordering::Relaxed) {
                if looped {
                    tracing::error!(
                        upstream = %upstream.server.address(),
                        "upstream asks this server, so it is not used: give upstreams that do not \
                         point to the cluster's DNS address or to a local stub resolver that does"
                    );
                } else {
                    tracing::info!(
                        upstream = %upstream.server.address(),
                        "upstream does not loop any more"
                    );
                }
            }
        }
    }
}

fn is_answer(rcode: ResponseCode) -> bool {
    matches!(rcode, ResponseCode::NoError | ResponseCode::NXDomain)
}
