use serde_json::json;

use super::*;
use crate::plugins::Plugin;
use crate::testing::pod;

fn info(name: &str, priority: i32) -> Arc<PodInfo> {
    pod(name, "1", json!({}), json!({"priority": priority}))
}

fn next(queue: &mut Queue, now: Instant) -> Option<String> {
    queue
        .pop(now)
        .map(|attempt| attempt.info.key.name.to_string())
}

fn turned_down(plugin: Plugin) -> PluginSet {
    let mut set = PluginSet::default();
    set.insert(plugin);
    set
}

const ROOM: Freed = Freed {
    room: true,
    labels: false,
    taints: false,
    pods: false,
};
const LABELS: Freed = Freed {
    room: false,
    labels: true,
    taints: false,
    pods: false,
};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn priority_goes_first_and_then_arrival() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    for (name, priority) in [("a", 0), ("b", 5), ("c", 5), ("d", 0)] {
        queue.put(&info(name, priority), now);
    }
    let order: Vec<_> = std::iter::from_fn(|| next(&mut queue, now)).collect();
    assert_eq!(order, ["b", "c", "a", "d"]);
}

#[test]
fn a_pod_waits_for_a_change_that_helps_and_for_its_back_off() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    queue.put(&info("a", 0), now);
    let attempt = queue.pop(now).expect("ready");
    queue.unschedulable(&attempt, turned_down(Plugin::NodeResourcesFit), now);
    queue.changed(LABELS, now);
    assert_eq!(
        queue.depth(),
        Depth {
            ready: 0,
            backing_off: 0,
            unschedulable: 1
        }
    );
    queue.changed(ROOM, now);
    assert_eq!(
        queue.depth(),
        Depth {
            ready: 0,
            backing_off: 1,
            unschedulable: 0
        }
    );
    assert_eq!(next(&mut queue, now), None);
    assert_eq!(queue.next_due(), Some(now + s(1)));
    assert_eq!(next(&mut queue, now + s(1)), Some("a".to_owned()));
}

#[test]
fn a_change_during_a_decision_is_not_lost() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    queue.put(&info("a", 0), now);
    let attempt = queue.pop(now).expect("ready");
    queue.changed(ROOM, now);
    queue.unschedulable(&attempt, turned_down(Plugin::NodeResourcesFit), now);
    assert_eq!(queue.depth().backing_off, 1);
}

#[test]
fn changes_beyond_what_is_remembered_count_as_helpful() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    queue.put(&info("a", 0), now);
    let attempt = queue.pop(now).expect("ready");
    queue.changed(ROOM, now);
    for _ in 0..CHANGES_MAX + 1 {
        queue.changed(LABELS, now);
    }
    queue.unschedulable(&attempt, turned_down(Plugin::NodeResourcesFit), now);
    assert_eq!(queue.depth().backing_off, 1);
}

#[test]
fn back_off_doubles_from_one_second_to_ten() {
    let (mut queue, mut now) = (Queue::new(), Instant::now());
    queue.put(&info("a", 0), now);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let attempt = queue.pop(now).expect("ready");
        queue.failed(&attempt, now);
        let due = queue.next_due().expect("backing off");
        waits.push((due - now).as_secs());
        now = due;
    }
    assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
}

#[test]
fn a_changed_spec_brings_a_pod_back_and_a_changed_status_does_not() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    queue.put(&info("a", 0), now);
    let attempt = queue.pop(now).expect("ready");
    queue.unschedulable(&attempt, turned_down(Plugin::NodeAffinity), now);
    queue.put(&info("a", 0), now + s(20));
    assert_eq!(next(&mut queue, now + s(20)), None);
    queue.put(&info("a", 3), now + s(20));
    assert_eq!(next(&mut queue, now + s(20)), Some("a".to_owned()));
}

#[test]
fn a_pod_that_nothing_helps_is_tried_again_after_five_minutes() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    queue.put(&info("a", 0), now);
    let attempt = queue.pop(now).expect("ready");
    queue.unschedulable(&attempt, turned_down(Plugin::NodeAffinity), now);
    queue.flush(now + s(299));
    assert_eq!(next(&mut queue, now + s(299)), None);
    queue.flush(now + s(300));
    assert_eq!(next(&mut queue, now + s(300)), Some("a".to_owned()));
}

#[test]
fn a_removed_pod_is_handed_out_no_more_and_a_namesake_starts_anew() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    queue.put(&info("a", 0), now);
    queue.remove(&info("a", 0).key);
    assert_eq!(next(&mut queue, now), None);
    queue.put(&info("a", 0), now);
    assert_eq!(queue.pop(now).map(|attempt| attempt.attempts), Some(1));
    assert_eq!(next(&mut queue, now), None);
}
