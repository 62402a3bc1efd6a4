//! What a Deployment does next to its ReplicaSets. Pure: one step of a rollout, scaling or cleaning.

use std::collections::BTreeMap;

use proto_api::types::apps::v1::{Deployment, ReplicaSet};

use super::sets::{self, Set, Sets, available, replicas};
use super::{annotations, history, proportional, rolling};

/// One change of one ReplicaSet.
#[derive(Debug, Clone)]
pub(super) struct Resize {
    pub(super) set: Set,
    /// The size, when it changes.
    pub(super) size: Option<i32>,
    /// Annotations to set.
    pub(super) annotations: BTreeMap<String, String>,
    /// `minReadySeconds`, when it changes.
    pub(super) min_ready_s: Option<i32>,
}

/// What to do in this step.
#[derive(Debug, Clone, Default)]
pub(super) struct Step {
    pub(super) create: Option<Box<ReplicaSet>>,
    pub(super) resize: Vec<Resize>,
    pub(super) delete: Vec<Set>,
    /// The Deployment's own revision annotation, when it changes.
    pub(super) revision: Option<i64>,
}

/// The next step. `old_pods_run`: some pod of an old set has not ended yet (only asked for Recreate).
pub(super) fn step(d: &Deployment, sets: &Sets, old_pods_run: bool) -> Step {
    let mut step = Step::default();
    if d.metadata.deletion_timestamp.is_some() {
        return step;
    }
    if let Some(new) = &sets.new {
        refresh_new(d, sets, new, &mut step);
    }
    let paused = d.spec.paused == Some(true);
    if paused || is_scaling(d, sets) {
        scale(d, sets, &mut step);
        if paused {
            step.delete = history::surplus(d, &sets.old);
        }
        return step;
    }
    if rolling::is_recreate(d) {
        recreate(d, sets, old_pods_run, &mut step);
    } else {
        roll(d, sets, &mut step);
    }
    if is_rolled_out(d, sets) {
        step.delete = history::surplus(d, &sets.old);
    }
    step
}

/// Brings the new set's annotations and minReadySeconds in line, and the Deployment's revision.
fn refresh_new(d: &Deployment, sets: &Sets, new: &Set, step: &mut Step) {
    let present = &new.metadata.annotations;
    let revision = sets.next_revision();
    let mut next = annotations::of_new_set(d, present, revision);
    // Sizes are written with the size itself: until then they tell that a scaling is due.
    for (key, _) in annotations::sizes(d) {
        match present.get(key) {
            Some(value) => next.insert(key.to_owned(), value.clone()),
            None => next.remove(key),
        };
    }
    let wanted = d.spec.min_ready_seconds.unwrap_or(0);
    let min_ready_s = (new.spec.min_ready_seconds.unwrap_or(0) != wanted).then_some(wanted);
    if next != *present || min_ready_s.is_some() {
        let set = Set::clone(new);
        step.resize.push(Resize {
            set,
            size: None,
            annotations: next.clone(),
            min_ready_s,
        });
    }
    let shown = annotations::revision(&next);
    if annotations::revision(&d.metadata.annotations) != shown {
        step.revision = Some(shown);
    }
}

/// Whether the Deployment's size changed since its active sets were last written.
fn is_scaling(d: &Deployment, sets: &Sets) -> bool {
    let desired = rolling::desired(d);
    sets.all()
        .filter(|rs| replicas(rs) > 0)
        .any(|rs| annotations::desired_replicas(rs).is_some_and(|seen| seen != desired))
}

fn resize(d: &Deployment, rs: &Set, size: i32, step: &mut Step) {
    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in annotations::sizes(d) {
        if rs.metadata.annotations.get(key) != Some(&value) {
            wanted.insert(key.to_owned(), value);
        }
    }
    let size = (replicas(rs) != size).then_some(size);
    if size.is_none() && wanted.is_empty() {
        return;
    }
    match step
        .resize
        .iter_mut()
        .find(|present| present.set.key == rs.key)
    {
        Some(present) => {
            present.annotations.extend(wanted);
            present.size = size.or(present.size);
        }
        None => {
            let set = Set::clone(rs);
            step.resize.push(Resize {
                set,
                size,
                annotations: wanted,
                min_ready_s: None,
            });
        }
    }
}

/// The one set that takes the whole size when no rollout is under way.
fn only_active(sets: &Sets) -> Option<&Set> {
    let mut active = sets.all().filter(|rs| replicas(rs) > 0);
    match (active.next(), active.next()) {
        (None, _) => sets.new.as_ref().or(sets.old.last()),
        (Some(only), None) => Some(only),
        (Some(_), Some(_)) => None,
    }
}

/// The new set has its full size and all of it is available: the old ones are not needed.
fn is_saturated(d: &Deployment, rs: &Set) -> bool {
    let desired = rolling::desired(d);
    replicas(rs) == desired
        && annotations::desired_replicas(rs) == Some(desired)
        && available(rs) == desired
}

fn scale(d: &Deployment, sets: &Sets, step: &mut Step) {
    if let Some(only) = only_active(sets) {
        return resize(d, only, rolling::desired(d), step);
    }
    if sets.new.as_ref().is_some_and(|new| is_saturated(d, new)) {
        for rs in sets.old.iter().filter(|rs| replicas(rs) > 0) {
            resize(d, rs, 0, step);
        }
        return;
    }
    if !rolling::is_recreate(d) {
        let active: Vec<&Set> = sets.all().filter(|rs| replicas(rs) > 0).collect();
        let values: Vec<&ReplicaSet> = active.iter().map(|rs| &rs.value).collect();
        for (rs, size) in active.iter().zip(proportional::sizes(d, &values)) {
            resize(d, rs, size, step);
        }
    }
}

fn create(d: &Deployment, sets: &Sets, step: &mut Step) {
    let size = rolling::new_set_size(d, 0, sets.total_size());
    let revision = sets.next_revision();
    step.create = Some(Box::new(sets::new_set(d, size, revision)));
    step.revision = Some(revision);
}

fn recreate(d: &Deployment, sets: &Sets, old_pods_run: bool, step: &mut Step) {
    let active_old: Vec<&Set> = sets.old.iter().filter(|rs| replicas(rs) > 0).collect();
    if !active_old.is_empty() {
        active_old.into_iter().for_each(|rs| resize(d, rs, 0, step));
        return;
    }
    if old_pods_run {
        return;
    }
    match &sets.new {
        None => create(d, sets, step),
        Some(new) => resize(d, new, rolling::desired(d), step),
    }
}

fn roll(d: &Deployment, sets: &Sets, step: &mut Step) {
    let Some(new) = &sets.new else {
        return create(d, sets, step);
    };
    let size = rolling::new_set_size(d, replicas(new), sets.total_size());
    if size != replicas(new) || annotations::desired_replicas(new).is_none() {
        return resize(d, new, size, step);
    }
    let old: Vec<&ReplicaSet> = sets.old.iter().map(|rs| &rs.value).collect();
    for (at, size) in rolling::shrink_old(d, new, &old) {
        resize(d, &sets.old[at], size, step);
    }
}

/// Whether only the new set has pods, all of them available.
fn is_rolled_out(d: &Deployment, sets: &Sets) -> bool {
    let desired = rolling::desired(d);
    let has_pods = |rs: &Set| rs.status.as_ref().is_some_and(|status| status.replicas > 0);
    sets.new
        .as_ref()
        .is_some_and(|new| available(new) == desired && replicas(new) == desired)
        && !sets.old.iter().any(has_pods)
}
