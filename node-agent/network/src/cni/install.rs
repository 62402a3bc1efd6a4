//! Puts plugin and configuration where the runtime looks for them.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::plugin::{LOOPBACK_NAME, PLUGIN_NAME};

/// Name of the configuration: sorts before what a distribution ships.
const CONFIGURATION_NAME: &str = "05-skep.conflist";

/// Why the plugin could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot install the CNI plugin: {what} {path}")]
pub struct InstallError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Links `program` (this agent) into `bin_dir` under the plugin's names and writes the configuration
/// to `conf_dir`, last, so that the runtime finds a plugin when it finds a configuration. A plugin
/// called `loopback` that somebody else installed stays.
///
/// # Errors
/// [`InstallError`] names the path.
pub fn install(
    program: &Path,
    bin_dir: &Path,
    conf_dir: &Path,
    socket: &Path,
) -> Result<(), InstallError> {
    let error = |what, path: &Path| {
        let path = path.to_owned();
        move |source| InstallError { what, path, source }
    };
    for dir in [bin_dir, conf_dir] {
        std::fs::create_dir_all(dir).map_err(error("create directory", dir))?;
    }
    link(program, &bin_dir.join(PLUGIN_NAME)).map_err(error("link", &bin_dir.join(PLUGIN_NAME)))?;
    let loopback = bin_dir.join(LOOPBACK_NAME);
    let is_ours = || std::fs::read_link(&loopback).is_ok();
    if !loopback.exists() || is_ours() {
        link(program, &loopback).map_err(error("link", &loopback))?;
    }
    let configuration = json!({
        "cniVersion": "1.0.0",
        "name": "skep",
        "plugins": [{"type": PLUGIN_NAME, "socket": socket}],
    });
    let path = conf_dir.join(CONFIGURATION_NAME);
    let temporary = conf_dir.join(".05-skep.new");
    std::fs::write(&temporary, format!("{configuration:#}\n"))
        .and_then(|()| std::fs::rename(&temporary, &path))
        .map_err(error("write", &path))
}

/// A symbolic link at `path`, replaced in one step.
fn link(program: &Path, path: &Path) -> io::Result<()> {
    let temporary = path.with_extension("new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::os::unix::fs::symlink(program, &temporary)?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugin_and_configuration_are_put_in_place_twice_alike() {
        let dir = tempfile::tempdir().unwrap();
        let (bin, conf) = (dir.path().join("bin"), dir.path().join("conf"));
        let program = Path::new("/usr/bin/skep-node-agent");
        for _ in 0..2 {
            install(program, &bin, &conf, Path::new("/run/skep/cni.sock")).unwrap();
        }
        assert_eq!(std::fs::read_link(bin.join("skep-cni")).unwrap(), program);
        assert_eq!(std::fs::read_link(bin.join("loopback")).unwrap(), program);
        let text = std::fs::read_to_string(conf.join("05-skep.conflist")).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["plugins"][0]["socket"], "/run/skep/cni.sock");
    }

    #[test]
    fn a_foreign_loopback_plugin_stays() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(bin.join("loopback"), "theirs").unwrap();
        install(
            Path::new("/a"),
            &bin,
            &dir.path().join("conf"),
            Path::new("/s"),
        )
        .unwrap();
        assert_eq!(
            std::fs::read_to_string(bin.join("loopback")).unwrap(),
            "theirs"
        );
    }
}
