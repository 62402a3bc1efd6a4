//! One call: the question goes out, the answer is read, the patch applied.

use std::sync::Arc;

use bytes::Bytes;
use proto_api::decode;
use proto_api::patch;
use proto_api::schema;
use serde_json::Value;

use super::super::notes::NoteLevel;
use super::super::request::{Operation, Request};
use super::Meant;
use super::hook::{Hook, Step};
use super::review::{self, Answer};
use crate::registry::Kind;
use crate::server::new_uid;
use crate::status::StatusError;
use crate::tree;
use crate::webhooks::{CallError, WebhookClients};

/// What came of a call.
#[derive(Debug)]
pub(super) struct Called {
    /// The changed object in its stored form; none when nothing changed.
    pub(super) object: Option<Value>,
    /// What changed it.
    pub(super) patch: Vec<Value>,
}

/// Why a call did not let the request through.
#[derive(Debug)]
pub(super) enum HookError {
    /// The webhook could not be asked, or its answer makes no sense: its policy decides.
    Calling { why: String, code: u16 },
    /// It said no.
    Rejected(StatusError),
    /// Its answer cannot be followed.
    Internal(StatusError),
}

/// An object of the request as `kind` shows it.
///
/// # Errors
/// A conversion webhook fails.
pub(super) async fn shown(
    clients: Option<&Arc<WebhookClients>>,
    request: &Request<'_>,
    kind: &Kind,
    object: &Value,
) -> Result<Value, StatusError> {
    let shown = request.shown(kind, object);
    into_version(clients, kind, shown).await
}

/// A custom object in the version of `kind`, where a webhook converts; anything else as it is.
async fn into_version(
    clients: Option<&Arc<WebhookClients>>,
    kind: &Kind,
    object: Value,
) -> Result<Value, StatusError> {
    let (Some(conversion), Some(custom)) = (kind.conversion(), &kind.custom) else {
        return Ok(object);
    };
    let desired = kind.api_version();
    let is_other = object["kind"] == kind.kind && object["apiVersion"] != desired.as_str();
    if !is_other {
        return Ok(object);
    }
    let made = conversion
        .convert(clients, vec![object], (&**custom, &desired))
        .await?;
    Ok(made.into_iter().next().unwrap_or_default())
}

/// Asks `hook`.
pub(super) async fn call(
    clients: Option<&Arc<WebhookClients>>,
    hook: &Hook,
    step: Step,
    request: &Request<'_>,
    meant: &Meant,
) -> Result<Called, HookError> {
    if request.dry_run && !hook.dry_run {
        let message = format!(
            "admission webhook \"{}\" does not support dry run",
            hook.name
        );
        return Err(HookError::Internal(StatusError::bad_request(message)));
    }
    let answer = ask(clients, hook, step, request, meant).await?;
    for (key, value) in &answer.annotations {
        let key = format!("{}/{key}", hook.name);
        request.annotate(NoteLevel::Metadata, &key, value);
    }
    for warning in &answer.warnings {
        request.warn(warning);
    }
    if !answer.allowed {
        let status = review::rejection(&hook.name, &answer.status);
        return Err(HookError::Rejected(status));
    }
    if answer.patch.is_empty() {
        return Ok(Called {
            object: None,
            patch: Vec::new(),
        });
    }
    let Meant { kind, object, .. } = meant;
    let patched = apply(hook, request, kind, object, &answer.patch);
    let patched = patched.map_err(HookError::Internal)?;
    let object = if patched == *object {
        None
    } else {
        let own = &request.target.kind;
        let made = request.stored(kind, patched);
        let made = into_version(clients, own, made).await;
        Some(made.map_err(HookError::Internal)?)
    };
    Ok(Called {
        object,
        patch: answer.patch,
    })
}

async fn ask(
    clients: Option<&Arc<WebhookClients>>,
    hook: &Hook,
    step: Step,
    request: &Request<'_>,
    meant: &Meant,
) -> Result<Answer, HookError> {
    let calling = |why: String, code: u16| HookError::Calling { why, code };
    let no_client = |why: &str| calling(format!("could not get REST client: {why}"), 500);
    let version = hook.review.ok_or_else(|| {
        let why = "could not create admission objects: webhook does not accept known \
                   AdmissionReview versions (v1, v1beta1)";
        calling(why.to_owned(), 400)
    })?;
    let clients = clients.ok_or_else(|| no_client("the server has not started yet"))?;
    let client = hook
        .client
        .as_ref()
        .map_err(|fault| no_client(&fault.to_string()))?;
    let uid = new_uid();
    let objects = (meant.object.clone(), meant.old.clone());
    let question = review::question(version, &uid, request, &meant.kind, objects);
    let body = Bytes::from(question.to_string());
    let answer = clients.post(client, body, hook.timeout).await;
    let answer = answer.map_err(|fault| match &fault {
        fault if fault.is_setup() => calling(fault.to_string(), 500),
        CallError::Refused { code, .. } => {
            calling(format!("failed to call webhook: {fault}"), *code)
        }
        fault => calling(format!("failed to call webhook: {fault}"), 503),
    })?;
    review::answered(version, step, &uid, &answer).map_err(|fault| calling(fault.to_string(), 503))
}

/// The patched object, read again as its kind reads what clients send, with its defaults.
fn apply(
    hook: &Hook,
    request: &Request<'_>,
    kind: &Kind,
    shown: &Value,
    operations: &[Value],
) -> Result<Value, StatusError> {
    if request.operation == Operation::Delete || shown.is_null() {
        let message = format!(
            "admission webhook \"{}\" attempted to modify the object, which is not supported for \
             this operation",
            hook.name
        );
        return Err(StatusError::internal(message));
    }
    let operations = Value::Array(operations.to_vec());
    let patched = patch::json(shown, &operations).map_err(StatusError::internal)?;
    for field in ["name", "namespace"] {
        let path = ["metadata", field];
        if tree::text(&patched, &path) != tree::text(shown, &path) {
            let message = format!(
                "admission webhook \"{}\" changed metadata.{field}, which is not supported",
                hook.name
            );
            return Err(StatusError::internal(message));
        }
    }
    canonical(request, kind, patched)
}

/// An object that admission made, as the kind's own decoding has it: of the right types, without
/// unknown fields, with defaults.
pub(crate) fn canonical(
    request: &Request<'_>,
    kind: &Kind,
    object: Value,
) -> Result<Value, StatusError> {
    let gvk = request.gvk(kind);
    let is_body = gvk.kind != kind.kind || gvk.group != kind.group;
    let read = match &kind.custom {
        Some(custom) if !is_body => crate::custom::check(custom, object),
        _ => {
            let schema = schema::builtin();
            let type_id = schema.kind(gvk).ok_or_else(|| {
                StatusError::internal(format!("no schema of {} {}", gvk.api_version(), gvk.kind))
            })?;
            decode::check(schema, type_id, object)
        }
    };
    let (mut object, _unknown) = read.map_err(StatusError::internal)?;
    if !is_body {
        kind.strategy.default(&mut object);
    }
    Ok(object)
}
