//! Golden questions and answers, and what must hold of every answer.

use hickory_proto::op::{Edns, Message, Query as MessageQuery, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use proptest::prelude::*;

use super::*;
use crate::cluster::{ClusterNames, EndpointNames, PortName, Protocol, ServiceNames};
use crate::config::PodNames;
use crate::wire::TCP_BYTES_MAX;

const GOLDEN: &str = include_str!("golden.txt");
const SOA: &str =
    "ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 5";

fn zone() -> Zone {
    let name = names::absolute("cluster.local").unwrap();
    Zone {
        name,
        ttl_s: 5,
        pod_names: PodNames::Insecure,
    }
}

fn service(
    namespace: &str,
    name: &str,
    ips: &[&str],
    ports: &[(&str, Protocol, u16)],
) -> ServiceNames {
    let port = |(name, protocol, port): &(&str, Protocol, u16)| PortName {
        name: (*name).to_owned(),
        protocol: *protocol,
        port: *port,
    };
    ServiceNames {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        headless: ips.is_empty(),
        ports: ports.iter().map(port).collect(),
        ..ServiceNames::default()
    }
}

fn endpoint(ip: &str, hostname: Option<&str>, ready: bool) -> EndpointNames {
    let hostname = hostname.map(str::to_owned);
    EndpointNames {
        ip: ip.parse().unwrap(),
        hostname,
        ready,
        ports: Vec::new(),
    }
}

fn with(mut service: ServiceNames, endpoints: Vec<EndpointNames>) -> ServiceNames {
    service.endpoints = endpoints;
    service
}

fn alias(name: &str, target: &str) -> ServiceNames {
    let external_name = Some(target.to_owned());
    ServiceNames {
        external_name,
        headless: false,
        ..service("default", name, &[], &[])
    }
}

fn cluster() -> ClusterNames {
    let http = ("http", Protocol::Tcp, 80);
    let hello = service(
        "default",
        "hello",
        &["10.96.0.20"],
        &[http, ("dns", Protocol::Udp, 53)],
    );
    let dual = ["10.96.0.21", "fd00:10:96::21"];
    let web = service("default", "web", &[], &[("http", Protocol::Tcp, 8080)]);
    ClusterNames {
        revision: 3,
        namespaces: vec!["bare".to_owned()],
        services: vec![
            with(
                hello,
                vec![
                    endpoint("10.244.1.5", None, true),
                    endpoint("10.244.2.7", None, false),
                ],
            ),
            service("default", "dual", &dual, &[("", Protocol::Tcp, 443)]),
            service("default", "noports", &["10.96.0.22"], &[]),
            with(
                web,
                vec![
                    endpoint("10.244.1.10", Some("web-0"), true),
                    endpoint("10.244.1.11", Some("web-1"), true),
                    endpoint("10.244.1.12", None, true),
                    endpoint("10.244.1.13", None, false),
                ],
            ),
            with(
                service("default", "six", &[], &[]),
                vec![endpoint("fd00:10:244::5", None, true)],
            ),
            with(
                service("default", "empty", &[], &[http]),
                vec![endpoint("10.9.9.9", None, false)],
            ),
            with(
                service("kube-system", "other", &["10.96.0.30"], &[]),
                vec![endpoint("10.244.1.5", Some("pod"), true)],
            ),
            alias("ext", "www.example.com"),
            alias("extip", "1.2.3.4"),
            service(
                "kube-system",
                "kube-dns",
                &["10.96.0.10"],
                &[("dns", Protocol::Udp, 53)],
            ),
        ],
    }
}

fn question(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::query();
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    message.add_query(MessageQuery::query(name, rtype));
    message
}

struct Asked {
    outcome: Outcome,
    bytes: Vec<u8>,
}

impl Asked {
    fn message(&self) -> Message {
        Message::from_vec(&self.bytes).unwrap()
    }
}

fn ask_with(message: &Message, change: impl FnOnce(&mut Context<'_>)) -> Asked {
    let zone = zone();
    let snapshot = Snapshot::build(&cluster(), &zone, 7);
    let packet = message.to_vec().unwrap();
    let query = Query::parse(&packet).unwrap();
    let limit = query.udp_limit();
    let mut context = Context {
        zone: &zone,
        snapshot: Some(&snapshot),
        forwarding: true,
        rotation: 0,
        limit,
    };
    change(&mut context);
    let mut bytes = Vec::new();
    let outcome = answer(&query, context, &mut bytes);
    Asked { outcome, bytes }
}

fn ask(message: &Message) -> Asked {
    ask_with(message, |_| {})
}

fn described(name: &str, rtype: &str) -> Vec<String> {
    let asked = ask(&question(name, rtype.parse().unwrap()));
    match &asked.outcome {
        Outcome::Forward => return vec!["FORWARD".to_owned()],
        Outcome::Alias(target) => return vec![format!("ALIAS {}", names::text(target))],
        Outcome::Answered(_) => {}
    }
    let message = asked.message();
    let mut lines =
        vec![crate::metrics::rcode_name(message.metadata.response_code.into()).to_owned()];
    if message.metadata.authoritative {
        lines[0].push_str(" aa");
    }
    if message.metadata.truncation {
        lines[0].push_str(" tc");
    }
    let sections = [
        ("an", &message.answers),
        ("ns", &message.authorities),
        ("ar", &message.additionals),
    ];
    for (section, records) in sections {
        for record in records {
            let (name, ttl, rtype) = (&record.name, record.ttl, record.record_type());
            lines.push(format!("{section} {name} {ttl} {rtype} {}", record.data));
        }
    }
    lines
}

#[test]
fn every_golden_question_gets_its_answer() {
    let lines: Vec<_> = GOLDEN
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let mut asked = 0;
    for (at, line) in lines.iter().enumerate() {
        let Some(question) = line.strip_prefix("? ") else {
            continue;
        };
        let (name, rtype) = question.split_once(' ').unwrap();
        let expected: Vec<_> = lines[at + 1..]
            .iter()
            .take_while(|line| !line.starts_with("? "))
            .map(|line| if *line == "soa" { SOA } else { line })
            .collect();
        assert_eq!(described(name, rtype), expected, "{question}");
        asked += 1;
    }
    assert_eq!(
        asked,
        GOLDEN.lines().filter(|line| line.starts_with("? ")).count()
    );
}

#[test]
fn the_question_comes_back_as_it_was_asked() {
    let mut message = question("hElLo.DEFAULT.svc.cluster.LOCAL.", RecordType::A);
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = true;
    let asked = ask(&message);
    let packet = message.to_vec().unwrap();
    assert_eq!(asked.bytes[12..packet.len()], packet[12..]);
    let answer = asked.message().metadata;
    assert_eq!(answer.id, message.metadata.id);
    assert!(answer.recursion_desired && answer.checking_disabled && answer.recursion_available);
    assert!(
        !ask_with(&message, |context| context.forwarding = false)
            .message()
            .metadata
            .recursion_available
    );
}

fn edns(mut message: Message, payload: u16, version: u8) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload)
        .set_version(version)
        .set_dnssec_ok(true);
    message.set_edns(edns);
    message
}

#[test]
fn an_opt_record_is_answered_with_one_and_none_with_none() {
    let plain = question("hello.default.svc.cluster.local.", RecordType::A);
    assert_eq!(ask(&plain).message().edns, None);
    let answered = ask(&edns(plain.clone(), 4096, 0)).message();
    let opt = answered.edns.unwrap();
    assert_eq!(
        (opt.max_payload(), opt.version(), opt.flags().dnssec_ok),
        (1232, 0, true)
    );
    let refused = ask(&edns(plain, 4096, 1)).message();
    // hickory calls 16 BADSIG; in an OPT record it is BADVERS.
    assert_eq!(u16::from(refused.metadata.response_code), rcode::BADVERS);
    assert_eq!(
        (refused.answers.len(), refused.edns.unwrap().version()),
        (0, 0)
    );
}

#[test]
fn other_classes_and_transfers_are_refused() {
    let mut chaos = question("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let transfer = question("cluster.local.", RecordType::AXFR);
    for message in [chaos, transfer] {
        assert_eq!(
            ask(&message).message().metadata.response_code,
            ResponseCode::Refused
        );
    }
}

#[test]
fn without_a_state_of_the_cluster_nothing_is_said_not_to_exist() {
    for (name, forwarding, expected) in [
        (
            "hello.default.svc.cluster.local.",
            true,
            Outcome::Answered(rcode::SERVFAIL),
        ),
        (
            "1.0.96.10.in-addr.arpa.",
            true,
            Outcome::Answered(rcode::SERVFAIL),
        ),
        ("www.example.com.", true, Outcome::Forward),
        (
            "www.example.com.",
            false,
            Outcome::Answered(rcode::SERVFAIL),
        ),
    ] {
        let asked = ask_with(&question(name, RecordType::A), |context| {
            context.snapshot = None;
            context.forwarding = forwarding;
        });
        assert_eq!(asked.outcome, expected, "{name}");
    }
}

#[test]
fn without_upstreams_names_outside_are_refused() {
    for name in ["www.example.com.", "9.9.9.9.in-addr.arpa."] {
        let asked = ask_with(&question(name, RecordType::A), |context| {
            context.forwarding = false
        });
        assert_eq!(asked.outcome, Outcome::Answered(rcode::REFUSED), "{name}");
    }
}

fn many(limit: usize, rotation: usize, edns_payload: Option<u16>, rtype: RecordType) -> Message {
    let zone = zone();
    let endpoints = (0..300)
        .map(|n| endpoint(&format!("10.1.{}.{}", n / 256, n % 256), None, true))
        .collect();
    let many = with(
        service("default", "many", &[], &[("p", Protocol::Tcp, 1)]),
        endpoints,
    );
    let cluster = ClusterNames {
        services: vec![many],
        ..ClusterNames::default()
    };
    let snapshot = Snapshot::build(&cluster, &zone, 7);
    let mut message = question("many.default.svc.cluster.local.", rtype);
    if let Some(payload) = edns_payload {
        message = edns(message, payload, 0);
    }
    let packet = message.to_vec().unwrap();
    let query = Query::parse(&packet).unwrap();
    let context = Context {
        zone: &zone,
        snapshot: Some(&snapshot),
        forwarding: true,
        rotation,
        limit,
    };
    let mut bytes = Vec::new();
    assert_eq!(
        answer(&query, context, &mut bytes),
        Outcome::Answered(rcode::NOERROR)
    );
    assert!(bytes.len() <= limit, "{} > {limit}", bytes.len());
    Message::from_vec(&bytes).unwrap()
}

#[test]
fn what_does_not_fit_is_cut_and_said_to_be() {
    // 12 bytes of header, 36 of question, 16 a record, 11 of OPT.
    for (limit, edns, count) in [
        (512, None, 29),
        (1232, Some(1232), 73),
        (512, Some(512), 28),
    ] {
        let message = many(limit, 0, edns, RecordType::A);
        assert_eq!(
            (message.answers.len(), message.metadata.truncation),
            (count, true)
        );
        assert_eq!(message.edns.is_some(), edns.is_some());
    }
    let whole = many(TCP_BYTES_MAX, 0, None, RecordType::A);
    assert_eq!(
        (whole.answers.len(), whole.metadata.truncation),
        (300, false)
    );
    let services = many(TCP_BYTES_MAX, 0, None, RecordType::SRV);
    assert_eq!(
        (services.answers.len(), services.metadata.truncation),
        (300, false)
    );
    // A pointer reaches 16 KiB; addresses of targets behind that are left out.
    assert!((200..300).contains(&services.additionals.len()));
    let cut = many(512, 0, None, RecordType::SRV);
    assert!(cut.metadata.truncation && !cut.answers.is_empty());
}

#[test]
fn additional_addresses_that_do_not_fit_are_no_truncation() {
    let question = question("_http._tcp.web.default.svc.cluster.local.", RecordType::SRV);
    let whole = ask(&question).bytes.len();
    let message = ask_with(&question, |context| context.limit = whole - 1).message();
    assert_eq!((message.answers.len(), message.additionals.len()), (3, 2));
    assert!(!message.metadata.truncation);
}

#[test]
fn each_answer_begins_with_another_address() {
    let first = |rotation| {
        many(512, rotation, None, RecordType::A).answers[0]
            .data
            .to_string()
    };
    assert_eq!(first(0), "10.1.0.0");
    assert_eq!(first(1), "10.1.0.1");
    assert_eq!(first(299), "10.1.1.43");
    assert_eq!(first(300), "10.1.0.0");
}

#[test]
fn pod_names_can_be_switched_off() {
    let zone = Zone {
        pod_names: PodNames::Disabled,
        ..zone()
    };
    let snapshot = Snapshot::build(&cluster(), &zone, 7);
    assert_eq!(
        snapshot.pod(b"\x071-2-3-4\x07default\x03pod", zone.pod_names),
        None
    );
    assert!(snapshot.get(b"\x07default\x03pod").is_none());
}

#[test]
fn names_that_dns_cannot_hold_are_left_out() {
    let long = "n".repeat(64);
    let services = vec![
        service("default", &long, &["10.96.0.1"], &[]),
        service("", "x", &["10.96.0.2"], &[]),
    ];
    let cluster = ClusterNames {
        services,
        ..ClusterNames::default()
    };
    let snapshot = Snapshot::build(&cluster, &zone(), 7);
    assert!(snapshot.reverse("10.96.0.1".parse().unwrap()).is_empty());
    assert!(snapshot.reverse("10.96.0.2".parse().unwrap()).is_empty());
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "hello",
            "web",
            "web-0",
            "default",
            "svc",
            "pod",
            "cluster",
            "local",
            "_http",
            "_tcp",
            "dns",
            "ns",
            "10-244-1-5",
            "ext",
            "kube-system",
            "in-addr",
            "arpa",
            "10",
            "96",
        ])
        .prop_map(str::to_owned),
        "[a-zA-Z0-9_*-]{1,20}",
    ]
}

proptest! {
    #[test]
    fn every_answer_is_well_formed_and_short_enough(
        labels in prop::collection::vec(label(), 0..7),
        in_zone in any::<bool>(),
        rtype in prop_oneof![
            prop::sample::select(vec![1_u16, 2, 5, 6, 12, 16, 28, 33, 65, 255]), any::<u16>(),
        ],
        payload in prop::option::of(any::<u16>()),
        rotation in any::<usize>(),
    ) {
        let mut name = labels.join(".");
        if in_zone {
            name.push_str(".cluster.local");
        }
        prop_assume!(rtype != 41 && rtype != 250);
        let Ok(mut name) = Name::from_ascii(name.trim_start_matches('.')) else { return Ok(()) };
        name.set_fqdn(true);
        let mut message = Message::query();
        message.add_query(MessageQuery::query(name, RecordType::from(rtype)));
        if let Some(payload) = payload {
            message = edns(message, payload, 0);
        }
        let packet = message.to_vec().unwrap();
        let limit = Query::parse(&packet).unwrap().udp_limit();
        let asked = ask_with(&message, |context| context.rotation = rotation);
        let Outcome::Answered(code) = asked.outcome else { return Ok(()) };
        prop_assert!(asked.bytes.len() <= limit);
        let answer = asked.message();
        prop_assert_eq!(answer.metadata.id, message.metadata.id);
        prop_assert_eq!(u16::from(answer.metadata.response_code), code);
        prop_assert_eq!(&answer.queries, &message.queries);
        let records = answer.answers.len() + answer.authorities.len();
        prop_assert_eq!(code == rcode::REFUSED, records == 0, "an answer or an SOA record");
    }

    #[test]
    fn any_packet_is_answered_or_dropped_without_trouble(
        packet in prop::collection::vec(any::<u8>(), 0..200), header in any::<bool>(),
    ) {
        let mut packet = packet;
        if header {
            // A plausible header gets more packets past the first checks.
            let head = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            packet.splice(0..packet.len().min(12), head);
        }
        let zone = zone();
        let snapshot = Snapshot::build(&cluster(), &zone, 7);
        if let Ok(query) = Query::parse(&packet) {
            let limit = query.udp_limit();
            let context = Context {
                zone: &zone, snapshot: Some(&snapshot), forwarding: true, rotation: 1, limit,
            };
            let mut bytes = Vec::new();
            if let Outcome::Answered(_) = answer(&query, context, &mut bytes) {
                prop_assert!(Message::from_vec(&bytes).is_ok());
            }
        }
    }
}
