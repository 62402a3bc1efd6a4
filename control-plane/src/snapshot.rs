//! `snapshot save|restore|status`: the state of a cluster in a file.
//!
//! A control plane with a store of its own hands out snapshots on a socket in its data directory, which
//! only its user can open; so a backup needs no stop. An etcd is read directly.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use control_plane_storage::{EmbeddedStore, SnapshotSummary, Store, read_snapshot, save_snapshot};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::config::{StoreFlags, StoreKind};
use crate::open_store::{self, Opened};

/// The socket inside the data directory.
const SOCKET: &str = "snapshot.sock";
/// What belongs to running control planes, or ends by itself soon: a restored cluster starts without.
const LEFT_OUT: [&str; 4] = [
    "member/",
    "fence/",
    "o/core/events/",
    "o/events.k8s.io/events/",
];

/// What to do with a snapshot.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Write the state of the cluster to a file, also while the control plane runs.
    Save {
        /// The new file (0600).
        file: PathBuf,
        #[command(flatten)]
        store: StoreFlags,
    },
    /// Put a snapshot into the empty data directory of a new control plane. Its keys and certificates
    /// (`pki`) are not part of the snapshot: copy them as well.
    Restore {
        /// The snapshot.
        file: PathBuf,
        #[command(flatten)]
        store: StoreFlags,
    },
    /// Check a snapshot and say what is in it.
    Status {
        /// The snapshot.
        file: PathBuf,
    },
}

pub(crate) async fn run(command: SnapshotCommand) -> anyhow::Result<()> {
    let (what, summary) = match command {
        SnapshotCommand::Save { file, store } => ("saved", save(&file, &store).await?),
        SnapshotCommand::Restore { file, store } => ("restored", restore(&file, &store).await?),
        SnapshotCommand::Status { file } => ("whole", status(&file).await?),
    };
    let SnapshotSummary {
        rev,
        entries,
        bytes,
    } = summary;
    writeln!(
        std::io::stdout(),
        "{what}: revision {rev}, {entries} keys, {bytes} bytes"
    )?;
    Ok(())
}

fn keep(key: &[u8]) -> bool {
    !LEFT_OUT
        .iter()
        .any(|prefix| key.starts_with(prefix.as_bytes()))
}

async fn save(file: &Path, flags: &StoreFlags) -> anyhow::Result<SnapshotSummary> {
    let unfinished = file.with_extension("unfinished");
    let mut to = File::create(&unfinished)
        .await
        .with_context(|| format!("create {}", unfinished.display()))?;
    let private = std::fs::Permissions::from_mode(0o600);
    to.set_permissions(private)
        .await
        .context("close the file to others")?;
    write(&mut to, flags).await?;
    to.sync_all().await.context("write the snapshot to disk")?;
    // What was written is read again before it gets its name: half a snapshot has none.
    let summary = status(&unfinished).await?;
    tokio::fs::rename(&unfinished, file)
        .await
        .with_context(|| format!("name the snapshot {}", file.display()))?;
    Ok(summary)
}

async fn write(to: &mut File, flags: &StoreFlags) -> anyhow::Result<()> {
    let socket = flags.data_dir.join(SOCKET);
    if flags.store == StoreKind::Embedded
        && let Ok(mut from) = UnixStream::connect(&socket).await
    {
        let copied = tokio::io::copy(&mut from, to).await;
        copied.context("read from the running control plane")?;
        return Ok(());
    }
    let opened = open_store::open(flags).await?;
    match opened {
        Opened::Embedded(store) => {
            save_snapshot(&*store, to, keep).await?;
        }
        Opened::Etcd(store) => {
            save_snapshot(&*store, to, keep).await?;
        }
    }
    Ok(())
}

async fn status(file: &Path) -> anyhow::Result<SnapshotSummary> {
    let from = File::open(file).await;
    let from = from.with_context(|| format!("open {}", file.display()))?;
    let summary = read_snapshot(&mut BufReader::new(from), drop).await;
    summary.with_context(|| format!("check {}", file.display()))
}

async fn restore(file: &Path, flags: &StoreFlags) -> anyhow::Result<SnapshotSummary> {
    if flags.store == StoreKind::Etcd {
        bail!(
            "etcd restores its own snapshots, taken with `etcdctl snapshot save` (`etcdutl snapshot \
             restore --bump-revision 1000000000 --mark-compacted`); a snapshot of this program goes \
             into an embedded store"
        );
    }
    let from = File::open(file).await;
    let from = from.with_context(|| format!("open {}", file.display()))?;
    let mut entries = Vec::new();
    let read = read_snapshot(&mut BufReader::new(from), |entry| entries.push(entry)).await;
    let summary = read.with_context(|| format!("check {}", file.display()))?;
    let dir = open_store::embedded_dir(flags);
    let rev = EmbeddedStore::restore(dir, summary.rev, entries)
        .await
        .context("fill the new store")?;
    Ok(SnapshotSummary { rev, ..summary })
}

/// Hands out snapshots until `stop`.
pub(crate) async fn serve(store: Arc<dyn Store>, data_dir: PathBuf, stop: CancellationToken) {
    let path = data_dir.join(SOCKET);
    let listener = match listen(&path) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(socket = %path.display(), %error, "no snapshots while this process runs");
            return;
        }
    };
    let tasks = TaskTracker::new();
    loop {
        // Cancel-safe: a connection is taken or it is not.
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((to, _)) => {
                let (store, stop) = (Arc::clone(&store), stop.clone());
                tasks.spawn(async move { stop.run_until_cancelled(hand_out(&*store, to)).await });
            }
            Err(error) => {
                warn!(%error, "a snapshot was asked for, but not how");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
    tasks.close();
    tasks.wait().await;
    drop(std::fs::remove_file(&path));
}

/// Only the owner of the process may connect.
fn listen(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn hand_out(store: &dyn Store, mut to: UnixStream) {
    match save_snapshot(store, &mut to, keep).await {
        Ok(summary) => {
            drop(to.shutdown().await);
            info!(revision = %summary.rev, entries = summary.entries, "snapshot taken");
        }
        Err(error) => warn!(%error, "snapshot broken off"),
    }
}

#[cfg(test)]
mod tests {
    use super::keep;

    #[test]
    fn events_and_what_belongs_to_processes_are_left_out() {
        assert!(keep(b"o/core/pods/d/a") && keep(b"x/ip/10.96.0.1") && keep(b"cluster/authority"));
        assert!(!keep(b"member/a") && !keep(b"o/core/events/d/e") && !keep(b"fence/a/b"));
    }
}
