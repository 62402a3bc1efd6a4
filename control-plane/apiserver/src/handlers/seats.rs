//! How many seats a request asks for: one, or more for a list of many objects.

use crate::flow;
use crate::http::{Query, RequestInfo, ResourcePath};
use crate::object::ObjKey;
use crate::server::Server;

/// Objects of an answer that cost as much as a request without any (as upstream).
const OBJECTS_A_SEAT: usize = 100;
/// Objects that are counted; more cost no more seats.
const COUNTED_MAX: usize = 1000;

/// What priority and fairness looks at.
pub(super) fn asks<'a>(
    server: &Server,
    info: &'a RequestInfo,
    query: &Query,
    path: &'a str,
) -> flow::Request<'a> {
    let resource = info.resource.as_ref();
    let lists = match info.verb {
        "list" => true,
        // The objects that a watch begins with.
        "watch" => query.flag("sendInitialEvents"),
        _ => false,
    };
    let objects = match resource {
        Some(resource) if lists => objects(server, resource, query),
        _ => 0,
    };
    flow::Request {
        verb: info.verb,
        path,
        resource,
        width: objects.div_ceil(OBJECTS_A_SEAT).max(1) as u64,
    }
}

/// Objects that have to be looked at.
fn objects(server: &Server, path: &ResourcePath, query: &Query) -> usize {
    if !path.name.is_empty() {
        return 1;
    }
    let Ok(kind) = server.kind(&path.group, &path.version, &path.plural) else {
        return 0;
    };
    let cache = server.cache.of(&kind);
    let count = if path.namespace.is_empty() {
        cache.len()
    } else {
        let all = cache.snapshot();
        all.range(ObjKey::new(&path.namespace, "")..)
            .take_while(|(key, _)| *key.namespace == *path.namespace)
            .take(COUNTED_MAX)
            .count()
    };
    // With selectors all are looked at, however few are asked for.
    let selects = |name| query.get(name).is_some_and(|text| !text.is_empty());
    let asked = query.get("limit").and_then(|limit| limit.parse().ok());
    match asked.filter(|limit| *limit > 0) {
        Some(limit) if !selects("labelSelector") && !selects("fieldSelector") => count.min(limit),
        _ => count,
    }
}
