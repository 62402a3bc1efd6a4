//! Suites that are programs of a client's own language: changes when there is another one.

use std::process::Command;

use anyhow::Result;
use tests::{Cluster, Output};

use crate::place::{self, Place};

/// Run with the Python client of the tools' directory.
pub(crate) const SCRIPTS: [&str; 2] = ["examples", "upstream"];

pub(crate) fn run(script: &str, cluster: &Cluster) -> Result<()> {
    let place = Place::new(cluster, &format!("python-{script}"), &[])?;
    let library = tests::tools().join("python");
    anyhow::ensure!(
        library.is_dir(),
        "{} is not there: run `cargo xtask setup`",
        library.display()
    );
    let file = place::directory().join("python").join(script);
    let mut command = Command::new("timeout");
    command
        .args(["120", "python3", "-s"])
        .arg(file.with_extension("py"))
        .env("PYTHONPATH", library)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Output::of(place.at_home(&mut command), b"")?.success()?;
    place.leave()
}
