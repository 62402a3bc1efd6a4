//! The members of an etcd cluster, each with a connection of its own.
//!
//! All calls go to one member until it fails: a refused connection, no leader, no answer. Then all
//! go to the next. A balancer over all connections would go on giving a part of the calls to a member
//! that hangs or is cut off from the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error};
use futures::future::join_all;
use tokio::time::Instant;

use crate::error::StoreError;
use crate::etcd::call::CallError;

/// Pause after every member was tried.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

/// Connections to all members. Clones share the turn.
#[derive(Clone)]
pub(crate) struct Members {
    shared: Arc<Shared>,
}

struct Shared {
    clients: Vec<Client>,
    /// Counts on; the member in use.
    turn: AtomicUsize,
    /// How long a call may take, all tries together.
    timeout: Duration,
}

/// Whether a call may be made again when it is not known to have failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing, or the same twice.
    Always,
    /// Only what was certainly not done.
    IfNotDone,
}

impl Members {
    /// Prepares a connection to each; none is waited for.
    pub(crate) async fn prepare(
        endpoints: &[String],
        options: &ConnectOptions,
        timeout: Duration,
    ) -> Result<Self, StoreError> {
        let mut clients = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let client = Client::connect([endpoint], Some(options.clone())).await;
            let fault =
                |error: Error| StoreError::with(format!("connect to etcd at {endpoint}"), error);
            clients.push(client.map_err(fault)?);
        }
        if clients.is_empty() {
            return Err(StoreError::new("connect to etcd: no endpoint is given"));
        }
        Ok(Self {
            shared: Arc::new(Shared {
                clients,
                turn: AtomicUsize::new(0),
                timeout,
            }),
        })
    }

    /// The version of each member that answers, and how many do not.
    pub(crate) async fn versions(&self) -> Result<(Vec<String>, usize), StoreError> {
        let asked = self.shared.clients.iter().map(|client| {
            let mut client = client.clone();
            async move { tokio::time::timeout(self.shared.timeout, client.status()).await }
        });
        let (mut versions, mut silent, mut last) = (Vec::new(), 0, None);
        for (turn, answer) in join_all(asked).await.into_iter().enumerate() {
            match answer {
                Ok(Ok(status)) => {
                    if versions.is_empty() {
                        self.shared.turn.store(turn, Ordering::Relaxed);
                    }
                    versions.push(status.version().to_owned());
                }
                Ok(Err(error)) => {
                    silent += 1;
                    last = Some(CallError::Etcd(error));
                }
                Err(_) => {
                    silent += 1;
                    last.get_or_insert(CallError::Timeout(self.shared.timeout));
                }
            }
        }
        match (versions.is_empty(), last) {
            (true, Some(error)) => Err(error.fault("ask etcd for its version")),
            (_, _) => Ok((versions, silent)),
        }
    }

    /// The member in use, and the number that [`Members::leave`] takes.
    pub(crate) fn current(&self) -> (usize, Client) {
        let turn = self.shared.turn.load(Ordering::Relaxed);
        let index = turn % self.shared.clients.len();
        (turn, self.shared.clients[index].clone())
    }

    /// Goes to the next member, unless somebody has left this one already.
    pub(crate) fn leave(&self, turn: usize) {
        let next = turn.wrapping_add(1);
        let order = Ordering::Relaxed;
        if self
            .shared
            .turn
            .compare_exchange(turn, next, order, order)
            .is_ok()
            && self.shared.clients.len() > 1
        {
            tracing::info!(
                member = next % self.shared.clients.len(),
                "going on with another member of etcd"
            );
        }
    }

    /// Makes a call until it is answered or its time is over, on one member after the other.
    pub(crate) async fn call<T, F>(
        &self,
        repeat: Repeat,
        mut make: impl FnMut(Client) -> F + Send,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let deadline = Instant::now() + self.shared.timeout;
        let count = self.shared.clients.len();
        let mut tries = 0;
        loop {
            let (turn, client) = self.current();
            // A call that may be repeated does not spend all its time on one silent member.
            let until = match repeat {
                Repeat::Always if count > 1 => {
                    deadline.min(Instant::now() + self.shared.timeout / 2)
                }
                Repeat::Always | Repeat::IfNotDone => deadline,
            };
            let error = match tokio::time::timeout_at(until, make(client)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => CallError::Etcd(error),
                Err(_) => CallError::Timeout(self.shared.timeout),
            };
            if !error.is_members_fault() {
                return Err(error);
            }
            self.leave(turn);
            tries += 1;
            let again = repeat == Repeat::Always || error.is_not_done();
            if !again || Instant::now() >= deadline {
                return Err(error);
            }
            if tries % count == 0 {
                let pause = Instant::now() + ROUND_PAUSE;
                if pause >= deadline {
                    return Err(error);
                }
                tokio::time::sleep_until(pause).await;
            }
        }
    }
}
