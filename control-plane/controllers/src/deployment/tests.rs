use std::sync::Arc;

use control_plane_client::{Cached, ObjectKey};
use proptest::prelude::*;
use proto_api::types::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};

use super::sets::{Sets, available, replicas};
use super::{annotations, history, plan, proportional, rolling, sets};

fn deployment(replicas: i32, strategy: &Value, image: &str) -> Deployment {
    let value = json!({
        "metadata": {"name": "d", "uid": "d", "namespace": "default", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "d"}},
            "strategy": strategy,
            "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    });
    serde_json::from_value(value).expect("deployment")
}

fn rolling_update(surge: &Value, unavailable: &Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

/// A set of `d` in its present template, of this size and with as many available.
fn set(d: &Deployment, name: &str, size: i32, ready: i32, revision: i64) -> ReplicaSet {
    let mut rs = sets::new_set(d, size, revision);
    rs.metadata.name = Some(name.to_owned());
    rs.metadata.uid = Some(name.to_owned());
    rs.metadata.generation = Some(1);
    let second = 1_000 + revision;
    let created = jiff::Timestamp::from_second(second).expect("in range");
    rs.metadata.creation_timestamp = Some(created.into());
    let status = json!({
        "replicas": size, "readyReplicas": ready, "availableReplicas": ready, "observedGeneration": 1,
    });
    rs.status = serde_json::from_value(status).expect("status");
    rs
}

fn cached(rs: ReplicaSet) -> Arc<Cached<ReplicaSet>> {
    let name = rs.metadata.name.clone().expect("name");
    Arc::new(Cached {
        key: ObjectKey::new("default", name),
        revision: 1,
        value: rs,
    })
}

#[test]
fn surge_rounds_up_unavailable_rounds_down_and_both_zero_is_one_unavailable() {
    let percent = |p: &str| json!(p);
    let cases = [
        (10, percent("25%"), percent("25%"), (3, 2)),
        (1, percent("25%"), percent("25%"), (1, 0)),
        (3, json!(0), percent("25%"), (0, 1)),
        (3, json!(0), json!(0), (0, 1)),
        (2, json!(1), json!(5), (1, 2)),
        (0, percent("25%"), percent("25%"), (0, 0)),
    ];
    for (replicas, surge, unavailable, expected) in cases {
        let d = deployment(replicas, &rolling_update(&surge, &unavailable), "i");
        let bounds = rolling::bounds(&d);
        assert_eq!(
            (bounds.surge, bounds.unavailable),
            expected,
            "{replicas} {surge} {unavailable}"
        );
    }
    let d = deployment(4, &json!({"type": "Recreate"}), "i");
    assert_eq!(
        rolling::bounds(&d),
        rolling::Bounds {
            surge: 0,
            unavailable: 0
        }
    );
}

#[test]
fn a_template_has_one_name_and_a_collision_another() {
    let d = deployment(1, &json!({}), "i");
    let other = deployment(1, &json!({}), "j");
    let hash = sets::template_hash(&d.spec.template, 0);
    assert_eq!(hash, sets::template_hash(&d.spec.template, 0));
    assert_ne!(hash, sets::template_hash(&other.spec.template, 0));
    assert_ne!(hash, sets::template_hash(&d.spec.template, 1));
    assert!(
        hash.bytes()
            .all(|c| b"bcdfghjklmnpqrstvwxz2456789".contains(&c)),
        "{hash}"
    );
}

#[test]
fn the_set_of_the_present_template_is_the_new_one_whatever_its_hash_label() {
    let old = deployment(3, &json!({}), "v1");
    let d = deployment(3, &json!({}), "v2");
    let owned = vec![
        cached(set(&d, "new", 1, 1, 2)),
        cached(set(&old, "old", 3, 3, 1)),
    ];
    let sets = Sets::of(&d, owned);
    assert_eq!(
        sets.new.as_ref().map(|rs| rs.key.name.to_string()),
        Some("new".to_owned())
    );
    assert_eq!(sets.old.len(), 1);
    assert_eq!(sets.next_revision(), 2);
}

#[test]
fn a_rollback_gives_the_old_set_a_new_number_and_remembers_the_one_before() {
    let v1 = deployment(3, &json!({}), "v1");
    let v2 = deployment(3, &json!({}), "v2");
    let owned = vec![
        cached(set(&v1, "one", 0, 0, 1)),
        cached(set(&v2, "two", 3, 3, 2)),
    ];
    let sets = Sets::of(&v1, owned);
    let step = plan::step(&v1, &sets, false);
    let one = &step
        .resize
        .iter()
        .find(|resize| &*resize.set.key.name == "one")
        .expect("written");
    assert_eq!(annotations::revision(&one.annotations), 3);
    assert_eq!(
        one.annotations["deployment.kubernetes.io/revision-history"],
        "1"
    );
    assert_eq!(step.revision, Some(3));
    assert!(step.create.is_none());
}

#[test]
fn history_keeps_the_newest_and_whatever_is_not_idle() {
    let mut d = deployment(3, &json!({}), "v9");
    d.spec.revision_history_limit = Some(1);
    let old = |number: i64, size: i32| {
        let image = format!("v{number}");
        cached(set(
            &deployment(3, &json!({}), &image),
            &image,
            size,
            0,
            number,
        ))
    };
    let all = [old(4, 0), old(1, 0), old(2, 1), old(3, 0)];
    let names: Vec<_> = history::surplus(&d, &all)
        .iter()
        .map(|rs| rs.key.name.to_string())
        .collect();
    assert_eq!(names, ["v1", "v3"]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let old = deployment(4, &json!({}), "v1");
    let mut d = deployment(8, &json!({}), "v2");
    d.spec.paused = Some(true);
    let sets = Sets::of(&d, vec![cached(set(&old, "old", 4, 4, 1))]);
    let step = plan::step(&d, &sets, false);
    assert!(step.create.is_none());
    assert_eq!(
        step.resize
            .iter()
            .map(|resize| resize.size)
            .collect::<Vec<_>>(),
        [Some(8)]
    );
}

#[test]
fn a_resize_in_the_middle_of_a_rollout_is_shared_in_proportion() {
    // The example of the API page: 10 replicas, surge 3, 8 old and 5 new, scaled to 15.
    let strategy = rolling_update(&json!(3), &json!(2));
    let before_old = deployment(10, &strategy, "v1");
    let before_new = deployment(10, &strategy, "v2");
    let d = deployment(15, &strategy, "v2");
    let old = set(&before_old, "old", 8, 8, 1);
    let new = set(&before_new, "new", 5, 0, 2);
    assert_eq!(proportional::sizes(&d, &[&old, &new]), [11, 7]);
}

/// Drives plans against pretended ReplicaSet controllers until nothing changes, checking the bounds at
/// every step. `flaky` decides which of the new pods become available in a round.
fn roll(old_size: i32, target: &Deployment, flaky: &[bool]) -> Result<(), TestCaseError> {
    let strategy = serde_json::to_value(&target.spec.strategy).expect("json");
    let v1 = deployment(old_size, &strategy, "v1");
    let mut all = vec![set(&v1, "old", old_size, old_size, 1)];
    let bounds = rolling::bounds(target);
    let desired = rolling::desired(target);
    let mut all_up = true;
    for round in 0..500 {
        let sets = Sets::of(target, all.iter().cloned().map(cached).collect());
        let step = plan::step(target, &sets, false);
        if let Some(rs) = &step.create {
            let mut rs = ReplicaSet::clone(rs);
            rs.metadata.uid = Some("new".to_owned());
            rs.metadata.generation = Some(1);
            let created = jiff::Timestamp::from_second(2_000).expect("in range");
            rs.metadata.creation_timestamp = Some(created.into());
            all.push(rs);
        }
        for resize in &step.resize {
            let rs = all
                .iter_mut()
                .find(|rs| rs.metadata.name.as_deref() == Some(&*resize.set.key.name))
                .expect("known");
            rs.metadata.annotations.extend(resize.annotations.clone());
            rs.spec.replicas = resize.size.or(rs.spec.replicas);
        }
        let total: i32 = all.iter().map(replicas).sum();
        let ceiling = old_size.max(desired) + bounds.surge;
        prop_assert!(total <= ceiling, "{total} pods, at most {ceiling}");
        let becomes = flaky.is_empty() || flaky[round % flaky.len()];
        for rs in &mut all {
            let size = replicas(rs);
            let up = if becomes {
                size
            } else {
                available(rs).min(size)
            };
            let status = json!({"replicas": size, "readyReplicas": up, "availableReplicas": up,
                                "observedGeneration": 1});
            rs.status = serde_json::from_value(status).expect("status");
        }
        let up: i32 = all.iter().map(available).sum();
        let floor = old_size.min(desired) - bounds.unavailable;
        prop_assert!(up >= floor, "{up} available, at least {floor}");
        let done = step.create.is_none() && step.resize.is_empty() && all_up;
        all_up = becomes;
        if done {
            let sizes: Vec<i32> = all.iter().map(replicas).collect();
            prop_assert_eq!(sizes, vec![0, desired]);
            return Ok(());
        }
    }
    prop_assert!(false, "the rollout does not end");
    Ok(())
}

proptest! {
    #[test]
    fn a_rollout_ends_and_never_leaves_its_bounds(
        old_size in 0_i32..20,
        size in 1_i32..20,
        surge in prop_oneof![(0_i32..5).prop_map(|n| json!(n)), (0_i32..101).prop_map(|p| json!(format!("{p}%")))],
        unavailable in prop_oneof![(0_i32..5).prop_map(|n| json!(n)), (0_i32..101).prop_map(|p| json!(format!("{p}%")))],
        mut flaky in proptest::collection::vec(any::<bool>(), 0..8),
    ) {
        flaky.push(true);
        let d = deployment(size, &rolling_update(&surge, &unavailable), "v2");
        roll(old_size, &d, &flaky)?;
    }

    #[test]
    fn proportional_sizes_add_up_to_what_is_allowed(
        sizes in proptest::collection::vec(1_i32..20, 1..5),
        after in 0_i32..60,
    ) {
        let strategy = rolling_update(&json!("25%"), &json!("25%"));
        // What a rollout leaves behind: together no more than size and surge.
        let before = sizes.iter().sum();
        let active: Vec<ReplicaSet> = sizes
            .iter()
            .enumerate()
            .map(|(number, size)| {
                let d = deployment(before, &strategy, &format!("v{number}"));
                set(&d, &format!("rs{number}"), *size, *size, i64::try_from(number).expect("few") + 1)
            })
            .collect();
        let d = deployment(after, &strategy, "v0");
        let next = proportional::sizes(&d, &active.iter().collect::<Vec<_>>());
        prop_assert!(next.iter().all(|size| *size >= 0), "{next:?}");
        let allowed = if after == 0 { 0 } else { after + rolling::bounds(&d).surge };
        prop_assert_eq!(next.iter().sum::<i32>(), allowed, "{:?} -> {:?}", sizes, next);
    }
}
