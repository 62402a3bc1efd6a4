//! Services: addresses and ports, refusals in upstream's words, changes of type.

use serde_json::json;

use super::*;
use crate::alloc::{AllocationIndex, ip_key};

fn service(spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": "s", "namespace": "d"}});
    service["spec"] = spec;
    Service.default(&mut service);
    service
}

fn fill(service: &mut Value, index: &AllocationIndex) -> Result<Vec<Wanted>, FieldError> {
    fill_from("10.96.0.0/16", service, index)
}

fn fill_from(
    ranges: &str,
    service: &mut Value,
    index: &AllocationIndex,
) -> Result<Vec<Wanted>, FieldError> {
    Allocator {
        more: Vec::new(),
        index,
        ranges: ranges.parse().unwrap(),
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
    assert_eq!(
        keys,
        [
            "o/networking.k8s.io/ipaddresses//10.96.1.0",
            "x/nodeport/TCP/30086"
        ]
    );
    assert_eq!(Numbers::of(&one).0, keys);
}

#[test]
fn a_taken_address_is_told_in_upstreams_words() {
    let index = AllocationIndex::default();
    index.insert(&ip_key("10.96.0.9".parse().unwrap()));
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
    Service.prepare_update(&mut new, &old, Prepare::Main);
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

const DUAL: &str = "10.96.0.0/16,fd00:10:96::/112";

#[test]
fn families_follow_the_policy_and_the_cluster() {
    let index = AllocationIndex::default();
    let ports = json!([{"port": 80}]);
    let settled = |ranges: &str, spec: Value| {
        let mut one = service(spec);
        one["spec"]["ports"] = ports.clone();
        fill_from(ranges, &mut one, &index).map(|_| {
            let field = |name: &str| one["spec"][name].clone();
            (
                field("ipFamilies"),
                field("ipFamilyPolicy"),
                field("clusterIPs"),
            )
        })
    };
    let (families, policy, ips) = settled(DUAL, json!({})).unwrap();
    assert_eq!((families, policy), (json!(["IPv4"]), json!("SingleStack")));
    assert_eq!(ips.as_array().unwrap().len(), 1);
    let (families, _, ips) = settled(DUAL, json!({"ipFamilyPolicy": "PreferDualStack"})).unwrap();
    assert_eq!(families, json!(["IPv4", "IPv6"]));
    assert_eq!(ips, json!(["10.96.1.0", "fd00:10:96::100"]));
    let wanted = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]});
    let (families, _, ips) = settled(DUAL, wanted).unwrap();
    assert_eq!(families, json!(["IPv6", "IPv4"]));
    assert_eq!(ips[0], "fd00:10:96::100");
    let (families, _, _) = settled(DUAL, json!({"clusterIP": "fd00:10:96::9"})).unwrap();
    assert_eq!(families, json!(["IPv6"]));
    let (families, policy, ips) =
        settled("10.96.0.0/16", json!({"ipFamilyPolicy": "PreferDualStack"})).unwrap();
    assert_eq!(
        (families, policy),
        (json!(["IPv4"]), json!("PreferDualStack"))
    );
    assert_eq!(ips.as_array().unwrap().len(), 1);
    let refused = |spec: Value| settled("10.96.0.0/16", spec).unwrap_err().to_string();
    assert_eq!(
        refused(json!({"ipFamilyPolicy": "RequireDualStack"})),
        "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
    );
    assert_eq!(
        refused(json!({"ipFamilies": ["IPv6"]})),
        "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
    );
    assert_eq!(
        refused(json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "SingleStack"})),
        "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be RequireDualStack or PreferDualStack when multiple ipFamilies are specified"
    );
}

#[test]
fn a_service_takes_and_gives_back_its_second_address() {
    let index = AllocationIndex::default();
    let mut old = service(json!({"ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]}));
    fill_from(DUAL, &mut old, &index).unwrap();
    assert_eq!(Numbers::of(&old).0.len(), 2);
    let mut new = old.clone();
    new["spec"]["ipFamilyPolicy"] = json!("SingleStack");
    Service.prepare_update(&mut new, &old, Prepare::Main);
    assert_eq!(new["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(Numbers::of(&new).0.len(), 1);
    let errors = Service.validate_update(&new, &old, Prepare::Main);
    assert!(errors.is_empty(), "{errors:?}");
    let mut again = new.clone();
    again["spec"]["ipFamilyPolicy"] = json!("PreferDualStack");
    Service.prepare_update(&mut again, &new, Prepare::Main);
    fill_from(DUAL, &mut again, &index).unwrap();
    assert_eq!(again["spec"]["clusterIP"], old["spec"]["clusterIP"]);
    assert_eq!(Numbers::of(&again).0.len(), 2);
}

#[test]
fn a_load_balancer_with_local_traffic_gets_a_health_check_port() {
    let index = AllocationIndex::default();
    let mut one = service(
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "ports": [{"port": 80}]}),
    );
    fill(&mut one, &index).unwrap();
    let port = one["spec"]["healthCheckNodePort"].clone();
    assert!(port.is_number() && port != one["spec"]["ports"][0]["nodePort"]);
    let mut new = one.clone();
    new["spec"]["externalTrafficPolicy"] = json!("Cluster");
    Service.prepare_update(&mut new, &one, Prepare::Main);
    assert!(new["spec"].get("healthCheckNodePort").is_none());
}
