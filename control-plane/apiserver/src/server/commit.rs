//! From a finished object to the store and back out of the cache.

use std::sync::Arc;

use bytes::Bytes;
use control_plane_storage::{CommitError, Expect, Op, Rev};
use serde_json::Value;

use super::{Fence, Server, Target, WriteContext, WriteMode};
use crate::alloc::ip_of;
use crate::object::{Obj, encode, store_key};
use crate::registry::Kind;
use crate::registry::service::{Allocator, Numbers, Wanted};
use crate::status::StatusError;

/// Why a commit did not go through, as far as the caller can act on it.
#[derive(Debug)]
pub(super) enum CommitFault {
    /// The object was changed, created or deleted by somebody else.
    Stale,
    /// A number that we chose was taken, or a quota was used, meanwhile: decide again.
    NumberTaken,
    /// Tell the client.
    Refused(StatusError),
}

/// What a commit does to one object.
#[derive(Debug)]
pub(super) enum Change<'a> {
    /// Create it.
    Create(&'a mut Value),
    /// Replace the version `old`.
    Replace(&'a mut Value, &'a Obj),
    /// Delete the version `old`.
    Remove(&'a Obj),
}

impl Server {
    /// Commits one change together with the numbers that it takes or gives back. Returns the
    /// object; for a removal its last state at the removal's revision.
    pub(super) async fn commit(
        &self,
        target: &Target,
        context: &WriteContext,
        mut change: Change<'_>,
    ) -> Result<Arc<Obj>, CommitFault> {
        let kind = &target.kind;
        if let Change::Create(value) | Change::Replace(value, _) = &mut change {
            let stored = self.store_version(kind, value).await;
            stored.map_err(CommitFault::Refused)?;
        }
        let is_removal = matches!(change, Change::Remove(_));
        let obj = self.commit_stored(target, context, change).await?;
        if is_removal {
            return Ok(obj);
        }
        let shown = self.written_in_version(kind, obj, context.mode).await;
        shown.map_err(CommitFault::Refused)
    }

    async fn commit_stored(
        &self,
        target: &Target,
        context: &WriteContext,
        mut change: Change<'_>,
    ) -> Result<Arc<Obj>, CommitFault> {
        let kind = &target.kind;
        // Held until the cache has what the commit did to the quotas.
        let turn = self.quota_turn(target).await;
        let quota_ops = self.quota_ops(target, &mut change)?;
        let (mut ops, wanted) = self.number_ops(target, &mut change)?;
        ops.extend(quota_ops);
        let key = store_key(
            kind.storage_group,
            kind.plural,
            &target.key.namespace,
            &target.key.name,
        );
        let (first, stored) = match &change {
            Change::Create(value) => {
                let stored = encoded(value)?;
                (put(kind, key, stored.clone(), Expect::Absent), Some(stored))
            }
            Change::Replace(value, old) => {
                let stored = encoded(value)?;
                (
                    put(kind, key, stored.clone(), Expect::Rev(Rev(old.rv))),
                    Some(stored),
                )
            }
            Change::Remove(old) => (Op::delete(key, Expect::Rev(Rev(old.rv))), None),
        };
        ops.insert(0, first);
        let rev = match context.mode {
            WriteMode::DryRun => 0,
            WriteMode::Commit => {
                self.commit_ops(ops, &wanted, target, context.fence.as_ref())
                    .await?
            }
        };
        drop(turn);
        let is_committed = rev > 0;
        match (stored, change) {
            (Some(stored), change) => {
                let rev = match (&change, rev) {
                    // A dry run shows the revision that it would have replaced.
                    (Change::Replace(_, old), 0) => old.rv,
                    _ => rev,
                };
                // The cache has it as a rule: the same bytes are not read twice.
                let cached = self.cache.of(kind).get(&target.key);
                if let Some(cached) = cached.filter(|cached| cached.rv == rev && is_committed) {
                    return Ok(cached);
                }
                let made =
                    Obj::from_stored(target.key.clone(), &stored, rev, |p| kind.read_fields(p));
                made.map(Arc::new)
                    .map_err(|e| CommitFault::Refused(StatusError::internal(e)))
            }
            (None, Change::Remove(old) | Change::Replace(_, old)) => {
                Ok(Arc::new(old.at_revision(rev.max(old.rv))))
            }
            (None, Change::Create(_)) => Err(CommitFault::Refused(StatusError::internal(
                "a create without an object",
            ))),
        }
    }

    /// Runs the commit and waits until the cache has it.
    async fn commit_ops(
        &self,
        mut ops: Vec<Op>,
        wanted: &[Wanted],
        target: &Target,
        fence: Option<&Fence>,
    ) -> Result<u64, CommitFault> {
        let own = ops.len();
        // Last, so that the places of the others are as without it.
        ops.extend(fence.map(Fence::check));
        match self.store.commit(ops).await {
            Ok(commit) => {
                // Durable already; a slow cache is no reason to tell the client it failed.
                if self.cache.wait_for(commit.rev.0).await.is_err() {
                    tracing::warn!(
                        revision = commit.rev.0,
                        "the watch cache lags behind the store"
                    );
                }
                Ok(commit.rev.0)
            }
            Err(CommitError::Conflict { index, .. }) if index >= own => {
                Err(CommitFault::Refused(match fence {
                    Some(fence) => fence.refuse(target),
                    None => StatusError::internal("a conflict on an operation that is not there"),
                }))
            }
            Err(CommitError::Conflict { index, current }) => {
                if let Some(current) = current {
                    // Whoever decides again must see what made this fail.
                    self.cache
                        .wait_for(current.rev.0)
                        .await
                        .map_err(CommitFault::Refused)?;
                } else if let Ok(rev) = self.store.barrier().await {
                    self.cache
                        .wait_for(rev.0)
                        .await
                        .map_err(CommitFault::Refused)?;
                }
                Err(match index.checked_sub(1).map(|at| wanted.get(at)) {
                    Some(Some(Wanted {
                        taken: Some(error), ..
                    })) => CommitFault::Refused(target.invalid(std::slice::from_ref(error))),
                    // A number or a quota: decide again.
                    Some(_) => CommitFault::NumberTaken,
                    None => CommitFault::Stale,
                })
            }
            Err(CommitError::TooLarge { max, .. }) => {
                Err(CommitFault::Refused(StatusError::too_large(max)))
            }
            Err(fault @ CommitError::Unknown(_)) => {
                let message = format!("Timeout: {fault}");
                Err(CommitFault::Refused(StatusError::new(
                    504, "Timeout", message,
                )))
            }
            Err(fault @ (CommitError::Unavailable(_) | CommitError::Closed)) => {
                Err(CommitFault::Refused(StatusError::store_unavailable(&fault)))
            }
            Err(fault) => Err(CommitFault::Refused(StatusError::internal(fault))),
        }
    }

    /// The operations on the index of unique numbers; those that take one come first, in the
    /// order of the returned wants.
    fn number_ops(
        &self,
        target: &Target,
        change: &mut Change<'_>,
    ) -> Result<(Vec<Op>, Vec<Wanted>), CommitFault> {
        if target.kind.plural != "services" || !target.kind.group.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let held = match change {
            Change::Create(_) => Numbers::default(),
            Change::Replace(_, old) | Change::Remove(old) => Numbers::of(&old.value()),
        };
        let mut wanted = Vec::new();
        let kept = match change {
            Change::Create(value) | Change::Replace(value, _) => {
                let allocator = Allocator {
                    index: &self.cache.allocations,
                    ranges: self.service_ranges,
                    more: self.added_ranges(),
                    held: &held,
                };
                wanted = allocator
                    .fill(value, rand::random)
                    .map_err(|error| CommitFault::Refused(target.invalid(&[error])))?;
                Numbers::of(value)
            }
            Change::Remove(_) => Numbers::default(),
        };
        let owner = Bytes::from(format!("{}/{}", target.key.namespace, target.key.name));
        let taken = |want: &Wanted| {
            let value = match ip_of(&want.key) {
                Some(address) => encoded(&self.address_object(address, &target.key))?,
                None => owner.clone(),
            };
            Ok(Op::put(want.key.clone(), value, Expect::Absent))
        };
        let takes = wanted.iter().map(taken).collect::<Result<Vec<Op>, _>>()?;
        let gives = held
            .0
            .iter()
            .filter(|key| !kept.0.contains(key))
            .map(|key| Op::delete(key.clone(), Expect::Any));
        let ops = takes.into_iter().chain(gives).collect();
        Ok((ops, wanted))
    }
}

fn encoded(value: &Value) -> Result<Bytes, CommitFault> {
    encode(value).map_err(|fault| CommitFault::Refused(StatusError::internal(fault)))
}

fn put(kind: &Kind, key: String, value: Bytes, expect: Expect) -> Op {
    Op::Put {
        key: key.into(),
        value,
        expect,
        ttl: kind.strategy.ttl(),
    }
}
