//! Keys and values of every map as named fields, for people and JSON.

use std::net::SocketAddr;

use ebpf_abi::addr::Addr;
use ebpf_abi::conntrack::{Ct4Key, Ct6Key, CtEntry};
use ebpf_abi::counter::{DropReason, Metric};
use ebpf_abi::endpoint::{Endpoint, LocalPod};
use ebpf_abi::frontend::{Fe4Key, Fe6Key, Frontend};
use ebpf_abi::meta::Meta;
use ebpf_abi::route::{Route, RouteKey};
use ebpf_abi::service::{Backend, BackendLoad, Head, Service, Slot};
use ebpf_abi::socket::{Affinity, AffinityKey, CLIENT_NETNS, UdpFrontend, UdpKey};
use serde_json::{Map, Value, json};
use zerocopy::FromBytes;

use super::counters::sum;
use crate::kernel_pods::{range_of, route_of};
use crate::maps::view::BackendState;
use crate::maps::{FrontendKey, IpProtocol, from_addr};
use crate::pods::{MacAddress, Via};

/// Fields of a key or a value, in their order.
pub type Fields = Map<String, Value>;

fn object(value: Value) -> Fields {
    match value {
        Value::Object(fields) => fields,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}

fn raw(bytes: &[u8]) -> Fields {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    object(json!({ "hex": hex }))
}

fn decode<T: FromBytes>(bytes: &[u8], show: impl FnOnce(T) -> Value) -> Fields {
    match T::read_from_bytes(bytes) {
        Ok(value) => object(show(value)),
        Err(_other_size) => raw(bytes),
    }
}

fn index(bytes: &[u8]) -> Fields {
    decode::<u32>(bytes, |index| json!({ "index": index }))
}

fn socket(addr: &Addr, port: [u8; 2]) -> String {
    SocketAddr::new(from_addr(addr), u16::from_be_bytes(port)).to_string()
}

fn head(word: u64) -> Value {
    let Head {
        base,
        len,
        generation,
    } = Head::unpack(word);
    json!({ "base": base, "len": len, "generation": generation })
}

fn frontend_key(key: FrontendKey) -> Value {
    json!({ "frontend": key.to_string() })
}

fn key_fields(map: &str, bytes: &[u8]) -> Fields {
    match map {
        "fe4" => decode::<Fe4Key>(bytes, |key| frontend_key(key.into())),
        "fe6" => decode::<Fe6Key>(bytes, |key| frontend_key(key.into())),
        "ct4" => decode::<Ct4Key>(bytes, |key| {
            let source = SocketAddr::new(key.src.into(), u16::from_be_bytes(key.sport));
            let destination = SocketAddr::new(key.dst.into(), u16::from_be_bytes(key.dport));
            flow(source, destination, key.proto, key.dir)
        }),
        "ct6" => decode::<Ct6Key>(bytes, |key| {
            let source = SocketAddr::new(key.src.into(), u16::from_be_bytes(key.sport));
            let destination = SocketAddr::new(key.dst.into(), u16::from_be_bytes(key.dport));
            flow(source, destination, key.proto, key.dir)
        }),
        "aff" => decode::<AffinityKey>(bytes, affinity_key),
        "udprev" => decode::<UdpKey>(
            bytes,
            |key| json!({ "socketCookie": key.cookie, "backend": socket(&key.addr, key.port) }),
        ),
        "ifx" => decode::<u32>(bytes, |ifindex| json!({ "ifindex": ifindex })),
        "local" => decode::<Addr>(bytes, |addr| json!({ "address": from_addr(&addr) })),
        "route" => decode::<RouteKey>(bytes, |key| {
            let range = range_of(&key);
            json!({ "range": format!("{}/{}", range.address, range.length) })
        }),
        "drop" => decode::<u32>(bytes, |index| {
            let known = DropReason::ALL
                .iter()
                .find(|reason| reason.index() == index);
            json!({ "reason": known.map_or("unknown", |reason| reason.name()) })
        }),
        "metric" => decode::<u32>(bytes, |index| {
            let known = Metric::ALL.iter().find(|metric| metric.index() == index);
            json!({ "verdict": known.map_or("unknown", |metric| metric.name()) })
        }),
        _ => index(bytes),
    }
}

fn flow(source: SocketAddr, destination: SocketAddr, protocol: u8, direction: u8) -> Value {
    json!({
        "protocol": IpProtocol(protocol).to_string(),
        "direction": if direction == 0 { "forward" } else { "reverse" },
        "source": source.to_string(),
        "destination": destination.to_string(),
    })
}

fn affinity_key(key: AffinityKey) -> Value {
    if key.kind == CLIENT_NETNS {
        let [a, b, c, d, e, f, g, h, ..] = key.client;
        #[expect(
            clippy::host_endian_bytes,
            reason = "the layout says: the cookie in the host's order"
        )]
        let cookie = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        json!({ "service": key.svc, "netnsCookie": cookie })
    } else {
        json!({ "service": key.svc, "client": from_addr(&key.client) })
    }
}

fn value_fields(map: &str, bytes: &[u8]) -> Fields {
    match map {
        "fe4" | "fe6" => decode::<Frontend>(
            bytes,
            |value| json!({ "service": value.svc, "flags": value.flags }),
        ),
        "svc" => decode::<Service>(bytes, service),
        "slot" => decode::<Slot>(bytes, |value| {
            let Slot {
                backend,
                alias,
                alias_share,
            } = value;
            json!({ "backend": backend, "alias": alias, "aliasShare": alias_share })
        }),
        "be" => decode::<Backend>(bytes, backend),
        "be_load" => decode::<BackendLoad>(
            bytes,
            |value| json!({ "inFlight": value.in_flight, "opened": value.opened, "failed": value.failed }),
        ),
        "ct4" | "ct6" => decode::<CtEntry>(bytes, conntrack),
        "aff" => decode::<Affinity>(bytes, |value| {
            json!({
                "backend": value.backend,
                "generation": value.backend_generation,
                "lastSeconds": value.last_s,
            })
        }),
        "udprev" => decode::<UdpFrontend>(
            bytes,
            |value| json!({ "frontend": socket(&value.vip, value.port), "service": value.svc }),
        ),
        "ifx" => decode::<u32>(bytes, |pod| json!({ "pod": pod })),
        "ep" => decode::<Endpoint>(bytes, endpoint),
        "local" => decode::<LocalPod>(bytes, |value| json!({ "pod": value.ep })),
        "route" => decode::<Route>(bytes, |value| {
            let route = route_of(&value);
            let via = match route.via {
                Via::Neighbour { ifindex } => format!("device {ifindex}"),
                Via::Stack => "stack".to_owned(),
            };
            json!({ "node": route.node, "via": via })
        }),
        "drop" | "metric" => {
            let count = sum(bytes);
            object(json!({ "packets": count.packets, "bytes": count.bytes }))
        }
        "meta" => decode::<Meta>(bytes, |value| {
            json!({
                "abiVersion": value.abi_version,
                "writerGeneration": value.writer_generation,
                "appliedRevision": value.applied_revision,
                "heartbeatNs": value.heartbeat_ns,
            })
        }),
        _ => raw(bytes),
    }
}

fn service(value: Service) -> Value {
    json!({
        "main": socket(&value.vip, value.port),
        "protocol": IpProtocol(value.proto).to_string(),
        "ready": head(value.head),
        "local": head(value.local_head),
        "terminating": head(value.terminating_head),
        "flags": value.flags,
        "affinitySeconds": value.affinity_s,
    })
}

fn backend(value: Backend) -> Value {
    json!({
        "address": socket(&value.addr, value.port),
        "state": BackendState::from(value.state),
        "flags": value.flags,
        "generation": value.generation,
        "service": value.svc,
    })
}

fn conntrack(value: CtEntry) -> Value {
    json!({
        "translated": socket(&value.nat_addr, value.nat_port),
        "service": value.svc,
        "backend": value.backend,
        "generation": value.backend_generation,
        "flags": value.flags,
        "packets": value.packets,
        "bytes": value.bytes,
        "lastSeconds": value.last_s,
    })
}

fn endpoint(value: Endpoint) -> Value {
    json!({
        "ifindex": value.ifindex,
        "ipv4": std::net::Ipv4Addr::from(value.ip4),
        "ipv6": std::net::Ipv6Addr::from(value.ip6),
        "mac": MacAddress(value.mac).to_string(),
        "hostMac": MacAddress(value.host_mac).to_string(),
        "netnsCookie": value.netns_cookie,
        "flags": value.flags,
    })
}

/// An element of the map `map` as named fields. Bytes of a size that this version does not expect
/// are shown in hexadecimal.
pub(super) fn fields(map: &str, key: &[u8], value: &[u8]) -> (Fields, Fields) {
    (key_fields(map, key), value_fields(map, value))
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn every_map_of_the_layout_is_shown_by_name_and_not_in_hexadecimal() {
        for spec in ebpf_abi::map::MAPS.iter().filter(|spec| spec.name != "sks") {
            let key = vec![0; usize::try_from(spec.key_size).unwrap()];
            let value = vec![0; usize::try_from(spec.value_size).unwrap()];
            let (key, value) = fields(spec.name, &key, &value);
            assert!(!key.contains_key("hex"), "{}: {key:?}", spec.name);
            assert!(!value.contains_key("hex"), "{}: {value:?}", spec.name);
        }
    }

    #[test]
    fn a_frontend_is_shown_as_people_write_it() {
        let key = Fe4Key {
            vip: [10, 96, 0, 1],
            port: 443_u16.to_be_bytes(),
            proto: 6,
            pad: 0,
        };
        let value = Frontend {
            svc: 7,
            flags: 0,
            pad: 0,
        };
        let (key, value) = fields("fe4", key.as_bytes(), value.as_bytes());
        assert_eq!(
            Value::Object(key),
            json!({ "frontend": "10.96.0.1:443/TCP" })
        );
        assert_eq!(Value::Object(value), json!({ "service": 7, "flags": 0 }));
    }

    #[test]
    fn bytes_of_another_size_are_shown_as_they_are() {
        let (key, _) = fields("fe4", &[1, 2], &[]);
        assert_eq!(Value::Object(key), json!({ "hex": "0102" }));
    }
}
