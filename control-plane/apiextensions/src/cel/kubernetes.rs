//! Kubernetes' own values: addresses and their ranges, URLs, versions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::functions::{Found, fault, quantities};
use super::value::Value;

pub(super) fn kubernetes(name: &str, values: &[Value]) -> Found {
    if let [Value::Quantity(quantity), rest @ ..] = values {
        return quantities(name, quantity, rest);
    }
    if let [Value::Semver(..), ..] = values {
        return Ok(versions(name, values));
    }
    if let [Value::Text(url)] = values {
        return Ok(urls(name, url));
    }
    let made = match (name, values) {
        ("family", [Value::Ip(ip)]) => Value::Int(if ip.is_ipv4() { 4 } else { 6 }),
        ("isUnspecified", [Value::Ip(ip)]) => Value::Bool(ip.is_unspecified()),
        ("isLinkLocalMulticast", [Value::Ip(ip)]) => Value::Bool(match ip {
            IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
            IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
        }),
        ("isLinkLocalUnicast", [Value::Ip(ip)]) => Value::Bool(match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
        }),
        ("isGlobalUnicast", [Value::Ip(ip)]) => {
            let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
            let local = match ip {
                IpAddr::V4(ip) => ip.is_link_local(),
                IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
            };
            let other = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
            Value::Bool(!broadcast && !local && !other)
        }
        ("masked", [Value::Cidr(ip, prefix)]) => Value::Cidr(masked(*ip, *prefix), *prefix),
        ("isLoopback", [Value::Ip(ip)]) => Value::Bool(ip.is_loopback()),
        ("ip", [Value::Cidr(ip, _)]) => Value::Ip(*ip),
        ("prefixLength", [Value::Cidr(_, prefix)]) => Value::Int((*prefix).into()),
        ("containsIP", [Value::Cidr(net, prefix), ip]) => {
            let ip = match ip {
                Value::Ip(ip) => Some(*ip),
                Value::Text(text) => text.parse().ok(),
                _ => None,
            };
            match ip {
                Some(ip) => Value::Bool(contains((*net, *prefix), ip, bits_max(ip))),
                None => return fault("IP Address parse error"),
            }
        }
        ("containsCIDR", [Value::Cidr(net, prefix), other]) => {
            let other = match other {
                Value::Cidr(ip, prefix) => Some((*ip, *prefix)),
                Value::Text(text) => cidr(text),
                _ => None,
            };
            match other {
                Some((ip, own)) => Value::Bool(contains((*net, *prefix), ip, own)),
                None => return fault("network address parse error"),
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(made))
}

fn urls(name: &str, url: &str) -> Option<Value> {
    Some(match name {
        "getScheme" => Value::text(url_parts(url).0),
        "getHost" => Value::text(url_parts(url).1),
        "getHostname" => Value::text(host_port(url_parts(url).1).0),
        "getPort" => Value::text(host_port(url_parts(url).1).1),
        "getEscapedPath" => Value::text(url_parts(url).2),
        "getQuery" => query_of(url),
        _ => return None,
    })
}

fn versions(name: &str, values: &[Value]) -> Option<Value> {
    Some(match (name, values) {
        ("major", [Value::Semver(n, ..)]) => count_of(*n),
        ("minor", [Value::Semver(_, n, ..)]) => count_of(*n),
        ("patch", [Value::Semver(_, _, n, _)]) => count_of(*n),
        ("isLessThan" | "isGreaterThan" | "compareTo", [a @ Value::Semver(..), b]) => {
            let order = semver_order(a, b)?;
            match name {
                "isLessThan" => Value::Bool(order.is_lt()),
                "isGreaterThan" => Value::Bool(order.is_gt()),
                _ => Value::Int(i64::from(order as i8)),
            }
        }
        _ => return None,
    })
}

pub(super) fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, prefix) = text.split_once('/')?;
    let (ip, prefix): (IpAddr, u8) = (ip.parse().ok()?, prefix.parse().ok()?);
    (prefix <= bits_max(ip)).then_some((ip, prefix))
}

const fn bits_max(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address without the bits after the prefix, as a number of its family's width.
fn network(ip: IpAddr, prefix: u8) -> u128 {
    let (bits, width) = match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let host = u32::from(width - prefix.min(width));
    bits.checked_shr(host)
        .unwrap_or(0)
        .checked_shl(host)
        .unwrap_or(0)
}

fn contains(net: (IpAddr, u8), ip: IpAddr, prefix: u8) -> bool {
    net.0.is_ipv4() == ip.is_ipv4()
        && net.1 <= prefix
        && network(net.0, net.1) == network(ip, net.1)
}

/// The first address of a range.
fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    let bits = network(ip, prefix);
    match ip {
        IpAddr::V4(_) => IpAddr::from(u32::try_from(bits).unwrap_or_default().to_be_bytes()),
        IpAddr::V6(_) => IpAddr::from(bits.to_be_bytes()),
    }
}

fn count_of(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Scheme, host with port, path.
fn url_parts(url: &str) -> (&str, &str, &str) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let at = rest.find('/').unwrap_or(rest.len());
    let (host, path) = if scheme.is_empty() {
        ("", rest)
    } else {
        rest.split_at(at)
    };
    (scheme, host.rsplit('@').next().unwrap_or(host), path)
}

/// The values of a query by their names.
fn query_of(url: &str) -> Value {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    let mut fields: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        fields
            .entry(name.to_owned())
            .or_default()
            .push(Value::text(value));
    }
    let fields = fields.into_iter();
    let fields = fields.map(|(name, values)| (name, Value::list(values)));
    Value::Map(Arc::new(fields.collect()))
}

fn host_port(host: &str) -> (&str, &str) {
    if let Some(v6) = host.strip_prefix('[') {
        let (ip, rest) = v6.split_once(']').unwrap_or((v6, ""));
        return (ip, rest.strip_prefix(':').unwrap_or(""));
    }
    host.rsplit_once(':').unwrap_or((host, ""))
}

pub(super) fn is_normalizing(rest: &[Value]) -> bool {
    matches!(rest, [Value::Bool(true)])
}

/// A semantic version; `normalize` forgives a `v`, missing numbers and leading zeros.
pub(super) fn semver(text: &str, normalize: bool) -> Option<Value> {
    let text = match normalize {
        true => text.strip_prefix('v').unwrap_or(text),
        false => text,
    };
    let text = text.split('+').next().unwrap_or_default();
    let (numbers, pre) = text.split_once('-').unwrap_or((text, ""));
    if text.contains('-') && pre.split('.').any(str::is_empty) {
        return None;
    }
    let mut parts: Vec<&str> = numbers.split('.').collect();
    if normalize && parts.len() < 3 {
        parts.resize(3, "0");
    }
    let number = |part: &&str| -> Option<u64> {
        let strict = part.len() == 1 || !part.starts_with('0') || normalize;
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        (strict && digits).then(|| part.parse().ok()).flatten()
    };
    let numbers: Option<Vec<u64>> = parts.iter().map(number).collect();
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    match numbers.as_deref() {
        Some([major, minor, patch]) if pre.chars().all(good) => {
            Some(Value::Semver(*major, *minor, *patch, pre.into()))
        }
        _ => None,
    }
}

/// The order of two versions; one that is released comes after its candidates.
pub(super) fn semver_order(a: &Value, b: &Value) -> Option<std::cmp::Ordering> {
    use std::cmp::Ordering;
    let (Value::Semver(a1, a2, a3, a), Value::Semver(b1, b2, b3, b)) = (a, b) else {
        return None;
    };
    let pre = || match (a.is_empty(), b.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let part = |part: &str| match part.parse::<u64>() {
                Ok(number) => (0, number, String::new()),
                Err(_) => (1, 0, part.to_owned()),
            };
            a.split('.').map(part).cmp(b.split('.').map(part))
        }
    };
    Some((a1, a2, a3).cmp(&(b1, b2, b3)).then_with(pre))
}
