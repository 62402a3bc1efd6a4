//! The server as clients see it: dig and raw sockets on loopback, with an upstream of our own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod cluster;
mod forward;
mod upstream;

use std::net::SocketAddr;
use std::time::Duration;

use dns::{
    ClusterNames, DnsConfig, DnsHandle, DnsServer, EndpointNames, PortName, Protocol, ServiceNames,
};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::net::UdpSocket;
use tokio::process::Command;

/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(10);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

fn config(upstreams: Vec<SocketAddr>) -> DnsConfig {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    DnsConfig {
        listen,
        upstreams,
        ..DnsConfig::new("cluster.local")
    }
}

async fn serve(config: DnsConfig) -> DnsHandle {
    let server = DnsServer::bind(config).await.unwrap();
    server.publisher().publish(&names());
    server
}

fn address(server: &DnsHandle) -> SocketAddr {
    server.addresses()[0]
}

fn names() -> ClusterNames {
    let port = |name: &str, port| PortName {
        name: name.to_owned(),
        protocol: Protocol::Tcp,
        port,
    };
    let service = |namespace: &str, name: &str, ip: &str| ServiceNames {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        cluster_ips: vec![ip.parse().unwrap()],
        ports: vec![port("http", 80)],
        ..ServiceNames::default()
    };
    let alias = |name: &str, target: &str| ServiceNames {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        external_name: Some(target.to_owned()),
        ..ServiceNames::default()
    };
    let endpoints = (0..100)
        .map(|n| EndpointNames {
            ip: format!("10.244.1.{n}").parse().unwrap(),
            hostname: None,
            ready: true,
            ports: vec![port("http", 8080)],
        })
        .collect();
    let many = ServiceNames {
        namespace: "default".to_owned(),
        name: "many".to_owned(),
        headless: true,
        endpoints,
        ..ServiceNames::default()
    };
    ClusterNames {
        revision: 1,
        namespaces: Vec::new(),
        services: vec![
            service("default", "hello", "10.96.0.20"),
            service("kube-system", "kube-dns", "10.96.0.10"),
            many,
            alias("ext", "www.example.com"),
            alias("gone", "none.example.com"),
            alias("inner", "ext.default.svc.cluster.local"),
            alias("hop", "hello.default.svc.cluster.local"),
            alias("ring", "ring.default.svc.cluster.local"),
        ],
    }
}

/// What dig prints, without its exit code.
async fn dig(server: SocketAddr, arguments: &str) -> String {
    let output = Command::new("dig")
        .args([
            "@127.0.0.1",
            "-p",
            &server.port().to_string(),
            "+tries=1",
            "+time=5",
        ])
        .args(arguments.split(' '))
        .output();
    let output = within("dig", output)
        .await
        .expect("run dig: is bind9-dnsutils installed?");
    String::from_utf8(output.stdout).unwrap()
}

fn packet(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
    message
}

/// Asks over UDP and returns the answer.
async fn ask(server: SocketAddr, name: &str, rtype: RecordType) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    let question = packet(name, rtype);
    socket.send(&question.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 4096];
    let len = within("an answer", socket.recv(&mut buffer)).await.unwrap();
    let answer = Message::from_vec(&buffer[..len]).unwrap();
    assert_eq!(answer.metadata.id, question.metadata.id);
    answer
}

/// The data of an answer's records: `CNAME a.`, `A 10.0.0.1`.
fn data(answer: &Message) -> Vec<String> {
    let text =
        |record: &hickory_proto::rr::Record| format!("{} {}", record.record_type(), record.data);
    answer.answers.iter().map(text).collect()
}
