//! `deps`: the edges between our crates; changes when `docs/architecture.md` allows another one.
//!
//! An edge that is not in the table is an error, and so is a crate that the table does not know:
//! a new crate starts with a decision on what it may use.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{process, workspace};

/// A crate of ours and what of ours it may use.
type Rule = (&'static str, &'static [&'static str]);

/// May use every crate, and nothing uses it: tests of several rooms together live there.
const TESTS: &str = "tests";

/// Leaves first. Kept in the order of `docs/architecture.md`.
const ALLOWED: [Rule; 27] = [
    ("ebpf-abi", &[]),
    ("proto-api", &[]),
    ("proto-spdy", &[]),
    ("proto", &["proto-api"]),
    ("ebpf", &["ebpf-abi"]),
    ("faulty-disk", &[]),
    ("control-plane-storage", &["faulty-disk"]),
    ("control-plane-apiextensions", &["proto-api"]),
    (
        "control-plane-apiserver",
        &[
            "control-plane-apiextensions",
            "control-plane-storage",
            "control-plane-client",
            "proto-api",
            "proto-spdy",
        ],
    ),
    ("control-plane-client", &["proto-api"]),
    (
        "control-plane-controllers",
        &["control-plane-client", "proto-api"],
    ),
    (
        "control-plane-scheduler",
        &["control-plane-client", "proto-api"],
    ),
    (
        "control-plane-service-model",
        &["control-plane-client", "proto", "proto-api"],
    ),
    (
        "control-plane-node-state",
        &[
            "control-plane-client",
            "control-plane-service-model",
            "proto",
            "proto-api",
        ],
    ),
    (
        "control-plane",
        &[
            "control-plane-apiserver",
            "control-plane-client",
            "control-plane-controllers",
            "control-plane-node-state",
            "control-plane-scheduler",
            "control-plane-service-model",
            "control-plane-storage",
            "faulty-disk",
            "proto",
            "proto-api",
        ],
    ),
    ("dns", &["proto"]),
    (
        "node-agent-state",
        &["proto", "proto-api", "control-plane-service-model"],
    ),
    ("node-agent-datapath", &["ebpf-abi", "ebpf"]),
    (
        "node-agent-proxy",
        &["node-agent-state", "node-agent-datapath", "ebpf-abi"],
    ),
    ("node-agent-network", &["node-agent-datapath"]),
    (
        "node-agent-kubelet",
        &[
            "node-agent-state",
            "node-agent-network",
            "proto",
            "proto-api",
            "proto-spdy",
        ],
    ),
    (
        "node-agent-cli",
        &["node-agent-datapath", "ebpf-abi", "proto"],
    ),
    (
        "node-agent",
        &[
            "dns",
            "ebpf-abi",
            "node-agent-datapath",
            "node-agent-kubelet",
            "node-agent-network",
            "node-agent-proxy",
            "node-agent-state",
            "proto",
            "proto-api",
        ],
    ),
    ("example-hello", &[]),
    (
        "fuzz",
        &[
            "control-plane-apiextensions",
            "control-plane-apiserver",
            "dns",
            "proto",
            "proto-api",
            "proto-spdy",
        ],
    ),
    (TESTS, &[]),
    ("xtask", &[]),
];

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// Only crates of this tree have one.
    path: Option<String>,
}

/// `cargo xtask deps`.
pub(crate) fn run() -> Result<()> {
    let metadata: Metadata = serde_json::from_str(&process::capture(&mut cargo_metadata())?)
        .context("cargo metadata")?;
    let wrong = check(&metadata);
    if !wrong.is_empty() {
        bail!("edges between crates:\n  {}", wrong.join("\n  "));
    }
    println!("{} crates use only what they may", metadata.packages.len());
    Ok(())
}

fn cargo_metadata() -> Command {
    let mut command = workspace::cargo("metadata");
    command.args(["--format-version=1", "--no-deps", "--locked"]);
    command
}

/// Everything that the table does not allow.
fn check(metadata: &Metadata) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            wrong.push(format!(
                "{}: not in the table of xtask/src/check/deps.rs",
                package.name
            ));
            continue;
        };
        let ours = package
            .dependencies
            .iter()
            .filter(|edge| edge.path.is_some());
        for edge in ours {
            let free = package.name == TESTS || edge.name == package.name;
            if !free && !allowed.contains(&edge.name.as_str()) {
                wrong.push(format!("{} -> {}", package.name, edge.name));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::{ALLOWED, Dependency, Metadata, Package, check};

    fn uses(name: &str, used: &str) -> Metadata {
        let edge = Dependency {
            name: used.to_owned(),
            path: Some("/x".to_owned()),
        };
        Metadata {
            packages: vec![Package {
                name: name.to_owned(),
                dependencies: vec![edge],
            }],
        }
    }

    #[test]
    fn an_edge_outside_the_table_is_reported() {
        assert_eq!(check(&uses("ebpf", "ebpf-abi")), Vec::<String>::new());
        assert_eq!(check(&uses("ebpf", "proto")), ["ebpf -> proto"]);
        assert_eq!(check(&uses("new", "proto")).len(), 1);
    }

    #[test]
    fn the_table_has_no_cycle() {
        let mut left: Vec<_> = ALLOWED.to_vec();
        let mut done: Vec<&str> = Vec::new();
        while let Some(at) = left
            .iter()
            .position(|(_, uses)| uses.iter().all(|u| done.contains(u)))
        {
            done.push(left.remove(at).0);
        }
        assert!(left.is_empty(), "in a cycle or using one: {left:?}");
    }

    #[test]
    fn nothing_uses_the_tests_or_the_tasks() {
        assert!(
            ALLOWED
                .iter()
                .all(|(_, uses)| !uses.contains(&super::TESTS) && !uses.contains(&"xtask"))
        );
    }
}
