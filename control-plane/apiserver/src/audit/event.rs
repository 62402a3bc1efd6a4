//! One request's trail through the log.

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::AuditLog;
use super::policy::{Level, Stage, Verdict};
use crate::auth::User;
use crate::http::ResourcePath;
use crate::server::NoteLevel;
use crate::tree;

/// What is known of a request before anybody is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) verb: String,
    pub(crate) resource: Option<ResourcePath>,
    pub(crate) path: String,
    pub(crate) uri: String,
    pub(crate) source: String,
    pub(crate) agent: String,
}

/// Follows one request; what it learns is in the events that come after.
#[derive(Debug)]
pub(crate) struct Trail {
    log: AuditLog,
    id: String,
    asked: Asked,
    received: Timestamp,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    verdict: Option<Verdict>,
    user: Value,
    impersonated: Value,
    annotations: serde_json::Map<String, Value>,
    request: Value,
}

impl Trail {
    pub(crate) fn new(log: AuditLog, id: String, asked: Asked, now: Timestamp) -> Self {
        Self {
            log,
            id,
            asked,
            received: now,
            known: Mutex::default(),
        }
    }

    /// The user is known: who it is, and whom it acts as.
    pub(crate) fn user(&self, user: &User, impersonated: Option<&User>) {
        let verdict = self.log.policy.verdict(user, &self.asked);
        {
            let mut known = self.known.lock();
            known.verdict = Some(verdict);
            known.user = user_value(user);
            known.impersonated = impersonated.map_or(Value::Null, user_value);
        }
        self.stage(
            Stage::RequestReceived,
            self.received,
            &Value::Null,
            &Value::Null,
        );
    }

    /// What the authoriser said.
    pub(crate) fn decision(&self, decision: &str, reason: &str) {
        let mut known = self.known.lock();
        let annotations = &mut known.annotations;
        annotations.insert("authorization.k8s.io/decision".to_owned(), json!(decision));
        annotations.insert("authorization.k8s.io/reason".to_owned(), json!(reason));
    }

    /// What admission says, in events of `level` and above.
    pub(crate) fn annotate(&self, level: NoteLevel, key: &str, value: &str) {
        let wanted = match level {
            NoteLevel::Metadata => Level::Metadata,
            NoteLevel::Request => Level::Request,
        };
        let mut known = self.known.lock();
        if known.verdict.as_ref().is_some_and(|v| v.level >= wanted) {
            known.annotations.insert(key.to_owned(), json!(value));
        }
    }

    /// The body that was sent.
    pub(crate) fn request(&self, body: &Value) {
        let mut known = self.known.lock();
        let wanted = known
            .verdict
            .as_ref()
            .is_some_and(|verdict| verdict.level >= Level::Request);
        if wanted {
            known.request = body.clone();
        }
    }

    /// Whether events of this request show the answer's body.
    pub(crate) fn wants_response(&self) -> bool {
        let level = self.known.lock().verdict.as_ref().map(|v| v.level);
        level == Some(Level::RequestResponse)
    }

    /// A long answer begins.
    pub(crate) fn started(&self, code: u16, now: Timestamp) {
        let status = json!({"metadata": {}, "code": code});
        self.stage(Stage::ResponseStarted, now, &status, &Value::Null);
    }

    /// The answer is made. `body`: its JSON, when it was asked for and is at hand.
    pub(crate) fn complete(&self, code: u16, body: &Value, now: Timestamp) {
        let unknown = self.known.lock().verdict.is_none();
        if unknown {
            let verdict = self.log.policy.verdict(&User::default(), &self.asked);
            self.known.lock().verdict = Some(verdict);
        }
        let mut status = json!({"metadata": {}, "code": code});
        if tree::text(body, &["kind"]) == "Status" {
            for field in ["status", "reason", "message"] {
                if let Some(value) = body.get(field) {
                    status[field] = value.clone();
                }
            }
        }
        self.stage(Stage::ResponseComplete, now, &status, body);
    }

    fn stage(&self, stage: Stage, now: Timestamp, status: &Value, response: &Value) {
        let event = {
            let known = self.known.lock();
            self.event(&known, stage, now, (status, response))
        };
        if let Some(event) = event {
            let mut line = event.to_string().into_bytes();
            line.push(b'\n');
            self.log.emit(Bytes::from(line));
        }
    }

    /// The event of one stage; `None` when the policy does not want it.
    fn event(
        &self,
        known: &Known,
        stage: Stage,
        now: Timestamp,
        (status, response): (&Value, &Value),
    ) -> Option<Value> {
        let verdict = known
            .verdict
            .as_ref()
            .filter(|verdict| verdict.wants(stage))?;
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1",
            "level": verdict.level.name(),
            "auditID": self.id,
            "stage": stage.name(),
            "requestURI": self.asked.uri,
            "verb": self.asked.verb,
            "user": if known.user.is_null() { json!({}) } else { known.user.clone() },
            "sourceIPs": [self.asked.source],
            "userAgent": self.asked.agent,
            "requestReceivedTimestamp": micro(self.received),
            "stageTimestamp": micro(now),
        });
        let mut set = |name: &str, value: Value| {
            if !tree::is_unset(&value) {
                event[name] = value;
            }
        };
        set("impersonatedUser", known.impersonated.clone());
        set("objectRef", self.object());
        set("responseStatus", status.clone());
        if stage != Stage::RequestReceived {
            set("annotations", Value::Object(known.annotations.clone()));
            set("requestObject", shown(&known.request, verdict));
        }
        if verdict.level == Level::RequestResponse {
            set("responseObject", shown(response, verdict));
        }
        Some(event)
    }

    fn object(&self) -> Value {
        let Some(resource) = &self.asked.resource else {
            return Value::Null;
        };
        let mut object = json!({"resource": resource.plural, "apiVersion": resource.version});
        for (name, value) in [
            ("namespace", &resource.namespace),
            ("name", &resource.name),
            ("apiGroup", &resource.group),
            ("subresource", &resource.subresource),
        ] {
            if !value.is_empty() {
                object[name] = json!(value);
            }
        }
        object
    }
}

fn shown(object: &Value, verdict: &Verdict) -> Value {
    let mut object = object.clone();
    if verdict.omit_managed_fields && tree::at(&object, &["metadata"]).is_object() {
        tree::object_mut(&mut object, "metadata").shift_remove("managedFields");
    }
    object
}

fn user_value(user: &User) -> Value {
    let mut value = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        value["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

fn micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
