//! From a definition to kinds of the registry: one a served version, and one to store by.

use std::sync::Arc;

use control_plane_apiextensions::{
    self as definition, Definition, JsonPath, Rules, Version, typed,
};
use proto_api::schema::Gvk;

use super::strategy::Custom;
use super::table::Columns;
use super::{Conversion, CustomVersion};
use crate::registry::{
    Kind, Part, Scope, Selectable, StoredVersion, Subresource, Translation, group_version, intern,
};

/// The kinds of an established definition.
#[derive(Debug)]
pub(super) struct Kinds {
    /// Of the version that objects are stored in.
    pub(super) stored: Arc<Kind>,
    /// Of the served versions.
    pub(super) served: Vec<Arc<Kind>>,
}

/// Makes the kinds of `definition`; nothing when it stores no version.
pub(super) fn kinds(definition: &Definition) -> Option<Kinds> {
    let storage = definition.storage()?;
    let translation = translation(definition, storage);
    let stored = Arc::new(kind(definition, storage, &translation));
    let served = definition
        .versions
        .iter()
        .filter(|version| version.served)
        .map(|version| match version.storage {
            true => Arc::clone(&stored),
            false => Arc::new(kind(definition, version, &translation)),
        })
        .collect();
    Some(Kinds { stored, served })
}

/// How the versions of a definition are translated.
enum Between {
    /// There is one version.
    Nothing,
    /// They differ in their name alone; the stored one's.
    Names(String),
    Webhook {
        conversion: Arc<Conversion>,
        stored: StoredVersion,
    },
}

fn translation(definition: &Definition, storage: &Version) -> Between {
    // Objects may still be stored in a version that was the stored one before.
    if definition.versions.len() == 1 {
        return Between::Nothing;
    }
    let stored = group_version(&definition.group, &storage.name);
    let custom = custom(definition, storage).map(Arc::new);
    match (&definition.conversion, custom) {
        (definition::Conversion::Webhook(webhook), Some(custom)) => Between::Webhook {
            conversion: Arc::new(Conversion::new(webhook)),
            stored: StoredVersion {
                api_version: stored,
                custom,
            },
        },
        (definition::Conversion::Webhook(_) | definition::Conversion::None, _) => {
            Between::Names(stored)
        }
    }
}

impl Between {
    fn of(&self, shown: String) -> Option<Translation> {
        match self {
            Self::Nothing => None,
            Self::Names(stored) => Some(Translation::Version {
                shown,
                stored: stored.clone(),
            }),
            Self::Webhook { conversion, stored } => Some(Translation::Webhook {
                conversion: Arc::clone(conversion),
                stored: stored.clone(),
            }),
        }
    }
}

fn kind(definition: &Definition, version: &Version, between: &Between) -> Kind {
    let names = &definition.names;
    let group = intern(&definition.group);
    let mut subresources = Vec::new();
    if version.status {
        subresources.push(Subresource::Status);
    }
    if version.scale.is_some() {
        subresources.push(Subresource::Scale);
    }
    let shown = group_version(group, &version.name);
    let schema = Arc::new(version.schema.clone());
    let strategy = Custom {
        rules: Rules::of(&schema),
        schema: Arc::clone(&schema),
        status: version.status,
        warning: version.warning.clone(),
    };
    Kind {
        group,
        version: intern(&version.name),
        kind: intern(&names.kind),
        list_kind: intern(&names.list_kind),
        plural: intern(&names.plural),
        singular: intern(&names.singular),
        short: names.short.iter().map(|name| intern(name)).collect(),
        categories: names.categories.iter().map(|name| intern(name)).collect(),
        scope: if definition.namespaced {
            Scope::Namespaced
        } else {
            Scope::Cluster
        },
        subresources: subresources.into(),
        fields: Selectable::Paths(selectable(definition)),
        table: Part::Shared(Arc::new(Columns {
            columns: version.columns.clone(),
        })),
        strategy: Part::Shared(Arc::new(strategy)),
        storage_group: group,
        view: between.of(shown),
        custom: custom(definition, version).map(Arc::new),
    }
}

/// The fields of all versions: the cache keeps one list of values an object.
fn selectable(definition: &Definition) -> Box<[(String, JsonPath)]> {
    let mut all: Vec<(String, JsonPath)> = Vec::new();
    for version in &definition.versions {
        for field in &version.selectable {
            if !all.iter().any(|(name, _)| *name == field.0) {
                all.push(field.clone());
            }
        }
    }
    all.into()
}

fn custom(definition: &Definition, version: &Version) -> Option<CustomVersion> {
    let gvk = Gvk {
        group: &definition.group,
        version: &version.name,
        kind: &definition.names.kind,
    };
    let schema = Arc::new(version.schema.clone());
    let typed = typed(gvk, &schema);
    let type_id = typed.kind(gvk)?;
    Some(CustomVersion {
        source: version.source.clone(),
        schema,
        typed,
        type_id,
        scale: version.scale.clone(),
        terminating: definition.terminating,
    })
}
