//! NetworkPolicy: who may talk to the pods of a selection, and to whom they may.

use jiff::Timestamp;
use proto_api::names;
use serde_json::{Value, json};

use super::strategy::Strategy;
use super::workload::selector_text;
use crate::field::FieldError;
use crate::tables::{self, AGE, NAME, Table, age, column};
use crate::tree;
use crate::validation::{self, Cidr, Place};

const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const TYPES: &[&str] = &["Ingress", "Egress"];
/// Direction of rules, and the field that names the other side.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

#[derive(Debug)]
pub(super) struct NetworkPolicy;

pub(super) static TABLE: Table = Table {
    columns: &[
        NAME,
        column(
            "Pod-Selector",
            "string",
            "The pods that the policy is about.",
        ),
        AGE,
    ],
    row,
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        tables::name(object),
        json!(selector_text(tree::at(object, &["spec", "podSelector"]))),
        age(object, now),
    ]
}

fn check_port(port: &Place<'_>, errors: &mut Vec<FieldError>) {
    port.get("protocol").one_of(PROTOCOLS, errors);
    let (number, end) = (port.get("port"), port.get("endPort"));
    match number.value {
        Value::Null if end.is_present() => {
            end.invalid("may not be specified when `port` is not specified", errors);
        }
        Value::Null => {}
        Value::String(_) => {
            if end.is_present() {
                end.invalid("may not be specified when `port` is non-numeric", errors);
            }
            number.named(names::port_name, errors);
        }
        _ => {
            number.port_number_or_name(errors);
            if end.is_present() {
                if end.int() < number.int() {
                    let detail = "must be greater than or equal to `port`";
                    errors.push(FieldError::invalid(&end.path, number.value.clone(), detail));
                }
                end.port_number_or_name(errors);
            }
        }
    }
}

fn check_block(block: &Place<'_>, errors: &mut Vec<FieldError>) {
    let cidr = block.get("cidr");
    if !cidr.required_text(errors) {
        return;
    }
    let Some(whole) = cidr.cidr(errors) else {
        return;
    };
    for except in block.get("except").items() {
        let part = except.cidr(errors);
        if part.is_some_and(|part: Cidr| !whole.strictly_contains(part)) {
            except.invalid("must be a strict subset of `cidr`", errors);
        }
    }
}

fn check_peer(peer: &Place<'_>, errors: &mut Vec<FieldError>) {
    let selectors = [peer.get("podSelector"), peer.get("namespaceSelector")];
    for selector in selectors.iter().filter(|selector| selector.is_present()) {
        validation::label_selector(selector.value, &selector.path, errors);
    }
    let block = peer.get("ipBlock");
    let selects = selectors.iter().any(Place::is_present);
    if block.is_present() {
        check_block(&block, errors);
        if selects {
            peer.forbidden("may not specify both ipBlock and another peer", errors);
        }
    } else if !selects {
        peer.required("must specify a peer", errors);
    }
}

impl Strategy for NetworkPolicy {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = tree::object_mut(object, "spec");
        let mut types = vec!["Ingress"];
        if spec
            .get("egress")
            .is_some_and(|rules| !tree::is_unset(rules))
        {
            types.push("Egress");
        }
        if spec.get("policyTypes").is_none_or(tree::is_unset) {
            spec.insert("policyTypes".to_owned(), json!(types));
        }
        for (direction, _) in DIRECTIONS {
            for rule in tree::list_mut(spec, direction) {
                for port in tree::list_mut(tree::as_object(rule), "ports") {
                    tree::default(tree::as_object(port), "protocol", "TCP");
                }
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = Place::root(object, "spec");
        let selector = spec.get("podSelector");
        validation::label_selector(selector.value, &selector.path, &mut errors);
        for (direction, peers) in DIRECTIONS {
            for rule in spec.get(direction).items() {
                rule.get("ports")
                    .items()
                    .for_each(|port| check_port(&port, &mut errors));
                rule.get(peers)
                    .items()
                    .for_each(|peer| check_peer(&peer, &mut errors));
            }
        }
        let types = spec.get("policyTypes");
        if types.len() > TYPES.len() {
            types.invalid("may not specify more than two policyTypes", &mut errors);
        } else {
            types
                .items()
                .for_each(|kind| kind.one_of(TYPES, &mut errors));
        }
        errors
    }
}
