//! Names of the cluster, bad packets, limits.

use std::time::Duration;

use dns::{ClusterNames, DnsConfig, DnsServer};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use crate::{address, ask, config, data, dig, names, packet, serve, within};

#[tokio::test]
async fn dig_gets_every_kind_of_record_over_udp_and_tcp() {
    let server = serve(config(Vec::new())).await;
    let at = address(&server);
    for transport in ["+notcp", "+tcp"] {
        for (question, expected) in [
            ("hello.default.svc.cluster.local A", "10.96.0.20\n"),
            ("hello.default.svc.cluster.local AAAA", ""),
            (
                "_http._tcp.hello.default.svc.cluster.local SRV",
                "0 100 80 hello.default.svc.cluster.local.\n",
            ),
            ("-x 10.96.0.20", "hello.default.svc.cluster.local.\n"),
            (
                "10-244-1-7.many.default.svc.cluster.local A",
                "10.244.1.7\n",
            ),
            (
                "-x 10.244.1.7",
                "10-244-1-7.many.default.svc.cluster.local.\n",
            ),
            ("dns-version.cluster.local TXT", "\"1.1.0\"\n"),
            ("cluster.local NS", "ns.dns.cluster.local.\n"),
            ("ext.default.svc.cluster.local CNAME", "www.example.com.\n"),
        ] {
            assert_eq!(
                dig(at, &format!("{transport} +short {question}")).await,
                expected
            );
        }
        let missing = dig(
            at,
            &format!("{transport} nothing.default.svc.cluster.local A"),
        )
        .await;
        assert!(
            missing.contains("status: NXDOMAIN") && missing.contains("hostmaster"),
            "{missing}"
        );
        assert!(!missing.contains("malformed"), "{missing}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn dig_takes_a_long_answer_over_tcp_after_it_was_cut() {
    let server = serve(config(Vec::new())).await;
    let question = "many.default.svc.cluster.local A";
    let all = dig(address(&server), &format!("+short {question}")).await;
    assert_eq!(all.lines().count(), 100);
    let cut = dig(address(&server), &format!("+ignore +noedns {question}")).await;
    assert!(cut.contains("flags: qr aa tc rd"), "{cut}");
    assert!(cut.contains("ANSWER: 29,"), "{cut}");
    let first = |text: &str| text.lines().next().unwrap().to_owned();
    let again = dig(address(&server), &format!("+short {question}")).await;
    assert_ne!(first(&all), first(&again), "the order changes");
}

#[tokio::test]
async fn a_published_state_is_answered_at_once_and_nothing_before_the_first() {
    let server = DnsServer::bind(config(Vec::new())).await.unwrap();
    let at = address(&server);
    let name = "hello.default.svc.cluster.local.";
    assert!(!server.is_ready());
    let answer = ask(at, name, RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let publisher = server.publisher();
    publisher.publish(&names());
    assert!(server.is_ready());
    assert_eq!(data(&ask(at, name, RecordType::A).await), ["A 10.96.0.20"]);
    let mut changed = names();
    changed.services[0].cluster_ips = vec!["10.96.0.99".parse().unwrap()];
    publisher.publish(&changed);
    assert_eq!(data(&ask(at, name, RecordType::A).await), ["A 10.96.0.99"]);
    publisher.publish(&ClusterNames::default());
    let answer = ask(at, name, RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn bad_packets_get_formerr_and_harm_nobody() {
    let server = serve(config(Vec::new())).await;
    let at = address(&server);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(at).await.unwrap();
    let good = packet("hello.default.svc.cluster.local.", RecordType::A)
        .to_vec()
        .unwrap();
    let mut buffer = [0; 600];
    for end in 12..good.len() {
        socket.send(&good[..end]).await.unwrap();
        let len = within("an answer", socket.recv(&mut buffer)).await.unwrap();
        assert_eq!(
            (len, &buffer[..2], buffer[3] & 0xf),
            (12, &good[..2], 1),
            "cut at {end}"
        );
    }
    // Short ones, answers and noise: no answer or one, but the server lives.
    for n in 0..500_usize {
        let noise: Vec<u8> = (0..n % 90)
            .map(|at| u8::try_from((at * 31 + n * 17) % 256).unwrap() | 0x80)
            .collect();
        socket.send(&noise).await.unwrap();
    }
    assert_eq!(
        data(&ask(at, "hello.default.svc.cluster.local.", RecordType::A).await).len(),
        1
    );
}

#[tokio::test]
async fn a_connection_carries_many_questions_and_closes_when_it_is_silent() {
    let idle_timeout = Duration::from_millis(200);
    let server = serve(DnsConfig {
        idle_timeout,
        ..config(Vec::new())
    })
    .await;
    let mut stream = TcpStream::connect(address(&server)).await.unwrap();
    for _ in 0..20 {
        let question = packet("hello.default.svc.cluster.local.", RecordType::A)
            .to_vec()
            .unwrap();
        stream
            .write_u16(u16::try_from(question.len()).unwrap())
            .await
            .unwrap();
        stream.write_all(&question).await.unwrap();
        let len = within("an answer", stream.read_u16()).await.unwrap();
        let mut answer = vec![0; len.into()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..2], question[..2]);
    }
    let closed = within("the end", stream.read_u16()).await;
    assert_eq!(
        closed.unwrap_err().kind(),
        std::io::ErrorKind::UnexpectedEof
    );
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_and_others_live() {
    let server = serve(DnsConfig {
        connections_max: 2,
        ..config(Vec::new())
    })
    .await;
    let at = address(&server);
    let one = TcpStream::connect(at).await.unwrap();
    let _two = TcpStream::connect(at).await.unwrap();
    let mut three = TcpStream::connect(at).await.unwrap();
    let ended = within("the end", three.read_u8()).await;
    ended.unwrap_err();
    drop(one);
    let answered = async {
        while dig(at, "+tcp +short hello.default.svc.cluster.local A").await != "10.96.0.20\n" {}
    };
    within("a free place", answered).await;
}

#[tokio::test]
async fn an_announced_giant_ends_the_connection() {
    let server = serve(config(Vec::new())).await;
    let mut stream = TcpStream::connect(address(&server)).await.unwrap();
    stream.write_u16(u16::MAX).await.unwrap();
    within("the end", stream.read_u8()).await.unwrap_err();
}

#[tokio::test]
async fn a_taken_address_and_a_bad_domain_are_named() {
    let server = serve(config(Vec::new())).await;
    let listen = vec![address(&server)];
    let error = DnsServer::bind(DnsConfig {
        listen,
        ..config(Vec::new())
    })
    .await
    .unwrap_err();
    assert!(
        error.to_string().contains(&address(&server).to_string()),
        "{error}"
    );
    let error = DnsServer::bind(DnsConfig::new("a..b")).await.unwrap_err();
    assert!(error.to_string().contains("a..b"), "{error}");
    let at = address(&server);
    server.shutdown().await;
    DnsServer::bind(DnsConfig {
        listen: vec![at],
        ..config(Vec::new())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_was_served_is_in_the_metrics() {
    let server = serve(config(Vec::new())).await;
    let at = address(&server);
    ask(at, "hello.default.svc.cluster.local.", RecordType::A).await;
    ask(at, "nothing.default.svc.cluster.local.", RecordType::A).await;
    let mut registry = prometheus_client::registry::Registry::default();
    server.register_metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for (line, value) in [
        (
            "coredns_dns_requests_total{server=\"dns://:53\",zone=\".\",view=\"\",proto=\"udp\",family=\"1\",type=\"A\"}",
            2,
        ),
        (
            "coredns_dns_responses_total{server=\"dns://:53\",zone=\".\",view=\"\",rcode=\"NXDOMAIN\",plugin=\"kubernetes\"}",
            1,
        ),
        ("skep_dns_snapshot_revision", 1),
    ] {
        assert!(
            text.contains(&format!("{line} {value}\n")),
            "{line}\n{text}"
        );
    }
}
