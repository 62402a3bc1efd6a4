//! What a request's path and method ask for.

use hyper::Method;

use super::Query;
use super::query::decode;

/// A resource's path, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) plural: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for
    /// other paths the method in lower case.
    pub(crate) verb: &'static str,
    /// `None` for paths that name no resource.
    pub(crate) resource: Option<ResourcePath>,
}

impl RequestInfo {
    pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let (resource, watched) = parse_resource(path);
        let verb =
            match (&resource, method.as_str()) {
                (Some(_), "GET" | "HEAD") if watched => "watch",
                (Some(resource), "GET" | "HEAD") if resource.name.is_empty() => {
                    if query.flag("watch") { "watch" } else { "list" }
                }
                (Some(resource), "GET" | "HEAD") => {
                    let plain = resource.subresource.is_empty();
                    if plain && query.flag("watch") {
                        "watch"
                    } else {
                        "get"
                    }
                }
                (Some(_), "POST") => "create",
                (Some(_), "PUT") => "update",
                (Some(_), "PATCH") => "patch",
                (Some(resource), "DELETE") if resource.name.is_empty() => "deletecollection",
                (Some(_), "DELETE") => "delete",
                (_, "GET" | "HEAD") => "get",
                (_, "POST") => "post",
                (_, "PUT") => "put",
                (_, "PATCH") => "patch",
                (_, "DELETE") => "delete",
                (_, _) => "other",
            };
        Self { verb, resource }
    }
}

/// The resource, and whether the path says that it is watched (`/api/v1/watch/...`, the old way).
fn parse_resource(path: &str) -> (Option<ResourcePath>, bool) {
    let parts: Vec<String> = path
        .split('/')
        .filter(|p| !p.is_empty())
        .map(decode)
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return (None, false),
    };
    let (rest, watched) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (rest, true),
        rest => (rest, false),
    };
    let path = |namespace: &str, plural: &str, name: &str, subresource: String| ResourcePath {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace: namespace.to_owned(),
        plural: plural.to_owned(),
        name: name.to_owned(),
        subresource,
    };
    let resource = match rest {
        // The namespace itself, or one of its own subresources.
        ["namespaces"] => path("", "namespaces", "", String::new()),
        ["namespaces", name] => path("", "namespaces", name, String::new()),
        ["namespaces", name, sub @ ("status" | "finalize")] => {
            path("", "namespaces", name, (*sub).to_owned())
        }
        ["namespaces", namespace, plural] => path(namespace, plural, "", String::new()),
        ["namespaces", namespace, plural, name, sub @ ..] => {
            path(namespace, plural, name, subresource(sub))
        }
        [plural] => path("", plural, "", String::new()),
        [plural, name, sub @ ..] => path("", plural, name, subresource(sub)),
        [] => return (None, false),
    };
    (Some(resource), watched)
}

/// What follows `proxy` is no longer ours to read.
fn subresource(parts: &[&str]) -> String {
    match parts {
        ["proxy", ..] => "proxy".to_owned(),
        parts => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &Method, path: &str, query: &str) -> (String, Option<[String; 6]>) {
        let info = RequestInfo::parse(method, path, &Query::parse(Some(query)));
        let resource = info.resource.map(|r| {
            [
                r.group,
                r.version,
                r.namespace,
                r.plural,
                r.name,
                r.subresource,
            ]
        });
        (info.verb.to_owned(), resource)
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn paths_and_methods_become_verbs_on_resources() {
        let cases = [
            (
                Method::GET,
                "/api/v1/namespaces/d/pods",
                "",
                "list",
                ["", "v1", "d", "pods", "", ""],
            ),
            (
                Method::GET,
                "/api/v1/pods",
                "watch=true",
                "watch",
                ["", "v1", "", "pods", "", ""],
            ),
            (
                Method::GET,
                "/api/v1/watch/namespaces/d/pods/p",
                "",
                "watch",
                ["", "v1", "d", "pods", "p", ""],
            ),
            (
                Method::GET,
                "/api/v1/namespaces/d/pods/p/log",
                "",
                "get",
                ["", "v1", "d", "pods", "p", "log"],
            ),
            (
                Method::PUT,
                "/api/v1/namespaces/d/finalize",
                "",
                "update",
                ["", "v1", "", "namespaces", "d", "finalize"],
            ),
            (
                Method::GET,
                "/api/v1/namespaces/d",
                "",
                "get",
                ["", "v1", "", "namespaces", "d", ""],
            ),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/d/deployments",
                "",
                "deletecollection",
                ["apps", "v1", "d", "deployments", "", ""],
            ),
            (
                Method::PATCH,
                "/api/v1/nodes/n/status",
                "",
                "patch",
                ["", "v1", "", "nodes", "n", "status"],
            ),
            (
                Method::POST,
                "/api/v1/namespaces/d/services/https:s:web/proxy/a/b",
                "",
                "create",
                ["", "v1", "d", "services", "https:s:web", "proxy"],
            ),
        ];
        for (method, path, query, verb, resource) in cases {
            let expected = (verb.to_owned(), Some(resource.map(str::to_owned)));
            assert_eq!(info(&method, path, query), expected, "{path}");
        }
        for path in [
            "/api",
            "/api/v1",
            "/apis",
            "/apis/apps/v1",
            "/healthz",
            "/openapi/v3",
        ] {
            assert_eq!(info(&Method::GET, path, "").1, None, "{path}");
        }
    }
}
