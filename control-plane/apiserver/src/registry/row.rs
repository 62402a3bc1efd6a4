//! A row of the table of built-in kinds: a kind as constants.

use super::{FieldReader, Kind, Part, Scope, Selectable, Strategy, Subresource, View, intern};
use crate::tables::Table;

/// A built-in kind; fields as in [`Kind`].
#[derive(Debug)]
pub(super) struct Row {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) singular: &'static str,
    pub(super) short: &'static [&'static str],
    pub(super) categories: &'static [&'static str],
    pub(super) scope: Scope,
    pub(super) subresources: &'static [Subresource],
    pub(super) fields: &'static [(&'static str, FieldReader)],
    pub(super) table: &'static Table,
    pub(super) strategy: &'static dyn Strategy,
    pub(super) storage_group: &'static str,
    pub(super) view: Option<View>,
}

impl Row {
    /// The kind at run time.
    pub(super) fn kind(&self) -> Kind {
        Kind {
            group: self.group,
            version: self.version,
            kind: self.kind,
            list_kind: intern(&format!("{}List", self.kind)),
            plural: self.plural,
            singular: self.singular,
            short: self.short.into(),
            categories: self.categories.into(),
            scope: self.scope,
            subresources: self.subresources.into(),
            fields: Selectable::Builtin(self.fields),
            table: Part::Static(self.table),
            strategy: Part::Static(self.strategy),
            storage_group: self.storage_group,
            view: self.view,
        }
    }
}
