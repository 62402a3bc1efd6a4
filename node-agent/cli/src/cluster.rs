//! Which nodes there are, and where each is read.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{DENIED, Failure, INTERNAL, NOT_FOUND};

/// File that lists the nodes of a development cluster.
const NODES_FILE: &str = "nodes.json";
/// Where a development cluster keeps its state, seen from the project's directory.
const DEFAULT_CLUSTER: &str = "target/cluster";
const LOCAL_SOCKET: &str = "/run/skep/agent.sock";
const LOCAL_BPFFS: &str = "/sys/fs/bpf";

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) ip: Option<String>,
    /// A process in its namespaces; absent when this machine is the node.
    #[serde(default)]
    pub(crate) pid: Option<u32>,
    pub(crate) agent_socket: PathBuf,
    pub(crate) bpffs: PathBuf,
}

#[derive(Debug, Deserialize)]
struct NodesFile {
    nodes: Vec<Node>,
}

/// What the environment says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) directory: PathBuf,
}

impl Surroundings {
    pub(crate) fn of_this_process() -> Self {
        // KUBECONFIG may be a list; a development cluster's is one file.
        let kubeconfig = env::var_os("KUBECONFIG");
        Self {
            kubeconfig: kubeconfig.and_then(|list| env::split_paths(&list).next()),
            directory: PathBuf::from("."),
        }
    }
}

/// The file to read: the one asked for, or the first of the usual places that has one.
fn nodes_file(asked: Option<&Path>, surroundings: &Surroundings) -> Option<PathBuf> {
    if let Some(directory) = asked {
        return Some(directory.join(NODES_FILE));
    }
    let beside = surroundings.kubeconfig.as_deref().and_then(Path::parent);
    let usual = surroundings.directory.join(DEFAULT_CLUSTER);
    [beside, Some(usual.as_path())]
        .into_iter()
        .flatten()
        .map(|directory| directory.join(NODES_FILE))
        .find(|file| file.exists())
}

fn read(file: &Path) -> Result<Vec<Node>, Failure> {
    let text = std::fs::read(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(
            NOT_FOUND,
            format!(
                "no cluster here: {} does not exist; `cargo xtask up` makes one",
                file.display()
            ),
        ),
        io::ErrorKind::PermissionDenied => Failure::new(
            DENIED,
            format!(
                "reading {} is not allowed; try again with sudo",
                file.display()
            ),
        ),
        _ => Failure::internal(&format!("read {}", file.display()), &error),
    })?;
    let file: NodesFile = serde_json::from_slice(&text).map_err(|error| {
        Failure::new(
            INTERNAL,
            format!("{} is no list of nodes: {error}", file.display()),
        )
    })?;
    Ok(file.nodes)
}

/// This machine as the only node; its name comes from its agent.
fn local() -> Node {
    Node {
        name: "local".to_owned(),
        ip: None,
        pid: None,
        agent_socket: LOCAL_SOCKET.into(),
        bpffs: LOCAL_BPFFS.into(),
    }
}

/// The nodes, of those only the `wanted` if any are named.
/// # Errors
/// [`NOT_FOUND`] for a cluster or a node that is not there.
pub(crate) fn nodes(
    asked: Option<&Path>,
    wanted: &[String],
    surroundings: &Surroundings,
) -> Result<Vec<Node>, Failure> {
    let all = match nodes_file(asked, surroundings) {
        Some(file) => read(&file)?,
        None => vec![local()],
    };
    if let Some(missing) = wanted
        .iter()
        .find(|name| all.iter().all(|node| node.name != **name))
    {
        let names: Vec<&str> = all.iter().map(|node| node.name.as_str()).collect();
        return Err(Failure::new(
            NOT_FOUND,
            format!(
                "no node is called {missing}: there are {}",
                names.join(", ")
            ),
        ));
    }
    Ok(all
        .into_iter()
        .filter(|node| wanted.is_empty() || wanted.contains(&node.name))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"{"cluster":"default","nodes":[
        {"name":"node-1","index":1,"ip":"10.88.0.11","pid":123,
         "agent_socket":"/proc/123/root/run/skep/agent.sock","bpffs":"/proc/123/root/sys/fs/bpf"},
        {"name":"node-2","pid":124,"agent_socket":"/a","bpffs":"/b"}]}"#;

    fn cluster_in(directory: &Path) {
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join(NODES_FILE), TWO).unwrap();
    }

    fn names(asked: Option<&Path>, wanted: &[&str], surroundings: &Surroundings) -> Vec<String> {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let nodes = nodes(asked, &wanted, surroundings).unwrap();
        nodes.into_iter().map(|node| node.name).collect()
    }

    #[test]
    fn nodes_come_from_the_first_place_that_has_them_and_else_from_this_machine() {
        let directory = tempfile::tempdir().unwrap();
        let mut surroundings = Surroundings {
            kubeconfig: None,
            directory: directory.path().join("project"),
        };
        assert_eq!(names(None, &[], &surroundings), ["local"]);
        cluster_in(&directory.path().join("project/target/cluster"));
        assert_eq!(names(None, &[], &surroundings), ["node-1", "node-2"]);
        surroundings.directory = directory.path().join("elsewhere");
        surroundings.kubeconfig = Some(directory.path().join("project/target/cluster/kubeconfig"));
        assert_eq!(names(None, &["node-2"], &surroundings), ["node-2"]);
    }

    #[test]
    fn a_cluster_or_a_node_that_is_not_there_is_not_found() {
        let directory = tempfile::tempdir().unwrap();
        let surroundings = Surroundings::default();
        let error = nodes(Some(directory.path()), &[], &surroundings).unwrap_err();
        assert_eq!(error.code, NOT_FOUND);
        cluster_in(directory.path());
        let wanted = ["node-9".to_owned()];
        let error = nodes(Some(directory.path()), &wanted, &surroundings).unwrap_err();
        assert_eq!(
            error.message,
            "no node is called node-9: there are node-1, node-2"
        );
    }
}
