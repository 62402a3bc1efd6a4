//! A row of the table of built-in kinds: a kind as constants, and how a row is written.
//!
//! A row names what every kind has; the rest has a default and a method:
//!
//! ```text
//! namespaced(APPS, "Deployment", "deployments", &workload::Deployment, &workload::DEPLOYMENT_TABLE)
//!     .short(&["deploy"]).all().subresources(&[Scale, Status])
//! ```

use super::{
    FieldReader, Kind, Part, Scope, Selectable, Strategy, Subresource, Translation, View, intern,
};
use crate::tables::Table;

/// Group and version.
pub(super) type GroupVersion = (&'static str, &'static str);

/// A built-in kind; fields as in [`Kind`].
#[derive(Debug)]
pub(super) struct Row {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    scope: Scope,
    subresources: &'static [Subresource],
    fields: &'static [(&'static str, FieldReader)],
    table: &'static Table,
    strategy: &'static dyn Strategy,
    storage_group: &'static str,
    view: Option<View>,
}

/// A kind whose objects live in a namespace.
pub(super) const fn namespaced(
    gv: GroupVersion,
    kind: &'static str,
    plural: &'static str,
    strategy: &'static dyn Strategy,
    table: &'static Table,
) -> Row {
    Row {
        group: gv.0,
        version: gv.1,
        kind,
        plural,
        short: &[],
        categories: &[],
        scope: Scope::Namespaced,
        subresources: &[],
        fields: &[],
        table,
        strategy,
        storage_group: gv.0,
        view: None,
    }
}

/// A kind whose objects live in the cluster.
pub(super) const fn cluster(
    gv: GroupVersion,
    kind: &'static str,
    plural: &'static str,
    strategy: &'static dyn Strategy,
    table: &'static Table,
) -> Row {
    let mut row = namespaced(gv, kind, plural, strategy, table);
    row.scope = Scope::Cluster;
    row
}

impl Row {
    /// Short names that kubectl understands.
    pub(super) const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short = names;
        self
    }

    /// Shown by `kubectl get all`.
    pub(super) const fn all(self) -> Self {
        self.categories(&["all"])
    }

    /// Categories that it is shown with.
    pub(super) const fn categories(mut self, names: &'static [&'static str]) -> Self {
        self.categories = names;
        self
    }

    /// Paths below an object.
    pub(super) const fn subresources(mut self, paths: &'static [Subresource]) -> Self {
        self.subresources = paths;
        self
    }

    /// Selectable fields beside name and namespace.
    pub(super) const fn fields(mut self, fields: &'static [(&'static str, FieldReader)]) -> Self {
        self.fields = fields;
        self
    }

    /// Another form of the objects that group `storage` keeps.
    pub(super) const fn view_of(mut self, storage: &'static str, view: View) -> Self {
        self.storage_group = storage;
        self.view = Some(view);
        self
    }

    /// The kind at run time.
    pub(super) fn kind(&self) -> Kind {
        Kind {
            group: self.group,
            version: self.version,
            kind: self.kind,
            list_kind: intern(&format!("{}List", self.kind)),
            plural: self.plural,
            singular: intern(&self.kind.to_ascii_lowercase()),
            short: self.short.into(),
            categories: self.categories.into(),
            scope: self.scope,
            subresources: self.subresources.into(),
            fields: Selectable::Builtin(self.fields),
            table: Part::Static(self.table),
            strategy: Part::Static(self.strategy),
            storage_group: self.storage_group,
            view: self.view.map(Translation::View),
            custom: None,
        }
    }
}
