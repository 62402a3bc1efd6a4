//! Errors as the API tells them: `metav1.Status` with upstream's reasons and wording.
//!
//! Owns: the mapping from a cause to code, reason, message and details. Must not know: HTTP
//! framing. Every fallible verb returns [`StatusError`], so in-process callers and HTTP clients
//! read the same answer.

use serde_json::{Value, json};

use crate::field::FieldError;

/// One cause inside `Status.details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable reason, for example `FieldValueRequired`.
    pub reason: String,
    /// Sentence for a person.
    pub message: String,
    /// Field path, or empty.
    pub field: String,
}

/// `Status.details`: what the error is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Object name, or empty.
    pub name: String,
    /// API group, empty for core.
    pub group: String,
    /// Kind, or the resource's plural where upstream says so.
    pub kind: String,
    /// Uid, or empty.
    pub uid: String,
    /// Causes, in field order.
    pub causes: Vec<Cause>,
    /// Seconds after which a retry makes sense; 0 is absent.
    pub retry_after_seconds: u32,
}

/// Why the API refused. Display is the message.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct StatusError {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, for example `NotFound`.
    pub reason: &'static str,
    /// The message for a person.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<Details>>,
    /// A token that goes on with an inconsistent list (410 of a paged list).
    pub continue_token: Option<String>,
    /// The whole Status, when somebody else made it.
    relayed: Option<Box<Value>>,
}

/// Group and plural of a resource: how messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupResource {
    /// API group, empty for core.
    pub group: &'static str,
    /// Plural name.
    pub resource: &'static str,
}

impl std::fmt::Display for GroupResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.group.is_empty() {
            f.write_str(self.resource)
        } else {
            write!(f, "{}.{}", self.resource, self.group)
        }
    }
}

impl StatusError {
    /// An error without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
            continue_token: None,
            relayed: None,
        }
    }

    /// An error that somebody else decided on; `status` is shown as it is.
    pub(crate) fn relayed(code: u16, message: String, status: Value) -> Self {
        Self {
            relayed: Some(Box::new(status)),
            ..Self::new(code, "", message)
        }
    }

    fn about(mut self, gr: GroupResource, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: gr.group.to_owned(),
            kind: gr.resource.to_owned(),
            ..Details::default()
        }));
        self
    }

    /// The object does not exist.
    pub fn not_found(gr: GroupResource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{gr} \"{name}\" not found")).about(gr, name)
    }

    /// The path names nothing.
    pub fn path_not_found() -> Self {
        let mut error = Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        );
        error.details = Some(Box::default());
        error
    }

    /// An object of this name exists.
    pub fn already_exists(gr: GroupResource, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{gr} \"{name}\" already exists"),
        )
        .about(gr, name)
    }

    /// Every generated name was taken.
    pub fn no_unique_name(gr: GroupResource, name: &str) -> Self {
        let message = format!(
            "{gr} \"{name}\" already exists, the server was not able to generate a unique name \
             for the object"
        );
        let mut error = Self::new(409, "AlreadyExists", message).about(gr, name);
        if let Some(details) = &mut error.details {
            details.retry_after_seconds = 1;
        }
        error
    }

    /// The operation does not fit the object's state; `why` completes upstream's sentence.
    pub fn conflict(gr: GroupResource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {gr} \"{name}\": {why}");
        Self::new(409, "Conflict", message).about(gr, name)
    }

    /// Somebody else wrote first.
    pub fn modified(gr: GroupResource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(gr, name, why)
    }

    /// The object breaks its kind's rules.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let message = match errors {
            [one] => format!("{kind}{} \"{name}\" is invalid: {one}", group_suffix(group)),
            many => {
                let list: Vec<String> = many.iter().map(FieldError::to_string).collect();
                let list = list.join(", ");
                format!(
                    "{kind}{} \"{name}\" is invalid: [{list}]",
                    group_suffix(group)
                )
            }
        };
        let causes = errors
            .iter()
            .map(|e| Cause {
                reason: e.reason().to_owned(),
                message: e.body(),
                field: e.field.clone(),
            })
            .collect();
        let mut error = Self::new(422, "Invalid", message);
        error.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes,
            ..Details::default()
        }));
        error
    }

    /// The request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// Nobody is known to be asking.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// The caller may not do this; `why` completes upstream's sentence.
    pub fn forbidden(gr: GroupResource, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{gr} is forbidden: {why}")
        } else {
            format!("{gr} \"{name}\" is forbidden: {why}")
        };
        Self::new(403, "Forbidden", message).about(gr, name)
    }

    /// The resource has no such verb.
    pub fn method_not_supported(gr: GroupResource, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{gr}\"");
        let error = Self::new(405, "MethodNotAllowed", message);
        error.about(gr, "")
    }

    /// No answer format that the client accepts.
    pub fn not_acceptable(offered: &str) -> Self {
        let message = format!("only the following media types are accepted: {offered}");
        Self::new(406, "NotAcceptable", message)
    }

    /// The revision asked for is no longer kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The body is larger than the server reads.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// The body's format is not known here.
    pub fn unsupported_media_type(offered: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {offered}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// The server itself failed.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let mut error = Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {message}"),
        );
        error.details = Some(Box::new(Details {
            causes: vec![Cause {
                reason: String::new(),
                message: message.to_string(),
                field: String::new(),
            }],
            ..Details::default()
        }));
        error
    }

    /// The server, or a rule, lets no more through for the moment.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut error = Self::new(429, "TooManyRequests", message);
        error.details = Some(Box::new(Details {
            retry_after_seconds,
            ..Details::default()
        }));
        error
    }

    /// Something the server needs is not there now; nothing was done, so asking again is safe.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut error = Self::new(503, "ServiceUnavailable", message);
        error.details = Some(Box::new(Details {
            retry_after_seconds: 1,
            ..Details::default()
        }));
        error
    }

    /// The store refuses writes for now, with all that is known of the cause. `507` when it has no
    /// room left: that does not pass by waiting alone.
    pub(crate) fn store_unavailable(fault: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = fault.to_string();
        let mut full = false;
        let mut cause = fault.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some errors say their cause's words themselves.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            full |= error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull);
            cause = error.source();
        }
        let mut error = Self::unavailable(message);
        if full {
            error.code = 507;
            error.reason = "InsufficientStorage";
        }
        error
    }

    /// The revision asked for is in the future.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let mut error = Self::new(504, "Timeout", format!("Timeout: {message}"));
        error.details = Some(Box::new(Details {
            causes: vec![Cause {
                reason: "ResourceVersionTooLarge".to_owned(),
                message: "Too large resource version".to_owned(),
                field: String::new(),
            }],
            retry_after_seconds: 1,
            ..Details::default()
        }));
        error
    }

    /// The error as a `v1.Status` object.
    #[must_use]
    pub fn to_value(&self) -> Value {
        if let Some(status) = &self.relayed {
            return (**status).clone();
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(token) = &self.continue_token {
            status["metadata"]["continue"] = json!(token);
        }
        if let Some(details) = &self.details {
            status["details"] = details.to_value();
        }
        status["code"] = json!(self.code);
        status
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut map = serde_json::Map::new();
        let texts = [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
        ];
        for (key, text) in texts.into_iter().chain([("uid", &self.uid)]) {
            if !text.is_empty() {
                map.insert(key.to_owned(), Value::from(text.as_str()));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(Cause::to_value).collect();
            map.insert("causes".to_owned(), Value::Array(causes));
        }
        if self.retry_after_seconds > 0 {
            map.insert(
                "retryAfterSeconds".to_owned(),
                Value::from(self.retry_after_seconds),
            );
        }
        Value::Object(map)
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut map = serde_json::Map::new();
        let texts = [
            ("reason", &self.reason),
            ("message", &self.message),
            ("field", &self.field),
        ];
        for (key, text) in texts {
            if !text.is_empty() {
                map.insert(key.to_owned(), Value::from(text.as_str()));
            }
        }
        Value::Object(map)
    }
}

fn group_suffix(group: &str) -> String {
    if group.is_empty() {
        String::new()
    } else {
        format!(".{group}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Path;

    #[test]
    fn messages_are_upstreams() {
        let pods = GroupResource {
            group: "",
            resource: "pods",
        };
        let deployments = GroupResource {
            group: "apps",
            resource: "deployments",
        };
        assert_eq!(
            StatusError::not_found(pods, "x").message,
            "pods \"x\" not found"
        );
        assert_eq!(
            StatusError::already_exists(deployments, "x").message,
            "deployments.apps \"x\" already exists"
        );
        let one = FieldError::required(&Path::root("spec").key("image"), "");
        assert_eq!(
            StatusError::invalid("apps", "Deployment", "x", &[one]).message,
            "Deployment.apps \"x\" is invalid: spec[image]: Required value"
        );
    }
}
