//! The pause image from inside the binary: what holds a pod's namespaces open.
//!
//! build.rs compiles `pause/pause.rs` to a static binary of a few kilobytes; here it is wrapped as
//! an image archive, so that a node needs no registry to run its first pod.

use serde_json::json;

use super::archive::sha256;

/// Name under which nodes know the image; containerd's `sandbox_image` must say the same.
pub(crate) const PAUSE_IMAGE: &str = "skep.local/pause:3";

static PAUSE_BINARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The image as a `docker save` archive. Equal on every machine of one build.
///
/// # Errors
/// Never in practice: the archive is written to memory.
pub(crate) fn archive() -> std::io::Result<Vec<u8>> {
    image_archive(PAUSE_IMAGE, "pause", PAUSE_BINARY, architecture())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A one-file image: `/<file>` is its entry point.
pub(crate) fn image_archive(
    name: &str,
    file: &str,
    binary: &[u8],
    architecture: &str,
) -> std::io::Result<Vec<u8>> {
    let layer = tar_of(&[(file, binary, 0o755)])?;
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": [format!("/{file}")], "WorkingDir": "/", "Env": ["PATH=/"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256(&layer)]},
        "history": [],
    })
    .to_string();
    let manifest = json!([{
        "Config": "config.json",
        "RepoTags": [name],
        "Layers": ["layer.tar"],
    }])
    .to_string();
    tar_of(&[
        ("config.json", config.as_bytes(), 0o644),
        ("layer.tar", &layer, 0o644),
        ("manifest.json", manifest.as_bytes(), 0o644),
    ])
}

fn tar_of(files: &[(&str, &[u8], u32)]) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, data, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(*mode);
        header.set_entry_type(tar::EntryType::Regular);
        builder.append_data(&mut header, path, *data)?;
    }
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::archive::Archive;

    #[test]
    fn the_archive_holds_one_image_with_config_layer_and_manifest() {
        let archive = Archive::parse(&archive().unwrap()).unwrap();
        assert_eq!(archive.images.len(), 1);
        assert_eq!(archive.images[0].name, PAUSE_IMAGE);
        let manifest = archive.blobs.last().unwrap();
        assert_eq!(manifest.digest, archive.images[0].digest);
        assert_eq!(manifest.references.len(), 2);
        for child in manifest.references.values() {
            assert!(archive.blobs.iter().any(|blob| &blob.digest == child));
        }
    }

    #[test]
    fn the_binary_is_static_and_small() {
        assert_eq!(&PAUSE_BINARY[..4], b"\x7fELF");
        assert!(
            PAUSE_BINARY.len() < 32 * 1024,
            "{} bytes",
            PAUSE_BINARY.len()
        );
        let interpreter = b"/lib64/ld-linux";
        assert!(
            !PAUSE_BINARY
                .windows(interpreter.len())
                .any(|window| window == interpreter)
        );
    }
}
