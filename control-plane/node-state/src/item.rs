//! One item of the stream: what it is, which nodes want it, its body.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use control_plane_client::store::Cached;
use proto::agent::v1 as pb;
use proto_api::types::core::v1::{ConfigMap, Pod, PodSpec, Secret, Volume};
use tracing::error;

/// Type and key of an item, as the stream names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ItemKey {
    pub(crate) kind: pb::Type,
    pub(crate) key: Arc<str>,
}

impl ItemKey {
    pub(crate) fn new(kind: pb::Type, key: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            key: key.into(),
        }
    }
}

/// Where an item's body comes from; encoded when the first node wants it, then shared.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Pod(Arc<Cached<Pod>>),
    ConfigMap(Arc<Cached<ConfigMap>>),
    Secret(Arc<Cached<Secret>>),
    Encoded(Bytes),
}

/// An item with the store revision behind it.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) version: u64,
    /// When the informer delivered this version: the commit, as far as can be told from here.
    pub(crate) seen: SystemTime,
    source: Source,
    body: OnceLock<Bytes>,
}

impl Item {
    pub(crate) fn new(version: u64, source: Source) -> Self {
        Self {
            version,
            seen: SystemTime::now(),
            source,
            body: OnceLock::new(),
        }
    }

    pub(crate) fn message(version: u64, message: &impl prost::Message) -> Self {
        Self::new(version, Source::Encoded(message.encode_to_vec().into()))
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The body; the bytes are shared by every node.
    pub(crate) fn body(&self) -> Bytes {
        fn json<K: serde::Serialize>(object: &Cached<K>) -> Bytes {
            match serde_json::to_vec(&object.value) {
                Ok(bytes) => bytes.into(),
                Err(reason) => {
                    // Cannot happen for what was decoded from JSON; the node names the empty body.
                    error!(object = %object.key, error = %reason, "an object does not encode");
                    Bytes::new()
                }
            }
        }
        let body = self.body.get_or_init(|| match &self.source {
            Source::Pod(pod) => json(pod),
            Source::ConfigMap(map) => json(map),
            Source::Secret(secret) => json(secret),
            Source::Encoded(bytes) => bytes.clone(),
        });
        body.clone()
    }
}

/// The config maps and secrets that a pod's containers and volumes name.
pub(crate) fn references(pod: &Pod) -> BTreeSet<ItemKey> {
    let mut found = BTreeSet::new();
    let (Some(spec), Some(namespace)) = (&pod.spec, &pod.metadata.namespace) else {
        return found;
    };
    let mut add = |kind: pb::Type, name: Option<&str>| {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            found.insert(ItemKey::new(kind, format!("{namespace}/{name}")));
        }
    };
    environment_references(spec, &mut add);
    for volume in &spec.volumes {
        volume_references(volume, &mut add);
    }
    for secret in &spec.image_pull_secrets {
        add(pb::Type::Secret, secret.name.as_deref());
    }
    found
}

fn environment_references(spec: &PodSpec, add: &mut impl FnMut(pb::Type, Option<&str>)) {
    let containers = spec.containers.iter().chain(&spec.init_containers);
    for container in containers {
        for source in &container.env_from {
            let map = source
                .config_map_ref
                .as_ref()
                .and_then(|map| map.name.as_deref());
            let secret = source
                .secret_ref
                .as_ref()
                .and_then(|secret| secret.name.as_deref());
            add(pb::Type::ConfigMap, map);
            add(pb::Type::Secret, secret);
        }
        for source in container
            .env
            .iter()
            .filter_map(|env| env.value_from.as_ref())
        {
            let map = source
                .config_map_key_ref
                .as_ref()
                .and_then(|map| map.name.as_deref());
            let secret = source
                .secret_key_ref
                .as_ref()
                .and_then(|secret| secret.name.as_deref());
            add(pb::Type::ConfigMap, map);
            add(pb::Type::Secret, secret);
        }
    }
}

fn volume_references(volume: &Volume, add: &mut impl FnMut(pb::Type, Option<&str>)) {
    add(
        pb::Type::ConfigMap,
        volume
            .config_map
            .as_ref()
            .and_then(|map| map.name.as_deref()),
    );
    let secret = volume
        .secret
        .as_ref()
        .and_then(|secret| secret.secret_name.as_deref());
    add(pb::Type::Secret, secret);
    for source in volume
        .projected
        .iter()
        .flat_map(|projected| &projected.sources)
    {
        let map = source
            .config_map
            .as_ref()
            .and_then(|map| map.name.as_deref());
        let secret = source
            .secret
            .as_ref()
            .and_then(|secret| secret.name.as_deref());
        add(pb::Type::ConfigMap, map);
        add(pb::Type::Secret, secret);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_come_from_env_volumes_projections_and_pull_secrets() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"namespace":"n","name":"p"},"spec":{
            "imagePullSecrets":[{"name":"pull"}],
            "initContainers":[{"name":"i","envFrom":[{"configMapRef":{"name":"init"}}]}],
            "containers":[{"name":"c","env":[
              {"name":"A","valueFrom":{"secretKeyRef":{"name":"key","key":"k"}}},
              {"name":"B","valueFrom":{"configMapKeyRef":{"name":"map","key":"k"}}}]}],
            "volumes":[{"name":"v","configMap":{"name":"map"}},
              {"name":"s","secret":{"secretName":"files"}},
              {"name":"p","projected":{"sources":[{"configMap":{"name":"kube-root-ca.crt"}},
                {"serviceAccountToken":{"path":"token"}}]}}]}}"#,
        )
        .unwrap();
        let found: Vec<String> = references(&pod)
            .into_iter()
            .map(|item| format!("{} {}", item.kind.as_str_name(), item.key))
            .collect();
        assert_eq!(
            found,
            [
                "TYPE_CONFIG_MAP n/init",
                "TYPE_CONFIG_MAP n/kube-root-ca.crt",
                "TYPE_CONFIG_MAP n/map",
                "TYPE_SECRET n/files",
                "TYPE_SECRET n/key",
                "TYPE_SECRET n/pull",
            ]
        );
    }
}
