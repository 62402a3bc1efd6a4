//! Reads image archives (OCI layout and `docker save`) into blobs and named images. Pure.
//!
//! A docker archive has no manifest of the kind containerd stores: one is made from its config and
//! layers. Layers are stored as they are, compressed or not.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Component;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::reference::normalize;

/// Largest archive entry accepted: a layer of 8 GiB.
const ENTRY_MAX_BYTES: u64 = 8 << 30;
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// Why bytes are no image archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Not a tar file.
    #[error("read image archive: {0}")]
    Tar(#[from] std::io::Error),
    /// A JSON document inside is malformed.
    #[error("read image archive: {file} is malformed: {source}")]
    Json {
        /// Path in the archive.
        file: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Something that the archive refers to is not in it.
    #[error(
        "read image archive: {what} is missing; is it an OCI layout or a `docker save` archive?"
    )]
    Missing {
        /// The file, or what it should have said.
        what: String,
    },
    /// An entry is too large.
    #[error("read image archive: {file} has more than {ENTRY_MAX_BYTES} bytes")]
    TooLarge {
        /// Path in the archive.
        file: String,
    },
}

/// A piece of content with what it keeps alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    /// `sha256:<hex>`.
    pub(crate) digest: String,
    pub(crate) data: Vec<u8>,
    /// Labels by which the store's garbage collector finds children.
    pub(crate) references: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedImage {
    pub(crate) name: String,
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: i64,
}

/// Blobs, children before parents, and the images they make up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Archive {
    pub(crate) blobs: Vec<Blob>,
    pub(crate) images: Vec<NamedImage>,
}

impl Archive {
    /// Reads a tar file that is an OCI layout or was written by `docker save`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ArchiveError> {
        let files = read_files(bytes)?;
        let mut archive = Self::default();
        if files.contains_key("index.json") {
            archive.add_oci(&files)?;
        } else if files.contains_key("manifest.json") {
            archive.add_docker(&files)?;
        } else {
            return Err(ArchiveError::Missing {
                what: "index.json or manifest.json".to_owned(),
            });
        }
        if archive.images.is_empty() {
            return Err(ArchiveError::Missing {
                what: "an image with a name".to_owned(),
            });
        }
        Ok(archive)
    }

    fn add_oci(&mut self, files: &Files) -> Result<(), ArchiveError> {
        let index = read_json(files, "index.json")?;
        let docker_names = docker_names(files)?;
        for entry in array(&index, "manifests") {
            let digest = text(entry, "digest")?;
            let data = blob(files, &digest)?;
            let annotation = |key: &str| entry["annotations"][key].as_str().map(ToOwned::to_owned);
            let names: Vec<String> = annotation("io.containerd.image.name")
                .or_else(|| {
                    annotation("org.opencontainers.image.ref.name")
                        .filter(|name| name.contains(['/', ':']))
                })
                .map_or_else(|| docker_names.clone(), |name| vec![name]);
            self.add_tree(files, &digest)?;
            for name in names {
                self.images.push(NamedImage {
                    name: normalize(&name),
                    media_type: text(entry, "mediaType")?,
                    digest: digest.clone(),
                    size: i64::try_from(data.len()).unwrap_or(i64::MAX),
                });
            }
        }
        Ok(())
    }

    /// A blob, after everything it refers to. Platforms that the archive leaves out are skipped.
    fn add_tree(&mut self, files: &Files, digest: &str) -> Result<(), ArchiveError> {
        if self.blobs.iter().any(|blob| blob.digest == digest) {
            return Ok(());
        }
        let data = blob(files, digest)?.clone();
        let parsed: Option<Value> = serde_json::from_slice(&data).ok();
        let media = parsed
            .as_ref()
            .and_then(|value| value["mediaType"].as_str());
        let is_list = matches!(media, Some(OCI_INDEX | DOCKER_LIST))
            || parsed
                .as_ref()
                .is_some_and(|value| value["manifests"].is_array());
        let is_manifest = matches!(media, Some(OCI_MANIFEST | DOCKER_MANIFEST))
            || parsed
                .as_ref()
                .is_some_and(|value| value["layers"].is_array());
        let mut references = BTreeMap::new();
        if let Some(value) = parsed.filter(|_| is_list || is_manifest) {
            let config = value
                .get("config")
                .filter(|_| is_manifest)
                .map(|config| ("config", config));
            let layers = array(&value, "layers").iter().map(|layer| ("l", layer));
            let manifests = array(&value, "manifests")
                .iter()
                .map(|manifest| ("m", manifest));
            for (index, (kind, child)) in config
                .into_iter()
                .chain(layers)
                .chain(manifests)
                .enumerate()
            {
                let child = text(child, "digest")?;
                if kind == "m" && blob(files, &child).is_err() {
                    continue;
                }
                self.add_tree(files, &child)?;
                references.insert(gc_label(kind, index), child);
            }
        }
        self.blobs.push(Blob {
            digest: digest.to_owned(),
            data,
            references,
        });
        Ok(())
    }

    fn add_docker(&mut self, files: &Files) -> Result<(), ArchiveError> {
        let manifest = read_json(files, "manifest.json")?;
        for entry in manifest.as_array().into_iter().flatten() {
            let config_path = text(entry, "Config")?;
            let config = file(files, &config_path)?;
            let config_digest = self.add_blob(config.clone(), BTreeMap::new());
            let mut references = BTreeMap::from([(gc_label("config", 0), config_digest.clone())]);
            let mut layers = Vec::new();
            for (index, path) in array(entry, "Layers").iter().enumerate() {
                let path = path.as_str().unwrap_or_default();
                let data = file(files, path)?.clone();
                let media_type = layer_type(&data);
                let size = data.len();
                let digest = self.add_blob(data, BTreeMap::new());
                references.insert(gc_label("l", index), digest.clone());
                layers.push(json!({"mediaType": media_type, "digest": digest, "size": size}));
            }
            let made = json!({
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": OCI_CONFIG, "digest": config_digest, "size": config.len()},
                "layers": layers,
            });
            let data = made.to_string().into_bytes();
            let size = i64::try_from(data.len()).unwrap_or(i64::MAX);
            let digest = self.add_blob(data, references);
            for tag in array(entry, "RepoTags").iter().filter_map(Value::as_str) {
                self.images.push(NamedImage {
                    name: normalize(tag),
                    media_type: OCI_MANIFEST.to_owned(),
                    digest: digest.clone(),
                    size,
                });
            }
        }
        Ok(())
    }

    fn add_blob(&mut self, data: Vec<u8>, references: BTreeMap<String, String>) -> String {
        let digest = sha256(&data);
        if !self.blobs.iter().any(|blob| blob.digest == digest) {
            self.blobs.push(Blob {
                digest: digest.clone(),
                data,
                references,
            });
        }
        digest
    }
}

type Files = BTreeMap<String, Vec<u8>>;

fn read_files(bytes: &[u8]) -> Result<Files, ArchiveError> {
    let mut files = Files::new();
    let mut links: Vec<(String, String)> = Vec::new();
    for entry in tar::Archive::new(bytes).entries()? {
        let mut entry = entry?;
        let path = clean(&entry.path()?);
        let kind = entry.header().entry_type();
        if kind.is_hard_link() || kind.is_symlink() {
            if let Some(target) = entry.link_name()? {
                let base = std::path::Path::new(&path)
                    .parent()
                    .map(std::path::Path::to_path_buf);
                let target = if kind.is_symlink() {
                    base.unwrap_or_default().join(&target)
                } else {
                    target.into_owned()
                };
                links.push((path, clean(&target)));
            }
        } else if kind.is_file() {
            if entry.size() > ENTRY_MAX_BYTES {
                return Err(ArchiveError::TooLarge { file: path });
            }
            let mut data = Vec::new();
            entry.read_to_end(&mut data)?;
            files.insert(path, data);
        }
    }
    for (path, target) in links {
        if let Some(data) = files.get(&target).cloned() {
            files.insert(path, data);
        }
    }
    Ok(files)
}

/// Removes `./`, `..` and roots: names inside the archive, never paths of this machine.
fn clean(path: &std::path::Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => {
                parts.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    parts.join("/")
}

fn docker_names(files: &Files) -> Result<Vec<String>, ArchiveError> {
    if !files.contains_key("manifest.json") {
        return Ok(Vec::new());
    }
    let manifest = read_json(files, "manifest.json")?;
    let entries = manifest.as_array().into_iter().flatten();
    let tags = entries.flat_map(|entry| array(entry, "RepoTags"));
    Ok(tags
        .filter_map(Value::as_str)
        .map(ToOwned::to_owned)
        .collect())
}

fn read_json(files: &Files, path: &str) -> Result<Value, ArchiveError> {
    serde_json::from_slice(file(files, path)?).map_err(|source| ArchiveError::Json {
        file: path.to_owned(),
        source,
    })
}

fn file<'a>(files: &'a Files, path: &str) -> Result<&'a Vec<u8>, ArchiveError> {
    files
        .get(&clean(std::path::Path::new(path)))
        .ok_or_else(|| ArchiveError::Missing {
            what: path.to_owned(),
        })
}

fn blob<'a>(files: &'a Files, digest: &str) -> Result<&'a Vec<u8>, ArchiveError> {
    file(files, &format!("blobs/{}", digest.replacen(':', "/", 1)))
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value, key: &str) -> Result<String, ArchiveError> {
    let found = value[key].as_str().map(ToOwned::to_owned);
    found.ok_or_else(|| ArchiveError::Missing {
        what: format!("field {key}"),
    })
}

fn gc_label(kind: &str, index: usize) -> String {
    match kind {
        "config" => "containerd.io/gc.ref.content.config".to_owned(),
        _ => format!("containerd.io/gc.ref.content.{kind}.{index}"),
    }
}

fn layer_type(data: &[u8]) -> &'static str {
    match data {
        [0x1f, 0x8b, ..] => OCI_LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => OCI_LAYER_ZSTD,
        _ => OCI_LAYER,
    }
}

/// `sha256:<hex>` of bytes.
pub(super) fn sha256(data: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(data)
        .iter()
        .fold("sha256:".to_owned(), |mut text, byte| {
            // Writing to a string cannot fail.
            write!(text, "{byte:02x}").unwrap_or_default();
            text
        })
}
