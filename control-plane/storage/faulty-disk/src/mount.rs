//! The file system as the kernel talks to it: changes with the calls that programs make.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::faults::Faults;
use crate::history::{self, Event, Image};
use crate::sparse::PAGE;
use crate::tree::{Inode, Tree};

/// Only this file system changes the files, so the kernel need not ask again.
const FRESH: Duration = Duration::from_secs(3600);
/// The largest write of the kernel's: the larger, the fewer events has a large write.
const WRITE_MAX: u32 = 1 << 20;
/// Calls at a time: a slow sync keeps no reader waiting.
const THREADS: usize = 4;

/// A mounted disk; unmounted when it is dropped.
#[derive(Debug)]
pub struct FaultyDisk {
    disk: Arc<Disk>,
    _session: BackgroundSession,
}

#[derive(Debug)]
struct Disk {
    state: Mutex<State>,
    /// The faults have changed.
    changed: Condvar,
    owner: (u32, u32),
}

#[derive(Debug)]
struct State {
    tree: Tree,
    faults: Faults,
}

impl FaultyDisk {
    /// Mounts an empty disk at a directory.
    ///
    /// # Errors
    /// There is no `/dev/fuse`, or the caller may not mount.
    pub fn mount(at: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let owner = std::fs::metadata(at).map(|meta| (meta.uid(), meta.gid()))?;
        let disk = Arc::new(Disk {
            state: Mutex::new(State {
                tree: Tree::new(),
                faults: Faults::default(),
            }),
            changed: Condvar::new(),
            owner,
        });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("faulty-disk".to_owned())];
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(Mounted(Arc::clone(&disk)), at, &config)?;
        Ok(Self {
            disk,
            _session: session,
        })
    }

    /// From now on the disk behaves so. Calls that wait for a slow sync look again.
    pub fn set(&self, faults: Faults) {
        self.disk.state.lock().faults = faults;
        self.disk.changed.notify_all();
    }

    /// Stops writing down what happens: a test that only wants faults needs no history.
    pub fn forget_history(&self) {
        let mut state = self.disk.state.lock();
        state.tree.recording = false;
        state.tree.events = Vec::new();
    }

    /// How many events there are: what was acknowledged before this call had happened by then.
    #[must_use]
    pub fn position(&self) -> usize {
        self.disk.state.lock().tree.events.len()
    }

    /// All events so far.
    #[must_use]
    pub fn history(&self) -> Vec<Event> {
        self.disk.state.lock().tree.events.clone()
    }

    /// Bytes that are in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        let pages = self.disk.state.lock().tree.pages();
        u64::try_from(pages * PAGE).unwrap_or(u64::MAX)
    }

    /// Writes an image below an empty directory, on whatever file system that is.
    ///
    /// # Errors
    /// That file system refuses.
    pub fn write_image(image: &Image, below: &Path) -> io::Result<()> {
        history::write_image(image, below)
    }
}

impl Disk {
    fn attr(&self, number: u64, inode: &Inode) -> FileAttr {
        let (kind, perm, size, pages) = match inode {
            Inode::File(file) => (FileType::RegularFile, 0o644, file.len(), file.pages()),
            Inode::Directory(_) => (FileType::Directory, 0o755, 0, 0),
        };
        let sectors = u64::try_from(pages * PAGE / 512).unwrap_or(u64::MAX);
        FileAttr {
            ino: INodeNo(number),
            size,
            blocks: sectors,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// The state, when changes are not refused.
    fn to_change(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let state = self.state.lock();
        match state.faults.change {
            Some(errno) => Err(errno),
            None => Ok(state),
        }
    }

    fn found(&self, number: u64) -> Result<FileAttr, Errno> {
        let state = self.state.lock();
        let inode = state.tree.inode(number)?;
        Ok(self.attr(number, inode))
    }

    fn make(&self, directory: u64, name: &OsStr, is_directory: bool) -> Result<FileAttr, Errno> {
        let made = self.to_change()?.tree.make(directory, name, is_directory)?;
        self.found(made)
    }

    fn write(&self, file: u64, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let mut guard = self.to_change()?;
        let State { tree, faults } = &mut *guard;
        tree.write(file, offset, data, faults)?;
        u32::try_from(data.len()).or(Err(Errno::EFBIG))
    }

    fn read(&self, file: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let state = self.state.lock();
        if let Some(errno) = state.faults.read {
            return Err(errno);
        }
        match state.tree.inode(file)? {
            Inode::File(file) => Ok(file.read(offset, usize::try_from(size).unwrap_or(usize::MAX))),
            Inode::Directory(_) => Err(Errno::EISDIR),
        }
    }

    fn set_len(&self, file: u64, len: Option<u64>) -> Result<FileAttr, Errno> {
        if let Some(len) = len {
            self.to_change()?.tree.set_len(file, len)?;
        }
        self.found(file)
    }

    fn sync(&self, number: u64, is_directory: bool) -> Result<(), Errno> {
        let began = Instant::now();
        let mut state = self.state.lock();
        while let Some(left) = state.faults.sync_takes.checked_sub(began.elapsed())
            && !left.is_zero()
        {
            self.changed.wait_for(&mut state, left);
        }
        if let Some(errno) = state.faults.sync {
            return Err(errno);
        }
        let ignored = if is_directory {
            state.faults.ignore_directory_syncs
        } else {
            state.faults.ignore_file_syncs
        };
        if !ignored {
            state.tree.sync(number);
        }
        Ok(())
    }

    /// Numbers, kinds and names of a directory.
    fn list(&self, directory: u64) -> Result<Vec<(u64, FileType, std::ffi::OsString)>, Errno> {
        let state = self.state.lock();
        let names = state.tree.names(directory)?.iter();
        let entries = names.map(|(name, number)| {
            let kind = match state.tree.inode(*number) {
                Ok(Inode::Directory(_)) => FileType::Directory,
                Ok(Inode::File(_)) | Err(_) => FileType::RegularFile,
            };
            (*number, kind, name.clone())
        });
        Ok(entries.collect())
    }
}

/// What the kernel talks to.
struct Mounted(Arc<Disk>);

fn entry(answer: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match answer {
        Ok(attr) => reply.entry(&FRESH, &attr, Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

fn empty(answer: Result<(), Errno>, reply: ReplyEmpty) {
    match answer {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Mounted {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        match config.set_max_write(WRITE_MAX) {
            Ok(_) => Ok(()),
            Err(nearest) => Err(io::Error::other(format!(
                "the kernel takes writes of {nearest} bytes, not of {WRITE_MAX}"
            ))),
        }
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.0.state.lock().tree.find(parent.0, name);
        entry(found.and_then(|number| self.0.found(number)), reply);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, _nlookup: u64) {
        self.0.state.lock().tree.forget(ino.0);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.found(ino.0) {
            Ok(attr) => reply.attr(&FRESH, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.0.set_len(ino.0, size) {
            Ok(attr) => reply.attr(&FRESH, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        entry(self.0.make(parent.0, name, true), reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let state = self.0.to_change();
        empty(
            state.and_then(|mut state| state.tree.remove(parent.0, name)),
            reply,
        );
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.unlink(req, parent, name, reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let (from, to) = ((parent.0, name), (newparent.0, newname));
        let state = self.0.to_change();
        empty(
            state.and_then(|mut state| state.tree.rename(from, to)),
            reply,
        );
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.read(ino.0, offset, size) {
            Ok(data) => reply.data(&data),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(ino.0, offset, data) {
            Ok(written) => reply.written(written),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(self.0.sync(ino.0, false), reply);
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(self.0.sync(ino.0, true), reply);
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = match self.0.list(ino.0) {
            Ok(entries) => entries,
            Err(errno) => return reply.error(errno),
        };
        let done = usize::try_from(offset).unwrap_or(usize::MAX);
        for (place, (number, kind, name)) in (1..).zip(entries).skip(done) {
            if reply.add(INodeNo(number), place, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let state = self.0.state.lock();
        let page = u64::try_from(PAGE).unwrap_or_default();
        let used = u64::try_from(state.tree.pages()).unwrap_or(u64::MAX);
        let room = state.faults.room.unwrap_or(1 << 40) / page;
        let free = room.saturating_sub(used);
        drop(state);
        let block = u32::try_from(PAGE).unwrap_or_default();
        reply.statfs(
            room.max(used),
            free,
            free,
            1 << 20,
            1 << 20,
            block,
            255,
            block,
        );
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.0.make(parent.0, name, false) {
            Ok(attr) => reply.created(
                &FRESH,
                &attr,
                Generation(0),
                FileHandle(0),
                FopenFlags::empty(),
            ),
            Err(errno) => reply.error(errno),
        }
    }
}
