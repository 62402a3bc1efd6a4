//! Which ReplicaSet is the new one, which are old; names and bodies of new ones. Pure.

use std::sync::Arc;

use control_plane_client::Cached;
use proto_api::types::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use proto_api::types::core::v1::PodTemplateSpec;

use super::annotations;
use crate::owner;

pub(super) const HASH_LABEL: &str = "pod-template-hash";
/// Characters of generated name parts: no vowels, so no words.
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest object name.
const NAME_MAX: usize = 253;

pub(super) type Set = Arc<Cached<ReplicaSet>>;

pub(super) fn replicas(rs: &ReplicaSet) -> i32 {
    rs.spec.replicas.unwrap_or(1)
}

pub(super) fn available(rs: &ReplicaSet) -> i32 {
    rs.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

/// The sets of one Deployment.
#[derive(Debug, Clone)]
pub(super) struct Sets {
    /// The set of the present template.
    pub(super) new: Option<Set>,
    /// The others, oldest first.
    pub(super) old: Vec<Set>,
}

impl Sets {
    pub(super) fn of(d: &Deployment, mut owned: Vec<Set>) -> Self {
        owned.sort_by(|a, b| {
            let age = |rs: &Set| rs.metadata.creation_timestamp.clone();
            age(a).cmp(&age(b)).then_with(|| a.key.cmp(&b.key))
        });
        let at = owned
            .iter()
            .position(|rs| has_template(rs, &d.spec.template));
        let new = at.map(|at| owned.remove(at));
        Self { new, old: owned }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    pub(super) fn total_size(&self) -> i32 {
        self.all().map(|rs| replicas(rs)).sum()
    }

    /// One more than the greatest revision of the old sets.
    pub(super) fn next_revision(&self) -> i64 {
        self.old
            .iter()
            .map(|rs| annotations::revision(&rs.metadata.annotations))
            .max()
            .unwrap_or(0)
            + 1
    }
}

fn has_template(rs: &ReplicaSet, wanted: &PodTemplateSpec) -> bool {
    let Some(own) = &rs.spec.template else {
        return false;
    };
    if own.spec != wanted.spec {
        return false;
    }
    let (mut own, mut wanted) = (own.metadata.clone(), wanted.metadata.clone());
    own.labels.remove(HASH_LABEL);
    wanted.labels.remove(HASH_LABEL);
    own == wanted
}

/// A short name for a template: equal templates get equal names, and `collisions` another one when the
/// name is taken by something else.
pub(super) fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let text = serde_json::to_string(template).unwrap_or_default();
    let mut hash: u32 = 0x811c_9dc5;
    let suffix = if collisions > 0 {
        collisions.to_string()
    } else {
        String::new()
    };
    for byte in text.bytes().chain(suffix.bytes()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    hash.to_string()
        .bytes()
        .map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()]))
        .collect()
}

/// The set for the present template.
pub(super) fn new_set(d: &Deployment, size: i32, revision: i64) -> ReplicaSet {
    let collisions = d
        .status
        .as_ref()
        .and_then(|status| status.collision_count)
        .unwrap_or(0);
    let hash = template_hash(&d.spec.template, collisions);
    let mut template = d.spec.template.clone();
    template
        .metadata
        .labels
        .insert(HASH_LABEL.to_owned(), hash.clone());
    let mut selector = d.spec.selector.clone();
    selector
        .match_labels
        .insert(HASH_LABEL.to_owned(), hash.clone());
    let mut rs = ReplicaSet {
        spec: ReplicaSetSpec {
            replicas: Some(size),
            min_ready_seconds: d.spec.min_ready_seconds,
            selector,
            template: Some(template.clone()),
        },
        ..ReplicaSet::default()
    };
    let base = d.metadata.name.as_deref().unwrap_or_default();
    let base: String = base.chars().take(NAME_MAX - 1 - hash.len()).collect();
    rs.metadata.name = Some(format!("{base}-{hash}"));
    rs.metadata.namespace.clone_from(&d.metadata.namespace);
    rs.metadata.labels = template.metadata.labels;
    rs.metadata.annotations = annotations::of_new_set(d, &rs.metadata.annotations, revision);
    rs.metadata.owner_references = vec![owner::reference_to(d)];
    rs
}
