//! One connection: reads and writes frames, and gives each stream its own two ends.
//!
//! A stream's reader holds at most [`READ_QUEUE`] pieces. When it is full the connection is not read
//! on: as with every other peer of this protocol, a stream that nobody reads holds up its neighbours.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Sink, SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::frame::{Decoder, Encoder, FrameError, Incoming, Outgoing};
use crate::headers::Headers;

/// Pieces of one stream that wait for its reader.
const READ_QUEUE: usize = 16;
/// Frames of all streams that wait for the connection.
const WRITE_QUEUE: usize = 64;
/// Streams that the peer opened and nobody has taken yet.
const ACCEPT_QUEUE: usize = 16;
/// Streams open at a time.
const STREAMS_MAX: usize = 4096;
/// Frames are written together up to about this size.
const WRITE_BYTES: usize = 64 * 1024;
/// RST_STREAM status: there are too many streams.
const REFUSED_STREAM: u32 = 3;
/// RST_STREAM status: whoever reads has lost interest.
const CANCEL: u32 = 5;

/// Which side of the connection we are: clients' streams have odd numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// We opened the connection.
    Client,
    /// The peer did.
    Server,
}

/// The connection, or the stream, is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the SPDY stream is closed")]
pub struct Closed;

/// Our side of a connection. It ends when this, all handles and all stream writers are dropped,
/// or when the peer ends it.
#[derive(Debug)]
pub struct Connection {
    accepted: mpsc::Receiver<Stream>,
    handle: Handle,
}

/// Opens streams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    table: Arc<Mutex<Table>>,
    out: mpsc::Sender<Outgoing>,
}

/// One stream.
#[derive(Debug)]
pub struct Stream {
    /// Its number.
    pub id: u32,
    /// What whoever opened it says of it.
    pub headers: Headers,
    /// From the peer.
    pub reader: StreamReader,
    /// To the peer.
    pub writer: StreamWriter,
}

/// The receiving end of a stream.
#[derive(Debug)]
pub struct StreamReader {
    data: mpsc::Receiver<Bytes>,
    reset: CancellationToken,
}

/// The sending end of a stream.
#[derive(Debug)]
pub struct StreamWriter {
    id: u32,
    table: Arc<Mutex<Table>>,
    out: mpsc::Sender<Outgoing>,
    reset: CancellationToken,
}

#[derive(Debug)]
struct Table {
    streams: HashMap<u32, Entry>,
    next_id: u32,
    ended: bool,
}

#[derive(Debug)]
struct Entry {
    /// Gone when the peer has finished.
    data: Option<mpsc::Sender<Bytes>>,
    reset: CancellationToken,
    /// We have finished.
    finished: bool,
}

impl Connection {
    /// A connection over `reader` and `writer`, and the future that drives it, which the caller
    /// must run.
    pub fn new<R, W>(
        role: Role,
        reader: R,
        writer: W,
    ) -> (
        Self,
        impl Future<Output = Result<(), io::Error>> + use<R, W>,
    )
    where
        R: futures::Stream<Item = io::Result<Bytes>> + Unpin,
        W: Sink<Bytes, Error = io::Error> + Unpin,
    {
        let (out, outgoing) = mpsc::channel(WRITE_QUEUE);
        let (accept, accepted) = mpsc::channel(ACCEPT_QUEUE);
        let table = Arc::new(Mutex::new(Table {
            streams: HashMap::new(),
            next_id: match role {
                Role::Client => 1,
                Role::Server => 2,
            },
            ended: false,
        }));
        let reading = Reading {
            table: Arc::clone(&table),
            out: out.downgrade(),
            accept,
        };
        let handle = Handle {
            table: Arc::clone(&table),
            out,
        };
        let drive = async move {
            let _end = End(table);
            let mut reading = std::pin::pin!(reading.run(reader));
            tokio::select! {
                read = &mut reading => return read,
                written = write(outgoing, writer) => written?,
            }
            // Until the peer has closed its side too: unread bytes would turn our close into a
            // reset, and the peer could lose what we said last.
            reading.await
        };
        (Self { accepted, handle }, drive)
    }

    /// The next stream that the peer opens; `None` when the connection has ended.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.accepted.recv().await
    }

    /// Opens streams.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Handle {
    /// Opens a stream.
    ///
    /// # Errors
    /// [`Closed`] when the connection has ended or has too many streams.
    pub async fn open(&self, headers: Headers) -> Result<Stream, Closed> {
        let id = {
            let mut table = self.table.lock();
            let id = table.next_id;
            table.next_id += 2;
            id
        };
        let stream = new_stream(&self.table, id, headers.clone(), self.out.clone());
        let stream = stream.ok_or(Closed)?;
        let open = Outgoing::Open {
            stream: id,
            headers,
        };
        self.out.send(open).await.or(Err(Closed))?;
        Ok(stream)
    }
}

impl StreamReader {
    /// The next bytes; `None` when the peer has finished or broken off.
    pub async fn recv(&mut self) -> Option<Bytes> {
        self.data.recv().await
    }

    /// Whether the stream was broken off, by the peer or with the connection.
    #[must_use]
    pub fn was_reset(&self) -> bool {
        self.reset.is_cancelled()
    }
}

impl StreamWriter {
    /// Sends bytes.
    ///
    /// # Errors
    /// [`Closed`] when the stream was broken off or the connection has ended.
    pub async fn send(&self, bytes: Bytes) -> Result<(), Closed> {
        self.data(bytes, false).await
    }

    /// Sends the end; the peer may go on sending.
    ///
    /// # Errors
    /// As [`StreamWriter::send`].
    pub async fn finish(&self) -> Result<(), Closed> {
        let sent = self.data(Bytes::new(), true).await;
        self.table.lock().finish_ours(self.id);
        sent
    }

    /// Breaks the stream off in both directions.
    pub async fn reset(&self) {
        if self.table.lock().streams.remove(&self.id).is_none() {
            return;
        }
        self.reset.cancel();
        let stream = self.id;
        let reset = Outgoing::Reset {
            stream,
            status: CANCEL,
        };
        // A connection that has ended needs no reset.
        drop(self.out.send(reset).await);
    }

    /// Waits until the stream is broken off, by the peer or with the connection.
    pub async fn closed(&self) {
        self.reset.cancelled().await;
    }

    async fn data(&self, bytes: Bytes, fin: bool) -> Result<(), Closed> {
        let stream = self.id;
        let data = Outgoing::Data { stream, bytes, fin };
        tokio::select! {
            biased;
            () = self.reset.cancelled() => Err(Closed),
            sent = self.out.send(data) => sent.or(Err(Closed)),
        }
    }
}

impl Table {
    fn finish_ours(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.finished = true;
            if entry.data.is_none() {
                self.streams.remove(&id);
            }
        }
    }

    fn finish_theirs(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.data = None;
            if entry.finished {
                self.streams.remove(&id);
            }
        }
    }
}

/// Makes the two ends of a stream; `None` when there are too many or the number is taken.
fn new_stream(
    table: &Arc<Mutex<Table>>,
    id: u32,
    headers: Headers,
    out: mpsc::Sender<Outgoing>,
) -> Option<Stream> {
    let (sender, data) = mpsc::channel(READ_QUEUE);
    let reset = CancellationToken::new();
    {
        let mut table = table.lock();
        let taken = table.streams.contains_key(&id);
        if table.ended || taken || table.streams.len() >= STREAMS_MAX {
            return None;
        }
        let entry = Entry {
            data: Some(sender),
            reset: reset.clone(),
            finished: false,
        };
        table.streams.insert(id, entry);
    }
    Some(Stream {
        id,
        headers,
        reader: StreamReader {
            data,
            reset: reset.clone(),
        },
        writer: StreamWriter {
            id,
            table: Arc::clone(table),
            out,
            reset,
        },
    })
}

/// Ends every stream when the connection does.
struct End(Arc<Mutex<Table>>);

impl Drop for End {
    fn drop(&mut self) {
        let mut table = self.0.lock();
        table.ended = true;
        for (_, entry) in table.streams.drain() {
            entry.reset.cancel();
        }
    }
}

struct Reading {
    table: Arc<Mutex<Table>>,
    /// Weak: reading alone does not keep the connection.
    out: mpsc::WeakSender<Outgoing>,
    accept: mpsc::Sender<Stream>,
}

impl Reading {
    async fn run<R>(self, mut reader: R) -> io::Result<()>
    where
        R: futures::Stream<Item = io::Result<Bytes>> + Unpin,
    {
        let mut decoder = Decoder::default();
        while let Some(bytes) = reader.next().await {
            decoder.feed(&bytes?);
            while let Some(event) = decoder.event().map_err(invalid)? {
                // When nobody holds the connection any more, the rest is thrown away.
                drop(self.take(event).await);
            }
        }
        Ok(())
    }

    async fn take(&self, event: Incoming) -> Result<(), Closed> {
        match event {
            Incoming::Open {
                stream,
                headers,
                fin,
            } => self.opened(stream, headers, fin).await,
            Incoming::Data { stream, bytes, fin } => {
                let data = {
                    let table = self.table.lock();
                    table.streams.get(&stream).and_then(|e| e.data.clone())
                };
                if let Some(data) = data
                    && !bytes.is_empty()
                {
                    // A reader that was dropped wants no more: what comes is thrown away.
                    drop(data.send(bytes).await);
                }
                if fin {
                    self.table.lock().finish_theirs(stream);
                }
                Ok(())
            }
            Incoming::Reply { stream, fin } => {
                if fin {
                    self.table.lock().finish_theirs(stream);
                }
                Ok(())
            }
            Incoming::Reset { stream } => {
                let gone = self.table.lock().streams.remove(&stream);
                if let Some(entry) = gone {
                    entry.reset.cancel();
                }
                Ok(())
            }
            Incoming::Ping { id } => self.say(Outgoing::Ping { id }).await,
            Incoming::GoAway => Ok(()),
        }
    }

    async fn opened(&self, id: u32, headers: Headers, fin: bool) -> Result<(), Closed> {
        let out = self.out.upgrade().ok_or(Closed)?;
        let Some(stream) = new_stream(&self.table, id, headers, out) else {
            let status = REFUSED_STREAM;
            return self.say(Outgoing::Reset { stream: id, status }).await;
        };
        if fin {
            self.table.lock().finish_theirs(id);
        }
        self.say(Outgoing::Reply { stream: id }).await?;
        self.accept.send(stream).await.or(Err(Closed))
    }

    async fn say(&self, event: Outgoing) -> Result<(), Closed> {
        let out = self.out.upgrade().ok_or(Closed)?;
        out.send(event).await.or(Err(Closed))
    }
}

async fn write<W>(mut outgoing: mpsc::Receiver<Outgoing>, mut writer: W) -> io::Result<()>
where
    W: Sink<Bytes, Error = io::Error> + Unpin,
{
    let mut encoder = Encoder::default();
    let mut buffer = BytesMut::new();
    while let Some(event) = outgoing.recv().await {
        encoder.encode(&event, &mut buffer).map_err(invalid)?;
        while buffer.len() < WRITE_BYTES
            && let Ok(event) = outgoing.try_recv()
        {
            encoder.encode(&event, &mut buffer).map_err(invalid)?;
        }
        writer.send(buffer.split().freeze()).await?;
    }
    writer.close().await
}

fn invalid(error: FrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::channel::mpsc as pipe;

    use super::*;

    type Pair = (Connection, Connection, tokio::task::JoinSet<()>);

    /// A client and a server that talk to each other.
    fn pair() -> Pair {
        let (to_server, at_server) = pipe::channel::<Bytes>(1);
        let (to_client, at_client) = pipe::channel::<Bytes>(1);
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let (client, drive_client) = Connection::new(
            Role::Client,
            at_client.map(Ok),
            to_server.sink_map_err(gone),
        );
        let (server, drive_server) = Connection::new(
            Role::Server,
            at_server.map(Ok),
            to_client.sink_map_err(gone),
        );
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async { drop(drive_client.await) });
        tasks.spawn(async { drop(drive_server.await) });
        (client, server, tasks)
    }

    async fn everything(reader: &mut StreamReader) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(bytes) = reader.recv().await {
            all.extend_from_slice(&bytes);
        }
        all
    }

    #[tokio::test]
    async fn a_stream_may_end_in_one_direction_and_go_on_in_the_other() {
        let (client, mut server, _tasks) = pair();
        let headers = Headers::new([("streamType", "data")]);
        let mut ours = client.handle().open(headers.clone()).await.unwrap();
        let mut theirs = server.accept().await.unwrap();
        assert_eq!((theirs.id, &theirs.headers), (1, &headers));
        ours.writer
            .send(Bytes::from_static(b"question"))
            .await
            .unwrap();
        ours.writer.finish().await.unwrap();
        assert_eq!(everything(&mut theirs.reader).await, b"question");
        assert!(!theirs.reader.was_reset());
        theirs
            .writer
            .send(Bytes::from_static(b"answer"))
            .await
            .unwrap();
        theirs.writer.finish().await.unwrap();
        assert_eq!(everything(&mut ours.reader).await, b"answer");
        assert!(client.handle.table.lock().streams.is_empty());
    }

    #[tokio::test]
    async fn a_reset_ends_both_ends() {
        let (client, mut server, _tasks) = pair();
        let ours = client.handle().open(Headers::default()).await.unwrap();
        let mut theirs = server.accept().await.unwrap();
        ours.writer.reset().await;
        assert_eq!(theirs.reader.recv().await, None);
        theirs.writer.closed().await;
        assert!(theirs.reader.was_reset());
        assert_eq!(
            theirs.writer.send(Bytes::from_static(b"x")).await,
            Err(Closed)
        );
    }

    #[tokio::test]
    async fn many_streams_carry_much_at_once() {
        let (client, mut server, mut tasks) = pair();
        tasks.spawn(async move {
            let mut echoes = tokio::task::JoinSet::new();
            while let Some(mut stream) = server.accept().await {
                echoes.spawn(async move {
                    while let Some(bytes) = stream.reader.recv().await {
                        stream.writer.send(bytes).await.unwrap();
                    }
                    stream.writer.finish().await.unwrap();
                });
            }
            echoes.join_all().await;
        });
        let mut users = tokio::task::JoinSet::new();
        for number in 0..50_u8 {
            let handle = client.handle();
            users.spawn(async move {
                let Stream {
                    mut reader, writer, ..
                } = handle.open(Headers::default()).await.unwrap();
                let expected = vec![number; 300_000];
                let sent = Bytes::from(expected.clone());
                let send = async {
                    writer.send(sent).await.unwrap();
                    writer.finish().await.unwrap();
                };
                let ((), received) = tokio::join!(send, everything(&mut reader));
                assert!(received == expected, "stream {number}");
            });
        }
        users.join_all().await;
    }

    #[tokio::test]
    async fn the_connection_ends_when_nobody_holds_it() {
        let (client, mut server, mut tasks) = pair();
        let stream = client.handle().open(Headers::default()).await.unwrap();
        let theirs = server.accept().await.unwrap();
        drop(client);
        stream
            .writer
            .send(Bytes::from_static(b"last"))
            .await
            .unwrap();
        drop(stream);
        let Stream { mut reader, .. } = theirs;
        assert_eq!(reader.recv().await.as_deref(), Some(&b"last"[..]));
        assert_eq!(server.accept().await.map(|stream| stream.id), None);
        drop(server);
        let ended = async { while tasks.join_next().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(5), ended)
            .await
            .unwrap();
        assert!(reader.was_reset());
    }

    #[tokio::test]
    async fn a_reader_that_waits_holds_the_writer_back() {
        let (client, mut server, _tasks) = pair();
        let ours = client.handle().open(Headers::default()).await.unwrap();
        let theirs = server.accept().await.unwrap();
        let piece = Bytes::from(vec![0; WRITE_BYTES]);
        let mut sent = 0;
        let flood = async {
            loop {
                ours.writer.send(piece.clone()).await.unwrap();
                sent += 1;
            }
        };
        let timeout = tokio::time::timeout(Duration::from_millis(200), flood).await;
        timeout.unwrap_err();
        // The queues, and the few that are under way.
        let most = READ_QUEUE + 2 * WRITE_QUEUE + 8;
        assert!(sent < most, "{sent} of at most {most}");
        drop(theirs);
    }
}
