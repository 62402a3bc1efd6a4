//! The control plane's flags, parsed into values that cannot be wrong.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use control_plane_apiserver::{AuditConfig, AuditPolicy};

use crate::rotate::Rotate;
use crate::snapshot::SnapshotCommand;

/// Where objects are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    /// In files under the data directory: one control plane.
    Embedded,
    /// In etcd: any number of control planes.
    Etcd,
}

/// The program: run a control plane, or do something with its state.
#[derive(Debug, Parser)]
#[command(
    name = "skep-control-plane",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) config: Config,
}

/// What else the program does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Save, check and restore the state of a cluster.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Make a new key beside the old ones, for the next start.
    Rotate(Rotate),
}

/// Where objects are kept, and how to get there.
#[derive(Debug, Args)]
pub(crate) struct StoreFlags {
    /// Directory for keys, certificates and the embedded store.
    #[arg(long, default_value = "/var/lib/skep-control-plane")]
    pub(crate) data_dir: PathBuf,
    /// Where objects are kept.
    #[arg(long, value_enum, default_value_t = StoreKind::Embedded)]
    pub(crate) store: StoreKind,
    /// etcd's client URLs, comma-separated.
    #[arg(long, value_delimiter = ',', required_if_eq("store", "etcd"))]
    pub(crate) etcd_endpoints: Vec<String>,
    /// CA of etcd's server certificates, PEM.
    #[arg(long)]
    pub(crate) etcd_ca_file: Option<PathBuf>,
    /// Client certificate for etcd, PEM.
    #[arg(long, requires = "etcd_key_file")]
    pub(crate) etcd_cert_file: Option<PathBuf>,
    /// Key of the client certificate, PEM.
    #[arg(long, requires = "etcd_cert_file")]
    pub(crate) etcd_key_file: Option<PathBuf>,
}

/// The control plane: API server, controllers, scheduler and the nodes' stream in one process. It
/// needs no privilege.
#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(flatten)]
    pub(crate) storage: StoreFlags,
    /// Directory of the cluster's keys and certificates, when it is not below the data directory:
    /// all control planes of a cluster need the same files.
    #[arg(long)]
    pub(crate) pki_dir: Option<PathBuf>,
    /// Where the API listens; may be repeated.
    #[arg(long = "bind", default_value = "0.0.0.0:6443")]
    pub(crate) binds: Vec<SocketAddr>,
    /// An address that several control planes of this machine listen on together, so that clients
    /// reach one that lives; may be repeated. Needs `--bind` as well.
    #[arg(long = "shared-bind")]
    pub(crate) shared_binds: Vec<SocketAddr>,
    /// The API's address in the kubeconfig, say that of a balancer; `https://host:port`.
    #[arg(long)]
    pub(crate) kubeconfig_server: Option<String>,
    /// Where nodes connect.
    #[arg(long, default_value = "0.0.0.0:6444")]
    pub(crate) node_bind: SocketAddr,
    /// Address at which pods and other machines reach the API.
    #[arg(long, required = true)]
    pub(crate) advertise_address: Option<IpAddr>,
    /// Further names or addresses for the API's certificate; may be repeated.
    #[arg(long = "tls-san")]
    pub(crate) tls_sans: Vec<String>,
    /// Range of service addresses; a second one of the other family makes the cluster dual stack.
    #[arg(
        long = "service-cidr",
        default_value = "10.96.0.0/16",
        value_delimiter = ','
    )]
    pub(crate) service_cidrs: Vec<String>,
    /// Range of pod addresses.
    #[arg(
        long = "pod-cidr",
        default_value = "10.244.0.0/16",
        value_delimiter = ','
    )]
    pub(crate) pod_cidrs: Vec<String>,
    /// Address of the cluster DNS service, inside the service range.
    #[arg(long, default_value = "10.96.0.10")]
    pub(crate) cluster_dns: IpAddr,
    /// Zone of cluster names.
    #[arg(long, default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// Writes the administrator's kubeconfig here (0600).
    #[arg(long)]
    pub(crate) kubeconfig_out: Option<PathBuf>,
    /// Writes the token with which nodes join here (0600).
    #[arg(long)]
    pub(crate) join_token_out: Option<PathBuf>,
    /// What the audit log holds: a Policy of audit.k8s.io/v1.
    #[arg(long, requires = "audit_log_path")]
    pub(crate) audit_policy_file: Option<PathBuf>,
    /// Writes the audit log here (0600), one JSON event a line.
    #[arg(long, requires = "audit_policy_file")]
    pub(crate) audit_log_path: Option<PathBuf>,
    /// Megabytes at which the audit log is put aside.
    #[arg(long, default_value_t = 100)]
    pub(crate) audit_log_maxsize: u64,
    /// How many audit logs that were put aside are kept.
    #[arg(long, default_value_t = 10)]
    pub(crate) audit_log_maxbackup: usize,
    /// Log as JSON lines.
    #[arg(long)]
    pub(crate) log_json: bool,
}

impl Config {
    /// Where pods and other machines reach this control plane. The parser insists on it unless a
    /// subcommand is given.
    pub(crate) fn advertise(&self) -> IpAddr {
        let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        self.advertise_address.unwrap_or(unspecified)
    }

    /// The audit log that the flags name.
    ///
    /// # Errors
    /// The policy cannot be read.
    pub(crate) fn audit(&self) -> anyhow::Result<Option<AuditConfig>> {
        const MEGABYTE: u64 = 1 << 20;
        let (Some(policy), Some(path)) = (&self.audit_policy_file, &self.audit_log_path) else {
            return Ok(None);
        };
        let read = || -> anyhow::Result<AuditPolicy> {
            Ok(AuditPolicy::parse(&std::fs::read_to_string(policy)?)?)
        };
        let policy =
            read().with_context(|| format!("read the audit policy {}", policy.display()))?;
        Ok(Some(AuditConfig {
            policy: Arc::new(policy),
            path: path.clone(),
            bytes_max: self.audit_log_maxsize.saturating_mul(MEGABYTE),
            backups: self.audit_log_maxbackup,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn etcd_needs_endpoints() {
        let with = |more: &[&str]| {
            let base = ["skep-control-plane", "--advertise-address", "192.0.2.1"];
            Cli::try_parse_from(base.iter().chain(more).copied())
        };
        let cli = with(&["--node-bind", "192.0.2.1:7"]).unwrap();
        assert_eq!(cli.config.advertise().to_string(), "192.0.2.1");
        assert_eq!(cli.config.node_bind.port(), 7);
        with(&["--store", "etcd"]).unwrap_err();
        with(&["--store=etcd", "--etcd-endpoints=http://127.0.0.1:2379"]).unwrap();
    }

    #[test]
    fn a_snapshot_needs_no_flags_of_a_running_control_plane() {
        let with = |words: &[&str]| Cli::try_parse_from([&["skep-control-plane"], words].concat());
        let cli = with(&["snapshot", "save", "/b", "--data-dir", "/d"]).unwrap();
        assert!(cli.command.is_some());
        with(&["snapshot", "status", "/b"]).unwrap();
        with(&["snapshot", "save", "/b", "--store", "etcd"]).unwrap_err();
        with(&[]).unwrap_err();
    }
}
