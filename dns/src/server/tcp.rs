//! Questions over TCP: a bounded number of connections, one question after the other on each.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::handler::{self, Outcome};
use crate::metrics::{Served, Source, Transport};
use crate::server::Shared;
use crate::server::reply;
use crate::wire::{AnswerWriter, Query, Rejected, TCP_BYTES_MAX};

/// Largest question that is read; a client that announces more is cut off.
const QUESTION_BYTES_MAX: usize = 4096;
/// After a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until the server stops.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let stop = shared.stop.clone();
    stop.run_until_cancelled(accept(&shared, &listener)).await;
}

async fn accept(shared: &Arc<Shared>, listener: &TcpListener) -> ! {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "dns accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Without a place for it the connection is closed at once: the client sees it and retries.
        let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
            shared.metrics.dropped.inc();
            continue;
        };
        let shared_by_task = Arc::clone(shared);
        let stop = shared.stop.clone();
        shared.tasks.spawn(async move {
            let mut connection = Connection::new(shared_by_task, stream, client);
            if let Some(Err(error)) = stop.run_until_cancelled(connection.run()).await {
                tracing::trace!(%client, %error, "dns connection ended");
            }
            drop(permit);
        });
    }
}

struct Connection {
    shared: Arc<Shared>,
    stream: TcpStream,
    client: SocketAddr,
    packet: Vec<u8>,
    out: Vec<u8>,
    rotation: usize,
}

impl Connection {
    fn new(shared: Arc<Shared>, stream: TcpStream, client: SocketAddr) -> Self {
        // Each connection begins elsewhere, since most carry one question only.
        let rotation = client.port().into();
        Self {
            shared,
            stream,
            client,
            packet: Vec::new(),
            out: Vec::new(),
            rotation,
        }
    }

    /// Until the client closes, is silent too long or sends what is no question.
    async fn run(&mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        loop {
            let idle = self.shared.idle_timeout;
            let Ok(read) = timeout(idle, self.read()).await else {
                return Ok(());
            };
            if !read? {
                return Ok(());
            }
            let Some(answer) = self.answer().await else {
                return Ok(());
            };
            let Ok(len) = u16::try_from(answer.len()) else {
                return Ok(());
            };
            let framed = [len.to_be_bytes().as_slice(), &answer].concat();
            let Ok(written) = timeout(idle, self.stream.write_all(&framed)).await else {
                return Ok(());
            };
            written?;
        }
    }

    /// Reads a question. `false`: there is none any more.
    async fn read(&mut self) -> io::Result<bool> {
        let len = match self.stream.read_u16().await {
            Ok(len) => usize::from(len),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        };
        if len > QUESTION_BYTES_MAX {
            self.shared.metrics.dropped.inc();
            return Ok(false);
        }
        self.packet.resize(len, 0);
        self.stream.read_exact(&mut self.packet).await?;
        Ok(true)
    }

    async fn answer(&mut self) -> Option<Vec<u8>> {
        let began = Instant::now();
        let (qtype, outcome) = match Query::parse(&self.packet) {
            Ok(query) => {
                self.rotation = self.rotation.wrapping_add(1);
                let snapshot = self.shared.snapshot.load();
                let limit = TCP_BYTES_MAX;
                let context = self
                    .shared
                    .context(snapshot.as_deref(), self.rotation, limit);
                (query.qtype, handler::answer(&query, context, &mut self.out))
            }
            Err(Rejected::Drop) => {
                self.shared.metrics.dropped.inc();
                return None;
            }
            Err(Rejected::Answer { id, flags, rcode }) => {
                AnswerWriter::rejection(&mut self.out, id, flags, rcode);
                (0, Outcome::Answered(rcode))
            }
        };
        let Outcome::Answered(rcode) = outcome else {
            let forward = reply::Forward {
                shared: Arc::clone(&self.shared),
                packet: self.packet.clone(),
                client: self.client,
                transport: Transport::Tcp,
                began,
            };
            return forward.answer().await;
        };
        self.shared.metrics.served(Served {
            transport: Transport::Tcp,
            client: self.client.ip(),
            qtype,
            rcode,
            source: Source::Cluster,
            request_bytes: self.packet.len(),
            response_bytes: self.out.len(),
            duration: began.elapsed(),
        });
        Some(self.out.clone())
    }
}
