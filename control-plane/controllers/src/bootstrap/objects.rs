//! The objects a cluster starts with. Pure.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::config::Config;
use crate::service_pods::Family;

/// System namespaces, in order of creation.
pub(super) const NAMESPACES: [&str; 4] =
    ["default", "kube-system", "kube-public", "kube-node-lease"];

pub(super) const API_NAMESPACE: &str = "default";
pub(super) const API_NAME: &str = "kubernetes";
pub(super) const DNS_NAMESPACE: &str = "kube-system";
pub(super) const DNS_NAME: &str = "kube-dns";

pub(super) fn namespace(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

fn families(ips: &[IpAddr]) -> Vec<&'static str> {
    ips.iter().map(|ip| Family::of(*ip).name()).collect()
}

fn service(name: &str, labels: &Value, ips: &[IpAddr], ports: &Value) -> Value {
    let policy = if ips.len() > 1 {
        "RequireDualStack"
    } else {
        "SingleStack"
    };
    json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ips.first(),
            "clusterIPs": ips,
            "ipFamilies": families(ips),
            "ipFamilyPolicy": policy,
            "ports": ports,
        },
    })
}

/// The Service through which pods reach the API server. Without a selector: its endpoints are
/// the API servers' business.
pub(super) fn api_service(config: &Config) -> Value {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let ports = json!([
        {"name": "https", "port": 443, "protocol": "TCP", "targetPort": config.api_port},
    ]);
    service(API_NAME, &labels, &config.kubernetes_service_ips, &ports)
}

/// The Service of the cluster DNS. It selects no pods and has no endpoints here: every node's agent is
/// the server of its own pods, so node state answers this Service with each node's own listener
/// instead of with endpoints from the API.
pub(super) fn dns_service(config: &Config) -> Value {
    let labels = json!({
        "k8s-app": "kube-dns",
        "kubernetes.io/cluster-service": "true",
        "kubernetes.io/name": "CoreDNS",
    });
    let ports = json!([
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
        {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153},
    ]);
    service(DNS_NAME, &labels, &config.dns_service_ips, &ports)
}
