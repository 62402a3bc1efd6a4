//! Services: addresses and ports, refusals in upstream's words, changes of type.

use serde_json::json;

use super::*;
use crate::alloc::{AllocationIndex, ServiceCidr, ip_key};

fn service(spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": "s", "namespace": "d"}});
    service["spec"] = spec;
    Service.default(&mut service);
    service
}

fn fill(service: &mut Value, index: &AllocationIndex) -> Result<Vec<Wanted>, FieldError> {
    let cidr: ServiceCidr = "10.96.0.0/16".parse().unwrap();
    Allocator {
        index,
        cidr,
        held: &Numbers::default(),
    }
    .fill(service, || 0)
}

#[test]
fn a_service_gets_an_address_and_a_node_port_of_its_own() {
    let index = AllocationIndex::default();
    let mut one = service(json!({"type": "NodePort", "ports": [{"port": 80}]}));
    let wanted = fill(&mut one, &index).unwrap();
    assert_eq!(one["spec"]["clusterIP"], "10.96.1.0");
    assert_eq!(one["spec"]["clusterIPs"], json!(["10.96.1.0"]));
    assert_eq!(one["spec"]["ports"][0]["nodePort"], 30_086);
    let keys: Vec<&str> = wanted.iter().map(|w| w.key.as_str()).collect();
    assert_eq!(keys, ["x/ip/10.96.1.0", "x/nodeport/TCP/30086"]);
    assert_eq!(Numbers::of(&one).0, keys);
}

#[test]
fn a_taken_address_is_told_in_upstreams_words() {
    let index = AllocationIndex::default();
    index.insert(&ip_key("10.96.0.9".parse().unwrap()), b"x");
    let mut one = service(json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}));
    let wanted = fill(&mut one, &index).unwrap();
    let error = wanted[0].taken.clone().unwrap();
    assert_eq!(
        error.to_string(),
        "spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: failed to allocate IP 10.96.0.9: \
         provided IP is already allocated"
    );
    let mut outside = service(json!({"clusterIP": "10.97.0.9", "ports": [{"port": 80}]}));
    let error = fill(&mut outside, &index).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("The range of valid IPs is 10.96.0.0/16"),
        "{error}"
    );
}

#[test]
fn headless_and_external_services_take_no_number() {
    let index = AllocationIndex::default();
    let mut headless = service(json!({"clusterIP": "None", "ports": [{"port": 80}]}));
    assert!(fill(&mut headless, &index).unwrap().is_empty());
    let mut external = service(json!({"type": "ExternalName", "externalName": "x.example"}));
    assert!(fill(&mut external, &index).unwrap().is_empty());
    assert!(external["spec"].get("clusterIP").is_none());
}

#[test]
fn duplicate_ports_and_bad_names_are_refused() {
    let broken = service(json!({"ports": [
        {"name": "a", "port": 80}, {"name": "a", "port": 80}, {"port": 0}]}));
    let errors: Vec<String> = Service
        .validate(&broken)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        errors,
        [
            "spec.ports[1].name: Duplicate value: \"a\"",
            "spec.ports[1]: Duplicate value: {\"protocol\":\"TCP\",\"port\":80}",
            "spec.ports[2].name: Required value",
            "spec.ports[2].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[2].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
        ]
    );
}

#[test]
fn an_update_keeps_address_and_node_port_and_may_not_change_the_address() {
    let index = AllocationIndex::default();
    let mut old = service(json!({"type": "NodePort", "ports": [{"port": 80}]}));
    fill(&mut old, &index).unwrap();
    let mut new = service(json!({"type": "NodePort", "ports": [{"port": 80, "targetPort": 8080}]}));
    Service.prepare_update(&mut new, &old, Prepare::Main);
    assert_eq!(new["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    assert_eq!(
        new["spec"]["ports"][0]["nodePort"],
        old["spec"]["ports"][0]["nodePort"]
    );
    new["spec"]["clusterIP"] = json!("10.96.0.77");
    let errors = Service.validate_update(&new, &old, Prepare::Main);
    assert_eq!(
        errors[0].to_string(),
        "spec.clusterIPs[0]: Invalid value: [\"10.96.0.77\"]: may not change once set"
    );
}

#[test]
fn a_type_takes_its_own_fields_with_it() {
    let index = AllocationIndex::default();
    let mut old = service(json!({"type": "NodePort", "ports": [{"port": 80}]}));
    fill(&mut old, &index).unwrap();
    let mut new = old.clone();
    new["spec"]["type"] = json!("ClusterIP");
    Service.prepare_update(&mut new, &old, Prepare::Main);
    assert!(new["spec"]["ports"][0].get("nodePort").is_none());
    assert!(new["spec"].get("externalTrafficPolicy").is_none());
    assert!(Service.validate(&new).is_empty());
    let mut external = old.clone();
    external["spec"]["type"] = json!("ExternalName");
    external["spec"]["externalName"] = json!("x.example");
    Service.prepare_update(&mut external, &old, Prepare::Main);
    assert!(
        Service.validate(&external).is_empty(),
        "{:?}",
        Service.validate(&external)
    );
}
