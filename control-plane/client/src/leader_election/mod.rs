//! One of several control planes acts at a time: a lock on a Lease (`coordination.k8s.io`).
//!
//! Owns: acquire, renew, give up. `decide` is pure; the loop around it reads and writes the Lease. The
//! holder stops its work before its lease can be taken: it gives up after `renew_deadline` without a
//! renewal, others wait for `lease_duration` counted from when *they* saw the last renewal, so clocks
//! need not agree.

use std::sync::Arc;
use std::time::Duration;

use proto_api::types::MicroTime;
use proto_api::types::coordination::v1::{Lease, LeaseSpec};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::{Api, ApiError, ObjectKey};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::resources::{LEASES, NAMESPACES};

/// Which lease, who we are, and the times.
#[derive(Debug, Clone)]
pub struct LeaderConfig {
    /// The lease.
    pub lease: ObjectKey,
    /// Our name, unique in the cluster.
    pub identity: String,
    /// How long others wait for a silent holder.
    pub lease_duration: Duration,
    /// How long a holder tries to renew before it gives up. Below `lease_duration`.
    pub renew_deadline: Duration,
    /// Pause between tries.
    pub retry_period: Duration,
}

impl LeaderConfig {
    /// The usual times: 15 s, 10 s, 2 s.
    #[must_use]
    pub fn new(lease: ObjectKey, identity: String) -> Self {
        Self {
            lease,
            identity,
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// What the last look at the lease showed, and when it last changed for us.
#[derive(Debug, Clone)]
struct Observed {
    spec: LeaseSpec,
    at: Instant,
    /// The lease's resourceVersion.
    revision: u64,
}

/// One time of leading.
#[derive(Debug, Clone)]
pub struct Term {
    /// Ends when the lease is lost. Whoever leads may end it as well, to give the lease back.
    pub stop: CancellationToken,
    /// The lease's resourceVersion when the term began: while the lease has it, nobody else leads.
    pub revision: u64,
}

#[derive(Debug, PartialEq)]
enum Step {
    /// Somebody else holds it.
    Wait,
    /// Write this.
    Write(LeaseSpec),
}

/// What to do about the lease as it is.
fn decide(config: &LeaderConfig, lease: &LeaseSpec, silent_for: Duration, now: MicroTime) -> Step {
    let holder = lease.holder_identity.as_deref().unwrap_or_default();
    let ours = holder == config.identity;
    let duration = lease
        .lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok());
    let duration = duration.map_or(config.lease_duration, Duration::from_secs);
    if !ours && !holder.is_empty() && silent_for < duration {
        return Step::Wait;
    }
    let transitions = lease.lease_transitions.unwrap_or(0);
    Step::Write(LeaseSpec {
        holder_identity: Some(config.identity.clone()),
        lease_duration_seconds: i32::try_from(config.lease_duration.as_secs()).ok(),
        acquire_time: if ours {
            lease.acquire_time.clone()
        } else {
            Some(now.clone())
        },
        renew_time: Some(now),
        lease_transitions: Some(if ours {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        ..lease.clone()
    })
}

/// Holds a lease while work runs.
#[derive(Clone)]
pub struct LeaderElector {
    api: Arc<dyn Api>,
    config: LeaderConfig,
    clock: Clock,
}

impl std::fmt::Debug for LeaderElector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaderElector")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl LeaderElector {
    /// An elector that has not asked for the lease yet.
    #[must_use]
    pub fn new(api: Arc<dyn Api>, config: LeaderConfig, clock: Clock) -> Self {
        Self { api, config, clock }
    }

    /// Waits for the lease, runs `lead` with a term that ends when the lease is lost, and starts
    /// over; until `shutdown`. The lease is given back at an orderly end.
    pub async fn run<F, Fut>(&self, shutdown: CancellationToken, mut lead: F)
    where
        F: FnMut(Term) -> Fut,
        Fut: Future<Output = ()>,
    {
        while !shutdown.is_cancelled() {
            let mut observed = None;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.acquire(&mut observed) => {}
            }
            info!(lease = %self.config.lease, identity = %self.config.identity, "leads");
            let stop = shutdown.child_token();
            let term = Term {
                stop: stop.clone(),
                revision: observed.as_ref().map_or(0, |seen: &Observed| seen.revision),
            };
            let renewals = async {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.renew(&mut observed) => {
                        warn!(lease = %self.config.lease, "lease lost, stops leading");
                        stop.cancel();
                    }
                }
            };
            // Both sides end with `stop`, so neither is dropped half-way.
            tokio::join!(renewals, async {
                lead(term).await;
                stop.cancel();
            });
            self.release(observed).await;
        }
    }

    async fn acquire(&self, observed: &mut Option<Observed>) {
        let mut backoff = Backoff::new(self.config.retry_period, self.config.retry_period);
        loop {
            match self.try_hold(observed).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => warn!(lease = %self.config.lease, %error, "cannot take the lease"),
            }
            tokio::time::sleep(backoff.next_jittered()).await;
        }
    }

    /// Returns when the lease is lost.
    async fn renew(&self, observed: &mut Option<Observed>) {
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(self.config.retry_period).await;
            let deadline = last + self.config.renew_deadline;
            match tokio::time::timeout_at(deadline, self.try_hold(observed)).await {
                Ok(Ok(true)) => last = Instant::now(),
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) => {
                    warn!(lease = %self.config.lease, %error, "cannot renew the lease");
                    if Instant::now() >= deadline {
                        return;
                    }
                }
            }
        }
    }

    /// Whether we hold the lease after this try.
    async fn try_hold(&self, observed: &mut Option<Observed>) -> Result<bool, ApiError> {
        let now = MicroTime::from_timestamp(self.clock.now());
        let (lease, revision) = match self.api.get(LEASES, &self.config.lease).await {
            Ok(object) => {
                let lease = object.decode::<Lease>();
                (lease.map_err(|error| malformed(&error))?, object.revision)
            }
            Err(error) if error.is_not_found() => {
                return self.create(observed, now).await;
            }
            Err(error) => return Err(error),
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let seen = match observed.take() {
            Some(seen) if seen.spec == spec => seen,
            _ => Observed {
                spec: spec.clone(),
                at: Instant::now(),
                revision,
            },
        };
        let silent_for = seen.at.elapsed();
        *observed = Some(seen);
        match decide(&self.config, &spec, silent_for, now) {
            Step::Wait => Ok(false),
            Step::Write(spec) => self.write(lease, spec, observed).await,
        }
    }

    async fn create(
        &self,
        observed: &mut Option<Observed>,
        now: MicroTime,
    ) -> Result<bool, ApiError> {
        let Step::Write(spec) = decide(&self.config, &LeaseSpec::default(), Duration::ZERO, now)
        else {
            return Ok(false);
        };
        let mut lease = Lease {
            spec: Some(spec.clone()),
            ..Lease::default()
        };
        lease.metadata.name = Some(self.config.lease.name.to_string());
        let body = serde_json::to_value(&lease).map_err(|error| malformed(&error))?;
        let made = match self.create_lease(body.clone()).await {
            // At the very first start nobody leads yet, so nobody has made the namespace.
            Err(error) if error.is_not_found() => {
                let namespace = json!({"metadata": {"name": self.config.lease.namespace}});
                match self.api.create(NAMESPACES, "", namespace).await {
                    Err(error) if !error.is_already_exists() => return Err(error),
                    Ok(_) | Err(_) => {}
                }
                self.create_lease(body).await?
            }
            other => other?,
        };
        *observed = made.map(|revision| Observed {
            spec,
            at: Instant::now(),
            revision,
        });
        Ok(made.is_some())
    }

    /// The new lease's revision; `None` when somebody was faster.
    async fn create_lease(&self, body: serde_json::Value) -> Result<Option<u64>, ApiError> {
        match self
            .api
            .create(LEASES, &self.config.lease.namespace, body)
            .await
        {
            Ok(made) => Ok(Some(made.revision)),
            Err(error) if error.is_already_exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn write(
        &self,
        mut lease: Lease,
        spec: LeaseSpec,
        observed: &mut Option<Observed>,
    ) -> Result<bool, ApiError> {
        lease.spec = Some(spec.clone());
        let body = serde_json::to_value(&lease).map_err(|error| malformed(&error))?;
        match self
            .api
            .update(LEASES, &self.config.lease, None, body)
            .await
        {
            Ok(written) => {
                *observed = Some(Observed {
                    spec,
                    at: Instant::now(),
                    revision: written.revision,
                });
                Ok(true)
            }
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the lease back, so that a successor need not wait.
    async fn release(&self, observed: Option<Observed>) {
        let held = observed.and_then(|seen| seen.spec.holder_identity);
        if held.as_deref() != Some(self.config.identity.as_str()) {
            return;
        }
        let given_back = async {
            let object = self.api.get(LEASES, &self.config.lease).await?;
            let mut lease = object
                .decode::<Lease>()
                .map_err(|error| malformed(&error))?;
            let mut spec = lease.spec.take().unwrap_or_default();
            if spec.holder_identity.as_deref() != Some(self.config.identity.as_str()) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            self.write(lease, spec, &mut None).await.map(|_held| ())
        };
        let deadline = self.config.renew_deadline;
        match tokio::time::timeout(deadline, given_back).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(lease = %self.config.lease, %error, "cannot give the lease back")
            }
            Err(_) => warn!(lease = %self.config.lease, "no answer when giving the lease back"),
        }
    }
}

fn malformed(error: &serde_json::Error) -> ApiError {
    ApiError {
        code: 500,
        reason: "InternalError".to_owned(),
        message: format!("the lease does not decode: {error}"),
    }
}

#[cfg(test)]
mod tests;
