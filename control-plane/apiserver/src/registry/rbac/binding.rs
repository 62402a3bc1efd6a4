//! RoleBinding and ClusterRoleBinding: who holds a role.

use jiff::Timestamp;
use proto_api::names;
use serde_json::{Value, json};

use super::{GROUP, is_namespaced};
use crate::field::{FieldError, Path};
use crate::registry::Scope;
use crate::registry::strategy::{NameRule, Prepare, Strategy};
use crate::tables::{AGE, Column, NAME, Table, age, column, wide};
use crate::{tree, validation};

/// Both kinds of binding; they differ in scope.
#[derive(Debug)]
pub(in crate::registry) struct Binding(Scope);

pub(in crate::registry) static ROLE_BINDING: Binding = Binding(Scope::Namespaced);
pub(in crate::registry) static CLUSTER_ROLE_BINDING: Binding = Binding(Scope::Cluster);

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Role",
        "string",
        "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace.",
    ),
    AGE,
    wide("Users", "string", "Users in the roleBinding"),
    wide("Groups", "string", "Groups in the roleBinding"),
    wide(
        "ServiceAccounts",
        "string",
        "ServiceAccounts in the roleBinding",
    ),
];

pub(in crate::registry) static BINDING_TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = format!(
        "{}/{}",
        tree::text(object, &["roleRef", "kind"]),
        tree::text(object, &["roleRef", "name"])
    );
    let of_kind = |kind: &str| -> String {
        let named: Vec<String> = tree::list(object, &["subjects"])
            .iter()
            .filter(|subject| tree::text(subject, &["kind"]) == kind)
            .map(|subject| {
                let name = tree::text(subject, &["name"]);
                match tree::text(subject, &["namespace"]) {
                    "" => name.to_owned(),
                    namespace => format!("{namespace}/{name}"),
                }
            })
            .collect();
        named.join(", ")
    };
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(role),
        age(object, now),
        json!(of_kind("User")),
        json!(of_kind("Group")),
        json!(of_kind("ServiceAccount")),
    ]
}

impl Strategy for Binding {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let role = tree::object_mut(object, "roleRef");
        tree::default_text(role, "apiGroup", GROUP);
        for subject in tree::list_mut(tree::as_object(object), "subjects") {
            if matches!(tree::text(subject, &["kind"]), "User" | "Group") {
                tree::default_text(tree::as_object(subject), "apiGroup", GROUP);
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let kinds: &[&str] = match self.0 {
            Scope::Namespaced => &["Role", "ClusterRole"],
            Scope::Cluster => &["ClusterRole"],
        };
        check_role_ref(tree::at(object, &["roleRef"]), kinds, &mut errors);
        for (i, subject) in tree::list(object, &["subjects"]).iter().enumerate() {
            let path = Path::root("subjects").index(i);
            check_subject(subject, self.0, &path, &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let (now, before) = (tree::at(new, &["roleRef"]), tree::at(old, &["roleRef"]));
        if now == before {
            return Vec::new();
        }
        let path = Path::root("roleRef");
        vec![FieldError::invalid(
            &path,
            now.clone(),
            "cannot change roleRef",
        )]
    }
}

fn check_role_ref(role: &Value, kinds: &[&str], errors: &mut Vec<FieldError>) {
    let path = Path::root("roleRef");
    let group = tree::text(role, &["apiGroup"]);
    if group != GROUP {
        let supported = [GROUP];
        errors.push(FieldError::not_supported(
            &path.child("apiGroup"),
            group,
            &supported,
        ));
    }
    let kind = tree::text(role, &["kind"]);
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("kind"), kind, kinds));
    }
    let name = tree::text(role, &["name"]);
    let path = path.child("name");
    if name.is_empty() {
        errors.push(FieldError::required(&path, ""));
    } else {
        validation::sentences(name, &path, names::path_segment(name), errors);
    }
}

fn check_subject(subject: &Value, scope: Scope, path: &Path, errors: &mut Vec<FieldError>) {
    let name = tree::text(subject, &["name"]);
    let group = tree::text(subject, &["apiGroup"]);
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    let wants_group = |wanted: &str, errors: &mut Vec<FieldError>| {
        if group != wanted {
            let path = path.child("apiGroup");
            errors.push(FieldError::not_supported(&path, group, &[wanted]));
        }
    };
    match tree::text(subject, &["kind"]) {
        "ServiceAccount" => {
            if !name.is_empty() {
                let path = path.child("name");
                validation::sentences(name, &path, names::dns_subdomain(name), errors);
            }
            wants_group("", errors);
            let unplaced = tree::text(subject, &["namespace"]).is_empty();
            if !is_namespaced(scope) && unplaced {
                errors.push(FieldError::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => wants_group(GROUP, errors),
        other => errors.push(FieldError::not_supported(
            &path.child("kind"),
            other,
            &["ServiceAccount", "User", "Group"],
        )),
    }
}
