//! What an answer costs, against the floor that the kernel's UDP path sets.
//!
//! `cargo run --release -p dns --example query_cost`. The floor is a loop of `recv_from` and
//! `send_to` that flips one bit of the question. Both servers run as processes of their own, in
//! turn, with the same client; what counts is answers per second of the server's CPU time, which a
//! busy machine disturbs least. The median of some rounds is shown.

#![expect(
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a measuring program"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use dns::{ClusterNames, DnsConfig, DnsServer, PortName, Protocol, ServiceNames};

const ROLE: &str = "SKEP_DNS_BENCH_ROLE";
const SERVICES: usize = 10_000;
/// Questions in flight.
const WINDOW: usize = 32;
const MEASURED: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;
/// A question that has no answer after so long is lost.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// The packet that asks for the nth service.
type Question = fn(usize) -> Vec<u8>;

/// `sysconf(_SC_CLK_TCK)` on Linux.
const TICKS_PER_S: f64 = 100.0;

fn main() -> anyhow::Result<()> {
    match std::env::var(ROLE).as_deref() {
        Ok("floor") => floor(),
        Ok("dns") => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(serve()),
        _ => compare(),
    }
}

fn floor() -> anyhow::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    tell(socket.local_addr()?)?;
    let mut buffer = [0; 4096];
    loop {
        let (len, client) = socket.recv_from(&mut buffer)?;
        buffer[2] |= 0x80;
        socket.send_to(&buffer[..len], client)?;
    }
}

async fn serve() -> anyhow::Result<()> {
    let listen = vec!["127.0.0.1:0".parse()?];
    let server = DnsServer::bind(DnsConfig {
        listen,
        ..DnsConfig::new("cluster.local")
    })
    .await?;
    let service = |n: usize| ServiceNames {
        namespace: format!("namespace-{}", n % 50),
        name: format!("service-{n}"),
        cluster_ips: vec![
            [
                10,
                96,
                u8::try_from(n / 256 % 256).unwrap_or(0),
                (n % 256) as u8,
            ]
            .into(),
        ],
        ports: vec![PortName {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
        }],
        ..ServiceNames::default()
    };
    let services = (0..SERVICES).map(service).collect();
    server.publisher().publish(&ClusterNames {
        services,
        ..ClusterNames::default()
    });
    tell(server.addresses()[0])?;
    std::future::pending().await
}

fn tell(address: SocketAddr) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{address}")?;
    Ok(out.flush()?)
}

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(role: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        Ok(Self {
            child,
            address: line.trim().parse()?,
        })
    }

    /// User and system time so far.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit_once(')').context("a stat line")?.1;
        let fields: Vec<_> = after_name.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(Duration::from_secs_f64(ticks / TICKS_PER_S))
    }

    fn rss_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn compare() -> anyhow::Result<()> {
    let mixes: [(&str, Question); 3] = [("hits", hit), ("NXDOMAIN", missing), ("AAAA", nodata)];
    let (floor, dns) = (Server::start("floor")?, Server::start("dns")?);
    println!(
        "{SERVICES} services, {WINDOW} in flight, median of {ROUNDS}; dns RSS {} KiB",
        dns.rss_kib()?
    );
    for (name, question) in mixes {
        let (mut floors, mut answers) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            floors.push(measure(&floor, question)?);
            answers.push(measure(&dns, question)?);
        }
        let (floor, dns) = (median(floors), median(answers));
        println!(
            "{name:9} floor {:9.0}/cpu-s   dns {:9.0}/cpu-s ({:8.0}/s)   {:.2} of the floor",
            floor.0,
            dns.0,
            dns.1,
            dns.0 / floor.0
        );
    }
    Ok(())
}

fn median(mut figures: Vec<(f64, f64)>) -> (f64, f64) {
    figures.sort_by(|a, b| a.0.total_cmp(&b.0));
    figures[figures.len() / 2]
}

/// Answers per second of the server's CPU time, and per second.
fn measure(server: &Server, question: Question) -> anyhow::Result<(f64, f64)> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server.address)?;
    socket.set_read_timeout(Some(LOST_AFTER))?;
    let questions: Vec<_> = (0..SERVICES)
        .map(|n| question(n * 7919 % SERVICES))
        .collect();
    let mut buffer = [0; 4096];
    let (cpu, began) = (server.cpu()?, Instant::now());
    let mut answers = 0_u32;
    for question in &questions[..WINDOW] {
        socket.send(question)?;
    }
    while began.elapsed() < MEASURED {
        if socket.recv(&mut buffer).is_err() {
            bail!("{} does not answer", server.address);
        }
        answers += 1;
        socket.send(&questions[answers as usize % SERVICES])?;
    }
    let elapsed = began.elapsed();
    for _ in 0..WINDOW {
        socket.recv(&mut buffer)?;
    }
    let cpu = (server.cpu()? - cpu).as_secs_f64();
    Ok((
        f64::from(answers) / cpu,
        f64::from(answers) / elapsed.as_secs_f64(),
    ))
}

fn hit(n: usize) -> Vec<u8> {
    packet(
        &format!("service-{n}.namespace-{}.svc.cluster.local", n % 50),
        1,
    )
}

fn missing(n: usize) -> Vec<u8> {
    packet(
        &format!("www.example.com.namespace-{}.svc.cluster.local", n % 50),
        1,
    )
}

fn nodata(n: usize) -> Vec<u8> {
    packet(
        &format!("service-{n}.namespace-{}.svc.cluster.local", n % 50),
        28,
    )
}

fn packet(name: &str, rtype: u8) -> Vec<u8> {
    let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.bytes());
    }
    packet.extend([0, 0, rtype, 0, 1]);
    packet
}
