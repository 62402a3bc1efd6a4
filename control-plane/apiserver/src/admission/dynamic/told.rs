//! The request as others are told of it: what AdmissionReview and expressions call `request`.

use serde_json::{Map, Value, json};

use super::request::Request;
use crate::auth::User;
use crate::registry::Kind;
use crate::tree;

/// An AdmissionRequest without uid and objects, about objects that are shown as `kind` has them.
pub(crate) fn told(request: &Request<'_>, kind: &Kind) -> Value {
    let own = &*request.target.kind;
    let subresource = request.subresource();
    let mut told = json!({"kind": gvk(request, kind), "resource": resource(kind)});
    let mut set = |name: &str, value: Value| {
        if !tree::is_unset(&value) {
            told[name] = value;
        }
    };
    set("subResource", json!(subresource));
    set("requestKind", gvk(request, own));
    set("requestResource", resource(own));
    set("requestSubResource", json!(subresource));
    set("name", json!(request.name()));
    set("namespace", json!(request.namespace()));
    told["operation"] = json!(request.operation.name());
    told["userInfo"] = user_info(request.user);
    told["dryRun"] = json!(request.dry_run);
    told["options"] = request.options.clone();
    told
}

fn gvk(request: &Request<'_>, kind: &Kind) -> Value {
    let gvk = request.gvk(kind);
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

fn resource(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "resource": kind.plural})
}

fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    info.insert("username".to_owned(), json!(user.name));
    if !user.uid.is_empty() {
        info.insert("uid".to_owned(), json!(user.uid));
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(info)
}
