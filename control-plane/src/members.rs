//! This control plane among those of the same cluster: its name, the authority that all must share,
//! and the way to the nodes whose streams are at another.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use control_plane_apiserver::Member;
use control_plane_apiserver::pki::Pki;
use control_plane_node_state::{CONTROL_PLANE_GROUP, CONTROL_PLANE_USER, Peers, Tunnels};
use control_plane_storage::{CommitError, Expect, Op, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// The store's key of the authority that the cluster's certificates are signed by.
const AUTHORITY_KEY: &str = "cluster/authority";

/// Unique among all that ever ran: the host's name and a random part.
pub(crate) fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim(), uuid::Uuid::new_v4())
}

/// Makes sure that all control planes of a store have the same authority: with two, each would
/// refuse the clients, tokens and nodes of the other. The first one to start decides.
pub(crate) async fn same_authority(store: &dyn Store, ca_pem: &str) -> anyhow::Result<()> {
    if !store.caps().multi_writer {
        return Ok(());
    }
    let note = Op::put(AUTHORITY_KEY, ca_pem.to_owned(), Expect::Absent);
    match store.commit(vec![note]).await {
        Ok(_) => Ok(()),
        Err(CommitError::Conflict {
            current: Some(current),
            ..
        }) if share_a_certificate(&current.value, ca_pem.as_bytes()) => Ok(()),
        Err(CommitError::Conflict { .. }) => bail!(
            "this control plane's CA is not that of the cluster in the store: copy the files of \
             another control plane's --pki-dir here (ca.crt, ca.key, sa.key, join.token and what \
             else is there), or use another etcd prefix"
        ),
        Err(fault) => Err(fault).context("compare the cluster's authority with the store's"),
    }
}

/// Whether one certificate at least is in both PEM files: while an authority is replaced, a file
/// holds the old and the new one.
fn share_a_certificate(one: &[u8], other: &[u8]) -> bool {
    let other = certificates(other);
    certificates(one).iter().any(|held| other.contains(held))
}

/// The certificates of a PEM file, without what stands between them.
fn certificates(pem: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(pem)
        .split("-----END CERTIFICATE-----")
        .filter_map(|part| part.split_once("-----BEGIN CERTIFICATE-----"))
        .map(|(_, body)| body.split_whitespace().collect())
        .collect()
}

/// Lets sessions find their way to nodes at other control planes, until `stop`.
pub(crate) async fn connect_peers(
    mut members: watch::Receiver<Vec<Member>>,
    identity: String,
    pki: Arc<Pki>,
    tunnels: Tunnels,
    stop: CancellationToken,
) {
    let own = match pki.client_identity(CONTROL_PLANE_USER, &[CONTROL_PLANE_GROUP]) {
        Ok(own) => own,
        Err(error) => {
            error!(%error, "no certificate for other control planes: logs and exec reach only nodes that are connected here");
            return;
        }
    };
    let others = |members: &[Member]| -> Vec<SocketAddr> {
        let others = members.iter().filter(|member| member.identity != identity);
        others.filter_map(|member| member.nodes).collect()
    };
    let (addresses, peers) = watch::channel(others(&members.borrow_and_update()));
    let certificate = (own.certificate_pem.as_str(), own.key_pem.as_str());
    tunnels.set_peers(Peers::new(peers, pki.ca_pem(), certificate));
    loop {
        // Cancel-safe: both only wait.
        tokio::select! {
            () = stop.cancelled() => return,
            changed = members.changed() => if changed.is_err() { return },
        }
        addresses.send_replace(others(&members.borrow_and_update()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_compared_without_their_wrapping() {
        let one = "-----BEGIN CERTIFICATE-----\nAB\nCD\n-----END CERTIFICATE-----\n";
        let other = "note\n-----BEGIN CERTIFICATE-----\r\nEF\r\n-----END CERTIFICATE-----";
        let both: Vec<_> = certificates(format!("{one}{other}").as_bytes());
        assert_eq!(both, ["ABCD", "EF"]);
        assert_eq!(certificates(b"nothing").len(), 0);
    }

    fn pem(bodies: &[&str]) -> String {
        let one = |body: &&str| {
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        bodies.iter().map(one).collect()
    }

    #[test]
    fn authorities_are_one_when_a_certificate_is_in_both_however_it_is_broken_into_lines() {
        let share = |a: &str, b: &str| share_a_certificate(a.as_bytes(), b.as_bytes());
        let during = pem(&["b2xk", "bmV3"]);
        assert!(share(&pem(&["b2xk"]), &during));
        assert!(share(&during, &pem(&["bm\nV3"])));
        assert!(!share(&pem(&["b3RoZXI="]), &during));
        assert!(!share("", ""));
    }
}
