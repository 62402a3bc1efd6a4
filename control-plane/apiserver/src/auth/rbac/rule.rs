//! What one rule allows, and which rules contain which.
//!
//! Pure. Matching and containment are upstream's: a verb, group or resource `*` is all; `*/scale`
//! is that subresource of everything; a path that ends in `*` is a prefix; no names are all names.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::auth::Attributes;
use crate::tree;

const ALL: &str = "*";

/// One rule of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyRule {
    /// Verbs.
    pub verbs: Vec<Box<str>>,
    /// API groups.
    pub groups: Vec<Box<str>>,
    /// Resources, or `resource/subresource`.
    pub resources: Vec<Box<str>>,
    /// Object names; empty is all.
    pub names: Vec<Box<str>>,
    /// Paths that are no resources.
    pub urls: Vec<Box<str>>,
}

impl PolicyRule {
    /// The rule as stored.
    #[must_use]
    pub fn of(rule: &Value) -> Self {
        let texts = |field: &str| -> Vec<Box<str>> {
            tree::list(rule, &[field])
                .iter()
                .filter_map(|text| text.as_str().map(Box::from))
                .collect()
        };
        Self {
            verbs: texts("verbs"),
            groups: texts("apiGroups"),
            resources: texts("resources"),
            names: texts("resourceNames"),
            urls: texts("nonResourceURLs"),
        }
    }

    /// The rules of a role or cluster role.
    #[must_use]
    pub fn all_of(role: &Value) -> Vec<Self> {
        tree::list(role, &["rules"]).iter().map(Self::of).collect()
    }

    /// The two rules that allow everything.
    #[must_use]
    pub fn everything() -> [Self; 2] {
        let all = || vec![Box::from(ALL)];
        [
            Self {
                verbs: all(),
                groups: all(),
                resources: all(),
                ..Self::default()
            },
            Self {
                verbs: all(),
                urls: all(),
                ..Self::default()
            },
        ]
    }

    /// The rule as stored.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut rule = json!({"verbs": self.verbs});
        for (name, texts) in [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.urls),
        ] {
            if !texts.is_empty() {
                rule[name] = json!(texts);
            }
        }
        rule
    }

    fn has_verb(&self, verb: &str) -> bool {
        has(&self.verbs, verb)
    }

    fn allows_resource(&self, asked: &Attributes) -> bool {
        self.has_verb(&asked.verb)
            && has(&self.groups, &asked.group)
            && self
                .resources
                .iter()
                .any(|own| names_resource(own, &asked.resource, &asked.subresource))
            && (self.names.is_empty() || self.names.iter().any(|name| **name == asked.name))
    }

    fn allows_path(&self, asked: &Attributes) -> bool {
        self.has_verb(&asked.verb) && self.urls.iter().any(|url| names_path(url, &asked.path))
    }

    /// Whether this rule allows everything that the single `part` (see [`PolicyRule::parts`])
    /// allows.
    fn contains(&self, part: &Self) -> bool {
        let each = |texts: &[Box<str>], own: &[Box<str>]| texts.iter().all(|text| has(own, text));
        if !each(&part.verbs, &self.verbs) {
            return false;
        }
        if !part.urls.is_empty() {
            let urls = &self.urls;
            return part
                .urls
                .iter()
                .all(|url| urls.iter().any(|own| contains_path(own, url)));
        }
        each(&part.groups, &self.groups)
            && part.resources.iter().all(|resource| {
                let (plural, sub) = resource.split_once('/').unwrap_or((resource, ""));
                self.resources
                    .iter()
                    .any(|own| own == resource || names_resource(own, plural, sub))
            })
            && (self.names.is_empty()
                || (!part.names.is_empty() && part.names.iter().all(|n| self.names.contains(n))))
    }

    /// The rule taken apart: one verb, one group and one resource (or path), one name each.
    fn parts(&self) -> Vec<Self> {
        let one = |text: &str| vec![Box::from(text)];
        let mut parts = Vec::new();
        for verb in &self.verbs {
            for (group, resource) in self
                .groups
                .iter()
                .flat_map(|group| self.resources.iter().map(move |r| (group, r)))
            {
                let part = Self {
                    verbs: one(verb),
                    groups: one(group),
                    resources: one(resource),
                    ..Self::default()
                };
                if self.names.is_empty() {
                    parts.push(part);
                } else {
                    parts.extend(self.names.iter().map(|name| Self {
                        names: one(name),
                        ..part.clone()
                    }));
                }
            }
            parts.extend(self.urls.iter().map(|url| Self {
                verbs: one(verb),
                urls: one(url),
                ..Self::default()
            }));
        }
        parts
    }
}

fn has(own: &[Box<str>], asked: &str) -> bool {
    own.iter().any(|text| **text == *ALL || **text == *asked)
}

fn names_resource(own: &str, resource: &str, subresource: &str) -> bool {
    if own == ALL {
        return true;
    }
    if subresource.is_empty() {
        return own == resource;
    }
    match own.split_once('/') {
        Some((plural, sub)) => sub == subresource && (plural == ALL || plural == resource),
        None => false,
    }
}

fn names_path(own: &str, path: &str) -> bool {
    own == ALL
        || own == path
        || own
            .strip_suffix('*')
            .is_some_and(|prefix| path.starts_with(prefix))
}

fn contains_path(own: &str, path: &str) -> bool {
    names_path(own, path.trim_end_matches('*')) && (own.ends_with('*') || own == path)
}

/// A role's rules, indexed by resource.
#[derive(Debug, Default)]
pub(in crate::auth) struct Role {
    rules: Vec<PolicyRule>,
    /// Rules that name a resource, by its plural.
    by_plural: HashMap<Box<str>, Vec<usize>>,
    /// Rules that name a resource with a `*`.
    any: Vec<usize>,
    /// Rules that name paths.
    paths: Vec<usize>,
}

impl Role {
    pub(in crate::auth) fn new(rules: Vec<PolicyRule>) -> Self {
        let mut role = Self::default();
        for (at, rule) in rules.iter().enumerate() {
            if !rule.urls.is_empty() {
                role.paths.push(at);
            }
            for resource in &rule.resources {
                let plural = resource.split('/').next().unwrap_or_default();
                let list = if plural == ALL {
                    &mut role.any
                } else {
                    role.by_plural.entry(plural.into()).or_default()
                };
                if list.last() != Some(&at) {
                    list.push(at);
                }
            }
        }
        role.rules = rules;
        role
    }

    pub(super) fn rules(&self) -> &[PolicyRule] {
        &self.rules
    }

    pub(in crate::auth) fn allows(&self, asked: &Attributes) -> bool {
        let rule = |at: &usize| self.rules.get(*at);
        if asked.resource.is_empty() {
            return self
                .paths
                .iter()
                .filter_map(rule)
                .any(|rule| rule.allows_path(asked));
        }
        let named = self.by_plural.get(asked.resource.as_str());
        let mut candidates = named.into_iter().flatten().chain(&self.any);
        candidates.any(|at| rule(at).is_some_and(|rule| rule.allows_resource(asked)))
    }
}

/// The parts of `wanted` that no rule of `held` contains, merged for messages.
pub(crate) fn uncovered(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let missing = wanted
        .iter()
        .flat_map(PolicyRule::parts)
        .filter(|part| !held.iter().any(|rule| rule.contains(part)));
    merge(missing.collect())
}

/// Rules that differ in nothing but their verbs become one.
fn merge(parts: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut places: BTreeMap<[Vec<Box<str>>; 4], usize> = BTreeMap::new();
    let mut merged: Vec<PolicyRule> = Vec::new();
    for part in parts {
        let key = [
            part.groups.clone(),
            part.resources.clone(),
            part.names.clone(),
            part.urls.clone(),
        ];
        if let Some(rule) = places.get(&key).and_then(|at| merged.get_mut(*at)) {
            for verb in part.verbs {
                if !rule.verbs.contains(&verb) {
                    rule.verbs.push(verb);
                }
            }
        } else {
            places.insert(key, merged.len());
            merged.push(part);
        }
    }
    merged
}

/// The rule in upstream's short form.
pub(crate) fn compact(rule: &PolicyRule) -> String {
    let list = |texts: &[Box<str>]| {
        let quoted: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
        quoted.join(" ")
    };
    let parts: Vec<String> = [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.urls),
        ("ResourceNames", &rule.names),
        ("Verbs", &rule.verbs),
    ]
    .into_iter()
    .filter(|(_, texts)| !texts.is_empty())
    .map(|(name, texts)| format!("{name}:[{}]", list(texts)))
    .collect();
    format!("{{{}}}", parts.join(", "))
}
