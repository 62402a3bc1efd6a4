//! The store that the flags name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use control_plane_storage::{EmbeddedStore, EtcdConfig, EtcdStore, EtcdTls, Store};
use tokio_util::sync::CancellationToken;
use tracing::warn;

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

/// How often a disk that takes no writes is looked at.
const DISK_PAUSE: Duration = Duration::from_millis(500);

/// The open store. While the disk is full, read-only or failing this waits, and says so: a process
/// that ended would only be started again. `None`: stopped meanwhile.
pub(crate) async fn open_when_writable(
    config: &StoreFlags,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Opened>> {
    let mut said = String::new();
    loop {
        let error = match open(config).await {
            Ok(opened) => return Ok(Some(opened)),
            Err(error) if is_disk_fault(&error) => format!("{error:#}"),
            Err(error) => return Err(error),
        };
        if error != said {
            warn!(error, "waiting for the disk of the store");
            said = error;
        }
        let pause = stop.run_until_cancelled(tokio::time::sleep(DISK_PAUSE));
        if pause.await.is_none() {
            return Ok(None);
        }
    }
}

/// Whether the disk refuses what it may take later.
fn is_disk_fault(error: &anyhow::Error) -> bool {
    /// An I/O error has no kind of its own.
    const EIO: i32 = 5;
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ReadOnlyFilesystem
            ) || error.raw_os_error() == Some(EIO)
        })
    })
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
