//! The datapath in this kernel: pins, adoption, swaps, pods, routes, inspection.
//!
//! Needs root and the BPF objects; without either it says so and passes nothing on. Each test has
//! its own mount and network namespace, BPF file system and cgroup, so nothing is left behind and
//! nothing of the machine is touched.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test's own steps; what is not run is said"
)]

#[path = "kernel/devices.rs"]
mod devices;
#[path = "kernel/sandbox.rs"]
mod sandbox;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use node_agent_datapath::abi::frontend::Frontend;
use node_agent_datapath::abi::service::{BE_ACTIVE, Backend, Head, Service, Slot};
use node_agent_datapath::inspect::{Inspector, ProgramView, Query};
use node_agent_datapath::maps::kernel::KernelServiceMaps;
use node_agent_datapath::maps::{
    FrontendKey, HeadKind, IpProtocol, ReadServiceMaps as _, ServiceMaps as _, to_addr,
};
use node_agent_datapath::pods::{
    Delivery, MacAddress, NodeRoute, PodAttachment, PodDatapath as _, PodRange, Removal,
    RouteDatapath as _, SourceCheck, Via,
};
use node_agent_datapath::{Datapath, DatapathConfig, PinsError, StartError};

use devices::{delete_link, run, veth};
use sandbox::Sandbox;

/// Starts again in a process that has just given the lock up: a command that another test starts at
/// this very moment holds a copy of the lock's descriptor until its exec.
fn start_again(config: &DatapathConfig) -> Datapath {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Datapath::start(config) {
            Err(StartError::Pins(PinsError::Locked { .. })) if Instant::now() < deadline => {
                std::thread::yield_now();
            }
            result => return result.unwrap(),
        }
    }
}

fn pod(ifindex: u32, last: u8) -> PodAttachment {
    PodAttachment {
        ifindex,
        ipv4: Some(Ipv4Addr::new(10, 244, 1, last)),
        ipv6: None,
        mac: MacAddress([2, 0, 0, 0, 0, last]),
        host_mac: MacAddress([2, 0, 0, 0, 1, last]),
        netns_cookie: 0,
        source_check: SourceCheck::Own,
        delivery: Delivery::Redirect,
    }
}

#[test]
fn a_second_agent_adopts_maps_links_and_pods_and_the_first_must_be_gone() {
    let Some(sandbox) = Sandbox::enter("adopt") else {
        return;
    };
    let config = sandbox.config();
    let first = Datapath::start(&config).unwrap();
    assert_eq!(first.report().maps_adopted, 0);
    assert_eq!(first.report().links_created, 9, "one a socket program");
    let ifindex = veth("pod1");
    let attached = first.pods().attach_pod(&pod(ifindex, 2)).unwrap();
    let Err(StartError::Pins(error)) = Datapath::start(&config) else {
        panic!("two writers");
    };
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    let before = Inspector::open(&config.bpffs)
        .unwrap()
        .attachments()
        .unwrap();
    drop(first);

    let second = start_again(&config);
    let report = second.report();
    assert_eq!(
        report.maps_adopted,
        node_agent_datapath::abi::map::MAPS.len()
    );
    assert_eq!((report.links_swapped, report.links_created), (9, 0));
    assert_eq!((report.pods_adopted, report.writer_generation), (1, 2));
    assert_eq!(second.pods().list_pods().unwrap(), [attached]);
    let after = Inspector::open(&config.bpffs)
        .unwrap()
        .attachments()
        .unwrap();
    let links = |views: &[node_agent_datapath::inspect::AttachmentView]| {
        views.iter().map(|view| view.link_id).collect::<Vec<_>>()
    };
    assert_eq!(links(&before), links(&after), "the links are the same ones");
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(before, after)| before.program_id != after.program_id),
        "with new programs"
    );
    second.remove().unwrap();
    Inspector::open(&config.bpffs).unwrap_err();
}

#[test]
fn pods_come_and_go_and_a_device_that_vanished_does_no_harm() {
    let Some(sandbox) = Sandbox::enter("pods") else {
        return;
    };
    let config = sandbox.config();
    let datapath = Datapath::start(&config).unwrap();
    let pods = datapath.pods();
    let (one, two) = (veth("pod1"), veth("pod2"));
    pods.attach_pod(&pod(one, 2)).unwrap();
    pods.attach_pod(&pod(two, 3)).unwrap();
    // The second takes the first's address over, as after a quick restart of a pod.
    delete_link("pod1");
    let moved = pods.attach_pod(&pod(two, 2)).unwrap();
    assert_eq!(pods.detach_pod(one).unwrap(), Removal::Removed);
    assert_eq!(pods.detach_pod(one).unwrap(), Removal::WasAbsent);
    assert_eq!(pods.list_pods().unwrap(), std::slice::from_ref(&moved));
    let inspector = Inspector::open(&config.bpffs).unwrap();
    let local = inspector.dump("local").unwrap();
    let addresses: Vec<_> = local
        .elements
        .iter()
        .map(|element| element.key["address"].clone())
        .collect();
    assert_eq!(addresses, ["10.244.1.2"]);
    drop((pods, datapath));

    // The agent is restarted after the device has gone.
    delete_link("pod2");
    let datapath = start_again(&config);
    assert_eq!(datapath.report().pods_adopted, 0);
    assert_eq!(datapath.pods().list_pods().unwrap(), [moved]);
    assert_eq!(datapath.pods().detach_pod(two).unwrap(), Removal::Removed);
    assert_eq!(datapath.pods().list_pods().unwrap(), []);
    datapath.remove().unwrap();
}

#[test]
fn a_kernel_without_tcx_gets_a_clsact_filter_that_is_replaced_in_place() {
    let Some(sandbox) = Sandbox::enter("clsact") else {
        return;
    };
    let mut config = sandbox.config();
    config.device_hook = node_agent_datapath::config::DeviceHook::Clsact;
    let ifindex = veth("pod1");
    for _start in 0..2 {
        let datapath = start_again(&config);
        datapath.pods().attach_pod(&pod(ifindex, 2)).unwrap();
        drop(datapath);
        for (direction, program) in [("ingress", "from_pod"), ("egress", "to_pod")] {
            let filters = run(&["tc", "filter", "show", "dev", "pod1", direction]);
            let ours = format!("{program} direct-action");
            assert_eq!(filters.matches(&ours).count(), 1, "{filters}");
        }
    }
    let datapath = start_again(&config);
    datapath.pods().detach_pod(ifindex).unwrap();
    let filters = run(&["tc", "filter", "show", "dev", "pod1", "ingress"]);
    assert_eq!(filters.matches("from_pod").count(), 0, "{filters}");
    datapath.remove().unwrap();
}

#[test]
fn routes_are_kept_by_prefix() {
    let Some(sandbox) = Sandbox::enter("routes") else {
        return;
    };
    let datapath = Datapath::start(&sandbox.config()).unwrap();
    let pods = datapath.pods();
    let range = |address: &str, length| PodRange {
        address: address.parse().unwrap(),
        length,
    };
    let node = |address: &str, via| NodeRoute {
        node: address.parse().unwrap(),
        via,
    };
    let direct = node("10.88.0.12", Via::Neighbour { ifindex: 4 });
    pods.set_route(range("10.244.2.0", 24), direct).unwrap();
    pods.set_route(range("fd00:10:244:2::", 64), node("fd00::12", Via::Stack))
        .unwrap();
    pods.set_route(range("10.244.2.0", 24), direct).unwrap();
    assert_eq!(pods.list_routes().unwrap().len(), 2);
    assert_eq!(
        pods.list_routes().unwrap()[0],
        (range("10.244.2.0", 24), direct)
    );
    assert_eq!(
        pods.remove_route(range("10.244.2.0", 24)).unwrap(),
        Removal::Removed
    );
    assert_eq!(
        pods.remove_route(range("10.244.2.0", 24)).unwrap(),
        Removal::WasAbsent
    );
    datapath.remove().unwrap();
}

fn key(address: &str) -> FrontendKey {
    FrontendKey {
        address: address.parse::<IpAddr>().unwrap(),
        port: 80,
        protocol: IpProtocol::TCP,
    }
}

/// A service with a frontend of either family and one backend.
fn publish(maps: &mut KernelServiceMaps) {
    let backend = Backend {
        addr: to_addr("10.244.1.2".parse().unwrap()),
        port: 8080_u16.to_be_bytes(),
        state: BE_ACTIVE,
        svc: 5,
        ..Backend::default()
    };
    maps.write_backend(3, &backend).unwrap();
    let slot = Slot {
        backend: 3,
        ..Slot::default()
    };
    maps.write_slots(7, &[slot]).unwrap();
    maps.write_service(5, &Service::default()).unwrap();
    let head = Head {
        base: 7,
        len: 1,
        generation: 1,
    };
    maps.publish(5, HeadKind::Ready, head).unwrap();
    maps.set_options(5, 1, 30).unwrap();
    let value = Frontend {
        svc: 5,
        ..Frontend::default()
    };
    let entries = KEYS.map(|address| (key(address), value));
    maps.insert_frontends(&entries).unwrap();
    maps.set_applied_revision(42).unwrap();
}

const KEYS: [&str; 2] = ["10.96.0.7", "fd00:10:96::7"];

#[test]
fn what_the_proxy_writes_is_what_inspection_reads_without_an_agent() {
    let Some(sandbox) = Sandbox::enter("inspect") else {
        return;
    };
    let config = sandbox.config();
    let datapath = Datapath::start(&config).unwrap();
    let mut maps = datapath.service_maps().unwrap();
    publish(&mut maps);
    assert_eq!(maps.service(5).unwrap().affinity_s, 30);
    drop((maps, datapath));

    let inspector = Inspector::open(&config.bpffs).unwrap();
    let view = inspector.load_balancer().unwrap();
    assert_eq!(
        node_agent_datapath::maps::dump::text(&view),
        "10.96.0.7:80/TCP cluster-ip affinity=30s ready=10.244.1.2:8080\n\
         [fd00:10:96::7]:80/TCP cluster-ip affinity=30s ready=10.244.1.2:8080\n"
    );
    assert_eq!(inspector.writer().unwrap().applied_revision, 42);
    let programs = inspector.programs().unwrap();
    assert_eq!(
        programs.len(),
        node_agent_datapath::abi::program::PROGRAMS.len()
    );
    let verified = |program: &ProgramView| program.verified_instructions > 0;
    assert!(programs.iter().all(verified), "{programs:?}");
    let maps = inspector.maps().unwrap();
    let used = maps.into_iter().find(|map| map.name == "svc").unwrap();
    assert_eq!(used.used, Some(1));
    for query in [Query::Maps, Query::Flows, Query::Counters, Query::Pods] {
        assert!(!inspector.document(&query).unwrap().is_empty());
    }
}

#[test]
fn deleting_steps_over_absent_frontends_and_a_heartbeat_is_seen() {
    let Some(sandbox) = Sandbox::enter("delete") else {
        return;
    };
    let config = sandbox.config();
    let datapath = Datapath::start(&config).unwrap();
    let mut maps = datapath.service_maps().unwrap();
    publish(&mut maps);
    let keys = [key(KEYS[0]), key("10.96.0.99"), key(KEYS[1])];
    maps.remove_frontends(&keys).unwrap();
    assert_eq!(maps.frontends().unwrap(), []);
    datapath.heartbeat();
    let inspector = Inspector::open(&config.bpffs).unwrap();
    let silent = inspector.writer().unwrap().silent_ms.unwrap();
    assert!(silent < 10_000, "{silent} ms since the heartbeat");
    let [v4, v6] = datapath.collect_flows().unwrap();
    assert_eq!((v4.scanned, v6.scanned), (0, 0));
    datapath.remove().unwrap();
}
