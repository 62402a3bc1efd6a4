//! A pod's resolver configuration from its DNS policy. Pure.

use std::net::IpAddr;

use proto::cri::v1 as cri;
use proto_api::types::core::v1::PodSpec;

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;

/// The cluster's and the node's side of name resolution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DnsContext {
    pub(crate) cluster_dns: Vec<IpAddr>,
    pub(crate) cluster_domain: String,
    /// Of the node's own resolv.conf.
    pub(crate) node: ResolvConf,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(crate) servers: Vec<String>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

/// Reads a resolv.conf; unknown lines are ignored.
pub(crate) fn parse(text: &str) -> ResolvConf {
    let mut conf = ResolvConf::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace().map(ToOwned::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => conf.servers.extend(words.next()),
            Some("search") => conf.searches = words.filter(|word| word != ".").collect(),
            Some("options") => conf.options = words.collect(),
            _ => {}
        }
    }
    conf
}

/// The configuration, and what had to be left out (for an event).
pub(crate) fn pod_dns(
    spec: &PodSpec,
    namespace: &str,
    context: &DnsContext,
) -> (cri::DnsConfig, Option<String>) {
    let host_network = spec.host_network.unwrap_or(false);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => !host_network,
        "ClusterFirstWithHostNet" => true,
        _ => false,
    } && !context.cluster_dns.is_empty();
    let mut conf = if policy == "None" {
        ResolvConf::default()
    } else if cluster {
        cluster_first(namespace, context)
    } else {
        context.node.clone()
    };
    if let Some(own) = &spec.dns_config {
        conf.servers.extend(own.nameservers.iter().cloned());
        conf.searches.extend(own.searches.iter().cloned());
        for option in &own.options {
            let Some(name) = &option.name else { continue };
            conf.options
                .retain(|other| other.split(':').next() != Some(name.as_str()));
            conf.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            });
        }
    }
    let dropped = cut(&mut conf);
    let dns = cri::DnsConfig {
        servers: conf.servers,
        searches: conf.searches,
        options: conf.options,
    };
    (dns, dropped)
}

fn cluster_first(namespace: &str, context: &DnsContext) -> ResolvConf {
    let domain = &context.cluster_domain;
    let own = [
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
        domain.clone(),
    ];
    ResolvConf {
        servers: context
            .cluster_dns
            .iter()
            .map(ToString::to_string)
            .collect(),
        searches: own
            .into_iter()
            .chain(context.node.searches.iter().cloned())
            .collect(),
        options: vec!["ndots:5".to_owned()],
    }
}

/// Removes doubles and what is beyond the resolver's bounds; tells when something went.
fn cut(conf: &mut ResolvConf) -> Option<String> {
    unique(&mut conf.servers);
    unique(&mut conf.searches);
    let mut dropped = None;
    if conf.servers.len() > NAMESERVERS_MAX {
        conf.servers.truncate(NAMESERVERS_MAX);
        dropped = Some(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, \
             the applied nameserver line is: {}",
            conf.servers.join(" ")
        ));
    }
    let mut chars = 0;
    let fitting = conf
        .searches
        .iter()
        .take(SEARCHES_MAX)
        .take_while(|search| {
            chars += search.len() + 1;
            chars <= SEARCH_CHARS_MAX + 1
        })
        .count();
    if fitting < conf.searches.len() {
        conf.searches.truncate(fitting);
        dropped = Some(format!(
            "Search Line limits were exceeded, some search paths have been omitted, \
             the applied search line is: {}",
            conf.searches.join(" ")
        ));
    }
    dropped
}

fn unique(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|entry| seen.insert(entry.clone()));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn context() -> DnsContext {
        DnsContext {
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".to_owned(),
            node: parse("# x\nsearch corp.example .\nnameserver 192.0.2.1\noptions edns0\n"),
        }
    }

    fn dns(spec: serde_json::Value) -> (cri::DnsConfig, Option<String>) {
        pod_dns(&serde_json::from_value(spec).unwrap(), "shop", &context())
    }

    #[test]
    fn policies_choose_between_cluster_and_node() {
        let cluster = (
            vec!["10.96.0.10"],
            vec![
                "shop.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local",
                "corp.example",
            ],
            vec!["ndots:5"],
        );
        let node = (vec!["192.0.2.1"], vec!["corp.example"], vec!["edns0"]);
        let cases = [
            (json!({}), &cluster),
            (
                json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}),
                &node,
            ),
            (
                json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
                &cluster,
            ),
            (json!({"dnsPolicy": "Default"}), &node),
        ];
        for (spec, (servers, searches, options)) in cases {
            let (conf, dropped) = dns(spec.clone());
            assert_eq!(conf.servers, *servers, "{spec}");
            assert_eq!(conf.searches, *searches, "{spec}");
            assert_eq!(conf.options, *options, "{spec}");
            assert_eq!(dropped, None);
        }
    }

    #[test]
    fn own_settings_are_merged_and_options_replaced() {
        let (conf, _) = dns(json!({"dnsConfig": {"nameservers": ["192.0.2.9"],
            "searches": ["cluster.local", "more"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}}));
        assert_eq!(conf.servers, ["10.96.0.10", "192.0.2.9"]);
        assert_eq!(conf.searches.last().unwrap(), "more");
        assert_eq!(conf.searches.len(), 5);
        assert_eq!(conf.options, ["ndots:2", "rotate"]);
        let (none, _) =
            dns(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}}));
        assert_eq!(
            (none.servers.len(), none.searches.len(), none.options.len()),
            (1, 0, 0)
        );
    }

    #[test]
    fn the_resolvers_bounds_are_kept_and_told() {
        let servers: Vec<String> = (0..5).map(|i| format!("192.0.2.{i}")).collect();
        let (conf, told) = dns(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": servers}}));
        assert_eq!(conf.servers.len(), 3);
        assert!(told.unwrap().contains("192.0.2.0 192.0.2.1 192.0.2.2"));
        let searches: Vec<String> = (0..33).map(|i| format!("s{i}")).collect();
        let (conf, told) = dns(json!({"dnsPolicy": "None", "dnsConfig": {"searches": searches}}));
        assert_eq!(conf.searches.len(), 32);
        assert!(told.is_some());
        let long: Vec<String> = (0..9).map(|i| format!("{i}{}", "x".repeat(254))).collect();
        let (conf, told) = dns(json!({"dnsPolicy": "None", "dnsConfig": {"searches": long}}));
        assert_eq!(conf.searches.len(), 8);
        assert!(told.is_some());
    }
}
