//! A pod's volumes on this node: where they lie, what is in them, and their removal.
//!
//! Directories: `<root>/pods/<uid>/volumes/<kind>/<name>`. Contents that come from the API are
//! written atomically ([`atomic`]) and again whenever they change. Blocking file work runs on
//! blocking tasks.

mod atomic;
mod mounts;
mod payload;
mod subpath;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use node_agent_state::{Snapshot, TokenRequest, Upstream, UpstreamError};
use proto_api::types::core::v1::{PodSpec, Volume};

use self::payload::{Payload, TokenWish};
use crate::clock::{Chance, Clock};
use crate::container::ConfigError;
use crate::container::fields::FieldContext;
use crate::pod::model::{self, Target};

pub(crate) use self::mounts::{release_tree, unmount_below};
pub(crate) use self::payload::OwnedFields;
pub(crate) use self::subpath::bind_sub_path;

/// Tokens are renewed after this share of their life.
const TOKEN_RENEW_SHARE: f64 = 0.8;
/// Or after a day, whatever their life is.
const TOKEN_RENEW_MAX_SECONDS: f64 = 24.0 * 3600.0;
const TOKEN_JITTER_SECONDS: f64 = 10.0;

/// Why a volume is not usable; the text is what the FailedMount event says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {message}")]
    Content { volume: String, message: String },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {}: {source}", path.display())]
    Io {
        volume: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A token in use: kept until it is due for renewal.
#[derive(Debug, Clone)]
struct HeldToken {
    token: String,
    renew_at: Timestamp,
}

/// Tokens of one pod, by what was asked for. Lost with the worker; fetched anew.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodTokens {
    held: BTreeMap<TokenWish, HeldToken>,
}

/// What volumes need from the rest of the agent.
#[derive(Clone)]
pub(crate) struct Volumes {
    root: PathBuf,
    upstream: Arc<dyn Upstream>,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
}

impl Volumes {
    pub(crate) fn new(
        root: PathBuf,
        upstream: Arc<dyn Upstream>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Self {
        Self {
            root,
            upstream,
            clock,
            chance,
        }
    }

    /// Makes every volume of the pod usable; answers when contents must be renewed.
    /// Idempotent: what is unchanged is not written.
    pub(crate) async fn prepare(
        &self,
        target: &Target,
        fields: &OwnedFields,
        tokens: &mut PodTokens,
    ) -> Result<Option<Timestamp>, VolumeError> {
        let uid = target.pod.metadata.uid.clone().unwrap_or_default();
        let mut renew_at: Option<Timestamp> = None;
        for volume in &target.spec().volumes {
            let directory = directory(&self.root, &uid, volume);
            if let Some(at) = self
                .prepare_one(target, fields, tokens, volume, directory)
                .await?
            {
                renew_at = Some(renew_at.map_or(at, |earlier| earlier.min(at)));
            }
        }
        Ok(renew_at)
    }

    async fn prepare_one(
        &self,
        target: &Target,
        fields: &OwnedFields,
        tokens: &mut PodTokens,
        volume: &Volume,
        directory: PathBuf,
    ) -> Result<Option<Timestamp>, VolumeError> {
        let name = volume.name.clone();
        let owner = target
            .spec()
            .security_context
            .as_ref()
            .and_then(|context| context.fs_group);
        if let Some(empty) = volume.empty_dir.clone() {
            let limit = empty.size_limit.as_ref().and_then(|limit| limit.value());
            let memory = empty.medium.as_deref() == Some("Memory");
            return blocking(name, directory, move |path| {
                mounts::empty_dir(path, memory, limit, owner)
            })
            .await
            .map(|()| None);
        }
        if let Some(host) = volume.host_path.clone() {
            let kind = host.type_.unwrap_or_default();
            return blocking(name, PathBuf::from(host.path), move |path| {
                mounts::host_path(path, &kind)
            })
            .await
            .map(|()| None);
        }
        let context = fields.context(&target.pod);
        let content = |error: ConfigError| VolumeError::Content {
            volume: volume.name.clone(),
            message: error.0,
        };
        let Some(wishes) = payload::tokens(target.spec(), volume) else {
            return Err(content(ConfigError(
                "this kind of volume is not supported".to_owned(),
            )));
        };
        let renew_at = self.fetch_tokens(target, wishes, tokens, volume).await?;
        let held: BTreeMap<TokenWish, String> = tokens
            .held
            .iter()
            .map(|(wish, held)| (wish.clone(), held.token.clone()))
            .collect();
        let payload = payload::payload(volume, context, &target.inputs, &held).map_err(content)?;
        self.write(volume, directory, payload, owner)
            .await
            .map(|()| renew_at)
    }

    async fn write(
        &self,
        volume: &Volume,
        directory: PathBuf,
        payload: Payload,
        owner: Option<i64>,
    ) -> Result<(), VolumeError> {
        let stamp = format!(
            "..{}.{:016x}",
            self.clock.now().strftime("%Y_%m_%d_%H_%M_%S"),
            self.chance.bits()
        );
        let secret = payload.secret;
        blocking(volume.name.clone(), directory, move |path| {
            if secret {
                mounts::memory_dir(path)?;
            } else {
                std::fs::create_dir_all(path)?;
            }
            atomic::write(path, &payload.files, owner, &stamp).map(drop)
        })
        .await
    }

    /// Gets the tokens that are missing or old; answers when the first is to be renewed.
    async fn fetch_tokens(
        &self,
        target: &Target,
        wishes: Vec<TokenWish>,
        tokens: &mut PodTokens,
        volume: &Volume,
    ) -> Result<Option<Timestamp>, VolumeError> {
        let mut renew_at: Option<Timestamp> = None;
        for wish in wishes {
            let now = self.clock.now();
            let fresh = tokens
                .held
                .get(&wish)
                .filter(|held| held.renew_at > now)
                .cloned();
            let held = match fresh {
                Some(held) => held,
                None => {
                    let request = TokenRequest {
                        pod: target.reference(),
                        service_account: wish.service_account.clone(),
                        audiences: wish.audience.iter().cloned().collect(),
                        expiration_seconds: wish.expiration_seconds,
                    };
                    let issued = self.upstream.token(&request).await;
                    let issued = issued.map_err(|error: UpstreamError| VolumeError::Content {
                        volume: volume.name.clone(),
                        message: format!("failed to fetch token: {error}"),
                    })?;
                    let held = HeldToken {
                        token: issued.token,
                        renew_at: self.renew_at(now, issued.expires),
                    };
                    tokens.held.insert(wish, held.clone());
                    held
                }
            };
            renew_at = Some(renew_at.map_or(held.renew_at, |at| at.min(held.renew_at)));
        }
        Ok(renew_at)
    }

    fn renew_at(&self, now: Timestamp, expires: std::time::SystemTime) -> Timestamp {
        let expires = Timestamp::try_from(expires).unwrap_or(now);
        let life = expires.duration_since(now).as_secs_f64().max(0.0);
        let wait = (life * TOKEN_RENEW_SHARE).min(TOKEN_RENEW_MAX_SECONDS)
            - self.chance.fraction() * TOKEN_JITTER_SECONDS;
        let wait = jiff::SignedDuration::try_from_secs_f64(wait.max(1.0)).unwrap_or_default();
        now.checked_add(wait).unwrap_or(Timestamp::MAX)
    }

    /// Gives back everything of a pod: unmounts, then removes, and never crosses a mount.
    pub(crate) async fn remove(&self, uid: &str) -> io::Result<()> {
        let directory = pod_dir(&self.root, uid);
        tokio::task::spawn_blocking(move || release_tree(&directory))
            .await
            .map_err(|error| io::Error::other(error.to_string()))?
    }
}

pub(crate) fn pod_dir(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// Where a volume lies on this node.
pub(crate) fn directory(root: &Path, uid: &str, volume: &Volume) -> PathBuf {
    if let Some(host) = &volume.host_path {
        return PathBuf::from(&host.path);
    }
    let kind = if volume.empty_dir.is_some() {
        "kubernetes.io~empty-dir"
    } else if volume.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io~secret"
    } else if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else {
        "kubernetes.io~projected"
    };
    pod_dir(root, uid)
        .join("volumes")
        .join(kind)
        .join(&volume.name)
}

/// The named volume of a pod.
pub(crate) fn find<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a Volume> {
    spec.volumes.iter().find(|volume| volume.name == name)
}

async fn blocking(
    volume: String,
    path: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
) -> Result<(), VolumeError> {
    let at = path.clone();
    let result = tokio::task::spawn_blocking(move || work(&path))
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error.to_string())));
    result.map_err(|source| VolumeError::Io {
        volume,
        path: at,
        source,
    })
}

/// Field values of a pod as its volumes show them.
pub(crate) fn owned_fields(
    pod_ips: Vec<String>,
    host_ips: Vec<String>,
    allocatable: BTreeMap<String, proto_api::types::Quantity>,
) -> OwnedFields {
    OwnedFields {
        pod_ips,
        host_ips,
        allocatable,
    }
}

impl OwnedFields {
    pub(crate) fn context<'a>(
        &'a self,
        pod: &'a proto_api::types::core::v1::Pod,
    ) -> FieldContext<'a> {
        FieldContext {
            pod,
            pod_ips: &self.pod_ips,
            host_ips: &self.host_ips,
            allocatable: &self.allocatable,
        }
    }
}

/// The config maps and secrets of a snapshot that a pod names.
pub(crate) fn inputs_of(
    pod: &proto_api::types::core::v1::Pod,
    snapshot: &Snapshot,
) -> model::Inputs {
    use node_agent_state::ObjectName;
    use proto_api::types::Object as _;
    let (maps, secrets) = model::named_inputs(pod);
    let namespace: Arc<str> = pod.namespace().into();
    let key = |name: String| ObjectName::new(Arc::clone(&namespace), name);
    model::Inputs {
        config_maps: maps
            .into_iter()
            .map(key)
            .map(|key| (key.clone(), snapshot.config_maps.get(&key).cloned()))
            .collect(),
        secrets: secrets
            .into_iter()
            .map(key)
            .map(|key| (key.clone(), snapshot.secrets.get(&key).cloned()))
            .collect(),
    }
}
