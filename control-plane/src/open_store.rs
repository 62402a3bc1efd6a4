//! The store that the flags name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use control_plane_storage::{EmbeddedStore, EtcdConfig, EtcdStore, EtcdTls, Store};

use crate::config::{StoreFlags, StoreKind};

/// Directory of the embedded store inside the data directory.
const EMBEDDED_DIR: &str = "store";

/// The open store; the embedded one is closed by whoever stops the process.
pub(crate) enum Opened {
    Embedded(Arc<EmbeddedStore>),
    Etcd(Arc<EtcdStore>),
}

impl Opened {
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(store) => Arc::<EmbeddedStore>::clone(store),
            Self::Etcd(store) => Arc::<EtcdStore>::clone(store),
        }
    }
}

/// Where the embedded store is.
pub(crate) fn embedded_dir(flags: &StoreFlags) -> PathBuf {
    flags.data_dir.join(EMBEDDED_DIR)
}

pub(crate) async fn open(config: &StoreFlags) -> anyhow::Result<Opened> {
    match config.store {
        StoreKind::Embedded => {
            let dir = embedded_dir(config);
            let store = EmbeddedStore::open(&dir)
                .await
                .context("open the embedded store")?;
            Ok(Opened::Embedded(Arc::new(store)))
        }
        StoreKind::Etcd => {
            let mut etcd = EtcdConfig::new(config.etcd_endpoints.iter().cloned());
            etcd.tls = etcd_tls(config)?;
            let store = EtcdStore::connect(etcd).await.with_context(|| {
                format!("connect to etcd at {}", config.etcd_endpoints.join(", "))
            })?;
            Ok(Opened::Etcd(Arc::new(store)))
        }
    }
}

fn etcd_tls(config: &StoreFlags) -> anyhow::Result<Option<EtcdTls>> {
    let read =
        |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
    let Some(ca) = &config.etcd_ca_file else {
        return Ok(None);
    };
    let identity = match (&config.etcd_cert_file, &config.etcd_key_file) {
        (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
        (None, _) | (_, None) => None,
    };
    Ok(Some(EtcdTls {
        ca: read(ca)?,
        identity,
        server_name: None,
    }))
}
