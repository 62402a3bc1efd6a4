//! One batch of the stream -> the next snapshot. Pure.
//!
//! Invariants: a snapshot's removals wait for its end, so a reconnect never blanks the node; an item
//! that cannot be read is skipped and named, the rest of its batch still applies.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use control_plane_service_model::model::{NodeRoute, Service};
use control_plane_service_model::wire::decode_endpoints;
use prost::Message as _;
use proto::agent::v1 as pb;

use crate::snapshot::{ClusterConfig, ObjectName, ServiceEntry, Snapshot};

/// An item that this agent could not take over; the old version stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {key} at version {version} was skipped: {reason}")]
pub struct Skipped {
    /// Type of the item.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// Its version.
    pub version: u64,
    /// Why.
    pub reason: String,
}

/// Applies messages of one stream to the tables.
///
/// Owns the tables between messages. After [`Applier::welcome`] with another epoch the next batches
/// are a snapshot: what it does not list is removed at [`Applier::in_sync`], not before.
#[derive(Debug, Default)]
pub struct Applier {
    tables: Snapshot,
    listed: Option<HashSet<(i32, String)>>,
}

impl Applier {
    /// The tables as they are.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(self.tables.clone())
    }

    /// Epoch of the tables; empty before the first welcome.
    #[must_use]
    pub fn epoch(&self) -> Arc<str> {
        Arc::clone(&self.tables.epoch)
    }

    /// Epoch and sequence to resume from; an interrupted snapshot cannot be resumed.
    #[must_use]
    pub fn resume(&self) -> (String, u64) {
        if self.tables.in_sync && self.listed.is_none() {
            (self.tables.epoch.to_string(), self.tables.sequence)
        } else {
            (String::new(), 0)
        }
    }

    /// Begins a stream.
    ///
    /// # Errors
    /// An address in the cluster's configuration that is none.
    pub fn welcome(&mut self, welcome: pb::Welcome) -> Result<(), String> {
        let cluster = cluster_config(welcome.cluster.unwrap_or_default())?;
        self.tables.cluster = Arc::new(cluster);
        if *welcome.epoch != *self.tables.epoch || !self.tables.in_sync {
            self.tables.epoch = welcome.epoch.into();
            self.tables.sequence = 0;
            self.listed = Some(HashSet::new());
        }
        Ok(())
    }

    /// Applies one batch. Answers what could not be taken over.
    pub fn batch(&mut self, batch: pb::Batch) -> Vec<Skipped> {
        let mut skipped = Vec::new();
        if batch.snapshot && self.listed.is_none() {
            self.listed = Some(HashSet::new());
        }
        for upsert in batch.upserts {
            if let Some(listed) = &mut self.listed {
                listed.insert((upsert.r#type, upsert.key.clone()));
            }
            if let Err(reason) = upsert_into(&mut self.tables, &upsert) {
                skipped.push(Skipped {
                    kind: kind_name(upsert.r#type),
                    key: upsert.key,
                    version: upsert.version,
                    reason,
                });
            }
        }
        for remove in batch.removes {
            if let Some(listed) = &mut self.listed {
                listed.remove(&(remove.r#type, remove.key.clone()));
            }
            remove_from(&mut self.tables, remove.r#type, &remove.key);
        }
        self.tables.sequence = batch.sequence;
        self.tables.revision = self.tables.revision.max(batch.revision);
        self.tables.triggered = (batch.trigger_unix_us != 0)
            .then(|| SystemTime::UNIX_EPOCH + Duration::from_micros(batch.trigger_unix_us));
        skipped
    }

    /// Ends a snapshot: removes what it did not list.
    pub fn in_sync(&mut self, message: &pb::InSync) {
        if let Some(listed) = self.listed.take() {
            for (kind, key) in held(&self.tables) {
                if !listed.contains(&(kind, key.clone())) {
                    remove_from(&mut self.tables, kind, &key);
                }
            }
        }
        self.tables.in_sync = true;
        self.tables.sequence = self.tables.sequence.max(message.sequence);
        self.tables.revision = self.tables.revision.max(message.revision);
    }
}

fn kind_name(kind: i32) -> String {
    pb::Type::try_from(kind).map_or_else(
        |_unknown| format!("type {kind}"),
        |known| known.as_str_name().to_owned(),
    )
}

fn cluster_config(wire: pb::ClusterConfig) -> Result<ClusterConfig, String> {
    let address = |text: &String| {
        text.parse::<IpAddr>()
            .map_err(|error| format!("cluster DNS address {text:?}: {error}"))
    };
    let port = |number: u32| {
        u16::try_from(number).map_err(|_range| format!("node port {number} is above 65535"))
    };
    Ok(ClusterConfig {
        cluster_dns: wire
            .cluster_dns
            .iter()
            .map(address)
            .collect::<Result<_, _>>()?,
        node_ports: (port(wire.node_port_first)?, port(wire.node_port_last)?),
        cluster_domain: wire.cluster_domain,
        service_cidrs: wire.service_cidrs,
        pod_cidrs: wire.pod_cidrs,
        api_servers: wire.api_servers,
        ca: wire.ca,
    })
}

fn object_name(key: &str) -> Result<ObjectName, String> {
    ObjectName::parse(key).ok_or_else(|| format!("key {key:?} is not namespace/name"))
}

fn upsert_into(tables: &mut Snapshot, upsert: &pb::Upsert) -> Result<(), String> {
    fn json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<Arc<T>, String> {
        serde_json::from_slice(body)
            .map(Arc::new)
            .map_err(|error| error.to_string())
    }
    let body = upsert.body.as_ref();
    match pb::Type::try_from(upsert.r#type) {
        Ok(pb::Type::Pod) => {
            tables.pods.insert(upsert.key.as_str().into(), json(body)?);
        }
        Ok(pb::Type::ConfigMap) => {
            tables
                .config_maps
                .insert(object_name(&upsert.key)?, json(body)?);
        }
        Ok(pb::Type::Secret) => {
            tables
                .secrets
                .insert(object_name(&upsert.key)?, json(body)?);
        }
        Ok(pb::Type::Service) => {
            let wire = pb::Service::decode(body).map_err(|error| error.to_string())?;
            let service = Service::try_from(wire).map_err(|error| error.to_string())?;
            change_service(tables, &upsert.key, |entry| {
                entry.service = Some(Arc::new(service))
            })?;
        }
        Ok(pb::Type::Endpoints) => {
            let wire = pb::ServiceEndpoints::decode(body).map_err(|error| error.to_string())?;
            let endpoints = decode_endpoints(wire).map_err(|error| error.to_string())?;
            change_service(tables, &upsert.key, |entry| {
                entry.endpoints = Arc::new(endpoints)
            })?;
        }
        Ok(pb::Type::NodeRoute) => {
            let wire = pb::NodeRoute::decode(body).map_err(|error| error.to_string())?;
            let route = NodeRoute::try_from(wire).map_err(|error| error.to_string())?;
            tables
                .nodes
                .insert(upsert.key.as_str().into(), Arc::new(route));
        }
        Ok(pb::Type::Unspecified) | Err(_) => {
            return Err("this agent does not know the type; it is newer than the agent".into());
        }
    }
    Ok(())
}

fn change_service(
    tables: &mut Snapshot,
    key: &str,
    change: impl FnOnce(&mut ServiceEntry),
) -> Result<(), String> {
    let name = object_name(key)?;
    let mut entry = tables
        .services
        .get(&name)
        .map(|old| (**old).clone())
        .unwrap_or_default();
    change(&mut entry);
    if entry == ServiceEntry::default() {
        tables.services.remove(&name);
    } else {
        tables.services.insert(name, Arc::new(entry));
    }
    Ok(())
}

fn remove_from(tables: &mut Snapshot, kind: i32, key: &str) {
    match pb::Type::try_from(kind) {
        Ok(pb::Type::Pod) => {
            tables.pods.remove(key);
        }
        Ok(pb::Type::NodeRoute) => {
            tables.nodes.remove(key);
        }
        Ok(pb::Type::ConfigMap) => {
            ObjectName::parse(key).and_then(|name| tables.config_maps.remove(&name));
        }
        Ok(pb::Type::Secret) => {
            ObjectName::parse(key).and_then(|name| tables.secrets.remove(&name));
        }
        // A key that does not parse was never inserted: nothing to remove.
        Ok(pb::Type::Service) => {
            let _absent = change_service(tables, key, |entry| entry.service = None);
        }
        Ok(pb::Type::Endpoints) => {
            let _absent = change_service(tables, key, |entry| entry.endpoints = Arc::default());
        }
        Ok(pb::Type::Unspecified) | Err(_) => {}
    }
}

/// Every item that the tables hold, as the stream names it.
fn held(tables: &Snapshot) -> Vec<(i32, String)> {
    let mut items: Vec<(i32, String)> = Vec::new();
    items.extend(
        tables
            .pods
            .keys()
            .map(|uid| (pb::Type::Pod.into(), uid.to_string())),
    );
    items.extend(
        tables
            .config_maps
            .keys()
            .map(|name| (pb::Type::ConfigMap.into(), name.to_string())),
    );
    items.extend(
        tables
            .secrets
            .keys()
            .map(|name| (pb::Type::Secret.into(), name.to_string())),
    );
    for (name, entry) in &tables.services {
        if entry.service.is_some() {
            items.push((pb::Type::Service.into(), name.to_string()));
        }
        if !entry.endpoints.is_empty() {
            items.push((pb::Type::Endpoints.into(), name.to_string()));
        }
    }
    items.extend(
        tables
            .nodes
            .keys()
            .map(|name| (pb::Type::NodeRoute.into(), name.to_string())),
    );
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(epoch: &str) -> pb::Welcome {
        pb::Welcome {
            epoch: epoch.into(),
            ..pb::Welcome::default()
        }
    }

    fn service(name: &str) -> pb::Upsert {
        let body = pb::Service {
            namespace: "default".into(),
            name: name.into(),
            cluster_ips: vec![vec![10, 96, 0, 9]],
            ..pb::Service::default()
        };
        pb::Upsert {
            r#type: pb::Type::Service.into(),
            key: format!("default/{name}"),
            version: 1,
            body: body.encode_to_vec().into(),
        }
    }

    fn batch(sequence: u64, snapshot: bool, upserts: Vec<pb::Upsert>) -> pb::Batch {
        pb::Batch {
            sequence,
            revision: sequence,
            snapshot,
            upserts,
            ..pb::Batch::default()
        }
    }

    fn names(applier: &Applier) -> Vec<String> {
        applier
            .snapshot()
            .services
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_reconnect_removes_nothing_before_the_snapshot_ends() {
        let mut applier = Applier::default();
        applier.welcome(welcome("a")).unwrap();
        applier.batch(batch(1, true, vec![service("one"), service("two")]));
        applier.in_sync(&pb::InSync {
            sequence: 1,
            revision: 1,
        });
        assert_eq!(applier.resume(), ("a".into(), 1));

        applier.welcome(welcome("b")).unwrap();
        assert_eq!(names(&applier), ["default/one", "default/two"]);
        applier.batch(batch(1, true, vec![service("two"), service("three")]));
        assert_eq!(
            names(&applier),
            ["default/one", "default/three", "default/two"]
        );
        assert_eq!(applier.resume(), (String::new(), 0));
        applier.in_sync(&pb::InSync {
            sequence: 1,
            revision: 9,
        });
        assert_eq!(names(&applier), ["default/three", "default/two"]);
        assert_eq!(applier.snapshot().revision, 9);
    }

    #[test]
    fn a_resumed_stream_keeps_what_it_does_not_mention() {
        let mut applier = Applier::default();
        applier.welcome(welcome("a")).unwrap();
        applier.batch(batch(1, true, vec![service("one")]));
        applier.in_sync(&pb::InSync {
            sequence: 1,
            revision: 1,
        });
        applier.welcome(welcome("a")).unwrap();
        applier.batch(batch(2, false, vec![service("two")]));
        applier.in_sync(&pb::InSync {
            sequence: 2,
            revision: 2,
        });
        assert_eq!(names(&applier), ["default/one", "default/two"]);
    }

    #[test]
    fn an_item_that_cannot_be_read_is_skipped_and_the_rest_applies() {
        let mut applier = Applier::default();
        applier.welcome(welcome("a")).unwrap();
        let broken = pb::Upsert {
            r#type: pb::Type::Pod.into(),
            key: "uid-1".into(),
            version: 7,
            body: b"{".to_vec().into(),
        };
        let unknown = pb::Upsert {
            r#type: 99,
            key: "x".into(),
            ..pb::Upsert::default()
        };
        let skipped = applier.batch(batch(1, true, vec![broken, unknown, service("one")]));
        assert_eq!(skipped.len(), 2);
        assert!(
            skipped[0]
                .to_string()
                .starts_with("TYPE_POD uid-1 at version 7 was skipped")
        );
        assert_eq!(names(&applier), ["default/one"]);
    }

    #[test]
    fn a_service_goes_when_both_halves_are_gone() {
        let mut applier = Applier::default();
        applier.welcome(welcome("a")).unwrap();
        applier.batch(batch(1, true, vec![service("one")]));
        applier.in_sync(&pb::InSync {
            sequence: 1,
            revision: 1,
        });
        let remove = pb::Remove {
            r#type: pb::Type::Service.into(),
            key: "default/one".into(),
            version: 2,
        };
        applier.batch(pb::Batch {
            sequence: 2,
            removes: vec![remove],
            ..pb::Batch::default()
        });
        assert!(names(&applier).is_empty());
    }
}
