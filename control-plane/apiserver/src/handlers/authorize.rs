//! May they: the request in the authoriser's words, and upstream's sentence for a refusal.

use proto_api::selector::Fields;

use super::{Api, Call};
use crate::auth::{Attributes, Decision, User, forbidden};
use crate::http::ResourcePath;
use crate::status::StatusError;

/// Subresources that open a stream into a container.
const CONNECTS: [&str; 3] = ["attach", "exec", "portforward"];

impl Api {
    /// Refuses what nothing allows.
    pub(super) fn check(&self, user: &User, attributes: &Attributes) -> Result<(), StatusError> {
        match self.server.authorizer.authorize(user, attributes) {
            Decision::Allowed { .. } => Ok(()),
            Decision::Denied { reason } => Err(forbidden(user, attributes, &reason)),
        }
    }
}

impl Call {
    pub(super) fn authorize(&self) -> Result<(), StatusError> {
        let asked = self.attributes();
        let decision = self.api.server.authorizer.authorize(&self.user, &asked);
        if let Some(trail) = &self.trail {
            let word = if decision.is_allowed() {
                "allow"
            } else {
                "forbid"
            };
            trail.decision(word, decision.reason());
        }
        if let Decision::Denied { reason } = decision {
            return Err(forbidden(&self.user, &asked, &reason));
        }
        // A stream into a container is opened by GET where it is a WebSocket: reading a pod is not
        // enough for it.
        if asked.verb == "get" && CONNECTS.contains(&asked.subresource.as_str()) {
            let verb = "create".to_owned();
            self.api.check(&self.user, &Attributes { verb, ..asked })?;
        }
        Ok(())
    }

    /// What the request asks for, in the authoriser's words.
    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes {
            verb: self.info.verb.to_owned(),
            path: self.path.clone(),
            ..Attributes::default()
        };
        let Some(resource) = self.info.resource.clone() else {
            return attributes;
        };
        let ResourcePath {
            group,
            version,
            namespace,
            plural,
            name,
            subresource,
        } = resource;
        attributes = Attributes {
            group,
            version,
            namespace,
            resource: plural,
            name,
            subresource,
            ..attributes
        };
        // A namespace is in itself: who may read all in it may read it.
        if attributes.resource == "namespaces" && attributes.group.is_empty() {
            attributes.namespace.clone_from(&attributes.name);
        }
        if matches!(self.info.verb, "list" | "watch" | "deletecollection") {
            attributes.fields = self
                .query
                .get("fieldSelector")
                .unwrap_or_default()
                .to_owned();
            let fields = Fields::parse(&attributes.fields).unwrap_or_default();
            if let Some(name) = fields.exact("metadata.name")
                && attributes.name.is_empty()
            {
                attributes.name = name.to_owned();
            }
        }
        attributes
    }
}
