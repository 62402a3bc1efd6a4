//! Custom resources: a definition's kind is served like any other, checked by its schema.

use std::time::Duration;

use serde_json::{Value, json};

use super::Cluster;
use super::client::Answer;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CRONS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";
const MERGE: [(&str, &str); 1] = [("content-type", "application/merge-patch+json")];

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab",
                "shortNames": ["ct"], "categories": ["all"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": schema()},
                    "subresources": {"status": {}, "scale": {
                        "specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": ".status.selector"}},
                    "selectableFields": [{"jsonPath": ".spec.color"}],
                    "additionalPrinterColumns": [
                        {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
                        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"}]},
                {"name": "v1beta1", "served": true, "storage": false,
                    "schema": {"openAPIV3Schema": {"type": "object",
                        "x-kubernetes-preserve-unknown-fields": true}}},
            ],
        },
    })
}

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["cronSpec"], "properties": {
            "cronSpec": {"type": "string", "pattern": r"^(\*|\d+)( (\*|\d+)){4}$"},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
            "color": {"type": "string", "enum": ["red", "green"]},
            "ports": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "port": {"x-kubernetes-int-or-string": true}}}},
        }},
        "status": {"type": "object", "properties": {
            "replicas": {"type": "integer"}, "selector": {"type": "string"}}},
    }})
}

fn cron(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name},
        "spec": spec})
}

impl Cluster {
    pub(crate) async fn established(&self, definition: &Value) {
        let made = self.admin.post(DEFINITIONS, definition).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let name = definition["metadata"]["name"].as_str().unwrap();
        let path = format!("{DEFINITIONS}?watch=true&fieldSelector=metadata.name%3D{name}");
        let mut lines = self.admin.watch(&path).await;
        loop {
            let event = lines.next().await;
            let conditions = event["object"]["status"]["conditions"].as_array().cloned();
            let holds = |c: &Value| c["type"] == "Established" && c["status"] == "True";
            if conditions.is_some_and(|all| all.iter().any(holds)) {
                return;
            }
        }
    }

    pub(crate) async fn gone(&self, path: &str) {
        let gone = async {
            while self.admin.get(path).await.status != 404 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone)
            .await
            .unwrap();
    }
}

fn message(answer: &Answer) -> String {
    answer.json()["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one story from its beginning to its end"
)]
async fn a_definition_makes_a_kind_like_any_other() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    assert_eq!(admin.get(CRONS).await.status, 404);
    cluster.established(&definition()).await;
    let list = admin.get("/apis/stable.example.com/v1").await.json();
    assert_eq!(list["resources"][0]["shortNames"], json!(["ct"]));
    let group = admin.get("/apis/stable.example.com").await.json();
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let document = admin
        .get("/openapi/v3/apis/stable.example.com/v1")
        .await
        .json();
    let component = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(
        component["properties"]["spec"]["properties"]["replicas"]["default"],
        1
    );
    let patch = "/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}";
    let content = &document["paths"][patch]["patch"]["requestBody"]["content"];
    assert!(
        content["application/merge-patch+json"].is_object(),
        "{content}"
    );
    // kubectl apply sends what it finds here.
    assert!(
        content["application/strategic-merge-patch+json"].is_null(),
        "{content}"
    );

    let made = admin
        .post(CRONS, &cron("a", &json!({"cronSpec": "* * * * 5"})))
        .await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.json()["spec"]["replicas"], 1);
    assert_eq!(made.json()["metadata"]["generation"], 1);
    let other = admin
        .get(&format!("{}/a", CRONS.replace("v1/", "v1beta1/")))
        .await
        .json();
    assert_eq!(other["apiVersion"], "stable.example.com/v1beta1");

    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = admin.send("GET", CRONS, &table, String::new()).await.json();
    assert_eq!(table["columnDefinitions"][1]["name"], "Spec");
    assert_eq!(table["rows"][0]["cells"], json!(["a", "* * * * 5", 1]));

    let scale = admin
        .send(
            "PATCH",
            &format!("{CRONS}/a/scale"),
            &MERGE,
            json!({"spec": {"replicas": 3}}).to_string(),
        )
        .await;
    assert_eq!(scale.json()["spec"]["replicas"], 3, "{}", scale.text());
    let status = admin
        .send(
            "PATCH",
            &format!("{CRONS}/a/status"),
            &MERGE,
            json!({"status": {"replicas": 2}, "spec": {"replicas": 9}}).to_string(),
        )
        .await
        .json();
    assert_eq!(
        (&status["status"]["replicas"], &status["spec"]["replicas"]),
        (&json!(2), &json!(3))
    );
    assert_eq!(status["metadata"]["generation"], 2);

    let answer = admin
        .send(
            "DELETE",
            &format!("{DEFINITIONS}/crontabs.stable.example.com"),
            &[],
            String::new(),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    cluster
        .gone(&format!("{DEFINITIONS}/crontabs.stable.example.com"))
        .await;
    assert_eq!(admin.get(CRONS).await.status, 404);
}

#[tokio::test]
async fn objects_are_checked_by_their_schema() {
    let cluster = Cluster::start().await;
    cluster.established(&definition()).await;
    let cases = [
        (json!({}), "spec.cronSpec: Required value"),
        (
            json!({"cronSpec": "x"}),
            "spec.cronSpec: Invalid value: \"x\": spec.cronSpec in body should match",
        ),
        (
            json!({"cronSpec": 5}),
            "spec.cronSpec: Invalid value: \"integer\": spec.cronSpec in body must be of type string: \"integer\"",
        ),
        (
            json!({"cronSpec": "* * * * 5", "replicas": 11}),
            "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
        ),
        (
            json!({"cronSpec": "* * * * 5", "color": "blue"}),
            "spec.color: Unsupported value: \"blue\": supported values: \"red\", \"green\"",
        ),
        (
            json!({"cronSpec": "* * * * 5", "ports": [{"name": "a"}, {"name": "a"}]}),
            "spec.ports[1]: Duplicate value: {\"name\":\"a\"}",
        ),
    ];
    for (spec, expected) in cases {
        let answer = cluster.admin.post(CRONS, &cron("b", &spec)).await;
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert!(message(&answer).contains(expected), "{}", message(&answer));
    }
    let unknown = cron("c", &json!({"cronSpec": "* * * * 5", "oops": 1}));
    let strict = cluster
        .admin
        .post(&format!("{CRONS}?fieldValidation=Strict"), &unknown)
        .await;
    assert_eq!(strict.status, 400);
    assert!(
        message(&strict).contains("unknown field \"spec.oops\""),
        "{}",
        message(&strict)
    );
    let warned = cluster.admin.post(CRONS, &unknown).await;
    assert!(
        warned.header("warning").contains("unknown field"),
        "{}",
        warned.header("warning")
    );
    assert!(warned.json()["spec"].get("oops").is_none());
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let path = format!("{CRONS}/c");
    let refused = cluster
        .admin
        .send("PATCH", &path, &strategic, "{}".to_owned())
        .await;
    assert_eq!(refused.status, 415);
}

#[tokio::test]
async fn appliers_share_the_items_of_a_keyed_list() {
    let cluster = Cluster::start().await;
    cluster.established(&definition()).await;
    let apply = [("content-type", "application/apply-patch+yaml")];
    for (manager, port) in [("one", "a"), ("two", "b")] {
        let mut body = cron("a", &json!({"ports": [{"name": port, "port": 80}]}));
        if manager == "one" {
            body["spec"]["cronSpec"] = json!("* * * * 5");
        }
        let path = format!("{CRONS}/a?fieldManager={manager}");
        let answer = cluster
            .admin
            .send("PATCH", &path, &apply, body.to_string())
            .await;
        assert!(answer.status < 300, "{}", answer.text());
    }
    let object = cluster.admin.get(&format!("{CRONS}/a")).await.json();
    assert_eq!(object["spec"]["ports"].as_array().unwrap().len(), 2);
    let path = format!("{CRONS}/a?fieldManager=two");
    let body = cron("a", &json!({"cronSpec": "1 * * * 5"}));
    let answer = cluster
        .admin
        .send("PATCH", &path, &apply, body.to_string())
        .await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(
        message(&answer).contains(".spec.cronSpec"),
        "{}",
        message(&answer)
    );
    let selected = format!("{CRONS}?fieldSelector=spec.color%3Dred");
    let list = cluster.admin.get(&selected).await.json();
    assert_eq!(list["items"], json!([]));
    assert_eq!(list["kind"], "CronTabList");
}

#[tokio::test]
async fn unsound_definitions_are_refused_in_upstreams_words() {
    let cluster = Cluster::start().await;
    let change = |path: &str, value: Value| {
        let mut definition = definition();
        *definition.pointer_mut(path).unwrap() = value;
        definition
    };
    let schema = "spec.versions[0].schema.openAPIV3Schema";
    let cases = [
        (change("/spec/group", json!("other.example.com")),
            "metadata.name: Invalid value: \"crontabs.stable.example.com\": must be spec.names.plural+\".\"+spec.group".to_owned()),
        (change("/spec/scope", json!("Global")),
            "spec.scope: Unsupported value: \"Global\": supported values: \"Cluster\", \"Namespaced\"".to_owned()),
        (change("/spec/versions/0/storage", json!(false)),
            "must have exactly one version marked as storage version".to_owned()),
        (change("/spec/versions/0/schema/openAPIV3Schema/properties/spec", json!({"properties": {}})),
            format!("{schema}.properties[spec].type: Required value: must not be empty for specified object fields")),
        (change("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/replicas/default", json!("x")),
            format!("{schema}.properties[spec].properties[replicas].default: Invalid value")),
        (change("/spec/versions/0/subresources/scale/specReplicasPath", json!(".replicas")),
            "specReplicasPath: Invalid value: \".replicas\": should be a json path under .spec".to_owned()),
    ];
    for (definition, expected) in cases {
        let answer = cluster.admin.post(DEFINITIONS, &definition).await;
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert!(message(&answer).contains(&expected), "{}", message(&answer));
    }
}

#[tokio::test]
async fn watchers_see_the_objects_of_a_definition_go() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin;
    cluster.established(&definition()).await;
    let made = admin
        .post(CRONS, &cron("a", &json!({"cronSpec": "* * * * 5"})))
        .await;
    let rv = made.json()["metadata"]["resourceVersion"].clone();
    let rv = rv.as_str().unwrap();
    let path = format!("{CRONS}?watch=true&resourceVersion={rv}");
    let mut watch = admin.watch(&path).await;
    // Another kind of the group wants a name that is taken.
    let mut rival = definition();
    rival["metadata"]["name"] = json!("rivals.stable.example.com");
    rival["spec"]["names"] = json!({"plural": "rivals", "singular": "rival", "kind": "Rival",
        "shortNames": ["ct"]});
    let made = admin.post(DEFINITIONS, &rival).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let path = format!(
        "{DEFINITIONS}?watch=true&fieldSelector=metadata.name%3D\
        rivals.stable.example.com"
    );
    let mut rival = admin.watch(&path).await;
    let state = |event: &Value, name: &str| {
        let conditions = event["object"]["status"]["conditions"].as_array().cloned();
        let mut conditions = conditions.into_iter().flatten();
        let own = conditions.find(|c| c["type"] == name);
        own.map(|c| (c["status"].clone(), c["reason"].clone()))
    };
    let taken = (json!("False"), json!("ShortNamesConflict"));
    while state(&rival.next().await, "NamesAccepted") != Some(taken.clone()) {}
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let answer = admin.send("DELETE", &path, &[], String::new()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let gone = watch.next().await;
    assert_eq!(
        (&gone["type"], &gone["object"]["metadata"]["name"]),
        (&json!("DELETED"), &json!("a"))
    );
    let free = (json!("True"), json!("InitialNamesAccepted"));
    while state(&rival.next().await, "Established") != Some(free.clone()) {}
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one story from its beginning to its end"
)]
async fn rules_are_checked_when_they_are_written_and_forgive_what_was() {
    let cluster = Cluster::start().await;
    let with = |rule: &str, bound: &Value| {
        let mut own = definition();
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
        let spec = own.pointer_mut(spec).unwrap();
        spec["x-kubernetes-validations"] = json!([{"rule": rule}]);
        spec["properties"]["ports"]["maxItems"] = bound.clone();
        own
    };
    let schema = "spec.versions[0].schema.openAPIV3Schema.properties[spec]\
        .x-kubernetes-validations[0].rule";
    let refused = cluster
        .admin
        .post(DEFINITIONS, &with("self.replica > 1", &Value::Null))
        .await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    let told = message(&refused);
    assert!(
        told.contains(&format!("{schema}: Invalid value: ")),
        "{told}"
    );
    assert!(
        told.contains(
            "compilation failed: ERROR: <input>:1:5: undefined field 'replica'\n | self.replica > \
             1\n | ....^"
        ),
        "{told}"
    );
    let dear = "self.ports.all(a, self.ports.all(b, a.name == b.name || a != b))";
    let refused = cluster
        .admin
        .post(DEFINITIONS, &with(dear, &Value::Null))
        .await;
    let expected = format!(
        "{schema}: Forbidden: estimated rule cost exceeds budget by factor of \
        more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength"
    );
    assert!(
        message(&refused).contains(&expected),
        "{}",
        message(&refused)
    );
    let bounded = with("self.replicas < 5", &json!(10));
    cluster.established(&bounded).await;
    let made = cluster
        .admin
        .post(
            CRONS,
            &cron("a", &json!({"cronSpec": "* * * * 5", "replicas": 4})),
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.text());
    // The rule becomes stricter than what is stored.
    let stricter = json!([{"op": "replace", "value": "self.replicas < 3",
        "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations/0/rule"}]);
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let json_patch = [("content-type", "application/json-patch+json")];
    let answer = cluster
        .admin
        .send("PATCH", &path, &json_patch, stricter.to_string())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let patch = |body: Value| {
        let path = format!("{CRONS}/a");
        let admin = &cluster.admin;
        async move { admin.send("PATCH", &path, &MERGE, body.to_string()).await }
    };
    let answer = patch(json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = patch(json!({"spec": {"color": "red"}})).await;
    assert!(
        message(&answer).contains("failed rule: self.replicas < 3"),
        "{}",
        answer.text()
    );
}
