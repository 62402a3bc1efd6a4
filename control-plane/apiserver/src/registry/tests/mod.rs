//! The table of kinds is consistent in itself.

mod kinds;

use super::*;

#[test]
fn every_kind_is_found_by_path_and_by_kind() {
    let registry = Registry::default();
    for kind in &registry.served() {
        let found = registry
            .by_plural(kind.group, kind.version, kind.plural)
            .unwrap();
        assert_eq!(found.kind, kind.kind);
        assert!(registry.by_kind(kind.group, kind.kind).is_some());
        assert_eq!(
            kind.table.columns().len(),
            kind.table
                .row(&serde_json::json!({}), jiff::Timestamp::UNIX_EPOCH)
                .len(),
            "{}",
            kind.kind
        );
    }
}

#[test]
fn a_view_has_the_fields_of_its_storage_in_the_same_order() {
    let registry = Registry::default();
    for view in registry.served().iter().filter(|kind| kind.view.is_some()) {
        let stored = registry
            .by_plural(view.storage_group, "v1", view.plural)
            .unwrap();
        assert_eq!(view.fields.count(), stored.fields.count());
    }
}
