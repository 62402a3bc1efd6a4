use std::net::IpAddr;

use ebpf_abi::frontend::Frontend;
use ebpf_abi::service::{BE_ACTIVE, Backend, Head, Service, Slot};

use super::dump;
use super::fake::FakeServiceMaps;
use super::faulty::{Faults, FaultyServiceMaps};
use super::view::LoadBalancerView;
use super::{
    FrontendKey, HeadKind, IpProtocol, Limits, MapError, ReadServiceMaps as _, ServiceMaps,
    fe4_key, fe6_key, from_addr, to_addr,
};

fn key(address: &str, port: u16) -> FrontendKey {
    FrontendKey {
        address: address.parse().unwrap(),
        port,
        protocol: IpProtocol::TCP,
    }
}

fn publish_one(maps: &mut dyn ServiceMaps) -> Result<(), MapError> {
    maps.write_backend(
        3,
        &Backend {
            addr: to_addr("10.244.1.2".parse().unwrap()),
            port: 8080_u16.to_be_bytes(),
            state: BE_ACTIVE,
            ..Backend::default()
        },
    )?;
    maps.write_slots(
        7,
        &[Slot {
            backend: 3,
            ..Slot::default()
        }],
    )?;
    maps.write_service(5, &Service::default())?;
    let head = Head {
        base: 7,
        len: 1,
        generation: 1,
    };
    maps.publish(5, HeadKind::Ready, head)?;
    let value = Frontend {
        svc: 5,
        ..Frontend::default()
    };
    maps.insert_frontends(&[(key("10.96.0.7", 80), value)])
}

#[test]
fn a_frontend_key_keeps_its_family_and_bytes() {
    for text in ["10.96.0.1", "fd00:10:96::1"] {
        let key = key(text, 443);
        let back = fe4_key(&key)
            .map(FrontendKey::from)
            .or_else(|| fe6_key(&key).map(FrontendKey::from));
        assert_eq!(back, Some(key));
        let address: IpAddr = text.parse().unwrap();
        assert_eq!(from_addr(&to_addr(address)), address);
    }
}

#[test]
fn a_published_service_is_seen_with_its_backend() {
    let mut maps = FakeServiceMaps::small();
    publish_one(&mut maps).unwrap();
    let view = LoadBalancerView::read(&maps).unwrap();
    assert_eq!(
        dump::text(&view),
        "10.96.0.7:80/TCP cluster-ip ready=10.244.1.2:8080\n"
    );
}

#[test]
fn clones_share_their_content_as_pins_do() {
    let mut maps = FakeServiceMaps::small();
    let other = maps.clone();
    publish_one(&mut maps).unwrap();
    assert_eq!(other.frontends().unwrap().len(), 1);
}

#[test]
fn an_index_past_the_end_and_a_full_map_are_refused() {
    let limits = Limits {
        services: 2,
        slots: 2,
        backends: 2,
        frontends: 1,
    };
    let mut maps = FakeServiceMaps::new(limits);
    maps.write_service(1, &Service::default()).unwrap();
    assert!(matches!(
        maps.write_service(2, &Service::default()),
        Err(MapError::Bounds {
            index: 2,
            limit: 2,
            ..
        })
    ));
    let entries = [
        (key("10.96.0.1", 80), Frontend::default()),
        (key("10.96.0.2", 80), Frontend::default()),
    ];
    assert!(matches!(
        maps.insert_frontends(&entries),
        Err(MapError::Full { limit: 1, .. })
    ));
    maps.insert_frontends(&entries[..1])
        .expect("replacing needs no room");
}

#[test]
fn faults_follow_from_the_seed_and_a_crash_is_final() {
    let outcome = |seed| {
        let mut maps = FaultyServiceMaps::new(FakeServiceMaps::small(), Faults::new(seed, 300));
        (0..200)
            .map(|_| publish_one(&mut maps).is_ok())
            .collect::<Vec<_>>()
    };
    assert_eq!(outcome(1), outcome(1));
    assert_ne!(outcome(1), outcome(2));
    assert!(outcome(1).contains(&false));

    let faults = Faults::new(1, 0).crash_after(2);
    let mut maps = FaultyServiceMaps::new(FakeServiceMaps::small(), faults);
    assert!(matches!(publish_one(&mut maps), Err(MapError::Crashed)));
    assert!(matches!(maps.reset_load(1), Err(MapError::Crashed)));
    assert!(maps.crashed());
}
