//! Accounts that say which secrets their pods may name (`kubernetes.io/enforce-mountable-secrets`):
//! every place of a pod that names a secret is looked at, also in containers that come later.

use serde_json::Value;

use super::Admission;
use crate::object::ObjKey;
use crate::registry::Subresource;
use crate::server::Target;
use crate::status::StatusError;
use crate::tree;

const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
/// The lists of containers, and how a refusal names their members.
const CONTAINERS: [(&str, &str); 3] = [
    ("initContainers", "init container"),
    ("containers", "container"),
    ("ephemeralContainers", "ephemeral container"),
];

impl Admission {
    /// Refuses ephemeral containers that name secrets which the pod's account does not.
    pub(super) fn check_ephemeral_secrets(
        &self,
        target: &Target,
        pod: &Value,
    ) -> Result<(), StatusError> {
        if target.subresource != Some(Subresource::Ephemeralcontainers) {
            return Ok(());
        }
        let name = tree::text(pod, &["spec", "serviceAccountName"]);
        let kind = self.registry.by_plural("", "v1", "serviceaccounts");
        let account = kind.and_then(|kind| {
            let key = ObjKey::new(&target.key.namespace, name);
            self.cache.of(&kind).get(&key)
        });
        account.map_or(Ok(()), |account| check(target, pod, &account.value()))
    }
}

/// Refuses a pod that names secrets which its account does not, when the account says so.
pub(super) fn check(target: &Target, pod: &Value, account: &Value) -> Result<(), StatusError> {
    if tree::text(account, &["metadata", "annotations", ENFORCE]) != "true" {
        return Ok(());
    }
    match refused(pod, account) {
        None => Ok(()),
        Some(why) => {
            let resource = target.kind.group_resource();
            Err(StatusError::forbidden(resource, &target.key.name, &why))
        }
    }
}

fn names<'a>(account: &'a Value, field: &str) -> Vec<&'a str> {
    let all = tree::list(account, &[field]).iter();
    all.map(|one| tree::text(one, &["name"])).collect()
}

/// What of `pod` is not allowed.
fn refused(pod: &Value, account: &Value) -> Option<String> {
    let (allowed, pull) = (
        names(account, "secrets"),
        names(account, "imagePullSecrets"),
    );
    let own = tree::text(account, &["metadata", "name"]);
    let foreign = |secret: &str| !secret.is_empty() && !allowed.contains(&secret);
    let why = |what: String, secret: &str| {
        format!(
            "{what} referencing secret.secretName=\"{secret}\" is not allowed because service \
             account {own} does not reference that secret"
        )
    };
    let spec = tree::at(pod, &["spec"]);
    for volume in tree::list(spec, &["volumes"]) {
        let projected = tree::list(volume, &["projected", "sources"]).iter();
        let projected = projected.map(|source| tree::text(source, &["secret", "name"]));
        let plain = tree::text(volume, &["secret", "secretName"]);
        if let Some(secret) = std::iter::once(plain)
            .chain(projected)
            .find(|it| foreign(it))
        {
            return Some(format!(
                "volume with secret.secretName=\"{secret}\" is not allowed because service account \
                 {own} does not reference that secret"
            ));
        }
    }
    for (field, what) in CONTAINERS {
        for container in tree::list(spec, &[field]) {
            let name = tree::text(container, &["name"]);
            for env in tree::list(container, &["env"]) {
                let secret = tree::text(env, &["valueFrom", "secretKeyRef", "name"]);
                if foreign(secret) {
                    let variable = tree::text(env, &["name"]);
                    return Some(why(format!("{what} {name} with envVar {variable}"), secret));
                }
            }
            for source in tree::list(container, &["envFrom"]) {
                let secret = tree::text(source, &["secretRef", "name"]);
                if foreign(secret) {
                    return Some(why(format!("{what} {name} with envFrom"), secret));
                }
            }
        }
    }
    let named = tree::list(spec, &["imagePullSecrets"]).iter().enumerate();
    named
        .map(|(at, secret)| (at, tree::text(secret, &["name"])))
        .find(|(_, secret)| !pull.contains(secret))
        .map(|(at, secret)| {
            format!(
                "imagePullSecrets[{at}].name=\"{secret}\" is not allowed because service account \
                 {own} does not reference that imagePullSecret"
            )
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// CVE-2023-2728 (ephemeral containers) and CVE-2024-3177 (`envFrom`) among them.
    #[test]
    fn every_place_that_names_a_secret_is_looked_at() {
        let account = json!({"metadata": {"name": "robot"}, "secrets": [{"name": "own"}],
            "imagePullSecrets": [{"name": "pull"}]});
        let places = |secret: &str| {
            let env = json!([{"name": "e", "valueFrom": {"secretKeyRef": {"name": secret}}}]);
            let from = json!([{"secretRef": {"name": secret}}]);
            let mut pods = vec![
                json!({"volumes": [{"secret": {"secretName": secret}}]}),
                json!({"volumes": [{"projected": {"sources": [{"secret": {"name": secret}}]}}]}),
            ];
            for (field, _) in CONTAINERS {
                pods.push(json!({field: [{"name": "c", "env": env}]}));
                pods.push(json!({field: [{"name": "c", "envFrom": from}]}));
            }
            pods
        };
        for spec in places("other") {
            let why = refused(&json!({"spec": spec}), &account);
            assert!(why.is_some_and(|why| why.contains("\"other\"")), "{spec}");
        }
        for spec in places("own") {
            assert_eq!(refused(&json!({"spec": spec}), &account), None, "{spec}");
        }
        let pull = |name: &str| json!({"spec": {"imagePullSecrets": [{"name": name}]}});
        assert_eq!(refused(&pull("pull"), &account), None);
        assert!(refused(&pull("own"), &account).is_some());
        let late = json!({"spec": {"ephemeralContainers": [
            {"name": "debug", "envFrom": [{"secretRef": {"name": "other"}}]}]}});
        assert_eq!(
            refused(&late, &account).as_deref(),
            Some(
                "ephemeral container debug with envFrom referencing secret.secretName=\"other\" is \
                 not allowed because service account robot does not reference that secret"
            )
        );
    }
}
