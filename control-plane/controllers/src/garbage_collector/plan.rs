//! What becomes of an object, given how its owners are. Pure.

use control_plane_client::{ObjectKey, Propagation, Resource};
use proto_api::types::meta::v1::{ObjectMeta, OwnerReference};

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// An object of any kind, as the collector sees it.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) resource: Resource,
    pub(super) key: ObjectKey,
    pub(super) revision: u64,
    pub(super) uid: String,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) finalizers: Vec<String>,
    pub(super) deleting: bool,
}

impl Item {
    pub(super) fn of(
        resource: Resource,
        key: &ObjectKey,
        revision: u64,
        metadata: &ObjectMeta,
    ) -> Self {
        Self {
            resource,
            key: key.clone(),
            revision,
            uid: metadata.uid.clone().unwrap_or_default(),
            owners: metadata.owner_references.clone(),
            finalizers: metadata.finalizers.clone(),
            deleting: metadata.deletion_timestamp.is_some(),
        }
    }

    pub(super) fn holds(&self, finalizer: &str) -> bool {
        self.deleting && self.finalizers.iter().any(|held| held == finalizer)
    }

    pub(super) fn blocks(&self, owner_uid: &str) -> bool {
        self.owners
            .iter()
            .any(|o| o.uid == owner_uid && o.block_owner_deletion == Some(true))
    }
}

/// How an owner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// It exists and stays, or cannot be judged.
    Solid,
    /// It exists no more.
    Absent,
    /// It waits for its dependents to go first.
    Waiting,
}

/// What to do about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// Some owner stays: only the references to the others go.
    Unlink(Vec<String>),
    Delete(Propagation),
}

/// Judges an object that is not being deleted itself. `has_dependents`: something names it as owner.
pub(super) fn judge(item: &Item, owners: &[Owner], has_dependents: bool) -> Verdict {
    if item.owners.is_empty() {
        return Verdict::Keep;
    }
    if owners.contains(&Owner::Solid) {
        let gone: Vec<String> = item
            .owners
            .iter()
            .zip(owners)
            .filter(|(_, state)| **state != Owner::Solid)
            .map(|(owner, _)| owner.uid.clone())
            .collect();
        return if gone.is_empty() {
            Verdict::Keep
        } else {
            Verdict::Unlink(gone)
        };
    }
    if owners.contains(&Owner::Waiting) && has_dependents {
        return Verdict::Delete(Propagation::Foreground);
    }
    let held = |finalizer: &str| item.finalizers.iter().any(|present| present == finalizer);
    Verdict::Delete(if held(ORPHAN) {
        Propagation::Orphan
    } else if held(FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    })
}
