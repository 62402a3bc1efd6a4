//! A commit as an etcd transaction, and its answer as an outcome. Pure.
//!
//! The expectations are the comparison; the else branch reads the same keys, so a conflict needs
//! no second round trip to say what is there.

use bytes::Bytes;
use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};

use crate::error::{CommitError, StoreError};
use crate::etcd::keys::Keys;
use crate::etcd::{revision, signed, unsigned};
use crate::model::{Commit, Current, Expect, Op, Rev, holds};

/// `leases`: one an operation, for puts with a time to live.
pub(crate) fn txn(keys: &Keys, ops: &[Op], leases: &[Option<i64>]) -> Txn {
    let mut compares = Vec::new();
    let mut reads = Vec::new();
    let mut writes = Vec::new();
    for (op, lease) in ops.iter().zip(leases) {
        let key = keys.theirs(op.key());
        if let Some(compare) = compare(&key, op.expect()) {
            compares.push(compare);
            reads.push(TxnOp::get(key.clone(), None));
        }
        match op {
            Op::Put { value, .. } => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease));
                writes.push(TxnOp::put(key, value.clone(), options));
            }
            Op::Delete { .. } => writes.push(TxnOp::delete(key, None)),
            Op::Check { .. } => {}
        }
    }
    Txn::new().when(compares).and_then(writes).or_else(reads)
}

fn compare(key: &[u8], expect: Expect) -> Option<Compare> {
    match expect {
        Expect::Any => None,
        Expect::Absent => Some(Compare::version(key, CompareOp::Equal, 0)),
        // etcd says 0 of a key that does not exist; no key is at i64::MAX.
        Expect::Rev(Rev(0)) => Some(Compare::mod_revision(key, CompareOp::Equal, i64::MAX)),
        Expect::Rev(rev) => Some(Compare::mod_revision(key, CompareOp::Equal, signed(rev))),
    }
}

pub(crate) fn outcome(ops: &[Op], answer: &TxnResponse) -> Result<Commit, CommitError> {
    if answer.succeeded() {
        let rev = revision(answer.header()).map_err(CommitError::Unknown)?;
        return Ok(Commit { rev });
    }
    let expecting = ops
        .iter()
        .enumerate()
        .filter(|(_, op)| op.expect() != Expect::Any);
    for ((index, op), read) in expecting.zip(answer.op_responses()) {
        let current = match read {
            TxnOpResponse::Get(read) => read.kvs().first().map(|kv| Current {
                value: Bytes::copy_from_slice(kv.value()),
                rev: unsigned(kv.mod_revision()),
            }),
            TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
        };
        if !holds(op.expect(), current.as_ref().map(|current| current.rev)) {
            return Err(CommitError::Conflict { index, current });
        }
    }
    let fault = "etcd refused a transaction although all its comparisons hold";
    Err(CommitError::Unavailable(StoreError::new(fault)))
}
