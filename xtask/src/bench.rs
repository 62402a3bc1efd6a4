//! `bench`: runs the measurements that the rooms offer; changes when they are found differently.
//!
//! A measurement is a bench target of a crate, or an example of one. It prints its own figures, as ratios of two
//! variants on this machine where it can: absolute times say little on a shared machine.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::build::ebpf::Words;
use crate::{build, process, workspace};

/// Run the measurements of all crates, or of those whose name contains a word.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Part of `CRATE/BENCH`.
    filter: Option<String>,
    /// Only say what there is.
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut command = workspace::cargo("metadata");
    command.args(["--format-version=1", "--no-deps"]);
    let metadata: Metadata =
        serde_json::from_str(&process::capture(&mut command)?).context("cargo metadata")?;
    let benches = select(&metadata, arguments.filter.as_deref().unwrap_or_default());
    if benches.is_empty() {
        bail!(
            "no measurement matches {:?}",
            arguments.filter.as_deref().unwrap_or_default()
        );
    }
    if arguments.list {
        benches
            .iter()
            .for_each(|one| println!("{}/{}", one.package, one.name));
        return Ok(());
    }
    build::ebpf::build(&build::ebpf::toolchain()?, Words::Silent)?;
    for Measurement {
        package,
        name,
        kind,
    } in benches
    {
        println!("== {package}/{name}");
        let (subcommand, target) = match kind {
            Kind::Bench => ("bench", "--bench"),
            Kind::Example => ("run", "--example"),
        };
        let mut command = workspace::cargo(subcommand);
        command.args(["--profile=release", target, name]);
        process::run(command.args(["--quiet", "--locked", "--package", package]))?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Measurement<'a> {
    package: &'a str,
    name: &'a str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bench,
    Example,
}

fn select<'a>(metadata: &'a Metadata, filter: &str) -> Vec<Measurement<'a>> {
    let all = metadata.packages.iter().flat_map(|package| {
        package.targets.iter().filter_map(|target| {
            let kind = match target.kind.first()?.as_str() {
                "bench" => Kind::Bench,
                "example" => Kind::Example,
                _ => return None,
            };
            Some(Measurement {
                package: &package.name,
                name: &target.name,
                kind,
            })
        })
    });
    let all: Vec<Measurement<'_>> = all.collect();
    // A whole name means that one, also where it is a part of others.
    let exact: Vec<_> = all
        .iter()
        .copied()
        .filter(|one| one.name == filter)
        .collect();
    if !exact.is_empty() {
        return exact;
    }
    all.into_iter()
        .filter(|one| format!("{}/{}", one.package, one.name).contains(filter))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Kind, Measurement, Metadata, Package, Target, select};

    #[test]
    fn benches_are_selected_by_a_part_of_their_name() {
        let target = |name: &str, kind: &str| Target {
            name: name.to_owned(),
            kind: vec![kind.to_owned()],
        };
        let targets = vec![
            target("x", "lib"),
            target("commit", "bench"),
            target("cost", "example"),
        ];
        let metadata = Metadata {
            packages: vec![Package {
                name: "storage".to_owned(),
                targets,
            }],
        };
        let commit = Measurement {
            package: "storage",
            name: "commit",
            kind: Kind::Bench,
        };
        assert_eq!(select(&metadata, "commit"), [commit]);
        assert_eq!(select(&metadata, "co").len(), 2);
        assert_eq!(select(&metadata, "storage/").len(), 2);
        assert_eq!(select(&metadata, "other"), []);
    }
}
