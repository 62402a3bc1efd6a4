//! Nanoseconds for one decision by roles, printed, over many users and bindings.
//!
//! `cargo bench -p control-plane-apiserver --bench authorize` (release) or `... --profile dev`.
//! Arguments: namespaces, bindings in each.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::expect_used, reason = "a benchmark fails as a whole")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use control_plane_apiserver::auth::{Attributes, Authorizer, User};
use control_plane_apiserver::cache::{WatchCache, load};
use control_plane_apiserver::object::{encode, store_key};
use control_plane_apiserver::registry::Registry;
use control_plane_storage::{Expect, MemoryStore, Op, Store};
use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";
const ROUNDS: u32 = 200_000;

fn put(kind: &str, plural: &str, namespace: &str, mut value: Value) -> Op {
    value["kind"] = json!(kind);
    value["apiVersion"] = json!(format!("{GROUP}/v1"));
    let name = value["metadata"]["name"].as_str().expect("name");
    let key = store_key(GROUP, plural, namespace, name);
    Op::put(key, encode(&value).expect("object"), Expect::Absent)
}

/// A role of the size of `edit`: twenty rules of eight resources.
fn role() -> Op {
    let rules: Vec<Value> = (0..20)
        .map(|rule| {
            let resources: Vec<String> = (0..8).map(|r| format!("kind{rule}x{r}")).collect();
            json!({"verbs": ["get", "list", "watch"], "apiGroups": ["apps"], "resources": resources})
        })
        .collect();
    put(
        "ClusterRole",
        "clusterroles",
        "",
        json!({"metadata": {"name": "edit"}, "rules": rules}),
    )
}

fn binding(namespace: usize, number: usize) -> Op {
    let subject = json!({"kind": "User", "name": format!("user-{namespace}-{number}")});
    put(
        "RoleBinding",
        "rolebindings",
        &format!("ns-{namespace}"),
        json!({"metadata": {"name": format!("b{number}")},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "edit"},
            "subjects": [subject, {"kind": "Group", "name": "everybody"}]}),
    )
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse().ok());
    let namespaces: usize = arguments.next().unwrap_or(500);
    let bindings: usize = arguments.next().unwrap_or(20);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    store.commit(vec![role()]).await.expect("commit");
    for namespace in 0..namespaces {
        let ops = (0..bindings).map(|number| binding(namespace, number));
        store.commit(ops.collect()).await.expect("commit");
    }
    let registry = Registry::default();
    let cache = WatchCache::new(&registry);
    load(&cache, &*store).await.expect("load");
    let authorizer = Authorizer::new(&cache, &registry);
    let user = User::known("user-7-3", ["dev".to_owned(), "ops".to_owned()]);
    let started = Instant::now();
    black_box(authorizer.authorize(&user, &Attributes::default()));
    println!(
        "index of {} bindings: {:?}",
        namespaces * bindings,
        started.elapsed()
    );
    for (what, namespace, resource) in [
        ("allowed, last rule", "ns-7", "kind19x7"),
        ("denied, other namespace", "ns-8", "kind19x7"),
        ("denied, no rule", "ns-7", "other"),
    ] {
        let asked = Attributes {
            verb: "list".to_owned(),
            group: "apps".to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            ..Attributes::default()
        };
        let started = Instant::now();
        for _ in 0..ROUNDS {
            black_box(authorizer.authorize(black_box(&user), black_box(&asked)));
        }
        println!(
            "{what}: {} ns",
            started.elapsed().as_nanos() / u128::from(ROUNDS)
        );
    }
}
