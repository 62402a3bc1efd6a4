//! `up`: from a source tree to a cluster that answers; changes when a step is added.
//!
//! Each step is safe to repeat: what is there is left, what is missing is made. A failure names
//! the step, the reason and the log.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::addresses::{CONTROL_PLANES_MAX, NODES_MAX};
use super::control_plane::{self, Wanted, WasRunning};
use super::files::{self, Cluster, DataplaneMode, Network, Node, Store};
use super::{client, image, links, privileged};
use crate::archive;
use crate::build::ebpf::Words;
use crate::build::host::{self, Profile};
use crate::{build, setup};

/// Start a cluster on this machine and wait until it is ready.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many nodes; more on a repeated call adds nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=i64::from(NODES_MAX)))]
    pub(crate) nodes: u8,
    /// Where the control plane keeps its objects.
    #[arg(long, value_enum, default_value = "embedded")]
    pub(crate) store: Store,
    /// How many control planes, side by side; more than one needs `--store etcd`, which then has
    /// three members.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(CONTROL_PLANES_MAX)))]
    pub(crate) control_planes: u8,
    /// How pods of other nodes are reached, in a new cluster.
    #[arg(long, value_enum, default_value = "direct")]
    pub(crate) dataplane_mode: DataplaneMode,
    /// Optimised programs.
    #[arg(long)]
    pub(crate) release: bool,
    /// BPF programs that log their verdicts to the agents' logs; slower.
    #[arg(long, conflicts_with = "prebuilt")]
    pub(crate) debug_log: bool,
    /// A directory with another containerd, its shim and ctr than the machine's, in a new cluster.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) containerd: Option<PathBuf>,
    /// Takes the programs and images as they are.
    #[arg(long, hide = true)]
    pub(crate) prebuilt: bool,
    /// The cluster; several can run at once.
    #[arg(long, default_value = files::DEFAULT_NAME)]
    pub(crate) name: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    let cluster = Cluster::named(&arguments.name)?;
    let profile = Profile::of(arguments.release);
    if !arguments.prebuilt {
        step("setup", setup::ensure)?;
        let words = Words::of(arguments.debug_log);
        step("programs", || build_programs(profile, words))?;
        step("images", || archive::images(profile))?;
    }
    let containerd = arguments.containerd.as_deref();
    let network = step("network", || network(&cluster, containerd))?;
    let wanted = Wanted {
        index: network.index,
        store: arguments.store,
        count: arguments.control_planes,
        profile,
        mode: arguments.dataplane_mode,
    };
    let before = programs_in_use(&cluster);
    let was = step("control plane", || control_plane::start(&cluster, wanted))?;
    let nodes = step("nodes", || nodes(&cluster, arguments.nodes))?;
    step("new programs", || {
        reload_if_changed(&cluster, profile, was, before.as_deref())
    })?;
    step("image import", || {
        archive::files()
            .iter()
            .try_for_each(|archive| image::import(&cluster, archive))
    })?;
    step("API ready", || client::wait_for_api(&cluster))?;
    let routes = step("nodes ready", || client::wait_for_nodes(&cluster, &nodes))?;
    step("pod routes", || route_pods(&cluster, &routes))?;
    step("DNS answers", || {
        client::wait_for_dns(&cluster, network.index, &nodes)
    })?;
    let notes = links::refresh(profile)?;
    println!(
        "cluster {:?} is up ({:.1} s)",
        cluster.name,
        started.elapsed().as_secs_f32()
    );
    notes.iter().for_each(|note| println!("  {note}"));
    println!("  export KUBECONFIG={}", shown(&cluster.kubeconfig()));
    Ok(())
}

/// Runs one step and says what it was and how long it took.
fn step<T>(name: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    print!("  {name:.<18} ");
    std::io::stdout().flush().context("write progress")?;
    let started = Instant::now();
    let outcome = action();
    match &outcome {
        Ok(_) => println!("{:>7.2} s", started.elapsed().as_secs_f32()),
        Err(_) => println!("failed after {:.2} s", started.elapsed().as_secs_f32()),
    }
    outcome.with_context(|| format!("step `{name}`"))
}

/// The compilers' own progress goes to the terminal: a first build takes minutes.
fn build_programs(profile: Profile, words: Words) -> Result<()> {
    println!();
    build::ebpf::build(&build::ebpf::toolchain()?, words)?;
    host::build(profile)
}

fn network(cluster: &Cluster, containerd: Option<&Path>) -> Result<Network> {
    let logs = cluster.logs();
    std::fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
    if let Some(directory) = containerd {
        cluster.write_containerd(directory)?;
    }
    privileged::run(&["network-up", &cluster.name])?;
    cluster.network()?.context("the network step wrote nothing")
}

fn nodes(cluster: &Cluster, count: u8) -> Result<Vec<Node>> {
    privileged::run(&["nodes-up", &cluster.name, &count.to_string()])?;
    Ok(cluster.nodes()?.nodes)
}

fn route_pods(cluster: &Cluster, routes: &[String]) -> Result<()> {
    let mut words = vec!["pod-routes", cluster.name.as_str()];
    words.extend(routes.iter().map(String::as_str));
    privileged::run(&words)
}

/// What was built when the cluster was last brought up.
fn programs_in_use(cluster: &Cluster) -> Option<String> {
    std::fs::read_to_string(cluster.dir.join("programs")).ok()
}

/// A repeated `up` puts newly built programs into use; pods keep running.
fn reload_if_changed(
    cluster: &Cluster,
    profile: Profile,
    was: WasRunning,
    before: Option<&str>,
) -> Result<()> {
    let now = profile.fingerprint()?;
    if was == WasRunning::Yes && before.is_some_and(|before| before != now) {
        control_plane::reload(cluster)?;
        privileged::run(&["nodes-reload", &cluster.name])?;
    }
    std::fs::write(cluster.dir.join("programs"), now).context("note which programs are in use")
}

/// Relative when the user stands in the tree's root, as the README has it.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here)
        .unwrap_or(path)
        .display()
        .to_string()
}
