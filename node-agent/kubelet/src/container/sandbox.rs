//! The sandbox's configuration. Pure.

use std::collections::{BTreeMap, HashMap};

use proto::cri::v1 as cri;
use proto_api::types::Object as _;
use proto_api::types::core::v1::Pod;

use super::{hosts, security};
use crate::pod::model;
use crate::runtime::labels;

/// What a sandbox needs beside the pod.
#[derive(Debug, Clone)]
pub(crate) struct SandboxContext<'a> {
    pub(crate) node: &'a str,
    pub(crate) cluster_domain: &'a str,
    pub(crate) dns: cri::DnsConfig,
    /// Path of the pod's cgroup.
    pub(crate) cgroup: &'a str,
    pub(crate) log_dir: String,
}

/// The configuration of the pod's `attempt`-th sandbox.
pub(crate) fn sandbox_config(
    pod: &Pod,
    attempt: u32,
    context: SandboxContext<'_>,
) -> cri::PodSandboxConfig {
    let spec = model::spec(pod);
    let host_network = spec.host_network.unwrap_or(false);
    let own = labels::sandbox(context.node, pod.namespace(), pod.name(), pod.uid());
    let mut all: HashMap<String, String> = pod
        .metadata
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    all.extend(own);
    let mut annotations: HashMap<String, String> = pod
        .metadata
        .annotations
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    annotations.insert(
        labels::POD_GRACE.to_owned(),
        model::grace(pod).as_secs().to_string(),
    );
    let (hostname, _) = hosts::names(pod, context.cluster_domain);
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            namespace: pod.namespace().to_owned(),
            attempt,
        }),
        // A pod on the node's network has the node's name, and the runtime refuses another.
        hostname: if host_network {
            String::new()
        } else {
            hostname
        },
        log_directory: context.log_dir,
        dns_config: Some(context.dns),
        port_mappings: port_mappings(pod),
        labels: all,
        annotations,
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: context.cgroup.to_owned(),
            security_context: Some(security::sandbox(spec)),
            sysctls: sysctls(pod).into_iter().collect(),
            ..cri::LinuxPodSandboxConfig::default()
        }),
        ..cri::PodSandboxConfig::default()
    }
}

/// The pod's sysctls; unprivileged processes may listen on any port of the pod's own network.
fn sysctls(pod: &Pod) -> BTreeMap<String, String> {
    let spec = model::spec(pod);
    let host_network = spec.host_network.unwrap_or(false);
    let own = spec
        .security_context
        .iter()
        .flat_map(|context| &context.sysctls);
    let mut sysctls: BTreeMap<String, String> = own
        .filter(|sysctl| !(host_network && sysctl.name.starts_with("net.")))
        .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
        .collect();
    if !host_network {
        sysctls
            .entry("net.ipv4.ip_unprivileged_port_start".to_owned())
            .or_insert_with(|| "0".to_owned());
    }
    sysctls
}

fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    let spec = model::spec(pod);
    if spec.host_network.unwrap_or(false) {
        return Vec::new();
    }
    let ports = model::containers(spec).flat_map(|(_, container)| &container.ports);
    ports
        .filter_map(|port| {
            let host_port = port.host_port.filter(|port| *port > 0)?;
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => cri::Protocol::Udp,
                Some("SCTP") => cri::Protocol::Sctp,
                _ => cri::Protocol::Tcp,
            };
            Some(cri::PortMapping {
                protocol: protocol.into(),
                container_port: port.container_port,
                host_port,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "literals at every call")]
    fn config(spec: serde_json::Value) -> cri::PodSandboxConfig {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "x",
                "io.kubernetes.pod.uid": "forged"}},
            "spec": spec}))
        .unwrap();
        let context = SandboxContext {
            node: "node-1",
            cluster_domain: "cluster.local",
            dns: cri::DnsConfig::default(),
            cgroup: "/kubepods/podu",
            log_dir: "/logs/n_p_u".to_owned(),
        };
        sandbox_config(&pod, 2, context)
    }

    #[test]
    fn a_pod_on_the_nodes_network_has_no_host_name_and_no_net_sysctls() {
        let config = config(json!({"hostNetwork": true, "containers": [
            {"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}],
            "securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"},
                                             {"name": "kernel.shm_rmid_forced", "value": "1"}]}}));
        let linux = config.linux.unwrap();
        assert_eq!(config.hostname, "");
        assert_eq!(linux.sysctls.len(), 1);
        assert!(linux.sysctls.contains_key("kernel.shm_rmid_forced"));
        assert!(config.port_mappings.is_empty());
        let options = linux.security_context.unwrap().namespace_options.unwrap();
        assert_eq!(options.network(), cri::NamespaceMode::Node);
    }

    #[test]
    fn the_agents_marks_win_over_the_pods_labels() {
        let config = config(json!({"terminationGracePeriodSeconds": 7, "containers": [
            {"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}]}]}));
        assert_eq!(config.labels["io.kubernetes.pod.uid"], "u");
        assert_eq!(config.labels["skep.io/node"], "node-1");
        assert_eq!(config.labels["app"], "x");
        assert_eq!(config.annotations[labels::POD_GRACE], "7");
        assert_eq!(config.metadata.unwrap().attempt, 2);
        assert_eq!(config.port_mappings[0].host_port, 8080);
        assert_eq!(config.port_mappings[0].protocol(), cri::Protocol::Udp);
        assert_eq!(config.hostname, "p");
    }
}
