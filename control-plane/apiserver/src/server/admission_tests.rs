//! What admission does to writes: quotas, limits, pod security; and the objects that are made when
//! they are read.

use serde_json::json;

use super::tests::Fixture;
use super::*;
use crate::cache::ListRequest;
use crate::server::{DeleteRequest, Probe};

fn pod(name: &str, resources: &Value) -> Value {
    json!({"metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i:1", "resources": resources}]}})
}

async fn used(fixture: &Fixture, name: &str) -> Value {
    let target = fixture.target("resourcequotas", name);
    let quota = fixture.server.get(&target, None).await.unwrap().value();
    quota["status"]["used"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_creations_fill_a_quota_and_never_overrun_it() {
    let fixture = Arc::new(Fixture::new().await);
    let quota = json!({"metadata": {"name": "q"},
        "spec": {"hard": {"pods": "5", "requests.cpu": "2"}}});
    fixture.make("resourcequotas", "d", quota).await.unwrap();
    let zero = json!({"pods": "0", "requests.cpu": "0"});
    assert_eq!(used(&fixture, "q").await, zero);
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..20 {
        let fixture = Arc::clone(&fixture);
        tasks.spawn(async move {
            let body = pod(&format!("p-{i}"), &json!({"requests": {"cpu": "100m"}}));
            fixture.make("pods", "d", body).await
        });
    }
    let results = tasks.join_all().await;
    let refused: Vec<&StatusError> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    assert_eq!(refused.len(), 15);
    for error in refused {
        assert_eq!((error.code, error.reason), (403, "Forbidden"));
        assert!(
            error.message.contains(
                "is forbidden: exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5"
            ),
            "{error}"
        );
    }
    let full = json!({"pods": "5", "requests.cpu": "500m"});
    assert_eq!(used(&fixture, "q").await, full);
    let gone = results.into_iter().find_map(Result::ok).unwrap();
    let target = fixture.target("pods", &gone.key.name);
    let request = DeleteRequest::default();
    let deleted = fixture.server.delete(&target, &request, &fixture.context);
    deleted.await.unwrap();
    let less = json!({"pods": "4", "requests.cpu": "400m"});
    assert_eq!(used(&fixture, "q").await, less);
    let body = pod("again", &json!({}));
    let error = fixture.make("pods", "d", body).await.unwrap_err();
    assert_eq!(
        error.message,
        "pods \"again\" is forbidden: failed quota: q: must specify requests.cpu for: c"
    );
}

#[tokio::test]
async fn a_quota_counts_what_was_there_before_it_and_what_ends() {
    let fixture = Fixture::new().await;
    let body = pod("p", &json!({"requests": {"memory": "1Gi"}}));
    fixture.make("pods", "d", body).await.unwrap();
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard":
        {"pods": "3", "requests.memory": "4Gi", "count/pods": "9", "services": "1"}}});
    fixture.make("resourcequotas", "d", quota).await.unwrap();
    let expected =
        json!({"count/pods": "1", "pods": "1", "requests.memory": "1Gi", "services": "0"});
    assert_eq!(used(&fixture, "q").await, expected);
    let mut target = fixture.target("pods", "p");
    target.subresource = Some(Subresource::Status);
    let ended = json!({"status": {"phase": "Succeeded"}});
    let patch = Patch::Merge(ended);
    let patched = fixture
        .server
        .patch(&target, &patch, &fixture.context, |_| Ok(()));
    patched.await.unwrap();
    let expected = json!({"count/pods": "1", "pods": "0", "requests.memory": "0", "services": "0"});
    assert_eq!(used(&fixture, "q").await, expected);
    let service = |name: &str| {
        json!({"metadata": {"name": name},
            "spec": {"ports": [{"port": 80}]}})
    };
    fixture.make("services", "d", service("a")).await.unwrap();
    let error = fixture.make("services", "d", service("b")).await;
    assert_eq!(
        error.unwrap_err().message,
        "services \"b\" is forbidden: exceeded quota: q, requested: services=1, used: services=1, limited: services=1"
    );
}

#[tokio::test]
async fn limits_complete_and_refuse_pods() {
    let fixture = Fixture::new().await;
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "1"}, "max": {"cpu": "2"}}]}});
    fixture.make("limitranges", "d", range).await.unwrap();
    let made = fixture.make("pods", "d", pod("p", &json!({}))).await;
    let made = made.unwrap().value();
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!(resources["limits"]["cpu"], "1");
    assert_eq!(resources["requests"]["cpu"], "1");
    let greedy = pod("greedy", &json!({"limits": {"cpu": "3"}}));
    let error = fixture.make("pods", "d", greedy).await.unwrap_err();
    assert_eq!(
        error.message,
        "pods \"greedy\" is forbidden: maximum cpu usage per Container is 2, but limit is 3"
    );
}

#[tokio::test]
async fn a_namespace_says_how_dangerous_its_pods_may_be() {
    let fixture = Fixture::new().await;
    let label = "pod-security.kubernetes.io/enforce";
    let mut bad = json!({"metadata": {"name": "x", "labels": {}}});
    bad["metadata"]["labels"][label] = json!("strict");
    let error = fixture.make("namespaces", "", bad).await.unwrap_err();
    assert_eq!(error.code, 422);
    assert!(
        error.message.ends_with(
            "Invalid value: \"strict\": must be one of privileged, baseline, restricted"
        ),
        "{error}"
    );
    let mut labels = json!({});
    labels[label] = json!("baseline");
    labels["pod-security.kubernetes.io/warn"] = json!("restricted");
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    let target = fixture.target("namespaces", "d");
    let patched = fixture
        .server
        .patch(&target, &patch, &fixture.context, |_| Ok(()));
    patched.await.unwrap();
    let mut body = pod("p", &json!({}));
    body["spec"]["hostPID"] = json!(true);
    let error = fixture.make("pods", "d", body).await.unwrap_err();
    assert_eq!(
        error.message,
        "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"
    );
    let mut plain = pod("p", &json!({}));
    plain["kind"] = json!("Pod");
    let warnings = fixture.server.admission.pod_security_warnings("d", &plain);
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].starts_with(
            "would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false"
        ),
        "{warnings:?}"
    );
    fixture.make("pods", "d", plain).await.unwrap();
}

#[tokio::test]
async fn components_tell_how_they_are() {
    let fixture = Fixture::new().await;
    let server = &fixture.server;
    let kind = server.kind("", "v1", "componentstatuses").unwrap();
    let rows = async || {
        let page = server.list(&kind, &ListRequest::default()).await.unwrap();
        let rows: Vec<Vec<Value>> = page
            .items
            .iter()
            .map(|obj| kind.table.row(&obj.value(), Timestamp::UNIX_EPOCH))
            .collect();
        json!(rows)
    };
    let well: Probe = Arc::new(|| Ok(()));
    let ill: Probe = Arc::new(|| Err("binding: no answer".to_owned()));
    server.watch_component("controller-manager", well);
    server.watch_component("scheduler", ill);
    assert_eq!(
        rows().await,
        json!([
            ["controller-manager", "Healthy", "ok", ""],
            ["etcd-0", "Healthy", "ok", ""],
            ["scheduler", "Unhealthy", "", "binding: no answer"]
        ])
    );
    server.forget_component("scheduler");
    assert_eq!(rows().await[2][3], "no replica runs the scheduler");
    let target = Target::new(&kind, "", "etcd-0");
    let one = server.get(&target, None).await.unwrap().value();
    assert_eq!(one["conditions"][0]["type"], "Healthy");
    let other = Target::new(&kind, "", "disk");
    assert_eq!(server.get(&other, None).await.unwrap_err().code, 404);
}
