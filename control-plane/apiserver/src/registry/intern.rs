//! Names that live for ever: those of custom kinds, which messages, metrics and routes refer to.
//!
//! A name is kept once however often its kind is made, so what is kept is bounded by the number of
//! distinct names that were ever used: about a hundred bytes a kind.

use std::collections::HashSet;

use parking_lot::RwLock;

static NAMES: RwLock<Option<HashSet<&'static str>>> = RwLock::new(None);

/// `name`, for ever.
pub(crate) fn intern(name: &str) -> &'static str {
    if let Some(known) = NAMES.read().as_ref().and_then(|names| names.get(name)) {
        return known;
    }
    let mut names = NAMES.write();
    let names = names.get_or_insert_default();
    if let Some(known) = names.get(name) {
        return known;
    }
    let kept: &'static str = Box::leak(name.into());
    names.insert(kept);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one() {
        let (a, b) = (intern("crontabs"), intern(&["cron", "tabs"].concat()));
        assert!(std::ptr::eq(a, b));
        assert_ne!(a, intern("crontab"));
    }
}
