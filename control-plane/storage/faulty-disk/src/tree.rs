//! The mounted files as programs see them, every change recorded: changes with what programs may do.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use fuser::Errno;

use crate::faults::Faults;
use crate::history::{Event, ROOT};
use crate::sparse::{PAGE, Sparse};

/// What a number stands for.
#[derive(Debug)]
pub(crate) enum Inode {
    File(Sparse),
    Directory(BTreeMap<OsString, u64>),
}

/// All files, and how they came about.
#[derive(Debug)]
pub(crate) struct Tree {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    pub(crate) events: Vec<Event>,
    /// Whether changes are written down.
    pub(crate) recording: bool,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self {
            inodes: [(ROOT, Inode::Directory(BTreeMap::new()))].into(),
            next: ROOT + 1,
            events: Vec::new(),
            recording: true,
        }
    }

    fn record(&mut self, event: impl FnOnce() -> Event) {
        if self.recording {
            self.events.push(event());
        }
    }

    pub(crate) fn inode(&self, number: u64) -> Result<&Inode, Errno> {
        self.inodes.get(&number).ok_or(Errno::ENOENT)
    }

    fn file(&mut self, number: u64) -> Result<&mut Sparse, Errno> {
        match self.inodes.get_mut(&number) {
            Some(Inode::File(file)) => Ok(file),
            Some(Inode::Directory(_)) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    pub(crate) fn names(&self, number: u64) -> Result<&BTreeMap<OsString, u64>, Errno> {
        match self.inode(number)? {
            Inode::Directory(names) => Ok(names),
            Inode::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn names_mut(&mut self, number: u64) -> Result<&mut BTreeMap<OsString, u64>, Errno> {
        match self.inodes.get_mut(&number) {
            Some(Inode::Directory(names)) => Ok(names),
            Some(Inode::File(_)) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    pub(crate) fn find(&self, directory: u64, name: &OsStr) -> Result<u64, Errno> {
        self.names(directory)?
            .get(name)
            .copied()
            .ok_or(Errno::ENOENT)
    }

    /// Pages that all files take together.
    pub(crate) fn pages(&self) -> usize {
        let of = |inode: &Inode| match inode {
            Inode::File(file) => file.pages(),
            Inode::Directory(_) => 0,
        };
        self.inodes.values().map(of).sum()
    }

    /// A new file or directory.
    pub(crate) fn make(
        &mut self,
        directory: u64,
        name: &OsStr,
        is_directory: bool,
    ) -> Result<u64, Errno> {
        if self.names(directory)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let node = self.next;
        self.next += 1;
        let inode = if is_directory {
            Inode::Directory(BTreeMap::new())
        } else {
            Inode::File(Sparse::default())
        };
        self.inodes.insert(node, inode);
        self.names_mut(directory)?.insert(name.to_owned(), node);
        self.record(|| Event::Link {
            directory,
            name: name.to_owned(),
            node,
            is_directory,
            instead_of: None,
        });
        Ok(node)
    }

    pub(crate) fn write(
        &mut self,
        file: u64,
        offset: u64,
        data: &[u8],
        faults: &Faults,
    ) -> Result<(), Errno> {
        if let Some(room) = faults.room {
            let used = self.pages();
            let more = self.file(file)?.pages_for(offset, data.len());
            let room = usize::try_from(room).unwrap_or(usize::MAX) / PAGE;
            if more > 0 && used + more > room {
                return Err(Errno::ENOSPC);
            }
        }
        self.file(file)?.write(offset, data);
        self.record(|| Event::Write {
            file,
            offset,
            data: data.to_vec(),
        });
        Ok(())
    }

    pub(crate) fn set_len(&mut self, file: u64, len: u64) -> Result<(), Errno> {
        self.file(file)?.set_len(len);
        self.record(|| Event::SetLen { file, len });
        Ok(())
    }

    pub(crate) fn remove(&mut self, directory: u64, name: &OsStr) -> Result<(), Errno> {
        let node = self.find(directory, name)?;
        if let Inode::Directory(names) = self.inode(node)?
            && !names.is_empty()
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.names_mut(directory)?.remove(name);
        self.record(|| Event::Unlink {
            directory,
            name: name.to_owned(),
        });
        Ok(())
    }

    pub(crate) fn rename(
        &mut self,
        (from, name): (u64, &OsStr),
        (to, new_name): (u64, &OsStr),
    ) -> Result<(), Errno> {
        let node = self.find(from, name)?;
        self.names(to)?;
        self.names_mut(from)?.remove(name);
        self.names_mut(to)?.insert(new_name.to_owned(), node);
        let is_directory = matches!(self.inode(node)?, Inode::Directory(_));
        self.record(|| Event::Link {
            directory: to,
            name: new_name.to_owned(),
            node,
            is_directory,
            instead_of: Some((from, name.to_owned())),
        });
        Ok(())
    }

    pub(crate) fn sync(&mut self, node: u64) {
        let event = match self.inodes.get(&node) {
            Some(Inode::Directory(_)) => Event::SyncDirectory { directory: node },
            Some(Inode::File(_)) | None => Event::Sync { file: node },
        };
        self.record(|| event);
    }

    /// Nobody can reach the file any more.
    pub(crate) fn forget(&mut self, number: u64) {
        let named = |inode: &Inode| match inode {
            Inode::Directory(names) => names.values().any(|node| *node == number),
            Inode::File(_) => false,
        };
        if number != ROOT && !self.inodes.values().any(named) {
            self.inodes.remove(&number);
        }
    }
}
