//! A container's environment: sources in their order, `$(VAR)` expanded. Pure.

use std::collections::BTreeMap;

use proto_api::types::Object as _;
use proto_api::types::core::v1::{Container, EnvVar};

use super::ConfigError;
use super::fields::{self, FieldContext};
use crate::pod::model::Inputs;

/// Name and value, in order, each name once.
pub(crate) type Environment = Vec<(String, String)>;

/// Builds the environment: `envFrom`, then `env` on top, then service variables for names that
/// are still free. Only earlier variables (and services) are expanded.
pub(crate) fn environment(
    container: &Container,
    context: FieldContext<'_>,
    inputs: &Inputs,
    services: &BTreeMap<String, String>,
) -> Result<Environment, ConfigError> {
    let mut result: Environment = Vec::new();
    env_from(container, context, inputs, &mut result)?;
    for variable in &container.env {
        let lookup =
            |name: &str| find(&result, name).or_else(|| services.get(name).map(String::as_str));
        let value = match &variable.value_from {
            None => Some(expand(
                variable.value.as_deref().unwrap_or_default(),
                lookup,
            )),
            Some(_) => value_from(container, variable, context, inputs)?,
        };
        if let Some(value) = value {
            set(&mut result, variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        if find(&result, name).is_none() {
            result.push((name.clone(), value.clone()));
        }
    }
    Ok(result)
}

/// Expands `$(NAME)` in commands and arguments.
pub(crate) fn expand_all(texts: &[String], environment: &Environment) -> Vec<String> {
    texts
        .iter()
        .map(|text| expand(text, |name| find(environment, name)))
        .collect()
}

fn find<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let entry = environment.iter().find(|(other, _)| other == name)?;
    Some(entry.1.as_str())
}

fn set(environment: &mut Environment, name: String, value: String) {
    match environment.iter_mut().find(|(other, _)| *other == name) {
        Some(entry) => entry.1 = value,
        None => environment.push((name, value)),
    }
}

fn env_from(
    container: &Container,
    context: FieldContext<'_>,
    inputs: &Inputs,
    result: &mut Environment,
) -> Result<(), ConfigError> {
    let namespace = context.pod.namespace();
    for source in &container.env_from {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let values: BTreeMap<String, String> = if let Some(reference) = &source.config_map_ref {
            let name = reference.name.as_deref().unwrap_or_default();
            match inputs.config_map(namespace, name) {
                Some(map) => map.data.clone(),
                None if reference.optional.unwrap_or(false) => continue,
                None => return Err(ConfigError(format!("configmap \"{name}\" not found"))),
            }
        } else if let Some(reference) = &source.secret_ref {
            let name = reference.name.as_deref().unwrap_or_default();
            match inputs.secret(namespace, name) {
                Some(secret) => secret
                    .data
                    .iter()
                    .map(|(key, value)| {
                        (key.clone(), String::from_utf8_lossy(&value.0).into_owned())
                    })
                    .collect(),
                None if reference.optional.unwrap_or(false) => continue,
                None => return Err(ConfigError(format!("secret \"{name}\" not found"))),
            }
        } else {
            continue;
        };
        for (key, value) in values {
            let name = format!("{prefix}{key}");
            if is_env_name(&name) {
                set(result, name, value);
            }
        }
    }
    Ok(())
}

/// Names that a process can be given; others are left out, as upstream does.
fn is_env_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

fn value_from(
    container: &Container,
    variable: &EnvVar,
    context: FieldContext<'_>,
    inputs: &Inputs,
) -> Result<Option<String>, ConfigError> {
    let Some(source) = &variable.value_from else {
        return Ok(None);
    };
    let namespace = context.pod.namespace();
    if let Some(field) = &source.field_ref {
        return fields::field(context, &field.field_path).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return fields::resource(context, container, resource).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let name = key.name.as_deref().unwrap_or_default();
        let map = inputs.config_map(namespace, name);
        let value = map.and_then(|map| map.data.get(&key.key).cloned());
        return match (map, value) {
            (_, Some(value)) => Ok(Some(value)),
            _ if key.optional.unwrap_or(false) => Ok(None),
            (None, None) => Err(ConfigError(format!("configmap \"{name}\" not found"))),
            (Some(_), None) => Err(ConfigError(format!(
                "couldn't find key {} in ConfigMap {namespace}/{name}",
                key.key
            ))),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let name = key.name.as_deref().unwrap_or_default();
        let secret = inputs.secret(namespace, name);
        let value = secret.and_then(|secret| secret.data.get(&key.key));
        return match (secret, value) {
            (_, Some(value)) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            _ if key.optional.unwrap_or(false) => Ok(None),
            (None, None) => Err(ConfigError(format!("secret \"{name}\" not found"))),
            (Some(_), None) => Err(ConfigError(format!(
                "couldn't find key {} in Secret {namespace}/{name}",
                key.key
            ))),
        };
    }
    Err(ConfigError(format!(
        "environment variable {} has a source of an unknown kind",
        variable.name
    )))
}

/// `$(NAME)` becomes its value, or stays as it is when unknown; `$$` is a dollar sign.
pub(crate) fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        result.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            result.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match lookup(name) {
                Some(value) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = tail;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use node_agent_state::ObjectName;
    use proto_api::types::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn build(container: serde_json::Value) -> Result<Environment, ConfigError> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}})).unwrap();
        let inputs = Inputs {
            config_maps: vec![(
                ObjectName::new("ns", "cm"),
                Some(Arc::new(
                    serde_json::from_value(json!({"data": {"a": "1", "b": "2"}})).unwrap(),
                )),
            )],
            secrets: vec![(
                ObjectName::new("ns", "s"),
                Some(Arc::new(
                    serde_json::from_value(json!({"data": {"pw": "c2VjcmV0"}})).unwrap(),
                )),
            )],
        };
        let context = FieldContext {
            pod: &pod,
            pod_ips: &[],
            host_ips: &[],
            allocatable: &BTreeMap::new(),
        };
        let services = BTreeMap::from([("X_SERVICE_HOST".to_owned(), "10.0.0.1".to_owned())]);
        environment(
            &serde_json::from_value(container).unwrap(),
            context,
            &inputs,
            &services,
        )
    }

    fn pairs(environment: &Environment) -> Vec<(&str, &str)> {
        environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    #[test]
    fn sources_apply_in_order_and_later_ones_win() {
        let environment = build(json!({"name": "c",
            "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"},
                        {"secretRef": {"name": "s"}}],
            "env": [{"name": "P_a", "value": "over"},
                    {"name": "HOST", "value": "h=$(X_SERVICE_HOST) $(LATER) $$(P_b)"},
                    {"name": "LATER", "value": "$(P_b)-$(HOST)"},
                    {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}}]}))
        .unwrap();
        assert_eq!(
            pairs(&environment),
            [
                ("P_a", "over"),
                ("P_b", "2"),
                ("pw", "secret"),
                ("HOST", "h=10.0.0.1 $(LATER) $(P_b)"),
                ("LATER", "2-h=10.0.0.1 $(LATER) $(P_b)"),
                ("N", "p"),
                ("PW", "secret"),
                ("X_SERVICE_HOST", "10.0.0.1"),
            ]
        );
    }

    #[test]
    fn what_is_missing_and_not_optional_is_named() {
        let cases = [
            (
                json!({"envFrom": [{"configMapRef": {"name": "no"}}]}),
                "configmap \"no\" not found",
            ),
            (
                json!({"envFrom": [{"secretRef": {"name": "no"}}]}),
                "secret \"no\" not found",
            ),
            (
                json!({"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "z"}}}]}),
                "couldn't find key z in ConfigMap ns/cm",
            ),
            (
                json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "z"}}}]}),
                "couldn't find key z in Secret ns/s",
            ),
        ];
        for (container, message) in cases {
            assert_eq!(build(container).unwrap_err().0, message);
        }
        let optional = build(json!({"envFrom": [{"configMapRef": {"name": "no", "optional": true}}],
            "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": true}}}]}))
        .unwrap();
        assert_eq!(pairs(&optional), [("X_SERVICE_HOST", "10.0.0.1")]);
    }

    #[test]
    fn expansion_follows_upstream_in_the_odd_cases() {
        let lookup = |name: &str| (name == "A").then_some("1");
        let cases = [
            ("$(A)", "1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("tail$", "tail$"),
            ("$()", "$()"),
        ];
        for (text, expanded) in cases {
            assert_eq!(expand(text, lookup), expanded, "{text}");
        }
    }
}
