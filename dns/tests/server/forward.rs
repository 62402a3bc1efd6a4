//! Names outside the cluster: forwarding, cache, stale answers, aliases, loops.

use std::net::SocketAddr;
use std::time::Duration;

use dns::{DnsConfig, StubDomain};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::upstream::Upstream;
use crate::{address, ask, config, data, dig, serve, within};

#[tokio::test]
async fn an_answer_from_upstream_is_given_and_kept() {
    let upstream = Upstream::start().await;
    let server = serve(config(vec![upstream.address])).await;
    let at = address(&server);
    assert_eq!(dig(at, "+short WWW.Example.com A").await, "192.0.2.1\n");
    let answer = ask(at, "www.example.com.", RecordType::A).await;
    assert_eq!(data(&answer), ["A 192.0.2.1"]);
    assert!(
        answer.answers[0].ttl <= 30,
        "kept no longer than configured"
    );
    assert!(answer.metadata.recursion_available && !answer.metadata.authoritative);
    assert_eq!(upstream.asked("www.example.com."), 1, "whatever its case");
    let chain = ask(at, "chain.example.com.", RecordType::A).await;
    assert_eq!(data(&chain), ["CNAME www.example.com.", "A 192.0.2.1"]);
}

#[tokio::test]
async fn answers_that_there_is_nothing_are_kept_too() {
    let upstream = Upstream::start().await;
    let server = serve(config(vec![upstream.address])).await;
    for _ in 0..3 {
        let answer = ask(address(&server), "none.example.com.", RecordType::A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(answer.authorities.len(), 1);
        let answer = ask(address(&server), "www.example.com.", RecordType::AAAA).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert_eq!((answer.answers.len(), answer.authorities.len()), (0, 1));
    }
    assert_eq!(
        (
            upstream.asked("none.example.com."),
            upstream.asked("www.example.com.")
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn many_clients_with_one_question_are_one_question_upstream() {
    let upstream = Upstream::start().await;
    upstream.silent(true);
    let server = serve(config(vec![upstream.address])).await;
    let at = address(&server);
    let mut clients = JoinSet::new();
    for _ in 0..50 {
        clients.spawn(ask(at, "www.example.com.", RecordType::A));
    }
    let asked = async {
        while upstream.asked("www.example.com.") == 0 {
            tokio::task::yield_now().await;
        }
    };
    within("the question upstream", asked).await;
    upstream.silent(false);
    while let Some(answer) = within("an answer", clients.join_next()).await {
        assert_eq!(data(&answer.unwrap()), ["A 192.0.2.1"]);
    }
    // The first is lost, the second after a timeout is answered.
    assert_eq!(upstream.asked("www.example.com."), 2);
}

#[tokio::test]
async fn a_cut_answer_and_one_in_another_case_are_fetched_over_tcp() {
    let upstream = Upstream::start().await;
    let server = serve(config(vec![upstream.address])).await;
    for (n, name) in ["cut.example.com.", "lower.example.com."]
        .into_iter()
        .enumerate()
    {
        assert_eq!(
            data(&ask(address(&server), name, RecordType::A).await),
            ["A 192.0.2.1"]
        );
        assert_eq!(upstream.asked_over_tcp(), n + 1, "{name}");
    }
}

#[tokio::test]
async fn a_spoofed_answer_is_not_believed() {
    let upstream = Upstream::start().await;
    let server = serve(config(vec![upstream.address])).await;
    let answer = ask(address(&server), "spoofed.example.com.", RecordType::A).await;
    assert_eq!(data(&answer), ["A 192.0.2.1"]);
}

#[tokio::test]
async fn a_dead_upstream_is_servfail_in_time_and_cluster_names_do_not_wait() {
    let upstream = Upstream::start().await;
    upstream.silent(true);
    let server = serve(config(vec![upstream.address])).await;
    let at = address(&server);
    let began = Instant::now();
    let dead = tokio::spawn(ask(at, "www.example.com.", RecordType::A));
    let hello = ask(at, "hello.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(data(&hello), ["A 10.96.0.20"]);
    assert!(began.elapsed() < Duration::from_secs(1));
    let answer = dead.await.unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    let began = Instant::now();
    let again = ask(at, "www.example.com.", RecordType::A).await;
    assert_eq!(again.metadata.response_code, ResponseCode::ServFail);
    assert!(
        began.elapsed() < Duration::from_millis(500),
        "the failure is kept for a moment"
    );
}

#[tokio::test]
async fn the_second_upstream_answers_when_the_first_cannot() {
    let (failing, silent, good) = (
        Upstream::start().await,
        Upstream::start().await,
        Upstream::start().await,
    );
    failing.failing(true);
    silent.silent(true);
    let closed: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let upstreams = vec![failing.address, silent.address, closed, good.address];
    let server = serve(config(upstreams)).await;
    for n in 0..8 {
        let name = format!("n{n}.example.com.");
        assert_eq!(
            data(&ask(address(&server), &name, RecordType::A).await),
            ["A 192.0.2.1"]
        );
    }
}

#[tokio::test]
async fn an_answer_out_of_date_is_better_than_none() {
    let upstream = Upstream::start().await;
    let server = serve(config(vec![upstream.address])).await;
    let at = address(&server);
    let fresh = ask(at, "short.example.com.", RecordType::A).await;
    assert_eq!(
        (data(&fresh), fresh.answers[0].ttl),
        (vec!["A 192.0.2.1".to_owned()], 1)
    );
    upstream.silent(true);
    // Its time is one second; then every answer is stale.
    let stale = async {
        loop {
            let answer = ask(at, "short.example.com.", RecordType::A).await;
            assert_eq!(data(&answer), ["A 192.0.2.1"]);
            if answer.answers[0].ttl == 30 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("a stale answer", stale).await;
    let began = Instant::now();
    let answer = ask(at, "short.example.com.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(
        began.elapsed() < Duration::from_millis(700),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn an_alias_is_followed_in_the_cluster_and_outside() {
    let upstream = Upstream::start().await;
    let server = serve(config(vec![upstream.address])).await;
    let at = address(&server);
    let zone = |name: &str| format!("{name}.default.svc.cluster.local.");
    for (name, rtype, rcode, expected) in [
        (
            "ext",
            RecordType::A,
            ResponseCode::NoError,
            vec!["CNAME www.example.com.", "A 192.0.2.1"],
        ),
        (
            "ext",
            RecordType::AAAA,
            ResponseCode::NoError,
            vec!["CNAME www.example.com."],
        ),
        (
            "gone",
            RecordType::A,
            ResponseCode::NXDomain,
            vec!["CNAME none.example.com."],
        ),
        (
            "inner",
            RecordType::A,
            ResponseCode::NoError,
            vec![
                "CNAME ext.default.svc.cluster.local.",
                "CNAME www.example.com.",
                "A 192.0.2.1",
            ],
        ),
        (
            "hop",
            RecordType::A,
            ResponseCode::NoError,
            vec!["CNAME hello.default.svc.cluster.local.", "A 10.96.0.20"],
        ),
        (
            "hop",
            RecordType::AAAA,
            ResponseCode::NoError,
            vec!["CNAME hello.default.svc.cluster.local."],
        ),
        ("ring", RecordType::A, ResponseCode::ServFail, vec![]),
    ] {
        let answer = ask(at, &zone(name), rtype).await;
        assert_eq!(data(&answer), expected, "{name} {rtype}");
        assert_eq!(answer.metadata.response_code, rcode, "{name} {rtype}");
        let negative = !answer
            .answers
            .iter()
            .any(|record| record.record_type() == rtype);
        let soa = usize::from(negative && rcode != ResponseCode::ServFail);
        assert_eq!(answer.authorities.len(), soa, "{name} {rtype}");
    }
}

#[tokio::test]
async fn a_stub_domain_has_servers_of_its_own() {
    let (default, stub) = (Upstream::start().await, Upstream::start().await);
    let stub_domains = vec![StubDomain {
        domain: "corp.example.com".to_owned(),
        upstreams: vec![stub.address],
    }];
    let server = serve(DnsConfig {
        stub_domains,
        ..config(vec![default.address])
    })
    .await;
    let at = address(&server);
    for name in [
        "a.corp.example.com.",
        "corp.example.com.",
        "notcorp.example.com.",
    ] {
        assert_eq!(data(&ask(at, name, RecordType::A).await), ["A 192.0.2.1"]);
    }
    assert_eq!(
        (
            stub.asked("a.corp.example.com."),
            stub.asked("corp.example.com.")
        ),
        (1, 1)
    );
    assert_eq!(
        (
            stub.asked("notcorp.example.com."),
            default.asked("notcorp.example.com.")
        ),
        (0, 1)
    );
}

#[tokio::test]
async fn questions_beyond_the_bound_are_refused_at_once() {
    let upstream = Upstream::start().await;
    upstream.silent(true);
    let server = serve(DnsConfig {
        forwards_max: 3,
        ..config(vec![upstream.address])
    })
    .await;
    let at = address(&server);
    let mut clients = JoinSet::new();
    for n in 0..10 {
        clients.spawn(async move { ask(at, &format!("n{n}.example.com."), RecordType::A).await });
    }
    let mut codes = Vec::new();
    while let Some(answer) = within("an answer", clients.join_next()).await {
        codes.push(answer.unwrap().metadata.response_code);
    }
    let count = |code| codes.iter().filter(|found| **found == code).count();
    assert_eq!(
        (count(ResponseCode::Refused), count(ResponseCode::ServFail)),
        (7, 3)
    );
    let hello = ask(at, "hello.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(data(&hello), ["A 10.96.0.20"]);
}

#[tokio::test]
async fn an_upstream_that_is_this_server_is_found_and_not_asked() {
    // A port that is free now; taken by nobody between here and the server with any likelihood.
    let free = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = free.local_addr().unwrap();
    drop(free);
    let server = serve(DnsConfig {
        listen: vec![at],
        ..config(vec![at])
    })
    .await;
    let mut n = 0;
    let quick = async {
        loop {
            let began = Instant::now();
            n += 1;
            let answer = ask(
                address(&server),
                &format!("n{n}.example.com."),
                RecordType::A,
            )
            .await;
            assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
            if began.elapsed() < Duration::from_millis(300) {
                return;
            }
        }
    };
    within("the loop is found", quick).await;
    let hello = ask(at, "hello.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(data(&hello), ["A 10.96.0.20"]);
}
