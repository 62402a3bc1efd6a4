//! The parameters that a binding names.

use std::sync::Arc;

use proto_api::schema::Gvk;
use serde_json::Value;

use super::super::rules::World;
use super::parsed::{Binding, Policy};
use crate::object::ObjKey;
use crate::registry::Kind;
use crate::server::Server;
use crate::tree;
use crate::validation::selects;

/// Why there are no parameters, and whose fault it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ParamError {
    /// The policy names a kind that is not served.
    #[error("failed to configure policy: {0}")]
    Policy(String),
    /// The binding names what is not there.
    #[error("failed to configure binding: {0}")]
    Binding(String),
}

/// The parameters for a request in `namespace`, each of which is asked with; null stands for none.
pub(super) fn params(
    policy: &Policy,
    binding: &Binding,
    namespace: &str,
    world: World<'_>,
) -> Result<Vec<Value>, ParamError> {
    let Some((api_version, name)) = &policy.param_kind else {
        return Ok(vec![Value::Null]);
    };
    let kind = world.registry.by_gvk(Gvk::parse(api_version, name));
    let kind = kind.ok_or_else(|| {
        let kind = format!("{api_version}, Kind={name}");
        let why = format!("failed to find resource referenced by paramKind: '{kind}'");
        ParamError::Policy(why)
    })?;
    if binding.params.is_null() {
        return Ok(vec![Value::Null]);
    }
    let found = selected(&kind, &binding.params, namespace, world)?;
    if found.is_empty() && tree::text(&binding.params, &["parameterNotFoundAction"]) == "Deny" {
        let why = "no params found for policy binding with `Deny` parameterNotFoundAction";
        return Err(ParamError::Binding(why.to_owned()));
    }
    Ok(found)
}

fn selected(
    kind: &Arc<Kind>,
    reference: &Value,
    namespace: &str,
    world: World<'_>,
) -> Result<Vec<Value>, ParamError> {
    let own = tree::text(reference, &["namespace"]);
    let namespace = match (kind.namespaced(), own, namespace) {
        (true, "", "") => {
            let why = "cannot use namespaced paramRef in policy binding that matches \
                       cluster-scoped resources";
            return Err(ParamError::Binding(why.to_owned()));
        }
        (true, "", namespace) => namespace,
        (true, own, _) => own,
        (false, "", _) => "",
        (false, ..) => {
            let why = "paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
            return Err(ParamError::Binding(why.to_owned()));
        }
    };
    let cache = world.cache.of(kind);
    let name = tree::text(reference, &["name"]);
    if !name.is_empty() {
        let found = cache.get(&ObjKey::new(namespace, name));
        return Ok(found.iter().map(|obj| Server::shown(kind, obj)).collect());
    }
    let selector = tree::at(reference, &["selector"]);
    let objects = cache.snapshot();
    let objects = objects
        .values()
        .filter(|obj| &*obj.key.namespace == namespace)
        .map(|obj| Server::shown(kind, obj));
    Ok(objects
        .filter(|object| selects(selector, tree::at(object, &["metadata", "labels"])))
        .collect())
}
