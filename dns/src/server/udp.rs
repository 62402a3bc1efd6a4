//! Questions over UDP: read many, answer each at once, hand the rest on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::UdpSocket;

use crate::handler::{self, Outcome};
use crate::metrics::{Served, Source, Transport};
use crate::server::Shared;
use crate::server::reply;
use crate::wire::{AnswerWriter, Query, Rejected, TCP_BYTES_MAX, rcode};

/// Questions read before other tasks get a turn.
const BATCH: usize = 64;
/// Largest question that is read; longer ones are cut and so rejected.
const QUESTION_BYTES_MAX: usize = 4096;

/// Serves one socket until the server stops.
pub(crate) async fn serve(shared: Arc<Shared>, socket: Arc<UdpSocket>) {
    let stop = shared.stop.clone();
    let mut worker = Worker {
        shared,
        socket,
        packet: vec![0; QUESTION_BYTES_MAX],
        out: Vec::with_capacity(TCP_BYTES_MAX),
        rotation: 0,
    };
    stop.run_until_cancelled(worker.run()).await;
}

struct Worker {
    shared: Arc<Shared>,
    socket: Arc<UdpSocket>,
    packet: Vec<u8>,
    out: Vec<u8>,
    /// Counts answers, so that each has its addresses in another order.
    rotation: usize,
}

impl Worker {
    async fn run(&mut self) {
        loop {
            if let Err(error) = self.socket.readable().await {
                tracing::error!(%error, "dns socket failed");
                return;
            }
            if self.drain() == BATCH {
                // There may be more; an empty socket waits above and needs no turn given up.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Answers what has come, at most a batch, and returns how many packets that was.
    fn drain(&mut self) -> usize {
        for taken in 0..BATCH {
            match self.socket.try_recv_from(&mut self.packet) {
                Ok((len, client)) => self.take(len, client),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return taken,
                // Such as a port unreachable for an earlier answer: of no concern here.
                Err(error) => tracing::debug!(%error, "dns receive"),
            }
        }
        BATCH
    }

    fn take(&mut self, len: usize, client: SocketAddr) {
        let began = Instant::now();
        let packet = &self.packet[..len];
        let served = |qtype, rcode, out: &[u8]| Served {
            transport: Transport::Udp,
            client: client.ip(),
            qtype,
            rcode,
            source: Source::Cluster,
            request_bytes: len,
            response_bytes: out.len(),
            duration: began.elapsed(),
        };
        let query = match Query::parse(packet) {
            Ok(query) => query,
            Err(Rejected::Drop) => {
                self.shared.metrics.dropped.inc();
                return;
            }
            Err(Rejected::Answer { id, flags, rcode }) => {
                AnswerWriter::rejection(&mut self.out, id, flags, rcode);
                send(&self.socket, &self.out, client);
                self.shared.metrics.served(served(0, rcode, &self.out));
                return;
            }
        };
        self.rotation = self.rotation.wrapping_add(1);
        let snapshot = self.shared.snapshot.load();
        let context = self
            .shared
            .context(snapshot.as_deref(), self.rotation, query.udp_limit());
        let mut outcome = handler::answer(&query, context, &mut self.out);
        if !matches!(outcome, Outcome::Answered(_)) {
            match Arc::clone(&self.shared.forwards).try_acquire_owned() {
                Ok(permit) => {
                    let forward = reply::Forward {
                        shared: Arc::clone(&self.shared),
                        packet: packet.to_vec(),
                        client,
                        transport: Transport::Udp,
                        began,
                    };
                    let (socket, tasks) = (Arc::clone(&self.socket), &self.shared.tasks);
                    tasks.spawn(async move {
                        if let Some(answer) = forward.answer().await {
                            send(&socket, &answer, client);
                        }
                        drop(permit);
                    });
                    return;
                }
                Err(_) => {
                    self.shared.metrics.forward_rejects.inc();
                    outcome = handler::plain(&query, context, rcode::REFUSED, &mut self.out);
                }
            }
        }
        if let Outcome::Answered(rcode) = outcome {
            send(&self.socket, &self.out, client);
            self.shared
                .metrics
                .served(served(query.qtype, rcode, &self.out));
        }
    }
}

/// A full socket buffer loses the answer, as the network might; the client asks again.
fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.try_send_to(answer, client) {
        tracing::debug!(%client, %error, "dns send");
    }
}
