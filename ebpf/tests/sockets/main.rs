// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Sockets under the loaded hooks: real connections over loopback to addresses that exist only as
//! services. Needs root, cgroup2 and the built objects.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod cgroup;
#[path = "../maps/mod.rs"]
mod maps;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    ops::{Deref, DerefMut},
    time::Duration,
};

use aya::programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr};
use ebpf_abi::{
    config::Config,
    frontend::{FE_WILDCARD, Frontend},
    program::{Hook, OBJECT_SOCK, PROGRAMS},
    service::{BE_TERMINATING, SVC_AFFINITY},
};

use crate::{
    cgroup::ThreadCgroup,
    maps::{Counters, Maps, load},
};

const SVC: u32 = 1;
const PORT: u16 = 80;
const TCP: u8 = 6;
const UDP: u8 = 17;
const PATIENCE: Duration = Duration::from_secs(10);

const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));
const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa));
const HERE4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const HERE6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

const FAMILIES: [(IpAddr, IpAddr); 2] = [(VIP4, HERE4), (VIP6, HERE6)];

/// Hooks on this thread's sockets. Fields drop in order: the links first, then the cgroup.
struct Hooks {
    maps: Maps,
    _cgroup: ThreadCgroup,
}

impl Deref for Hooks {
    type Target = Maps;

    fn deref(&self) -> &Maps {
        &self.maps
    }
}

impl DerefMut for Hooks {
    fn deref_mut(&mut self) -> &mut Maps {
        &mut self.maps
    }
}

impl Hooks {
    fn new() -> Self {
        let mut bpf = load(OBJECT_SOCK, &Config::DEFAULT, &[]);
        let cgroup = ThreadCgroup::enter();
        for spec in PROGRAMS.iter().filter(|spec| spec.object == OBJECT_SOCK) {
            let program = bpf.program_mut(spec.name).unwrap();
            if spec.hook == Hook::CgroupSockRelease {
                let program: &mut CgroupSock = program.try_into().unwrap();
                program
                    .load()
                    .unwrap_or_else(|error| panic!("{}: {error:?}", spec.name));
                program
                    .attach(cgroup.open(), CgroupAttachMode::Single)
                    .unwrap();
            } else {
                let program: &mut CgroupSockAddr = program.try_into().unwrap();
                program
                    .load()
                    .unwrap_or_else(|error| panic!("{}: {error:?}", spec.name));
                program
                    .attach(cgroup.open(), CgroupAttachMode::Single)
                    .unwrap();
            }
        }
        Self {
            maps: Maps::new(bpf),
            _cgroup: cgroup,
        }
    }

    /// Service `svc` at (vip, port) with the given backends; returns their ids.
    fn add_service(
        &mut self,
        svc: u32,
        vip: SocketAddr,
        proto: u8,
        backends: &[SocketAddr],
    ) -> Vec<u32> {
        let ids: Vec<u32> = backends
            .iter()
            .map(|at| self.add_backend(svc, at.ip(), at.port()))
            .collect();
        self.publish(svc, &ids);
        self.add_frontend(
            vip.ip(),
            vip.port(),
            proto,
            Frontend {
                svc,
                flags: 0,
                pad: 0,
            },
        );
        let wildcard = Frontend {
            svc: 0,
            flags: FE_WILDCARD,
            pad: 0,
        };
        self.add_frontend(vip.ip(), 0, 0, wildcard);
        ids
    }
}

fn listener(here: IpAddr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((here, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

fn datagrams(here: IpAddr) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((here, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let at = socket.local_addr().unwrap();
    (socket, at)
}

/// Answers one datagram with "pong".
fn answer_one(server: &UdpSocket) {
    let mut buffer = [0; 16];
    let (len, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"ping");
    server.send_to(b"pong", from).unwrap();
}

#[test]
fn a_connection_reaches_a_backend_and_shows_the_service() {
    for (vip, here) in FAMILIES {
        let mut hooks = Hooks::new();
        let (server, at) = listener(here);
        let service = SocketAddr::new(vip, PORT);
        hooks.add_service(SVC, service, TCP, &[at]);
        let mut client = TcpStream::connect(service).unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        client.write_all(b"ping").unwrap();
        let mut buffer = [0; 4];
        accepted.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"ping");
        assert_eq!(
            client.peer_addr().unwrap(),
            service,
            "getpeername shows the VIP"
        );
        assert_eq!(hooks.load_of(1), (1, 1));
        drop(client);
        assert_eq!(hooks.load_of(1), (0, 1), "counted until it is closed");
        let expected = [
            ("socket_connect", (1, 0)),
            ("socket_peer_name", (1, 0)),
            ("socket_release", (1, 0)),
        ];
        assert_eq!(hooks.take_counters(), Counters::from(expected));
    }
}

#[test]
fn an_ipv4_service_is_reached_from_an_ipv6_socket() {
    let mut hooks = Hooks::new();
    let (server, at) = listener(HERE4);
    hooks.add_service(SVC, SocketAddr::new(VIP4, PORT), TCP, &[at]);
    let IpAddr::V4(vip) = VIP4 else {
        unreachable!("an IPv4 address")
    };
    let mapped = SocketAddr::new(vip.to_ipv6_mapped().into(), PORT);
    let client = TcpStream::connect(mapped).unwrap();
    server.accept().unwrap();
    assert_eq!(client.peer_addr().unwrap(), mapped);
    assert_eq!(hooks.load_of(1), (1, 1));
}

#[test]
fn a_connection_elsewhere_is_left_alone() {
    for (vip, here) in FAMILIES {
        let mut hooks = Hooks::new();
        hooks.add_service(SVC, SocketAddr::new(vip, PORT), TCP, &[]);
        let (_server, at) = listener(here);
        let client = TcpStream::connect(at).unwrap();
        assert_eq!(client.peer_addr().unwrap(), at);
        drop(client);
        assert_eq!(hooks.take_counters(), Counters::new());
    }
}

#[test]
fn a_service_without_backends_refuses_at_once() {
    for (vip, _) in FAMILIES {
        let mut hooks = Hooks::new();
        let service = SocketAddr::new(vip, PORT);
        hooks.add_service(SVC, service, TCP, &[]);
        let error = TcpStream::connect(service).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        assert_eq!(
            hooks.take_counters(),
            Counters::from([("no_backend", (1, 0))])
        );
    }
}

#[test]
fn an_unknown_port_of_a_service_refuses_at_once() {
    for (vip, here) in FAMILIES {
        let mut hooks = Hooks::new();
        let (_server, at) = listener(here);
        hooks.add_service(SVC, SocketAddr::new(vip, PORT), TCP, &[at]);
        let error = TcpStream::connect((vip, PORT + 1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        let socket = UdpSocket::bind((here, 0)).unwrap();
        let error = socket.send_to(b"ping", (vip, PORT)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        assert_eq!(
            hooks.take_counters(),
            Counters::from([("unknown_port", (2, 0))])
        );
    }
}

#[test]
fn a_connected_datagram_socket_talks_to_the_service() {
    for (vip, here) in FAMILIES {
        let mut hooks = Hooks::new();
        let (server, at) = datagrams(here);
        let service = SocketAddr::new(vip, PORT);
        hooks.add_service(SVC, service, UDP, &[at]);
        let (client, _) = datagrams(here);
        client.connect(service).unwrap();
        client.send(b"ping").unwrap();
        answer_one(&server);
        let mut buffer = [0; 16];
        let (len, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from), (b"pong".as_slice(), service));
        assert_eq!(client.peer_addr().unwrap(), service);
        assert_eq!(hooks.load_of(1), (1, 1));
        client.connect(at).unwrap();
        assert_eq!(
            client.peer_addr().unwrap(),
            at,
            "connected elsewhere, it is forgotten"
        );
        assert_eq!(hooks.load_of(1), (0, 1));
    }
}

#[test]
fn a_datagram_s_answer_comes_from_the_service_it_went_to() {
    for (vip, here) in FAMILIES {
        let mut hooks = Hooks::new();
        let (servers, services): (Vec<_>, Vec<_>) = [PORT, PORT + 1]
            .into_iter()
            .zip([1, 2])
            .map(|(port, svc)| {
                let (server, at) = datagrams(here);
                let service = SocketAddr::new(vip, port);
                hooks.add_service(svc, service, UDP, &[at]);
                (server, service)
            })
            .unzip();
        let (client, _) = datagrams(here);
        for _ in 0..3 {
            for (server, service) in servers.iter().zip(&services) {
                client.send_to(b"ping", service).unwrap();
                answer_one(server);
                let mut buffer = [0; 16];
                let (len, from) = client.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..len], from), (b"pong".as_slice(), *service));
            }
        }
        let expected = [("socket_receive", (6, 0)), ("socket_send", (6, 0))];
        assert_eq!(hooks.take_counters(), Counters::from(expected));
    }
}

#[test]
fn a_datagram_from_elsewhere_shows_where_it_comes_from() {
    for (vip, here) in FAMILIES {
        let mut hooks = Hooks::new();
        let (_server, at) = datagrams(here);
        let service = SocketAddr::new(vip, PORT);
        hooks.add_service(SVC, service, UDP, &[at]);
        let (client, client_at) = datagrams(here);
        client.send_to(b"ping", service).unwrap();
        let (other, other_at) = datagrams(here);
        other.send_to(b"hello", client_at).unwrap();
        let mut buffer = [0; 16];
        let (_, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(from, other_at);
    }
}

#[test]
fn a_datagram_socket_stays_with_its_backend_until_that_leaves() {
    let mut hooks = Hooks::new();
    let (one, two) = (datagrams(HERE4), datagrams(HERE4));
    let service = SocketAddr::new(VIP4, PORT);
    let ids = hooks.add_service(SVC, service, UDP, &[one.1, two.1]);
    let (client, _) = datagrams(HERE4);
    client.send_to(b"ping", service).unwrap();
    for socket in [&one.0, &two.0] {
        socket.set_nonblocking(true).unwrap();
    }
    let mut buffer = [0; 16];
    let first_took_it = one.0.recv_from(&mut buffer).is_ok();
    let (keeper, other) = if first_took_it {
        (&one.0, &two.0)
    } else {
        (&two.0, &one.0)
    };
    if !first_took_it {
        two.0.recv_from(&mut buffer).unwrap();
    }
    for _ in 0..20 {
        client.send_to(b"ping", service).unwrap();
        keeper.recv_from(&mut buffer).unwrap();
    }
    assert_eq!(
        other.recv_from(&mut buffer).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    let (leaver, stayer) = if first_took_it {
        (ids[0], ids[1])
    } else {
        (ids[1], ids[0])
    };
    hooks.publish(SVC, &[stayer]);
    let mut backend = hooks.backend(leaver);
    backend.state = BE_TERMINATING;
    hooks.set_backend(leaver, backend);
    client.send_to(b"ping", service).unwrap();
    other.recv_from(&mut buffer).unwrap();
}

#[test]
fn connections_spread_over_all_backends_and_are_counted_exactly() {
    let mut hooks = Hooks::new();
    let (_one, one_at) = listener(HERE4);
    let (_two, two_at) = listener(HERE4);
    let service = SocketAddr::new(VIP4, PORT);
    hooks.add_service(SVC, service, TCP, &[one_at, two_at]);
    let clients: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(service).unwrap())
        .collect();
    let (one, two) = (hooks.load_of(1), hooks.load_of(2));
    // Fewer than 15 of 100 fair draws: less than once in 10^13.
    assert!(
        one.0 + two.0 == 100 && one.0 >= 15 && two.0 >= 15,
        "{one:?} and {two:?}"
    );
    drop(clients);
    assert_eq!((hooks.load_of(1).0, hooks.load_of(2).0), (0, 0));
}

#[test]
fn affinity_keeps_a_namespace_at_one_backend() {
    let mut hooks = Hooks::new();
    let (_one, one_at) = listener(HERE4);
    let (_two, two_at) = listener(HERE4);
    let service = SocketAddr::new(VIP4, PORT);
    hooks.add_service(SVC, service, TCP, &[one_at, two_at]);
    hooks.edit_service(SVC, |service| {
        service.flags = SVC_AFFINITY;
        service.affinity_s = 3600;
    });
    for _ in 0..40 {
        TcpStream::connect(service).unwrap();
    }
    let opened = [hooks.load_of(1).1, hooks.load_of(2).1];
    assert!(opened == [40, 0] || opened == [0, 40], "{opened:?}");
    assert_eq!(hooks.take_counters().get("affinity"), Some(&(39, 0)));
}

#[test]
fn terminating_backends_take_connections_when_no_other_is_left() {
    let mut hooks = Hooks::new();
    let (_server, at) = listener(HERE4);
    let service = SocketAddr::new(VIP4, PORT);
    hooks.add_service(SVC, service, TCP, &[at]);
    hooks.edit_service(SVC, |service| {
        service.terminating_head = service.head;
        service.head = 0;
    });
    TcpStream::connect(service).unwrap();
    assert_eq!(
        hooks.take_counters().get("terminating_fallback"),
        Some(&(1, 0))
    );
}
