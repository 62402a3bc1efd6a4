//! Recorded bodies of kubectl 1.37.1 and random objects survive both directions unchanged.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::decode::{self, Encoding};
use crate::schema::{Scalar, Shape, TypeId, builtin};

fn recordings() -> Vec<(String, Vec<u8>)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kubectl-1.37.1");
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .map(|(name, path)| (name, fs::read(path).unwrap()))
        .collect();
    found.sort();
    found
}

fn recorded(name: &str) -> Value {
    let (_, body) = recordings()
        .into_iter()
        .find(|(known, _)| known == name)
        .unwrap();
    decode::body(builtin(), None, &body, Encoding::Protobuf)
        .unwrap()
        .value
}

#[test]
fn every_recorded_body_is_written_again_byte_for_byte() {
    let recordings = recordings();
    assert!(recordings.len() >= 26);
    for (name, body) in recordings {
        let decoded = decode::body(builtin(), None, &body, Encoding::Protobuf).unwrap();
        assert_eq!(decoded.findings, [], "{name}");
        assert_eq!(
            to_protobuf(builtin(), &decoded.value).unwrap(),
            body,
            "{name}"
        );
    }
}

#[test]
fn recorded_bodies_read_as_the_commands_said() {
    assert_eq!(
        recorded("deployment"),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "hello", "labels": {"app": "hello"}},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "hello"}},
                "template": {
                    "metadata": {"labels": {"app": "hello"}},
                    "spec": {"containers": [{
                        "name": "hello", "image": "skep.local/hello",
                        "ports": [{"containerPort": 8080}]
                    }]}
                }
            }
        })
    );
    assert_eq!(recorded("deployment-zero")["spec"]["replicas"], 0);
    assert_eq!(
        recorded("service-clusterip")["spec"],
        json!({
            "ports": [
                {"name": "80-8080", "protocol": "TCP", "port": 80, "targetPort": 8080},
                {"name": "443-https", "protocol": "TCP", "port": 443, "targetPort": "https"}
            ],
            "selector": {"app": "web"},
            "type": "ClusterIP"
        })
    );
    assert_eq!(recorded("pdb")["spec"]["minAvailable"], "50%");
    assert_eq!(
        recorded("quota")["spec"]["hard"],
        json!({"cpu": "1500m", "memory": "1536Mi", "pods": "3"})
    );
    assert_eq!(
        recorded("secret-generic")["data"],
        json!({"password": "aHVudGVyMg=="})
    );
}

#[test]
fn a_list_written_piece_by_piece_is_the_list_written_whole() {
    let list = json!({
        "apiVersion": "v1", "kind": "ConfigMapList",
        "metadata": {"resourceVersion": "7"},
        "items": [{"metadata": {"name": "a"}, "data": {"k": "v"}}, {"metadata": {"name": "b"}}],
    });
    let whole = to_protobuf(builtin(), &list).unwrap();
    let id = |name: &str| builtin().named(name).unwrap();
    let meta = message(
        builtin(),
        id("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"),
        &list["metadata"],
    );
    let mut raw = field_head(1, meta.as_ref().unwrap().len() as u64);
    raw.extend(meta.unwrap());
    for item in list["items"].as_array().unwrap() {
        let item = message(builtin(), id("io.k8s.api.core.v1.ConfigMap"), item).unwrap();
        raw.extend(field_head(2, item.len() as u64));
        raw.extend(item);
    }
    let mut pieces = envelope_head("v1", "ConfigMapList", raw.len() as u64);
    pieces.extend(raw);
    pieces.extend(ENVELOPE_TAIL);
    assert_eq!(pieces, whole);
}

#[test]
fn a_watch_frame_is_a_length_and_an_event_around_a_body() {
    let status = json!({"apiVersion": "v1", "kind": "Status", "code": 410});
    let body = to_protobuf(builtin(), &status).unwrap();
    let frame = watch_frame("ERROR", &body);
    let (length, event) = frame.split_at(4);
    assert_eq!(
        u32::from_be_bytes(length.try_into().unwrap()) as usize,
        event.len()
    );
    let id = builtin()
        .named("io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent")
        .unwrap();
    let event = read::object(builtin(), id, event, DEPTH_MAX).unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!(event["object"]["code"], 410);
}

#[test]
fn custom_resource_definitions_have_no_message() {
    let kind = |group, version, kind| {
        let id = builtin()
            .kind(Gvk {
                group,
                version,
                kind,
            })
            .unwrap();
        has_message(builtin(), id)
    };
    assert!(kind("", "v1", "Pod"));
    assert!(!kind(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition"
    ));
}

#[test]
fn maps_of_lists_are_messages_with_one_repeated_field() {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "jane", "extra": {"scopes": ["a", "b"], "none": []}}
    });
    let body = to_protobuf(builtin(), &review).unwrap();
    let decoded = decode::body(builtin(), None, &body, Encoding::Protobuf).unwrap();
    assert_eq!(decoded.value, review);
}

#[test]
fn damaged_bodies_are_refused() {
    let (_, body) = recordings().remove(0);
    assert_eq!(to_json(builtin(), b"{}"), Err(TranscodeError::Magic));
    for end in MAGIC.len() + 1..body.len() {
        // Cut anywhere, a body never panics; most cuts are errors, some end between fields.
        let _outcome = to_json(builtin(), &body[..end]).is_err();
    }
    assert!(matches!(
        to_json(builtin(), &body[..body.len() - 5]),
        Err(TranscodeError::Truncated { .. })
    ));
    let unknown = json!({"apiVersion": "v9", "kind": "Pod"});
    assert!(matches!(
        to_protobuf(builtin(), &unknown),
        Err(TranscodeError::KindUnknown { .. })
    ));
}

#[test]
fn nesting_is_bounded() {
    // RawExtension in ControllerRevision.data holding a body that holds a body ...
    let mut body = to_protobuf(builtin(), &json!({"apiVersion": "v1", "kind": "Pod"})).unwrap();
    for _ in 0..DEPTH_MAX {
        let mut data = Writer::default();
        data.bytes(1, &body);
        let mut raw = Writer::default();
        raw.bytes(2, &data.out);
        let mut meta = Writer::default();
        meta.bytes(1, b"apps/v1");
        meta.bytes(2, b"ControllerRevision");
        let mut unknown = Writer::default();
        unknown.bytes(TYPE_META, &meta.out);
        unknown.bytes(RAW, &raw.out);
        body = MAGIC.to_vec();
        body.append(&mut unknown.out);
    }
    assert_eq!(to_json(builtin(), &body), Err(TranscodeError::Depth));
}

/// Makes values that fit the schema from a stream of random numbers.
struct Maker(u64);

impl Maker {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn object(&mut self, id: TypeId, depth: u32) -> Value {
        let mut object = Map::new();
        for field in builtin()
            .get(id)
            .fields
            .iter()
            .filter(|field| field.number != 0)
        {
            if self.next(10) < if depth > 3 { 1 } else { 5 } {
                let value = self.value(&field.shape, depth);
                object.insert(field.name.clone().into_owned(), value);
            }
        }
        Value::Object(object)
    }

    fn value(&mut self, shape: &Shape, depth: u32) -> Value {
        match shape {
            Shape::Ref(id) if depth < 7 => self.object(*id, depth + 1),
            Shape::Ref(_) => json!({}),
            Shape::List(item) => (0..self.next(3))
                .map(|_| self.value(item, depth + 1))
                .collect(),
            Shape::Map(value) => self.map(value, depth),
            Shape::MapOfLists(item) => self.map(&Shape::List(item.clone()), depth),
            Shape::Scalar(scalar) => self.scalar(*scalar),
        }
    }

    fn map(&mut self, value: &Shape, depth: u32) -> Value {
        let entries = (0..self.next(3)).map(|at| (format!("k{at}"), self.value(value, depth + 1)));
        Value::Object(entries.collect())
    }

    fn scalar(&mut self, scalar: Scalar) -> Value {
        let pick = |maker: &mut Self, texts: &[&str]| {
            let at = usize::try_from(maker.next(texts.len() as u64)).unwrap();
            json!(texts[at])
        };
        match scalar {
            Scalar::String => pick(self, &["", "a", "äöü", "a \"quoted\" text\n"]),
            Scalar::Bool => json!(self.next(2) == 0),
            Scalar::Int32 => {
                json!([0, 1, -1, i32::MAX, i32::MIN][usize::try_from(self.next(5)).unwrap()])
            }
            Scalar::Int64 => {
                json!([0, 1, -1, i64::MAX, i64::MIN][usize::try_from(self.next(5)).unwrap()])
            }
            Scalar::Double => json!(0.5),
            Scalar::Bytes => pick(self, &["", "AA==", "aGVsbG8="]),
            Scalar::Time => pick(self, &["2026-01-31T12:00:00Z", "1969-12-31T23:59:59Z"]),
            Scalar::MicroTime => pick(self, &["2026-01-31T12:00:00.123456Z"]),
            Scalar::Quantity => pick(self, &["0", "100m", "1Gi", "1e3"]),
            Scalar::IntOrString => match self.next(2) {
                0 => json!(80),
                _ => json!("http"),
            },
            Scalar::FieldsV1 => json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}),
            Scalar::RawExtension => json!({"any": ["thing", 1, null]}),
            Scalar::Json | Scalar::Any => json!({"x": [1, "two"]}),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_kind_survives_protobuf(seed in 1_u64.., pick in any::<prop::sample::Index>()) {
        let kinds: Vec<_> = builtin()
            .types()
            .filter(|(_, ty)| !ty.kinds.is_empty() && ty.field("apiVersion").is_some())
            .filter(|(_, ty)| !ty.name.contains("apiextensions"))
            .collect();
        let (id, ty) = kinds[pick.index(kinds.len())];
        let (group, version, kind) = &ty.kinds[0];
        let mut object = Maker(seed).object(id, 0);
        object["apiVersion"] = json!(Gvk { group, version, kind }.api_version());
        object["kind"] = json!(kind);
        let (checked, findings) = decode::check(builtin(), id, object).unwrap();
        prop_assert_eq!(findings, []);
        let body = to_protobuf(builtin(), &checked).unwrap();
        let decoded = decode::body(builtin(), None, &body, Encoding::Protobuf).unwrap();
        prop_assert_eq!(&decoded.value, &checked);
        // Checking is idempotent.
        prop_assert_eq!(decode::check(builtin(), id, checked.clone()).unwrap().0, checked);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut body = MAGIC.to_vec();
        body.extend(&bytes);
        let _outcome = to_json(builtin(), &body).is_ok();
    }
}
