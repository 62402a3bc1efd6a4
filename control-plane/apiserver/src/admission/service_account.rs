//! ServiceAccount: every pod has an identity, and a token of it in its containers.

use std::time::Duration;

use proto_api::names;
use serde_json::{Value, json};

use super::{Admission, mountable_secrets};
use crate::object::{Obj, ObjKey};
use crate::server::Target;
use crate::status::StatusError;
use crate::tree;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Seconds that a mounted token is valid: an hour and a little, as upstream.
const TOKEN_SECONDS: i64 = 3607;
/// How long a pod waits for its account: a new namespace gets `default` a moment later.
const ACCOUNT_WAIT: Duration = Duration::from_secs(1);

impl Admission {
    pub(super) async fn complete_service_account(
        &self,
        target: &Target,
        pod: &mut Value,
    ) -> Result<(), StatusError> {
        let mirror = "kubernetes.io/config.mirror";
        if tree::at(pod, &["metadata", "annotations", mirror]).is_string() {
            return Ok(());
        }
        let spec = tree::object_mut(pod, "spec");
        tree::default_text(spec, "serviceAccountName", "default");
        let name = spec["serviceAccountName"].clone();
        spec.insert("serviceAccount".to_owned(), name.clone());
        let name = name.as_str().unwrap_or_default();
        let namespace = &*target.key.namespace;
        let Some(account) = self.await_account(namespace, name).await else {
            let why = format!(
                "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" \
                 not found"
            );
            let gr = target.kind.group_resource();
            return Err(StatusError::forbidden(gr, &target.key.name, &why));
        };
        let account = account.value();
        mountable_secrets::check(target, pod, &account)?;
        let own = tree::at(pod, &["spec", "automountServiceAccountToken"]).as_bool();
        let accounts = tree::at(&account, &["automountServiceAccountToken"]).as_bool();
        if own.or(accounts).unwrap_or(true) {
            mount_token(pod, &names::generated(VOLUME_PREFIX, rand::random::<u32>));
        }
        let secrets = tree::at(&account, &["imagePullSecrets"]);
        if !tree::is_unset(secrets) {
            let secrets = secrets.clone();
            tree::default(tree::object_mut(pod, "spec"), "imagePullSecrets", secrets);
        }
        Ok(())
    }

    async fn await_account(&self, namespace: &str, name: &str) -> Option<std::sync::Arc<Obj>> {
        let kind = self.registry.by_plural("", "v1", "serviceaccounts")?;
        let accounts = self.cache.of(&kind);
        let key = ObjKey::new(namespace, name);
        let mut applied = self.cache.subscribe();
        let found = async {
            loop {
                applied.mark_unchanged();
                if let Some(account) = accounts.get(&key) {
                    return Some(account);
                }
                applied.changed().await.ok()?;
            }
        };
        tokio::time::timeout(ACCOUNT_WAIT, found)
            .await
            .ok()
            .flatten()
    }
}

/// Adds the token volume and mounts it into every container that has nothing there.
fn mount_token(pod: &mut Value, volume: &str) {
    let spec = tree::object_mut(pod, "spec");
    let mut used = false;
    for field in ["initContainers", "containers"] {
        for container in tree::list_mut(spec, field) {
            let taken = tree::list(container, &["volumeMounts"])
                .iter()
                .any(|mount| tree::text(mount, &["mountPath"]) == MOUNT_PATH);
            if taken {
                continue;
            }
            used = true;
            let mounts = tree::as_object(container)
                .entry("volumeMounts".to_owned())
                .or_insert_with(|| json!([]));
            if mounts.is_null() {
                *mounts = json!([]);
            }
            if let Some(mounts) = mounts.as_array_mut() {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
            }
        }
    }
    if !used {
        return;
    }
    let volumes = spec
        .entry("volumes".to_owned())
        .or_insert_with(|| json!([]));
    if volumes.is_null() {
        *volumes = json!([]);
    }
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(token_volume(volume));
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {
                "name": "kube-root-ca.crt",
                "items": [{"key": "ca.crt", "path": "ca.crt"}],
            }},
            {"downwardAPI": {"items": [{
                "path": "namespace",
                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
            }]}},
        ],
        "defaultMode": 420,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_mounted_where_nothing_else_is() {
        let mut pod = json!({"spec": {"containers": [
            {"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "x", "mountPath": MOUNT_PATH}]}]}});
        mount_token(&mut pod, "kube-api-access-abcde");
        assert_eq!(
            pod["spec"]["containers"][0]["volumeMounts"][0]["name"],
            "kube-api-access-abcde"
        );
        assert_eq!(
            pod["spec"]["containers"][1]["volumeMounts"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn no_volume_is_added_when_no_container_needs_it() {
        let mut pod = json!({"spec": {"containers": [
            {"name": "b", "volumeMounts": [{"name": "x", "mountPath": MOUNT_PATH}]}]}});
        mount_token(&mut pod, "v");
        assert!(pod["spec"].get("volumes").is_none());
    }
}
