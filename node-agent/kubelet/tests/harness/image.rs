//! The image that test pods run: busybox in an archive made here, so that nothing is pulled.

use sha2::{Digest as _, Sha256};

use super::BUSYBOX;

/// A `docker save` archive of busybox with its applets.
pub(super) fn archive() -> Vec<u8> {
    let binary = std::fs::read("/bin/busybox").unwrap();
    let mut layer = tar::Builder::new(Vec::new());
    let mut put = |path: &str, data: &[u8], kind: tar::EntryType, mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(mode);
        header.set_entry_type(kind);
        layer.append_data(&mut header, path, data).unwrap();
    };
    for directory in ["bin/", "tmp/", "etc/", "var/", "var/run/"] {
        put(directory, b"", tar::EntryType::Directory, 0o777);
    }
    put("bin/busybox", &binary, tar::EntryType::Regular, 0o755);
    put(
        "etc/passwd",
        b"root:x:0:0::/:/bin/sh\n",
        tar::EntryType::Regular,
        0o644,
    );
    for applet in [
        "sh", "cat", "echo", "sleep", "ls", "env", "id", "wc", "httpd", "true", "false", "head",
        "stat", "hostname", "grep",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o777);
        header.set_entry_type(tar::EntryType::Symlink);
        layer
            .append_link(&mut header, format!("bin/{applet}"), "busybox")
            .unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let digest: String = Sha256::digest(&layer)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    })
    .to_string();
    let manifest = serde_json::json!([
        {"Config": "config.json", "RepoTags": [BUSYBOX], "Layers": ["layer.tar"]}])
    .to_string();
    let mut archive = tar::Builder::new(Vec::new());
    for (path, data) in [
        ("config.json", config.as_bytes()),
        ("layer.tar", &layer),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, data).unwrap();
    }
    archive.into_inner().unwrap()
}
