//! An HTTP server that answers with its pod's name, node and address.
//!
//! Port 8080, or `PORT`. `/healthz` answers `ok`. On SIGTERM it takes the connections that are
//! already waiting, finishes the requests it has, and ends with code 0.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program's log")]

mod connection;
mod http;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Connections that are still open when SIGTERM comes have this long.
const DRAIN: Duration = Duration::from_secs(10);

/// Shared by all connections.
#[derive(Debug)]
struct Server {
    greeting: String,
    stopping: AtomicBool,
}

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let stop = stop_signals()?;
    let listener = listen(port()?)?;
    let server = Arc::new(Server {
        greeting: greeting(),
        stopping: AtomicBool::new(false),
    });
    println!("hello: listening on {}", listener.local_addr()?);
    // Each connection holds a sender: the receiver sees the end of the last one.
    let (open, ended) = sync_channel(0);
    while wait(&listener, &stop)? == Event::Connection {
        accept_all(&listener, &server, &open)?;
    }
    server.stopping.store(true, Ordering::SeqCst);
    accept_all(&listener, &server, &open)?;
    drop(listener);
    drop(open);
    drain(&ended);
    println!("hello: stopped");
    Ok(())
}

fn port() -> io::Result<u16> {
    match std::env::var("PORT") {
        Ok(text) => text
            .parse()
            .map_err(|error| io::Error::other(format!("PORT={text:?}: {error}"))),
        Err(_) => Ok(8080),
    }
}

/// One socket for IPv6 and IPv4; IPv4 alone where the kernel has no IPv6.
fn listen(port: u16) -> io::Result<TcpListener> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(both)
        .or_else(|_| TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))
        .map_err(|error| io::Error::other(format!("listen on port {port}: {error}")))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// `pod hello-x, node node-1, address 10.244.0.7`.
fn greeting() -> String {
    let value = |name: &str| std::env::var(name).unwrap_or_else(|_| "unknown".to_owned());
    format!(
        "pod {}, node {}, address {}\n",
        value("POD_NAME"),
        value("NODE_NAME"),
        value("POD_IP")
    )
}

/// Blocked in this thread and in all that it starts; they arrive as a descriptor.
fn stop_signals() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    Ok(SignalFd::with_flags(
        &signals,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Connection,
    Stop,
}

fn wait(listener: &TcpListener, stop: &SignalFd) -> io::Result<Event> {
    let mut fds = [
        PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        PollFd::new(listener.as_fd(), PollFlags::POLLIN),
    ];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let stopped = fds[0].any().unwrap_or(false);
    Ok(if stopped {
        Event::Stop
    } else {
        Event::Connection
    })
}

/// Everything in the listener's queue; each connection gets a thread.
fn accept_all(
    listener: &TcpListener,
    server: &Arc<Server>,
    open: &SyncSender<()>,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // The client left, or descriptors ran out: the next one may do better.
            Err(error) => {
                eprintln!("hello: accept: {error}");
                return Ok(());
            }
        };
        let (server, open) = (Arc::clone(server), open.clone());
        std::thread::Builder::new()
            .name("connection".to_owned())
            .spawn(move || {
                connection::serve(&stream, &server.greeting, &server.stopping);
                drop(open);
            })?;
    }
}

/// Returns when the last connection has ended, or too late.
fn drain(ended: &Receiver<()>) {
    if ended.recv_timeout(DRAIN) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        eprintln!(
            "hello: some connections are still open after {} s",
            DRAIN.as_secs()
        );
    }
}
