//! Conversion between versions by a webhook: what is asked, what of the answer is taken, and which
//! answers are kept.
//!
//! An object is stored in one version and shown in every served one. What a webhook made of one
//! revision of an object stays right for as long as the definition says the same, as upstream, where
//! each version's watch cache holds converted objects.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{CustomVersion, check};
use crate::field::{FieldError, Path};
use crate::object::Obj;
use crate::server::new_uid;
use crate::status::StatusError;
use crate::webhooks::{ClientConfig, ConfigError, WebhookClients};
use crate::{tree, validation};

/// Objects in one question; a list of more asks several times.
const OBJECTS_PER_QUESTION: usize = 500;
/// Questions of one list that are open at a time.
const QUESTIONS_AT_ONCE: usize = 4;
/// How long a conversion may take (as upstream).
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of converted objects that one definition keeps in each of two generations.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// How the objects of a definition are converted.
#[derive(Debug)]
pub struct Conversion {
    client: Result<ClientConfig, ConfigError>,
    /// The version of ConversionReview that the webhook is asked in; `None`: none that we know.
    review: Option<ReviewVersion>,
    kept: Mutex<Kept>,
}

/// A version of ConversionReview.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReviewVersion {
    V1,
    V1Beta1,
}

/// One revision of an object in one version.
type Place = (Box<str>, u64, &'static str);

#[derive(Debug, Default)]
struct Kept {
    young: HashMap<Place, Arc<Obj>>,
    old: HashMap<Place, Arc<Obj>>,
    young_bytes: usize,
}

impl Conversion {
    pub(crate) fn new(webhook: &control_plane_apiextensions::Webhook) -> Self {
        let review = webhook
            .review_versions
            .iter()
            .find_map(|version| match version.as_str() {
                "v1" => Some(ReviewVersion::V1),
                "v1beta1" => Some(ReviewVersion::V1Beta1),
                _ => None,
            });
        Self {
            client: ClientConfig::parse(&webhook.client_config),
            review,
            kept: Mutex::default(),
        }
    }

    /// What was made of `obj` in `version`, if it is kept.
    pub(crate) fn kept(&self, obj: &Obj, version: &'static str) -> Option<Arc<Obj>> {
        let place = place(obj, version);
        let mut kept = self.kept.lock();
        if let Some(found) = kept.young.get(&place) {
            return Some(Arc::clone(found));
        }
        let found = kept.old.remove(&place)?;
        kept.put(place, Arc::clone(&found));
        Some(found)
    }

    /// Keeps what was made of an object in `version`.
    pub(crate) fn keep(&self, made: &Arc<Obj>, version: &'static str) {
        let place = place(made, version);
        self.kept.lock().put(place, Arc::clone(made));
    }
}

impl Kept {
    fn put(&mut self, place: Place, obj: Arc<Obj>) {
        self.young_bytes += obj.size();
        if self.young_bytes > KEPT_BYTES_MAX {
            self.young_bytes = obj.size();
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(place, obj);
    }
}

fn place(obj: &Obj, version: &'static str) -> Place {
    (obj.meta.uid.clone(), obj.rv, version)
}

impl ReviewVersion {
    const fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "apiextensions.k8s.io/v1",
            Self::V1Beta1 => "apiextensions.k8s.io/v1beta1",
        }
    }
}

fn refusal(message: String) -> StatusError {
    StatusError::new(500, "", message)
}

impl Conversion {
    /// Converts `objects` to version `desired`, whose objects look as `custom` says.
    ///
    /// # Errors
    /// The webhook cannot be asked, or its answer makes no sense.
    pub(crate) async fn convert(
        &self,
        clients: Option<&Arc<WebhookClients>>,
        objects: Vec<Value>,
        (custom, desired): (&CustomVersion, &str),
    ) -> Result<Vec<Value>, StatusError> {
        if objects.is_empty() {
            return Ok(objects);
        }
        let questions: Vec<_> = objects
            .chunks(OBJECTS_PER_QUESTION)
            .map(|part| self.ask(clients, part, desired))
            .collect();
        let mut answers = futures::stream::iter(questions).buffered(QUESTIONS_AT_ONCE);
        let mut all = Vec::with_capacity(objects.len());
        while let Some(answer) = answers.next().await {
            for object in answer? {
                let (object, _unknown) = check(custom, object)
                    .map_err(|fault| refusal(format!("converted object: {fault}")))?;
                all.push(object);
            }
        }
        Ok(all)
    }

    async fn ask(
        &self,
        clients: Option<&Arc<WebhookClients>>,
        objects: &[Value],
        desired: &str,
    ) -> Result<Vec<Value>, StatusError> {
        let of = objects.first().map_or_else(String::new, kind_of);
        let failed = |why: &dyn std::fmt::Display| {
            refusal(format!("conversion webhook for {of} failed: {why}"))
        };
        let review = self
            .review
            .ok_or_else(|| refusal("no supported conversion review versions".to_owned()))?;
        let client = self.client.as_ref().map_err(|fault| failed(fault))?;
        let clients = clients.ok_or_else(|| failed(&"the server has not started yet"))?;
        let uid = new_uid();
        let body = Bytes::from(question(review, objects, desired, &uid).to_string());
        let answer = clients.post(client, body, TIMEOUT).await;
        let answer = answer.map_err(|fault| failed(&fault))?;
        answered(review, answer, &uid, objects, desired).map_err(refusal)
    }
}

/// The question.
fn question(version: ReviewVersion, objects: &[Value], desired: &str, uid: &str) -> Value {
    json!({
        "kind": "ConversionReview", "apiVersion": version.api_version(),
        "request": {"uid": uid, "desiredAPIVersion": desired, "objects": objects},
    })
}

/// `group/version, Kind=kind` of an object, as messages name it.
fn kind_of(object: &Value) -> String {
    format!(
        "{}, Kind={}",
        tree::text(object, &["apiVersion"]),
        tree::text(object, &["kind"])
    )
}

/// The converted objects of an answer, with the metadata that no webhook may change put back.
///
/// # Errors
/// What is wrong with the answer, in upstream's words.
fn answered(
    version: ReviewVersion,
    mut answer: Value,
    uid: &str,
    originals: &[Value],
    desired: &str,
) -> Result<Vec<Value>, String> {
    let of = originals.first().map_or_else(String::new, kind_of);
    let failed = |why: String| format!("conversion webhook for {of} failed: {why}");
    check_answer(version, &answer, uid).map_err(failed)?;
    let objects = match answer["response"]["convertedObjects"].take() {
        Value::Array(objects) => objects,
        _ => Vec::new(),
    };
    if objects.len() != originals.len() {
        return Err(format!(
            "conversion webhook for {of} returned {} objects, expected {}",
            objects.len(),
            originals.len()
        ));
    }
    let mut all = Vec::with_capacity(objects.len());
    for (index, (mut object, original)) in objects.into_iter().zip(originals).enumerate() {
        check_object(&object, original, desired).map_err(|why| {
            format!(
                "conversion webhook for {of} returned invalid converted object at index {index}: \
                 {why}"
            )
        })?;
        restore_metadata(original, &mut object).map_err(|why| {
            format!(
                "conversion webhook for {of} returned invalid metadata in object at index \
                 {index}: {why}"
            )
        })?;
        all.push(object);
    }
    Ok(all)
}

fn check_answer(version: ReviewVersion, answer: &Value, uid: &str) -> Result<(), String> {
    let response = tree::at(answer, &["response"]);
    if version == ReviewVersion::V1 {
        let expected = "apiextensions.k8s.io/v1, Kind=ConversionReview";
        let got = kind_of(answer);
        if got != expected {
            return Err(format!(
                "expected webhook response of {expected}, got {got}"
            ));
        }
    }
    if response.is_null() {
        return Err("no response provided".to_owned());
    }
    let got = tree::text(response, &["uid"]);
    if version == ReviewVersion::V1 && got != uid {
        return Err(format!("expected response.uid=\"{uid}\", got \"{got}\""));
    }
    let status = tree::text(response, &["result", "status"]);
    if status == "Success" {
        return Ok(());
    }
    match tree::text(response, &["result", "message"]) {
        "" => Err(format!(
            "response.result.status was '{status}', not 'Success'"
        )),
        message => Err(message.to_owned()),
    }
}

fn check_object(object: &Value, original: &Value, desired: &str) -> Result<(), String> {
    let text = |value: &Value, path: &[&str]| tree::text(value, path).to_owned();
    let got = text(object, &["apiVersion"]);
    if got != desired {
        return Err(format!(
            "invalid groupVersion (expected {desired}, received {got})"
        ));
    }
    let (expected, got) = (text(original, &["kind"]), text(object, &["kind"]));
    if expected != got {
        return Err(format!(
            "invalid kind (expected {expected}, received {got})"
        ));
    }
    for (what, field) in [("name", "name"), ("namespace", "namespace"), ("UID", "uid")] {
        let expected = text(original, &["metadata", field]);
        let got = text(object, &["metadata", field]);
        if expected != got {
            return Err(format!("must have the same {what}: {expected} != {got}"));
        }
    }
    Ok(())
}

/// Of the metadata, a webhook may change labels and annotations.
fn restore_metadata(original: &Value, object: &mut Value) -> Result<(), String> {
    let Some(given) = object.get("metadata") else {
        return Err("missing metadata in converted object".to_owned());
    };
    if !given.is_object() {
        return Err("invalid metadata in converted object: not an object".to_owned());
    }
    let mut meta = tree::at(original, &["metadata"]).clone();
    for field in ["labels", "annotations"] {
        let given = tree::at(given, &[field]);
        if given.is_null() {
            tree::as_object(&mut meta).shift_remove(field);
            continue;
        }
        let Some(entries) = given.as_object() else {
            return Err(format!(
                "invalid metadata.{field} in converted object: not an object"
            ));
        };
        if let Some((key, _)) = entries.iter().find(|(_, value)| !value.is_string()) {
            return Err(format!(
                "metadata.{field}[{key}] must be a string in converted object"
            ));
        }
        if given != tree::at(&meta, &[field]) {
            check_entries(field, given)?;
        }
        tree::as_object(&mut meta).insert(field.to_owned(), given.clone());
    }
    tree::as_object(object).insert("metadata".to_owned(), meta);
    Ok(())
}

fn check_entries(field: &str, given: &Value) -> Result<(), String> {
    let mut errors: Vec<FieldError> = Vec::new();
    let path = Path::root("metadata").child(field);
    if field == "labels" {
        validation::labels(given, &path, &mut errors);
    } else {
        validation::annotations(given, &path, &mut errors);
    }
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.to_string()),
        many => {
            let all: Vec<String> = many.iter().map(ToString::to_string).collect();
            Err(format!("[{}]", all.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESIRED: &str = "example.com/v2";

    fn original() -> Value {
        json!({"apiVersion": "example.com/v1", "kind": "Foo", "spec": {"a": 1},
            "metadata": {"name": "x", "namespace": "d", "uid": "u", "labels": {"a": "b"},
                "resourceVersion": "7"}})
    }

    fn answer(object: &Value) -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "response": {"uid": "1", "result": {"status": "Success"},
                "convertedObjects": [object]}})
    }

    fn taken(answer: Value) -> Result<Vec<Value>, String> {
        answered(ReviewVersion::V1, answer, "1", &[original()], DESIRED)
    }

    #[test]
    fn a_webhook_may_change_labels_but_no_other_metadata() {
        let made = json!({"apiVersion": DESIRED, "kind": "Foo", "spec": {"b": 1},
            "metadata": {"name": "x", "namespace": "d", "uid": "u", "resourceVersion": "8",
                "annotations": {"k": "v"}}});
        let expected = json!({"apiVersion": DESIRED, "kind": "Foo", "spec": {"b": 1},
            "metadata": {"name": "x", "namespace": "d", "uid": "u", "resourceVersion": "7",
                "annotations": {"k": "v"}}});
        assert_eq!(taken(answer(&made)), Ok(vec![expected]));
    }

    type Change = dyn Fn(&mut Value);

    #[test]
    fn wrong_answers_are_told_in_upstreams_words() {
        let with = |change: &Change| {
            let mut made = original();
            made["apiVersion"] = json!(DESIRED);
            change(&mut made);
            taken(answer(&made)).unwrap_err()
        };
        let prefix = "conversion webhook for example.com/v1, Kind=Foo returned invalid";
        let cases: [(&Change, &str); 5] = [
            (
                &|made| made["apiVersion"] = json!("example.com/v3"),
                "converted object at index 0: invalid groupVersion (expected example.com/v2, \
                 received example.com/v3)",
            ),
            (
                &|made| made["kind"] = json!("Bar"),
                "converted object at index 0: invalid kind (expected Foo, received Bar)",
            ),
            (
                &|made| made["metadata"]["name"] = json!("y"),
                "converted object at index 0: must have the same name: x != y",
            ),
            (
                &|made| made["metadata"]["uid"] = json!("w"),
                "converted object at index 0: must have the same UID: u != w",
            ),
            (
                &|made| made["metadata"]["labels"] = json!({"a": 1}),
                "metadata in object at index 0: metadata.labels[a] must be a string in converted \
                 object",
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(with(change), format!("{prefix} {expected}"));
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_webhooks_words() {
        let refused = |result: Value| {
            let answer = json!({"apiVersion": "apiextensions.k8s.io/v1",
                "kind": "ConversionReview", "response": {"uid": "1", "result": result}});
            taken(answer).unwrap_err()
        };
        let prefix = "conversion webhook for example.com/v1, Kind=Foo failed: ";
        assert_eq!(
            refused(json!({"status": "Failure", "message": "no way"})),
            format!("{prefix}no way")
        );
        assert_eq!(
            refused(json!({"status": "Failure"})),
            format!("{prefix}response.result.status was 'Failure', not 'Success'")
        );
        let short = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "response": {"uid": "1", "result": {"status": "Success"}, "convertedObjects": []}});
        assert_eq!(
            taken(short).unwrap_err(),
            "conversion webhook for example.com/v1, Kind=Foo returned 0 objects, expected 1"
        );
        let other = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "response": {"uid": "2", "result": {"status": "Success"}}});
        assert_eq!(
            taken(other).unwrap_err(),
            format!("{prefix}expected response.uid=\"1\", got \"2\"")
        );
    }
}
