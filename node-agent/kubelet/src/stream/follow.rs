//! Wakes a log reader when files of a directory change, across rotation.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

pub(super) struct DirectoryWatch {
    notify: AsyncFd<OwnedFd>,
}

impl DirectoryWatch {
    /// Watches `directory` for files written, made, renamed or removed.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let notify = inotify::init(flags)?;
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE;
        inotify::add_watch(&notify, directory, events)?;
        #[expect(
            deprecated,
            reason = "the safe constructor is unsound only for types that lie about their descriptor; \
                      an OwnedFd owns it until it is dropped"
        )]
        let notify = AsyncFd::new(notify)?;
        Ok(Self { notify })
    }

    /// Waits for a change and takes in all that are there. Cancel-safe: an event that is not taken
    /// in wakes the next call.
    pub(super) async fn changed(&self) -> io::Result<()> {
        let mut guard = self.notify.readable().await?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.notify.get_ref(), &mut buffer);
        loop {
            match reader.next() {
                Ok(_event) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        guard.clear_ready();
        Ok(())
    }
}
