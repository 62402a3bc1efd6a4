//! Managers share objects as Kubernetes documents it.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::{Gvk, builtin};

static NONE: FieldSet = FieldSet {
    member: false,
    children: std::collections::BTreeMap::new(),
};

fn writer<'a>(manager: &'a str, kind: Gvk<'static>) -> Writer<'a> {
    Writer {
        form: Form::Canonical,
        schema: builtin(),
        type_id: builtin().kind(kind).unwrap(),
        manager,
        api_version: if kind.group.is_empty() {
            "v1"
        } else {
            "apps/v1"
        },
        subresource: "",
        ignored: &NONE,
        now: "2026-01-31T12:00:00Z",
    }
}

const DEPLOYMENT: Gvk<'static> = Gvk {
    group: "apps",
    version: "v1",
    kind: "Deployment",
};
const CONFIG_MAP: Gvk<'static> = Gvk {
    group: "",
    version: "v1",
    kind: "ConfigMap",
};
const SERVICE: Gvk<'static> = Gvk {
    group: "",
    version: "v1",
    kind: "Service",
};

fn applied(manager: &str, kind: Gvk<'static>, live: Option<&Value>, config: &Value) -> Value {
    apply(&writer(manager, kind), live, config, OnConflict::Refuse).unwrap()
}

fn updated(writer: &Writer<'_>, live: Option<&Value>, new: &Value) -> Value {
    let mut new = new.clone();
    update(writer, live, &mut new).unwrap();
    new
}

/// The paths a manager owns.
fn owned(object: &Value, manager: &str) -> Vec<String> {
    let entries = read(object).unwrap();
    entries
        .iter()
        .filter(|entry| entry.manager == manager)
        .flat_map(|e| e.fields.paths())
        .collect()
}

fn config_map(data: impl Into<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data.into()})
}

fn deployment(spec: impl Into<Value>) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec.into()})
}

#[test]
fn the_first_apply_owns_what_it_states() {
    let object = applied(
        "a",
        CONFIG_MAP,
        None,
        &config_map(json!({"x": "1", "y": "2"})),
    );
    assert_eq!(object["data"], json!({"x": "1", "y": "2"}));
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{
            "manager": "a", "operation": "Apply", "apiVersion": "v1",
            "time": "2026-01-31T12:00:00Z", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:x": {}, "f:y": {}}}
        }])
    );
}

#[test]
fn what_an_applier_states_no_longer_goes() {
    let live = applied(
        "a",
        CONFIG_MAP,
        None,
        &config_map(json!({"x": "1", "y": "2"})),
    );
    let object = applied("a", CONFIG_MAP, Some(&live), &config_map(json!({"y": "2"})));
    assert_eq!(object["data"], json!({"y": "2"}));
    assert_eq!(owned(&object, "a"), [".data.y"]);
}

#[test]
fn what_another_owns_too_stays() {
    let live = applied(
        "a",
        CONFIG_MAP,
        None,
        &config_map(json!({"x": "1", "y": "2"})),
    );
    let live = applied("b", CONFIG_MAP, Some(&live), &config_map(json!({"x": "1"})));
    let object = applied("a", CONFIG_MAP, Some(&live), &config_map(json!({"y": "2"})));
    assert_eq!(object["data"], json!({"x": "1", "y": "2"}));
    assert_eq!(owned(&object, "a"), [".data.y"]);
    assert_eq!(owned(&object, "b"), [".data.x"]);
    let object = applied("b", CONFIG_MAP, Some(&object), &config_map(json!({})));
    assert_eq!(object["data"], json!({"y": "2"}));
}

#[test]
fn changing_what_another_owns_is_a_conflict_unless_forced() {
    let live = applied(
        "a",
        DEPLOYMENT,
        None,
        &deployment(json!({"replicas": 1, "paused": true})),
    );
    let config = deployment(json!({"replicas": 2, "paused": false}));
    let b = writer("b", DEPLOYMENT);
    let error = apply(&b, Some(&live), &config, OnConflict::Refuse).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.paused\n- .spec.replicas"
    );
    let forced = apply(&b, Some(&live), &config, OnConflict::Take).unwrap();
    // Absent and false are the same, and false is what the configuration said.
    assert_eq!(forced["spec"]["replicas"], 2);
    assert_eq!(forced["spec"].get("paused"), None);
    assert_eq!(owned(&forced, "b"), [".spec.paused", ".spec.replicas"]);
    assert_eq!(owned(&forced, "a"), Vec::<String>::new());
}

#[test]
fn an_update_takes_what_it_changes_and_conflicts_name_it_with_version_and_time() {
    let live = applied(
        "a",
        DEPLOYMENT,
        None,
        &deployment(json!({"replicas": 1, "paused": true})),
    );
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(5);
    let live = updated(&writer("kubectl", DEPLOYMENT), Some(&live), &scaled);
    assert_eq!(owned(&live, "kubectl"), [".spec.replicas"]);
    assert_eq!(owned(&live, "a"), [".spec.paused"]);
    let config = deployment(json!({"replicas": 1, "paused": true}));
    let error = apply(
        &writer("a", DEPLOYMENT),
        Some(&live),
        &config,
        OnConflict::Refuse,
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl\" using apps/v1 at \
         2026-01-31T12:00:00Z: .spec.replicas"
    );
}

#[test]
fn list_items_are_owned_by_their_keys() {
    let template = |containers: Value| json!({"template": {"spec": {"containers": containers}}});
    let live = applied(
        "a",
        DEPLOYMENT,
        None,
        &deployment(template(
            json!([{"name": "x", "image": "1", "ports": [{"containerPort": 80}]}]),
        )),
    );
    assert_eq!(
        owned(&live, "a"),
        [
            ".spec.template.spec.containers[name=\"x\"]",
            ".spec.template.spec.containers[name=\"x\"].image",
            ".spec.template.spec.containers[name=\"x\"].name",
            ".spec.template.spec.containers[name=\"x\"].ports[containerPort=80,protocol=\"TCP\"]",
            ".spec.template.spec.containers[name=\"x\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
        ]
    );
    let both = deployment(template(json!([{"name": "side", "image": "2"}])));
    let live = applied("b", DEPLOYMENT, Some(&live), &both);
    let containers = live.pointer("/spec/template/spec/containers").unwrap();
    assert_eq!(containers[0]["name"], "x");
    assert_eq!(containers[1]["name"], "side");
    let gone = applied("b", DEPLOYMENT, Some(&live), &deployment(json!({})));
    let containers = gone.pointer("/spec/template/spec/containers").unwrap();
    assert_eq!(containers.as_array().unwrap().len(), 1);
}

#[test]
fn shared_items_follow_the_order_of_the_configuration() {
    let ports = |ports: &[i64]| {
        let ports: Vec<Value> = ports.iter().map(|port| json!({"port": port})).collect();
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}})
    };
    let order = |object: &Value| -> Vec<i64> {
        let ports = object
            .pointer("/spec/ports")
            .and_then(Value::as_array)
            .unwrap();
        ports
            .iter()
            .map(|port| port["port"].as_i64().unwrap())
            .collect()
    };
    let live = applied("a", SERVICE, None, &ports(&[1, 2, 3]));
    let reordered = applied("a", SERVICE, Some(&live), &ports(&[3, 1, 4]));
    assert_eq!(order(&reordered), [3, 1, 4]);
    let other = applied("b", SERVICE, Some(&live), &ports(&[9, 2]));
    assert_eq!(order(&other), [1, 9, 2, 3]);
}

#[test]
fn atomic_values_are_owned_as_a_whole() {
    let live = applied(
        "a",
        DEPLOYMENT,
        None,
        &deployment(json!({"selector": {"matchLabels": {"a": "b"}}})),
    );
    assert_eq!(owned(&live, "a"), [".spec.selector"]);
}

#[test]
fn an_object_without_entries_belonged_to_someone_before() {
    let live = config_map(json!({"x": "1"}));
    let a = writer("a", CONFIG_MAP);
    let config = config_map(json!({"x": "2"}));
    let error = apply(&a, Some(&live), &config, OnConflict::Refuse).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("\"before-first-apply\" using v1"),
        "{error}"
    );
    let object = applied("a", CONFIG_MAP, Some(&live), &config_map(json!({"x": "1"})));
    assert_eq!(owned(&object, "before-first-apply"), [".data.x"]);
}

#[test]
fn an_apply_that_changes_nothing_returns_the_live_object() {
    let config = config_map(json!({"x": "1"}));
    let live = applied("a", CONFIG_MAP, None, &config);
    let later = Writer {
        now: "2027-01-01T00:00:00Z",
        ..writer("a", CONFIG_MAP)
    };
    assert_eq!(
        apply(&later, Some(&live), &config, OnConflict::Refuse),
        Ok(live)
    );
}

#[test]
fn ignored_fields_are_not_owned() {
    let status = FieldSet::default().with(&["status"]);
    let a = Writer {
        ignored: &status,
        ..writer("a", DEPLOYMENT)
    };
    let mut new = deployment(json!({"replicas": 1}));
    new["status"] = json!({"replicas": 7});
    let object = updated(&a, None, &new);
    assert_eq!(owned(&object, "a"), [".spec.replicas"]);
}

#[test]
fn entries_may_be_reset_and_are_kept_when_left_out() {
    let live = applied("a", CONFIG_MAP, None, &config_map(json!({"x": "1"})));
    let b = writer("b", CONFIG_MAP);
    let kept = updated(&b, Some(&live), &config_map(json!({"x": "1"})));
    assert_eq!(owned(&kept, "a"), [".data.x"]);
    let mut reset = config_map(json!({"x": "1"}));
    reset["metadata"]["managedFields"] = json!([{}]);
    let object = updated(&b, Some(&live), &reset);
    assert_eq!(object["metadata"].get("managedFields"), None);
}

#[test]
fn a_creation_is_the_difference_to_nothing() {
    let status = FieldSet::default().with(&["status"]);
    let mut full = deployment(json!({
        "replicas": 3, "selector": {"matchLabels": {"b": "1", "a": "2"}}, "strategy": {},
        "template": {
            "metadata": {"creationTimestamp": null, "labels": {"a": "2"}, "annotations": {}},
            "spec": {
                "containers": [
                    {"name": "z", "image": "i", "resources": {}, "args": ["x", "y"],
                        "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}],
                        "env": [{"name": "B", "value": "1"}, {"name": "A", "value": "2"},
                            {"name": "B", "value": "3"}],
                        "securityContext": {"capabilities": {"drop": ["ALL"]}}},
                    {"name": "a", "readinessProbe": {"httpGet": {"path": "/", "port": 8080}}},
                ],
                "securityContext": {}, "nodeSelector": {}, "tolerations": [{"key": "k"}],
                "volumes": [{"name": "v", "emptyDir": {}}],
                "topologySpreadConstraints": [
                    {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1}],
            },
        },
    }));
    full["metadata"]["uid"] = json!("u");
    full["metadata"]["finalizers"] = json!(["y", "x", "y"]);
    full["metadata"]["ownerReferences"] = json!([{"uid": "o", "name": "n"}]);
    full["status"] = json!({"replicas": 7});
    let unkeyed = json!({"template": {"spec": {"containers": [{"image": "no name"}]}}});
    for (kind, object) in [
        (DEPLOYMENT, full),
        (DEPLOYMENT, deployment(json!({}))),
        (DEPLOYMENT, deployment(unkeyed)),
        (CONFIG_MAP, config_map(json!({"x": "1", "a.b": ""}))),
        (CONFIG_MAP, config_map(json!({}))),
        (
            SERVICE,
            json!({"metadata": {"name": "s", "labels": null},
                "spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}],
                    "clusterIPs": ["a", "b"], "selector": {}}}),
        ),
    ] {
        for ignored in [&NONE, &status] {
            let writer = Writer {
                ignored,
                ..writer("a", kind)
            };
            let (mut one, mut other) = (object.clone(), object.clone());
            let created = update(&writer, None, &mut one);
            let compared = update(&writer, Some(&json!({})), &mut other);
            assert_eq!(created, compared);
            assert_eq!(
                one.to_string(),
                other.to_string(),
                "the same, in the same order"
            );
        }
    }
}

#[test]
fn many_updaters_become_ancient() {
    let mut live = config_map(json!({}));
    for at in 0..30 {
        let name = format!("m{at:02}");
        let now = format!("2026-01-01T00:00:{at:02}Z");
        let writer = Writer {
            now: &now,
            ..writer(&name, CONFIG_MAP)
        };
        let mut new = live.clone();
        new["data"][format!("k{at}")] = json!("v");
        live = updated(&writer, Some(&live), &new);
    }
    let entries = read(&live).unwrap();
    assert_eq!(entries.len(), UPDATES_MAX);
    assert_eq!(
        owned(&live, "ancient-changes").len(),
        30 - (UPDATES_MAX - 1)
    );
    assert_eq!(owned(&live, "m29"), [".data.k29"]);
}

#[test]
fn configurations_that_do_not_fit_the_schema_are_refused_with_their_path() {
    let a = writer("a", DEPLOYMENT);
    for (spec, message) in [
        (json!({"foo": 1}), ".spec.foo: field not declared in schema"),
        (
            json!({"template": {"spec": {"containers": [{"name": "x"}, {"name": "x"}]}}}),
            ".spec.template.spec.containers: duplicate entries for key [name=\"x\"]",
        ),
        (
            json!({"template": {"spec": {"containers": [{"image": "x"}]}}}),
            ".spec.template.spec.containers: associative list with keys has an element that omits \
             all key fields (at least one must be specified)",
        ),
    ] {
        let error = apply(&a, None, &deployment(spec), OnConflict::Refuse).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn fields_read_and_write_their_json_form() {
    let fields = json!({
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:finalizers": {"v:\"x\"": {}}},
        "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
            "f:list": {"i:0": {}}}
    });
    let set = FieldSet::from_fields(&fields).unwrap();
    assert_eq!(set.to_fields(), fields);
    assert!(
        set.paths()
            .contains(&".spec.ports[port=80,protocol=\"TCP\"].port".to_owned())
    );
    let wrong = FieldSet::from_fields(&json!({"x:y": {}}));
    assert_eq!(wrong, Err(FieldsError("x:y".to_owned())));
}

/// A config map's data from a bit pattern: key and value of four entries.
fn pattern(bits: u8) -> Value {
    let entries = (0..4_u8).filter(|at| bits >> at & 1 == 1);
    let entries = entries.map(|at| (format!("k{at}"), json!((bits >> 4 & 1).to_string())));
    config_map(Value::Object(entries.collect()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_a_forced_apply_the_object_holds_the_configuration_and_every_field_has_an_owner(
        steps in prop::collection::vec((0..3_u8, 0..32_u8), 1..12),
    ) {
        let mut live: Option<Value> = None;
        for (manager, bits) in steps {
            let config = pattern(bits);
            let name = format!("m{manager}");
            let writer = writer(&name, CONFIG_MAP);
            let object = apply(&writer, live.as_ref(), &config, OnConflict::Take).unwrap();
            let none = Map::new();
            let data = object["data"].as_object().unwrap_or(&none);
            for (key, value) in config["data"].as_object().unwrap() {
                prop_assert_eq!(data.get(key), Some(value));
            }
            let entries = read(&object).unwrap();
            for key in data.keys() {
                let path = format!(".data.{key}");
                prop_assert!(entries.iter().any(|entry| entry.fields.paths().contains(&path)));
            }
            // The same apply again changes nothing.
            let again = apply(&writer, Some(&object), &config, OnConflict::Refuse);
            prop_assert_eq!(again.as_ref(), Ok(&object));
            live = Some(object);
        }
    }
}
