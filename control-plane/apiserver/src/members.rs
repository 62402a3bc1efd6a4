//! The control planes of one store: each tells that it is there, and the `kubernetes` service leads
//! to all of them.
//!
//! A member is a key with a time to live, so one that dies goes by itself; one that stops takes
//! itself out before it stops listening. Every member holds the endpoints true: the store decides
//! between them, and who finds them right writes nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use control_plane_storage::{Expect, Op, Store};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::server::{Server, Target, WriteContext};
use crate::status::StatusError;

/// How often a member says that it is there, and looks who else is.
const EVERY: Duration = Duration::from_secs(3);
/// How long it counts after it said so the last time.
const LIVES: Duration = Duration::from_secs(10);
/// How long taking oneself out may hold up a stop.
const LEAVE_WAIT: Duration = Duration::from_secs(2);
/// What the keys begin with.
const PREFIX: &str = "member/";
const SERVICE: &str = "kubernetes";

/// One control plane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// Its name, unique among all that ever ran.
    pub identity: String,
    /// Where clients and pods reach its API.
    pub api: SocketAddr,
    /// Where nodes, and the other members, reach it; `None` when it serves none.
    pub nodes: Option<SocketAddr>,
}

/// This member among the others.
pub(crate) struct Members {
    server: Arc<Server>,
    own: Member,
    all: watch::Sender<Vec<Member>>,
    context: WriteContext,
}

impl Members {
    pub(crate) fn new(server: Arc<Server>, own: Member) -> Self {
        Self {
            server,
            all: watch::Sender::new(vec![own.clone()]),
            own,
            context: WriteContext::own(),
        }
    }

    /// Everybody who is there, this one included, in order of their names.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Vec<Member>> {
        self.all.subscribe()
    }

    fn store(&self) -> &dyn Store {
        &*self.server.store
    }

    fn key(&self) -> String {
        format!("{PREFIX}{}", self.own.identity)
    }

    /// Says once that this member is there, and points the service at all.
    pub(crate) async fn hold(&self) -> Result<(), StatusError> {
        let present = if self.store().caps().multi_writer {
            self.register().await?;
            self.read().await?
        } else {
            vec![self.own.clone()]
        };
        self.all.send_if_modified(|all| {
            let changed = *all != present;
            if changed {
                info!(members = ?names(&present), "control planes");
                all.clone_from(&present);
            }
            changed
        });
        self.point(&present).await
    }

    /// Goes on holding until `stop`, then takes this member out.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = tick.tick() => {}
            }
            if let Err(error) = self.hold().await {
                warn!(%error, "cannot tell the other control planes of this one; trying again");
            }
        }
        match tokio::time::timeout(LEAVE_WAIT, self.leave()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "this control plane stays listed for a moment"),
            Err(_) => warn!("no answer when leaving; this control plane stays listed for a moment"),
        }
    }

    async fn leave(&self) -> Result<(), StatusError> {
        if !self.store().caps().multi_writer {
            return Ok(());
        }
        let gone = Op::delete(self.key(), Expect::Any);
        self.store().commit(vec![gone]).await.map_err(unavailable)?;
        let left = self.read().await?;
        if left.is_empty() {
            // Nobody would be reached; the next one to start points the service at itself.
            return Ok(());
        }
        self.point(&left).await
    }

    async fn register(&self) -> Result<(), StatusError> {
        let value = serde_json::to_vec(&self.own).map_err(StatusError::internal)?;
        let put = Op::Put {
            key: self.key().into(),
            value: value.into(),
            expect: Expect::Any,
            ttl: Some(LIVES),
        };
        self.store().commit(vec![put]).await.map_err(unavailable)?;
        Ok(())
    }

    async fn read(&self) -> Result<Vec<Member>, StatusError> {
        let load = self.store().load(PREFIX.as_bytes()).await;
        let mut pages = load.map_err(unavailable)?.pages;
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            for entry in page.map_err(unavailable)? {
                match serde_json::from_slice::<Member>(&entry.value) {
                    Ok(member) => found.push(member),
                    // A member of another version: it is told of by those who can read it.
                    Err(error) => warn!(%error, "a control plane's entry cannot be read"),
                }
            }
        }
        found.sort();
        Ok(found)
    }

    async fn point(&self, members: &[Member]) -> Result<(), StatusError> {
        let groups = by_port(members);
        let kind = self.server.kind("", "v1", "endpoints")?;
        self.keep(&kind, endpoints(&groups), &["subsets"]).await?;
        let kind = self
            .server
            .kind("discovery.k8s.io", "v1", "endpointslices")?;
        self.keep(&kind, slice(&groups), &["endpoints", "ports"])
            .await
    }

    /// Makes the object of `default` what `wanted` says, unless its `fields` do already.
    async fn keep(
        &self,
        kind: &Arc<crate::registry::Kind>,
        wanted: Value,
        fields: &[&str],
    ) -> Result<(), StatusError> {
        let target = Target::new(kind, "default", SERVICE);
        let Some(present) = self.server.cached(&target) else {
            let made = self.server.ensure(kind, "default", wanted, &self.context);
            return made.await;
        };
        let present = present.value();
        if fields
            .iter()
            .all(|field| same(&present[field], &wanted[field]))
        {
            return Ok(());
        }
        let changed = self
            .server
            .modify(&target, &self.context, |_| Ok(wanted.clone()));
        changed.await.map(drop)
    }
}

fn unavailable(fault: impl std::error::Error + 'static) -> StatusError {
    StatusError::store_unavailable(&fault)
}

fn names(members: &[Member]) -> Vec<&str> {
    members
        .iter()
        .map(|member| member.identity.as_str())
        .collect()
}

/// Whether `wanted` is in `present`, which may say more (defaults).
fn same(present: &Value, wanted: &Value) -> bool {
    match (present, wanted) {
        (Value::Object(present), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, value)| present.get(name).is_some_and(|found| same(found, value))),
        (Value::Array(present), Value::Array(wanted)) => {
            present.len() == wanted.len() && present.iter().zip(wanted).all(|(p, w)| same(p, w))
        }
        (present, wanted) => present == wanted,
    }
}

/// Addresses by port; the port that most have comes first.
fn by_port(members: &[Member]) -> Vec<(u16, Vec<IpAddr>)> {
    let mut groups: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    for member in members {
        groups
            .entry(member.api.port())
            .or_default()
            .push(member.api.ip());
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    for (_, addresses) in &mut groups {
        addresses.sort();
        addresses.dedup();
    }
    groups.sort_by_key(|(port, addresses)| (std::cmp::Reverse(addresses.len()), *port));
    groups
}

fn endpoints(groups: &[(u16, Vec<IpAddr>)]) -> Value {
    let subsets: Vec<Value> = groups
        .iter()
        .map(|(port, addresses)| {
            let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
            json!({
                "addresses": addresses,
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            })
        })
        .collect();
    json!({
        "metadata": {
            "name": SERVICE,
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": subsets,
    })
}

/// A slice has one family and one port: those of the first group.
fn slice(groups: &[(u16, Vec<IpAddr>)]) -> Value {
    let (port, addresses) = groups.first().cloned().unwrap_or_default();
    let v4 = addresses.first().is_none_or(IpAddr::is_ipv4);
    let endpoints: Vec<Value> = addresses
        .iter()
        .filter(|ip| ip.is_ipv4() == v4)
        .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}))
        .collect();
    json!({
        "metadata": {"name": SERVICE, "labels": {"kubernetes.io/service-name": SERVICE}},
        "addressType": if v4 { "IPv4" } else { "IPv6" },
        "endpoints": endpoints,
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(identity: &str, api: &str) -> Member {
        Member {
            identity: identity.to_owned(),
            api: api.parse().unwrap(),
            nodes: None,
        }
    }

    #[test]
    fn endpoints_name_every_member_once_and_the_slice_those_with_the_usual_port() {
        let members = [
            member("c", "10.0.0.3:6443"),
            member("a", "10.0.0.1:7443"),
            member("b", "10.0.0.2:6443"),
            member("b2", "10.0.0.2:6443"),
        ];
        let groups = by_port(&members);
        let found = endpoints(&groups);
        let both = json!([{"ip": "10.0.0.2"}, {"ip": "10.0.0.3"}]);
        assert_eq!(found["subsets"][0]["addresses"], both);
        assert_eq!(found["subsets"][1]["ports"][0]["port"], 7443);
        let found = slice(&groups);
        assert_eq!(found["endpoints"].as_array().unwrap().len(), 2);
        assert_eq!(found["ports"][0]["port"], 6443);
    }

    #[test]
    fn what_defaulting_added_is_no_difference_but_an_address_more_is() {
        let wanted = json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]);
        let present = json!([{
            "addresses": ["10.0.0.1"], "conditions": {"ready": true, "serving": true},
        }]);
        assert!(same(&present, &wanted));
        assert!(!same(
            &json!([{"addresses": ["10.0.0.1", "10.0.0.2"]}]),
            &wanted
        ));
        assert!(!same(&json!([]), &wanted));
    }
}
