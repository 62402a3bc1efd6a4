//! Names: the grammar of questions about services, pods and addresses. Pure.
//!
//! A name is in wire form and lower case: labels, each behind its length, closed by a zero byte
//! (the root). A *relative* name lacks the zone and the zero. Nothing here allocates for a question.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name on the wire, RFC 1035 section 2.3.4.
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// Longest label.
pub(crate) const LABEL_BYTES_MAX: usize = 63;

/// The zones of reverse names, in wire form.
pub(crate) const IN_ADDR_ARPA: &[u8] = b"\x07in-addr\x04arpa\0";
pub(crate) const IP6_ARPA: &[u8] = b"\x03ip6\x04arpa\0";

/// The labels of a name up to the root or the end.
#[derive(Clone, Debug)]
pub(crate) struct Labels<'a>(&'a [u8]);

/// The labels of a wire name (relative or not), first label first.
pub(crate) fn labels(name: &[u8]) -> Labels<'_> {
    Labels(name)
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.0.split_first()?;
        let (label, rest) = rest.split_at_checked(usize::from(*len))?;
        if label.is_empty() {
            return None;
        }
        self.0 = rest;
        Some(label)
    }
}

/// A relative wire name of these labels, in lower case. `None`: a label or the whole does not fit.
pub(crate) fn relative<'a>(labels: impl IntoIterator<Item = &'a str>) -> Option<Box<[u8]>> {
    let mut name = Vec::with_capacity(48);
    for label in labels {
        let len = u8::try_from(label.len()).ok()?;
        if len == 0 || label.len() > LABEL_BYTES_MAX {
            return None;
        }
        name.push(len);
        name.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    (name.len() < NAME_BYTES_MAX).then(|| name.into())
}

/// A whole wire name from text such as `cluster.local` or `example.com.`.
pub(crate) fn absolute(text: &str) -> Option<Box<[u8]>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut name = match text {
        "" => Vec::new(),
        _ => relative(text.split('.'))?.into_vec(),
    };
    name.push(0);
    Some(name.into())
}

/// The part of `name` before `zone`, when `name` is in it. Both end with the root.
pub(crate) fn before<'a>(name: &'a [u8], zone: &[u8]) -> Option<&'a [u8]> {
    let at = name.len().checked_sub(zone.len())?;
    let mut start = 0;
    // A label may contain the zone's bytes, so only starts of labels count.
    while start < at {
        start += 1 + usize::from(*name.get(start)?);
    }
    (start == at && &name[at..] == zone).then(|| &name[..at])
}

/// The name as text, for logs and tests. Bytes that are no plain characters are escaped.
pub(crate) fn text(name: &[u8]) -> String {
    let labels: Vec<_> = labels(name)
        .map(|label| label.escape_ascii().to_string())
        .collect();
    format!("{}.", labels.join("."))
}

/// The label that stands for an address: `10-1-0-3`, `fd00--2-2`. A label must not end with a
/// hyphen, so a trailing `::` gets a zero.
pub(crate) fn dashed(ip: IpAddr) -> String {
    let mut label = ip.to_string().replace(['.', ':'], "-");
    if label.ends_with('-') {
        label.push('0');
    }
    label
}

/// The address that such a label stands for.
pub(crate) fn parse_dashed(label: &[u8]) -> Option<IpAddr> {
    let label = std::str::from_utf8(label).ok()?;
    if !label
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    {
        return None;
    }
    if label.bytes().filter(|byte| *byte == b'-').count() == 3 && !label.contains("--") {
        return label
            .replace('-', ".")
            .parse::<Ipv4Addr>()
            .ok()
            .map(IpAddr::V4);
    }
    label
        .replace('-', ":")
        .parse::<Ipv6Addr>()
        .ok()
        .map(IpAddr::V6)
}

/// The address that a reverse name (`4.3.2.1.in-addr.arpa`, 32 nibbles under `ip6.arpa`) asks for.
pub(crate) fn parse_reverse(name: &[u8]) -> Option<IpAddr> {
    if let Some(before) = before(name, IN_ADDR_ARPA) {
        let mut octets = [0; 4];
        let mut labels = labels(before);
        for octet in octets.iter_mut().rev() {
            *octet = decimal(labels.next()?)?;
        }
        return labels
            .next()
            .is_none()
            .then(|| Ipv4Addr::from(octets).into());
    }
    let mut bits: u128 = 0;
    let mut labels = labels(before(name, IP6_ARPA)?);
    for nibble in 0..32 {
        let [digit] = labels.next()? else { return None };
        bits |= u128::from(char::from(*digit).to_digit(16)?) << (4 * nibble);
    }
    labels.next().is_none().then(|| Ipv6Addr::from(bits).into())
}

/// A number of one to three digits up to 255, without leading zeros.
fn decimal(label: &[u8]) -> Option<u8> {
    if label.len() > 1 && label.first() == Some(&b'0') || !label.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(label).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip() -> impl Strategy<Value = IpAddr> {
        // Addresses with runs of zeros are where the shortened forms differ.
        let v6 = prop::array::uniform8(prop_oneof![3 => Just(0_u16), 2 => any::<u16>()]);
        prop_oneof![
            any::<[u8; 4]>().prop_map(|octets| Ipv4Addr::from(octets).into()),
            v6.prop_map(|segments| Ipv6Addr::from(segments).into()),
        ]
    }

    fn reverse_text(ip: IpAddr) -> String {
        match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
            }
            IpAddr::V6(ip) => {
                let digits: Vec<_> = format!("{:032x}", ip.to_bits()).chars().rev().collect();
                let digits: String = digits.iter().flat_map(|digit| [*digit, '.']).collect();
                format!("{digits}ip6.arpa.")
            }
        }
    }

    proptest! {
        #[test]
        fn a_dashed_address_means_the_address(ip in ip()) {
            // An IPv4-mapped address is written with dots inside and has no dashed form of its own.
            prop_assume!(!matches!(ip, IpAddr::V6(ip) if ip.to_string().contains('.')));
            let label = dashed(ip);
            prop_assert_eq!(parse_dashed(label.as_bytes()), Some(ip), "{}", label);
            prop_assert!(!label.ends_with('-'));
        }

        #[test]
        fn a_reverse_name_means_the_address(ip in ip()) {
            let name = absolute(&reverse_text(ip)).unwrap();
            prop_assert_eq!(parse_reverse(&name), Some(ip));
            prop_assert_eq!(text(&name), reverse_text(ip));
            prop_assert_eq!(parse_reverse(&name[2..]), None);
        }

        #[test]
        fn any_bytes_are_no_trouble(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            parse_dashed(&bytes);
            parse_reverse(&bytes);
            before(&bytes, IN_ADDR_ARPA);
            prop_assert!(labels(&bytes).map(<[u8]>::len).sum::<usize>() <= bytes.len());
        }

        #[test]
        fn a_name_in_the_zone_splits_where_the_zone_starts(
            parts in prop::collection::vec("[a-z0-9_-]{1,12}", 0..5),
        ) {
            let zone = absolute("cluster.local").unwrap();
            let relative = relative(parts.iter().map(String::as_str)).unwrap();
            let name = [&relative, &*zone].concat();
            prop_assert_eq!(before(&name, &zone), Some(&*relative));
            let other = [&*relative, b"\x06custer\x05local\0".as_slice()].concat();
            prop_assert_eq!(before(&other, &zone), None);
        }
    }

    #[test]
    fn the_zones_bytes_within_a_label_do_not_count() {
        let zone = absolute("ab").unwrap();
        assert_eq!(before(b"\x04x\x02ab\0", &zone), None);
        assert_eq!(before(b"\x01x\x02ab\0", &zone), Some(b"\x01x".as_slice()));
    }

    #[test]
    fn labels_that_are_no_addresses_are_refused() {
        for label in [
            "",
            "1-2-3",
            "1-2-3-256",
            "1-2-3-4-5",
            "web",
            "x--1",
            "1.2.3.4",
            "-",
            "1-2--4",
        ] {
            let parsed = parse_dashed(label.as_bytes());
            assert!(
                !matches!(parsed, Some(IpAddr::V4(_))),
                "{label}: {parsed:?}"
            );
        }
        for name in [
            "1.2.3.in-addr.arpa",
            "01.2.3.4.in-addr.arpa",
            "256.2.3.4.in-addr.arpa",
            "x.1.2.3.4.in-addr.arpa",
            "1.2.ip6.arpa",
            "4.3.2.1.example.com",
        ] {
            assert_eq!(parse_reverse(&absolute(name).unwrap()), None, "{name}");
        }
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        assert_eq!(relative(["a".repeat(64).as_str()]), None);
        assert_eq!(relative(["a", ""]), None);
        let label = "a".repeat(63);
        assert_eq!(relative([label.as_str(); 4]), None);
        assert!(relative([label.as_str(); 3]).is_some());
        assert_eq!(absolute("."), Some([0].into()));
    }
}
