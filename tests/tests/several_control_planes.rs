//! Three control planes over three members of etcd: the leading one is killed, and nobody who uses the
//! cluster has to do anything.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::{Cluster, Options, Store, until};

const SOON: Duration = Duration::from_secs(60);
/// From the kill of the leader to the next one's work: an object that a controller makes.
const FAIL_OVER: Duration = Duration::from_secs(5);
const CONTROL_PLANES: u8 = 3;
const KILLS: u32 = 2;

#[test]
fn a_killed_leader_is_replaced_within_five_seconds_and_kubectl_goes_on() -> Result<()> {
    let options = Options {
        nodes: 1,
        store: Store::Etcd,
        control_planes: CONTROL_PLANES,
    };
    let cluster = Cluster::up("several-control-planes", options)?;
    cluster.apply_file("examples/hello.yaml")?;
    for kill in 1..=KILLS {
        let leader = until(SOON, "a leader", || leader(&cluster))?;
        let process = until(SOON, "its process", || {
            cluster.control_plane_of(leader.number)
        })?;
        process.signal("KILL")?;
        let killed = Instant::now();
        // The controllers are asked for something at once, through whichever control plane answers.
        let name = format!("asked-{kill}");
        let deploy = [
            "create",
            "deployment",
            &name,
            "--image=example.invalid/none",
            "--replicas=2",
        ];
        until(FAIL_OVER, "kubectl is answered", || {
            cluster.kubectl(&deploy)?.success()
        })?;
        let answered = killed.elapsed();
        until(SOON, "pods", || two_pods(&cluster, &name))?;
        let worked = killed.elapsed();
        let next = until(SOON, "the next leader", || {
            let now = self::leader(&cluster)?;
            ensure!(now.identity != leader.identity, "still {}", leader.identity);
            Ok(now)
        })?;
        println!(
            "control plane {} was killed: kubectl was answered after {answered:?}, pods were made \
             after {worked:?} by {}",
            leader.number, next.number
        );
        ensure!(
            worked < FAIL_OVER,
            "controllers worked again after {worked:?}"
        );
    }
    // What was killed came back, and all say the same.
    for number in 1..=CONTROL_PLANES {
        until(SOON, "all run", || cluster.control_plane_of(number))?;
    }
    let rollout = ["rollout", "status", "deploy/hello", "--timeout=60s"];
    cluster.kubectl(&rollout)?.success()?;
    cluster.down()
}

struct Leader {
    number: u8,
    identity: String,
}

/// Who holds the lease, and which of the processes that is: the one whose log said last that it leads.
fn leader(cluster: &Cluster) -> Result<Leader> {
    let get = [
        "get",
        "lease",
        "-n=kube-system",
        "skep-control-plane",
        "-o=jsonpath={.spec.holderIdentity}",
    ];
    let identity = cluster.kubectl(&get)?.success()?.text().to_owned();
    ensure!(!identity.is_empty(), "nobody leads");
    for number in 1..=CONTROL_PLANES {
        let log = cluster.log(&format!("control-plane-{number}"))?;
        if log
            .lines()
            .any(|line| line.contains("run here") && line.contains(&identity))
        {
            return Ok(Leader { number, identity });
        }
    }
    None.with_context(|| format!("no log says that {identity} leads"))
}

fn two_pods(cluster: &Cluster, deployment: &str) -> Result<()> {
    let selector = format!("--selector=app={deployment}");
    let get = ["get", "pods", &selector, "-o=name"];
    let pods = cluster.kubectl(&get)?.success()?;
    let count = pods.text().lines().count();
    ensure!(count == 2, "{count} pods");
    Ok(())
}
