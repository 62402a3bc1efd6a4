//! Which writes a policy or webhook is asked about: rules, selectors, equivalent versions.

use std::sync::Arc;

use serde_json::Value;

use crate::admission::dynamic::request::{Operation, Request};
use crate::cache::WatchCache;
use crate::object::ObjKey;
use crate::registry::{Kind, Registry};
use crate::tree;
use crate::validation::selects;

/// Configurations of admission itself: nothing but the server's own rules may stand in their way.
const EXEMPT: [&str; 6] = [
    "validatingwebhookconfigurations",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];

/// The rules and selectors of one webhook, or of `matchConstraints` or `matchResources`.
#[derive(Debug, Clone)]
pub(crate) struct Matcher {
    rules: Option<Vec<Rule>>,
    exclude: Vec<Rule>,
    namespaces: Selector,
    objects: Selector,
    exact: bool,
}

#[derive(Debug, Clone)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    resources: Vec<(String, String)>,
    /// Empty: all.
    names: Vec<String>,
    scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Cluster,
    Namespaced,
}

/// A label selector; nothing when it selects everything.
#[derive(Debug, Clone)]
struct Selector(Option<Value>);

impl Selector {
    fn of(selector: &Value) -> Self {
        let all = selector.as_object().is_none_or(serde_json::Map::is_empty);
        Self((!all).then(|| selector.clone()))
    }

    fn selects(&self, labels: &Value) -> bool {
        self.0.as_ref().is_none_or(|own| selects(own, labels))
    }
}

/// What a matcher looks up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) cache: &'a WatchCache,
    pub(crate) registry: &'a Registry,
}

impl World<'_> {
    /// The namespace that a request is in, as stored; nothing for cluster-scoped kinds.
    pub(crate) fn namespace(&self, name: &str) -> Option<Value> {
        if name.is_empty() {
            return None;
        }
        let kind = self.registry.by_plural("", "v1", "namespaces")?;
        let found = self.cache.of(&kind).get(&ObjKey::new("", name))?;
        Some(found.value())
    }
}

impl Matcher {
    /// Of a webhook: its `rules` are all it has.
    pub(crate) fn of_webhook(webhook: &Value) -> Self {
        Self::of(webhook, "rules")
    }

    /// Of a policy's `matchConstraints` or a binding's `matchResources`, which say nothing of what
    /// they leave out.
    pub(crate) fn of_resources(holder: &Value) -> Self {
        Self::of(holder, "resourceRules")
    }

    fn of(holder: &Value, rules: &str) -> Self {
        let all = |field: &str| -> Vec<Rule> {
            let rules = tree::list(holder, &[field]).iter();
            rules.map(Rule::of).collect()
        };
        Self {
            rules: Some(all(rules)).filter(|rules| !rules.is_empty()),
            exclude: all("excludeResourceRules"),
            namespaces: Selector::of(tree::at(holder, &["namespaceSelector"])),
            objects: Selector::of(tree::at(holder, &["objectSelector"])),
            exact: tree::text(holder, &["matchPolicy"]) == "Exact",
        }
    }

    /// The kind in whose form the objects are to be shown, when the request is meant.
    /// `object`: what the write makes; null when it deletes.
    pub(crate) fn matches(
        &self,
        request: &Request<'_>,
        object: &Value,
        world: World<'_>,
    ) -> Option<Arc<Kind>> {
        let own = &request.target.kind;
        if own.group == "admissionregistration.k8s.io" && EXEMPT.contains(&own.plural) {
            return None;
        }
        // The rules first: they cost nothing.
        let kind = match &self.rules {
            Some(rules) => self.kind(rules, request, world)?,
            None => Arc::clone(own),
        };
        if self.kind(&self.exclude, request, world).is_some() {
            return None;
        }
        let selected =
            self.selects_object(request, object) && self.selects_namespace(request, object, world);
        selected.then_some(kind)
    }

    fn kind(&self, rules: &[Rule], request: &Request<'_>, world: World<'_>) -> Option<Arc<Kind>> {
        let own = &request.target.kind;
        if rules.iter().any(|rule| rule.means(request, own)) {
            return Some(Arc::clone(own));
        }
        if self.exact || rules.is_empty() {
            return None;
        }
        // Not even this rule is about the operation or the place: do not look for equivalents.
        let near: Vec<&Rule> = rules.iter().filter(|rule| rule.is_near(request)).collect();
        if near.is_empty() {
            return None;
        }
        let equivalents = world.registry.served().into_iter().filter(|kind| {
            kind.storage_group == own.storage_group
                && kind.plural == own.plural
                && (kind.group, kind.version) != (own.group, own.version)
        });
        let equivalents: Vec<Arc<Kind>> = equivalents.collect();
        near.iter().find_map(|rule| {
            let mut equivalents = equivalents.iter();
            equivalents.find(|kind| rule.is_of(kind)).cloned()
        })
    }

    fn selects_object(&self, request: &Request<'_>, object: &Value) -> bool {
        if self.objects.0.is_none() {
            return true;
        }
        let selected = |object: &Value| {
            object.is_object()
                && self
                    .objects
                    .selects(tree::at(object, &["metadata", "labels"]))
        };
        selected(object) || selected(request.old)
    }

    fn selects_namespace(&self, request: &Request<'_>, object: &Value, world: World<'_>) -> bool {
        if self.namespaces.0.is_none() {
            return true;
        }
        let labels = |object: &Value| tree::at(object, &["metadata", "labels"]).clone();
        let written = matches!(request.operation, Operation::Create | Operation::Update);
        if request.is_namespace() && written && request.target.subresource.is_none() {
            return self.namespaces.selects(&labels(object));
        }
        let name = request.namespace();
        // What is in no namespace is never left out by where it is.
        if name.is_empty() {
            return true;
        }
        let found = world.namespace(name).unwrap_or_default();
        self.namespaces.selects(&labels(&found))
    }
}

impl Rule {
    fn of(rule: &Value) -> Self {
        let texts = |field: &str| -> Vec<String> {
            let items = tree::list(rule, &[field]).iter();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let split = |text: String| match text.split_once('/') {
            Some((resource, subresource)) => (resource.to_owned(), subresource.to_owned()),
            None => (text, String::new()),
        };
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources").into_iter().map(split).collect(),
            names: texts("resourceNames"),
            scope: match tree::text(rule, &["scope"]) {
                "Cluster" => Scope::Cluster,
                "Namespaced" => Scope::Namespaced,
                _ => Scope::All,
            },
        }
    }

    fn means(&self, request: &Request<'_>, kind: &Kind) -> bool {
        self.is_near(request) && self.is_of(kind)
    }

    /// Whether all but group and version fit.
    fn is_near(&self, request: &Request<'_>) -> bool {
        let kind = &request.target.kind;
        let place = match self.scope {
            Scope::All => true,
            Scope::Cluster => !kind.namespaced(),
            Scope::Namespaced => kind.namespaced(),
        };
        let one = |all: &[String], own: &str| all.iter().any(|text| text == "*" || text == own);
        let resource = self.resources.iter().any(|(resource, subresource)| {
            (resource == "*" || resource == kind.plural)
                && (subresource == "*" || subresource == request.subresource())
        });
        place
            && resource
            && one(&self.operations, request.operation.name())
            && (self.names.is_empty() || self.names.iter().any(|name| name == request.name()))
    }

    fn is_of(&self, kind: &Kind) -> bool {
        let one = |all: &[String], own: &str| all.iter().any(|text| text == "*" || text == own);
        one(&self.groups, kind.group) && one(&self.versions, kind.version)
    }
}

#[cfg(test)]
mod tests;
