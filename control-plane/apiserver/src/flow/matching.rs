//! Which schema a request matches. Pure.

use crate::auth::{NODES, User};
use crate::http::ResourcePath;

const ACCOUNTS: &str = "system:serviceaccounts";
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// What counts of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) verb: &'a str,
    pub(crate) path: &'a str,
    /// `None` for paths that name no resource.
    pub(crate) resource: Option<&'a ResourcePath>,
    /// How many seats it asks for.
    pub(crate) width: u64,
}

/// Who sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    User(Box<str>),
    Group(Box<str>),
    Account { namespace: Box<str>, name: Box<str> },
}

/// Requests about resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResourceRule {
    pub(super) verbs: Vec<Box<str>>,
    pub(super) groups: Vec<Box<str>>,
    pub(super) resources: Vec<Box<str>>,
    pub(super) namespaces: Vec<Box<str>>,
    pub(super) cluster: bool,
}

/// Other requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathRule {
    pub(super) verbs: Vec<Box<str>>,
    pub(super) paths: Vec<Box<str>>,
}

/// One of a schema's rules: somebody, and what they send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) subjects: Vec<Subject>,
    pub(super) resources: Vec<ResourceRule>,
    pub(super) paths: Vec<PathRule>,
}

/// Whether `list` has `*` or `wanted`.
fn has(list: &[Box<str>], wanted: &str) -> bool {
    list.iter().any(|it| &**it == "*" || &**it == wanted)
}

impl Subject {
    fn is(&self, user: &User) -> bool {
        match self {
            Self::User(name) => &**name == "*" || **name == user.name,
            Self::Group(name) => &**name == "*" || user.in_group(name),
            Self::Account { namespace, name } => {
                let account = user.name.strip_prefix(ACCOUNT_PREFIX);
                let parts = account.and_then(|account| account.split_once(':'));
                parts.is_some_and(|(of, own)| {
                    of == &**namespace && (&**name == "*" || own == &**name)
                })
            }
        }
    }
}

impl ResourceRule {
    fn is(&self, verb: &str, path: &ResourcePath) -> bool {
        let placed = if path.namespace.is_empty() {
            self.cluster
        } else {
            has(&self.namespaces, &path.namespace)
        };
        placed
            && has(&self.verbs, verb)
            && has(&self.groups, &path.group)
            && self.resources.iter().any(|rule| names(rule, path))
    }
}

/// Whether `rule` is `*`, the resource, or the resource with its subresource.
fn names(rule: &str, path: &ResourcePath) -> bool {
    if rule == "*" {
        return true;
    }
    if path.subresource.is_empty() {
        return rule == path.plural;
    }
    rule.strip_prefix(path.plural.as_str())
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|sub| sub == path.subresource)
}

impl PathRule {
    fn is(&self, verb: &str, path: &str) -> bool {
        let fits = |rule: &str| match rule.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == rule,
        };
        has(&self.verbs, verb) && self.paths.iter().any(|rule| fits(rule))
    }
}

/// Whether one of `rules` is about the request of `user`.
pub(super) fn matches(rules: &[Rule], user: &User, request: &Request<'_>) -> bool {
    rules.iter().any(|rule| {
        let what = match request.resource {
            Some(path) => rule.resources.iter().any(|it| it.is(request.verb, path)),
            None => rule
                .paths
                .iter()
                .any(|it| it.is(request.verb, request.path)),
        };
        what && rule.subjects.iter().any(|subject| subject.is(user))
    })
}

/// Whether the cluster falls apart without this request, whatever schemas say: a node's heartbeat,
/// or a leader that stays one.
pub(super) fn is_vital(user: &User, request: &Request<'_>) -> bool {
    let Some(path) = request.resource else {
        return false;
    };
    if !matches!(request.verb, "get" | "create" | "update" | "patch") {
        return false;
    }
    let node = || user.in_group(NODES);
    match (path.group.as_str(), path.plural.as_str()) {
        ("coordination.k8s.io", "leases") => {
            let component = || {
                matches!(
                    user.name.as_str(),
                    "system:kube-controller-manager" | "system:kube-scheduler"
                )
            };
            node() || user.in_group(ACCOUNTS) || component()
        }
        ("", "nodes") => matches!(path.subresource.as_str(), "" | "status") && node(),
        _ => false,
    }
}
