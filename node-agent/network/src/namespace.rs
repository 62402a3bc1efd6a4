//! Work inside another network namespace.
//!
//! A thread of its own enters the namespace and ends there: threads of the runtime's pools never
//! change theirs. A netlink socket made inside keeps to that namespace wherever it is used.

#![expect(unsafe_code, reason = "SO_NETNS_COOKIE has no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// A network namespace that is held open.
#[derive(Debug)]
pub(crate) struct NetworkNamespace {
    file: File,
}

impl NetworkNamespace {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
        })
    }

    pub(crate) fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Runs `work` inside.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let file = self.file.try_clone()?;
        let runtime = tokio::runtime::Handle::current();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("netns".into())
            .spawn(move || {
                let _runtime = runtime.enter();
                let done = setns(&file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
                // The receiver is gone only when the caller no longer wants the answer.
                let _unwanted = sender.send(done.and_then(|()| work())).is_err();
            })?;
        receiver
            .await
            .map_err(|_gone| io::Error::other("the thread in the network namespace panicked"))?
    }
}

/// The cookie of the calling thread's network namespace (`SO_NETNS_COOKIE`, Linux 5.14).
pub(crate) fn cookie() -> io::Result<u64> {
    let socket: OwnedFd = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut cookie: u64 = 0;
    let mut size: libc::socklen_t = 8;
    let target = (&raw mut cookie).cast::<libc::c_void>();
    // SAFETY: `socket` is open; `target` points to 8 writable bytes that live until the call
    // returns, and `size` says so.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            target,
            &raw mut size,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Writes a sysctl of the calling thread's network namespace, for example `net/ipv4/ip_forward`.
pub(crate) fn sysctl(name: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/{name}");
    std::fs::write(&path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("write {value} to {path}: {error}")))
}
