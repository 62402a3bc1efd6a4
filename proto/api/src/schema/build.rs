//! A schema made at run time: types of custom kinds beside copies of built-in ones. Changes with
//! what such types need.

use std::collections::HashMap;

use super::{Field, Gvk, PatchStrategy, Schema, Shape, Text, Type, TypeId};

/// Types that will be a [`Schema`].
#[derive(Debug, Default)]
pub struct Builder {
    types: Vec<Type>,
    imported: HashMap<TypeId, TypeId>,
}

impl Builder {
    /// Adds a type; its fields may come in any order.
    pub fn add(&mut self, mut ty: Type) -> TypeId {
        ty.fields.sort_by(|a, b| a.name.cmp(&b.name));
        let id = TypeId(u32::try_from(self.types.len()).unwrap_or(u32::MAX));
        self.types.push(ty);
        id
    }

    /// Copies the type `name` of another schema, and all it refers to. Nothing when it has no such.
    /// All imports must be of one schema.
    pub fn import(&mut self, from: &Schema, name: &str) -> Option<TypeId> {
        let id = from.named(name)?;
        Some(self.copy(from, id))
    }

    fn copy(&mut self, from: &Schema, id: TypeId) -> TypeId {
        if let Some(known) = self.imported.get(&id) {
            return *known;
        }
        let original = from.get(id);
        let copy = self.add(Type {
            fields: Vec::new(),
            kinds: Vec::new(),
            ..original.clone()
        });
        // Before its fields: a type may refer to itself.
        self.imported.insert(id, copy);
        let mut fields = original.fields.clone();
        for field in &mut fields {
            self.refer(from, &mut field.shape);
        }
        if let Some(ty) = self.types.get_mut(copy.0 as usize) {
            ty.fields = fields;
        }
        copy
    }

    fn refer(&mut self, from: &Schema, shape: &mut Shape) {
        match shape {
            Shape::Ref(id) => *id = self.copy(from, *id),
            Shape::List(inner) | Shape::Map(inner) | Shape::MapOfLists(inner) => {
                self.refer(from, inner);
            }
            Shape::Scalar(_) => {}
        }
    }

    /// Makes `id` the type of a kind.
    pub fn register(&mut self, id: TypeId, gvk: Gvk<'_>) {
        let owned = |text: &str| Text::from(text.to_owned());
        if let Some(ty) = self.types.get_mut(id.0 as usize) {
            ty.kinds
                .push((owned(gvk.group), owned(gvk.version), owned(gvk.kind)));
        }
    }

    /// The schema.
    pub fn finish(self) -> Schema {
        let mut schema = Schema {
            types: self.types,
            ..Schema::default()
        };
        schema.index();
        schema
    }
}

impl Field {
    /// A field of which nothing but name and shape is known.
    pub fn plain(name: &str, shape: Shape) -> Self {
        Self {
            name: name.to_owned().into(),
            shape,
            number: 0,
            inline: Box::default(),
            required: false,
            pointer: true,
            omit_empty: false,
            list_type: None,
            list_map_keys: Vec::new(),
            map_atomic: false,
            default: None,
            patch: PatchStrategy::default(),
            patch_merge_key: None,
            go_type: None,
            description: u32::MAX,
        }
    }
}
