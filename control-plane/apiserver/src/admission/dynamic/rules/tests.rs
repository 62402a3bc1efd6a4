//! Rules, selectors and equivalents against requests.

use serde_json::json;

use super::*;
use crate::auth::User;
use crate::server::{Target, WriteContext};

struct Case {
    registry: Registry,
    cache: WatchCache,
    context: WriteContext,
}

impl Case {
    fn new() -> Self {
        let registry = Registry::default();
        Self {
            cache: WatchCache::new(&registry),
            registry,
            context: WriteContext::of(Arc::new(User::known("ann", []))),
        }
    }

    /// `apiVersion/plural[/subresource]` of the kind in whose form a matched request is shown.
    fn matched(&self, holder: &Value, path: &str, object: &Value) -> Option<String> {
        let [group, version, plural, subresource] =
            path.split('/').collect::<Vec<_>>().try_into().unwrap();
        let kind = self.registry.by_plural(group, version, plural).unwrap();
        let namespace = if kind.namespaced() { "default" } else { "" };
        let mut target = Target::new(&kind, namespace, "one");
        target.subresource = kind.subresource(subresource);
        assert_eq!(target.subresource.is_some(), !subresource.is_empty());
        let request = Request::write(Operation::Create, &target, &Value::Null, &self.context);
        let world = World {
            cache: &self.cache,
            registry: &self.registry,
        };
        let kind = Matcher::of_webhook(holder).matches(&request, object, world)?;
        Some(format!("{}/{}", kind.api_version(), kind.plural))
    }
}

fn rule(groups: &str, versions: &str, resources: &[&str]) -> Value {
    json!({"rules": [{"operations": ["CREATE"], "apiGroups": [groups], "apiVersions": [versions],
        "resources": resources, "scope": "*"}], "matchPolicy": "Equivalent"})
}

#[test]
fn rules_mean_resources_as_upstream_reads_them() {
    let case = Case::new();
    let cases = [
        (rule("", "v1", &["pods"]), "/v1/pods/", true),
        (rule("", "v1", &["pods"]), "/v1/pods/status", false),
        (rule("", "v1", &["pods/*"]), "/v1/pods/status", true),
        (rule("", "v1", &["pods/*"]), "/v1/pods/", true),
        (rule("", "v1", &["*"]), "/v1/pods/status", false),
        (rule("", "v1", &["*/*"]), "/v1/pods/status", true),
        (
            rule("*", "*", &["*/scale"]),
            "apps/v1/deployments/scale",
            true,
        ),
        (rule("apps", "v1", &["pods"]), "/v1/pods/", false),
        (
            rule("*", "*", &["*"]),
            "admissionregistration.k8s.io/v1/validatingadmissionpolicies/",
            false,
        ),
    ];
    for (holder, path, expected) in cases {
        let found = case.matched(&holder, path, &json!({}));
        assert_eq!(found.is_some(), expected, "{path} {holder}");
    }
    let mut scoped = rule("*", "*", &["*"]);
    scoped["rules"][0]["scope"] = json!("Cluster");
    assert!(case.matched(&scoped, "/v1/pods/", &json!({})).is_none());
    assert!(
        case.matched(&scoped, "/v1/namespaces/", &json!({}))
            .is_some()
    );
    scoped["rules"][0]["operations"] = json!(["DELETE", "UPDATE"]);
    assert!(
        case.matched(&scoped, "/v1/namespaces/", &json!({}))
            .is_none()
    );
}

#[test]
fn an_equivalent_version_is_shown_as_the_rule_says() {
    let case = Case::new();
    let path = "autoscaling/v1/horizontalpodautoscalers/";
    let mut holder = rule("autoscaling", "v2", &["horizontalpodautoscalers"]);
    assert_eq!(
        case.matched(&holder, path, &json!({})).as_deref(),
        Some("autoscaling/v2/horizontalpodautoscalers")
    );
    holder["matchPolicy"] = json!("Exact");
    assert_eq!(case.matched(&holder, path, &json!({})), None);
}

#[test]
fn selectors_look_at_objects_and_namespaces() {
    let case = Case::new();
    let wanted = json!({"matchLabels": {"a": "b"}});
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    let mut holder = rule("*", "*", &["*"]);
    holder["objectSelector"] = wanted.clone();
    assert!(case.matched(&holder, "/v1/pods/", &labelled).is_some());
    assert!(case.matched(&holder, "/v1/pods/", &json!({})).is_none());
    let mut holder = rule("*", "*", &["*"]);
    holder["namespaceSelector"] = wanted;
    assert!(case.matched(&holder, "/v1/pods/", &labelled).is_none());
    // A namespace is selected by its own labels; what is in none always.
    assert!(
        case.matched(&holder, "/v1/namespaces/", &labelled)
            .is_some()
    );
    assert!(
        case.matched(&holder, "/v1/namespaces/", &json!({}))
            .is_none()
    );
    assert!(case.matched(&holder, "/v1/nodes/", &json!({})).is_some());
}
