//! The verbs over a memory store: what callers rely on, told as stories of one object.

use control_plane_storage::MemoryStore;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cache::{self, Filter, ListRequest};
use crate::registry::Subresource;

/// A server over a memory store with namespace `d`, its default account, and the pump running.
pub(super) struct Fixture {
    pub(super) server: Arc<Server>,
    pub(super) context: WriteContext,
    _stop: tokio_util::sync::DropGuard,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let registry = Registry::default();
        let cache = Arc::new(WatchCache::new(&registry));
        let revision = cache::load(&cache, &*store).await.unwrap();
        let stop = CancellationToken::new();
        {
            let (cache, store, stop) = (Arc::clone(&cache), Arc::clone(&store), stop.clone());
            tokio::spawn(async move { cache::pump(&cache, &*store, revision, stop).await });
        }
        let server = Arc::new(Server::new(
            store,
            cache,
            registry,
            "10.96.0.0/16".parse().unwrap(),
        ));
        let context = WriteContext::of(Arc::new(User::control_plane("test")));
        let fixture = Self {
            server,
            context,
            _stop: stop.drop_guard(),
        };
        fixture
            .make("namespaces", "", json!({"metadata": {"name": "d"}}))
            .await
            .unwrap();
        fixture
            .make(
                "serviceaccounts",
                "d",
                json!({"metadata": {"name": "default"}}),
            )
            .await
            .unwrap();
        fixture
    }

    fn kind(&self, plural: &str) -> Arc<Kind> {
        self.server
            .registry
            .served()
            .into_iter()
            .find(|kind| kind.plural == plural)
            .unwrap()
    }

    pub(super) fn target(&self, plural: &str, name: &str) -> Target {
        let kind = self.kind(plural);
        Target::new(&kind, if kind.namespaced() { "d" } else { "" }, name)
    }

    pub(super) async fn make(
        &self,
        plural: &str,
        namespace: &str,
        body: Value,
    ) -> Result<Arc<Obj>, StatusError> {
        self.server
            .create(&self.kind(plural), namespace, body, &self.context)
            .await
    }

    async fn pod(&self, name: &str) -> Arc<Obj> {
        let body = json!({"metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
        self.make("pods", "d", body).await.unwrap()
    }

    async fn merge(&self, target: &Target, patch: Value) -> Result<Value, StatusError> {
        let patch = Patch::Merge(patch);
        let patched = self
            .server
            .patch(target, &patch, &self.context, |_| Ok(()))
            .await?;
        Ok(patched.obj.value())
    }

    async fn delete(
        &self,
        target: &Target,
        request: &DeleteRequest,
    ) -> Result<Deleted, StatusError> {
        self.server.delete(target, request, &self.context).await
    }

    fn service(ip: &str) -> Value {
        json!({"metadata": {"generateName": "s-"}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}})
    }
}

#[tokio::test]
async fn a_created_pod_is_complete_and_readable_at_once() {
    let fixture = Fixture::new().await;
    let pod = fixture.pod("p").await.value();
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(pod["spec"]["serviceAccountName"], "default");
    assert_eq!(pod["metadata"]["generation"], 1);
    assert!(
        pod["spec"]["volumes"][0]["name"]
            .as_str()
            .unwrap()
            .starts_with("kube-api-access-")
    );
    assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
    let read = fixture
        .server
        .get(&fixture.target("pods", "p"), None)
        .await
        .unwrap();
    assert_eq!(read.value(), pod);
    let again = fixture
        .make(
            "pods",
            "d",
            json!({"metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        )
        .await
        .unwrap_err();
    assert_eq!(again.message, "pods \"p\" already exists");
}

#[tokio::test]
async fn names_are_generated_and_namespaces_must_exist() {
    let fixture = Fixture::new().await;
    let made = fixture
        .make(
            "configmaps",
            "d",
            json!({"metadata": {"generateName": "c-"}}),
        )
        .await;
    let name = made.unwrap().key.name.to_string();
    assert!(name.starts_with("c-") && name.len() == 7, "{name}");
    let error = fixture
        .make("configmaps", "x", json!({"metadata": {"name": "c"}}))
        .await
        .unwrap_err();
    assert_eq!(error.message, "namespaces \"x\" not found");
    let error = fixture
        .make("configmaps", "d", json!({"metadata": {"name": "C"}}))
        .await
        .unwrap_err();
    assert!(
        error
            .message
            .starts_with("ConfigMap \"C\" is invalid: metadata.name: Invalid value"),
        "{error}"
    );
}

#[tokio::test]
async fn a_stale_revision_conflicts_and_no_revision_wins() {
    let fixture = Fixture::new().await;
    let old = fixture
        .make(
            "configmaps",
            "d",
            json!({"metadata": {"name": "c"}, "data": {"a": "1"}}),
        )
        .await
        .unwrap();
    let target = fixture.target("configmaps", "c");
    fixture
        .merge(&target, json!({"data": {"a": "2"}}))
        .await
        .unwrap();
    let stale = json!({"metadata": {"resourceVersion": old.rv.to_string()}, "data": {"a": "3"}});
    let error = fixture.merge(&target, stale).await.unwrap_err();
    assert_eq!((error.code, error.reason), (409, "Conflict"));
    assert_eq!(
        error.message,
        "Operation cannot be fulfilled on configmaps \"c\": the object has been modified; please apply your changes to the latest version and try again"
    );
    let mut body = old.value();
    body["data"]["a"] = json!("4");
    assert_eq!(
        fixture
            .server
            .update(&target, body.clone(), &fixture.context)
            .await
            .unwrap_err()
            .code,
        409
    );
    body["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    let (new, _) = fixture
        .server
        .update(&target, body, &fixture.context)
        .await
        .unwrap();
    assert_eq!(new.value()["data"]["a"], "4");
}

#[tokio::test]
async fn concurrent_patches_all_land() {
    let fixture = Arc::new(Fixture::new().await);
    fixture
        .make("configmaps", "d", json!({"metadata": {"name": "c"}}))
        .await
        .unwrap();
    let target = fixture.target("configmaps", "c");
    let writers = (0..8).map(|i| {
        let (fixture, target) = (Arc::clone(&fixture), target.clone());
        async move {
            fixture
                .merge(&target, json!({"data": {format!("k{i}"): "v"}}))
                .await
                .unwrap()
        }
    });
    futures::future::join_all(writers).await;
    let all = fixture.server.cached(&target).unwrap().value();
    assert_eq!(all["data"].as_object().unwrap().len(), 8);
}

#[tokio::test]
async fn a_write_that_changes_nothing_takes_no_revision() {
    let fixture = Fixture::new().await;
    let made = fixture
        .make(
            "configmaps",
            "d",
            json!({"metadata": {"name": "c"}, "data": {"a": "1"}}),
        )
        .await
        .unwrap();
    let same = fixture
        .merge(
            &fixture.target("configmaps", "c"),
            json!({"data": {"a": "1"}}),
        )
        .await
        .unwrap();
    assert_eq!(same["metadata"]["resourceVersion"], made.rv.to_string());
}

#[tokio::test]
async fn status_and_spec_are_written_apart_and_generation_counts_the_spec() {
    let fixture = Fixture::new().await;
    let pod = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}});
    fixture
        .make(
            "deployments",
            "d",
            json!({"metadata": {"name": "w"}, "spec": pod}),
        )
        .await
        .unwrap();
    let main = fixture.target("deployments", "w");
    let status = Target {
        subresource: Some(Subresource::Status),
        ..main.clone()
    };
    let both = json!({"spec": {"replicas": 7}, "status": {"replicas": 3}});
    let after = fixture.merge(&status, both.clone()).await.unwrap();
    assert_eq!(
        (&after["spec"]["replicas"], &after["status"]["replicas"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(after["metadata"]["generation"], 1);
    let after = fixture.merge(&main, both).await.unwrap();
    assert_eq!(
        (&after["spec"]["replicas"], &after["status"]["replicas"]),
        (&json!(7), &json!(3))
    );
    assert_eq!(after["metadata"]["generation"], 2);
    let scale = Target {
        subresource: Some(Subresource::Scale),
        ..main.clone()
    };
    let after = fixture
        .merge(&scale, json!({"spec": {"replicas": 2}}))
        .await
        .unwrap();
    assert_eq!(after["spec"]["replicas"], 2);
    assert_eq!(
        scale_of(&fixture.kind("deployments"), &after)["status"]["selector"],
        "a=b"
    );
}

#[tokio::test]
async fn a_taken_address_is_refused_and_a_deleted_service_gives_it_back() {
    let fixture = Fixture::new().await;
    let first = fixture
        .make("services", "d", Fixture::service("10.96.0.50"))
        .await
        .unwrap();
    let error = fixture
        .make("services", "d", Fixture::service("10.96.0.50"))
        .await
        .unwrap_err();
    assert_eq!(error.code, 422);
    assert!(
        error
            .message
            .ends_with("failed to allocate IP 10.96.0.50: provided IP is already allocated"),
        "{error}"
    );
    let target = fixture.target("services", &first.key.name);
    fixture
        .delete(&target, &DeleteRequest::default())
        .await
        .unwrap();
    fixture
        .make("services", "d", Fixture::service("10.96.0.50"))
        .await
        .unwrap();
}

#[tokio::test]
async fn concurrent_services_get_addresses_of_their_own() {
    let fixture = Arc::new(Fixture::new().await);
    let makers = (0..20).map(|_| {
        let fixture = Arc::clone(&fixture);
        async move {
            fixture
                .make("services", "d", Fixture::service(""))
                .await
                .unwrap()
                .value()["spec"]["clusterIP"]
                .clone()
        }
    });
    let mut all: Vec<String> = futures::future::join_all(makers)
        .await
        .iter()
        .map(Value::to_string)
        .collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 20);
}

#[tokio::test]
async fn a_bound_pod_lingers_for_its_grace_and_goes_when_the_node_says_so() {
    let fixture = Fixture::new().await;
    fixture.pod("p").await;
    let target = fixture.target("pods", "p");
    let binding = json!({"target": {"kind": "Node", "name": "n1"}});
    fixture
        .server
        .bind(&target, &binding, &fixture.context)
        .await
        .unwrap();
    let again = fixture
        .server
        .bind(&target, &binding, &fixture.context)
        .await
        .unwrap_err();
    assert_eq!(
        again.message,
        "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\""
    );
    let Deleted::Lingers(obj) = fixture
        .delete(&target, &DeleteRequest::default())
        .await
        .unwrap()
    else {
        panic!("gone at once")
    };
    let value = obj.value();
    assert_eq!(value["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(value["metadata"]["generation"], 2);
    assert_eq!(value["status"]["conditions"][0]["type"], "PodScheduled");
    let shorter = DeleteRequest {
        grace_seconds: Some(5),
        ..DeleteRequest::default()
    };
    let Deleted::Lingers(obj) = fixture.delete(&target, &shorter).await.unwrap() else {
        panic!("gone")
    };
    assert_eq!(obj.value()["metadata"]["deletionGracePeriodSeconds"], 5);
    let Deleted::Lingers(obj) = fixture
        .delete(&target, &DeleteRequest::default())
        .await
        .unwrap()
    else {
        panic!("gone")
    };
    assert_eq!(
        obj.value()["metadata"]["deletionGracePeriodSeconds"],
        5,
        "only ever shorter"
    );
}

#[tokio::test]
async fn only_the_pod_that_is_meant_is_deleted() {
    let fixture = Fixture::new().await;
    fixture.pod("p").await;
    let target = fixture.target("pods", "p");
    let binding = json!({"target": {"kind": "Node", "name": "n1"}});
    fixture
        .server
        .bind(&target, &binding, &fixture.context)
        .await
        .unwrap();
    let other = Preconditions {
        uid: Some("other".to_owned()),
        resource_version: None,
    };
    let wrong = DeleteRequest {
        grace_seconds: Some(0),
        preconditions: other,
        propagation: None,
    };
    assert_eq!(fixture.delete(&target, &wrong).await.unwrap_err().code, 409);
    let now = DeleteRequest {
        grace_seconds: Some(0),
        ..DeleteRequest::default()
    };
    assert!(matches!(
        fixture.delete(&target, &now).await.unwrap(),
        Deleted::Gone(_)
    ));
    assert_eq!(
        fixture.delete(&target, &now).await.unwrap_err().message,
        "pods \"p\" not found"
    );
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_removed() {
    let fixture = Fixture::new().await;
    fixture
        .make(
            "configmaps",
            "d",
            json!({"metadata": {"name": "c", "finalizers": ["x/y"]}}),
        )
        .await
        .unwrap();
    let target = fixture.target("configmaps", "c");
    let foreground = DeleteRequest {
        propagation: Some(Propagation::Foreground),
        ..DeleteRequest::default()
    };
    let Deleted::Lingers(obj) = fixture.delete(&target, &foreground).await.unwrap() else {
        panic!("gone")
    };
    assert_eq!(
        obj.value()["metadata"]["finalizers"],
        json!(["x/y", "foregroundDeletion"])
    );
    let error = fixture
        .merge(&target, json!({"metadata": {"finalizers": ["x/y", "a/b"]}}))
        .await
        .unwrap_err();
    assert!(
        error
            .message
            .contains("no new finalizers can be added if the object is being deleted"),
        "{error}"
    );
    fixture
        .merge(&target, json!({"metadata": {"finalizers": null}}))
        .await
        .unwrap();
    assert!(fixture.server.cached(&target).is_none());
}

#[tokio::test]
async fn dependents_of_an_old_kind_stay_unless_the_deletion_says_otherwise() {
    let fixture = Fixture::new().await;
    let controller = json!({"metadata": {"name": "rc"}, "spec": {"replicas": 1,
        "selector": {"a": "b"}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let made = fixture
        .make("replicationcontrollers", "d", controller)
        .await;
    made.unwrap();
    let target = fixture.target("replicationcontrollers", "rc");
    let silent = DeleteRequest::default();
    let Deleted::Lingers(obj) = fixture.delete(&target, &silent).await.unwrap() else {
        panic!("gone")
    };
    assert_eq!(obj.value()["metadata"]["finalizers"], json!(["orphan"]));
    let background = DeleteRequest {
        propagation: Some(Propagation::Background),
        ..DeleteRequest::default()
    };
    let ended = fixture.delete(&target, &background).await.unwrap();
    assert!(matches!(ended, Deleted::Gone(_)), "{ended:?}");
}

#[tokio::test]
async fn a_namespace_is_finalized_and_takes_nothing_new_meanwhile() {
    let fixture = Fixture::new().await;
    let target = fixture.target("namespaces", "d");
    let Deleted::Lingers(obj) = fixture
        .delete(&target, &DeleteRequest::default())
        .await
        .unwrap()
    else {
        panic!("gone")
    };
    let mut value = obj.value();
    assert_eq!(value["status"]["phase"], "Terminating");
    let error = fixture
        .make("configmaps", "d", json!({"metadata": {"name": "c"}}))
        .await
        .unwrap_err();
    assert_eq!(
        error.message,
        "configmaps \"c\" is forbidden: unable to create new content in namespace d because it is being terminated"
    );
    value["spec"]["finalizers"] = json!([]);
    let finalize = Target {
        subresource: Some(Subresource::Finalize),
        ..target.clone()
    };
    fixture
        .server
        .update(&finalize, value, &fixture.context)
        .await
        .unwrap();
    assert!(fixture.server.cached(&target).is_none());
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let fixture = Fixture::new().await;
    let context = WriteContext {
        mode: WriteMode::DryRun,
        ..fixture.context.clone()
    };
    let body = json!({"metadata": {"name": "c"}});
    let made = fixture
        .server
        .create(&fixture.kind("configmaps"), "d", body, &context)
        .await
        .unwrap();
    assert!(made.value()["metadata"].get("resourceVersion").is_none());
    assert!(
        fixture
            .server
            .cached(&fixture.target("configmaps", "c"))
            .is_none()
    );
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let fixture = Fixture::new().await;
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let body = json!({"metadata": {"name": name, "labels": {"app": app}}});
        fixture.make("configmaps", "d", body).await.unwrap();
    }
    let kind = fixture.kind("configmaps");
    let filter = selection(&kind, "d", Some("app=x"), None).unwrap();
    let list = ListRequest {
        filter,
        ..ListRequest::default()
    };
    let request = DeleteRequest::default();
    let gone = fixture
        .server
        .delete_collection(&kind, &list, &request, &fixture.context)
        .await
        .unwrap();
    assert_eq!(gone.len(), 2);
    let rest = ListRequest {
        filter: Filter::in_namespace("d"),
        ..ListRequest::default()
    };
    assert_eq!(
        fixture.server.list(&kind, &rest).await.unwrap().items.len(),
        1
    );
}

#[tokio::test]
async fn an_unknown_field_selector_is_refused() {
    let fixture = Fixture::new().await;
    let error = selection(&fixture.kind("pods"), "d", None, Some("spec.foo=1")).unwrap_err();
    assert!(
        error
            .message
            .ends_with("field label not supported: spec.foo"),
        "{error}"
    );
    let filter = selection(
        &fixture.kind("pods"),
        "",
        None,
        Some("spec.nodeName=n1,metadata.namespace=d"),
    )
    .unwrap();
    assert_eq!(filter.namespace.as_deref(), Some("d"));
}

#[tokio::test]
async fn a_lease_is_patched_freely_and_replaced_only_by_revision() {
    let fixture = Fixture::new().await;
    let body = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}});
    let made = fixture.make("leases", "d", body.clone()).await.unwrap();
    let target = fixture.target("leases", "l");
    let patched = fixture
        .merge(&target, json!({"spec": {"holderIdentity": "b"}}))
        .await
        .unwrap();
    assert_eq!(patched["spec"]["holderIdentity"], "b");
    let server = &fixture.server;
    let error = server
        .update(&target, body, &fixture.context)
        .await
        .unwrap_err();
    assert!(
        error.message.ends_with("must be specified for an update"),
        "{error}"
    );
    let stale = server
        .update(&target, made.value(), &fixture.context)
        .await
        .unwrap_err();
    assert_eq!(stale.code, 409);
    server
        .update(&target, patched, &fixture.context)
        .await
        .unwrap();
}
