//! A connection that must make progress: its first bytes soon, and no write that hangs for ever.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a client may take for its first bytes.
const FIRST_BYTES_WAIT: Duration = Duration::from_secs(10);
/// How many these are: the preface of HTTP/2, for which nothing above waits with a deadline. A head
/// of HTTP/1.1 is longer, and has a deadline of its own.
const FIRST_BYTES: usize = 24;
/// How long a client may take nothing of what is written to it.
const WRITE_STALL: Duration = Duration::from_secs(60);

/// `io`, broken off with an error when it makes no progress.
#[derive(Debug)]
pub(super) struct Guarded<T> {
    io: T,
    /// Until the first bytes are there.
    first: Option<Pin<Box<Sleep>>>,
    /// How many of them are.
    seen: usize,
    /// While a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<T> Guarded<T> {
    pub(super) fn new(io: T) -> Self {
        Self {
            io,
            first: Some(Box::pin(tokio::time::sleep(FIRST_BYTES_WAIT))),
            seen: 0,
            stalled: None,
        }
    }

    fn written<R>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_STALL)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(timed_out("the client takes nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn timed_out(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.io).poll_read(cx, buf);
        if poll.is_ready() {
            self.seen += buf.filled().len().saturating_sub(before);
            if self.seen >= FIRST_BYTES {
                self.first = None;
            }
        } else if let Some(first) = &mut self.first
            && first.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(timed_out("the client sends nothing")));
        }
        poll
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.written(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.io).poll_flush(cx);
        self.written(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.io).poll_shutdown(cx);
        self.written(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.written(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_cut_off_and_a_late_one_is_not() {
        let (silent, _other) = tokio::io::duplex(64);
        let mut silent = Guarded::new(silent);
        let fault = silent.read_u8().await.unwrap_err();
        assert_eq!(fault.kind(), io::ErrorKind::TimedOut);
        let (talks, mut other) = tokio::io::duplex(64);
        let mut talks = Guarded::new(talks);
        other.write_all(&[1; FIRST_BYTES]).await.unwrap();
        talks.read_exact(&mut [0; FIRST_BYTES]).await.unwrap();
        let later = async {
            tokio::time::sleep(FIRST_BYTES_WAIT * 3).await;
            other.write_u8(2).await.unwrap();
        };
        let (second, ()) = tokio::join!(talks.read_u8(), later);
        assert_eq!(second.unwrap(), 2, "an idle connection may stay");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_a_byte_now_and_then_is_cut_off() {
        let (drips, mut other) = tokio::io::duplex(64);
        let mut drips = Guarded::new(drips);
        let drip = async {
            while other.write_u8(1).await.is_ok() {
                tokio::time::sleep(FIRST_BYTES_WAIT / 10).await;
            }
        };
        let mut read = [0; FIRST_BYTES];
        tokio::select! {
            () = drip => panic!("nobody reads"),
            cut = drips.read_exact(&mut read) => {
                assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_cut_off() {
        let (stuck, mut other) = tokio::io::duplex(8);
        let mut stuck = Guarded::new(stuck);
        let fault = stuck.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(fault.kind(), io::ErrorKind::TimedOut);
        let (slow, mut reader) = tokio::io::duplex(8);
        let mut slow = Guarded::new(slow);
        let read = async {
            for _ in 0..8 {
                tokio::time::sleep(WRITE_STALL / 2).await;
                let mut some = [0; 8];
                reader.read_exact(&mut some).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(slow.write_all(&[0; 64]), read);
        written.unwrap();
        assert_eq!(other.read_u8().await.unwrap(), 0, "what fitted was sent");
    }
}
