//! Conversion webhooks: every version shows every object, whatever it is stored as.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::{Value, json};

use super::hooks::Hook;
use super::{Cluster, message};

const V1: &str = "/apis/yard.example.com/v1/namespaces/default/boxes";
const V2: &str = "/apis/yard.example.com/v2/namespaces/default/boxes";
const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/boxes.yard.example.com";
const MERGE: [(&str, &str); 1] = [("content-type", "application/merge-patch+json")];

/// `spec.size` of v1 is `spec.width` of v2.
fn definition(client: &Value, storage: &str) -> Value {
    let version = |name: &str, field: &str, default: i64| {
        json!({"name": name, "served": true, "storage": name == storage,
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {
                    field: {"type": "integer", "maximum": 9}, "colour": {"type": "string"},
                    "depth": {"type": "integer", "default": default}}},
                "status": {"type": "object", "properties": {"full": {"type": "boolean"}}}}}}})
    };
    json!({
        "metadata": {"name": "boxes.yard.example.com"},
        "spec": {
            "group": "yard.example.com", "scope": "Namespaced",
            "names": {"plural": "boxes", "kind": "Box"},
            "versions": [version("v1", "size", 1), version("v2", "width", 2)],
            "conversion": {"strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"], "clientConfig": client}},
        },
    })
}

fn answered(question: &Value, objects: &[Value], result: &Value) -> (u16, Value) {
    let answer = json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
        "response": {"uid": question["request"]["uid"], "result": result,
            "convertedObjects": objects}});
    (200, answer)
}

fn converted(object: &Value, desired: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!(desired);
    let (from, to) = match desired {
        "yard.example.com/v2" => ("size", "width"),
        _ => ("width", "size"),
    };
    if let Some(spec) = object["spec"].as_object_mut()
        && let Some(value) = spec.shift_remove(from)
    {
        spec.insert(to.to_owned(), value);
    }
    object
}

const FINE: u8 = 0;
const REFUSING: u8 = 1;
const RENAMING: u8 = 2;

/// A webhook that converts, and does what it is told instead.
async fn converter() -> (Hook, Arc<AtomicU8>) {
    let mode = Arc::new(AtomicU8::new(FINE));
    let told = Arc::clone(&mode);
    let hook = Hook::serve(move |_, question| {
        let request = &question["request"];
        let desired = request["desiredAPIVersion"].as_str().unwrap();
        let objects = request["objects"].as_array().unwrap().iter();
        let mut objects: Vec<Value> = objects.map(|object| converted(object, desired)).collect();
        match told.load(Ordering::SeqCst) {
            REFUSING => {
                let result = json!({"status": "Failure", "message": "out of order"});
                return answered(question, &[], &result);
            }
            RENAMING => objects[0]["metadata"]["name"] = json!("other"),
            _ => {}
        }
        answered(question, &objects, &json!({"status": "Success"}))
    })
    .await;
    (hook, mode)
}

fn in_v1(name: &str, size: i64) -> Value {
    json!({"apiVersion": "yard.example.com/v1", "kind": "Box", "metadata": {"name": name},
        "spec": {"size": size}})
}

fn in_v2(name: &str, width: i64) -> Value {
    json!({"apiVersion": "yard.example.com/v2", "kind": "Box", "metadata": {"name": name},
        "spec": {"width": width}})
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one story from its beginning to its end"
)]
async fn every_version_shows_every_object() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let (hook, _) = converter().await;
    cluster
        .established(&definition(&hook.at("/convert"), "v1"))
        .await;
    let made = admin.post(V2, &in_v2("two", 2)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.json()["apiVersion"], "yard.example.com/v2");
    // The default is that of the version that was written in.
    assert_eq!(made.json()["spec"], json!({"width": 2, "depth": 2}));
    let stored = admin.get(&format!("{V1}/two")).await.json();
    assert_eq!(stored["spec"], json!({"size": 2, "depth": 2}));
    assert_eq!(
        stored["metadata"]["resourceVersion"],
        made.json()["metadata"]["resourceVersion"]
    );
    assert_eq!(admin.post(V1, &in_v1("one", 1)).await.status, 201);
    // A list is converted with one question, and what was converted before is not asked again.
    hook.asked();
    let list = admin.get(V2).await.json();
    let specs: Vec<&Value> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| &i["spec"])
        .collect();
    assert_eq!(
        specs,
        [
            &json!({"width": 1, "depth": 1}),
            &json!({"width": 2, "depth": 2})
        ]
    );
    assert_eq!(list["items"][0]["apiVersion"], "yard.example.com/v2");
    let asked = hook.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].0, "/convert?timeout=30s");
    assert_eq!(
        asked[0].1["request"]["desiredAPIVersion"],
        "yard.example.com/v2"
    );
    assert_eq!(
        asked[0].1["request"]["objects"].as_array().unwrap().len(),
        1
    );
    admin.get(V2).await;
    admin.get(V1).await;
    assert!(hook.asked().is_empty());
    // Writes in the other version, checked by its schema.
    let path = format!("{V2}/two");
    let patched = admin
        .send(
            "PATCH",
            &path,
            &MERGE,
            json!({"spec": {"width": 3}}).to_string(),
        )
        .await;
    assert_eq!(patched.json()["spec"]["width"], 3, "{}", patched.text());
    assert_eq!(patched.json()["metadata"]["generation"], 2);
    let invalid = admin
        .send(
            "PATCH",
            &path,
            &MERGE,
            json!({"spec": {"width": 10}}).to_string(),
        )
        .await;
    assert_eq!(invalid.status, 422, "{}", invalid.text());
    assert!(
        message(&invalid).contains("spec.width"),
        "{}",
        message(&invalid)
    );
    let status = json!({"status": {"full": true}}).to_string();
    let filled = admin
        .send("PATCH", &format!("{path}/status"), &MERGE, status)
        .await;
    assert_eq!(filled.json()["status"]["full"], true, "{}", filled.text());
    let apply = [("content-type", "application/apply-patch+yaml")];
    let mut applied = in_v2("two", 4);
    applied["spec"]["colour"] = json!("red");
    let forced = format!("{path}?fieldManager=me&force=true");
    let applied = admin
        .send("PATCH", &forced, &apply, applied.to_string())
        .await;
    assert_eq!(applied.json()["spec"]["width"], 4, "{}", applied.text());
    assert_eq!(
        admin.get(&format!("{V1}/two")).await.json()["spec"]["size"],
        4
    );
    // A watch of the other version.
    let start = admin.get(V2).await.json();
    let start = start["metadata"]["resourceVersion"].as_str().unwrap();
    let mut lines = admin
        .watch(&format!("{V2}?watch=true&resourceVersion={start}"))
        .await;
    let changed = admin
        .send(
            "PATCH",
            &format!("{V1}/one"),
            &MERGE,
            json!({"spec": {"size": 7}}).to_string(),
        )
        .await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    let event = lines.next().await;
    assert_eq!(event["type"], "MODIFIED");
    assert_eq!(event["object"]["apiVersion"], "yard.example.com/v2");
    assert_eq!(event["object"]["spec"]["width"], 7);
    let deleted = admin
        .send("DELETE", &format!("{V2}/one"), &[], String::new())
        .await;
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    let event = lines.next().await;
    assert_eq!(
        (&event["type"], &event["object"]["spec"]["width"]),
        (&json!("DELETED"), &json!(7))
    );
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn objects_stay_as_they_are_stored_when_the_stored_version_changes() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let (hook, _) = converter().await;
    cluster.established(&definition(&hook.at("/"), "v1")).await;
    assert_eq!(admin.post(V1, &in_v1("one", 1)).await.status, 201);
    let other = definition(&hook.at("/"), "v2");
    let path = format!("{DEFINITION}?fieldManager=me");
    let change = json!({"spec": {"versions": other["spec"]["versions"]}});
    let changed = admin.send("PATCH", &path, &MERGE, change.to_string()).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    let old = admin.get(&format!("{V1}/one")).await.json();
    assert_eq!(old["spec"], json!({"size": 1, "depth": 1}));
    let new = admin.get(&format!("{V2}/one")).await.json();
    assert_eq!(new["spec"], json!({"width": 1, "depth": 1}));
    // Written, it is stored anew; written without a change as well.
    let same = admin
        .send("PUT", &format!("{V2}/one"), &[], new.to_string())
        .await;
    assert_eq!(same.status, 200, "{}", same.text());
    let deleted = admin.send("DELETE", DEFINITION, &[], String::new()).await;
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    cluster.gone(DEFINITION).await;
    cluster.handle.shutdown().await;
}

#[tokio::test]
async fn a_webhook_that_does_not_convert_is_told_about() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    let (hook, mode) = converter().await;
    cluster.established(&definition(&hook.at("/"), "v1")).await;
    assert_eq!(admin.post(V1, &in_v1("one", 1)).await.status, 201);
    let prefix = "conversion webhook for yard.example.com/v1, Kind=Box";
    mode.store(REFUSING, Ordering::SeqCst);
    for path in [format!("{V2}/one"), V2.to_owned()] {
        let refused = admin.get(&path).await;
        assert_eq!(refused.status, 500);
        assert_eq!(message(&refused), format!("{prefix} failed: out of order"));
    }
    let refused = admin.post(V2, &in_v2("two", 1)).await;
    let expected = "conversion webhook for yard.example.com/v2, Kind=Box failed: out of order";
    assert_eq!(message(&refused), expected);
    mode.store(RENAMING, Ordering::SeqCst);
    let refused = admin.get(&format!("{V2}/one")).await;
    assert_eq!(
        message(&refused),
        format!(
            "{prefix} returned invalid converted object at index 0: must have the same name: one \
             != other"
        )
    );
    // The stored version needs nobody, and nothing was written.
    let list = admin.get(V1).await.json();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    mode.store(FINE, Ordering::SeqCst);
    assert_eq!(
        admin.get(&format!("{V2}/one")).await.json()["spec"]["width"],
        1
    );
    cluster.handle.shutdown().await;
}
