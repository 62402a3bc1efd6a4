//! The schema as the types that server-side apply and OpenAPI paths read.

use proto_api::schema::{
    self, Builder, Field, Gvk, ListType as Merge, Scalar, Shape, Type, TypeId,
};

use super::{Additional, ListType, Schema, Type as Json};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The types of custom kind `gvk`. `schema`: of its objects, or nothing where any field may stand.
#[must_use]
pub fn typed(gvk: Gvk<'_>, schema: &Schema) -> schema::Schema {
    let mut types = Types {
        builder: Builder::default(),
        open: None,
    };
    let meta = types.builder.import(schema::builtin(), OBJECT_META);
    let name = definition_name(gvk);
    let root = types.object(schema, &name, meta);
    types.builder.register(root, gvk);
    types.builder.finish()
}

/// `com.example.stable.v1.CronTab`.
pub(crate) fn definition_name(gvk: Gvk<'_>) -> String {
    let mut parts: Vec<&str> = gvk.group.split('.').rev().collect();
    parts.extend([gvk.version, gvk.kind]);
    parts.join(".")
}

struct Types {
    builder: Builder,
    /// The type of objects of which nothing is known.
    open: Option<TypeId>,
}

impl Types {
    fn object(&mut self, schema: &Schema, name: &str, meta: Option<TypeId>) -> TypeId {
        let mut fields = Vec::new();
        if meta.is_some() || schema.embedded {
            for name in ["apiVersion", "kind"] {
                fields.push(Field::plain(name, Shape::Scalar(Scalar::String)));
            }
            let meta = meta.map_or_else(|| self.open(), Shape::Ref);
            fields.push(Field::plain("metadata", meta));
        }
        for (name_of, property) in &schema.properties {
            if fields.iter().any(|field: &Field| *field.name == **name_of) {
                continue;
            }
            fields.push(self.field(name_of, property, name));
        }
        let open =
            schema.preserve_unknown || matches!(schema.additional, Some(Additional::Any(true)));
        self.builder.add(Type {
            name: name.to_owned().into(),
            atomic: schema.map_atomic,
            open,
            fields,
            kinds: Vec::new(),
            description: u32::MAX,
        })
    }

    fn open(&mut self) -> Shape {
        let id = match self.open {
            Some(id) => id,
            None => self.builder.add(Type {
                name: "open".into(),
                atomic: false,
                open: true,
                fields: Vec::new(),
                kinds: Vec::new(),
                description: u32::MAX,
            }),
        };
        self.open = Some(id);
        Shape::Ref(id)
    }

    fn field(&mut self, name: &str, schema: &Schema, parent: &str) -> Field {
        let own = format!("{parent}.{name}");
        let mut field = Field::plain(name, self.shape(schema, &own));
        field.list_type = schema.list_type.map(|list_type| match list_type {
            ListType::Atomic => Merge::Atomic,
            ListType::Set => Merge::Set,
            ListType::Map => Merge::Map,
        });
        field.list_map_keys = schema
            .list_map_keys
            .iter()
            .cloned()
            .map(Into::into)
            .collect();
        field.map_atomic = schema.map_atomic;
        field.default = schema.default.as_ref().map(ToString::to_string);
        field
    }

    fn shape(&mut self, schema: &Schema, name: &str) -> Shape {
        if schema.int_or_string {
            return Shape::Scalar(Scalar::Any);
        }
        match schema.kind {
            None if schema.preserve_unknown => self.open(),
            None => Shape::Scalar(Scalar::Any),
            Some(Json::Object) => match &schema.additional {
                Some(Additional::Of(value)) if schema.properties.is_empty() => {
                    let value = self.shape(value, &format!("{name}.*"));
                    Shape::Map(Box::new(value))
                }
                _ if schema.properties.is_empty() && !schema.embedded && !is_closed(schema) => {
                    self.open()
                }
                _ => Shape::Ref(self.object(schema, name, None)),
            },
            Some(Json::Array) => {
                let item = match &schema.items {
                    Some(item) => self.shape(item, &format!("{name}[]")),
                    None => Shape::Scalar(Scalar::Any),
                };
                Shape::List(Box::new(item))
            }
            Some(Json::String | Json::Integer | Json::Number | Json::Boolean) => {
                Shape::Scalar(Scalar::Any)
            }
        }
    }
}

/// An object that has no field at all.
fn is_closed(schema: &Schema) -> bool {
    !schema.preserve_unknown && !matches!(schema.additional, Some(Additional::Any(true)))
}
