//! The clusters of the suites, one with each store, made when first asked for: changes when the
//! suites share differently.

use std::sync::{Arc, OnceLock};

use anyhow::{Result, anyhow};
use tests::{Cluster, Options, Store};

type Made = Result<Arc<Cluster>, String>;

#[derive(Debug, Default)]
pub(crate) struct Stage {
    embedded: OnceLock<Made>,
    etcd: OnceLock<Made>,
}

impl Stage {
    pub(crate) fn cluster(&self, store: Store) -> Result<Arc<Cluster>> {
        let (cell, name) = match store {
            Store::Embedded => (&self.embedded, "suites-embedded"),
            Store::Etcd => (&self.etcd, "suites-etcd"),
        };
        let up = || {
            let options = Options {
                store,
                ..Options::default()
            };
            let cluster = Cluster::up(name, options).map_err(|error| format!("{error:#}"))?;
            Ok(Arc::new(cluster))
        };
        match cell.get_or_init(up) {
            Ok(cluster) => Ok(Arc::clone(cluster)),
            Err(error) => Err(anyhow!("no cluster: {error}")),
        }
    }

    /// Takes away what was made. The logs of a cluster that is merely dropped are kept.
    pub(crate) fn down(&self, has_failed: bool) -> Result<()> {
        if has_failed {
            return Ok(());
        }
        for made in [&self.embedded, &self.etcd] {
            if let Some(Ok(cluster)) = made.get() {
                cluster.take_away()?;
            }
        }
        Ok(())
    }
}
