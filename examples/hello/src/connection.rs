//! One client: changes when the life of a connection does.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::http::{self, Parsed};

/// A client that sends nothing for this long is sent away.
const IDLE: Duration = Duration::from_secs(60);

/// How soon an idle connection notices that the server stops.
const NOTICE: Duration = Duration::from_millis(50);

/// Answers requests until the client leaves, is too slow, or the server stops. Errors end the
/// connection: the client sees them as well as we do.
pub(crate) fn serve(stream: &TcpStream, greeting: &str, stopping: &AtomicBool) {
    if let Err(error) = converse(stream, greeting, stopping)
        && error.kind() != io::ErrorKind::ConnectionReset
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("hello: connection: {error}");
    }
}

fn converse(mut stream: &TcpStream, greeting: &str, stopping: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(NOTICE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let mut received = Vec::new();
    let mut last = Instant::now();
    let mut chunk = [0; 4096];
    loop {
        match http::parse(&received) {
            Parsed::Request { request, length } => {
                let keep = request.keep_alive && !stopping.load(Ordering::SeqCst);
                stream.write_all(&http::answer(&request, greeting, keep))?;
                received.drain(..length);
                last = Instant::now();
                if !keep {
                    return Ok(());
                }
                continue;
            }
            Parsed::Bad => return stream.write_all(http::BAD_REQUEST),
            Parsed::Incomplete => {}
        }
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                received.extend_from_slice(&chunk[..count]);
                last = Instant::now();
            }
            Err(error) if is_timeout(&error) => {
                let idle = received.is_empty() && stopping.load(Ordering::SeqCst);
                if idle || last.elapsed() > IDLE {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
