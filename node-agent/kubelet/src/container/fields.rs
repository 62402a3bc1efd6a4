//! Values that a pod may read of itself: field paths and resources (downward API). Pure.

use std::collections::BTreeMap;

use proto_api::types::Object as _;
use proto_api::types::Quantity;
use proto_api::types::core::v1::{Container, Pod, ResourceFieldSelector};

use super::ConfigError;
use crate::pod::model;

/// What fields may need beside the object itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FieldContext<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) pod_ips: &'a [String],
    pub(crate) host_ips: &'a [String],
    /// Limits that apply when a container names none.
    pub(crate) allocatable: &'a BTreeMap<String, Quantity>,
}

/// The value of `fieldPath`.
pub(crate) fn field(context: FieldContext<'_>, path: &str) -> Result<String, ConfigError> {
    let pod = context.pod;
    let metadata = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let values = match map {
            "metadata.labels" => &metadata.labels,
            "metadata.annotations" => &metadata.annotations,
            _ => return Err(unsupported(path)),
        };
        return Ok(values.get(key).cloned().unwrap_or_default());
    }
    let spec = model::spec(pod);
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => format_map(&metadata.labels),
        "metadata.annotations" => format_map(&metadata.annotations),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => context.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => context.host_ips.join(","),
        "status.podIP" => context.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => context.pod_ips.join(","),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> ConfigError {
    ConfigError(format!("unsupported fieldPath: {path}"))
}

/// Splits `metadata.labels['key']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"` a line, sorted, values quoted as Go does.
fn format_map(map: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map
        .iter()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    lines.join("\n")
}

/// The value of `resourceFieldRef` for a container.
pub(crate) fn resource(
    context: FieldContext<'_>,
    own: &Container,
    selector: &ResourceFieldSelector,
) -> Result<String, ConfigError> {
    let spec = model::spec(context.pod);
    let container = match selector
        .container_name
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        None => own,
        Some(name) => {
            model::container(spec, name)
                .ok_or_else(|| ConfigError(format!("container {name} not found")))?
                .1
        }
    };
    let (kind, name) = selector
        .resource
        .split_once('.')
        .filter(|(kind, _)| matches!(*kind, "limits" | "requests"))
        .ok_or_else(|| {
            ConfigError(format!(
                "unsupported container resource : {}",
                selector.resource
            ))
        })?;
    let resources = container.resources.clone().unwrap_or_default();
    let quantity = if kind == "limits" {
        resources
            .limits
            .get(name)
            .or_else(|| context.allocatable.get(name))
            .cloned()
    } else {
        resources
            .requests
            .get(name)
            .or_else(|| resources.limits.get(name))
            .cloned()
    };
    let divisor = selector
        .divisor
        .clone()
        .filter(|divisor| !matches!(divisor.0.as_str(), "" | "0"));
    divide(name, quantity, divisor).map_err(ConfigError)
}

/// Rounded up to whole divisors; CPU counts in thousandths.
fn divide(
    name: &str,
    quantity: Option<Quantity>,
    divisor: Option<Quantity>,
) -> Result<String, String> {
    let Some(quantity) = quantity else {
        return Ok("0".to_owned());
    };
    let divisor = divisor.unwrap_or_else(|| Quantity::from("1"));
    let read = |quantity: &Quantity| {
        let value = if name == "cpu" {
            quantity.milli_value()
        } else {
            quantity.value()
        };
        value.ok_or_else(|| format!("cannot parse quantity {quantity}"))
    };
    let (value, divisor) = (read(&quantity)?, read(&divisor)?.max(1));
    Ok(value
        .saturating_add(divisor - 1)
        .div_euclid(divisor)
        .to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u-1",
                "labels": {"app": "web", "tier": "a\"b"}, "annotations": {"note": "x\ny"}},
            "spec": {"nodeName": "n1", "serviceAccountName": "sa", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"},
                 "requests": {"cpu": "250m"}}}]}
        }))
        .unwrap()
    }

    #[test]
    fn fields_read_metadata_spec_and_addresses() {
        let pod = pod();
        let (ips, hosts) = (
            ["10.0.0.5".to_owned(), "fd00::5".to_owned()],
            ["10.1.0.1".to_owned()],
        );
        let context = FieldContext {
            pod: &pod,
            pod_ips: &ips,
            host_ips: &hosts,
            allocatable: &BTreeMap::new(),
        };
        let cases = [
            ("metadata.name", "web"),
            ("metadata.labels['app']", "web"),
            ("metadata.labels['absent']", ""),
            ("metadata.labels", "app=\"web\"\ntier=\"a\\\"b\""),
            ("metadata.annotations", "note=\"x\\ny\""),
            ("spec.nodeName", "n1"),
            ("status.podIP", "10.0.0.5"),
            ("status.podIPs", "10.0.0.5,fd00::5"),
            ("status.hostIP", "10.1.0.1"),
        ];
        for (path, value) in cases {
            assert_eq!(field(context, path).unwrap(), value, "{path}");
        }
        field(context, "spec.nonsense").unwrap_err();
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let pod = pod();
        let allocatable = BTreeMap::from([("ephemeral-storage".to_owned(), Quantity::from("1Gi"))]);
        let context = FieldContext {
            pod: &pod,
            pod_ips: &[],
            host_ips: &[],
            allocatable: &allocatable,
        };
        let container = &model::spec(&pod).containers[0];
        let ask = |resource: &str, divisor: &str| {
            let selector = ResourceFieldSelector {
                container_name: None,
                divisor: Some(Quantity::from(divisor)),
                resource: resource.to_owned(),
            };
            super::resource(context, container, &selector).unwrap()
        };
        assert_eq!(ask("limits.cpu", "1"), "2");
        assert_eq!(ask("limits.cpu", "1m"), "1500");
        assert_eq!(ask("requests.cpu", "1m"), "250");
        assert_eq!(ask("limits.memory", "1Mi"), "64");
        assert_eq!(ask("limits.memory", "0"), "67108864");
        assert_eq!(ask("limits.ephemeral-storage", "1"), "1073741824");
    }
}
