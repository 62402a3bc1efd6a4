//! Which part of a pod range is free. Pure.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::config::PodRange;

/// A part of a range, by its index, as text: `10.244.3.0/24`.
fn part(range: &PodRange, index: u128) -> Option<String> {
    let width = if range.address.is_ipv4() { 32 } else { 128 };
    let shift = u32::from(width - range.node_prefix);
    let offset = index.checked_shl(shift)?;
    let address = match range.address {
        IpAddr::V4(address) => {
            let base = u128::from(u32::from(address)) & mask(range.prefix, 32);
            IpAddr::V4(u32::try_from(base + offset).ok()?.into())
        }
        IpAddr::V6(address) => {
            let base = u128::from(address) & mask(range.prefix, 128);
            IpAddr::V6((base + offset).into())
        }
    };
    Some(format!("{address}/{}", range.node_prefix))
}

fn mask(prefix: u8, width: u8) -> u128 {
    let host = u32::from(width.saturating_sub(prefix));
    u128::MAX.checked_shl(host).unwrap_or(0)
}

/// Number of parts in a range.
fn parts(range: &PodRange) -> u128 {
    let bits = u32::from(range.node_prefix.saturating_sub(range.prefix));
    1_u128.checked_shl(bits).unwrap_or(u128::MAX)
}

/// The first free part of each range; `None` when one is exhausted.
pub(super) fn allocate(ranges: &[PodRange], used: &HashSet<String>) -> Option<Vec<String>> {
    ranges
        .iter()
        .map(|range| {
            (0..parts(range))
                .filter_map(|index| part(range, index))
                .find(|part| !used.contains(part))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str, node_prefix: u8) -> PodRange {
        let (address, prefix) = text.split_once('/').expect("prefix");
        PodRange {
            address: address.parse().expect("address"),
            prefix: prefix.parse().expect("prefix"),
            node_prefix,
        }
    }

    fn check(ranges: &[PodRange], used: &[&str]) -> Option<Vec<String>> {
        allocate(
            ranges,
            &used.iter().map(|part| (*part).to_owned()).collect(),
        )
    }

    #[test]
    fn the_first_free_part_of_each_family_is_given() {
        let both = [range("10.244.0.0/16", 24), range("fd00:10:244::/56", 64)];
        let expected = vec!["10.244.0.0/24".to_owned(), "fd00:10:244::/64".to_owned()];
        assert_eq!(check(&both, &[]), Some(expected));
        let used = ["10.244.0.0/24", "10.244.1.0/24", "fd00:10:244::/64"];
        let expected = vec!["10.244.2.0/24".to_owned(), "fd00:10:244:1::/64".to_owned()];
        assert_eq!(check(&both, &used), Some(expected));
    }

    #[test]
    fn an_exhausted_range_gives_nothing() {
        let range = [range("10.0.0.0/23", 24)];
        assert_eq!(
            check(&range, &["10.0.0.0/24"]),
            Some(vec!["10.0.1.0/24".to_owned()])
        );
        assert_eq!(check(&range, &["10.0.0.0/24", "10.0.1.0/24"]), None);
    }
}
