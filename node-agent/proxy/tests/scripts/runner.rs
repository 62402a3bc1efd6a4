//! Runs a script on failing maps, until they have converged at every `expect`.

use std::sync::Arc;
use std::time::Duration;

use node_agent_datapath::abi::service::BE_FREE;
use node_agent_datapath::maps::ReadServiceMaps as _;
use node_agent_datapath::maps::dump;
use node_agent_datapath::maps::fake::FakeServiceMaps;
use node_agent_datapath::maps::faulty::{Faults, FaultyServiceMaps};
use node_agent_datapath::maps::view::LoadBalancerView;
use node_agent_proxy::{ExternalIps, ProxyConfig, Reconciler};
use node_agent_state::Snapshot;

use crate::language::{Change, Statement, parse};
use crate::watched::{Watched, check_readers_view};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    Never,
    /// After a number of writes that depends on the seed; the next writer lives.
    Somewhere,
}

/// Of 1,000 writes.
const FAULTS: u16 = 100;
/// Rounds until the maps must have converged: with one write in ten failing, a service of some
/// twenty writes needs about ten.
const ROUNDS_MAX: usize = 400;

type Maps = FaultyServiceMaps<Watched>;

struct Runner {
    fake: FakeServiceMaps,
    reconciler: Reconciler<Maps>,
    tables: Arc<Snapshot>,
    now: Duration,
    seed: u64,
}

fn config() -> ProxyConfig {
    ProxyConfig {
        node_name: "node-1".into(),
        external_ips: ExternalIps::Program,
        listeners: vec![],
    }
}

fn writer(fake: &FakeServiceMaps, faults: Faults, now: Duration) -> Reconciler<Maps> {
    let maps = FaultyServiceMaps::new(Watched(fake.clone()), faults);
    Reconciler::new(maps, &config(), now).unwrap()
}

impl Runner {
    /// A new writer on the maps as they are. It hears of the tables bit by bit, as over a new
    /// stream: first half of the services, incomplete, then all.
    fn restart(&mut self) {
        self.seed += 1000;
        self.reconciler = writer(&self.fake, Faults::new(self.seed, FAULTS), self.now);
        let mut half = Snapshot::clone(&self.tables);
        half.in_sync = false;
        let names: Vec<_> = half.services.keys().cloned().collect();
        for name in names.iter().skip(names.len() / 2) {
            half.services.remove(name);
        }
        // What the tables do mention may change at once.
        let told = |backend: &String| {
            let mut endpoints = half
                .services
                .values()
                .flat_map(|entry| entry.endpoints.iter());
            endpoints.any(|endpoint| backend.starts_with(&endpoint.address.to_string()))
        };
        let mut before = ready_backends(&self.fake);
        before.retain(|backend| !told(backend));
        self.reconciler.observe(&Arc::new(half));
        self.reconciler.reconcile(self.now);
        for address in before {
            assert!(
                ready_backends(&self.fake).contains(&address),
                "{address} was taken away before the tables were complete"
            );
        }
    }

    fn change(&mut self, change: &Change) {
        let mut tables = Snapshot::clone(&self.tables);
        change.apply(&mut tables);
        tables.sequence += 1;
        self.tables = Arc::new(tables);
        self.round();
    }

    fn round(&mut self) -> bool {
        self.reconciler.observe(&self.tables);
        let outcome = self.reconciler.reconcile(self.now);
        check_readers_view(&self.fake);
        if self.reconciler.maps().crashed() {
            self.restart();
            return false;
        }
        outcome.applied
    }

    fn converge(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if self.round() {
                return;
            }
        }
        panic!("the maps have not converged after {ROUNDS_MAX} rounds");
    }

    fn expect(&mut self, expected: &str) {
        self.converge();
        let view = LoadBalancerView::read(&self.fake).unwrap();
        assert_eq!(dump::text(&view), expected, "seed {}", self.seed);
    }

    /// Deletes everything; after the rest every map must be empty.
    fn finish(&mut self) {
        let names: Vec<_> = self.tables.services.keys().cloned().collect();
        for name in names {
            self.change(&Change::Delete(name));
        }
        self.change(&Change::Complete(true));
        self.converge();
        assert_eq!(self.fake.frontends().unwrap(), [], "seed {}", self.seed);
        for _ in 0..ROUNDS_MAX {
            self.now += Duration::from_secs(11);
            self.converge();
            if self.reconciler.is_empty() {
                return self.check_empty();
            }
        }
        panic!("seed {}: not empty: {:?}", self.seed, self.reconciler);
    }

    fn check_empty(&self) {
        let limits = self.fake.limits();
        for index in 0..limits.backends.min(2048) {
            assert_eq!(
                self.fake.backend(index).unwrap().state,
                BE_FREE,
                "backend {index}"
            );
        }
    }
}

fn ready_backends(fake: &FakeServiceMaps) -> Vec<String> {
    let view = LoadBalancerView::read(fake).unwrap();
    let ready = view.services.values().flat_map(|service| &service.ready);
    ready.map(|backend| backend.address.to_string()).collect()
}

pub(crate) fn run(script: &str, seed: u64, crash: Crash) {
    let fake = FakeServiceMaps::small();
    let faults = match crash {
        Crash::Never => Faults::new(seed, FAULTS),
        Crash::Somewhere => Faults::new(seed, FAULTS).crash_after(3 + seed),
    };
    let mut runner = Runner {
        reconciler: writer(&fake, faults, Duration::ZERO),
        fake,
        tables: Arc::default(),
        now: Duration::ZERO,
        seed,
    };
    for statement in parse(script) {
        match statement {
            Statement::Tables(change) => runner.change(&change),
            Statement::Restart => runner.restart(),
            Statement::After(seconds) => {
                runner.now += Duration::from_secs(seconds);
                runner.round();
            }
            Statement::Expect(dump) => runner.expect(&dump),
        }
    }
    runner.finish();
}
