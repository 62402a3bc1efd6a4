// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Selection over maps made of vectors.

use std::{cell::RefCell, collections::HashMap};

use ebpf_abi::{addr, service, socket::CLIENT_NETNS};
use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Maps {
    services: Vec<service::Service>,
    slots: Vec<Slot>,
    backends: Vec<Backend>,
    affinity: RefCell<HashMap<AffinityKey, Affinity>>,
    draws: RefCell<Vec<u32>>,
    now_s: u32,
}

#[derive(Clone, Copy)]
struct Words(service::Service);

impl Service for Words {
    fn head(&self) -> u64 {
        self.0.head
    }
    fn local_head(&self) -> u64 {
        self.0.local_head
    }
    fn terminating_head(&self) -> u64 {
        self.0.terminating_head
    }
    fn flags(&self) -> u32 {
        self.0.flags
    }
    fn affinity_s(&self) -> u32 {
        self.0.affinity_s
    }
}

impl ServiceMaps for Maps {
    type Service = Words;

    fn service(&self, index: u32) -> Option<Words> {
        self.services.get(index as usize).copied().map(Words)
    }
    fn slot(&self, index: u32) -> Option<Slot> {
        self.slots.get(index as usize).copied()
    }
    fn backend(&self, index: u32) -> Option<Backend> {
        self.backends.get(index as usize).copied()
    }
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinity.borrow().get(key).copied()
    }
    fn set_affinity(&self, key: &AffinityKey, value: &Affinity) {
        self.affinity.borrow_mut().insert(*key, *value);
    }
    fn random(&self) -> u32 {
        self.draws.borrow_mut().pop().unwrap_or(0)
    }
    fn now_s(&self) -> u32 {
        self.now_s
    }
}

const SVC: u32 = 1;
const FRONTEND: Frontend = Frontend {
    svc: SVC,
    flags: 0,
    pad: 0,
};
const CLIENT: Client = Client {
    id: [7; 4],
    kind: CLIENT_NETNS,
};

fn head(base: u32, len: u16) -> u64 {
    Head {
        base,
        len,
        generation: 1,
    }
    .pack()
}

/// One service with backends 1..=n in slots 10..10+n.
fn maps(n: u16) -> Maps {
    let backend = |id: u16| Backend {
        addr: addr::from_v4([10, 244, 0, u8::try_from(id % 256).unwrap()]),
        port: id.to_be_bytes(),
        state: BE_ACTIVE,
        generation: 5,
        svc: SVC,
        ..Backend::default()
    };
    let slot = |id: u16| Slot {
        backend: u32::from(id),
        ..Slot::default()
    };
    let service = service::Service {
        head: head(10, n),
        ..service::Service::default()
    };
    Maps {
        services: vec![service::Service::default(), service],
        slots: (0..10)
            .map(|_| Slot::default())
            .chain((1..=n).map(slot))
            .collect(),
        backends: std::iter::once(Backend::default())
            .chain((1..=n).map(backend))
            .collect(),
        ..Maps::default()
    }
}

fn chosen(maps: &Maps, frontend: Frontend) -> Result<u32, DropReason> {
    choose(maps, frontend, &CLIENT).map(|choice| choice.backend)
}

#[test]
fn a_draw_reaches_the_first_and_the_last_slot_and_no_other() {
    let maps = maps(3);
    *maps.draws.borrow_mut() = vec![u32::MAX, 0, 0x5555_5555, 0x5555_5556];
    assert_eq!(chosen(&maps, FRONTEND), Ok(2));
    assert_eq!(chosen(&maps, FRONTEND), Ok(1));
    assert_eq!(chosen(&maps, FRONTEND), Ok(1));
    assert_eq!(chosen(&maps, FRONTEND), Ok(3));
}

#[test]
fn an_empty_service_has_no_backend() {
    assert_eq!(chosen(&maps(0), FRONTEND), Err(DropReason::NoBackend));
}

#[test]
fn terminating_backends_serve_when_no_other_is_left() {
    let mut maps = maps(2);
    maps.services[1].head = head(10, 0);
    maps.services[1].terminating_head = head(11, 1);
    let choice = choose(&maps, FRONTEND, &CLIENT).unwrap();
    assert_eq!((choice.backend, choice.chosen), (2, Chosen::Terminating));
}

#[test]
fn a_local_frontend_takes_local_backends_only() {
    let mut maps = maps(2);
    let local = Frontend {
        flags: FE_LOCAL,
        ..FRONTEND
    };
    assert_eq!(chosen(&maps, local), Err(DropReason::NoBackend));
    maps.services[1].terminating_head = head(10, 1);
    assert_eq!(
        chosen(&maps, local),
        Err(DropReason::NoBackend),
        "elsewhere is not here"
    );
    maps.services[1].local_head = head(11, 1);
    assert_eq!(chosen(&maps, local), Ok(2));
}

#[test]
fn an_index_that_leads_nowhere_is_no_choice() {
    let mut maps = maps(2);
    maps.slots.truncate(10);
    assert_eq!(chosen(&maps, FRONTEND), Err(DropReason::Inconsistent));
    let mut maps = self::maps(2);
    maps.backends[1].svc = 9;
    assert_eq!(chosen(&maps, FRONTEND), Err(DropReason::Inconsistent));
    let mut maps = self::maps(2);
    maps.backends[1].state = BE_FREE;
    assert_eq!(chosen(&maps, FRONTEND), Err(DropReason::Inconsistent));
    assert_eq!(
        chosen(
            &maps,
            Frontend {
                svc: 99,
                ..FRONTEND
            }
        ),
        Err(DropReason::Inconsistent)
    );
}

#[test]
fn affinity_brings_a_client_back_until_it_ends() {
    let mut maps = maps(3);
    maps.services[1].flags = SVC_AFFINITY;
    maps.services[1].affinity_s = 60;
    *maps.draws.borrow_mut() = vec![0, 0, u32::MAX];
    assert_eq!(chosen(&maps, FRONTEND), Ok(3));
    maps.now_s = 60;
    assert_eq!(chosen(&maps, FRONTEND), Ok(3), "at the bound");
    maps.now_s = 120;
    assert_eq!(chosen(&maps, FRONTEND), Ok(3), "each use counts anew");
    maps.now_s = 181;
    assert_eq!(chosen(&maps, FRONTEND), Ok(1), "past the bound");
}

#[test]
fn affinity_lets_go_of_a_backend_that_left() {
    let leave: [fn(&mut Backend); 4] = [
        |backend| backend.state = BE_FREE,
        |backend| backend.state = BE_TERMINATING,
        |backend| backend.generation += 1,
        |backend| backend.svc = 2,
    ];
    for change in leave {
        let mut maps = maps(3);
        maps.services[1].flags = SVC_AFFINITY;
        maps.services[1].affinity_s = 60;
        *maps.draws.borrow_mut() = vec![0, u32::MAX];
        assert_eq!(chosen(&maps, FRONTEND), Ok(3));
        change(&mut maps.backends[3]);
        assert_eq!(chosen(&maps, FRONTEND), Ok(1));
    }
}

#[test]
fn affinity_does_not_lead_a_local_frontend_elsewhere() {
    let mut maps = maps(3);
    maps.services[1].flags = SVC_AFFINITY;
    maps.services[1].affinity_s = 60;
    maps.services[1].local_head = head(10, 1);
    maps.backends[1].flags = BE_FLAG_LOCAL;
    *maps.draws.borrow_mut() = vec![u32::MAX];
    assert_eq!(chosen(&maps, FRONTEND), Ok(3));
    assert_eq!(
        chosen(
            &maps,
            Frontend {
                flags: FE_LOCAL,
                ..FRONTEND
            }
        ),
        Ok(1)
    );
}

#[test]
fn a_recalled_backend_must_be_the_one_it_was() {
    let mut maps = maps(1);
    assert!(still_there(&maps, 1, 5));
    assert!(!still_there(&maps, 1, 4));
    assert!(!still_there(&maps, 77, 5));
    maps.backends[1].state = BE_TERMINATING;
    assert!(still_there(&maps, 1, 5), "old connections go on");
    maps.backends[1].state = BE_FREE;
    assert!(!still_there(&maps, 1, 5));
}

#[test]
fn an_address_without_the_port_is_told_from_no_service() {
    let wildcard = Frontend {
        flags: FE_WILDCARD,
        ..Frontend::default()
    };
    assert_eq!(
        frontdoor(Some(FRONTEND), || None),
        Frontdoor::Service(FRONTEND)
    );
    assert_eq!(frontdoor(None, || Some(wildcard)), Frontdoor::UnknownPort);
    assert_eq!(frontdoor(Some(wildcard), || None), Frontdoor::UnknownPort);
    assert_eq!(frontdoor(None, || None), Frontdoor::None);
}

#[test]
fn weights_come_out_as_the_alias_method_says() {
    let mut maps = maps(2);
    // Backend 1 gets half of slot 0 and all of slot 1's alias share: 1/4 and 3/4.
    maps.slots[10] = Slot {
        backend: 1,
        alias: 1,
        alias_share: 0x8000,
    };
    let mut hits = [0u32; 3];
    for i in 0..4096u32 {
        maps.draws.borrow_mut().push(i << 20);
        hits[chosen(&maps, FRONTEND).unwrap() as usize] += 1;
    }
    assert_eq!(hits, [0, 1024, 3072]);
}

proptest! {
    #[test]
    fn a_draw_stays_below_the_length(random in any::<u32>(), len in 1u16..) {
        prop_assert!(draw(random, len).0 < u32::from(len));
    }

    #[test]
    fn every_slot_gets_its_fair_share(len in 1u16..300) {
        const DRAWS: u32 = 1 << 16;
        let mut hits = vec![0u32; usize::from(len)];
        for i in 0..DRAWS {
            hits[draw(i << 16, len).0 as usize] += 1;
        }
        let (least, most) = (hits.iter().min().unwrap(), hits.iter().max().unwrap());
        prop_assert!(most - least <= 1, "{least}..{most}");
    }
}
