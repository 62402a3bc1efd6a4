//! Which objects a list or watch selects: namespace, labels, fields.

use proto_api::selector::Labels;

use crate::object::Obj;

/// One requirement on a selectable field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    /// Which field.
    pub field: Field,
    /// The value to compare with.
    pub value: Box<str>,
    /// Whether the values must be the same.
    pub equal: bool,
}

/// A field that can be selected on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `metadata.name`
    Name,
    /// `metadata.namespace`
    Namespace,
    /// The kind's selectable field at this index.
    Kind(usize),
}

/// A selection. The default selects everything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this namespace.
    pub namespace: Option<Box<str>>,
    /// Label requirements; `None` selects all.
    pub labels: Option<Labels>,
    /// Field requirements, all of them.
    pub fields: Vec<FieldRequirement>,
}

impl Filter {
    /// Only the objects of `namespace`; all when it is empty.
    #[must_use]
    pub fn in_namespace(namespace: &str) -> Self {
        let namespace = (!namespace.is_empty()).then(|| namespace.into());
        Self {
            namespace,
            ..Self::default()
        }
    }

    /// Whether labels or fields select (so that counts are unknown).
    #[must_use]
    pub fn is_selective(&self) -> bool {
        self.labels.is_some() || !self.fields.is_empty()
    }

    /// The one name that can match, when a field requirement says so.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.fields
            .iter()
            .find(|r| r.equal && r.field == Field::Name)
            .map(|requirement| requirement.value.as_ref())
    }

    /// Whether `obj` is selected.
    #[must_use]
    pub fn matches(&self, obj: &Obj) -> bool {
        if self
            .namespace
            .as_deref()
            .is_some_and(|n| n != &*obj.key.namespace)
        {
            return false;
        }
        self.fields.iter().all(|requirement| {
            let actual: &str = match requirement.field {
                Field::Name => &obj.key.name,
                Field::Namespace => &obj.key.namespace,
                Field::Kind(index) => obj.fields.get(index).map_or("", |text| text),
            };
            (actual == &*requirement.value) == requirement.equal
        }) && self
            .labels
            .as_ref()
            .is_none_or(|labels| labels.matches(|key| obj.meta.label(key)))
    }
}
