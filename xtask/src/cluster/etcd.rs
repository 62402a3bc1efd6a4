//! The etcd of a dev cluster: changes when its flags or its certificates do.
//!
//! Members listen on loopback only, speak TLS and let in who has a certificate of their own authority,
//! as an operator's etcd does.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::addresses::ClusterIndex;
use super::files::Cluster;
use super::supervise::{OnReload, Service};
use crate::{process, workspace};

const DAYS: &str = "3650";

/// Members 1..=count, and their certificates.
pub(crate) fn services(cluster: &Cluster, index: ClusterIndex, count: u8) -> Result<Vec<Service>> {
    let program = workspace::find_program("etcd")
        .context("etcd is not installed: run `cargo xtask setup`")?;
    certificates(&pki(cluster))?;
    let initial: Vec<String> = (1..=count)
        .map(|member| {
            let (_, peers) = urls(index, member);
            format!("{}={peers}", name(cluster, member))
        })
        .collect();
    let initial = initial.join(",");
    Ok((1..=count)
        .map(|member| {
            let service = match count {
                1 => "etcd".to_owned(),
                _ => format!("etcd-{member}"),
            };
            Service {
                program: program.clone(),
                arguments: arguments(cluster, index, member, &initial),
                log: cluster.log(&service),
                name: service,
                after: None,
                on_reload: OnReload::Keep,
            }
        })
        .collect())
}

/// The control plane's flags for this etcd.
pub(crate) fn flags(cluster: &Cluster, index: ClusterIndex, count: u8) -> Vec<String> {
    let endpoints: Vec<String> = (1..=count).map(|member| urls(index, member).0).collect();
    let pki = pki(cluster);
    vec![
        format!("--etcd-endpoints={}", endpoints.join(",")),
        format!("--etcd-ca-file={}", pki.join("ca.crt").display()),
        format!("--etcd-cert-file={}", pki.join("client.crt").display()),
        format!("--etcd-key-file={}", pki.join("client.key").display()),
    ]
}

fn arguments(cluster: &Cluster, index: ClusterIndex, member: u8, initial: &str) -> Vec<String> {
    let (clients, peers) = urls(index, member);
    let pki = pki(cluster);
    let file = |name: &str| pki.join(name).display().to_string();
    let data = match member {
        1 => cluster.dir.join("etcd"),
        other => cluster.dir.join(format!("etcd-{other}")),
    };
    let mut arguments = vec![
        format!("--name={}", name(cluster, member)),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster={initial}"),
        format!("--initial-cluster-token=skep-{}", cluster.name),
    ];
    for kind in ["", "peer-"] {
        arguments.extend([
            format!("--{kind}cert-file={}", file("member.crt")),
            format!("--{kind}key-file={}", file("member.key")),
            format!("--{kind}trusted-ca-file={}", file("ca.crt")),
            format!("--{kind}client-cert-auth=true"),
        ]);
    }
    arguments
}

fn name(cluster: &Cluster, member: u8) -> String {
    match member {
        1 => cluster.name.clone(),
        other => format!("{}-{other}", cluster.name),
    }
}

fn urls(index: ClusterIndex, member: u8) -> (String, String) {
    let (clients, peers) = index.etcd_ports(member);
    (
        format!("https://127.0.0.1:{clients}"),
        format!("https://127.0.0.1:{peers}"),
    )
}

fn pki(cluster: &Cluster) -> PathBuf {
    cluster.dir.join("etcd-pki")
}

/// An authority, a certificate of the members, one of the control planes; what is there stays.
fn certificates(dir: &Path) -> Result<()> {
    if dir.join("client.crt").exists() {
        return Ok(());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let authority = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"];
    issue(dir, "ca", "skep-etcd-ca", &authority)?;
    let signed = ["-CA", "ca.crt", "-CAkey", "ca.key"];
    let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
    // A member is a server to clients and a client to other members.
    let member = [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "extendedKeyUsage=serverAuth,clientAuth",
    ];
    let client = ["-addext", "extendedKeyUsage=clientAuth"];
    issue(
        dir,
        "member",
        "skep-etcd-member",
        &[&signed[..], &leaf, &member].concat(),
    )?;
    issue(
        dir,
        "client",
        "skep-control-plane",
        &[&signed[..], &leaf, &client].concat(),
    )
}

/// `NAME.key` and `NAME.crt` in `dir`; signed by itself unless `more` names an authority.
fn issue(dir: &Path, name: &str, common_name: &str, more: &[&str]) -> Result<()> {
    let program = workspace::find_program("openssl")
        .context("openssl is not installed: run `cargo xtask setup`")?;
    let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
    let subject = format!("/CN={common_name}");
    let mut command = Command::new(program);
    command.current_dir(dir).args(["req", "-x509", "-sha256"]);
    command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.args(["-nodes", "-days", DAYS, "-subj", &subject]);
    command
        .args(["-keyout", &key, "-out", &certificate])
        .args(more);
    process::quiet(&mut command).with_context(|| format!("make {certificate}"))
}
