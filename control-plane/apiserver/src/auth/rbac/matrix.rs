//! The authorisation matrix: every verb on every resource and subresource that is served, for
//! eight identities and two namespaces, against a committed file.
//!
//! A resource that is served and has no line fails the test, as does a line that nothing serves.
//! After a change that is meant: `WRITE_GOLDEN=1 cargo test -p control-plane-apiserver matrix`,
//! then read the difference.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use super::policy;
use crate::auth::{Attributes, Authorizer, NODES, User};
use crate::cache::WatchCache;
use crate::handlers::{PLAIN_ROOTS, review_resources};
use crate::object::{Obj, ObjKey, encode};
use crate::registry::rbac::GROUP;
use crate::registry::{Registry, Scope};

const GOLDEN: &str = "src/auth/rbac/matrix.golden";
const CELLS_MIN: usize = 3000;
const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const PATHS: [&str; 16] = [
    "/",
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/apis/apps",
    "/apis/apps/v1",
    "/healthz",
    "/livez",
    "/livez/ping",
    "/metrics",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/other",
    "/readyz",
    "/version",
];

struct World {
    cache: WatchCache,
    registry: Registry,
    authorizer: Authorizer,
    rv: u64,
}

impl World {
    /// The default roles, the identities' bindings in namespace `d`, and one pod in it on the node
    /// `x` that names a secret, a config map and an account `x`.
    fn new() -> Self {
        let registry = Registry::default();
        let cache = WatchCache::new(&registry);
        let authorizer = Authorizer::new(&cache, &registry);
        let mut world = Self {
            cache,
            registry,
            authorizer,
            rv: 1,
        };
        for role in policy::aggregated_cluster_roles() {
            world.put(GROUP, "clusterroles", "", role);
        }
        for binding in policy::cluster_role_bindings() {
            world.put(GROUP, "clusterrolebindings", "", binding);
        }
        let binding = |role: &str| {
            json!({"metadata": {"name": format!("matrix-{role}")},
                "roleRef": {"kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": role}]})
        };
        for role in ["view", "edit", "admin"] {
            world.put(GROUP, "rolebindings", "d", binding(role));
        }
        world.put(GROUP, "clusterrolebindings", "", binding("cluster-admin"));
        let pod = json!({"metadata": {"name": "x"}, "spec": {
            "nodeName": "x", "serviceAccountName": "x",
            "volumes": [{"secret": {"secretName": "x"}}, {"configMap": {"name": "x"}},
                {"persistentVolumeClaim": {"claimName": "x"}}]}});
        world.put("", "pods", "d", pod);
        world
    }

    fn put(&mut self, group: &str, plural: &str, namespace: &str, mut value: Value) {
        let kind = self.registry.by_plural(group, "v1", plural).unwrap();
        value["kind"] = json!(kind.kind);
        value["apiVersion"] = json!(kind.api_version());
        let key = ObjKey::new(namespace, value["metadata"]["name"].as_str().unwrap());
        self.rv += 1;
        let stored = encode(&value).unwrap();
        let obj = Obj::from_stored(key.clone(), &stored, self.rv, |p| kind.read_fields(p)).unwrap();
        let resource = self.cache.of(&kind);
        resource.apply(&key, self.rv, Some(obj.into()), Instant::now());
    }

    /// The identities that may, in the order of the list.
    fn allowed(&self, asked: &Attributes, cells: &mut usize) -> Vec<&'static str> {
        let mut allowed = Vec::new();
        for (name, user) in identities() {
            *cells += 1;
            if self.authorizer.authorize(&user, asked).is_allowed() {
                allowed.push(name);
            }
        }
        allowed
    }
}

fn identities() -> [(&'static str, User); 8] {
    let node = |name: &str| User::known(&format!("system:node:{name}"), [NODES.to_owned()]);
    let account = [
        "system:serviceaccounts".to_owned(),
        "system:serviceaccounts:d".to_owned(),
    ];
    [
        ("anonymous", User::anonymous()),
        (
            "pod",
            User::known("system:serviceaccount:d:default", account),
        ),
        ("node-a", node("x")),
        ("node-b", node("y")),
        ("view", User::known("view", [])),
        ("edit", User::known("edit", [])),
        ("admin", User::known("admin", [])),
        ("cluster-admin", User::known("cluster-admin", [])),
    ]
}

/// Group, resource (with its subresource), scope and verbs of everything that is served.
fn routes(registry: &Registry) -> Vec<(&'static str, String, Scope, Vec<&'static str>)> {
    let mut routes = Vec::new();
    for kind in registry.served() {
        routes.push((
            kind.group,
            kind.plural.to_owned(),
            kind.scope,
            VERBS.to_vec(),
        ));
        for sub in &kind.subresources {
            let name = format!("{}/{}", kind.plural, sub.name());
            routes.push((kind.group, name, kind.scope, sub.verbs().to_vec()));
        }
    }
    for (group, plural, scope) in review_resources() {
        routes.push((group, plural.to_owned(), scope, vec!["create"]));
    }
    routes
}

/// The matrix as text, by line; and how many cells it has.
fn matrix(world: &World) -> (BTreeMap<String, String>, usize) {
    let mut lines = BTreeMap::new();
    let mut cells = 0;
    for (group, resource, scope, verbs) in routes(&world.registry) {
        let (plural, sub) = resource.split_once('/').unwrap_or((&resource, ""));
        for verb in verbs {
            let named = !matches!(verb, "create" | "deletecollection" | "list" | "watch")
                || !sub.is_empty();
            let mut answers = Vec::new();
            let places: &[&str] = match scope {
                Scope::Namespaced => &["d", "e"],
                Scope::Cluster => &[""],
            };
            for namespace in places {
                let asked = Attributes {
                    verb: verb.to_owned(),
                    group: group.to_owned(),
                    resource: plural.to_owned(),
                    subresource: sub.to_owned(),
                    namespace: (*namespace).to_owned(),
                    name: if named { "x" } else { "" }.to_owned(),
                    ..Attributes::default()
                };
                let allowed = world.allowed(&asked, &mut cells).join(" ");
                answers.push(format!("{namespace}: {allowed}").trim_end().to_owned());
            }
            let key = format!("{group}/{resource} {verb}");
            lines.insert(key, answers.join(" | "));
        }
    }
    for path in PATHS {
        for verb in ["get", "post"] {
            let asked = Attributes {
                verb: verb.to_owned(),
                path: path.to_owned(),
                ..Attributes::default()
            };
            let allowed = world.allowed(&asked, &mut cells).join(" ");
            lines.insert(
                format!("{path} {verb}"),
                format!(": {allowed}").trim_end().to_owned(),
            );
        }
    }
    (lines, cells)
}

#[test]
fn the_matrix_is_what_it_was() {
    let (lines, cells) = matrix(&World::new());
    assert!(cells >= CELLS_MIN, "{cells} cells");
    let text: String = lines
        .iter()
        .map(|(key, who)| format!("{key} {who}\n"))
        .collect();
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &text).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap();
    let differing: Vec<String> = text
        .lines()
        .filter(|line| !golden.lines().any(|g| g == *line))
        .map(|line| format!("+ {line}"))
        .chain(
            golden
                .lines()
                .filter(|line| !text.lines().any(|t| t == *line))
                .map(|line| format!("- {line}")),
        )
        .collect();
    assert!(
        differing.is_empty(),
        "who may do what differs from {GOLDEN}; if that is meant, write it anew with \
         WRITE_GOLDEN=1 and read the difference:\n{}",
        differing.join("\n")
    );
}

#[test]
fn every_path_that_is_answered_has_lines() {
    let root = |path: &&str| path.split('/').nth(1).unwrap_or_default().to_owned();
    let asked: Vec<String> = PATHS.iter().map(root).collect();
    for root in PLAIN_ROOTS {
        assert!(asked.iter().any(|asked| asked == root), "/{root}");
    }
}

#[test]
fn no_cell_allows_what_must_never_be() {
    let (lines, _) = matrix(&World::new());
    for (key, answers) in &lines {
        let (what, verb) = key.rsplit_once(' ').unwrap();
        let path = answers.starts_with(": ") && PATHS.contains(&what);
        let review =
            what.starts_with("authorization.k8s.io/") || what.starts_with("authentication");
        for place in answers.split(" | ") {
            let (namespace, who) = place.split_once(':').unwrap();
            let may = |name: &str| who.split(' ').any(|allowed| allowed == name);
            let health = ["/healthz", "/livez", "/readyz", "/version"].contains(&what);
            assert!(
                !may("anonymous") || (health && verb == "get"),
                "{key} {answers}"
            );
            let own = path || review;
            assert!(!may("pod") || own, "{key} {answers}");
            let reads = matches!(verb, "get" | "list" | "watch");
            assert!(
                !may("view") || own || (reads && namespace == "d"),
                "{key} {answers}"
            );
            assert!(!may("edit") || own || namespace == "d", "{key} {answers}");
            assert!(!may("admin") || own || namespace == "d", "{key} {answers}");
            let secret = what == "/secrets" || what.starts_with("/serviceaccounts/token");
            assert!(!(secret && may("view")), "{key} {answers}");
            assert!(!(what.starts_with(GROUP) && may("edit")), "{key} {answers}");
            assert!(!(secret && (may("node-b") || !reads && may("node-a") && what == "/secrets")));
            assert!(may("cluster-admin"), "{key} {answers}");
        }
    }
}
