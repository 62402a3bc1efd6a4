// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Two pods of a node on real veth pairs, with the packet hooks attached and no socket hook: what
//! a test run cannot show - redirection into the peer, offloaded checksums, large segments, and
//! that a socket finds the error meant for it. Needs root, `ip` and the built objects.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../maps/mod.rs"]
mod maps;
mod net;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use aya::programs::{SchedClassifier, TcAttachType};
use ebpf_abi::{
    addr::Addr,
    config::Config,
    endpoint::{Endpoint, LocalPod},
    frontend::Frontend,
};

use crate::{
    maps::{Counters, Maps, load, wide},
    net::Namespace,
};

const VIP4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10));
const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa));
const PORT: u16 = 80;
const TARGET: u16 = 8080;
const SVC: u32 = 1;
const PATIENCE: Duration = Duration::from_secs(10);

/// A pod: its namespace and addresses.
struct Pod {
    namespace: Namespace,
    ip4: IpAddr,
    ip6: IpAddr,
}

impl Pod {
    fn ip(&self, v4: bool) -> IpAddr {
        if v4 { self.ip4 } else { self.ip6 }
    }
}

/// The node: programs attached to both pods' devices. Fields drop in order: the links go first.
struct Node {
    maps: Maps,
    pods: [Pod; 2],
    _host: Namespace,
}

impl Node {
    fn new() -> Self {
        let mut bpf = load("pod", &Config::DEFAULT, &[]);
        for name in ["from_pod", "to_pod"] {
            let program: &mut SchedClassifier = bpf.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap_or_else(|error| panic!("{error:?}"));
        }
        let mut maps = Maps::new(bpf);
        let host = Namespace::new("host");
        host.run(|| {
            for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{path}"), "1").unwrap();
            }
        });
        let pods = [1, 2].map(|index| add_pod(&mut maps, &host, index));
        Self {
            maps,
            pods,
            _host: host,
        }
    }

    /// The service at `PORT` of the VIP, with one backend at `TARGET`.
    fn serve(&mut self, v4: bool, proto: u8, backend: IpAddr) {
        let id = self.maps.add_backend(SVC, backend, TARGET);
        self.maps.publish(SVC, &[id]);
        let frontend = Frontend {
            svc: SVC,
            flags: 0,
            pad: 0,
        };
        self.maps.add_frontend(vip(v4).ip(), PORT, proto, frontend);
    }

    /// All counters, without what depends on timing: how many packets of which size.
    #[track_caller]
    fn check_counted(&mut self, names: &[&str], none: &[&str]) {
        let counters: Counters = self.maps.take_counters();
        for name in names {
            assert!(counters.contains_key(name), "no {name} in {counters:?}");
        }
        for name in none {
            assert!(!counters.contains_key(name), "{name} in {counters:?}");
        }
    }
}

fn vip(v4: bool) -> SocketAddr {
    SocketAddr::new(if v4 { VIP4 } else { VIP6 }, PORT)
}

fn add_pod(maps: &mut Maps, host: &Namespace, index: u8) -> Pod {
    let namespace = Namespace::new(&format!("pod{index}"));
    let (ip4, ip6) = (
        [10, 244, 1, index],
        Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, index.into()),
    );
    let (mac, host_mac) = ([2, 0, 0, 0, index, 1], [2, 0, 0, 0, index, 0]);
    let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let device = format!("pod{index}");
    host.ip(&format!(
        "link add {device} address {} type veth peer name eth0 address {} netns {}",
        text(host_mac),
        text(mac),
        namespace.name
    ));
    host.ip(&format!("link set {device} up"));
    let v4 = IpAddr::from(ip4);
    host.ip(&format!("route add {v4}/32 dev {device}"));
    host.ip(&format!("route add {ip6}/128 dev {device}"));
    namespace.ip("link set eth0 up");
    namespace.ip(&format!("addr add {v4}/32 dev eth0"));
    namespace.ip(&format!("addr add {ip6}/128 dev eth0 nodad"));
    for (gateway, family) in [("169.254.1.1", "-4"), ("fe80::1", "-6")] {
        let lladdr = text(host_mac);
        namespace.ip(&format!(
            "neigh add {gateway} lladdr {lladdr} dev eth0 nud permanent"
        ));
        namespace.ip(&format!("{family} route add {gateway} dev eth0"));
        namespace.ip(&format!(
            "{family} route add default via {gateway} dev eth0"
        ));
    }
    let ifindex = attach(maps, host, &device);
    let endpoint = Endpoint {
        ifindex,
        ip4,
        ip6: ip6.octets(),
        mac,
        host_mac,
        ..Endpoint::default()
    };
    register(maps, index.into(), endpoint, [v4, ip6.into()]);
    Pod {
        namespace,
        ip4: v4,
        ip6: ip6.into(),
    }
}

/// Attaches the programs to a pod's device on the host side; returns its index.
fn attach(maps: &mut Maps, host: &Namespace, device: &str) -> u32 {
    host.run(|| {
        let hooks = [
            ("from_pod", TcAttachType::Ingress),
            ("to_pod", TcAttachType::Egress),
        ];
        for (program, hook) in hooks {
            let program: &mut SchedClassifier =
                maps.bpf.program_mut(program).unwrap().try_into().unwrap();
            program.attach(device, hook).unwrap();
        }
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        rustix::net::netdevice::name_to_index(&socket, device).unwrap()
    })
}

/// Tells the maps of a pod.
fn register(maps: &mut Maps, index: u32, endpoint: Endpoint, addresses: [IpAddr; 2]) {
    maps.array::<Endpoint>("ep")
        .set(index, endpoint, 0)
        .unwrap();
    maps.hash::<u32, u32>("ifx")
        .insert(endpoint.ifindex, index, 0)
        .unwrap();
    let local = LocalPod { ep: index, pad: 0 };
    for ip in addresses {
        maps.hash::<Addr, LocalPod>("local")
            .insert(wide(ip), local, 0)
            .unwrap();
    }
}

/// Serves one connection: sends back what it gets until the client has finished.
fn echo(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    stream.write_all(&all).unwrap();
}

/// Sends `data` to `to` and returns what comes back.
fn exchange(to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), to);
    stream.write_all(data).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    back
}

/// One exchange of `len` bytes from the first pod to `to`, served at `TARGET` in `server`.
fn talk(client: &Pod, server: &Pod, v4: bool, to: SocketAddr, len: usize) {
    let data: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let listener = server
        .namespace
        .run(|| TcpListener::bind((server.ip(v4), TARGET)).unwrap());
    thread::scope(|scope| {
        scope.spawn(|| echo(&listener));
        let back = client.namespace.run(|| exchange(to, &data));
        assert!(
            back == data,
            "{} of {len} bytes came back right",
            back.len()
        );
    });
}

#[test]
fn pods_of_a_node_talk_past_the_stack() {
    for v4 in [true, false] {
        let mut node = Node::new();
        let [client, server] = &node.pods;
        talk(
            client,
            server,
            v4,
            SocketAddr::new(server.ip(v4), TARGET),
            3_000_000,
        );
        node.check_counted(&["from_pod_local"], &["from_pod_stack", "service_forward"]);
    }
}

#[test]
fn a_stream_goes_through_a_service_without_socket_hooks() {
    for v4 in [true, false] {
        let mut node = Node::new();
        let backend = node.pods[1].ip(v4);
        node.serve(v4, 6, backend);
        let [client, server] = &node.pods;
        talk(client, server, v4, vip(v4), 3_000_000);
        node.check_counted(
            &[
                "from_pod_local",
                "service_forward",
                "service_reverse",
                "conntrack_new",
            ],
            &["from_pod_stack"],
        );
        assert_eq!(node.maps.load_of(1).1, 1);
    }
}

#[test]
fn a_pod_talks_to_itself_through_a_service() {
    for v4 in [true, false] {
        let mut node = Node::new();
        let backend = node.pods[0].ip(v4);
        node.serve(v4, 6, backend);
        let pod = &node.pods[0];
        talk(pod, pod, v4, vip(v4), 100_000);
        node.check_counted(&["service_forward", "service_reverse"], &["from_pod_stack"]);
    }
}

#[test]
fn a_datagram_goes_through_a_service_and_back() {
    for v4 in [true, false] {
        let mut node = Node::new();
        let backend = node.pods[1].ip(v4);
        node.serve(v4, 17, backend);
        let [client, server] = &node.pods;
        let socket = server
            .namespace
            .run(|| UdpSocket::bind((backend, TARGET)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let sender = client
            .namespace
            .run(|| UdpSocket::bind((client.ip(v4), 0)).unwrap());
        sender.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 2000];
        for len in [0, 1, 1000, 1400] {
            sender.send_to(&vec![7; len], vip(v4)).unwrap();
            let (got, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!((got, from), (len, sender.local_addr().unwrap()));
            socket.send_to(&buffer[..got], from).unwrap();
            let (got, from) = sender.recv_from(&mut buffer).unwrap();
            assert_eq!((got, from), (len, vip(v4)));
        }
    }
}

#[test]
fn a_refused_datagram_is_reported_to_its_socket() {
    for v4 in [true, false] {
        let mut node = Node::new();
        let backend = node.pods[1].ip(v4);
        node.serve(v4, 17, backend);
        let client = &node.pods[0];
        let socket = client
            .namespace
            .run(|| UdpSocket::bind((client.ip(v4), 0)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        client.namespace.run(|| socket.connect(vip(v4)).unwrap());
        socket.send(b"ping").unwrap();
        let error = socket.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        node.check_counted(&["icmp_translated"], &[]);
    }
}

#[test]
fn a_false_source_reaches_no_pod() {
    let mut node = Node::new();
    let [client, server] = &node.pods;
    client.namespace.ip("addr add 192.0.2.9/32 dev eth0");
    let socket = server
        .namespace
        .run(|| UdpSocket::bind((server.ip4, TARGET)).unwrap());
    client.namespace.run(|| {
        let sender = UdpSocket::bind("192.0.2.9:0").unwrap();
        sender.send_to(b"ping", (server.ip4, TARGET)).unwrap();
    });
    socket.set_nonblocking(true).unwrap();
    assert_eq!(
        socket.recv(&mut [0; 16]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    node.check_counted(&["spoofed_source"], &["from_pod_local"]);
}
