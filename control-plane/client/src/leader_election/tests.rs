use super::*;
use crate::fake::{FakeApi, Faults};

fn config(identity: &str) -> LeaderConfig {
    LeaderConfig::new(ObjectKey::new("kube-system", "skep"), identity.to_owned())
}

fn now(second: i64) -> MicroTime {
    MicroTime::from_timestamp(jiff::Timestamp::from_second(second).expect("in range"))
}

#[test]
fn a_silent_holder_is_replaced_after_its_own_duration_and_the_transition_counts() {
    let held = LeaseSpec {
        holder_identity: Some("a".to_owned()),
        lease_duration_seconds: Some(15),
        acquire_time: Some(now(1)),
        renew_time: Some(now(1)),
        lease_transitions: Some(4),
        ..LeaseSpec::default()
    };
    assert_eq!(
        decide(&config("b"), &held, Duration::from_secs(14), now(9)),
        Step::Wait
    );
    let Step::Write(taken) = decide(&config("b"), &held, Duration::from_secs(15), now(9)) else {
        panic!("must take it");
    };
    assert_eq!(taken.holder_identity.as_deref(), Some("b"));
    assert_eq!(
        (taken.lease_transitions, taken.acquire_time),
        (Some(5), Some(now(9)))
    );
    let Step::Write(renewed) = decide(&config("a"), &held, Duration::ZERO, now(9)) else {
        panic!("must renew");
    };
    assert_eq!(
        (renewed.lease_transitions, renewed.acquire_time),
        (Some(4), Some(now(1)))
    );
}
/// Who leads, and whether two ever did at once.
#[derive(Default)]
struct Watch {
    leading: Vec<String>,
    terms: Vec<String>,
}

async fn lead(
    elector: LeaderElector,
    identity: &'static str,
    watch: Arc<parking_lot::Mutex<Watch>>,
    shutdown: CancellationToken,
) {
    elector
        .run(shutdown, |term| {
            let watch = Arc::clone(&watch);
            async move {
                {
                    let mut watch = watch.lock();
                    watch.leading.push(identity.to_owned());
                    watch.terms.push(identity.to_owned());
                    assert_eq!(watch.leading.len(), 1, "two leaders: {:?}", watch.leading);
                }
                term.stop.cancelled().await;
                watch.lock().leading.retain(|other| other != identity);
            }
        })
        .await;
}

fn elector(fake: &FakeApi, identity: &str) -> LeaderElector {
    LeaderElector::new(fake.handle(), config(identity), fake.clock())
}

#[tokio::test(start_paused = true)]
async fn two_never_lead_at_once_and_an_orderly_end_hands_over_quickly() {
    let fake = FakeApi::new();
    // The lease's namespace does not exist yet, as at the first start of a cluster.
    let watch = Arc::new(parking_lot::Mutex::new(Watch::default()));
    let (stop_a, stop_b) = (CancellationToken::new(), CancellationToken::new());
    let a = tokio::spawn(lead(
        elector(&fake, "a"),
        "a",
        Arc::clone(&watch),
        stop_a.clone(),
    ));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let b = tokio::spawn(lead(
        elector(&fake, "b"),
        "b",
        Arc::clone(&watch),
        stop_b.clone(),
    ));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(watch.lock().terms, ["a"]);
    stop_a.cancel();
    a.await.expect("a ends");
    let waited = Instant::now();
    fake.wait_until(|_| watch.lock().terms.len() == 2).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(watch.lock().terms, ["a", "b"]);
    assert!(waited.elapsed() < Duration::from_secs(8));
    stop_b.cancel();
    b.await.expect("b ends");
}

#[tokio::test(start_paused = true)]
async fn two_never_lead_at_once_while_the_api_fails() {
    let fake = FakeApi::new();
    fake.seed(
        NAMESPACES,
        serde_json::json!({"metadata": {"name": "kube-system"}}),
    );
    let faults = Faults {
        refused: 0.4,
        conflict: 0.2,
        lost_answer: 0.2,
        ..Faults::default()
    };
    fake.set_faults(7, faults);
    let watch = Arc::new(parking_lot::Mutex::new(Watch::default()));
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    for identity in ["a", "b", "c"] {
        tasks.spawn(lead(
            elector(&fake, identity),
            identity,
            Arc::clone(&watch),
            stop.clone(),
        ));
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no two leaders");
    }
    assert!(!watch.lock().terms.is_empty());
}
