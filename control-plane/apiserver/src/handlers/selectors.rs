//! Selectors, revisions and pages as query parameters.

use crate::cache::{Field, FieldRequirement, Filter, ListRequest, Match, WatchStart};
use crate::field::{FieldError, Path};
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
            "invalid resource version: resourceVersion: Invalid value: \"{text}\": \
             strconv.ParseUint: parsing \"{text}\": invalid syntax"
        ))
    })
}

const EXACT: &str = "Exact";
const NOT_OLDER_THAN: &str = "NotOlderThan";

/// The options of a list that exclude each other, in upstream's words.
fn check_list(query: &Query) -> Result<Option<Match>, StatusError> {
    let path = Path::root("resourceVersionMatch");
    let mut errors = Vec::new();
    let forbid = |why: &str| FieldError::forbidden(&path, why);
    let wanted = query.get("resourceVersionMatch");
    let rv = query.get("resourceVersion");
    if let Some(wanted) = wanted {
        if rv.is_none() {
            errors.push(forbid(
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if query.get("continue").is_some() {
            errors.push(forbid(
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        if !matches!(wanted, EXACT | NOT_OLDER_THAN) {
            let supported = [EXACT, NOT_OLDER_THAN, ""];
            errors.push(FieldError::not_supported(&path, wanted, &supported));
        }
        if wanted == EXACT && rv == Some("0") {
            errors.push(forbid(
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
    }
    if query.tristate("sendInitialEvents").is_some() {
        let path = Path::root("sendInitialEvents");
        let why = "sendInitialEvents is forbidden for list";
        errors.push(FieldError::forbidden(&path, why));
    }
    refuse(&errors)?;
    Ok(wanted.map(|wanted| match wanted {
        EXACT => Match::Exact,
        _ => Match::NotOlderThan,
    }))
}

/// Where a watch begins.
///
/// # Errors
/// Options that exclude each other, or no revision.
pub(super) fn watch_start(query: &Query) -> Result<WatchStart, StatusError> {
    let path = Path::root("resourceVersionMatch");
    let mut errors = Vec::new();
    let wanted = query.get("resourceVersionMatch");
    let initial = query.tristate("sendInitialEvents");
    if initial.is_some() && wanted != Some(NOT_OLDER_THAN) {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(&path, why));
    }
    if let Some(wanted) = wanted {
        if initial.is_none() {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is \
                       provided";
            errors.push(FieldError::forbidden(&path, why));
        }
        if wanted != NOT_OLDER_THAN {
            errors.push(FieldError::not_supported(&path, wanted, &[NOT_OLDER_THAN]));
        }
        if query.get("continue").is_some() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden(&path, why));
        }
    }
    refuse(&errors)?;
    let rv = resource_version(query)?;
    Ok(match (initial, rv) {
        (Some(true), rv) if query.flag("allowWatchBookmarks") => WatchStart::StateThenBookmark(rv),
        (Some(true), rv) | (None, rv @ (None | Some(0))) => WatchStart::State(rv),
        (Some(false), None | Some(0)) => WatchStart::Now,
        (Some(false) | None, Some(rv)) => WatchStart::After(rv),
    })
}

fn refuse(errors: &[FieldError]) -> Result<(), StatusError> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(StatusError::invalid(
        "meta.k8s.io",
        "ListOptions",
        "",
        errors,
    ))
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
    let rv_match = check_list(query)?;
    let rv = resource_version(query)?;
    let continue_token = query.get("continue").map(str::to_owned);
    let limit = query.number("limit")?.unwrap_or_default();
    query.number("timeoutSeconds")?;
    Ok(ListRequest {
        filter: filter(kind, namespace, "", query)?,
        rv,
        rv_match,
        limit: usize::try_from(limit).unwrap_or_default(),
        continue_token,
    })
}

/// Reads a query as every verb does that takes one.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_queries(kind: &Kind, query: &Query) {
    let _list = list_request(kind, "d", query).is_ok();
    let _watch = watch_start(query).is_ok();
    let _get = resource_version(query).is_ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str) -> Result<Option<Match>, String> {
        check_list(&Query::parse(Some(query))).map_err(|error| error.message)
    }

    fn watch(query: &str) -> Result<WatchStart, String> {
        watch_start(&Query::parse(Some(query))).map_err(|error| error.message)
    }

    fn refused<T>(why: &str) -> Result<T, String> {
        Err(format!("ListOptions.meta.k8s.io \"\" is invalid: {why}"))
    }

    #[test]
    fn options_of_a_list_that_exclude_each_other_are_refused() {
        let of = "resourceVersionMatch";
        let cases = [
            ("", Ok(None)),
            ("resourceVersion=5", Ok(None)),
            (
                "resourceVersion=5&resourceVersionMatch=Exact",
                Ok(Some(Match::Exact)),
            ),
            (
                "resourceVersion=0&resourceVersionMatch=NotOlderThan",
                Ok(Some(Match::NotOlderThan)),
            ),
            (
                "resourceVersionMatch=Exact",
                refused(&format!(
                    "{of}: Forbidden: {of} is forbidden unless resourceVersion is provided"
                )),
            ),
            (
                "resourceVersion=5&resourceVersionMatch=Exact&continue=x",
                refused(&format!(
                    "{of}: Forbidden: {of} is forbidden when continue is provided"
                )),
            ),
            (
                "resourceVersion=0&resourceVersionMatch=Exact",
                refused(&format!(
                    "{of}: Forbidden: {of} \"exact\" is forbidden for resourceVersion \"0\""
                )),
            ),
            (
                "resourceVersion=5&resourceVersionMatch=Newest",
                refused(&format!(
                    "{of}: Unsupported value: \"Newest\": supported values: \"Exact\", \
                     \"NotOlderThan\", \"\""
                )),
            ),
            (
                "sendInitialEvents=true",
                refused("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
            ),
        ];
        for (query, expected) in cases {
            assert_eq!(list(query), expected, "{query}");
        }
    }

    #[test]
    fn a_watch_begins_where_its_options_say() {
        let of = "resourceVersionMatch";
        let initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        let none = "sendInitialEvents=false&resourceVersionMatch=NotOlderThan";
        let bookmarks = "allowWatchBookmarks=true";
        let cases = [
            (String::new(), Ok(WatchStart::State(None))),
            (
                "resourceVersion=0".to_owned(),
                Ok(WatchStart::State(Some(0))),
            ),
            ("resourceVersion=7".to_owned(), Ok(WatchStart::After(7))),
            (initial.to_owned(), Ok(WatchStart::State(None))),
            (
                format!("{initial}&{bookmarks}&resourceVersion=7"),
                Ok(WatchStart::StateThenBookmark(Some(7))),
            ),
            (none.to_owned(), Ok(WatchStart::Now)),
            (
                format!("{none}&resourceVersion=7"),
                Ok(WatchStart::After(7)),
            ),
            (
                "sendInitialEvents=true".to_owned(),
                refused(&format!(
                    "{of}: Forbidden: sendInitialEvents requires setting {of} to NotOlderThan"
                )),
            ),
            (
                format!("{of}=NotOlderThan"),
                refused(&format!(
                    "{of}: Forbidden: {of} is forbidden for watch unless sendInitialEvents is \
                     provided"
                )),
            ),
        ];
        for (query, expected) in cases {
            assert_eq!(watch(&query), expected, "{query}");
        }
        let text = watch("resourceVersion=x").unwrap_err();
        assert!(
            text.starts_with("invalid resource version: resourceVersion: Invalid value: \"x\"")
        );
    }
}
