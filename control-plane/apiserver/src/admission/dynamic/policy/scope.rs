//! What expressions see of a request: the variables that all share, and those of the policy, which
//! are made when first asked for.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use control_plane_apiextensions::cel::Value as CelValue;
use control_plane_apiextensions::cel::{Budget, CelError, Opaque, Variables};
use parking_lot::Mutex;
use serde_json::Value;

use super::super::authorizer::authorizer;
use super::super::request::Request;
use super::super::rules::World;
use super::super::told::told;
use super::parsed::{Expression, Policy};
use crate::auth::Authorizer;
use crate::registry::Kind;
use crate::tree;

/// The values of one request, made once for each kind in whose form it is shown.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    request: &'a Request<'a>,
    object: &'a Value,
    world: World<'a>,
    authorizer: &'a Arc<Authorizer>,
    made: Vec<(Arc<Kind>, Variables)>,
}

impl<'a> Scope<'a> {
    pub(super) const fn new(
        request: &'a Request<'a>,
        object: &'a Value,
        world: World<'a>,
        authorizer: &'a Arc<Authorizer>,
    ) -> Self {
        Self {
            request,
            object,
            world,
            authorizer,
            made: Vec::new(),
        }
    }

    /// The variables of a policy about the request, shown as `kind` has it, with `params`.
    pub(super) fn variables(
        &mut self,
        policy: &Arc<Policy>,
        kind: &Arc<Kind>,
        params: &Value,
    ) -> Variables {
        let mut variables = self.shared(kind);
        variables.insert("params".to_owned(), CelValue::of(params));
        if policy.variables.is_empty() {
            return variables;
        }
        let composed = Arc::new_cyclic(|own| Composed {
            own: Weak::clone(own),
            policy: Arc::clone(policy),
            shared: variables.clone(),
            made: Mutex::default(),
        });
        variables.insert("variables".to_owned(), CelValue::Opaque(composed));
        variables
    }

    fn shared(&mut self, kind: &Arc<Kind>) -> Variables {
        if let Some((_, made)) = self.made.iter().find(|(own, _)| Arc::ptr_eq(own, kind)) {
            return made.clone();
        }
        let request = self.request;
        let shown = |object: &Value| CelValue::of(&request.shown(kind, object));
        let namespace = match request.is_namespace() {
            true => None,
            false => self.world.namespace(request.namespace()),
        };
        let made = Variables::from([
            ("object".to_owned(), shown(self.object)),
            ("oldObject".to_owned(), shown(request.old)),
            ("request".to_owned(), CelValue::of(&told(request, kind))),
            (
                "namespaceObject".to_owned(),
                CelValue::of(&namespace.map_or(Value::Null, described)),
            ),
            (
                "authorizer".to_owned(),
                authorizer(self.authorizer, request),
            ),
        ]);
        self.made.push((Arc::clone(kind), made.clone()));
        made
    }
}

/// What policies see of a namespace.
fn described(mut namespace: Value) -> Value {
    tree::object_mut(&mut namespace, "metadata").shift_remove("managedFields");
    namespace
}

/// `variables`: each is evaluated when it is first named.
#[derive(Debug)]
struct Composed {
    own: Weak<Self>,
    policy: Arc<Policy>,
    shared: Variables,
    made: Mutex<HashMap<String, Result<CelValue, CelError>>>,
}

impl Opaque for Composed {
    fn type_name(&self) -> &'static str {
        "kubernetes.variables"
    }

    fn field(&self, name: &str, budget: &mut Budget) -> Result<CelValue, CelError> {
        if let Some(made) = self.made.lock().get(name) {
            return made.clone();
        }
        let all = &self.policy.variables;
        let at = all.iter().position(|(own, _)| own == name);
        let Some(at) = at else {
            return Err(CelError::NoSuchKey(name.to_owned()));
        };
        let mut variables = self.shared.clone();
        if let (Some(own), true) = (self.own.upgrade(), at > 0) {
            // Those before it alone, so no variable needs itself.
            let before = Arc::new(Before {
                all: own,
                count: at,
            });
            variables.insert("variables".to_owned(), CelValue::Opaque(before));
        }
        let expression: &Expression = &all[at].1;
        let made = expression.evaluate(&variables, budget).map_err(|fault| {
            CelError::Value(format!(
                "composited variable \"{name}\" fails to evaluate: {fault}"
            ))
        });
        self.made.lock().insert(name.to_owned(), made.clone());
        made
    }
}

/// The first variables of a policy.
#[derive(Debug)]
struct Before {
    all: Arc<Composed>,
    count: usize,
}

impl Opaque for Before {
    fn type_name(&self) -> &'static str {
        "kubernetes.variables"
    }

    fn field(&self, name: &str, budget: &mut Budget) -> Result<CelValue, CelError> {
        let mut before = self.all.policy.variables.iter().take(self.count);
        if before.any(|(own, _)| own == name) {
            self.all.field(name, budget)
        } else {
            Err(CelError::NoSuchKey(name.to_owned()))
        }
    }
}
