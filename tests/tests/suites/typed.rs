//! Running transcripts: changes when a client or a version of one is added.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::transcript::{self, Step};
use tests::{Cluster, Output, Store, until};

use crate::place::{self, Place};

/// A pod of a loaded machine starts and ends within this time.
const SOON: Duration = Duration::from_secs(60);

/// An answer that is not written yet is not waited for as long.
const WHILE_WRITING: Duration = Duration::from_secs(10);

/// The programs of a terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// Its transcripts' directory.
    directory: &'static str,
    /// What `$1.37` in a transcript asks for.
    version: &'static str,
    /// Name as typed, and file below the tools' directory.
    programs: &'static [(&'static str, &'static str)],
}

/// The first of a directory is the one that transcripts are written with.
const CLIENTS: [Client; 3] = [
    Client {
        directory: "kubectl",
        version: "1.37",
        programs: &[("kubectl", "kubectl")],
    },
    Client {
        directory: "kubectl",
        version: "1.32",
        programs: &[("kubectl", "kubectl-1.32")],
    },
    Client {
        directory: "helm",
        version: "4",
        programs: &[("helm", "helm"), ("kubectl", "kubectl")],
    },
];

/// One transcript with one version of its client.
#[derive(Debug, Clone)]
pub(crate) struct Suite {
    client: Client,
    name: String,
    file: PathBuf,
}

impl Suite {
    pub(crate) fn name(&self) -> String {
        let Client {
            directory, version, ..
        } = self.client;
        format!("{directory}-{version}/{}", self.name)
    }
}

pub(crate) fn suites() -> Result<Vec<Suite>> {
    let mut all = Vec::new();
    for client in CLIENTS {
        for file in transcripts(client.directory)? {
            let name = file.file_stem().context("a transcript's name")?;
            let name = name.to_string_lossy().into_owned();
            all.push(Suite { client, name, file });
        }
    }
    // The same transcript with all versions and stores at about the same time.
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Files of one client's directory, in order.
pub(crate) fn transcripts(directory: &str) -> Result<Vec<PathBuf>> {
    let dir = place::directory().join(directory);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let file = entry.context("list transcripts")?.path();
        if file.extension().is_some_and(|end| end == "txt") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

pub(crate) fn run(suite: &Suite, cluster: &Cluster, store: Store) -> Result<()> {
    let text = std::fs::read_to_string(&suite.file)
        .with_context(|| format!("read {}", suite.file.display()))?;
    let steps = transcript::parse(&text).with_context(|| suite.file.display().to_string())?;
    let Client {
        directory, version, ..
    } = suite.client;
    let namespace = format!("{directory}-{}-{}", suite.name, version.replace('.', ""));
    let place = Place::new(cluster, &namespace, suite.client.programs)?;
    let is_first = CLIENTS
        .iter()
        .find(|client| client.directory == directory)
        .is_some_and(|first| first.version == version);
    let writes = std::env::var_os("WRITE_GOLDEN").is_some();
    if writes && is_first && store == Store::Embedded {
        write(suite, &place, &text, &steps)?;
    } else {
        check_all(suite, &place, &steps)?;
    }
    place.leave()
}

/// Goes on after a wrong answer, to show all that is wrong; not after a state that did not come.
fn check_all(suite: &Suite, place: &Place<'_>, steps: &[Step]) -> Result<()> {
    let mut wrong = Vec::new();
    let version = suite.client.version;
    for step in steps.iter().filter(|step| step.is_for(version)) {
        if let Err(error) = check(step, place) {
            wrong.push(format!("{error:#}"));
            if step.repeats {
                break;
            }
        }
    }
    ensure!(
        wrong.is_empty(),
        "{}: {} wrong\n{}",
        suite.file.display(),
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

fn check(step: &Step, place: &Place<'_>) -> Result<()> {
    let once = || step.check(&place.shell(&step.command)?, place.namespace());
    if step.repeats {
        return until(SOON, "the answer", once);
    }
    once()
}

/// Keeps what is still true and writes what is not.
fn write(suite: &Suite, place: &Place<'_>, text: &str, steps: &[Step]) -> Result<()> {
    let mut said: BTreeMap<usize, Output> = BTreeMap::new();
    let version = suite.client.version;
    for step in steps.iter().filter(|step| step.is_for(version)) {
        let limit = if step.repeats {
            WHILE_WRITING
        } else {
            Duration::ZERO
        };
        let answered = until(limit, "the answer", || {
            let output = place.shell(&step.command)?;
            let checked = step.check(&output, place.namespace());
            said.insert(step.line, output);
            checked
        });
        if answered.is_ok() {
            said.remove(&step.line);
        }
    }
    let new = transcript::with_answers(text, steps, &said, place.namespace())?;
    std::fs::write(&suite.file, new).with_context(|| format!("write {}", suite.file.display()))
}
