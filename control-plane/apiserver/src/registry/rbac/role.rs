//! Role and ClusterRole: lists of rules.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::is_namespaced;
use crate::field::{FieldError, Path};
use crate::registry::Scope;
use crate::registry::strategy::{NameRule, Strategy};
use crate::tables::{Column, NAME, Table, column};
use crate::{tree, validation};

/// Both kinds of role; they differ in scope.
#[derive(Debug)]
pub(in crate::registry) struct Role(Scope);

pub(in crate::registry) static ROLE: Role = Role(Scope::Namespaced);
pub(in crate::registry) static CLUSTER_ROLE: Role = Role(Scope::Cluster);

const COLUMNS: &[Column] = &[
    NAME,
    Column {
        format: "date",
        ..column(
            "Created At",
            "string",
            "CreationTimestamp is a timestamp representing the server time when this object was created.",
        )
    },
];

pub(in crate::registry) static ROLE_TABLE: Table = Table {
    columns: COLUMNS,
    row,
};

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![
        json!(tree::text(object, &["metadata", "name"])),
        json!(tree::text(object, &["metadata", "creationTimestamp"])),
    ]
}

impl Strategy for Role {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (i, rule) in tree::list(object, &["rules"]).iter().enumerate() {
            check_rule(rule, self.0, &Path::root("rules").index(i), &mut errors);
        }
        if self.0 == Scope::Cluster {
            check_aggregation(tree::at(object, &["aggregationRule"]), &mut errors);
        }
        errors
    }
}

fn check_rule(rule: &Value, scope: Scope, path: &Path, errors: &mut Vec<FieldError>) {
    let empty = |name: &str| tree::list(rule, &[name]).is_empty();
    if empty("verbs") {
        let detail = "verbs must contain at least one value";
        errors.push(FieldError::required(&path.child("verbs"), detail));
    }
    if !empty("nonResourceURLs") {
        let urls = tree::at(rule, &["nonResourceURLs"]).clone();
        let path = path.child("nonResourceURLs");
        if is_namespaced(scope) {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.push(FieldError::invalid(&path, urls.clone(), detail));
        }
        if !(empty("apiGroups") && empty("resources") && empty("resourceNames")) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(&path, urls, detail));
        }
        return;
    }
    if empty("apiGroups") {
        let detail = "resource rules must supply at least one api group";
        errors.push(FieldError::required(&path.child("apiGroups"), detail));
    }
    if empty("resources") {
        let detail = "resource rules must supply at least one resource";
        errors.push(FieldError::required(&path.child("resources"), detail));
    }
}

fn check_aggregation(rule: &Value, errors: &mut Vec<FieldError>) {
    if !rule.is_object() {
        return;
    }
    let path = Path::root("aggregationRule").child("clusterRoleSelectors");
    let selectors = tree::list(rule, &["clusterRoleSelectors"]);
    if selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(FieldError::required(&path, detail));
    }
    for (i, selector) in selectors.iter().enumerate() {
        validation::label_selector(selector, &path.index(i), errors);
    }
}
