//! Controller references: who owns an object, adoption and release as patches.

use control_plane_client::Kind;
use proto_api::types::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

/// The reference that says who controls the object.
pub(crate) fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata
        .owner_references
        .iter()
        .find(|owner| owner.controller == Some(true))
}

/// The uid of the controller, empty when there is none.
pub(crate) fn controller_uid(metadata: &ObjectMeta) -> &str {
    controller_of(metadata).map_or("", |owner| owner.uid.as_str())
}

/// A controller reference to `owner`.
pub(crate) fn reference_to<K: Kind>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: owner.name().to_owned(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What an owner does about an object it may own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is ours.
    Keep,
    /// Nobody's and selected: make it ours.
    Adopt,
    /// Ours but no longer selected: let it go.
    Release,
    /// None of our business.
    Ignore,
}

/// Decides about an object. `selected`: the owner's selector matches its labels.
pub(crate) fn claim(owner: &ObjectMeta, object: &ObjectMeta, selected: bool) -> Claim {
    let owner_uid = owner.uid.as_deref().unwrap_or_default();
    let owner_goes = owner.deletion_timestamp.is_some();
    match controller_of(object) {
        Some(reference) if reference.uid != owner_uid => Claim::Ignore,
        Some(_) if selected => Claim::Keep,
        Some(_) if owner_goes => Claim::Ignore,
        Some(_) => Claim::Release,
        None if !selected || owner_goes || object.deletion_timestamp.is_some() => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// The patch that adds `reference` to an object's owners; the uid guards against a namesake.
pub(crate) fn adopt(object: &ObjectMeta, reference: &OwnerReference) -> Value {
    let mut owners = object.owner_references.clone();
    owners.push(reference.clone());
    json!({"metadata": {"uid": object.uid, "ownerReferences": owners}})
}

/// The patch that takes the owner `uid` off an object.
pub(crate) fn release(object: &ObjectMeta, uid: &str) -> Value {
    let owners: Vec<_> = object
        .owner_references
        .iter()
        .filter(|owner| owner.uid != uid)
        .cloned()
        .collect();
    let owners = if owners.is_empty() {
        Value::Null
    } else {
        json!(owners)
    };
    json!({"metadata": {"uid": object.uid, "ownerReferences": owners}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(uid: &str, controller: Option<&str>, deleted: bool) -> ObjectMeta {
        ObjectMeta {
            uid: Some(uid.to_owned()),
            owner_references: controller
                .map(|uid| OwnerReference {
                    uid: uid.to_owned(),
                    controller: Some(true),
                    ..OwnerReference::default()
                })
                .into_iter()
                .collect(),
            deletion_timestamp: deleted.then(Default::default),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn claims_follow_controller_selector_and_deletion() {
        let cases = [
            // owner deleted, controller, object deleted, selected => claim
            (false, Some("o"), false, true, Claim::Keep),
            (false, Some("o"), true, true, Claim::Keep),
            (false, Some("o"), false, false, Claim::Release),
            (true, Some("o"), false, false, Claim::Ignore),
            (false, Some("x"), false, true, Claim::Ignore),
            (false, None, false, true, Claim::Adopt),
            (false, None, true, true, Claim::Ignore),
            (true, None, false, true, Claim::Ignore),
            (false, None, false, false, Claim::Ignore),
        ];
        for (owner_goes, controller, object_goes, selected, expected) in cases {
            let owner = meta("o", None, owner_goes);
            let object = meta("p", controller, object_goes);
            assert_eq!(
                claim(&owner, &object, selected),
                expected,
                "{controller:?} {selected}"
            );
        }
    }
}
