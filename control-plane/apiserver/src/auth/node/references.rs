//! What the pods of a node refer to.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use crate::cache::{ResourceCache, WatchCache};
use crate::object::ObjKey;
use crate::registry::Registry;
use crate::tree;

/// The field of pods that says where they run.
const NODE_FIELD: &str = "spec.nodeName";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Volumes that name a secret: the path from the volume to its name.
const VOLUME_SECRETS: &[&[&str]] = &[
    &["secret", "secretName"],
    &["azureFile", "secretName"],
    &["cephfs", "secretRef", "name"],
    &["cinder", "secretRef", "name"],
    &["csi", "nodePublishSecretRef", "name"],
    &["flexVolume", "secretRef", "name"],
    &["iscsi", "secretRef", "name"],
    &["rbd", "secretRef", "name"],
    &["scaleIO", "secretRef", "name"],
    &["storageos", "secretRef", "name"],
];
/// Secrets that a persistent volume names, with their own namespace.
const PERSISTENT_SECRETS: &[&[&str]] = &[
    &["azureFile"],
    &["cephfs", "secretRef"],
    &["cinder", "secretRef"],
    &["csi", "nodePublishSecretRef"],
    &["csi", "nodeStageSecretRef"],
    &["csi", "nodeExpandSecretRef"],
    &["flexVolume", "secretRef"],
    &["iscsi", "secretRef"],
    &["rbd", "secretRef"],
    &["scaleIO", "secretRef"],
    &["storageos", "secretRef"],
];

/// The cached resources that references are read from.
#[derive(Debug)]
pub(super) struct Sources {
    pods: Option<Arc<ResourceCache>>,
    node_field: Option<usize>,
    claims: Option<Arc<ResourceCache>>,
    volumes: Option<Arc<ResourceCache>>,
}

/// Objects by plural, namespace and name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct References(HashSet<(&'static str, Box<str>, Box<str>)>);

impl References {
    fn add(&mut self, plural: &'static str, namespace: &str, name: &str) {
        if !name.is_empty() {
            self.0.insert((plural, namespace.into(), name.into()));
        }
    }

    pub(super) fn has(&self, plural: &str, namespace: &str, name: &str) -> bool {
        const PLURALS: [&str; 6] = [
            "configmaps",
            "persistentvolumeclaims",
            "persistentvolumes",
            "pods",
            "secrets",
            "serviceaccounts",
        ];
        let known = PLURALS.into_iter().find(|known| *known == plural);
        known.is_some_and(|plural| self.0.contains(&(plural, namespace.into(), name.into())))
    }
}

impl Sources {
    pub(super) fn new(cache: &WatchCache, registry: &Registry) -> Self {
        let of = |plural: &str| {
            let kind = registry.by_plural("", "v1", plural)?;
            Some(cache.of(&kind))
        };
        let pods = of("pods");
        let node_field = pods
            .as_ref()
            .and_then(|pods| pods.kind.fields.position(NODE_FIELD));
        Self {
            node_field,
            pods,
            claims: of("persistentvolumeclaims"),
            volumes: of("persistentvolumes"),
        }
    }

    /// Changes with every change of what references are read from.
    pub(super) fn state(&self) -> u64 {
        [&self.pods, &self.claims, &self.volumes]
            .into_iter()
            .flatten()
            .map(|resource| resource.version())
            .sum()
    }

    /// Reads the references of `node`. Costs a look at every pod, and reading those of the node.
    pub(super) fn references_of(&self, node: &str) -> References {
        let mut references = References::default();
        let (Some(pods), Some(field)) = (&self.pods, self.node_field) else {
            return references;
        };
        let mut claims = HashSet::new();
        for (key, pod) in &pods.snapshot() {
            if pod.fields.get(field).is_none_or(|at| **at != *node) {
                continue;
            }
            references.add("pods", &key.namespace, &key.name);
            let value = pod.value();
            if tree::at(&value, &["metadata", "annotations", MIRROR]).is_string() {
                continue;
            }
            add_pod(&mut references, key, &value);
            for claim in claims_of(key, &value) {
                references.add("persistentvolumeclaims", &key.namespace, &claim);
                claims.insert((key.namespace.to_string(), claim));
            }
        }
        if !claims.is_empty() {
            self.add_volumes(&mut references, &claims);
        }
        references
    }

    /// Adds the persistent volumes that `claims` are bound to, and the secrets those name.
    fn add_volumes(&self, references: &mut References, claims: &HashSet<(String, String)>) {
        let (Some(cache), Some(volumes)) = (&self.claims, &self.volumes) else {
            return;
        };
        for (namespace, name) in claims {
            let Some(claim) = cache.get(&ObjKey::new(namespace, name)) else {
                continue;
            };
            let claim = claim.value();
            let bound = tree::text(&claim, &["spec", "volumeName"]);
            let Some(volume) = volumes.get(&ObjKey::new("", bound)) else {
                continue;
            };
            let volume = volume.value();
            // Both must say so: a claim may name any volume.
            let owner =
                ["namespace", "name"].map(|f| tree::text(&volume, &["spec", "claimRef", f]));
            if owner != [namespace.as_str(), name.as_str()] {
                continue;
            }
            references.add("persistentvolumes", "", bound);
            for path in PERSISTENT_SECRETS {
                let secret = tree::at(tree::at(&volume, &["spec"]), path);
                let text = |names: [&str; 2]| {
                    let found = names.map(|name| tree::text(secret, &[name]));
                    found
                        .into_iter()
                        .find(|t| !t.is_empty())
                        .unwrap_or_default()
                };
                let place = match text(["namespace", "secretNamespace"]) {
                    "" => namespace,
                    own => own,
                };
                references.add("secrets", place, text(["name", "secretName"]));
            }
        }
    }
}

fn add_pod(references: &mut References, key: &ObjKey, pod: &Value) {
    let namespace = &*key.namespace;
    let spec = tree::at(pod, &["spec"]);
    let account = tree::text(spec, &["serviceAccountName"]);
    references.add("serviceaccounts", namespace, account);
    for secret in tree::list(spec, &["imagePullSecrets"]) {
        references.add("secrets", namespace, tree::text(secret, &["name"]));
    }
    let containers = ["initContainers", "containers", "ephemeralContainers"];
    for container in containers.iter().flat_map(|f| tree::list(spec, &[f])) {
        for env in tree::list(container, &["env"]) {
            let named = |by: &str| tree::text(env, &["valueFrom", by, "name"]);
            references.add("secrets", namespace, named("secretKeyRef"));
            references.add("configmaps", namespace, named("configMapKeyRef"));
        }
        for env in tree::list(container, &["envFrom"]) {
            let named = |by: &str| tree::text(env, &[by, "name"]);
            references.add("secrets", namespace, named("secretRef"));
            references.add("configmaps", namespace, named("configMapRef"));
        }
    }
    for volume in tree::list(spec, &["volumes"]) {
        for path in VOLUME_SECRETS {
            references.add("secrets", namespace, tree::text(volume, path));
        }
        let map = tree::text(volume, &["configMap", "name"]);
        references.add("configmaps", namespace, map);
        for source in tree::list(volume, &["projected", "sources"]) {
            let named = |by: &str| tree::text(source, &[by, "name"]);
            references.add("secrets", namespace, named("secret"));
            references.add("configmaps", namespace, named("configMap"));
        }
    }
}

fn claims_of(key: &ObjKey, pod: &Value) -> Vec<String> {
    let claim = |volume: &Value| {
        let name = tree::text(volume, &["persistentVolumeClaim", "claimName"]);
        if !name.is_empty() {
            return Some(name.to_owned());
        }
        let ephemeral = tree::at(volume, &["ephemeral"]).is_object();
        ephemeral.then(|| format!("{}-{}", key.name, tree::text(volume, &["name"])))
    };
    let volumes = tree::list(pod, &["spec", "volumes"]);
    volumes.iter().filter_map(claim).collect()
}

/// Whether a projected token of `pod` is for `audience`.
pub(crate) fn claims_audience(pod: &Value, audience: &str) -> bool {
    tree::list(pod, &["spec", "volumes"])
        .iter()
        .flat_map(|volume| tree::list(volume, &["projected", "sources"]))
        .any(|source| tree::text(source, &["serviceAccountToken", "audience"]) == audience)
}
