//! `authorizer` in expressions: may this user, or another, do that?

use std::sync::Arc;

use control_plane_apiextensions::cel::{Budget, CelError, Opaque, Value};

use super::request::Request;
use crate::auth::{Attributes, Authorizer, Decision, User};

/// What one check costs (as upstream): an expression has room for two.
const CHECK_COST: u64 = 350_000;

/// The variable `authorizer` of a request.
pub(crate) fn authorizer(authorizer: &Arc<Authorizer>, request: &Request<'_>) -> Value {
    let kind = &request.target.kind;
    let own = Attributes {
        group: kind.group.to_owned(),
        version: kind.version.to_owned(),
        resource: kind.plural.to_owned(),
        subresource: request.subresource().to_owned(),
        namespace: request.namespace().to_owned(),
        name: request.name().to_owned(),
        ..Attributes::default()
    };
    Value::Opaque(Arc::new(Asker {
        authorizer: Arc::clone(authorizer),
        user: Arc::clone(request.user),
        own: Some(own),
    }))
}

/// Asks on behalf of a user.
#[derive(Debug)]
struct Asker {
    authorizer: Arc<Authorizer>,
    user: Arc<User>,
    /// What the request itself is about.
    own: Option<Attributes>,
}

impl Asker {
    fn check(&self, asked: Attributes) -> Value {
        Value::Opaque(Arc::new(Check {
            authorizer: Arc::clone(&self.authorizer),
            user: Arc::clone(&self.user),
            asked,
        }))
    }
}

impl Opaque for Asker {
    fn type_name(&self) -> &'static str {
        "kubernetes.authorization.Authorizer"
    }

    fn field(&self, name: &str, _budget: &mut Budget) -> Result<Value, CelError> {
        match (&self.own, name) {
            (Some(own), "requestResource") => Ok(self.check(own.clone())),
            _ => Err(CelError::NoSuchKey(name.to_owned())),
        }
    }

    fn call(
        &self,
        name: &str,
        args: &[Value],
        budget: &mut Budget,
    ) -> Option<Result<Value, CelError>> {
        if let Err(fault) = budget.spend(1) {
            return Some(Err(fault));
        }
        let made = match (name, args) {
            ("path", [Value::Text(path)]) => self.check(Attributes {
                path: path.as_ref().to_owned(),
                ..Attributes::default()
            }),
            ("group", [Value::Text(group)]) => Value::Opaque(Arc::new(Group {
                asker: Self {
                    authorizer: Arc::clone(&self.authorizer),
                    user: Arc::clone(&self.user),
                    own: None,
                },
                group: group.as_ref().to_owned(),
            })),
            ("serviceAccount", [Value::Text(namespace), Value::Text(account)]) => {
                let groups = [
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                ];
                let name = format!("system:serviceaccount:{namespace}:{account}");
                Value::Opaque(Arc::new(Self {
                    authorizer: Arc::clone(&self.authorizer),
                    user: Arc::new(User::known(&name, groups)),
                    own: None,
                }))
            }
            _ => return None,
        };
        Some(Ok(made))
    }
}

#[derive(Debug)]
struct Group {
    asker: Asker,
    group: String,
}

impl Opaque for Group {
    fn type_name(&self) -> &'static str {
        "kubernetes.authorization.GroupCheck"
    }

    fn call(
        &self,
        name: &str,
        args: &[Value],
        _budget: &mut Budget,
    ) -> Option<Result<Value, CelError>> {
        let ("resource", [Value::Text(resource)]) = (name, args) else {
            return None;
        };
        Some(Ok(self.asker.check(Attributes {
            group: self.group.clone(),
            version: "*".to_owned(),
            resource: resource.as_ref().to_owned(),
            ..Attributes::default()
        })))
    }
}

/// What is asked, so far.
#[derive(Debug)]
struct Check {
    authorizer: Arc<Authorizer>,
    user: Arc<User>,
    asked: Attributes,
}

impl Opaque for Check {
    fn type_name(&self) -> &'static str {
        if self.asked.path.is_empty() {
            "kubernetes.authorization.ResourceCheck"
        } else {
            "kubernetes.authorization.PathCheck"
        }
    }

    fn call(
        &self,
        name: &str,
        args: &[Value],
        budget: &mut Budget,
    ) -> Option<Result<Value, CelError>> {
        let [Value::Text(text)] = args else {
            return None;
        };
        let text = text.as_ref().to_owned();
        let mut asked = self.asked.clone();
        match (name, self.asked.path.is_empty()) {
            ("check", _) => {
                if let Err(fault) = budget.spend(CHECK_COST) {
                    return Some(Err(fault));
                }
                asked.verb = text;
                let decision = self.authorizer.authorize(&self.user, &asked);
                return Some(Ok(Value::Opaque(Arc::new(Ruling(decision)))));
            }
            ("subresource", true) => asked.subresource = text,
            ("namespace", true) => asked.namespace = text,
            ("name", true) => asked.name = text,
            ("fieldSelector", true) => asked.fields = text,
            // Rules do not look at labels; the node authoriser allows no less without.
            ("labelSelector", true) => {}
            _ => return None,
        }
        Some(Ok(Value::Opaque(Arc::new(Self {
            authorizer: Arc::clone(&self.authorizer),
            user: Arc::clone(&self.user),
            asked,
        }))))
    }
}

#[derive(Debug)]
struct Ruling(Decision);

impl Opaque for Ruling {
    fn type_name(&self) -> &'static str {
        "kubernetes.authorization.Decision"
    }

    fn call(
        &self,
        name: &str,
        args: &[Value],
        _budget: &mut Budget,
    ) -> Option<Result<Value, CelError>> {
        match (name, args) {
            ("allowed", []) => Some(Ok(Value::Bool(self.0.is_allowed()))),
            ("reason", []) => Some(Ok(Value::Text(self.0.reason().into()))),
            ("errored", []) => Some(Ok(Value::Bool(false))),
            ("error", []) => Some(Ok(Value::Text("".into()))),
            _ => None,
        }
    }
}
