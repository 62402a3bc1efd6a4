use parking_lot::Mutex;
use proptest::prelude::*;
use proto_api::types::Object as _;
use proto_api::types::core::v1::ConfigMap;
use serde_json::json;

use super::*;
use crate::api::{DeleteOptions, ObjectKey};
use crate::fake::{FakeApi, Faults};
use crate::informer::Change;
use crate::informers::Informers;
use crate::resources::{CONFIG_MAPS, NAMESPACES};

fn body(name: u8, value: u16) -> serde_json::Value {
    json!({"metadata": {"name": format!("c{name}")}, "data": {"v": value.to_string()}})
}

fn key(name: u8) -> ObjectKey {
    ObjectKey::new("default", format!("c{name}"))
}

/// What a handler has been told, and whether the order of each key was right.
#[derive(Default)]
struct Told(std::collections::BTreeMap<String, String>);

impl Told {
    fn take(&mut self, change: &Change<ConfigMap>) {
        let object = change.object();
        let name = object.key.to_string();
        match change {
            Change::Added(new) => {
                let before = self.0.insert(name.clone(), new.value.data["v"].clone());
                assert_eq!(before, None, "{name} added twice");
            }
            Change::Modified { old, new } => {
                let before = self.0.insert(name.clone(), new.value.data["v"].clone());
                assert_eq!(
                    before.as_ref(),
                    Some(&old.value.data["v"]),
                    "{name} changed from"
                );
            }
            Change::Deleted(old) => {
                assert!(
                    self.0.remove(&name).is_some(),
                    "{name} deleted though unknown"
                );
                assert!(!old.value.uid().is_empty());
            }
        }
    }
}

fn is_equal(fake: &FakeApi, told: &Told) -> bool {
    let stored: std::collections::BTreeMap<String, String> = fake
        .all(CONFIG_MAPS)
        .iter()
        .map(|value| {
            let name = format!(
                "default/{}",
                value["metadata"]["name"].as_str().expect("name")
            );
            (name, value["data"]["v"].as_str().expect("v").to_owned())
        })
        .collect();
    stored == told.0
}

async fn settle(fake: &FakeApi, told: &Mutex<Told>) {
    for _ in 0..10_000 {
        if is_equal(fake, &told.lock()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the store never became equal: {:?}", told.lock().0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn store_and_handlers_become_equal_to_the_api_whatever_happens_to_the_watch(
        steps in proptest::collection::vec((0_u8..8, 0_u16..1000, 0_u8..10), 1..80),
        seed in any::<u64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let fake = FakeApi::new();
            fake.seed(NAMESPACES, json!({"metadata": {"name": "default"}}));
            fake.set_faults(seed, Faults {
                refused: 0.1,
                watch_broken: 0.1,
                watch_expired: 0.05,
                event_delay_max: Duration::from_millis(20),
                ..Faults::default()
            });
            let shutdown = CancellationToken::new();
            let informers = Informers::new(fake.handle(), shutdown.clone());
            let informer = informers.of::<ConfigMap>();
            let (early, late) = (Arc::new(Mutex::new(Told::default())), Arc::new(Mutex::new(Told::default())));
            let sink = Arc::clone(&early);
            let _early = informer.subscribe(move |change| sink.lock().take(change));
            let api = fake.handle();
            let mut late_subscription = None;
            for (number, (name, value, kind)) in steps.into_iter().enumerate() {
                match kind {
                    0..=5 => {
                        let created = api.create(CONFIG_MAPS, "default", body(name, value)).await;
                        if created.is_err_and(|error| error.is_already_exists()) {
                            let patch = crate::api::Patch::Merge(body(name, value));
                            drop(api.patch(CONFIG_MAPS, &key(name), None, patch).await);
                        }
                    }
                    6..=8 => {
                        let options = DeleteOptions::default();
                        drop(api.delete(CONFIG_MAPS, &key(name), &options).await);
                    }
                    _ => fake.compact(),
                }
                if number == 20 {
                    let sink = Arc::clone(&late);
                    late_subscription =
                        Some(informer.subscribe(move |change| sink.lock().take(change)));
                }
                tokio::time::sleep(Duration::from_millis(u64::from(value % 7))).await;
            }
            settle(&fake, &early).await;
            if late_subscription.is_some() {
                settle(&fake, &late).await;
            }
            shutdown.cancel();
            informers.stopped().await;
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_is_resumed_without_a_list() {
    let fake = FakeApi::new();
    fake.seed(NAMESPACES, json!({"metadata": {"name": "default"}}));
    let shutdown = CancellationToken::new();
    let informers = Informers::new(fake.handle(), shutdown.clone());
    let informer = informers.of::<ConfigMap>();
    informer.synced().await;
    fake.set_faults(
        3,
        Faults {
            watch_broken: 0.5,
            ..Faults::default()
        },
    );
    for number in 0..40 {
        fake.seed(CONFIG_MAPS, json!({
            "metadata": {"name": format!("c{number}"), "namespace": "default"}, "data": {"v": "1"},
        }));
    }
    while informer.snapshot().len() < 40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let calls = fake.calls();
    let count = |verb| {
        calls
            .iter()
            .filter(|(call, _)| call.verb == verb)
            .map(|(_, count)| *count)
            .sum::<usize>()
    };
    assert_eq!(count("list"), 1);
    assert!(count("watch") > 1);
    shutdown.cancel();
    informers.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_does_not_decode_is_counted_and_does_not_stop_the_rest() {
    let fake = FakeApi::new();
    fake.seed(
        CONFIG_MAPS,
        json!({"metadata": {"name": "bad", "namespace": "a"}, "data": "text"}),
    );
    fake.seed(
        CONFIG_MAPS,
        json!({"metadata": {"name": "good", "namespace": "a"}}),
    );
    let shutdown = CancellationToken::new();
    let informers = Informers::new(fake.handle(), shutdown.clone());
    let informer = informers.of::<ConfigMap>();
    informer.synced().await;
    assert_eq!((informer.snapshot().len(), informer.undecodable()), (1, 1));
    shutdown.cancel();
    informers.stopped().await;
}
