//! `down`: takes a cluster away with everything it made; changes when `up` makes something new.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::files::{Cluster, DEFAULT_NAME};
use super::{cgroups, control_plane, mounts, node, privileged, underlay};

/// Stop a cluster and remove all that it left on this machine, its data included.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The cluster.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Every cluster of this source tree.
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.all {
        return Cluster::all()?.iter().try_for_each(take_down);
    }
    let cluster = Cluster::named(&arguments.name)?;
    if !cluster.dir.exists() {
        println!("cluster {:?} is not up", cluster.name);
        return Ok(());
    }
    take_down(&cluster)
}

fn take_down(cluster: &Cluster) -> Result<()> {
    let started = std::time::Instant::now();
    control_plane::end(cluster)?;
    privileged::run(&["down", &cluster.name])?;
    remove_files(&cluster.dir)?;
    println!(
        "cluster {:?} is down ({:.2} s)",
        cluster.name,
        started.elapsed().as_secs_f32()
    );
    Ok(())
}

/// Nodes, network, control groups, and the files that belong to root.
pub(crate) fn as_root(cluster: &Cluster) -> Result<()> {
    let nodes = cluster.nodes()?.nodes;
    nodes.iter().try_for_each(node::end)?;
    if let Some(network) = cluster.network()? {
        // An interrupted `up` may have started nodes that no file names.
        let group = network.index.host_link();
        cgroups::end_processes(&group)?;
        underlay::down(&network)?;
        cgroups::remove(&group)?;
        remove_files(&Path::new("/run").join(network.index.host_link()))?;
    }
    remove_files(&cluster.dir.join("nodes"))?;
    if !underlay::any_cluster() {
        remove_mount_point(Path::new(mounts::CNI_CACHE))?;
    }
    Ok(())
}

/// An empty directory was only ever a mount point of ours or is missed by nobody.
fn remove_mount_point(point: &Path) -> Result<()> {
    use std::io::ErrorKind;
    match std::fs::remove_dir(point) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove {}", point.display())),
    }
}

/// Never across a mount: what is mounted below is not ours to delete.
fn remove_files(dir: &Path) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
    if let Some(mounted) = mounted_below(&table, dir) {
        bail!("{mounted} is still mounted: unmount it and repeat");
    }
    match std::fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove {}", dir.display())),
    }
}

fn mounted_below<'a>(mountinfo: &'a str, dir: &Path) -> Option<&'a str> {
    mountinfo
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4))
        .find(|point| Path::new(point).starts_with(dir))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::mounted_below;

    #[test]
    fn a_mount_below_a_directory_is_found_and_a_similar_name_is_not() {
        let table = "1 0 8:1 / / rw - ext4 x rw\n2 1 0:9 / /t/cluster/n/v rw - tmpfs x rw\n";
        assert_eq!(
            mounted_below(table, Path::new("/t/cluster")),
            Some("/t/cluster/n/v")
        );
        assert_eq!(mounted_below(table, Path::new("/t/clus")), None);
    }
}
