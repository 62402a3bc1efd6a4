//! Bytes from anybody: no decoder panics, and none takes long, whatever it is given.
//!
//! Inputs are shaped like real ones (recorded bodies with bytes changed, patches of real fields), so
//! that they get past the first check. Every case is bounded in time: a blow-up fails the test.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proto_api::apply::{self, FieldSet, Form, OnConflict, Writer};
use proto_api::decode::{self, Encoding};
use proto_api::schema::{Gvk, TypeId, builtin};
use proto_api::selector::{Fields, Labels};
use proto_api::{patch, transcode};
use serde_json::{Value, json};

/// Far above what any of the inputs takes, far below what a quadratic algorithm would.
const SOON: Duration = Duration::from_secs(10);
/// Largest body that the API reads.
const BODY_MAX: usize = 3 << 20;

const POD: Gvk<'static> = Gvk {
    group: "",
    version: "v1",
    kind: "Pod",
};

fn soon<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = work();
    let took = started.elapsed();
    assert!(took < SOON, "{what} took {took:?}");
    done
}

fn recordings() -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kubectl-1.37.1");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

fn pod_type() -> TypeId {
    builtin().kind(POD).unwrap()
}

/// Reads a body as each handler would: any kind, and as a pod.
fn read(body: &[u8], encoding: Encoding) {
    let any = decode::body(builtin(), None, body, encoding);
    if let Ok(decoded) = any {
        // What was understood can be written again.
        let written = transcode::to_protobuf(builtin(), &decoded.value);
        assert!(written.is_ok() || decoded.gvk().group == "apiextensions.k8s.io");
    }
    let _as_pod = decode::body(builtin(), Some(POD), body, encoding).is_ok();
    let _as_tree = decode::parse(body, encoding).is_ok();
}

/// A change of some bytes.
#[derive(Debug, Clone)]
enum Damage {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Cut(Index, Index),
    Repeat(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (at(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at(), at()).prop_map(|(from, to)| Damage::Cut(from, to)),
        (at(), at()).prop_map(|(from, to)| Damage::Repeat(from, to)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let place = |index: &Index, bytes: &[u8]| index.index(bytes.len().max(1)).min(bytes.len());
        let range = |a: &Index, b: &Index, bytes: &[u8]| {
            let (a, b) = (place(a, bytes), place(b, bytes));
            a.min(b)..a.max(b)
        };
        match damage {
            Damage::Set(at, byte) => {
                let at = place(at, &bytes);
                if let Some(old) = bytes.get_mut(at) {
                    *old = *byte;
                }
            }
            Damage::Insert(at, more) => {
                let at = place(at, &bytes);
                bytes.splice(at..at, more.iter().copied());
            }
            Damage::Cut(from, to) => {
                bytes.drain(range(from, to, &bytes));
            }
            Damage::Repeat(from, to) => {
                let part = bytes[range(from, to, &bytes)].to_vec();
                bytes.extend(part);
            }
        }
    }
    bytes
}

/// Any JSON, made of the words that the API knows.
fn tree() -> impl Strategy<Value = Value> {
    let word = select(vec![
        "metadata",
        "name",
        "labels",
        "spec",
        "containers",
        "image",
        "ports",
        "containerPort",
        "$patch",
        "replace",
        "delete",
        "merge",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers",
        "$retainKeys",
        "finalizers",
        "a",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        word.clone().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((word.clone(), inner), 0..6).prop_map(|fields| {
                let fields = fields
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value));
                Value::Object(fields.collect())
            }),
        ]
    })
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": "b"}, "finalizers": ["x/y"]},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]},
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bodies_are_read_or_refused(
        pick in any::<Index>(),
        damages in vec(damage(), 1..6),
    ) {
        let recordings = recordings();
        let body = damaged(pick.get(&recordings).clone(), &damages);
        read(&body, Encoding::Protobuf);
        let json = pod().to_string().into_bytes();
        let text = damaged(json, &damages);
        read(&text, Encoding::Json);
        read(&text, Encoding::Yaml);
    }

    #[test]
    fn any_tree_is_checked_patched_and_applied_or_refused(mut change in tree(), object in tree()) {
        let text = object.to_string();
        read(text.as_bytes(), Encoding::Json);
        let merged = patch::merge(pod(), &change);
        let _merged = decode::check(builtin(), pod_type(), merged).is_ok();
        for live in [pod(), object] {
            let _patched = patch::strategic(builtin(), pod_type(), live, change.clone()).is_ok();
        }
        let ignored = FieldSet::default();
        let writer = Writer {
            schema: builtin(),
            type_id: pod_type(),
            form: Form::Canonical,
            manager: "m",
            api_version: "v1",
            subresource: "",
            ignored: &ignored,
            now: "2026-01-01T00:00:00Z",
        };
        let _applied = apply::apply(&writer, Some(&pod()), &change, OnConflict::Take).is_ok();
        let _noted = apply::update(&writer, Some(&pod()), &mut change).is_ok();
    }

    #[test]
    fn any_operations_are_applied_or_refused(
        operations in vec(
            (
                select(vec!["add", "remove", "replace", "move", "copy", "test", "else"]),
                select(vec!["", "/", "/spec", "/spec/containers/0", "/spec/containers/-", "/metadata/labels/a~1b", "/~2", "x"]),
                select(vec!["/spec", "/metadata", "/spec/containers", ""]),
                tree(),
            ),
            0..12,
        ),
    ) {
        let operations: Vec<Value> = operations
            .into_iter()
            .map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
            .collect();
        let _patched = soon("a JSON patch", || patch::json(&pod(), &Value::from(operations)).is_ok());
    }

    #[test]
    fn any_selector_is_read_or_refused_and_reads_the_same_again(
        text in "[a-z/.,=!()<> \\-_0-9A-Z\"]{0,40}|(a|b/c|in|notin|exists|\\(|\\)|,|=|==|!=|!| ){0,12}",
    ) {
        if let Ok(labels) = Labels::parse(&text) {
            let _matches = labels.matches(|key| (key == "a").then_some("b"));
        }
        let _fields = Fields::parse(&text).is_ok();
    }
}

#[test]
fn the_largest_bodies_are_read_or_refused_soon() {
    let labels: serde_json::Map<String, Value> = (0..1_000_000)
        .map(|i| (format!("{i:x}"), json!("")))
        .collect();
    let mut many = pod();
    many["metadata"]["labels"] = Value::Object(labels);
    let many = many.to_string();
    let nested = |open: &str, close: &str| {
        let depth = BODY_MAX / (open.len() + close.len());
        format!("{}{}", open.repeat(depth), close.repeat(depth))
    };
    let duplicates = format!("{{{}\"a\":1}}", "\"a\":1,".repeat(BODY_MAX / 6));
    let unknown: String = (0..200_000).map(|i| format!("\"u{i}\":{i},")).collect();
    let unknown = format!("{{\"apiVersion\":\"v1\",\"kind\":\"Pod\",{unknown}\"spec\":{{}}}}");
    let bombs = [
        ("a million labels", many),
        ("lists in lists", nested("[", "]")),
        ("objects in objects", nested("{\"a\":", "}")),
        ("one key again and again", duplicates),
        ("unknown fields", unknown),
        ("a long text", format!("\"{}\"", "x".repeat(BODY_MAX))),
        ("a long number", "9".repeat(BODY_MAX)),
        ("escapes", format!("\"{}\"", "\\u0041".repeat(BODY_MAX / 6))),
    ];
    for (what, text) in bombs {
        soon(what, || read(text.as_bytes(), Encoding::Json));
    }
}

#[test]
fn bombs_in_yaml_are_refused_soon() {
    let mut laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        let items = vec![format!("*a{before}"); 9].join(",");
        laughs.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    let parsed = soon("a thousand million laughs", || {
        decode::parse(laughs.as_bytes(), Encoding::Yaml).is_ok()
    });
    assert!(!parsed, "aliases have a budget");
    let bombs = [
        (
            "indentation",
            (0..2000)
                .map(|i| format!("{}a:\n", " ".repeat(i)))
                .collect(),
        ),
        ("flow lists", "[".repeat(BODY_MAX)),
        (
            "anchors",
            (0..200_000)
                .map(|i| format!("- &a{i} x\n"))
                .collect::<String>(),
        ),
        (
            "merge keys",
            format!("a: &a {{b: c}}\nd:\n{}", "  <<: *a\n".repeat(100_000)),
        ),
        ("quotes", "\"".repeat(BODY_MAX)),
        ("comments", "#\n".repeat(BODY_MAX / 2)),
        ("documents", "---\n".repeat(BODY_MAX / 4)),
        ("tags", "!a ".repeat(BODY_MAX / 3)),
    ];
    for (what, text) in bombs {
        soon(what, || read(text.as_bytes(), Encoding::Yaml));
    }
}

#[test]
fn bombs_in_protobuf_and_selectors_are_refused_soon() {
    let magic = b"k8s\0".to_vec();
    let bombs = [
        (
            "empty fields",
            [magic.clone(), [0x12, 0].repeat(BODY_MAX / 2)].concat(),
        ),
        (
            "open lengths",
            [magic.clone(), vec![0x12, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat(),
        ),
        ("long varints", [magic, vec![0x80; BODY_MAX]].concat()),
    ];
    for (what, body) in bombs {
        soon(what, || read(&body, Encoding::Protobuf));
    }
    // A pod whose labels all have the same key: each entry replaces the one before.
    let entry = [0x5a, 6, 0x0a, 1, b'a', 0x12, 1, b'b'];
    let meta = entry.repeat(BODY_MAX / entry.len() / 2);
    let mut raw = transcode::field_head(1, meta.len() as u64);
    raw.extend(meta);
    let body = transcode::envelope("v1", "Pod", &raw);
    soon("one label again and again", || {
        read(&body, Encoding::Protobuf)
    });
    let selectors = [
        "a=b,".repeat(10_000),
        format!("a in ({})", "b,".repeat(20_000)),
        "(".repeat(60_000),
        "!".repeat(60_000),
        "a".repeat(60_000),
    ];
    for text in selectors {
        soon("a long selector", || {
            let _labels = Labels::parse(&text).is_ok();
            let _fields = Fields::parse(&text).is_ok();
        });
    }
}
