//! PodSecurity: a namespace's labels say how dangerous its pods may be.
//!
//! `enforce` refuses pods; `warn` tells whoever writes a pod, or a workload that would make such
//! pods. The rules themselves are in `checks.rs`.

mod checks;

use serde_json::Value;

use super::Admission;
use crate::field::{FieldError, Path};
use crate::server::Target;
use crate::status::StatusError;
use crate::tree;

const PREFIX: &str = "pod-security.kubernetes.io/";
const MODES: [&str; 3] = ["enforce", "audit", "warn"];

/// How much pods may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// A version of the policy: rules that came later do not apply before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    Minor(u32),
    Latest,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor == "0" || !minor.starts_with('0');
        let minor = minor.parse().ok().filter(|_| plain)?;
        Some(Self::Minor(minor))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Minor(minor) => write!(f, "v1.{minor}"),
            Self::Latest => f.write_str("latest"),
        }
    }
}

impl Admission {
    /// Refuses a pod that its namespace does not allow.
    pub(super) fn check_pod_security(
        &self,
        target: &Target,
        pod: &Value,
    ) -> Result<(), StatusError> {
        if target.kind.kind != "Pod" {
            return Ok(());
        }
        match self.violation(&target.key.namespace, "enforce", pod) {
            None => Ok(()),
            Some(what) => {
                let resource = target.kind.group_resource();
                let why = format!("violates {what}");
                Err(StatusError::forbidden(resource, &target.key.name, &why))
            }
        }
    }

    /// What to tell whoever writes `object`, a pod or something that makes pods.
    pub(crate) fn pod_security_warnings(&self, namespace: &str, object: &Value) -> Vec<String> {
        let template = match tree::text(object, &["kind"]) {
            "Pod" => object,
            "CronJob" => tree::at(object, &["spec", "jobTemplate", "spec", "template"]),
            "PodTemplate" => tree::at(object, &["template"]),
            "Deployment"
            | "ReplicaSet"
            | "StatefulSet"
            | "DaemonSet"
            | "Job"
            | "ReplicationController" => tree::at(object, &["spec", "template"]),
            _ => return Vec::new(),
        };
        let violation = self.violation(namespace, "warn", template);
        violation
            .map(|what| format!("would violate {what}"))
            .into_iter()
            .collect()
    }

    /// How a pod breaks the policy of a mode: `PodSecurity "restricted:latest": ...`.
    fn violation(&self, namespace: &str, mode: &str, pod: &Value) -> Option<String> {
        let namespace = self.find("", "namespaces", namespace)?;
        let label = |name: &str| namespace.meta.label(&format!("{PREFIX}{name}"));
        let level = match label(mode) {
            None => return None,
            // Labels are checked when they are set; what else is there is taken as the strictest.
            Some(text) => Level::parse(text).unwrap_or(Level::Restricted),
        };
        let version = label(&format!("{mode}-version"))
            .and_then(Version::parse)
            .unwrap_or(Version::Latest);
        let found = checks::evaluate(level, version, pod);
        (!found.is_empty()).then(|| {
            let head = format!("PodSecurity \"{}:{version}\"", level.name());
            format!("{head}: {}", found.join(", "))
        })
    }
}

/// Refuses labels that name no level or version.
pub(super) fn check_labels(target: &Target, namespace: &Value) -> Result<(), StatusError> {
    if target.kind.kind != "Namespace" {
        return Ok(());
    }
    let path = Path::root("metadata").child("labels");
    let mut errors = Vec::new();
    for mode in MODES {
        let label = |suffix: &str| {
            let key = format!("{PREFIX}{mode}{suffix}");
            let text = tree::at(namespace, &["metadata", "labels", &key]).as_str();
            text.map(|text| (path.key(&key), text))
        };
        if let Some((at, text)) = label("")
            && Level::parse(text).is_none()
        {
            let detail = "must be one of privileged, baseline, restricted";
            errors.push(FieldError::invalid(&at, text, detail));
        }
        if let Some((at, text)) = label("-version")
            && Version::parse(text).is_none()
        {
            let detail = "must be \"latest\" or \"v1.x\"";
            errors.push(FieldError::invalid(&at, text, detail));
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(target.invalid(&errors))
    }
}

#[cfg(test)]
mod tests;
