//! A store in a file: taken from any engine while it is written to, put into a new embedded store.
//!
//! ```text
//! magic "skep-snapshot 1\n" | revision u64
//! entry:  1 u8 | revision u64 | key_len u32 | value_len u32 | key | value
//! end:    0 u8 | entries u64 | crc32 u32 of everything before
//! ```
//!
//! Numbers are little-endian. The entries are of one revision, in key order. Without its end a
//! file is not a snapshot, and one whose checksum does not fit is refused as a whole.

use bytes::Bytes;
use crc32fast::Hasher;
use futures::StreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::error::LoadError;
use crate::model::{COMMIT_BYTES_MAX, Entry, KEY_BYTES_MAX, Rev};
use crate::store::Store;

const MAGIC: &[u8; 16] = b"skep-snapshot 1\n";
const ENTRY: u8 = 1;
const END: u8 = 0;

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// The revision it is of.
    pub rev: Rev,
    /// How many keys.
    pub entries: u64,
    /// Keys and values together, in bytes.
    pub bytes: u64,
}

/// Why a snapshot could not be taken or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The store could not be read.
    #[error("read the store")]
    Store(#[from] LoadError),
    /// The file, or the connection it is sent over.
    #[error("read or write the snapshot")]
    Io(#[from] std::io::Error),
    /// It is something else, cut off, or damaged.
    #[error("this is not a whole snapshot: {0}; take another one")]
    Damaged(String),
}

/// Writes the store as of now, without the keys that `keep` refuses, to `to`, and flushes it. The
/// store is written to meanwhile as usual.
///
/// # Errors
/// The store cannot be read, or `to` not written.
pub async fn save_snapshot(
    store: &dyn Store,
    to: &mut (impl AsyncWrite + Unpin + Send),
    keep: impl Fn(&[u8]) -> bool + Send,
) -> Result<SnapshotSummary, SnapshotError> {
    let mut load = store.load(b"").await?;
    let mut summary = SnapshotSummary {
        rev: load.rev,
        entries: 0,
        bytes: 0,
    };
    let mut crc = Hasher::new();
    let mut start = MAGIC.to_vec();
    start.extend(load.rev.0.to_le_bytes());
    put(to, &mut crc, &start).await?;
    while let Some(page) = load.pages.next().await {
        let mut bytes = Vec::new();
        for entry in page?.iter().filter(|entry| keep(&entry.key)) {
            bytes.push(ENTRY);
            bytes.extend(entry.rev.0.to_le_bytes());
            bytes.extend(len(&entry.key).to_le_bytes());
            bytes.extend(len(&entry.value).to_le_bytes());
            bytes.extend_from_slice(&entry.key);
            bytes.extend_from_slice(&entry.value);
            summary.entries += 1;
            summary.bytes += u64::from(len(&entry.key)) + u64::from(len(&entry.value));
        }
        put(to, &mut crc, &bytes).await?;
    }
    let mut end = vec![END];
    end.extend(summary.entries.to_le_bytes());
    put(to, &mut crc, &end).await?;
    to.write_all(&crc.finalize().to_le_bytes()).await?;
    to.flush().await?;
    Ok(summary)
}

async fn put(
    to: &mut (impl AsyncWrite + Unpin),
    crc: &mut Hasher,
    bytes: &[u8],
) -> std::io::Result<()> {
    crc.update(bytes);
    to.write_all(bytes).await
}

/// Keys and values are bounded far below.
fn len(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Reads a whole snapshot, checks it, and gives each entry to `take`. What was given must not be
/// used before this returns without an error.
///
/// # Errors
/// [`SnapshotError::Damaged`] for anything that [`save_snapshot`] did not write.
pub async fn read_snapshot(
    from: &mut (impl AsyncRead + Unpin),
    mut take: impl FnMut(Entry),
) -> Result<SnapshotSummary, SnapshotError> {
    let mut reader = Reader {
        from,
        crc: Hasher::new(),
    };
    if reader.bytes::<16>().await? != *MAGIC {
        return Err(SnapshotError::Damaged(
            "it begins with other bytes".to_owned(),
        ));
    }
    let mut summary = SnapshotSummary {
        rev: Rev(u64::from_le_bytes(reader.bytes().await?)),
        entries: 0,
        bytes: 0,
    };
    loop {
        match reader.bytes::<1>().await? {
            [ENTRY] => {
                let entry = reader.entry(summary.rev).await?;
                summary.entries += 1;
                summary.bytes += u64::from(len(&entry.key)) + u64::from(len(&entry.value));
                take(entry);
            }
            [END] => break,
            [other] => {
                return Err(SnapshotError::Damaged(format!(
                    "{other} where an entry begins"
                )));
            }
        }
    }
    let entries = u64::from_le_bytes(reader.bytes().await?);
    let crc = reader.crc.clone().finalize();
    let written = u32::from_le_bytes(reader.bytes().await?);
    if entries != summary.entries || crc != written {
        return Err(SnapshotError::Damaged(
            "its checksum does not fit its bytes".to_owned(),
        ));
    }
    Ok(summary)
}

struct Reader<'a, R> {
    from: &'a mut R,
    crc: Hasher,
}

impl<R: AsyncRead + Unpin> Reader<'_, R> {
    async fn bytes<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes).await?;
        Ok(bytes)
    }

    async fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        match self.from.read_exact(bytes).await {
            Ok(_) => {
                self.crc.update(bytes);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(SnapshotError::Damaged("it is cut off".to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn entry(&mut self, newest: Rev) -> Result<Entry, SnapshotError> {
        let rev = Rev(u64::from_le_bytes(self.bytes().await?));
        let key = self.part(KEY_BYTES_MAX).await?;
        let value = self.part(COMMIT_BYTES_MAX).await?;
        let (mut key, mut value) = (vec![0; key], vec![0; value]);
        self.fill(&mut key).await?;
        self.fill(&mut value).await?;
        if rev > newest || key.is_empty() {
            return Err(SnapshotError::Damaged(format!(
                "an entry of revision {rev} in it"
            )));
        }
        Ok(Entry {
            key: key.into(),
            value: value.into(),
            rev,
        })
    }

    async fn part(&mut self, max: usize) -> Result<usize, SnapshotError> {
        let len = u32::from_le_bytes(self.bytes().await?);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > max {
            return Err(SnapshotError::Damaged(format!(
                "a part of {len} bytes, {max} are allowed"
            )));
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;
    use crate::model::{Expect, Op};

    async fn sample() -> (Vec<u8>, SnapshotSummary) {
        let store = MemoryStore::new();
        for n in 0..20 {
            let op = Op::put(format!("k{n:02}"), vec![n; usize::from(n)], Expect::Any);
            store.commit(vec![op]).await.unwrap();
        }
        let mut bytes = Vec::new();
        let keep = |key: &[u8]| key != b"k07";
        let summary = save_snapshot(&store, &mut bytes, keep).await.unwrap();
        (bytes, summary)
    }

    async fn read(mut bytes: &[u8]) -> Result<(SnapshotSummary, Vec<Entry>), SnapshotError> {
        let mut entries = Vec::new();
        let summary = read_snapshot(&mut bytes, |entry| entries.push(entry)).await?;
        Ok((summary, entries))
    }

    #[tokio::test]
    async fn what_was_saved_is_read_without_what_was_left_out() {
        let (bytes, saved) = sample().await;
        let (summary, entries) = read(&bytes).await.unwrap();
        assert_eq!(
            (summary, summary.entries, summary.rev),
            (saved, 19, Rev(21))
        );
        assert!(entries.is_sorted_by_key(|entry| entry.key.clone()));
        let last = entries.last().unwrap();
        assert_eq!(
            (&last.key[..], last.rev, last.value.len()),
            (&b"k19"[..], Rev(21), 19)
        );
        assert!(entries.iter().all(|entry| entry.key != "k07"));
    }

    #[tokio::test]
    async fn damage_at_any_byte_and_any_cut_is_found() {
        let (bytes, _) = sample().await;
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(read(&damaged).await.is_err(), "byte {at}");
            assert!(read(&bytes[..at]).await.is_err(), "cut at {at}");
        }
    }
}
