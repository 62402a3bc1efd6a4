//! All controllers together on the fake API, with pretended nodes and a pretended scheduler: what they
//! reach in the end, whatever happens on the way.

mod nodes;
mod scenarios;

use std::net::IpAddr;
use std::time::Duration;

use control_plane_client::fake::{FakeApi, Faults};
use control_plane_client::{Clock, Health, Informers};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{Config, PodRange, run};

/// A cluster in memory. Time is tokio's, paused: a second costs nothing.
struct Cluster {
    fake: FakeApi,
    shutdown: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
}

fn config(clock: Clock, health: Health) -> Config {
    let address = |text: &str| text.parse::<IpAddr>().expect("address");
    Config {
        cluster_ca_pem: "CA".to_owned(),
        api_port: 6443,
        kubernetes_service_ips: vec![address("10.96.0.1")],
        dns_service_ips: vec![address("10.96.0.10")],
        cluster_cidrs: vec![PodRange {
            address: address("10.244.0.0"),
            prefix: 16,
            node_prefix: 24,
        }],
        node_grace: Config::NODE_GRACE,
        terminated_pods_max: Config::TERMINATED_PODS_MAX,
        clock,
        health,
    }
}

impl Cluster {
    /// Controllers and `count` nodes, up and running.
    async fn start(count: usize) -> Self {
        let fake = FakeApi::new();
        let shutdown = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        let informers = Informers::new(fake.handle(), shutdown.clone());
        let config = config(fake.clock(), Health::default());
        tasks.spawn(run(informers, config, shutdown.clone()));
        tasks.spawn(nodes::run(fake.clone(), count, shutdown.clone()));
        let cluster = Self {
            fake,
            shutdown,
            tasks,
        };
        cluster
            .until("system objects", |fake| {
                fake.all(control_plane_client::resources::CONFIG_MAPS).len() == 4
                    && fake.all(control_plane_client::resources::SERVICES).len() == 2
            })
            .await;
        cluster
    }

    fn fail(&self, seed: u64) {
        let faults = Faults {
            conflict: 0.1,
            refused: 0.05,
            lost_answer: 0.1,
            watch_broken: 0.02,
            watch_expired: 0.01,
            event_delay_max: Duration::from_millis(50),
            request_delay_max: Duration::from_millis(10),
        };
        self.fake.set_faults(seed, faults);
    }

    fn heal(&self) {
        self.fake.set_faults(0, Faults::default());
    }

    /// Waits until `holds`, for an hour of the cluster's time at most.
    async fn until(&self, what: &str, holds: impl FnMut(&FakeApi) -> bool) {
        self.until_or(what, holds, |_| String::new()).await;
    }

    async fn until_or(
        &self,
        what: &str,
        mut holds: impl FnMut(&FakeApi) -> bool,
        describe: impl Fn(&FakeApi) -> String,
    ) {
        for _ in 0..36_000 {
            if holds(&self.fake) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never reached: {what}\n{}", describe(&self.fake));
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no task panics");
        }
    }
}

fn is_active(pod: &Value) -> bool {
    pod["metadata"].get("deletionTimestamp").is_none()
        && !matches!(
            pod["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        )
}

fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"].as_array().is_some_and(|all| {
        all.iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    })
}
