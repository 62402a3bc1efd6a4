//! Types of kinds for the static check of policies, and what the check says of a policy.

use std::collections::HashMap;
use std::sync::Arc;

use control_plane_apiextensions::cel::{Declared, Env, ObjectType, Program, Type};
use proto_api::schema::{Gvk, Scalar, Schema, Shape, TypeId, builtin};
use serde_json::{Value, json};

use super::parsed::VARIABLES;
use crate::registry::{Kind, Registry, group_version};
use crate::tree;

/// More kinds are not looked at (as upstream).
const KINDS_MAX: usize = 10;

/// The `expressionWarnings` of a validating policy.
pub(super) fn warnings(policy: &Value, registry: &Registry) -> Vec<Value> {
    let spec = tree::at(policy, &["spec"]);
    let params = tree::at(spec, &["paramKind"]);
    let params = params
        .is_object()
        .then(|| {
            let text = |field| tree::text(params, &[field]);
            registry.by_gvk(Gvk::parse(text("apiVersion"), text("kind")))
        })
        .flatten();
    let params = params.map_or(Type::Dyn, |kind| type_of(&kind));
    let environments: Vec<(String, Env)> = kinds(spec, registry)
        .iter()
        .map(|kind| {
            let version = group_version(kind.group, kind.version);
            let name = format!("{version}, Kind={}", kind.kind);
            (name, environment(spec, kind, &params))
        })
        .collect();
    let mut warnings = Vec::new();
    for (index, validation) in tree::list(spec, &["validations"]).iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let source = tree::text(validation, &[field]);
            if source.trim().is_empty() {
                continue;
            }
            let told: Vec<String> = environments
                .iter()
                .filter_map(|(name, env)| {
                    let fault = Program::checked(source, env).err()?;
                    Some(format!("{name}: {fault}"))
                })
                .collect();
            if !told.is_empty() {
                warnings.push(json!({
                    "fieldRef": format!("spec.validations[{index}].{field}"),
                    "warning": told.join("\n"),
                }));
            }
        }
    }
    warnings
}

/// The kinds that the policy's rules name; rules with wildcards name none.
fn kinds(spec: &Value, registry: &Registry) -> Vec<Arc<Kind>> {
    let mut found: Vec<Arc<Kind>> = Vec::new();
    for rule in tree::list(spec, &["matchConstraints", "resourceRules"]) {
        let texts =
            |field: &'static str| tree::list(rule, &[field]).iter().filter_map(Value::as_str);
        for group in texts("apiGroups") {
            for version in texts("apiVersions") {
                for resource in texts("resources") {
                    let Some(kind) = registry.by_plural(group, version, resource) else {
                        continue;
                    };
                    if !found.iter().any(|own| Arc::ptr_eq(own, &kind)) {
                        found.push(kind);
                    }
                }
            }
        }
    }
    found.sort_by_key(|kind| (kind.group, kind.version, kind.kind));
    found.truncate(KINDS_MAX);
    found
}

fn environment(spec: &Value, kind: &Kind, params: &Type) -> Env {
    let object = Arc::new(Declared::unsized_of(type_of(kind)));
    let mut env = Env::dynamic(&VARIABLES)
        .with("object", Arc::clone(&object))
        .with("oldObject", object)
        .with("params", Arc::new(Declared::unsized_of(params.clone())))
        .with(
            "authorizer",
            Arc::new(Declared::unsized_of(Type::Named(
                "kubernetes.authorization.Authorizer",
            ))),
        );
    let mut fields = std::collections::BTreeMap::new();
    for variable in tree::list(spec, &["variables"]) {
        let source = tree::text(variable, &["expression"]);
        let made = Program::checked(source, &env);
        let made = made.map_or(Type::Dyn, |program| program.result().clone());
        fields.insert(tree::text(variable, &["name"]).to_owned(), made);
        let variables = Type::Object(Arc::new(ObjectType {
            name: "kubernetes.variables".to_owned(),
            fields: fields.clone(),
            open: false,
        }));
        env = env.with("variables", Arc::new(Declared::unsized_of(variables)));
    }
    env
}

/// The type of a kind's objects; anything when it has none.
fn type_of(kind: &Kind) -> Type {
    let gvk = Gvk {
        group: kind.group,
        version: kind.version,
        kind: kind.kind,
    };
    let schema = match &kind.custom {
        Some(custom) => &custom.typed,
        None => builtin(),
    };
    let mut types = Types {
        schema,
        made: HashMap::new(),
    };
    schema.kind(gvk).map_or(Type::Dyn, |id| types.object(id))
}

struct Types<'a> {
    schema: &'a Schema,
    /// Types that are made; nothing for those that are being made, which contain themselves.
    made: HashMap<TypeId, Option<Type>>,
}

impl Types<'_> {
    fn object(&mut self, id: TypeId) -> Type {
        if let Some(made) = self.made.get(&id) {
            return made.clone().unwrap_or(Type::Dyn);
        }
        self.made.insert(id, None);
        let schema = self.schema;
        let own = schema.get(id);
        let fields = own.fields.iter();
        let fields = fields.map(|field| (field.name.to_string(), self.shape(&field.shape)));
        let made = Type::Object(Arc::new(ObjectType {
            name: own.name.to_string(),
            fields: fields.collect(),
            open: own.open,
        }));
        self.made.insert(id, Some(made.clone()));
        made
    }

    fn shape(&mut self, shape: &Shape) -> Type {
        match shape {
            Shape::Ref(id) => self.object(*id),
            Shape::List(item) => Type::list(self.shape(item)),
            Shape::Map(value) => Type::map(self.shape(value)),
            Shape::MapOfLists(item) => Type::map(Type::list(self.shape(item))),
            Shape::Scalar(scalar) => match scalar {
                Scalar::String => Type::Text,
                Scalar::Bool => Type::Bool,
                Scalar::Int32 | Scalar::Int64 => Type::Int,
                Scalar::Double => Type::Double,
                Scalar::Bytes => Type::Bytes,
                Scalar::Time | Scalar::MicroTime => Type::Timestamp,
                Scalar::Quantity
                | Scalar::IntOrString
                | Scalar::FieldsV1
                | Scalar::RawExtension
                | Scalar::Json
                | Scalar::Any => Type::Dyn,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(expression: &str) -> Vec<Value> {
        let policy = json!({"spec": {"matchConstraints": {"resourceRules": [{
            "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"],
            "resources": ["deployments"]}]},
            "variables": [{"name": "n", "expression": "object.spec.replicas"}],
            "validations": [{"expression": expression}]}});
        warnings(&policy, &Registry::default())
    }

    #[test]
    fn expressions_are_checked_against_the_kinds_they_are_about() {
        for good in [
            "object.spec.replicas > 1 && object.metadata.labels['a'] == 'b'",
            "oldObject == null || variables.n > oldObject.spec.replicas",
            "object.spec.template.spec.containers.all(c, c.image.startsWith('a'))",
            "authorizer.group('').resource('pods').check('get').allowed()",
            "authorizer.requestResource.check('get').allowed() && request.name != ''",
        ] {
            assert_eq!(told(good), Vec::<Value>::new(), "{good}");
        }
        assert_eq!(
            told("object.replicas > 1"),
            [json!({
                "fieldRef": "spec.validations[0].expression",
                "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field \
                    'replicas'\n | object.replicas > 1\n | ......^",
            })]
        );
        assert_eq!(told("variables.n == 'x'").len(), 1);
    }
}
