//! The keys that seal: a file with one line a key, the present one first.
//!
//! A line is `ID KEY`: eight hexadecimal digits and 32 random bytes in base64. A new key is put on
//! top; older ones open what they sealed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Length of a key's id.
pub(super) const ID_BYTES: usize = 8;
/// Length of a key: AES-256.
pub(super) const KEY_BYTES: usize = 32;

/// Why a key file is unusable.
#[derive(Debug, thiserror::Error)]
pub enum SealKeyError {
    /// A line is no key.
    #[error("line {line} is no sealing key: eight hexadecimal digits and 32 bytes in base64")]
    Line {
        /// Which.
        line: usize,
    },
    /// No key at all.
    #[error("there is no sealing key in it")]
    Empty,
}

pub(super) struct SealKey {
    pub(super) id: [u8; ID_BYTES],
    pub(super) secret: [u8; KEY_BYTES],
}

/// The sealing keys, the present one first. A value that was sealed with a key that is not known
/// makes the file be read again: another replica may have started with a new key.
pub(crate) struct SealKeys {
    path: Option<PathBuf>,
    keys: ArcSwap<Vec<Arc<SealKey>>>,
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.load();
        let ids: Vec<_> = keys
            .iter()
            .map(|key| String::from_utf8_lossy(&key.id))
            .collect();
        f.debug_struct("SealKeys")
            .field("path", &self.path)
            .field("ids", &ids)
            .finish()
    }
}

impl SealKeys {
    fn parse(text: &str) -> Result<Vec<Arc<SealKey>>, SealKeyError> {
        let key = |(line, text): (usize, &str)| {
            let parsed = text.split_once(' ').and_then(|(id, secret)| {
                let id: [u8; ID_BYTES] = id.as_bytes().try_into().ok()?;
                let secret: [u8; KEY_BYTES] =
                    STANDARD.decode(secret.trim()).ok()?.try_into().ok()?;
                id.iter()
                    .all(u8::is_ascii_hexdigit)
                    .then(|| Arc::new(SealKey { id, secret }))
            });
            parsed.ok_or(SealKeyError::Line { line: line + 1 })
        };
        let keys: Vec<Arc<SealKey>> = text
            .lines()
            .enumerate()
            .filter(|(_, text)| !text.trim().is_empty())
            .map(key)
            .collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(SealKeyError::Empty);
        }
        Ok(keys)
    }

    pub(super) fn current(&self) -> Arc<SealKey> {
        // Never empty: `parse` is the only way here.
        Arc::clone(&self.keys.load()[0])
    }

    pub(super) fn find(&self, id: &[u8]) -> Option<Arc<SealKey>> {
        self.known(id).or_else(|| {
            // Rare, and short: the file holds a few lines.
            let text = std::fs::read_to_string(self.path.as_ref()?).ok()?;
            self.keys.store(Arc::new(Self::parse(&text).ok()?));
            self.known(id)
        })
    }

    fn known(&self, id: &[u8]) -> Option<Arc<SealKey>> {
        self.keys.load().iter().find(|key| key.id == *id).cloned()
    }
}

fn new_line() -> String {
    let (id, secret): (u32, [u8; KEY_BYTES]) = (rand::random(), rand::random());
    format!("{id:08x} {}\n", STANDARD.encode(secret))
}

/// The keys of the file whose text is `present`, and the text to write when there was no file.
///
/// # Errors
/// The text holds no keys.
pub(crate) fn load_or_make(
    present: Option<&str>,
    path: Option<&Path>,
) -> Result<(Arc<SealKeys>, Option<String>), SealKeyError> {
    let made = present.is_none().then(new_line);
    let text = present.or(made.as_deref()).unwrap_or_default();
    let keys = SealKeys {
        path: path.map(Path::to_owned),
        keys: ArcSwap::from_pointee(SealKeys::parse(text)?),
    };
    Ok((Arc::new(keys), made))
}

/// The file's text with a new key on top.
///
/// # Errors
/// The text holds no keys.
pub(crate) fn rotate(present: &str, path: &Path) -> Result<String, SealKeyError> {
    SealKeys::parse(present)?;
    tracing::info!(file = %path.display(), "a new sealing key is put on top");
    Ok(format!("{}{present}", new_line()))
}
