//! Selectors in their text form, against a kind's selectable fields.

use proto_api::selector::{Fields, Labels};

use crate::cache::{Field, FieldRequirement, Filter};
use crate::registry::Kind;
use crate::status::StatusError;

/// The selection of `namespace` (empty: all), a label selector and a field selector.
///
/// # Errors
/// 400: a selector cannot be read, or names a field that cannot be selected on.
pub fn selection(
    kind: &Kind,
    namespace: &str,
    labels: Option<&str>,
    fields: Option<&str>,
) -> Result<Filter, StatusError> {
    let bad = |fault: &dyn std::fmt::Display| StatusError::bad_request(fault.to_string());
    let mut filter = Filter::in_namespace(namespace);
    if let Some(text) = labels.filter(|text| !text.is_empty()) {
        filter.labels = Some(Labels::parse(text).map_err(|fault| bad(&fault))?);
    }
    if let Some(text) = fields.filter(|text| !text.is_empty()) {
        filter.fields = requirements(kind, text)?;
    }
    // A selector on the namespace narrows the range that is looked at.
    let narrowed = filter
        .fields
        .iter()
        .find(|requirement| requirement.equal && requirement.field == Field::Namespace)
        .map(|requirement| requirement.value.clone());
    if filter.namespace.is_none() && kind.namespaced() {
        filter.namespace = narrowed;
    }
    Ok(filter)
}

fn requirements(kind: &Kind, text: &str) -> Result<Vec<FieldRequirement>, StatusError> {
    let parsed =
        Fields::parse(text).map_err(|fault| StatusError::bad_request(fault.to_string()))?;
    let unknown = |field: &str| {
        StatusError::bad_request(format!(
            "Unable to find \"{}/{}, Resource={}\" that match label selector \"\", field selector \
             \"{text}\": field label not supported: {field}",
            kind.group, kind.version, kind.plural
        ))
    };
    let read = |requirement: &proto_api::selector::FieldRequirement| {
        let field = match requirement.field.as_str() {
            "metadata.name" => Field::Name,
            "metadata.namespace" => Field::Namespace,
            other => {
                let at = kind.fields.position(other);
                Field::Kind(at.ok_or_else(|| unknown(other))?)
            }
        };
        let value = requirement.value.as_str().into();
        Ok(FieldRequirement {
            field,
            value,
            equal: requirement.equal,
        })
    };
    parsed.requirements().iter().map(read).collect()
}
