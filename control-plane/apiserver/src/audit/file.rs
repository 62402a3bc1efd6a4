//! The file that events go to, put aside when it is full.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{AuditConfig, Counts};

/// Events that one write takes from the queue.
const BATCH: usize = 256;

/// The open file.
struct Log {
    config: AuditConfig,
    file: Option<File>,
    bytes: u64,
}

/// Writes what comes through the queue until `stop`, then what is left in it.
pub(crate) async fn write(
    config: AuditConfig,
    mut events: mpsc::Receiver<Bytes>,
    counts: Arc<Counts>,
    stop: CancellationToken,
) {
    let mut log = Log {
        config,
        file: None,
        bytes: 0,
    };
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        // Cancel safe: `recv_many` takes nothing when it is dropped.
        let taken = tokio::select! {
            taken = events.recv_many(&mut batch, BATCH) => taken,
            () = stop.cancelled() => {
                events.close();
                events.recv_many(&mut batch, BATCH).await
            }
        };
        if taken == 0 {
            return;
        }
        let lines = std::mem::take(&mut batch);
        let written = tokio::task::spawn_blocking(move || {
            let lost = log.append(&lines);
            (log, lost)
        })
        .await;
        let Ok((back, lost)) = written else {
            error!("the audit log's writer failed; nothing more is logged");
            return;
        };
        log = back;
        counts.add_dropped(lost);
    }
}

impl Log {
    /// Writes the lines; returns how many are lost.
    fn append(&mut self, lines: &[Bytes]) -> u64 {
        let whole = lines.concat();
        match self.try_append(&whole) {
            Ok(()) => 0,
            Err(fault) => {
                error!(%fault, file = %self.config.path.display(), events = lines.len(),
                    "audit events are lost: is the disk full, the directory writable?");
                self.file = None;
                lines.len() as u64
            }
        }
    }

    fn try_append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let length = bytes.len() as u64;
        if self.file.is_some() && self.bytes + length > self.config.bytes_max {
            self.file = None;
            put_aside(&self.config.path, self.config.backups)?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            slot @ None => {
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .mode(0o600)
                    .open(&self.config.path)?;
                self.bytes = file.metadata()?.len();
                slot.insert(file)
            }
        };
        file.write_all(bytes)?;
        self.bytes += length;
        Ok(())
    }
}

/// `log` becomes `log.1`, `log.1` becomes `log.2`, and so on; the last one goes.
fn put_aside(path: &Path, backups: usize) -> std::io::Result<()> {
    let numbered = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    if backups == 0 {
        return std::fs::remove_file(path);
    }
    for number in (1..backups).rev() {
        if numbered(number).exists() {
            std::fs::rename(numbered(number), numbered(number + 1))?;
        }
    }
    std::fs::rename(path, numbered(1))
}
