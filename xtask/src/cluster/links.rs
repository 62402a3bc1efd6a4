//! `kubectl` and `skep` for the user's shell: changes when a command is to be found there.
//!
//! Symbolic links in cargo's directory of programs, which is on the PATH of every user of rustup.
//! A file that is not a link of ours is never touched.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::build::host::Profile;
use crate::{setup, workspace};

/// Says what the user has to know: nothing, when everything is in place.
pub(crate) fn refresh(profile: Profile) -> Result<Vec<String>> {
    let Some(bin) = workspace::cargo_bin().filter(|dir| dir.is_dir()) else {
        return Ok(vec![format!(
            "`skep` is {}",
            profile.binary("skep").display()
        )]);
    };
    let mut notes = Vec::new();
    link(&bin.join("skep"), &profile.binary("skep"), &mut notes)?;
    if workspace::find_program("kubectl").is_none_or(|found| found == bin.join("kubectl")) {
        link(&bin.join("kubectl"), &setup::kubectl::program(), &mut notes)?;
    }
    Ok(notes)
}

fn link(at: &Path, to: &Path, notes: &mut Vec<String>) -> Result<()> {
    match std::fs::read_link(at) {
        Ok(old) if old == to => return Ok(()),
        Ok(old) if is_ours(&old) => {
            std::fs::remove_file(at).with_context(|| format!("replace {}", at.display()))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Ok(_) | Err(_) => {
            notes.push(format!(
                "{} is not ours and was left; ours is {}",
                at.display(),
                to.display()
            ));
            return Ok(());
        }
    }
    std::os::unix::fs::symlink(to, at).with_context(|| format!("link {}", at.display()))
}

/// Links of this or of another source tree: they lead into a `target` directory.
fn is_ours(link: &Path) -> bool {
    let ours = [
        "target/debug/skep",
        "target/release/skep",
        "target/tools/kubectl",
    ];
    ours.iter().any(|end| link.ends_with(end))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_ours;

    #[test]
    fn only_links_into_a_target_directory_are_ours() {
        assert!(is_ours(Path::new("/home/a/skep/target/debug/skep")));
        assert!(!is_ours(Path::new("/opt/skep/bin/skep")));
        assert!(!is_ours(Path::new("/usr/lib/google-cloud-sdk/bin/kubectl")));
    }
}
