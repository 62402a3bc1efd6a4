//! containerd's configuration for a node: changes when a containerd release changes its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::files::Cluster;
use crate::{process, workspace};

/// The image of the container that holds a pod's namespaces. The agent brings it.
const PAUSE_IMAGE: &str = "skep.local/pause:3";

/// Not needed in a node, and slow or noisy at start.
const DISABLED: [&str; 8] = [
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.internal.v1.tracing",
];

/// Releases whose configuration differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// 1.6 and 1.7: configuration version 2.
    One,
    /// 2.x: configuration version 3, other plugin names.
    Two,
}

/// What the configuration of one node depends on.
#[derive(Debug)]
pub(crate) struct Settings<'a> {
    pub(crate) release: Release,
    /// The node's own directory.
    pub(crate) dir: &'a Path,
    /// Whether this machine lets us lower a process's out-of-memory score.
    pub(crate) oom_score: OomScore,
    /// The program that runs containers, when it is not the machine's.
    pub(crate) shim: Option<PathBuf>,
}

/// Without CAP_SYS_RESOURCE runc fails on the sandbox's score of -998 with an opaque message;
/// then the scores are clamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OomScore {
    Free,
    Restricted,
}

/// A program of the cluster's containerd: of the directory that `up` was given, or the machine's.
pub(crate) fn program(cluster: &Cluster, name: &str) -> Result<PathBuf> {
    match cluster.containerd()? {
        Some(directory) => Ok(directory.join(name)),
        None => workspace::find_program(name).with_context(|| {
            format!("{name} (of containerd) is not installed: run `cargo xtask setup`")
        }),
    }
}

/// The shim, when it is not the one that containerd would find.
pub(crate) fn shim(cluster: &Cluster) -> Result<Option<PathBuf>> {
    let directory = cluster.containerd()?;
    Ok(directory.map(|directory| directory.join("containerd-shim-runc-v2")))
}

/// The release of the cluster's containerd.
pub(crate) fn release(cluster: &Cluster) -> Result<Release> {
    let program = program(cluster, "containerd")?;
    parse_release(&process::capture(Command::new(program).arg("--version"))?)
}

fn parse_release(text: &str) -> Result<Release> {
    let version = text
        .split_whitespace()
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
        .with_context(|| format!("no version in {text:?}"))?;
    match version.split('.').take(2).collect::<Vec<_>>().as_slice() {
        ["1", "6" | "7"] => Ok(Release::One),
        ["2", _] => Ok(Release::Two),
        _ => bail!("containerd {version}: skep supports 1.6, 1.7 and 2.x"),
    }
}

/// Whether CAP_SYS_RESOURCE (bit 24) is in this process's effective set.
pub(crate) fn oom_score() -> Result<OomScore> {
    let status = std::fs::read_to_string("/proc/self/status").context("read own capabilities")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .context("CapEff in /proc/self/status")?;
    Ok(if effective & (1 << 24) == 0 {
        OomScore::Restricted
    } else {
        OomScore::Free
    })
}

/// The text of `containerd.toml`.
pub(crate) fn config(settings: &Settings<'_>) -> String {
    let Settings {
        release,
        dir,
        oom_score,
        shim,
    } = settings;
    let shim = shim.as_ref().map_or(String::new(), |shim| {
        format!("runtime_path = {}\n", quote(&shim.to_string_lossy()))
    });
    let restrict = *oom_score == OomScore::Restricted;
    let disabled: Vec<String> = DISABLED.iter().map(|plugin| quote(plugin)).collect();
    let root = quote(&dir.join("containerd").to_string_lossy());
    let bin = quote(&dir.join("cni/bin").to_string_lossy());
    let conf = quote(&dir.join("cni/conf").to_string_lossy());
    let pause = quote(PAUSE_IMAGE);
    let head = format!(
        "root = {root}\nstate = \"/run/containerd\"\ndisabled_plugins = [{}]\n\n\
         [grpc]\naddress = \"/run/containerd/containerd.sock\"\n",
        disabled.join(", ")
    );
    match release {
        Release::One => format!(
            "version = 2\n{head}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n\
             sandbox_image = {pause}\n\
             restrict_oom_score_adj = {restrict}\n\
             netns_mounts_under_state_dir = true\n\
             enable_unprivileged_ports = true\n\
             enable_unprivileged_icmp = true\n\
             stream_server_address = \"127.0.0.1\"\n\
             stream_server_port = \"0\"\n\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
             bin_dir = {bin}\nconf_dir = {conf}\nmax_conf_num = 1\n\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry]\n\
             config_path = \"/etc/containerd/certs.d\"\n\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
             runtime_type = \"io.containerd.runc.v2\"\n{shim}\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n\
             SystemdCgroup = false\n"
        ),
        Release::Two => format!(
            "version = 3\n{head}\n\
             [plugins.\"io.containerd.cri.v1.images\".pinned_images]\n\
             sandbox = {pause}\n\n\
             [plugins.\"io.containerd.cri.v1.images\".registry]\n\
             config_path = \"/etc/containerd/certs.d\"\n\n\
             [plugins.\"io.containerd.cri.v1.runtime\"]\n\
             restrict_oom_score_adj = {restrict}\n\
             netns_mounts_under_state_dir = true\n\
             enable_unprivileged_ports = true\n\
             enable_unprivileged_icmp = true\n\n\
             [plugins.\"io.containerd.cri.v1.runtime\".cni]\n\
             bin_dir = {bin}\nconf_dir = {conf}\nmax_conf_num = 1\n\
             use_internal_loopback = true\n\n\
             [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc]\n\
             runtime_type = \"io.containerd.runc.v2\"\n{shim}\n\
             [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc.options]\n\
             SystemdCgroup = false\n\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n\
             stream_server_address = \"127.0.0.1\"\n\
             stream_server_port = \"0\"\n\n\
             [plugins.\"io.containerd.nri.v1.nri\"]\n\
             disable = true\n"
        ),
    }
}

/// A basic TOML string.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{OomScore, Release, Settings, config, parse_release};

    #[test]
    fn the_release_is_read_from_what_containerd_prints() {
        let cases = [
            (
                "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3",
                Release::One,
            ),
            (
                "containerd github.com/containerd/containerd v1.7.24 88bf19b",
                Release::One,
            ),
            (
                "containerd github.com/containerd/containerd/v2 2.1.9~ds1 x",
                Release::Two,
            ),
        ];
        for (text, release) in cases {
            assert_eq!(parse_release(text).unwrap(), release, "{text}");
        }
        parse_release("containerd x 1.4.1 y").unwrap_err();
    }

    #[test]
    fn each_release_gets_its_own_names() {
        let of = |release| {
            config(&Settings {
                release,
                dir: Path::new("/n"),
                oom_score: OomScore::Restricted,
                shim: Some("/c/containerd-shim-runc-v2".into()),
            })
        };
        let (one, two) = (of(Release::One), of(Release::Two));
        assert!(
            one.contains("sandbox_image = \"skep.local/pause:3\""),
            "{one}"
        );
        assert!(two.contains("sandbox = \"skep.local/pause:3\""), "{two}");
        for text in [one, two] {
            assert!(text.contains("restrict_oom_score_adj = true"));
            assert!(text.contains("bin_dir = \"/n/cni/bin\""));
            assert!(text.contains("runtime_path = \"/c/containerd-shim-runc-v2\"\n\n"));
        }
    }
}
