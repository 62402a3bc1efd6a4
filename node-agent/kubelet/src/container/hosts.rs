//! The `/etc/hosts` of a pod's containers, and its host name. Pure.

use proto_api::types::Object as _;
use proto_api::types::core::v1::Pod;

use crate::pod::model;

const HOSTNAME_MAX: usize = 63;

/// The pod's host name and, with a subdomain, its domain name.
pub(crate) fn names(pod: &Pod, cluster_domain: &str) -> (String, Option<String>) {
    let spec = model::spec(pod);
    let mut hostname = spec
        .hostname_override
        .clone()
        .or_else(|| spec.hostname.clone())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| pod.name().to_owned());
    if spec.hostname_override.is_none() && hostname.len() > HOSTNAME_MAX {
        hostname.truncate(HOSTNAME_MAX);
        hostname.truncate(hostname.trim_end_matches(['-', '.']).len());
    }
    let domain = spec
        .subdomain
        .as_deref()
        .filter(|subdomain| !subdomain.is_empty())
        .map(|subdomain| format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace()));
    if spec.set_hostname_as_fqdn.unwrap_or(false)
        && let Some(domain) = &domain
    {
        hostname = format!("{hostname}.{domain}");
    }
    (hostname, domain)
}

/// The file's text.
pub(crate) fn hosts_file(pod: &Pod, pod_ips: &[String], cluster_domain: &str) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    let (hostname, domain) = names(pod, cluster_domain);
    for ip in pod_ips {
        let line = match &domain {
            Some(domain) if !hostname.ends_with(domain.as_str()) => {
                format!("{ip}\t{hostname}.{domain}\t{hostname}\n")
            }
            Some(_) | None => format!("{ip}\t{hostname}\n"),
        };
        text.push_str(&line);
    }
    let aliases = &model::spec(pod).host_aliases;
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t")));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_file_names_the_pod_and_its_aliases() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-0", "namespace": "shop"},
            "spec": {"subdomain": "web", "containers": [],
                     "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["a", "b"]}]}}))
        .unwrap();
        let text = hosts_file(&pod, &["10.0.0.5".to_owned()], "cluster.local");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("10.0.0.5\tweb-0.web.shop.svc.cluster.local\tweb-0\n"));
        assert!(text.ends_with("# Entries added by HostAliases.\n192.0.2.7\ta\tb\n"));
    }

    #[test]
    fn long_names_are_cut_to_a_host_name() {
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(20));
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": long, "namespace": "n"}})).unwrap();
        assert_eq!(names(&pod, "cluster.local").0, "a".repeat(62));
    }
}
