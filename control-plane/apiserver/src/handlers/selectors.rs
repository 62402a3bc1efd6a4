//! Selectors, revisions and pages as query parameters.

use crate::cache::{Field, FieldRequirement, Filter, ListRequest, Match};
use crate::http::Query;
use crate::registry::Kind;
use crate::server::selection;
use crate::status::StatusError;

/// `resourceVersion`.
///
/// # Errors
/// Not a revision.
pub(super) fn resource_version(query: &Query) -> Result<Option<u64>, StatusError> {
    let Some(text) = query.get("resourceVersion") else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_fault| {
        StatusError::bad_request(format!(
            "Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
        ))
    })
}

/// `resourceVersionMatch`.
///
/// # Errors
/// Neither `Exact` nor `NotOlderThan`.
pub(super) fn rv_match(query: &Query) -> Result<Option<Match>, StatusError> {
    match query.get("resourceVersionMatch") {
        None => Ok(None),
        Some("Exact") => Ok(Some(Match::Exact)),
        Some("NotOlderThan") => Ok(Some(Match::NotOlderThan)),
        Some(other) => Err(invalid(&format!(
            "resourceVersionMatch: Unsupported value: \"{other}\": supported values: \"Exact\", \
             \"NotOlderThan\", \"\""
        ))),
    }
}

fn invalid(text: &str) -> StatusError {
    StatusError::new(
        422,
        "Invalid",
        format!("ListOptions.meta.k8s.io \"\" is invalid: {text}"),
    )
}

/// The selection of a list or watch of `kind`; `name` narrows it to one object.
///
/// # Errors
/// A selector that cannot be read, or a field that cannot be selected on.
pub(super) fn filter(
    kind: &Kind,
    namespace: &str,
    name: &str,
    query: &Query,
) -> Result<Filter, StatusError> {
    let (labels, fields) = (query.get("labelSelector"), query.get("fieldSelector"));
    let mut filter = selection(kind, namespace, labels, fields)?;
    if !name.is_empty() {
        filter.fields.push(FieldRequirement {
            field: Field::Name,
            value: name.into(),
            equal: true,
        });
    }
    Ok(filter)
}

/// A whole list request.
///
/// # Errors
/// As [`filter`]; or options that exclude each other.
pub(super) fn list_request(
    kind: &Kind,
    namespace: &str,
    query: &Query,
) -> Result<ListRequest, StatusError> {
    let rv = resource_version(query)?;
    let rv_match = rv_match(query)?;
    if query.tristate("sendInitialEvents").is_some() {
        return Err(invalid(
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        ));
    }
    if rv_match.is_some() && rv.is_none() {
        return Err(invalid(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless \
             resourceVersion is provided",
        ));
    }
    let continue_token = query.get("continue").map(str::to_owned);
    if rv_match.is_some() && continue_token.is_some() {
        return Err(invalid(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is \
             provided",
        ));
    }
    let limit = query.number("limit")?.unwrap_or_default();
    Ok(ListRequest {
        filter: filter(kind, namespace, "", query)?,
        rv,
        rv_match,
        limit: usize::try_from(limit).unwrap_or_default(),
        continue_token,
    })
}
