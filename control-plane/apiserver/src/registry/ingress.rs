//! Ingress and IngressClass: requests from outside, led to services by host and path.

use std::net::IpAddr;

use jiff::Timestamp;
use proto_api::names;
use serde_json::{Value, json};

use super::strategy::{Prepare, Strategy};
use crate::field::{FieldError, Path};
use crate::tables::{self, AGE, NAME, Table, age, column};
use crate::tree;
use crate::validation::{self, Place};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const CONTROLLER_BYTES_MAX: usize = 250;
const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
const SCOPES: &[&str] = &["Cluster", "Namespace"];
/// What a path that is compared piece by piece may not hold.
const BAD_SEQUENCES: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
const BAD_SUFFIXES: &[&str] = &["/..", "/."];
/// How many hosts, and how many bytes of addresses, a row shows.
const HOSTS_SHOWN: usize = 3;
const ADDRESS_BYTES_SHOWN: usize = 16;

#[derive(Debug)]
pub(super) struct Ingress;

#[derive(Debug)]
pub(super) struct IngressClass;

pub(super) static TABLE: Table = Table {
    columns: &[
        NAME,
        column("Class", "string", "The class whose controller serves it."),
        column("Hosts", "string", "Hosts whose requests the rules are for."),
        column("Address", "string", "Where requests go to."),
        column(
            "Ports",
            "string",
            "Ports that are open; 443 where TLS is set up.",
        ),
        AGE,
    ],
    row,
};

pub(super) static CLASS_TABLE: Table = Table {
    columns: &[
        NAME,
        column(
            "Controller",
            "string",
            "The controller that serves the class.",
        ),
        column("Parameters", "string", "An object with more settings."),
        AGE,
    ],
    row: class_row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let annotation = tree::text(object, &["metadata", "annotations", CLASS_ANNOTATION]);
    let class = match tree::text(object, &["spec", "ingressClassName"]) {
        "" if annotation.is_empty() => "<none>",
        "" => annotation,
        class => class,
    };
    let tls = tree::is_unset(tree::at(object, &["spec", "tls"]));
    vec![
        tables::name(object),
        json!(class),
        json!(hosts(object)),
        json!(addresses(object)),
        json!(if tls { "80" } else { "80, 443" }),
        age(object, now),
    ]
}

fn hosts(object: &Value) -> String {
    let rules = tree::list(object, &["spec", "rules"]).iter();
    let hosts: Vec<&str> = rules
        .map(|rule| tree::text(rule, &["host"]))
        .filter(|host| !host.is_empty())
        .collect();
    match hosts.len().checked_sub(HOSTS_SHOWN) {
        _ if hosts.is_empty() => "*".to_owned(),
        None | Some(0) => hosts.join(","),
        Some(more) => format!("{} + {more} more...", hosts[..HOSTS_SHOWN].join(",")),
    }
}

fn addresses(object: &Value) -> String {
    let points = tree::list(object, &["status", "loadBalancer", "ingress"]).iter();
    let texts: Vec<&str> = points
        .map(|point| match tree::text(point, &["ip"]) {
            "" => tree::text(point, &["hostname"]),
            ip => ip,
        })
        .filter(|text| !text.is_empty())
        .collect();
    let text = texts.join(",");
    if text.len() > ADDRESS_BYTES_SHOWN {
        let cut: String = text.chars().take(ADDRESS_BYTES_SHOWN - 3).collect();
        return cut + "...";
    }
    text
}

fn class_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = tree::at(object, &["spec", "parameters"]);
    let text = if parameters.is_null() {
        "<none>".to_owned()
    } else {
        let group = match tree::text(parameters, &["apiGroup"]) {
            "" => String::new(),
            group => format!(".{group}"),
        };
        let (kind, name) = (
            tree::text(parameters, &["kind"]),
            tree::text(parameters, &["name"]),
        );
        format!("{kind}{group}/{name}")
    };
    vec![
        tables::name(object),
        tables::text_or(object, &["spec", "controller"], ""),
        json!(text),
        age(object, now),
    ]
}

/// A host name, or one with a wildcard for its first label.
fn check_host(host: &Place<'_>, errors: &mut Vec<FieldError>) {
    let text = host.text();
    if text.contains('*') {
        let sentences = names::wildcard_subdomain(text);
        validation::sentences(text, &host.path, sentences, errors);
    } else {
        host.named(names::dns_subdomain, errors);
    }
}

fn check_path(path: &Place<'_>, errors: &mut Vec<FieldError>) {
    let (kind, text) = (path.get("pathType"), path.get("path"));
    if !kind.is_present() {
        kind.required("pathType must be specified", errors);
        return;
    }
    let absolute = text.text().starts_with('/');
    match kind.text() {
        "Exact" | "Prefix" => {
            if !absolute {
                errors.push(shown(&text, "must be an absolute path".to_owned()));
            }
            for part in BAD_SEQUENCES
                .iter()
                .filter(|part| text.text().contains(**part))
            {
                errors.push(shown(&text, format!("must not contain '{part}'")));
            }
            for end in BAD_SUFFIXES
                .iter()
                .filter(|end| text.text().ends_with(**end))
            {
                errors.push(shown(&text, format!("cannot end with '{end}'")));
            }
        }
        "ImplementationSpecific" => {
            if !text.text().is_empty() && !absolute {
                errors.push(shown(&text, "must be an absolute path".to_owned()));
            }
        }
        _ => errors.push(FieldError::not_supported(
            &kind.path,
            kind.text(),
            PATH_TYPES,
        )),
    }
    check_backend(&path.get("backend"), errors);
}

/// An error that shows the text, an absent one as empty.
fn shown(field: &Place<'_>, detail: String) -> FieldError {
    FieldError::invalid(&field.path, field.text(), detail)
}

fn check_backend(backend: &Place<'_>, errors: &mut Vec<FieldError>) {
    let (resource, service) = (backend.get("resource"), backend.get("service"));
    let whole = |detail| FieldError::invalid(&backend.path, "", detail);
    match (resource.is_present(), service.is_present()) {
        (true, true) => errors.push(whole("cannot set both resource and service backends")),
        (true, false) => check_reference(&resource, errors),
        (false, false) => errors.push(whole("resource or service backend is required")),
        (false, true) => {
            service
                .get("name")
                .required_named(names::dns_1035_label, errors);
            let (name, number) = (
                service.get("port").get("name"),
                service.get("port").get("number"),
            );
            let numbered = number.int().unwrap_or_default() != 0;
            match (name.text().is_empty(), numbered) {
                (false, true) => errors.push(whole("cannot set both port name & port number")),
                (false, false) => name.named(names::port_name, errors),
                (true, true) => number.port_number_or_name(errors),
                (true, false) => {
                    backend.required("port name or number is required", errors);
                }
            }
        }
    }
}

fn check_reference(reference: &Place<'_>, errors: &mut Vec<FieldError>) {
    let group = reference.get("apiGroup");
    if group.is_present() {
        group.named(names::dns_subdomain, errors);
    }
    for field in ["kind", "name"] {
        let part = reference.get(field);
        if part.text().is_empty() {
            part.required(format!("{field} is required"), errors);
        } else {
            part.named(names::path_segment, errors);
        }
    }
}

fn check_rules(rules: &Place<'_>, errors: &mut Vec<FieldError>) {
    for rule in rules.items() {
        let host = rule.get("host");
        if !host.text().is_empty() {
            if host.text().parse::<IpAddr>().is_ok() {
                host.invalid("must be a DNS name, not an IP address", errors);
            }
            check_host(&host, errors);
        }
        let http = rule.get("http");
        if http.is_present() {
            let paths = http.get("paths");
            if paths.len() == 0 {
                paths.required("", errors);
            }
            paths.items().for_each(|path| check_path(&path, errors));
        }
    }
}

impl Strategy for Ingress {
    fn has_generation(&self) -> bool {
        true
    }

    fn has_status(&self) -> bool {
        true
    }

    fn prepare_create(&self, object: &mut Value) {
        tree::as_object(object).insert("status".to_owned(), json!({"loadBalancer": {}}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        let (rules, backend) = (spec.get("rules"), spec.get("defaultBackend"));
        if rules.len() == 0 && !backend.is_present() {
            let detail = "either `defaultBackend` or `rules` must be specified";
            errors.push(FieldError::invalid(&spec.path, rules.value.clone(), detail));
        }
        if backend.is_present() {
            check_backend(&backend, &mut errors);
        }
        check_rules(&rules, &mut errors);
        for tls in spec.get("tls").items() {
            tls.get("hosts")
                .items()
                .for_each(|host| check_host(&host, &mut errors));
            let secret = tls.get("secretName");
            if !secret.text().is_empty() {
                secret.named(names::dns_subdomain, &mut errors);
            }
        }
        let class = spec.get("ingressClassName");
        if class.is_present() {
            class.named(names::dns_subdomain, &mut errors);
        }
        errors
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let annotation = tree::at(object, &["metadata", "annotations", CLASS_ANNOTATION]);
        let class = tree::at(object, &["spec", "ingressClassName"]);
        if class.is_null() || annotation.is_null() || annotation == class {
            return Vec::new();
        }
        let path = Path::root("annotations").child(CLASS_ANNOTATION);
        let detail = "must match `ingressClassName` when both are specified";
        vec![FieldError::invalid(&path, annotation.clone(), detail)]
    }

    fn validate_update(&self, new: &Value, _old: &Value, write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if write == Prepare::Main {
            return errors;
        }
        for point in Place::root(new, "status")
            .get("loadBalancer")
            .get("ingress")
            .items()
        {
            let (ip, host) = (point.get("ip"), point.get("hostname"));
            if !ip.text().is_empty() {
                validation::ip(ip.text(), &ip.path, &mut errors);
            }
            if !host.text().is_empty() {
                host.named(names::dns_subdomain, &mut errors);
                if host.text().parse::<IpAddr>().is_ok() {
                    host.invalid("must be a DNS name, not an IP address", &mut errors);
                }
            }
        }
        errors
    }
}

impl Strategy for IngressClass {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(Value::Object(parameters)) = object.pointer_mut("/spec/parameters") {
            tree::default(parameters, "scope", SCOPES[0]);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        let controller = spec.get("controller");
        if controller.text().len() > CONTROLLER_BYTES_MAX {
            errors.push(FieldError::too_long(&controller.path, CONTROLLER_BYTES_MAX));
        }
        controller.domain_prefixed(&mut errors);
        let parameters = spec.get("parameters");
        if !parameters.is_present() {
            return errors;
        }
        check_reference(&parameters, &mut errors);
        let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
        scope.one_of(SCOPES, &mut errors);
        match scope.text() {
            "Namespace" if !namespace.is_present() => {
                namespace.required("`parameters.scope` is set to 'Namespace'", &mut errors);
            }
            "Namespace" => namespace.named(names::dns_label, &mut errors),
            "Cluster" if namespace.is_present() => {
                namespace.forbidden("`parameters.scope` is set to 'Cluster'", &mut errors);
            }
            _ => {}
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, _write: Prepare) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validation::immutable(new, old, &["spec", "controller"], &mut errors);
        errors
    }
}
