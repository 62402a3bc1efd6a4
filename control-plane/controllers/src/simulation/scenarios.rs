//! Random interleavings: what the cluster must look like in the end, whatever went wrong on the way.

use std::collections::BTreeSet;

use control_plane_client::resources::{
    CONFIG_MAPS, DEPLOYMENTS, ENDPOINT_SLICES, ENDPOINTS, EVENTS, NAMESPACES, NODES, PODS,
    REPLICA_SETS, SERVICE_ACCOUNTS, SERVICES,
};
use control_plane_client::{Api, DeleteOptions, ObjectKey, Patch, Propagation, WatchEvent};
use futures::StreamExt;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
            "revisionHistoryLimit": 2,
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    })
}

fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "clusterIP": "10.96.1.1",
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

fn replica_set(name: &str, replicas: usize) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"rs": name}},
            "template": {
                "metadata": {"labels": {"rs": name}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    })
}

/// Does a write until the API takes it: the person at the keyboard tries again.
async fn insist<T, F>(mut write: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, control_plane_client::ApiError>>,
{
    loop {
        match write().await {
            Ok(done) => return done,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn create(cluster: &Cluster, resource: control_plane_client::Resource, body: Value) {
    let name = body["metadata"]["name"].as_str().expect("name").to_owned();
    let key = ObjectKey::new("default", name);
    loop {
        let created = cluster.fake.create(resource, "default", body.clone()).await;
        match created {
            Ok(_) => return,
            Err(error) if error.is_already_exists() => return,
            Err(_) => {}
        }
        if cluster.fake.get(resource, &key).await.is_ok() {
            return;
        }
    }
}

async fn patch(
    cluster: &Cluster,
    resource: control_plane_client::Resource,
    name: &str,
    change: Value,
) {
    let key = ObjectKey::new("default", name);
    insist(|| {
        cluster
            .fake
            .patch(resource, &key, None, Patch::Merge(change.clone()))
    })
    .await;
}

/// Ready addresses by the API's own pods, and by the slices of the service.
fn addresses(fake: &FakeApi, app: &str) -> (BTreeSet<String>, BTreeSet<String>, BTreeSet<String>) {
    let pods = fake
        .all(PODS)
        .iter()
        .filter(|pod| pod["metadata"]["labels"]["app"] == app && is_active(pod) && is_ready(pod))
        .map(|pod| pod["status"]["podIP"].as_str().expect("ip").to_owned())
        .collect();
    let slices = fake
        .all(ENDPOINT_SLICES)
        .iter()
        .filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == app)
        .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default())
        .filter(|endpoint| endpoint["conditions"]["ready"] == true)
        .map(|endpoint| endpoint["addresses"][0].as_str().expect("ip").to_owned())
        .collect();
    let endpoints = fake
        .all(ENDPOINTS)
        .iter()
        .filter(|endpoints| endpoints["metadata"]["name"] == app)
        .flat_map(|endpoints| endpoints["subsets"].as_array().cloned().unwrap_or_default())
        .flat_map(|subset| subset["addresses"].as_array().cloned().unwrap_or_default())
        .map(|address| address["ip"].as_str().expect("ip").to_owned())
        .collect();
    (pods, slices, endpoints)
}

/// Whether the Deployment is where it should be: everything new, counted, and served.
fn is_settled(fake: &FakeApi, name: &str) -> bool {
    let Some(d) = fake
        .all(DEPLOYMENTS)
        .into_iter()
        .find(|d| d["metadata"]["name"] == name)
    else {
        return false;
    };
    let desired = d["spec"]["replicas"].as_u64().expect("replicas");
    let image = &d["spec"]["template"]["spec"]["containers"][0]["image"];
    let pods: Vec<Value> = fake
        .all(PODS)
        .into_iter()
        .filter(|pod| pod["metadata"]["labels"]["app"] == name)
        .collect();
    let count = |field: &str| d["status"][field].as_u64().unwrap_or(0);
    let (ready, slices, endpoints) = addresses(fake, name);
    d["status"]["observedGeneration"] == d["metadata"]["generation"]
        && [
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
        ]
        .into_iter()
        .all(|field| count(field) == desired)
        && pods.len() as u64 == desired
        && pods
            .iter()
            .all(|pod| pod["spec"]["containers"][0]["image"] == *image)
        && ready.len() as u64 == desired
        && slices == ready
        && endpoints == ready
}

fn describe(fake: &FakeApi) -> String {
    let show = |resource| {
        fake.all(resource)
            .iter()
            .map(|value| {
                format!(
                    "{} gen={} spec.replicas={} image={} status={}\n",
                    value["metadata"]["name"],
                    value["metadata"]["generation"],
                    value["spec"]["replicas"],
                    value["spec"]["template"]["spec"]["containers"][0]["image"],
                    value["status"]
                )
            })
            .collect::<String>()
    };
    format!("{}{}{}", show(DEPLOYMENTS), show(REPLICA_SETS), show(PODS))
}

fn in_paused_time<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("runtime")
        .block_on(test)
}

#[test]
fn a_cluster_starts_with_its_system_objects() {
    in_paused_time(async {
        let cluster = Cluster::start(2).await;
        let names = |resource| -> Vec<String> {
            let all = cluster.fake.all(resource);
            all.iter()
                .map(|v| v["metadata"]["name"].as_str().expect("name").to_owned())
                .collect()
        };
        cluster
            .until("service accounts and pod ranges", |fake| {
                fake.all(SERVICE_ACCOUNTS).len() == 4
                    && fake
                        .all(NODES)
                        .iter()
                        .all(|node| node["spec"]["podCIDR"].is_string())
                    && fake.all(SERVICES).len() == 2
            })
            .await;
        assert_eq!(
            names(NAMESPACES),
            ["default", "kube-node-lease", "kube-public", "kube-system"]
        );
        assert_eq!(names(SERVICES), ["kubernetes", "kube-dns"]);
        // Where the API's own Service leads is told by the API servers.
        assert!(names(ENDPOINT_SLICES).is_empty());
        assert!(
            cluster
                .fake
                .all(CONFIG_MAPS)
                .iter()
                .all(|map| map["data"]["ca.crt"] == "CA")
        );
        let ranges: BTreeSet<String> = cluster
            .fake
            .all(NODES)
            .iter()
            .map(|node| node["spec"]["podCIDR"].as_str().expect("range").to_owned())
            .collect();
        assert_eq!(
            ranges.into_iter().collect::<Vec<_>>(),
            ["10.244.0.0/24", "10.244.1.0/24"]
        );
        cluster.stop().await;
    });
}

#[test]
fn a_deployment_rolls_out_and_back_and_its_history_is_kept_short() {
    in_paused_time(async {
        let cluster = Cluster::start(2).await;
        create(&cluster, SERVICES, service("web")).await;
        create(&cluster, DEPLOYMENTS, deployment("web", 5, "v1")).await;
        cluster
            .until_or("v1", |fake| is_settled(fake, "web"), describe)
            .await;
        for image in ["v2", "v3", "v4", "v5", "v4"] {
            let change = json!({"spec": {"template": {"spec": {"containers": [
                {"name": "c", "image": image},
            ]}}}});
            patch(&cluster, DEPLOYMENTS, "web", change).await;
            cluster
                .until_or(image, |fake| is_settled(fake, "web"), describe)
                .await;
        }
        cluster
            .until("history", |fake| fake.all(REPLICA_SETS).len() == 3)
            .await;
        let d = &cluster.fake.all(DEPLOYMENTS)[0];
        assert_eq!(
            d["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
            "6"
        );
        let sets = cluster.fake.all(REPLICA_SETS);
        let newest = sets
            .iter()
            .find(|rs| rs["spec"]["replicas"] == 5)
            .expect("the new set");
        let annotations = &newest["metadata"]["annotations"];
        assert_eq!(annotations["deployment.kubernetes.io/revision"], "6");
        assert_eq!(
            annotations["deployment.kubernetes.io/revision-history"],
            "4"
        );
        let progressing = d["status"]["conditions"]
            .as_array()
            .and_then(|all| all.iter().find(|c| c["type"] == "Progressing"))
            .expect("condition");
        assert_eq!(progressing["reason"], "NewReplicaSetAvailable");
        assert!(
            cluster
                .fake
                .all(EVENTS)
                .iter()
                .any(|e| e["reason"] == "ScalingReplicaSet")
        );
        cluster.stop().await;
    });
}

#[test]
fn a_rollout_that_does_not_progress_times_out_and_keeps_the_old_pods_serving() {
    in_paused_time(async {
        let cluster = Cluster::start(2).await;
        create(&cluster, SERVICES, service("web")).await;
        let mut body = deployment("web", 4, "v1");
        body["spec"]["progressDeadlineSeconds"] = json!(60);
        create(&cluster, DEPLOYMENTS, body).await;
        cluster
            .until_or("v1", |fake| is_settled(fake, "web"), describe)
            .await;
        let change = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "c", "image": "broken"},
        ]}}}});
        patch(&cluster, DEPLOYMENTS, "web", change).await;
        let reason = |fake: &FakeApi| -> Option<Value> {
            let d = fake.all(DEPLOYMENTS).into_iter().next()?;
            let all = d["status"]["conditions"].as_array()?.clone();
            let found = all.into_iter().find(|c| c["type"] == "Progressing")?;
            Some(found["reason"].clone())
        };
        let started = tokio::time::Instant::now();
        cluster
            .until_or(
                "the deadline",
                |fake| reason(fake) == Some(json!("ProgressDeadlineExceeded")),
                describe,
            )
            .await;
        let waited = started.elapsed().as_secs();
        assert!((60..70).contains(&waited), "{waited} s");
        let (ready, slices, _) = addresses(&cluster.fake, "web");
        assert_eq!(ready.len(), 3);
        assert_eq!(slices, ready);
        cluster.stop().await;
    });
}

#[test]
fn recreate_never_runs_old_and_new_pods_together() {
    in_paused_time(async {
        let cluster = Cluster::start(2).await;
        create(&cluster, SERVICES, service("web")).await;
        let mut body = deployment("web", 3, "v1");
        body["spec"]["strategy"] = json!({"type": "Recreate"});
        create(&cluster, DEPLOYMENTS, body).await;
        cluster
            .until_or("v1", |fake| is_settled(fake, "web"), describe)
            .await;
        let change = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "c", "image": "v2"},
        ]}}}});
        patch(&cluster, DEPLOYMENTS, "web", change).await;
        cluster
            .until_or(
                "v2",
                |fake| {
                    let images: BTreeSet<String> = fake
                        .all(PODS)
                        .iter()
                        .map(|pod| pod["spec"]["containers"][0]["image"].to_string())
                        .collect();
                    assert!(images.len() <= 1, "{images:?}");
                    is_settled(fake, "web")
                },
                describe,
            )
            .await;
        cluster.stop().await;
    });
}

#[test]
fn a_deleted_namespace_takes_its_content_and_goes() {
    in_paused_time(async {
        let cluster = Cluster::start(2).await;
        insist(|| {
            cluster
                .fake
                .create(NAMESPACES, "", json!({"metadata": {"name": "shop"}}))
        })
        .await;
        insist(|| {
            cluster
                .fake
                .create(DEPLOYMENTS, "shop", deployment("web", 3, "v1"))
        })
        .await;
        insist(|| cluster.fake.create(SERVICES, "shop", service("web"))).await;
        let here = |fake: &FakeApi, resource| {
            fake.all(resource)
                .iter()
                .filter(|v| v["metadata"]["namespace"] == "shop")
                .count()
        };
        cluster
            .until("it runs", |fake| {
                fake.all(PODS).iter().filter(|pod| is_ready(pod)).count() == 3
            })
            .await;
        let key = ObjectKey::new("", "shop");
        let options = DeleteOptions::default();
        insist(|| cluster.fake.delete(NAMESPACES, &key, &options)).await;
        cluster
            .until("it is gone", |fake| {
                !fake
                    .all(NAMESPACES)
                    .iter()
                    .any(|ns| ns["metadata"]["name"] == "shop")
            })
            .await;
        for resource in control_plane_client::resources::ALL {
            assert_eq!(
                here(&cluster.fake, *resource),
                0,
                "{} left",
                resource.plural
            );
        }
        cluster.stop().await;
    });
}

#[test]
fn deletion_of_a_deployment_follows_the_propagation_asked_for() {
    for (how, pods, sets) in [
        (Propagation::Background, 0, 0),
        (Propagation::Foreground, 0, 0),
        (Propagation::Orphan, 3, 1),
    ] {
        in_paused_time(async {
            let cluster = Cluster::start(2).await;
            create(&cluster, SERVICES, service("web")).await;
            create(&cluster, DEPLOYMENTS, deployment("web", 3, "v1")).await;
            cluster
                .until_or("v1", |fake| is_settled(fake, "web"), describe)
                .await;
            let key = ObjectKey::new("default", "web");
            let options = DeleteOptions {
                propagation: Some(how),
                ..DeleteOptions::default()
            };
            insist(|| cluster.fake.delete(DEPLOYMENTS, &key, &options)).await;
            cluster
                .until_or(
                    "the end",
                    |fake| {
                        let left = fake.all(DEPLOYMENTS).len();
                        if how == Propagation::Foreground && left == 0 {
                            assert_eq!(fake.all(REPLICA_SETS).len(), 0, "owner before dependents");
                        }
                        left == 0
                            && fake.all(PODS).len() == pods
                            && fake.all(REPLICA_SETS).len() == sets
                    },
                    describe,
                )
                .await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(cluster.fake.all(PODS).len(), pods, "{how:?}");
            let owned = cluster.fake.all(REPLICA_SETS);
            assert!(
                owned
                    .iter()
                    .all(|rs| rs["metadata"].get("ownerReferences").is_none())
            );
            cluster.stop().await;
        });
    }
}

/// A node falls silent: when its pods stop serving and when they are told to go.
#[test]
fn a_silent_node_is_tainted_its_pods_stop_serving_and_are_replaced_after_five_minutes() {
    in_paused_time(async {
        let cluster = Cluster::start(3).await;
        create(&cluster, SERVICES, service("web")).await;
        create(&cluster, DEPLOYMENTS, deployment("web", 6, "v1")).await;
        cluster
            .until_or("v1", |fake| is_settled(fake, "web"), describe)
            .await;
        let started = tokio::time::Instant::now();
        annotate_node(&cluster, json!({"silent": "yes"})).await;
        let on_it = |pod: &&Value| pod["spec"]["nodeName"] == "node-1";
        let all_on_it = |fake: &FakeApi, holds: fn(&Value) -> bool| {
            fake.all(PODS).iter().filter(on_it).all(holds)
        };
        cluster
            .until("pods not ready", |fake| {
                all_on_it(fake, |pod| !is_ready(pod))
            })
            .await;
        let silence = started.elapsed().as_secs();
        assert!((40..65).contains(&silence), "marked after {silence} s");
        let without_them = |fake: &FakeApi| {
            let (ready, slices, _) = addresses(fake, "web");
            slices == ready
        };
        cluster
            .until_or("endpoints without them", without_them, describe)
            .await;
        let unreachable = json!("node.kubernetes.io/unreachable");
        let taints = cluster.fake.all(NODES)[1]["spec"]["taints"].clone();
        let taints = taints.as_array().expect("taints");
        assert!(
            taints
                .iter()
                .any(|t| t["key"] == unreachable && t["effect"] == "NoSchedule")
        );
        cluster
            .until("evicted", |fake| all_on_it(fake, |pod| !is_active(pod)))
            .await;
        let evicted = started.elapsed().as_secs();
        assert!((340..380).contains(&evicted), "evicted after {evicted} s");
        come_back(&cluster).await;
        cluster
            .until("untainted", |fake| {
                fake.all(NODES)[1]["spec"].get("taints").is_none()
            })
            .await;
        cluster.stop().await;
    });
}

async fn annotate_node(cluster: &Cluster, annotations: Value) {
    let key = ObjectKey::new("", "node-1");
    let change = json!({"metadata": {"annotations": annotations}});
    insist(|| {
        cluster
            .fake
            .patch(NODES, &key, None, Patch::Merge(change.clone()))
    })
    .await;
}

async fn come_back(cluster: &Cluster) {
    annotate_node(cluster, json!({"silent": null})).await;
    let now = proto_api::types::Time::from_timestamp(cluster.fake.clock().now());
    let report = json!({"status": {"conditions": [{
        "type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now,
    }]}});
    let key = ObjectKey::new("", "node-1");
    insist(|| {
        cluster
            .fake
            .patch(NODES, &key, Some("status"), Patch::Merge(report.clone()))
    })
    .await;
}

#[test]
fn pods_of_a_removed_node_are_removed() {
    in_paused_time(async {
        let cluster = Cluster::start(2).await;
        create(&cluster, REPLICA_SETS, replica_set("r", 4)).await;
        cluster
            .until("it runs", |fake| {
                fake.all(PODS).iter().filter(|pod| is_ready(pod)).count() == 4
            })
            .await;
        let pod = json!({
            "metadata": {"name": "lone", "namespace": "default"},
            "spec": {"nodeName": "gone", "containers": []}, "status": {"phase": "Running"},
        });
        cluster.fake.seed(PODS, pod);
        cluster
            .until("the lone pod is gone", |fake| fake.all(PODS).len() == 4)
            .await;
        cluster.stop().await;
    });
}

/// Counts a set's active pods at every single revision.
async fn greatest_number_of_pods(
    fake: FakeApi,
    set: &'static str,
    stop: CancellationToken,
) -> usize {
    let mut watch = {
        let objects = FakeApi::clone(&fake);
        objects
            .watch(PODS, &Default::default(), 1)
            .await
            .expect("no faults yet")
    };
    let mut active = BTreeSet::new();
    let mut greatest = 0;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return greatest,
            event = watch.next() => event.expect("the log is kept").expect("no faults here"),
        };
        let (object, gone) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
            WatchEvent::Deleted(object) => (object, true),
            WatchEvent::Bookmark(_) => continue,
        };
        let pod: Value = object.decode().expect("json");
        if pod["metadata"]["labels"]["rs"] != set {
            continue;
        }
        if !gone && is_active(&pod) {
            active.insert(object.key);
        } else {
            active.remove(&object.key);
        }
        greatest = greatest.max(active.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_replica_set_never_has_more_pods_than_it_was_ever_asked_for(
        sizes in proptest::collection::vec((0_usize..12, 0_u64..400), 1..6),
        seed in any::<u64>(),
    ) {
        in_paused_time(async {
            let cluster = Cluster::start(2).await;
            let stop = CancellationToken::new();
            // The observer's own watch must not fail: it starts before the faults and reads the log.
            let observer = tokio::spawn(greatest_number_of_pods(cluster.fake.clone(), "r", stop.clone()));
            tokio::task::yield_now().await;
            let calm = Faults {
                conflict: 0.1,
                refused: 0.05,
                lost_answer: 0.15,
                event_delay_max: Duration::from_millis(80),
                request_delay_max: Duration::from_millis(10),
                ..Faults::default()
            };
            cluster.fake.set_faults(seed, calm);
            let most = sizes.iter().map(|(size, _)| *size).max().unwrap_or(0);
            create(&cluster, REPLICA_SETS, replica_set("r", sizes[0].0)).await;
            for (size, pause_ms) in &sizes {
                patch(&cluster, REPLICA_SETS, "r", json!({"spec": {"replicas": size}})).await;
                tokio::time::sleep(Duration::from_millis(*pause_ms)).await;
            }
            cluster.heal();
            let last = sizes.last().expect("not empty").0;
            cluster
                .until_or(
                    "the last size",
                    |fake| {
                        let set = &fake.all(REPLICA_SETS)[0];
                        fake.all(PODS).len() == last
                            && set["status"]["readyReplicas"].as_u64().unwrap_or(0) == last as u64
                    },
                    describe,
                )
                .await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            stop.cancel();
            let greatest = observer.await.expect("observer");
            assert!(greatest <= most, "{greatest} pods, at most {most} asked for");
            cluster.stop().await;
        });
    }

    #[test]
    fn whatever_is_asked_while_the_api_fails_the_end_is_right(
        steps in proptest::collection::vec((0_u8..5, 0_i32..9, 0_u64..3000), 1..10),
        seed in any::<u64>(),
    ) {
        in_paused_time(async {
            let cluster = Cluster::start(3).await;
            create(&cluster, SERVICES, service("web")).await;
            create(&cluster, DEPLOYMENTS, deployment("web", 3, "v0")).await;
            cluster.fail(seed);
            for (kind, number, pause_ms) in steps {
                let change = match kind {
                    0 | 1 => json!({"spec": {"replicas": number}}),
                    2 => json!({"spec": {"paused": number % 2 == 0}}),
                    _ => json!({"spec": {"template": {"spec": {"containers": [
                        {"name": "c", "image": format!("v{}", number % 4)},
                    ]}}}}),
                };
                patch(&cluster, DEPLOYMENTS, "web", change).await;
                if number == 8 {
                    cluster.fake.compact();
                }
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
            patch(&cluster, DEPLOYMENTS, "web", json!({"spec": {"paused": false}})).await;
            cluster.heal();
            cluster.until_or("the end", |fake| is_settled(fake, "web"), describe).await;
            cluster.stop().await;
        });
    }
}
