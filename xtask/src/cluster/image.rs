//! `image import`: changes when containerd imports archives differently.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use super::files::{Cluster, Node};
use super::{containerd, privileged};
use crate::process;

/// Images of a cluster's nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum Arguments {
    /// Import an OCI or Docker archive on every node.
    Import {
        /// The archive (a tar file).
        file: PathBuf,
        /// The cluster.
        #[arg(long, default_value = super::files::DEFAULT_NAME)]
        name: String,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments::Import { file, name } = arguments;
    let cluster = Cluster::named(name)?;
    if cluster.nodes()?.nodes.is_empty() {
        bail!("cluster {name:?} has no nodes: run `cargo xtask up`");
    }
    let file = std::fs::canonicalize(file).with_context(|| format!("open {}", file.display()))?;
    import(&cluster, &file)
}

/// On every node, as root.
pub(crate) fn import(cluster: &Cluster, file: &Path) -> Result<()> {
    privileged::run(&["image-import", &cluster.name, &file.to_string_lossy()])
}

/// All nodes at once; the images are then known to the runtime interface of every release.
pub(crate) fn import_on_nodes(cluster: &Cluster, file: &Path) -> Result<()> {
    let nodes = cluster.nodes()?.nodes;
    let running: Vec<_> = nodes
        .iter()
        .map(|node| {
            let mut command = ctr(cluster, node)?;
            command
                .args(["images", "import", "--digests=false"])
                .arg(file);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let line = process::display(&command);
            let child = command.spawn().with_context(|| format!("start `{line}`"))?;
            Ok((node, line, child))
        })
        .collect::<Result<Vec<_>>>()?;
    for (node, line, child) in running {
        let output = child
            .wait_with_output()
            .with_context(|| format!("wait for `{line}`"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}: `{line}`: {}", node.name, said.trim());
        }
        for image in names(&String::from_utf8_lossy(&output.stdout)) {
            publish(cluster, node, image)?;
        }
    }
    Ok(())
}

/// containerd 1.7 tells its runtime interface of an imported image only when the image changes
/// afterwards; a label is such a change, and harmless elsewhere.
fn publish(cluster: &Cluster, node: &Node, image: &str) -> Result<()> {
    let label = "io.cri-containerd.image=managed";
    process::quiet(ctr(cluster, node)?.args(["images", "label", image, label]))
        .with_context(|| format!("{}: publish {image}", node.name))
}

/// `unpacking NAME (DIGEST)...done` or `NAME  saved`.
fn names(said: &str) -> Vec<&str> {
    let mut found: Vec<&str> = said
        .lines()
        .filter_map(|line| match line.trim().strip_prefix("unpacking ") {
            Some(rest) => rest.split_whitespace().next(),
            None => line
                .split_whitespace()
                .next()
                .filter(|_| line.contains("saved")),
        })
        .collect();
    found.dedup();
    found
}

fn ctr(cluster: &Cluster, node: &Node) -> Result<Command> {
    let program = containerd::program(cluster, "ctr")?;
    let mut command = Command::new(program);
    command.args([
        "--address",
        &node.containerd_socket,
        "--namespace",
        "k8s.io",
    ]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn the_image_is_found_in_what_ctr_prints() {
        let said = "unpacking skep.local/busybox:latest (sha256:6a0d)...done\n";
        assert_eq!(names(said), ["skep.local/busybox:latest"]);
        assert_eq!(
            names("skep.local/hello:latest   saved\n"),
            ["skep.local/hello:latest"]
        );
    }
}
