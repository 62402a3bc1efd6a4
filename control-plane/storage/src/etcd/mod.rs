//! The store in an etcd cluster, so that several control planes can share one state.
//!
//! A key `k` is `<prefix>/k` there; a revision is etcd's `mod_revision`. All streams of one store
//! watch `<prefix>.` to `<prefix>/` with everything behind them, which includes one key of our own,
//! `<prefix>.progress`: writing it moves a stream past revisions that others spent.

mod call;
mod commit;
mod keys;
mod lease;
mod members;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Certificate, Client, CompactionOptions, ConnectOptions, GetOptions, Identity, TlsOptions,
};
use futures::stream::{self, StreamExt as _};
use tokio::sync::{Mutex, watch as tokio_watch};

use crate::error::{CommitError, CompactError, LoadError, OpenError, StoreError};
use crate::model::{Caps, Commit, Entry, Op, Rev, check_ops};
use crate::store::{ChangeStream, Load, Store};

use self::keys::Keys;
use self::lease::Leases;
use self::members::{Members, Repeat};
use self::watch::Watcher;

/// The prefix when none is given.
pub const ETCD_PREFIX: &str = "/skep";

/// Entries of one page of a snapshot.
const PAGE_ENTRIES: i64 = 500;
/// The largest answer that is read. A page that is larger is asked for in smaller pieces.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How to reach etcd.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// `http://host:port` or `https://host:port`, one or more of one cluster.
    pub endpoints: Vec<String>,
    /// What all keys begin with; without a slash at its end. Two stores in one etcd need two.
    pub prefix: String,
    /// Needed for `https`.
    pub tls: Option<EtcdTls>,
    /// How long a request may take, all tries together, before its outcome counts as unknown.
    pub request_timeout: Duration,
}

impl EtcdConfig {
    /// Plain configuration for some endpoints: default prefix, no TLS, 2 s.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: ETCD_PREFIX.to_owned(),
            tls: None,
            request_timeout: Duration::from_secs(2),
        }
    }
}

/// Certificates for etcd, all PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// Who signed the members' certificates.
    pub ca: Vec<u8>,
    /// Our certificate and its key, when the members ask for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name in the members' certificates, when it is not the host in the endpoint.
    pub server_name: Option<String>,
}

impl std::fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdTls")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// A store in etcd.
pub struct EtcdStore {
    members: Members,
    keys: Keys,
    leases: Leases,
    progress: Progress,
    /// The last commit got no answer: the next one asks first whether there is anybody.
    doubtful: Arc<AtomicBool>,
    barriers: AtomicU64,
    barrier: Mutex<BarrierRead>,
    /// The revision that all streams should reach.
    wanted: tokio_watch::Sender<Rev>,
}

/// How a stream is moved past revisions that changed nothing of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The server answers a progress request in order with the events.
    Request,
    /// It may answer ahead of them (before 3.4.31 and 3.5.13): write a key of our own instead.
    Write,
}

/// The newest barrier: it is good for every ticket that was drawn before it was read.
#[derive(Debug, Default)]
struct BarrierRead {
    covers: u64,
    rev: Rev,
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdStore")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// Connects and asks for the server's version, so that a wrong address or certificate shows at
    /// start.
    ///
    /// # Errors
    /// [`OpenError::Engine`] with the reason.
    pub async fn connect(config: EtcdConfig) -> Result<Self, OpenError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_keep_alive(KEEP_ALIVE_EVERY, KEEP_ALIVE_TIMEOUT)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if let Some(tls) = &config.tls {
            options = options.with_tls(tls_options(tls));
        }
        let members = Members::prepare(&config.endpoints, &options, config.request_timeout).await?;
        let (versions, silent) = members.versions().await.map_err(|error| {
            StoreError::with(
                format!("connect to etcd at {}", config.endpoints.join(", ")),
                error,
            )
        })?;
        // The oldest member decides, and one that does not answer may be older.
        let in_order = versions
            .iter()
            .all(|version| progress_of(version) == Progress::Request);
        let progress = match (in_order, silent) {
            (true, 0) => Progress::Request,
            (true, _) | (false, _) => Progress::Write,
        };
        tracing::info!(
            ?versions,
            silent,
            ?progress,
            prefix = config.prefix,
            "etcd connected"
        );
        Ok(Self {
            members,
            keys: Keys::new(&config.prefix),
            leases: Leases::default(),
            progress,
            doubtful: Arc::default(),
            barriers: AtomicU64::new(0),
            barrier: Mutex::new(BarrierRead::default()),
            wanted: tokio_watch::Sender::new(Rev::default()),
        })
    }

    async fn read_revision(&self) -> Result<Rev, StoreError> {
        let read = |client: Client| {
            let (mut kv, key) = (client.kv_client(), self.keys.progress.clone());
            async move { kv.get(key, Some(GetOptions::new().with_keys_only())).await }
        };
        let answer = self.members.call(Repeat::Always, read).await;
        let answer = answer.map_err(|error| error.fault("read etcd's revision"))?;
        revision(answer.header())
    }

    async fn page(&self, from: &LoadFrom) -> Result<(Rev, Vec<Entry>, bool), LoadError> {
        let mut limit = PAGE_ENTRIES;
        loop {
            let mut options = GetOptions::new()
                .with_range(from.end.clone())
                .with_limit(limit);
            if let Some(rev) = from.rev {
                options = options.with_revision(signed(rev));
            }
            let read = |client: Client| {
                let kv = client.kv_client();
                let mut kv = kv.max_decoding_message_size(ANSWER_BYTES_MAX);
                let (start, options) = (from.start.clone(), options.clone());
                async move { kv.get(start, Some(options)).await }
            };
            let mut answer = match self.members.call(Repeat::Always, read).await {
                Ok(answer) => answer,
                Err(error) if error.is_oversize() && limit > 1 => {
                    limit /= 4;
                    continue;
                }
                Err(error) if error.is_compacted() => {
                    return Err(LoadError::Compacted {
                        rev: from.rev.unwrap_or_default(),
                    });
                }
                Err(error) => return Err(LoadError::Failed(error.fault("read from etcd"))),
            };
            let rev = revision(answer.header()).map_err(LoadError::Failed)?;
            let more = answer.more();
            let entries = answer.take_kvs().into_iter().filter_map(|kv| {
                let rev = unsigned(kv.mod_revision());
                let (key, value) = kv.into_key_value();
                let key = self.keys.ours(&Bytes::from(key))?;
                Some(Entry {
                    key,
                    value: value.into(),
                    rev,
                })
            });
            return Ok((rev, entries.collect(), more));
        }
    }
}

/// Where a snapshot goes on.
struct LoadFrom {
    start: Vec<u8>,
    end: Vec<u8>,
    rev: Option<Rev>,
}

#[async_trait]
impl Store for EtcdStore {
    async fn commit(&self, ops: Vec<Op>) -> Result<Commit, CommitError> {
        check_ops(&ops)?;
        if self.doubtful.load(Ordering::Relaxed) {
            // A read that fails leaves no doubt about the write: it was not tried.
            self.barrier().await.map_err(CommitError::Unavailable)?;
            self.doubtful.store(false, Ordering::Relaxed);
        }
        let mut retried = false;
        loop {
            let leases = self.lease_ids(&ops).await?;
            let write = |client: Client| {
                let (mut kv, txn) = (client.kv_client(), commit::txn(&self.keys, &ops, &leases));
                async move { kv.txn(txn).await }
            };
            match self.members.call(Repeat::IfNotDone, write).await {
                Ok(answer) => return commit::outcome(&ops, &answer),
                Err(error) if error.is_lease_missing() && !retried => {
                    // A lease that was revoked behind our back: take new ones.
                    self.leases.forget(&leases).await;
                    retried = true;
                }
                Err(error) => {
                    let error = error.into_commit();
                    if matches!(error, CommitError::Unknown(_)) {
                        self.doubtful.store(true, Ordering::Relaxed);
                    }
                    return Err(error);
                }
            }
        }
    }

    async fn load(&self, prefix: &[u8]) -> Result<Load, LoadError> {
        let (start, end) = self.keys.range_of(prefix);
        let mut from = LoadFrom {
            start,
            end,
            rev: None,
        };
        let (rev, entries, more) = self.page(&from).await?;
        from.rev = Some(rev);
        // A handle that the pages keep: they outlive the borrow of the store.
        let state = Some((self.reader(), from, Some((entries, more))));
        let rest = stream::unfold(state, |state| async move {
            let (reader, mut from, first) = state?;
            let page = match first {
                Some(page) => Ok(page),
                None => reader
                    .page(&from)
                    .await
                    .map(|(_, entries, more)| (entries, more)),
            };
            match page {
                Ok((entries, more)) => {
                    from.start = reader.keys.theirs(&entries.last()?.key);
                    from.start.push(0);
                    Some((Ok(entries), more.then_some((reader, from, None))))
                }
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Load {
            rev,
            pages: rest.boxed(),
        })
    }

    fn changes(&self, after: Rev) -> ChangeStream {
        let watcher = Watcher::new(self.reader(), self.wanted.subscribe(), after);
        stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(batch) => Some((Ok(batch), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    /// All callers that wait while one read runs share the next one.
    async fn barrier(&self) -> Result<Rev, StoreError> {
        let ticket = self.barriers.fetch_add(1, Ordering::SeqCst);
        let mut read = self.barrier.lock().await;
        if ticket >= read.covers {
            let covers = self.barriers.load(Ordering::SeqCst);
            let rev = self.read_revision().await?;
            *read = BarrierRead { covers, rev };
            self.wanted.send_if_modified(|wanted| {
                let ahead = rev > *wanted;
                *wanted = rev.max(*wanted);
                ahead
            });
        }
        Ok(read.rev)
    }

    async fn compact(&self, upto: Rev) -> Result<(), CompactError> {
        let compact = |client: Client| {
            let mut kv = client.kv_client();
            async move {
                kv.compact(signed(upto), Some(CompactionOptions::new()))
                    .await
            }
        };
        match self.members.call(Repeat::Always, compact).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_compacted() => Ok(()),
            Err(error) if error.is_future() => {
                let current = self.read_revision().await.map_err(CompactError::Failed)?;
                Err(CompactError::Future { upto, current })
            }
            Err(error) => Err(CompactError::Failed(error.fault("compact etcd"))),
        }
    }

    fn caps(&self) -> Caps {
        Caps {
            engine: "etcd",
            durable: true,
            multi_writer: true,
            progress: true,
        }
    }
}

impl EtcdStore {
    /// A second handle on the same connection, for streams.
    fn reader(&self) -> Self {
        Self {
            members: self.members.clone(),
            keys: self.keys.clone(),
            leases: Leases::default(),
            progress: self.progress,
            doubtful: Arc::clone(&self.doubtful),
            barriers: AtomicU64::new(0),
            barrier: Mutex::new(BarrierRead::default()),
            wanted: self.wanted.clone(),
        }
    }

    async fn lease_ids(&self, ops: &[Op]) -> Result<Vec<Option<i64>>, CommitError> {
        let mut ids = Vec::with_capacity(ops.len());
        for op in ops {
            let id = match op {
                Op::Put { ttl: Some(ttl), .. } => {
                    let grant = |client: Client| self.leases.id(client.lease_client(), *ttl);
                    let granted = self.members.call(Repeat::Always, grant).await;
                    Some(granted.map_err(|error| {
                        CommitError::Unavailable(error.fault("take a lease from etcd"))
                    })?)
                }
                Op::Put { ttl: None, .. } | Op::Delete { .. } | Op::Check { .. } => None,
            };
            ids.push(id);
        }
        Ok(ids)
    }
}

fn tls_options(tls: &EtcdTls) -> TlsOptions {
    let mut options = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
    if let Some((certificate, key)) = &tls.identity {
        options = options.identity(Identity::from_pem(certificate, key));
    }
    if let Some(name) = &tls.server_name {
        options = options.domain_name(name);
    }
    options
}

/// Progress requests are in order with events from 3.4.31 and 3.5.13 on.
fn progress_of(version: &str) -> Progress {
    let mut parts = version
        .split(['.', '-', '+'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let mut part = || parts.next().unwrap_or(0);
    match (part(), part(), part()) {
        (3, 4, patch) if patch >= 31 => Progress::Request,
        (3, 5, patch) if patch >= 13 => Progress::Request,
        (3, minor, _) if minor >= 6 => Progress::Request,
        (major, ..) if major >= 4 => Progress::Request,
        _ => Progress::Write,
    }
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> Result<Rev, StoreError> {
    let header = header.ok_or_else(|| StoreError::new("etcd's answer has no header"))?;
    Ok(unsigned(header.revision()))
}

/// etcd's revisions are positive.
fn unsigned(revision: i64) -> Rev {
    Rev(revision.unsigned_abs())
}

fn signed(rev: Rev) -> i64 {
    i64::try_from(rev.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_requests_are_used_only_where_they_are_in_order() {
        for (version, expected) in [
            ("3.4.23", Progress::Write),
            ("3.4.31", Progress::Request),
            ("3.5.12", Progress::Write),
            ("3.5.13", Progress::Request),
            ("3.6.0-rc.1", Progress::Request),
            ("4.0.0", Progress::Request),
            ("", Progress::Write),
        ] {
            assert_eq!(progress_of(version), expected, "{version}");
        }
    }
}
