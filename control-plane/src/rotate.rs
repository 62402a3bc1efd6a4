//! `skep-control-plane rotate`: new keys beside the old ones, for the next start.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use control_plane_apiserver::pki;

/// Which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Key {
    /// Signs service account tokens; tokens of older keys stay valid.
    TokenKey,
    /// Seals secrets at rest; the next start seals all of them anew.
    SealingKey,
}

/// Makes a new key. A running control plane takes it when it is started again; replicas that share
/// the directory are restarted one after the other.
#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// Which key.
    key: Key,
    /// Directory of the keys.
    #[arg(long, default_value = "/var/lib/skep-control-plane/pki")]
    pki_dir: PathBuf,
}

impl Rotate {
    /// Makes the key.
    ///
    /// # Errors
    /// The key files cannot be read or written.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let dir = &self.pki_dir;
        match self.key {
            Key::TokenKey => pki::rotate_token_key(dir),
            Key::SealingKey => pki::rotate_sealing_key(dir),
        }
        .with_context(|| format!("make a new key in {}", dir.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_in_the_directory_that_is_named() {
        let dir = std::env::temp_dir().join(format!("skep-rotate-{}", std::process::id()));
        pki::Pki::open(&dir).unwrap();
        let lines = || {
            std::fs::read_to_string(dir.join("seal.keys"))
                .unwrap()
                .lines()
                .count()
        };
        let of = |key: Key| {
            let pki_dir = dir.clone();
            Rotate { key, pki_dir }.run()
        };
        assert_eq!(lines(), 1);
        of(Key::SealingKey).unwrap();
        assert_eq!(lines(), 2);
        of(Key::TokenKey).unwrap();
        pki::Pki::open(&dir).unwrap();
        assert!(dir.join("sa.pub.old").exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
