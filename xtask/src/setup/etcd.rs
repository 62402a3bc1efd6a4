//! A second version of etcd beside the distribution's: changes with the versions that are tested.
//!
//! Debian 12 has etcd 3.4, Debian 13 has 3.5. The tests of the store want both, also in one cluster. The
//! newer one is fetched with apt from the mirror that this machine uses, and unpacked into
//! `target/tools`: the system does not see it. Where the machine's own etcd is of another version, the
//! tests have that one only, and say so.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{process, workspace};

/// The release of Debian whose machines fetch the newer etcd, and from which release.
const FOR: &str = "bookworm";
const FROM: &str = "trixie";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const VERSION: &str = "etcd Version: 3.5.";

pub(crate) fn program() -> PathBuf {
    workspace::tools().join("etcd-3.5/usr/bin/etcd")
}

pub(crate) fn ensure() -> Result<()> {
    if program().is_file() {
        return Ok(());
    }
    let Some(mirror) = mirror()? else {
        return Ok(());
    };
    let work = workspace::tools().join("etcd-fetch");
    fetch(&mirror, &work).context("fetch etcd 3.5 for the tests of the store")?;
    std::fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))
}

/// Where this machine's packages come from, when it is one that fetches.
fn mirror() -> Result<Option<String>> {
    if workspace::find_program("apt-get").is_none() {
        return Ok(None);
    }
    let mut command = Command::new("apt-get");
    command.args([
        "indextargets",
        "--format",
        "$(CREATED_BY) $(CODENAME) $(COMPONENT) $(REPO_URI)",
    ]);
    Ok(find_mirror(&process::capture(&mut command)?))
}

fn find_mirror(targets: &str) -> Option<String> {
    let wanted = format!("Packages {FOR} main ");
    let uri = targets
        .lines()
        .find_map(|line| line.strip_prefix(&wanted))?;
    Some(uri.to_owned())
}

fn fetch(mirror: &str, work: &Path) -> Result<()> {
    for dir in ["sources", "lists/partial", "cache/archives/partial"] {
        let dir = work.join(dir);
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    }
    let source = format!(
        "Types: deb\nURIs: {mirror}\nSuites: {FROM}\nComponents: main\nSigned-By: {KEYRING}\n"
    );
    std::fs::write(work.join("sources/newer.sources"), source).context("write apt's source")?;
    std::fs::write(work.join("sources.list"), "").context("write apt's source")?;
    process::quiet(apt(work).arg("update")).context("read the list of packages")?;
    process::quiet(apt(work).args(["download", "etcd-server"])).context("download")?;
    let package = std::fs::read_dir(work)
        .context("list what was downloaded")?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .context("apt downloaded no package")?;
    let to = work.join("unpacked");
    process::quiet(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&to)).context("unpack")?;
    let version = process::capture(Command::new(to.join("usr/bin/etcd")).arg("--version"))?;
    if !version.starts_with(VERSION) {
        bail!("the package of {FROM} holds another etcd: {version}");
    }
    std::fs::rename(&to, workspace::tools().join("etcd-3.5")).context("put it in its place")
}

/// apt with sources, lists and downloads of its own; the system's stay as they are.
fn apt(work: &Path) -> Command {
    let mut command = Command::new("apt-get");
    let dirs = [
        ("Etc::SourceList", "sources.list"),
        ("Etc::SourceParts", "sources"),
        ("State::Lists", "lists"),
        ("Cache", "cache"),
    ];
    for (name, dir) in dirs {
        command.arg("-o");
        command.arg(format!("Dir::{name}={}", work.join(dir).display()));
    }
    command
        .args(["-o", "Acquire::Languages=none"])
        .args([
            "-o",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ])
        // As root apt would give its rights up and then not reach this directory.
        .args(["-o", "APT::Sandbox::User=root", "--quiet=2"])
        .current_dir(work);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_release_which_fetches() {
        let targets = "Translations bookworm main a\nPackages bookworm-updates main b\n\
                       Packages bookworm main c\nPackages bookworm main d";
        assert_eq!(find_mirror(targets).as_deref(), Some("c"));
        assert_eq!(find_mirror("Packages trixie main c"), None);
    }
}
