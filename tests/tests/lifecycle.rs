//! `cargo xtask up` and `down`: what a cluster leaves, and what a repeated call does.
//!
//! One test: the leak check sees the whole machine, so nothing else may run beside it.

use anyhow::{Context as _, Result, ensure};
use tests::{Cluster, Leaks, Options, Process};

#[test]
fn a_cluster_comes_up_again_and_again_and_goes_without_a_trace() -> Result<()> {
    let leaks = Leaks::before()?;
    let cluster = Cluster::up("lifecycle", Options::default())?;
    let nodes = cluster
        .kubectl(&["get", "nodes", "--output=name"])?
        .success()?;
    ensure!(
        nodes.text() == "node/node-1\nnode/node-2",
        "{}",
        nodes.stdout
    );

    let processes = |cluster: &Cluster| -> Result<_> {
        Ok((
            cluster.nodes()?,
            cluster.agent("node-1")?,
            cluster.control_plane()?,
        ))
    };
    let before = processes(&cluster)?;
    cluster.up_again()?;
    ensure!(
        processes(&cluster)? == before,
        "a repeated up restarted something"
    );

    // The whole node dies, and its number may be taken for a running one for a moment.
    let killed = cluster.nodes()?.pop().context("the last node")?;
    Process { pid: killed.pid }.signal("KILL")?;
    cluster.up_again()?;
    let again = cluster.nodes()?.pop().context("the last node")?;
    ensure!(
        again.name == killed.name && again.pid != killed.pid,
        "{again:?}"
    );

    for node in ["node-1", "node-2"] {
        let name = cluster.exec(node, &["hostname"])?.success()?;
        ensure!(name.text() == node, "{}", name.stdout);
    }
    let failed = cluster.exec("node-1", &["sh", "-c", "exit 7"])?;
    ensure!(failed.code == Some(7), "{failed:?}");

    cluster.down()?;
    leaks.check()
}
