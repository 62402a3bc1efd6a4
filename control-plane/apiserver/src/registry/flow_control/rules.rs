//! Who sends which requests: the rules of a flow schema.

use proto_api::names;

use crate::field::FieldError;
use crate::validation::Place;

/// Kind of a subject and the field that names it.
const SUBJECTS: [(&str, &str); 3] = [
    ("Group", "group"),
    ("ServiceAccount", "serviceAccount"),
    ("User", "user"),
];
const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];

/// Checks one rule.
pub(super) fn check(rule: &Place<'_>, errors: &mut Vec<FieldError>) {
    let subjects = rule.get("subjects");
    if subjects.len() == 0 {
        subjects.required("subjects must contain at least one value", errors);
    }
    for subject in subjects.items() {
        check_subject(&subject, errors);
    }
    let (resources, paths) = (rule.get("resourceRules"), rule.get("nonResourceRules"));
    if resources.len() + paths.len() == 0 {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        rule.required(detail, errors);
    }
    for rule in resources.items() {
        check_resources(&rule, errors);
    }
    for rule in paths.items() {
        check_paths(&rule, errors);
    }
}

/// A list that must not be empty, and holds nothing beside `*` if it holds that.
fn check_list(list: &Place<'_>, missing: &str, noun: &str, errors: &mut Vec<FieldError>) {
    if list.len() == 0 {
        list.required(missing, errors);
    } else if list.len() > 1 && list.items().any(|item| item.text() == "*") {
        let detail = format!("if '*' is present, must not specify other {noun}");
        list.invalid(detail, errors);
    }
}

fn check_verbs(rule: &Place<'_>, errors: &mut Vec<FieldError>) {
    let verbs = rule.get("verbs");
    let missing = "verbs must contain at least one value";
    check_list(&verbs, missing, "verbs", errors);
    let known = |verb: &str| verb == "*" || VERBS.contains(&verb);
    if verbs.items().any(|verb| !known(verb.text())) {
        let all: Vec<&str> = verbs.items().map(|verb| verb.text()).collect();
        let error = FieldError::not_supported(&verbs.path, &all.join(","), VERBS);
        errors.push(error);
    }
}

fn check_resources(rule: &Place<'_>, errors: &mut Vec<FieldError>) {
    check_verbs(rule, errors);
    let missing = "resource rules must supply at least one api group";
    check_list(&rule.get("apiGroups"), missing, "api groups", errors);
    let missing = "resource rules must supply at least one resource";
    check_list(&rule.get("resources"), missing, "resources", errors);
    let namespaces = rule.get("namespaces");
    if namespaces.len() > 0 || *rule.get("clusterScope").value != true {
        let missing =
            "resource rules that are not cluster scoped must supply at least one namespace";
        check_list(&namespaces, missing, "namespaces", errors);
    }
    for namespace in namespaces.items().filter(|item| item.text() != "*") {
        for fault in names::dns_label(namespace.text()) {
            let detail =
                format!("each member of this list must be '*' or a DNS-1123 label; {fault}");
            namespace.invalid(detail, errors);
        }
    }
}

fn check_paths(rule: &Place<'_>, errors: &mut Vec<FieldError>) {
    check_verbs(rule, errors);
    let urls = rule.get("nonResourceURLs");
    let missing = "nonResourceURLs must contain at least one value";
    check_list(&urls, missing, "non-resource URLs", errors);
    for url in urls.items() {
        if let Some(fault) = path_fault(url.text()) {
            url.invalid(fault, errors);
        }
    }
}

/// What is wrong with a path, if anything.
fn path_fault(path: &str) -> Option<&'static str> {
    match path {
        "*" | "/" => None,
        "" => Some("must not be empty"),
        _ if path.contains(' ') => Some("must not contain white-space"),
        _ if !path.starts_with('/') => Some("must start with slash"),
        _ if path.contains("//") => Some("must not contain double slash"),
        _ if path.strip_suffix("/*").unwrap_or(path).contains('*') => Some(
            "wildcard can only do suffix matching, it must be the last character following a slash",
        ),
        _ => None,
    }
}

fn check_subject(subject: &Place<'_>, errors: &mut Vec<FieldError>) {
    let kind = subject.get("kind");
    let Some((name, own)) = SUBJECTS.iter().find(|(name, _)| *name == kind.text()) else {
        errors.push(FieldError::not_supported(
            &kind.path,
            kind.text(),
            &SUBJECTS.map(|(name, _)| name),
        ));
        return;
    };
    let who = subject.get(own);
    if !who.is_present() {
        let detail = format!("{own} is required when subject kind is '{name}'");
        who.required(detail, errors);
    } else if *own == "serviceAccount" {
        check_account(&who, errors);
    } else {
        who.get("name").required_text(errors);
    }
    for (other, field) in SUBJECTS.iter().filter(|(_, field)| field != own) {
        let extra = subject.get(field);
        if extra.is_present() {
            let detail = format!("{field} is forbidden when subject kind is not '{other}'");
            extra.forbidden(&detail, errors);
        }
    }
}

fn check_account(account: &Place<'_>, errors: &mut Vec<FieldError>) {
    let (name, namespace) = (account.get("name"), account.get("namespace"));
    if name.required_text(errors) && name.text() != "*" {
        name.named(names::dns_subdomain, errors);
    }
    if namespace.text().is_empty() {
        namespace.required("must specify namespace for service account", errors);
    } else {
        namespace.named(names::dns_label, errors);
    }
}
