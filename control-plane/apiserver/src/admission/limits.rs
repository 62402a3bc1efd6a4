//! LimitRanger: a namespace's limits on one container, pod or claim, and the defaults they imply.

use std::collections::BTreeMap;

use proto_api::quantity::Amount;
use serde_json::{Value, json};

use super::Admission;
use crate::server::Target;
use crate::status::StatusError;
use crate::tree;
use crate::validation::amount;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type Amounts = BTreeMap<String, Amount>;

impl Admission {
    /// Completes and checks a new object against the limits of its namespace.
    pub(super) fn check_limits(
        &self,
        target: &Target,
        object: &mut Value,
    ) -> Result<(), StatusError> {
        if !matches!(target.kind.kind, "Pod" | "PersistentVolumeClaim") {
            return Ok(());
        }
        for range in self.in_namespace("", "limitranges", &target.key.namespace) {
            let range = range.value();
            let problems = if target.kind.kind == "Pod" {
                default_pod(&range, object);
                pod_problems(&range, object)
            } else {
                claim_problems(&range, object)
            };
            if let Some(why) = aggregate(&problems) {
                let resource = target.kind.group_resource();
                return Err(StatusError::forbidden(resource, &target.key.name, &why));
            }
        }
        Ok(())
    }
}

/// Several errors as one sentence.
fn aggregate(problems: &[String]) -> Option<String> {
    match problems {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

fn limits<'a>(range: &'a Value, kind: &str) -> impl Iterator<Item = &'a Value> {
    tree::list(range, &["spec", "limits"])
        .iter()
        .filter(move |limit| limit["type"] == kind)
}

fn amounts(value: &Value) -> Amounts {
    tree::entries(value, &[])
        .filter_map(|(name, value)| Some((name.clone(), amount(value)?)))
        .collect()
}

/// Gives every container what the limits say of those that ask for nothing.
fn default_pod(range: &Value, pod: &mut Value) {
    let (mut requests, mut most) = (json!({}), json!({}));
    for limit in limits(range, "Container") {
        for (into, field) in [(&mut requests, "defaultRequest"), (&mut most, "default")] {
            for (name, value) in tree::entries(limit, &[field]) {
                tree::as_object(into).insert(name.clone(), value.clone());
            }
        }
    }
    let mut notes = Vec::new();
    let spec = tree::object_mut(pod, "spec");
    for (list, word) in [
        ("containers", "container"),
        ("initContainers", "init container"),
    ] {
        for container in tree::list_mut(spec, list) {
            let name = tree::text(container, &["name"]).to_owned();
            let slot = tree::as_object(container)
                .entry("resources".to_owned())
                .or_insert(Value::Null);
            let mut fill = |field: &str, defaults: &Value, what: &str| {
                let mut set = Vec::new();
                for (resource, value) in tree::entries(defaults, &[]) {
                    let own = tree::object_mut(slot, field);
                    if own.get(resource).is_none_or(Value::is_null) {
                        own.insert(resource.clone(), value.clone());
                        set.push(resource.clone());
                    }
                }
                if !set.is_empty() {
                    set.sort();
                    notes.push(format!("{} {what} for {word} {name}", set.join(", ")));
                }
            };
            fill("requests", &requests, "request");
            fill("limits", &most, "limit");
        }
    }
    if !notes.is_empty() {
        let meta = tree::object_mut(pod, "metadata");
        let slot = meta.entry("annotations".to_owned()).or_insert(Value::Null);
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        tree::as_object(slot).insert(ANNOTATION.to_owned(), json!(text));
    }
}

fn pod_problems(range: &Value, pod: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let each = |list: &str| {
        let containers = tree::list(pod, &["spec", list]);
        containers.iter().map(|container| {
            let read = |field| amounts(tree::at(container, &["resources", field]));
            (read("requests"), read("limits"))
        })
    };
    for limit in limits(range, "Container") {
        for (requests, most) in each("containers").chain(each("initContainers")) {
            check(limit, "Container", &requests, &most, &mut problems);
        }
    }
    for limit in limits(range, "Pod") {
        let (requests, most): (Vec<Amounts>, Vec<Amounts>) = each("containers").unzip();
        let (mut requests, mut most) = (sum(&requests), sum(&most));
        // Init containers run alone: the pod needs the most of them, if that is more.
        for (request, limit) in each("initContainers") {
            raise(&mut requests, &request);
            raise(&mut most, &limit);
        }
        check(limit, "Pod", &requests, &most, &mut problems);
    }
    problems
}

fn raise(total: &mut Amounts, one: &Amounts) {
    for (name, value) in one {
        if let Some(known) = total.get_mut(name)
            && *known < *value
        {
            *known = *value;
        }
    }
}

/// What all containers ask for together; a resource that one does not name has no sum.
fn sum(all: &[Amounts]) -> Amounts {
    let mut total = Amounts::new();
    for name in all.iter().flat_map(BTreeMap::keys) {
        let values: Option<Vec<Amount>> = all.iter().map(|one| one.get(name).copied()).collect();
        if let Some(values) = values {
            let sum = values.into_iter().reduce(Amount::plus);
            total.insert(name.clone(), sum.unwrap_or_default());
        }
    }
    total
}

fn claim_problems(range: &Value, claim: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let requests = amounts(tree::at(claim, &["spec", "resources", "requests"]));
    let kind = "PersistentVolumeClaim";
    for limit in limits(range, kind) {
        for (name, least) in amounts(tree::at(limit, &["min"])) {
            at_least(
                kind,
                &name,
                least,
                &requests,
                &Amounts::new(),
                &mut problems,
            );
        }
        for (name, most) in amounts(tree::at(limit, &["max"])) {
            let head = format!("maximum {name} usage per {kind} is {most}");
            match requests.get(&name) {
                None => problems.push(format!("{head}.  No request is specified")),
                Some(request) if *request > most => {
                    problems.push(format!("{head}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
    }
    problems
}

fn check(
    limit: &Value,
    kind: &str,
    requests: &Amounts,
    limits: &Amounts,
    problems: &mut Vec<String>,
) {
    for (name, least) in amounts(tree::at(limit, &["min"])) {
        at_least(kind, &name, least, requests, limits, problems);
    }
    for (name, most) in amounts(tree::at(limit, &["max"])) {
        let head = format!("maximum {name} usage per {kind} is {most}");
        match limits.get(&name) {
            None => problems.push(format!("{head}.  No limit is specified")),
            Some(limit) if *limit > most => {
                problems.push(format!("{head}, but limit is {limit}"));
            }
            Some(_) => {
                if let Some(request) = requests.get(&name).filter(|request| **request > most) {
                    problems.push(format!("{head}, but request is {request}"));
                }
            }
        }
    }
    for (name, ratio) in amounts(tree::at(limit, &["maxLimitRequestRatio"])) {
        let head = format!("{name} max limit to request ratio per {kind} is {ratio}");
        let known = |of: &Amounts| of.get(&name).copied().filter(|amount| amount.nano() != 0);
        match (known(requests), known(limits)) {
            (None, _) => problems.push(format!(
                "{head}, but no request is specified or request is 0"
            )),
            (_, None) => {
                problems.push(format!("{head}, but no limit is specified or limit is 0"));
            }
            (Some(request), Some(most)) => {
                let observed = quotient(most, request);
                if observed > units(ratio) {
                    problems.push(format!("{head}, but provided ratio is {observed:.6}"));
                }
            }
        }
    }
}

fn at_least(
    kind: &str,
    name: &str,
    least: Amount,
    requests: &Amounts,
    limits: &Amounts,
    problems: &mut Vec<String>,
) {
    let head = format!("minimum {name} usage per {kind} is {least}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => problems.push(format!("{head}.  No request is specified")),
        (Some(request), _) if *request < least => {
            problems.push(format!("{head}, but request is {request}"));
        }
        (Some(_), Some(limit)) if *limit < least => {
            problems.push(format!("{head}, but limit is {limit}"));
        }
        _ => {}
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "ratios are compared and printed with six digits"
)]
fn quotient(a: Amount, b: Amount) -> f64 {
    a.nano() as f64 / b.nano() as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "ratios are compared and printed with six digits"
)]
fn units(amount: Amount) -> f64 {
    amount.nano() as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(resources: &Value) -> Value {
        json!({"metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn a_container_that_asks_for_nothing_gets_the_defaults_and_the_pod_says_so() {
        let range = json!({"spec": {"limits": [{"type": "Container",
            "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}]}});
        let mut pod = pod(&json!({"limits": {"memory": "2Gi"}}));
        default_pod(&range, &mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"memory": "2Gi", "cpu": "1"}, "requests": {"cpu": "100m"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
        );
    }

    #[test]
    fn limits_are_enforced_in_upstreams_words() {
        let range = |fields: Value| {
            let mut limit = fields;
            limit["type"] = json!("Container");
            json!({"spec": {"limits": [limit]}})
        };
        let cases = [
            (
                json!({"min": {"cpu": "200m"}}),
                json!({"requests": {"cpu": "100m"}}),
                "minimum cpu usage per Container is 200m, but request is 100m",
            ),
            (
                json!({"max": {"memory": "1Gi"}}),
                json!({}),
                "maximum memory usage per Container is 1Gi.  No limit is specified",
            ),
            (
                json!({"max": {"memory": "1Gi"}}),
                json!({"limits": {"memory": "2Gi"}}),
                "maximum memory usage per Container is 1Gi, but limit is 2Gi",
            ),
            (
                json!({"maxLimitRequestRatio": {"cpu": "2"}}),
                json!({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ),
        ];
        for (limit, resources, expected) in cases {
            assert_eq!(pod_problems(&range(limit), &pod(&resources)), [expected]);
        }
    }

    #[test]
    fn a_claim_is_held_to_its_bounds() {
        let range = json!({"spec": {"limits": [{"type": "PersistentVolumeClaim",
            "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]}});
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        assert!(claim_problems(&range, &claim("2Gi")).is_empty());
        assert_eq!(
            claim_problems(&range, &claim("3Gi")),
            ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]
        );
    }
}
