//! The whole scheduler against the API in memory.

use control_plane_client::fake::FakeApi;
use control_plane_client::{Api as _, ObjectKey, resources};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;

struct Rig {
    api: FakeApi,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    fn start(api: FakeApi) -> Self {
        let stop = CancellationToken::new();
        let informers = Informers::new(api.handle(), stop.clone());
        let config = Config {
            name: DEFAULT_NAME.into(),
            clock: api.clock(),
            health: Health::default(),
        };
        let task = tokio::spawn(run(informers, config, stop.clone()));
        Self { api, stop, task }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn node(api: &FakeApi, name: &str, cpu: &str) {
    api.seed(
        resources::NODES,
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}}),
    );
}

fn pod(api: &FakeApi, name: &str, cpu: &str) {
    api.seed(
        resources::PODS,
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "default", "name": name},
            "spec": {"schedulerName": DEFAULT_NAME, "containers":
                [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}),
    );
}

fn pods(api: &FakeApi) -> Vec<Value> {
    api.all(resources::PODS)
}

fn is_bound(pod: &Value) -> bool {
    pod["spec"]["nodeName"].is_string()
}

#[tokio::test(start_paused = true)]
async fn pods_are_bound_evenly_and_a_full_cluster_leaves_the_rest_pending_with_a_reason() {
    let api = FakeApi::new();
    node(&api, "a", "2");
    node(&api, "b", "2");
    for number in 0..5 {
        pod(&api, &format!("p{number}"), "1");
    }
    let rig = Rig::start(api.clone());
    rig.api
        .wait_until(|api| pods(api).iter().filter(|pod| is_bound(pod)).count() == 4)
        .await;
    rig.api
        .wait_until(|api| {
            pods(api).iter().any(|pod| {
                let condition = &pod["status"]["conditions"][0];
                condition["reason"] == "Unschedulable"
                    && condition["message"] == "0/2 nodes are available: 2 Insufficient cpu."
            })
        })
        .await;
    let on = |name: &str| {
        pods(&rig.api)
            .iter()
            .filter(|pod| pod["spec"]["nodeName"] == name)
            .count()
    };
    assert_eq!((on("a"), on("b")), (2, 2));

    // A third node makes room.
    node(&rig.api, "c", "2");
    rig.api
        .wait_until(|api| pods(api).iter().all(is_bound))
        .await;
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_ended_pod_makes_room_and_a_foreign_pod_is_left_alone() {
    let api = FakeApi::new();
    node(&api, "a", "1");
    pod(&api, "first", "1");
    let rig = Rig::start(api.clone());
    rig.api
        .wait_until(|api| pods(api).iter().all(is_bound))
        .await;
    pod(&rig.api, "second", "1");
    api.seed(
        resources::PODS,
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "default", "name": "foreign"},
            "spec": {"schedulerName": "mine", "containers": [{"name": "c"}]}}),
    );
    let key = ObjectKey::new("default", "first");
    let options = control_plane_client::DeleteOptions {
        grace_period_seconds: Some(0),
        ..Default::default()
    };
    rig.api
        .delete(resources::PODS, &key, &options)
        .await
        .unwrap();
    rig.api
        .wait_until(|api| {
            pods(api)
                .iter()
                .any(|pod| pod["metadata"]["name"] == "second" && is_bound(pod))
        })
        .await;
    let foreign = pods(&rig.api)
        .into_iter()
        .find(|pod| pod["metadata"]["name"] == "foreign");
    assert!(!is_bound(&foreign.unwrap()));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn every_pod_is_bound_in_the_end_although_calls_fail() {
    let api = FakeApi::new();
    for name in ["a", "b", "c"] {
        node(&api, name, "16");
    }
    let faults = control_plane_client::fake::Faults {
        refused: 0.2,
        lost_answer: 0.1,
        watch_broken: 0.1,
        watch_expired: 0.05,
        ..Default::default()
    };
    api.set_faults(7, faults);
    let rig = Rig::start(api.clone());
    for number in 0..40 {
        pod(&rig.api, &format!("p{number}"), "1");
    }
    rig.api
        .wait_until(|api| pods(api).iter().all(is_bound))
        .await;
    let most = ["a", "b", "c"].map(|name| {
        pods(&rig.api)
            .iter()
            .filter(|pod| pod["spec"]["nodeName"] == name)
            .count()
    });
    assert!(
        most.iter().all(|count| *count <= 16),
        "no node is overfull: {most:?}"
    );
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_the_pods_that_it_must_be_near() {
    let api = FakeApi::new();
    for (name, zone) in [("a", "east"), ("b", "west")] {
        api.seed(
            resources::NODES,
            json!({"apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name, "labels": {"zone": zone}},
                "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}}),
        );
    }
    let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "db"}},
        "namespaceSelector": {"matchLabels": {"team": "data"}}});
    api.seed(
        resources::PODS,
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "default", "name": "near"},
            "spec": {"schedulerName": DEFAULT_NAME, "containers": [{"name": "c"}],
                "affinity": {"podAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [term]}}}}),
    );
    let rig = Rig::start(api.clone());
    rig.api
        .wait_until(|api| {
            let words = "0/2 nodes are available: 2 node(s) didn't match pod affinity rules.";
            pods(api)[0]["status"]["conditions"][0]["message"] == words
        })
        .await;
    // What it waits for comes to a node, and only then its namespace is one that is meant.
    api.seed(
        resources::PODS,
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": "db", "labels": {"app": "db"}},
            "spec": {"schedulerName": DEFAULT_NAME, "containers": [{"name": "c"}],
                "nodeSelector": {"zone": "west"}}}),
    );
    api.seed(
        resources::NAMESPACES,
        json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop", "labels": {"team": "data"}}}),
    );
    rig.api
        .wait_until(|api| pods(api).iter().all(is_bound))
        .await;
    for pod in pods(&rig.api) {
        assert_eq!(pod["spec"]["nodeName"], "b", "{pod}");
    }
    rig.end().await;
}
