//! What a service may say, and what may change of it.

use std::collections::HashSet;
use std::net::IpAddr;

use proto_api::names;
use serde_json::json;

use crate::field::FieldError;
use crate::validation::{self, Errors, Place};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITIES: &[&str] = &["ClientIP", "None"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];
const AFFINITY_SECONDS_MAX: i64 = 86_400;
const ONLY_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";
const ONLY_EXTERNAL: &str = "may only be set for externally-accessible services";
const ONE_EACH: &str = "may specify no more than one IP for each IP family";

fn is_headless(spec: &Place<'_>) -> bool {
    spec.get("clusterIPs")
        .items()
        .next()
        .is_some_and(|ip| ip.text() == "None")
}

/// Checks the spec.
pub(super) fn spec(spec: &Place<'_>, errors: &mut Errors) {
    let kind = spec.get("type");
    kind.required_one_of(TYPES, errors);
    let headless = is_headless(spec);
    let ports = spec.get("ports");
    match kind.text() {
        "ExternalName" => external_name(spec, errors),
        other => {
            if ports.is_unset() && !headless {
                ports.required("", errors);
            }
            if headless && matches!(other, "NodePort" | "LoadBalancer") {
                let place = spec.path.child("clusterIPs").index(0);
                let detail = format!("may not be set to 'None' for {other} services");
                errors.push(FieldError::invalid(&place, "None", detail));
            }
            cluster_ips(spec, errors);
        }
    }
    check_ports(&ports, kind.text(), errors);
    let selector = spec.get("selector");
    validation::labels(selector.value, &selector.path, errors);
    affinity(spec, errors);
    for ip in spec.get("externalIPs").items() {
        match ip.text().parse::<IpAddr>() {
            Ok(address) => non_special(&ip, address, errors),
            Err(_) => ip.ip(errors),
        }
    }
    balancer(spec, kind.text(), errors);
    traffic(spec, kind.text(), errors);
}

fn external_name(spec: &Place<'_>, errors: &mut Errors) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let place = spec.get(field);
        let none = field == "clusterIPs" && is_headless(spec);
        if !place.is_unset() && !none {
            place.forbidden("may not be set for ExternalName services", errors);
        }
    }
    let name = spec.get("externalName");
    if name.required_text(errors) {
        let text = name.text();
        let trimmed = text.strip_suffix('.').unwrap_or(text);
        let problems = names::dns_subdomain(trimmed);
        validation::sentences(trimmed, &name.path, problems, errors);
    }
}

/// Addresses agree with each other and with the families.
fn cluster_ips(spec: &Place<'_>, errors: &mut Errors) {
    let (single, ips) = (spec.get("clusterIP"), spec.get("clusterIPs"));
    let first = ips.items().next();
    match (&first, single.text()) {
        (None, "") => {}
        (None, _) => ips.required("", errors),
        (Some(_), "") => {
            let detail = "must be empty when `clusterIP` is not specified";
            ips.invalid(detail, errors);
        }
        (Some(first), text) if first.text() != text => {
            ips.invalid("first value must match `clusterIP`", errors);
        }
        _ => {}
    }
    let families = spec.get("ipFamilies");
    let mut seen = HashSet::new();
    for family in families.items() {
        family.one_of(FAMILIES, errors);
        if !seen.insert(family.text()) {
            family.duplicate(errors);
        }
    }
    spec.get("ipFamilyPolicy").one_of(FAMILY_POLICIES, errors);
    let before = errors.len();
    let mut kinds = HashSet::new();
    for (i, ip) in ips.items().enumerate() {
        if i == 0 && ip.text() == "None" {
            if ips.len() > 1 {
                ips.invalid("'None' must be the first and only value", errors);
            }
            continue;
        }
        match ip.text().parse::<IpAddr>() {
            Err(_) => ip.ip(errors),
            Ok(address) => {
                kinds.insert(address.is_ipv4());
                family_of(&ip, address, i, &families, errors);
            }
        }
    }
    if ips.len() > 2 {
        ips.invalid("may only hold up to 2 values", errors);
    }
    if errors.len() == before && ips.len() > 1 && kinds.len() < ips.len() {
        ips.invalid(ONE_EACH, errors);
    }
}

fn family_of(ip: &Place<'_>, address: IpAddr, i: usize, families: &Place<'_>, errors: &mut Errors) {
    let expected = families.items().nth(i);
    let expected = expected.as_ref().map_or("", |family| family.text());
    let wrong = match expected {
        "IPv4" => address.is_ipv6(),
        "IPv6" => address.is_ipv4(),
        _ => false,
    };
    if wrong {
        let detail = format!("expected an {expected} value as indicated by `ipFamilies[{i}]`");
        ip.invalid(detail, errors);
    }
}

fn non_special(place: &Place<'_>, address: IpAddr, errors: &mut Errors) {
    if address.is_unspecified() {
        let detail = format!("may not be unspecified ({})", place.text());
        place.invalid(detail, errors);
    }
    if address.is_loopback() {
        let detail = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
        place.invalid(detail, errors);
    }
    let (unicast, multicast) = match address {
        IpAddr::V4(v4) => {
            let octets = v4.octets();
            (v4.is_link_local(), octets[..3] == [224, 0, 0])
        }
        IpAddr::V6(v6) => (
            v6.is_unicast_link_local(),
            v6.segments()[0] & 0xff0f == 0xff02,
        ),
    };
    if unicast {
        let detail = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
        place.invalid(detail, errors);
    }
    if multicast {
        let detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        place.invalid(detail, errors);
    }
}

fn affinity(spec: &Place<'_>, errors: &mut Errors) {
    let kind = spec.get("sessionAffinity");
    kind.required_one_of(AFFINITIES, errors);
    let config = spec.get("sessionAffinityConfig");
    if kind.text() == "None" {
        let detail = "must not be set when session affinity is None";
        config.forbid(detail, errors);
        return;
    }
    let seconds = config.get("clientIP").get("timeoutSeconds");
    if seconds
        .int()
        .is_some_and(|number| !(1..=AFFINITY_SECONDS_MAX).contains(&number))
    {
        let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
        seconds.invalid(detail, errors);
    }
}

fn check_ports(ports: &Place<'_>, kind: &str, errors: &mut Errors) {
    let (mut port_names, mut numbers, mut node_ports) =
        (HashSet::new(), HashSet::new(), HashSet::new());
    let many = ports.len() > 1;
    for port in ports.items() {
        let name = port.get("name");
        if name.text().is_empty() {
            if many {
                name.required("", errors);
            }
        } else {
            name.named(names::dns_label, errors);
            if !port_names.insert(name.text()) {
                name.duplicate(errors);
            }
        }
        let number = port.get("port");
        validation::port_number(number.value, &number.path, errors);
        validation::protocol(port.value, &port.path, errors);
        let target = port.get("targetPort");
        if target.is_present() {
            target.port_number_or_name(errors);
        }
        port.get("appProtocol")
            .named_if_set(names::qualified_name, errors);
        let protocol = port.get("protocol").text();
        let number = number.int().unwrap_or_default();
        if !numbers.insert((protocol, number)) {
            let value = json!({"protocol": protocol, "port": number});
            errors.push(FieldError::duplicate(&port.path, value));
        }
        let node_port = port.get("nodePort");
        let number = node_port.int().unwrap_or_default();
        if number == 0 {
            continue;
        }
        if matches!(kind, "ClusterIP" | "ExternalName") {
            let detail = format!("may not be used when `type` is '{kind}'");
            node_port.forbidden(&detail, errors);
        } else if !node_ports.insert((protocol, number)) {
            node_port.duplicate(errors);
        }
    }
}

/// Fields that only load balancers have.
fn balancer(spec: &Place<'_>, kind: &str, errors: &mut Errors) {
    let is_balancer = kind == "LoadBalancer";
    let ranges = spec.get("loadBalancerSourceRanges");
    if !ranges.is_unset() {
        // Upstream writes this field's path with a capital.
        let path = spec.path.child("LoadBalancerSourceRanges");
        if !is_balancer {
            errors.push(FieldError::forbidden(&path, ONLY_BALANCERS));
        }
        for (i, range) in ranges.items().enumerate() {
            let text = range.text().trim();
            if !is_cidr(text) {
                let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                errors.push(FieldError::invalid(&path.index(i), text, detail));
            }
        }
    }
    let class = spec.get("loadBalancerClass");
    if is_balancer {
        class.named_if_set(names::qualified_name, errors);
    } else {
        class.forbid(ONLY_BALANCERS, errors);
        let ports = spec.get("allocateLoadBalancerNodePorts");
        ports.forbid(ONLY_BALANCERS, errors);
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else {
        return false;
    };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    prefix.parse::<u8>().is_ok_and(|prefix| prefix <= most)
}

fn traffic(spec: &Place<'_>, kind: &str, errors: &mut Errors) {
    let external = spec.get("externalTrafficPolicy");
    let accessible = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !spec.get("externalIPs").is_unset());
    if accessible {
        external.required_one_of(POLICIES, errors);
    } else if !external.is_unset() {
        external.invalid(ONLY_EXTERNAL, errors);
    }
    let health = spec.get("healthCheckNodePort");
    let asks = kind == "LoadBalancer" && external.text() == "Local";
    if health.int().unwrap_or_default() != 0 {
        if asks {
            validation::port_number(health.value, &health.path, errors);
        } else {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            health.invalid(detail, errors);
        }
    }
    spec.get("internalTrafficPolicy").one_of(POLICIES, errors);
    spec.get("trafficDistribution")
        .one_of(DISTRIBUTIONS, errors);
}

/// Checks what changed: addresses and families are added or let go, never exchanged.
pub(super) fn change(now: &Place<'_>, before: &Place<'_>, errors: &mut Errors) {
    let kind = |spec: &Place<'_>| spec.get("type").text() == "ExternalName";
    if !kind(now) && !kind(before) && is_headless(now) == is_headless(before) {
        for field in ["clusterIPs", "ipFamilies"] {
            if !(is_headless(now)) {
                stays(field, now, before, errors);
            }
        }
    } else if !kind(now) && !kind(before) {
        stays("clusterIPs", now, before, errors);
    }
    let balancer = |spec: &Place<'_>| spec.get("type").text() == "LoadBalancer";
    let class = now.get("loadBalancerClass");
    if balancer(now) && balancer(before) && class.value != before.get("loadBalancerClass").value {
        class.invalid("may not change once set", errors);
    }
    let health = |spec: &Place<'_>| spec.get("healthCheckNodePort").int().unwrap_or_default();
    let asks =
        |spec: &Place<'_>| balancer(spec) && spec.get("externalTrafficPolicy").text() == "Local";
    if asks(now) && asks(before) && health(now) != health(before) {
        let place = now.get("healthCheckNodePort");
        place.forbidden("field is immutable", errors);
    }
}

/// The first of a list stays; the second may come, and goes with the policy.
fn stays(field: &str, now: &Place<'_>, before: &Place<'_>, errors: &mut Errors) {
    let (new, old) = (now.get(field), before.get(field));
    let single = if field == "clusterIPs" {
        "clusterIP"
    } else {
        "ipFamily"
    };
    let mut refuse = |i: usize, detail: String| {
        let path = new.path.index(i);
        let value = if new.is_present() {
            new.value.clone()
        } else {
            json!([])
        };
        errors.push(FieldError::invalid(&path, value, detail));
    };
    if !old.is_unset() && new.is_unset() {
        refuse(0, format!("primary {single} can not be unset"));
        return;
    }
    for (i, (is, was)) in new.items().zip(old.items()).enumerate() {
        if is.value != was.value {
            refuse(i, "may not change once set".to_owned());
        }
    }
    let policy = now.get("ipFamilyPolicy");
    if new.len() < old.len() && policy.text() != "SingleStack" {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {single}");
        errors.push(FieldError::invalid(&policy.path, policy.text(), detail));
    }
}

/// Checks what a load balancer reports.
pub(super) fn status(status: &Place<'_>, errors: &mut Errors) {
    for ingress in status.get("loadBalancer").get("ingress").items() {
        let (ip, mode) = (ingress.get("ip"), ingress.get("ipMode"));
        if !ip.text().is_empty() {
            ip.ip(errors);
        } else if mode.is_present() {
            mode.forbidden("may not be specified when `ip` is not set", errors);
        }
        mode.one_of(&["Proxy", "VIP"], errors);
        let host = ingress.get("hostname");
        host.named_if_set(names::dns_subdomain, errors);
        if host.text().parse::<IpAddr>().is_ok() {
            host.invalid("must be a DNS name, not an IP address", errors);
        }
    }
}
