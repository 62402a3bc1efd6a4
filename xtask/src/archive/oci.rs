//! One-layer OCI images (image-spec 1.0): changes when a runtime wants more in an image.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::sha256;
use super::tar::Tar;

/// An image of one layer.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    /// Full name with tag.
    pub(crate) name: &'a str,
    /// A tar file of the root file system.
    pub(crate) layer: Vec<u8>,
    pub(crate) entrypoint: &'a [&'a str],
    pub(crate) command: &'a [&'a str],
    /// `uid:gid`; empty is root.
    pub(crate) user: &'a str,
}

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The image as an OCI layout in a tar file.
pub(crate) fn archive(image: &Image<'_>) -> Result<Vec<u8>> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let layer_digest = sha256::hex(&image.layer);
    let config = bytes(&json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": image.entrypoint,
            "Cmd": image.command,
            "User": image.user,
            "WorkingDir": "/",
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
    }))?;
    let manifest = bytes(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &image.layer)],
    }))?;
    let mut entry = descriptor(MANIFEST, &manifest);
    // containerd reads the first, other tools the second.
    let tag = image.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    entry["annotations"] = json!({
        "io.containerd.image.name": image.name,
        "org.opencontainers.image.ref.name": tag,
    });
    let index = bytes(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}))?;
    let mut tar = Tar::default();
    tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.file("index.json", 0o644, &index)?;
    tar.directory("blobs", 0o755)?;
    tar.directory("blobs/sha256", 0o755)?;
    for blob in [&manifest, &config, &image.layer] {
        tar.file(&format!("blobs/sha256/{}", sha256::hex(blob)), 0o644, blob)?;
    }
    Ok(tar.finish())
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": format!("sha256:{}", sha256::hex(blob)),
        "size": blob.len(),
    })
}

fn bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).context("serialise a part of an image")
}
