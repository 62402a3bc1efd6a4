//! The order of API versions: `v2`, `v1`, `v1beta2`, `v1beta1`, `v1alpha1`, then other names.

use std::cmp::{Ordering, Reverse};

/// Compares two versions; the preferred one is less.
pub(crate) fn by_preference(a: &str, b: &str) -> Ordering {
    let key = |version| rank(version).map_or((1, Reverse((0, 0, 0))), |rank| (0, Reverse(rank)));
    key(a).cmp(&key(b)).then_with(|| a.cmp(b))
}

/// Stability, major, minor; `None` when the name is not of the form `v1beta1`.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (major, rest) = rest.split_at(digits);
    let major = number(major)?;
    for (word, stability) in [("alpha", 0), ("beta", 1)] {
        if let Some(minor) = rest.strip_prefix(word) {
            return Some((stability, major, number(minor)?));
        }
    }
    rest.is_empty().then_some((2, major, 0))
}

fn number(text: &str) -> Option<u64> {
    (!text.starts_with('0'))
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_by_stability_then_number() {
        let mut versions = [
            "foo10",
            "v1alpha1",
            "v12alpha1",
            "v2",
            "v3beta1",
            "v10",
            "v11beta2",
            "foo1",
            "v1",
            "v10beta3",
            "v11alpha2",
            "v0",
        ];
        versions.sort_by(|a, b| by_preference(a, b));
        let expected = [
            "v10",
            "v2",
            "v1",
            "v11beta2",
            "v10beta3",
            "v3beta1",
            "v12alpha1",
            "v11alpha2",
            "v1alpha1",
            "foo1",
            "foo10",
            "v0",
        ];
        assert_eq!(versions, expected);
    }
}
