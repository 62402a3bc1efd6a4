//! Server-side apply: owners, conflicts, and what carries entries.

use proto_api::apply::OnConflict::{Refuse, Take};
use serde_json::json;

use super::*;
use crate::server::Patch;
use crate::server::tests::Fixture;

fn config(data: Value) -> Value {
    let mut config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    config["data"] = data;
    config
}

struct Applier {
    fixture: Fixture,
    target: Target,
}

impl Applier {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let target = fixture.target("configmaps", "c");
        Self { fixture, target }
    }

    async fn apply(
        &self,
        manager: &str,
        data: Value,
        on: OnConflict,
    ) -> Result<Value, StatusError> {
        let context = WriteContext {
            manager: manager.to_owned(),
            ..self.fixture.context.clone()
        };
        let applied = self
            .fixture
            .server
            .apply(&self.target, &config(data), on, &context)
            .await?;
        Ok(applied.0.value())
    }
}

#[tokio::test]
async fn an_apply_creates_then_changes_and_the_same_again_changes_nothing() {
    let applier = Applier::new().await;
    let made = applier
        .apply("a", json!({"x": "1", "y": "1"}), Refuse)
        .await
        .unwrap();
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "a");
    assert_eq!(made["metadata"]["managedFields"][0]["operation"], "Apply");
    let again = applier
        .apply("a", json!({"x": "1", "y": "1"}), Refuse)
        .await
        .unwrap();
    assert_eq!(
        again["metadata"]["resourceVersion"],
        made["metadata"]["resourceVersion"]
    );
    let less = applier.apply("a", json!({"x": "2"}), Refuse).await.unwrap();
    assert_eq!(
        less["data"],
        json!({"x": "2"}),
        "what is no longer applied goes"
    );
}

#[tokio::test]
async fn another_owner_conflicts_until_the_field_is_taken() {
    let applier = Applier::new().await;
    applier.apply("a", json!({"x": "1"}), Refuse).await.unwrap();
    let error = applier
        .apply("b", json!({"x": "2"}), Refuse)
        .await
        .unwrap_err();
    assert_eq!((error.code, error.reason), (409, "Conflict"));
    assert_eq!(
        error.message,
        "Apply failed with 1 conflict: conflict with \"a\": .data.x"
    );
    assert_eq!(
        error.details.unwrap().causes[0].reason,
        "FieldManagerConflict"
    );
    let taken = applier.apply("b", json!({"x": "2"}), Take).await.unwrap();
    assert_eq!(taken["data"]["x"], "2");
    applier.apply("a", json!({"z": "1"}), Refuse).await.unwrap();
}

#[tokio::test]
async fn other_writes_are_noted_once_an_object_was_applied() {
    let applier = Applier::new().await;
    applier.apply("a", json!({"x": "1"}), Refuse).await.unwrap();
    let context = WriteContext {
        manager: "ed".to_owned(),
        ..applier.fixture.context.clone()
    };
    let patch = Patch::Merge(json!({"data": {"x": "9"}}));
    let server = &applier.fixture.server;
    server
        .patch(&applier.target, &patch, &context, |_| Ok(()))
        .await
        .unwrap();
    let error = applier
        .apply("a", json!({"x": "1"}), Refuse)
        .await
        .unwrap_err();
    assert!(
        error.message.contains("conflict with \"ed\" using v1"),
        "{error}"
    );
}

#[tokio::test]
async fn objects_of_the_control_plane_carry_no_entries() {
    let applier = Applier::new().await;
    let body = json!({"metadata": {"name": "c", "managedFields": [{"manager": "x"}]}});
    let made = applier.fixture.make("configmaps", "d", body).await.unwrap();
    assert!(made.value()["metadata"].get("managedFields").is_none());
}

#[tokio::test]
async fn a_configuration_must_fit_the_schema_and_the_path() {
    let applier = Applier::new().await;
    let server = &applier.fixture.server;
    let context = &applier.fixture.context;
    let mut wrong = config(json!({}));
    wrong["foo"] = json!(1);
    let error = server
        .apply(&applier.target, &wrong, Refuse, context)
        .await
        .unwrap_err();
    assert_eq!(error.code, 400);
    assert!(
        error
            .message
            .ends_with(".foo: field not declared in schema"),
        "{error}"
    );
    let other = applier.fixture.target("configmaps", "other");
    let error = server
        .apply(&other, &config(json!({})), Refuse, context)
        .await
        .unwrap_err();
    assert_eq!(error.code, 400);
}

#[tokio::test]
async fn what_a_client_creates_has_an_owner_and_scale_is_another() {
    let fixture = Fixture::new().await;
    let client = |manager: &str| WriteContext {
        manager: manager.to_owned(),
        owners: Owners::FromCreation,
        ..fixture.context.clone()
    };
    let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let target = fixture.target("deployments", "w");
    let server = &fixture.server;
    server
        .apply(&target, &body, Refuse, &client("kubectl"))
        .await
        .unwrap();
    let scale = Target {
        subresource: Some(Subresource::Scale),
        ..target.clone()
    };
    let patch = Patch::Merge(json!({"spec": {"replicas": 5}}));
    server
        .patch(&scale, &patch, &client("kubectl"), |_| Ok(()))
        .await
        .unwrap();
    let error = server
        .apply(&target, &body, Refuse, &client("kubectl"))
        .await
        .unwrap_err();
    assert!(
        error.message.contains("with subresource \"scale\""),
        "{error}"
    );
    let other = json!({"metadata": {"name": "c"}, "data": {"x": "1"}});
    let kind = fixture.target("configmaps", "c").kind;
    let made = server
        .create(&kind, "d", other, &client("cli"))
        .await
        .unwrap()
        .value();
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!(
        (&entry["manager"], &entry["operation"]),
        (&json!("cli"), &json!("Update"))
    );
    assert_eq!(entry["fieldsV1"]["f:data"]["f:x"], json!({}));
}

#[tokio::test]
async fn a_scale_is_applied_with_owners_in_the_words_of_its_object() {
    let fixture = Fixture::new().await;
    let client = |manager: &str| WriteContext {
        manager: manager.to_owned(),
        owners: Owners::FromCreation,
        ..fixture.context.clone()
    };
    let body = json!({"metadata": {"name": "w"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let target = fixture.target("deployments", "w");
    let server = &fixture.server;
    server
        .create(&target.kind, "d", body, &client("cli"))
        .await
        .unwrap();
    let scale = Target {
        subresource: Some(Subresource::Scale),
        ..target.clone()
    };
    let config = json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {"name": "w"}, "spec": {"replicas": 3}});
    let error = server
        .apply(&scale, &config, Refuse, &client("scaler"))
        .await
        .unwrap_err();
    assert!(
        error
            .message
            .starts_with("Apply failed with 1 conflict: conflict with \"cli\"")
    );
    assert!(error.message.ends_with(": .spec.replicas"), "{error}");
    let (scaled, created) = server
        .apply(&scale, &config, Take, &client("scaler"))
        .await
        .unwrap();
    assert!(!created);
    let scaled = scaled.value();
    assert_eq!(scaled["spec"]["replicas"], 3);
    let entries = tree::list(&scaled, &["metadata", "managedFields"]);
    let own = entries.iter().find(|entry| entry["manager"] == "scaler");
    let expected = json!({"f:spec": {"f:replicas": {}}});
    let own = own.unwrap();
    assert_eq!(own["fieldsV1"], expected);
    assert_eq!(
        (&own["subresource"], &own["operation"]),
        (&json!("scale"), &json!("Apply"))
    );
    assert_eq!(own["apiVersion"], "apps/v1");
    let mut wrong = config;
    wrong["spec"]["foo"] = json!(1);
    let error = server
        .apply(&scale, &wrong, Take, &client("scaler"))
        .await
        .unwrap_err();
    assert_eq!(
        error.message,
        "failed to create typed patch object (d/w; autoscaling/v1, Kind=Scale): .spec.foo: field \
         not declared in schema"
    );
}
