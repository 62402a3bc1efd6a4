//! What is logged: the first rule that matches a request decides how much.

use proto_api::decode::{self, Encoding};
use serde_json::Value;

use super::event::Asked;
use crate::auth::User;
use crate::tree;

const GROUP: &str = "audit.k8s.io/v1";

/// Why a policy is unusable.
#[derive(Debug, thiserror::Error)]
pub enum AuditPolicyError {
    /// Not YAML.
    #[error("the audit policy is no YAML: {0}")]
    Yaml(String),
    /// Not a policy.
    #[error("the audit policy is {found:?}, not apiVersion {GROUP}, kind Policy")]
    Kind {
        /// What it is.
        found: String,
    },
    /// A value is none of the known ones.
    #[error("audit policy: {field}: {value:?} is not one of {known:?}")]
    Value {
        /// Where.
        field: String,
        /// What it says.
        value: String,
        /// What it may say.
        known: &'static [&'static str],
    },
    /// No rule at all.
    #[error("the audit policy has no rules; a policy that logs nothing has one of level None")]
    Empty,
}

/// How much of a request is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    const NAMES: &'static [&'static str] = &["None", "Metadata", "Request", "RequestResponse"];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [
            Self::None,
            Self::Metadata,
            Self::Request,
            Self::RequestResponse,
        ]
        .into_iter()
        .find(|level| level.name() == name)
    }
}

/// When an event is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
}

impl Stage {
    const NAMES: &'static [&'static str] = &[
        "RequestReceived",
        "ResponseStarted",
        "ResponseComplete",
        "Panic",
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
        }
    }
}

#[derive(Debug)]
struct Resources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

#[derive(Debug)]
struct Rule {
    level: Level,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
    omitted: Vec<String>,
}

/// The rules of a policy file.
#[derive(Debug)]
pub struct AuditPolicy {
    rules: Vec<Rule>,
    omitted: Vec<String>,
    omit_managed_fields: bool,
}

/// What a policy says of one request.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    pub(super) level: Level,
    omitted: Vec<String>,
    pub(super) omit_managed_fields: bool,
}

impl Verdict {
    pub(super) fn wants(&self, stage: Stage) -> bool {
        self.level > Level::None && !self.omitted.iter().any(|omitted| omitted == stage.name())
    }
}

impl AuditPolicy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// It is no policy, or a value in it is unknown.
    pub fn parse(text: &str) -> Result<Self, AuditPolicyError> {
        let (policy, _) = decode::parse(text.as_bytes(), Encoding::Yaml)
            .map_err(|fault| AuditPolicyError::Yaml(fault.to_string()))?;
        let (version, kind) = (
            tree::text(&policy, &["apiVersion"]),
            tree::text(&policy, &["kind"]),
        );
        if (version, kind) != (GROUP, "Policy") {
            return Err(AuditPolicyError::Kind {
                found: format!("{version} {kind}"),
            });
        }
        let rules = tree::list(&policy, &["rules"])
            .iter()
            .enumerate()
            .map(|(i, rule)| parse_rule(rule, &format!("rules[{i}]")))
            .collect::<Result<Vec<_>, _>>()?;
        if rules.is_empty() {
            return Err(AuditPolicyError::Empty);
        }
        Ok(Self {
            rules,
            omitted: stages(&policy, "omitStages")?,
            omit_managed_fields: tree::flag(&policy, &["omitManagedFields"]),
        })
    }

    pub(super) fn verdict(&self, user: &User, asked: &Asked) -> Verdict {
        let rule = self.rules.iter().find(|rule| rule.matches(user, asked));
        let mut omitted = self.omitted.clone();
        omitted.extend(rule.into_iter().flat_map(|rule| rule.omitted.clone()));
        Verdict {
            level: rule.map_or(Level::None, |rule| rule.level),
            omitted,
            omit_managed_fields: self.omit_managed_fields,
        }
    }
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    tree::list(value, &[field])
        .iter()
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}

fn stages(value: &Value, field: &str) -> Result<Vec<String>, AuditPolicyError> {
    let named = texts(value, field);
    match named
        .iter()
        .find(|name| !Stage::NAMES.contains(&name.as_str()))
    {
        None => Ok(named),
        Some(unknown) => Err(AuditPolicyError::Value {
            field: field.to_owned(),
            value: unknown.clone(),
            known: Stage::NAMES,
        }),
    }
}

fn parse_rule(rule: &Value, path: &str) -> Result<Rule, AuditPolicyError> {
    let level = tree::text(rule, &["level"]);
    let level = Level::parse(level).ok_or_else(|| AuditPolicyError::Value {
        field: format!("{path}.level"),
        value: level.to_owned(),
        known: Level::NAMES,
    })?;
    let resources = tree::list(rule, &["resources"])
        .iter()
        .map(|resources| Resources {
            group: tree::text(resources, &["group"]).to_owned(),
            resources: texts(resources, "resources"),
            names: texts(resources, "resourceNames"),
        })
        .collect();
    Ok(Rule {
        level,
        users: texts(rule, "users"),
        groups: texts(rule, "userGroups"),
        verbs: texts(rule, "verbs"),
        resources,
        namespaces: texts(rule, "namespaces"),
        paths: texts(rule, "nonResourceURLs"),
        omitted: stages(rule, "omitStages")?,
    })
}

impl Rule {
    fn matches(&self, user: &User, asked: &Asked) -> bool {
        let any = |list: &[String], found: &dyn Fn(&String) -> bool| {
            list.is_empty() || list.iter().any(found)
        };
        if !any(&self.users, &|name| *name == user.name)
            || !any(&self.groups, &|group| user.in_group(group))
            || !any(&self.verbs, &|verb| *verb == asked.verb || verb == "*")
        {
            return false;
        }
        let names_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        match &asked.resource {
            Some(resource) if names_resources => {
                any(&self.namespaces, &|name| *name == resource.namespace)
                    && (self.resources.is_empty()
                        || self.resources.iter().any(|own| own.has(asked)))
            }
            None if !self.paths.is_empty() => self.paths.iter().any(|path| {
                path == "*"
                    || *path == asked.path
                    || path
                        .strip_suffix('*')
                        .is_some_and(|prefix| asked.path.starts_with(prefix))
            }),
            // A rule for everything.
            _ => !names_resources && self.paths.is_empty(),
        }
    }
}

impl Resources {
    fn has(&self, asked: &Asked) -> bool {
        let Some(resource) = &asked.resource else {
            return false;
        };
        if self.group != resource.group {
            return false;
        }
        if !self.names.is_empty() && !self.names.contains(&resource.name) {
            return false;
        }
        self.resources.is_empty()
            || self.resources.iter().any(|own| {
                let (plural, sub) = own.split_once('/').unwrap_or((own, ""));
                own == "*"
                    || ((plural == "*" || plural == resource.plural)
                        && (sub == resource.subresource
                            || (sub == "*" && !resource.subresource.is_empty())))
            })
    }
}
