//! The files of a volume whose content comes from the API. Pure.

use std::collections::BTreeMap;

use proto_api::types::Object as _;
use proto_api::types::Quantity;
use proto_api::types::core::v1::{Container, DownwardAPIVolumeFile, KeyToPath, PodSpec, Volume};

use super::atomic::File;
use crate::container::ConfigError;
use crate::container::fields::{self, FieldContext};
use crate::pod::model::Inputs;

const MODE_DEFAULT: u32 = 0o644;
const TOKEN_MODE: u32 = 0o600;
const TOKEN_LIFE_DEFAULT_SECONDS: i64 = 3600;
const TOKEN_LIFE_MIN_SECONDS: i64 = 600;

/// Values of the downward API, owned.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnedFields {
    pub(crate) pod_ips: Vec<String>,
    pub(crate) host_ips: Vec<String>,
    pub(crate) allocatable: BTreeMap<String, Quantity>,
}

/// A token that a volume holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TokenWish {
    pub(super) service_account: String,
    pub(super) audience: Option<String>,
    pub(super) expiration_seconds: u32,
}

/// Files by path relative to the volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) files: BTreeMap<String, File>,
    /// Must not reach a disk.
    pub(super) secret: bool,
}

/// The tokens a volume needs; `None` for a kind of volume that is not known here.
pub(super) fn tokens(spec: &PodSpec, volume: &Volume) -> Option<Vec<TokenWish>> {
    if volume.config_map.is_some() || volume.secret.is_some() || volume.downward_api.is_some() {
        return Some(Vec::new());
    }
    let projected = volume.projected.as_ref()?;
    let account = spec
        .service_account_name
        .clone()
        .filter(|name| !name.is_empty());
    let account = account.unwrap_or_else(|| "default".to_owned());
    let wishes = projected.sources.iter().filter_map(|source| {
        let token = source.service_account_token.as_ref()?;
        Some(wish(
            &account,
            token.audience.as_ref(),
            token.expiration_seconds,
        ))
    });
    Some(wishes.collect())
}

fn wish(account: &str, audience: Option<&String>, seconds: Option<i64>) -> TokenWish {
    let seconds = seconds
        .unwrap_or(TOKEN_LIFE_DEFAULT_SECONDS)
        .max(TOKEN_LIFE_MIN_SECONDS);
    TokenWish {
        service_account: account.to_owned(),
        audience: audience.filter(|audience| !audience.is_empty()).cloned(),
        expiration_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
    }
}

fn mode_of(own: Option<i32>, default: Option<i32>) -> u32 {
    own.or(default)
        .and_then(|mode| u32::try_from(mode).ok())
        .unwrap_or(MODE_DEFAULT)
        & 0o777
}

/// All files of a volume.
pub(super) fn payload(
    volume: &Volume,
    context: FieldContext<'_>,
    inputs: &Inputs,
    tokens: &BTreeMap<TokenWish, String>,
) -> Result<Payload, ConfigError> {
    let mut payload = Payload::default();
    let namespace = context.pod.namespace();
    if let Some(source) = &volume.config_map {
        let name = source.name.as_deref().unwrap_or_default();
        let wanted = Selection::new(&source.items, source.default_mode, source.optional);
        payload.files = config_map_files(inputs, namespace, name, wanted)?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let wanted = Selection::new(&source.items, source.default_mode, source.optional);
        payload.files = secret_files(inputs, namespace, name, wanted)?;
        payload.secret = true;
    } else if let Some(source) = &volume.downward_api {
        payload.files = downward_files(&source.items, source.default_mode, context)?;
    } else if let Some(source) = &volume.projected {
        let account = crate::pod::model::spec(context.pod)
            .service_account_name
            .clone();
        let account = account
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".to_owned());
        let mode = source.default_mode;
        for part in &source.sources {
            if let Some(map) = &part.config_map {
                let name = map.name.as_deref().unwrap_or_default();
                let wanted = Selection::new(&map.items, mode, map.optional);
                payload
                    .files
                    .extend(config_map_files(inputs, namespace, name, wanted)?);
            } else if let Some(secret) = &part.secret {
                let name = secret.name.as_deref().unwrap_or_default();
                let wanted = Selection::new(&secret.items, mode, secret.optional);
                payload
                    .files
                    .extend(secret_files(inputs, namespace, name, wanted)?);
                payload.secret = true;
            } else if let Some(downward) = &part.downward_api {
                payload
                    .files
                    .extend(downward_files(&downward.items, mode, context)?);
            } else if let Some(token) = &part.service_account_token {
                let wish = wish(&account, token.audience.as_ref(), token.expiration_seconds);
                let data = tokens.get(&wish).cloned().unwrap_or_default();
                let file = File {
                    data: data.into_bytes(),
                    mode: token_mode(context, mode),
                };
                payload.files.insert(checked(&token.path)?, file);
                payload.secret = true;
            }
        }
    }
    Ok(payload)
}

/// Tokens are for their owner only, unless the pod's processes need more to read them.
fn token_mode(context: FieldContext<'_>, default: Option<i32>) -> u32 {
    let security = crate::pod::model::spec(context.pod)
        .security_context
        .as_ref();
    match security {
        Some(security) if security.fs_group.is_some() => TOKEN_MODE,
        // Without a group to share with, processes under any user must be able to read it.
        Some(_) | None => mode_of(None, default),
    }
}

/// Which keys become files.
#[derive(Clone, Copy)]
struct Selection<'a> {
    items: &'a [KeyToPath],
    mode: Option<i32>,
    optional: bool,
}

impl<'a> Selection<'a> {
    fn new(items: &'a [KeyToPath], mode: Option<i32>, optional: Option<bool>) -> Self {
        Self {
            items,
            mode,
            optional: optional.unwrap_or(false),
        }
    }
}

fn config_map_files(
    inputs: &Inputs,
    namespace: &str,
    name: &str,
    wanted: Selection<'_>,
) -> Result<BTreeMap<String, File>, ConfigError> {
    let Some(map) = inputs.config_map(namespace, name) else {
        return absent("configmap", name, wanted);
    };
    let text = map
        .data
        .iter()
        .map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = map
        .binary_data
        .iter()
        .map(|(key, value)| (key.clone(), value.0.clone()));
    select(&text.chain(binary).collect(), "configmap", wanted)
}

fn secret_files(
    inputs: &Inputs,
    namespace: &str,
    name: &str,
    wanted: Selection<'_>,
) -> Result<BTreeMap<String, File>, ConfigError> {
    let Some(secret) = inputs.secret(namespace, name) else {
        return absent("secret", name, wanted);
    };
    let data = secret
        .data
        .iter()
        .map(|(key, value)| (key.clone(), value.0.clone()));
    select(&data.collect(), "secret", wanted)
}

fn absent(
    kind: &str,
    name: &str,
    wanted: Selection<'_>,
) -> Result<BTreeMap<String, File>, ConfigError> {
    if wanted.optional {
        return Ok(BTreeMap::new());
    }
    Err(ConfigError(format!("{kind} \"{name}\" not found")))
}

fn select(
    data: &BTreeMap<String, Vec<u8>>,
    kind: &str,
    wanted: Selection<'_>,
) -> Result<BTreeMap<String, File>, ConfigError> {
    if wanted.items.is_empty() {
        let mode = mode_of(None, wanted.mode);
        let file = |data: &Vec<u8>| File {
            data: data.clone(),
            mode,
        };
        return Ok(data
            .iter()
            .map(|(key, data)| (key.clone(), file(data)))
            .collect());
    }
    let mut files = BTreeMap::new();
    for item in wanted.items {
        let Some(data) = data.get(&item.key) else {
            if wanted.optional {
                continue;
            }
            return Err(ConfigError(format!(
                "references non-existent {kind} key: {}",
                item.key
            )));
        };
        let file = File {
            data: data.clone(),
            mode: mode_of(item.mode, wanted.mode),
        };
        files.insert(checked(&item.path)?, file);
    }
    Ok(files)
}

fn downward_files(
    items: &[DownwardAPIVolumeFile],
    default: Option<i32>,
    context: FieldContext<'_>,
) -> Result<BTreeMap<String, File>, ConfigError> {
    let mut files = BTreeMap::new();
    for item in items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => fields::field(context, &field.field_path)?,
            (None, Some(resource)) => fields::resource(context, &Container::default(), resource)?,
            (None, None) => continue,
        };
        let file = File {
            data: value.into_bytes(),
            mode: mode_of(item.mode, default),
        };
        files.insert(checked(&item.path)?, file);
    }
    Ok(files)
}

/// A file path that stays inside the volume and off the writer's own names.
fn checked(path: &str) -> Result<String, ConfigError> {
    let inside = !path.is_empty()
        && !path.starts_with('/')
        && !path.starts_with("..")
        && path.split('/').all(|part| part != "..");
    if inside {
        Ok(path.to_owned())
    } else {
        Err(ConfigError(format!(
            "invalid path: {path}: must stay inside the volume"
        )))
    }
}
