//! What happened to the disk, and what a power loss leaves of it: changes with what is taken for
//! possible.
//!
//! The rules are POSIX's, which are harsher than those of most file systems: the bytes of a file are
//! safe after a sync of that file, a name is safe after a sync of its directory, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::sparse::{PAGE, Sparse};

/// The root directory.
pub(crate) const ROOT: u64 = 1;
/// What a disk writes in one go or not at all.
const SECTOR: usize = 512;

/// One change of the disk, or one sync. Files and directories are named by their numbers.
#[derive(Clone, Debug)]
pub enum Event {
    /// Bytes of a file.
    Write {
        /// The file.
        file: u64,
        /// Where.
        offset: u64,
        /// What.
        data: Vec<u8>,
    },
    /// A file's length.
    SetLen {
        /// The file.
        file: u64,
        /// Its new length.
        len: u64,
    },
    /// A new name, for a new node; or one that takes the place of another.
    Link {
        /// Where the name is.
        directory: u64,
        /// The name.
        name: OsString,
        /// What it names.
        node: u64,
        /// Whether that is a directory.
        is_directory: bool,
        /// The name that goes at the same moment: then this is a rename.
        instead_of: Option<(u64, OsString)>,
    },
    /// A name that is gone.
    Unlink {
        /// Where the name was.
        directory: u64,
        /// The name.
        name: OsString,
    },
    /// All bytes of a file are safe.
    Sync {
        /// The file.
        file: u64,
    },
    /// All names of a directory are safe.
    SyncDirectory {
        /// The directory.
        directory: u64,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { file, offset, data } => {
                write!(f, "write {file} at {offset}: {} bytes", data.len())
            }
            Self::SetLen { file, len } => write!(f, "length of {file}: {len}"),
            Self::Link {
                directory,
                name,
                node,
                instead_of,
                ..
            } => match instead_of {
                None => write!(f, "make {node}: {name:?} in {directory}"),
                Some((from, old)) => {
                    write!(
                        f,
                        "rename {node}: {old:?} in {from} to {name:?} in {directory}"
                    )
                }
            },
            Self::Unlink { directory, name } => write!(f, "remove {name:?} in {directory}"),
            Self::Sync { file } => write!(f, "sync {file}"),
            Self::SyncDirectory { directory } => write!(f, "sync directory {directory}"),
        }
    }
}

/// What becomes of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It is gone.
    All,
    /// Pages and names arrived or did not, by the seed; names in their order.
    Some(u64),
    /// All arrived but the last write, of which only the beginning did, by the seed.
    Torn(u64),
}

/// A file or a directory of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// With what it holds.
    File(Sparse),
    /// Its entries are the image's own.
    Directory,
}

/// The disk as it is found after a power loss: paths below the mount point.
pub type Image = BTreeMap<PathBuf, Node>;

/// Goes through a history, and tells for each point what a power loss leaves.
#[derive(Debug, Default)]
pub struct Replay {
    files: BTreeMap<u64, Stored>,
    names: Names,
    /// Changes of names that are not safe yet, in their order.
    pending: Vec<Event>,
    /// The file that was written last.
    last: Option<u64>,
    directories: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Stored {
    safe: Sparse,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl Change {
    fn apply(&self, file: &mut Sparse) {
        match self {
            Self::Write(offset, data) => file.write(*offset, data),
            Self::SetLen(len) => file.set_len(*len),
        }
    }

    /// What arrived of it when each page arrives by chance.
    fn apply_some(&self, file: &mut Sparse, chance: &mut StdRng) {
        match self {
            Self::SetLen(len) => {
                if chance.random() {
                    file.set_len(*len);
                }
            }
            Self::Write(offset, data) => {
                let mut at = *offset;
                for piece in data.chunks(PAGE) {
                    if chance.random() {
                        file.write(at, piece);
                    }
                    at += u64::try_from(piece.len()).unwrap_or(u64::MAX);
                }
            }
        }
    }

    /// What arrived of it when only its beginning did.
    fn apply_torn(&self, file: &mut Sparse, chance: &mut StdRng) {
        let Self::Write(offset, data) = self else {
            return;
        };
        let sectors = chance.random_range(0..data.len().div_ceil(SECTOR).max(1));
        file.write(*offset, &data[..data.len().min(sectors * SECTOR)]);
    }
}

#[derive(Clone, Debug, Default)]
struct Names(BTreeMap<u64, BTreeMap<OsString, u64>>);

impl Names {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Link {
                directory,
                name,
                node,
                instead_of,
                is_directory: _,
            } => {
                if let Some((directory, name)) = instead_of {
                    self.0.entry(*directory).or_default().remove(name);
                }
                let names = self.0.entry(*directory).or_default();
                names.insert(name.clone(), *node);
            }
            Event::Unlink { directory, name } => {
                self.0.entry(*directory).or_default().remove(name);
            }
            Event::Write { .. }
            | Event::SetLen { .. }
            | Event::Sync { .. }
            | Event::SyncDirectory { .. } => {}
        }
    }
}

fn touches(event: &Event, directory: u64) -> bool {
    match event {
        Event::Link {
            directory: to,
            instead_of,
            ..
        } => {
            let from = instead_of.as_ref().map(|(from, _)| *from);
            *to == directory || from == Some(directory)
        }
        Event::Unlink { directory: of, .. } => *of == directory,
        Event::Write { .. }
        | Event::SetLen { .. }
        | Event::Sync { .. }
        | Event::SyncDirectory { .. } => false,
    }
}

impl Replay {
    /// One event on.
    pub fn step(&mut self, event: &Event) {
        match event {
            Event::Write { file, offset, data } => {
                self.last = Some(*file);
                let change = Change::Write(*offset, data.clone());
                self.files.entry(*file).or_default().pending.push(change);
            }
            Event::SetLen { file, len } => {
                self.last = Some(*file);
                let file = self.files.entry(*file).or_default();
                file.pending.push(Change::SetLen(*len));
            }
            Event::Link {
                node, is_directory, ..
            } => {
                if *is_directory {
                    self.directories.insert(*node);
                }
                self.pending.push(event.clone());
            }
            Event::Unlink { .. } => self.pending.push(event.clone()),
            Event::Sync { file } => {
                let file = self.files.entry(*file).or_default();
                for change in std::mem::take(&mut file.pending) {
                    change.apply(&mut file.safe);
                }
            }
            Event::SyncDirectory { directory } => {
                let names = &mut self.names;
                self.pending.retain(|event| {
                    let safe = touches(event, *directory);
                    if safe {
                        names.apply(event);
                    }
                    !safe
                });
            }
        }
    }

    /// Whether a power loss now can leave more than one disk.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        let files = self.files.values().any(|file| !file.pending.is_empty());
        files || !self.pending.is_empty()
    }

    /// The disk after a power loss now.
    #[must_use]
    pub fn crash(&self, loss: Loss) -> Image {
        let seed = match loss {
            Loss::All => 0,
            Loss::Some(seed) | Loss::Torn(seed) => seed,
        };
        let mut chance = StdRng::seed_from_u64(seed);
        let mut names = self.names.clone();
        let arrived = match loss {
            Loss::All => 0,
            Loss::Some(_) => chance.random_range(0..=self.pending.len()),
            Loss::Torn(_) => self.pending.len(),
        };
        for event in &self.pending[..arrived] {
            names.apply(event);
        }
        let files: BTreeMap<u64, Sparse> = self
            .files
            .iter()
            .map(|(number, stored)| (*number, self.survives(*number, stored, loss, &mut chance)))
            .collect();
        let mut image = Image::new();
        self.walk(ROOT, Path::new(""), &names, &files, &mut image);
        image
    }

    fn survives(&self, number: u64, stored: &Stored, loss: Loss, chance: &mut StdRng) -> Sparse {
        let mut file = stored.safe.clone();
        match (loss, stored.pending.split_last()) {
            (Loss::All, _) | (_, None) => {}
            (Loss::Some(_), Some(_)) => {
                for change in &stored.pending {
                    change.apply_some(&mut file, chance);
                }
            }
            (Loss::Torn(_), Some((last, before))) => {
                for change in before {
                    change.apply(&mut file);
                }
                if self.last == Some(number) {
                    last.apply_torn(&mut file, chance);
                } else {
                    last.apply(&mut file);
                }
            }
        }
        file
    }

    fn walk(
        &self,
        directory: u64,
        path: &Path,
        names: &Names,
        files: &BTreeMap<u64, Sparse>,
        image: &mut Image,
    ) {
        for (name, node) in names.0.get(&directory).into_iter().flatten() {
            let path = path.join(name);
            if self.directories.contains(node) {
                image.insert(path.clone(), Node::Directory);
                self.walk(*node, &path, names, files, image);
            } else {
                let file = files.get(node).cloned().unwrap_or_default();
                image.insert(path, Node::File(file));
            }
        }
    }
}

/// Writes an image below a directory that is empty.
///
/// # Errors
/// The file system below refuses.
pub(crate) fn write_image(image: &Image, below: &Path) -> io::Result<()> {
    for (path, node) in image {
        let path = below.join(path);
        match node {
            Node::Directory => fs::create_dir(&path)?,
            Node::File(file) => {
                let to = File::create(&path)?;
                to.set_len(file.len())?;
                for (offset, piece) in file.pieces() {
                    to.write_all_at(piece, offset)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(node: u64, name: &str, is_directory: bool) -> Event {
        Event::Link {
            directory: ROOT,
            name: name.into(),
            node,
            is_directory,
            instead_of: None,
        }
    }

    fn write(file: u64, offset: u64, data: &[u8]) -> Event {
        let data = data.to_vec();
        Event::Write { file, offset, data }
    }

    fn after(events: &[Event], loss: Loss) -> BTreeMap<String, Vec<u8>> {
        let mut replay = Replay::default();
        events.iter().for_each(|event| replay.step(event));
        let nodes = replay.crash(loss).into_iter();
        let read = |(path, node): (PathBuf, Node)| match node {
            Node::File(file) => (path.display().to_string(), file.read(0, 1 << 20)),
            Node::Directory => (path.display().to_string(), b"directory".to_vec()),
        };
        nodes.map(read).collect()
    }

    #[test]
    fn bytes_and_names_need_a_sync_each() {
        let mut events = vec![link(2, "a", false), write(2, 0, b"one")];
        assert!(after(&events, Loss::All).is_empty());
        events.push(Event::Sync { file: 2 });
        assert!(after(&events, Loss::All).is_empty());
        events.push(Event::SyncDirectory { directory: ROOT });
        assert_eq!(after(&events, Loss::All)["a"], b"one");
        events.push(write(2, 1, b"xx"));
        assert_eq!(after(&events, Loss::All)["a"], b"one");
        assert_eq!(after(&events, Loss::Torn(1))["a"], b"one");
        let some: BTreeSet<_> = (0..20)
            .map(|seed| after(&events, Loss::Some(seed))["a"].clone())
            .collect();
        assert_eq!(some, [b"one".to_vec(), b"oxx".to_vec()].into());
    }

    #[test]
    fn a_rename_takes_both_names_or_none_and_the_old_bytes_stay() {
        let instead_of = Some((ROOT, "new".into()));
        let rename = Event::Link {
            directory: ROOT,
            name: "a".into(),
            node: 3,
            is_directory: false,
            instead_of,
        };
        let mut events = vec![
            link(2, "a", false),
            write(2, 0, b"old"),
            Event::Sync { file: 2 },
            link(3, "new", false),
            Event::SyncDirectory { directory: ROOT },
            write(3, 0, b"new"),
            rename,
        ];
        let kept = after(&events, Loss::All);
        assert_eq!(
            (kept["a"].as_slice(), kept["new"].as_slice()),
            (&b"old"[..], &b""[..])
        );
        // Renamed without a sync of the bytes: the name is there and the bytes are not.
        events.push(Event::SyncDirectory { directory: ROOT });
        let kept = after(&events, Loss::All);
        assert_eq!(
            kept.into_iter().collect::<Vec<_>>(),
            [("a".to_owned(), Vec::new())]
        );
    }

    #[test]
    fn a_torn_write_keeps_whole_sectors_from_its_beginning() {
        let events = [
            link(2, "a", false),
            Event::SyncDirectory { directory: ROOT },
            write(2, 0, &[1; 100]),
            write(2, 100, &[2; 3 * SECTOR]),
        ];
        let lengths: BTreeSet<_> = (0..50)
            .map(|seed| after(&events, Loss::Torn(seed))["a"].len())
            .collect();
        let expected = [0, 1, 2].map(|sectors| 100 + sectors * SECTOR);
        assert_eq!(lengths, expected.into());
    }
}
