//! What cluster DNS needs before the control plane has said anything: kept on disk.
//!
//! After a reboot, or a restart of the agent while the control plane is away, names are answered as
//! they were last known, and an upstream that is the cluster's own DNS is refused from the start.
//! The file is replaced whole; one that cannot be read is as good as none.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use dns::ClusterNames;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// Changes when the file's form does; another is not read.
const FORM: u32 = 1;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    form: u32,
    /// Addresses of the cluster DNS service.
    pub(crate) cluster_dns: Vec<IpAddr>,
    /// The names of the last complete state.
    pub(crate) names: ClusterNames,
}

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointFile {
    path: PathBuf,
}

impl Checkpoint {
    pub(crate) fn new(cluster_dns: Vec<IpAddr>, names: ClusterNames) -> Self {
        Self {
            form: FORM,
            cluster_dns,
            names,
        }
    }
}

impl CheckpointFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What was remembered, if anything.
    pub(crate) fn load(&self) -> Option<Checkpoint> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(path = %self.path.display(), %error, "the last names cannot be read");
                return None;
            }
        };
        match serde_json::from_slice::<Checkpoint>(&bytes) {
            Ok(checkpoint) if checkpoint.form == FORM => Some(checkpoint),
            Ok(other) => {
                warn!(path = %self.path.display(), form = other.form, "the last names are of another version");
                None
            }
            Err(error) => {
                warn!(path = %self.path.display(), %error, "the last names are damaged");
                None
            }
        }
    }

    /// Replaces the file.
    pub(crate) fn save(&self, checkpoint: &Checkpoint) -> anyhow::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let write = || -> anyhow::Result<()> {
            std::fs::create_dir_all(directory)?;
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(&serde_json::to_vec(checkpoint)?)?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            Ok(())
        };
        write().with_context(|| format!("remember names in {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use dns::ServiceNames;

    use super::*;

    fn checkpoint() -> Checkpoint {
        let service = ServiceNames {
            namespace: "default".to_owned(),
            name: "hello".to_owned(),
            cluster_ips: vec!["10.96.0.20".parse().unwrap(), "fd00::20".parse().unwrap()],
            ..ServiceNames::default()
        };
        let names = ClusterNames {
            revision: 7,
            namespaces: vec!["empty".to_owned()],
            services: vec![service],
        };
        Checkpoint::new(vec!["10.96.0.10".parse().unwrap()], names)
    }

    #[test]
    fn what_is_saved_is_loaded_and_nothing_else_lies_around() {
        let dir = tempfile::tempdir().unwrap();
        let file = CheckpointFile::new(dir.path().join("dns/names.json"));
        assert_eq!(file.load(), None);
        file.save(&Checkpoint::new(Vec::new(), ClusterNames::default()))
            .unwrap();
        file.save(&checkpoint()).unwrap();
        assert_eq!(file.load(), Some(checkpoint()));
        let files = std::fs::read_dir(dir.path().join("dns")).unwrap().count();
        assert_eq!(files, 1);
    }

    #[test]
    fn a_damaged_file_and_one_of_another_version_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.json");
        let file = CheckpointFile::new(path.clone());
        file.save(&checkpoint()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(file.load(), None, "{len} bytes");
        }
        let mut other = checkpoint();
        other.form += 1;
        file.save(&other).unwrap();
        assert_eq!(file.load(), None);
    }
}
