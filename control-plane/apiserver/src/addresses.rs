//! Service addresses as objects: the ranges they come from (ServiceCIDR), and who has one (IPAddress).
//!
//! Owns: what keeps both kinds true. An address is written in the commit of its service, so what is
//! repaired here is what somebody deleted by hand, and what an older release never wrote. Every
//! replica does this; their writes are equal.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::alloc::ServiceCidr;
use crate::cache::{Filter, WatchItem, WatchStart};
use crate::object::{Obj, ObjKey};
use crate::registry::{Kind, Subresource, service_address};
use crate::server::{DeleteRequest, Preconditions, Server, Target, WriteContext, new_uid};
use crate::status::StatusError;
use crate::tree;

const GROUP: &str = "networking.k8s.io";
/// The range that the server was started with.
const DEFAULT_RANGE: &str = "kubernetes";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const READY: &str = "Ready";
const RETRY: Duration = Duration::from_secs(5);

/// The range that the server was started with, as an object.
pub(crate) fn default_range(server: &Server) -> Value {
    json!({
        "metadata": {"name": DEFAULT_RANGE},
        "spec": {"cidrs": server.service_ranges.texts()},
    })
}

fn ranges_of(range: &Value) -> impl Iterator<Item = ServiceCidr> {
    let texts = tree::list(range, &["spec", "cidrs"]).iter();
    texts.filter_map(|text| text.as_str()?.parse().ok())
}

fn is_ready(range: &Value) -> bool {
    let conditions = tree::list(range, &["status", "conditions"]).iter();
    { conditions }.any(|it| it["type"] == READY && it["status"] == "True")
}

impl Server {
    /// The ranges that were added to those that the server was started with.
    pub(crate) fn added_ranges(&self) -> Vec<ServiceCidr> {
        let Some(cache) = self.cache.resource(GROUP, "servicecidrs") else {
            return Vec::new();
        };
        let all = cache.snapshot();
        let added = all
            .values()
            .filter(|range| &*range.key.name != DEFAULT_RANGE && !range.meta.terminating);
        added
            .map(|range| range.value())
            .filter(is_ready)
            .flat_map(|range| ranges_of(&range).collect::<Vec<_>>())
            .collect()
    }

    /// The object that says that a service has `address`.
    pub(crate) fn address_object(&self, address: IpAddr, service: &ObjKey) -> Value {
        let mut object = service_address::of_service(address, &service.namespace, &service.name);
        let meta = tree::object_mut(&mut object, "metadata");
        meta.insert("uid".to_owned(), json!(new_uid()));
        meta.insert("creationTimestamp".to_owned(), json!(self.now_text()));
        object
    }
}

struct Keeper {
    server: Arc<Server>,
    addresses: Arc<Kind>,
    ranges: Arc<Kind>,
    services: Arc<Kind>,
    context: WriteContext,
}

/// Makes the addresses that services have and that nobody wrote. Before anything is served.
///
/// # Errors
/// The store refuses a write.
pub(crate) async fn complete(server: &Arc<Server>) -> Result<(), StatusError> {
    let keeper = Keeper::of(server)?;
    keeper.complete().await?;
    keeper.settle_ranges().await
}

/// Keeps addresses and ranges true until `stop`.
pub(crate) async fn follow(server: Arc<Server>, stop: CancellationToken) {
    let Ok(keeper) = Keeper::of(&server) else {
        return;
    };
    while !stop.is_cancelled() {
        let kept = stop.run_until_cancelled(keeper.keep()).await;
        if let Some(Err(fault)) = kept {
            warn!(%fault, "service addresses are not kept true; trying again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

impl Keeper {
    fn of(server: &Arc<Server>) -> Result<Self, StatusError> {
        Ok(Self {
            server: Arc::clone(server),
            addresses: server.kind(GROUP, "v1", "ipaddresses")?,
            ranges: server.kind(GROUP, "v1", "servicecidrs")?,
            services: server.kind("", "v1", "services")?,
            context: WriteContext::own(),
        })
    }

    /// Until the watch breaks off, or a write is refused.
    async fn keep(&self) -> Result<(), StatusError> {
        let everything = Filter::in_namespace("");
        let start = WatchStart::State(Some(0));
        let mut deleted = self
            .server
            .watch(&self.addresses, everything, start)
            .await?;
        let mut ranges = self.server.cache.of(&self.ranges).tail();
        self.complete().await?;
        loop {
            self.settle_ranges().await?;
            // Cancel safe: neither takes anything before it returns.
            tokio::select! {
                changed = ranges.changed() => if changed.is_err() { return Ok(()) },
                items = deleted.next() => {
                    let Ok(items) = items else {
                        return Ok(());
                    };
                    for item in items {
                        if let WatchItem::Deleted(address) = item {
                            self.put_back(&address).await?;
                        }
                    }
                }
            }
        }
    }

    fn services_address(&self, service: &ObjKey, address: &str) -> bool {
        let service = self.server.cache.of(&self.services).get(service);
        service.is_some_and(|service| {
            let service = service.value();
            tree::text(&service, &["spec", "type"]) != "ExternalName"
                && tree::list(&service, &["spec", "clusterIPs"])
                    .iter()
                    .any(|ip| ip == address)
        })
    }

    /// An address is gone: if its service still has it, it was deleted by hand.
    async fn put_back(&self, address: &Obj) -> Result<(), StatusError> {
        // Its service may have gone with it.
        self.server.cache.wait_for(address.rv).await?;
        let object = address.value();
        let Some(service) = parent(&object) else {
            return Ok(());
        };
        if !self.services_address(&service, &address.key.name) {
            return Ok(());
        }
        let made = self.create(&address.key.name, &service).await;
        if let Err(fault) = &made
            && fault.reason == "AlreadyExists"
        {
            warn!(
                address = &*address.key.name,
                ?service,
                "the address of a service is another's"
            );
            return Ok(());
        }
        made
    }

    async fn create(&self, address: &str, service: &ObjKey) -> Result<(), StatusError> {
        let Ok(address) = address.parse::<IpAddr>() else {
            return Ok(());
        };
        let object = service_address::of_service(address, &service.namespace, &service.name);
        let made = self
            .server
            .create(&self.addresses, "", object, &self.context);
        made.await.map(|_| ())
    }

    /// Compares all services with all addresses.
    async fn complete(&self) -> Result<(), StatusError> {
        let services = self.server.cache.of(&self.services).snapshot();
        let addresses = self.server.cache.of(&self.addresses).snapshot();
        for (key, service) in &services {
            let service = service.value();
            if tree::text(&service, &["spec", "type"]) == "ExternalName" {
                continue;
            }
            for ip in tree::list(&service, &["spec", "clusterIPs"]) {
                let ip = ip.as_str().unwrap_or_default();
                if ip == "None" || addresses.contains_key(&ObjKey::new("", ip)) {
                    continue;
                }
                match self.create(ip, key).await {
                    Err(fault) if fault.reason != "AlreadyExists" => return Err(fault),
                    _ => {}
                }
            }
        }
        for (key, address) in &addresses {
            let object = address.value();
            let Some(service) = parent(&object).filter(|_| service_address::is_of_service(&object))
            else {
                continue;
            };
            if !self.services_address(&service, &key.name) {
                let target = Target::new(&self.addresses, "", &key.name);
                let request = DeleteRequest {
                    preconditions: Preconditions {
                        uid: Some(address.meta.uid.to_string()),
                        ..Preconditions::default()
                    },
                    ..DeleteRequest::default()
                };
                let gone = self.server.delete(&target, &request, &self.context).await;
                gone_is_well(gone.map(|_| ()))?;
            }
        }
        Ok(())
    }

    /// Every range is ready, until it is deleted; it goes when no address needs it.
    async fn settle_ranges(&self) -> Result<(), StatusError> {
        let all = self.server.cache.of(&self.ranges).snapshot();
        if !all.contains_key(&ObjKey::new("", DEFAULT_RANGE)) {
            let range = default_range(&self.server);
            let ensured = self.server.ensure(&self.ranges, "", range, &self.context);
            return ensured.await;
        }
        for (key, range) in &all {
            let object = range.value();
            if !range.meta.terminating {
                self.hold(&key.name, &object).await?;
                continue;
            }
            let others: Vec<ServiceCidr> = all
                .values()
                .filter(|other| other.key != *key && !other.meta.terminating)
                .flat_map(|other| ranges_of(&other.value()).collect::<Vec<_>>())
                .collect();
            let own: Vec<ServiceCidr> = ranges_of(&object).collect();
            let addresses = self.server.cache.of(&self.addresses).snapshot();
            let needed = addresses.keys().any(|key| {
                let Ok(address) = key.name.parse::<IpAddr>() else {
                    return false;
                };
                let within = |ranges: &[ServiceCidr]| ranges.iter().any(|it| it.contains(address));
                within(&own) && !within(&others)
            });
            if needed {
                let message = "There are still IPAddresses referencing the ServiceCIDR, please \
                    remove them or create a new ServiceCIDR";
                self.tell(&key.name, &object, ("False", "Terminating", message))
                    .await?;
            } else {
                self.release(&key.name).await?;
            }
        }
        Ok(())
    }

    async fn hold(&self, name: &str, range: &Value) -> Result<(), StatusError> {
        if !has_finalizer(range) {
            let target = Target::new(&self.ranges, "", name);
            let written = self.server.modify(&target, &self.context, |old| {
                let mut new = old.clone();
                let meta = tree::object_mut(&mut new, "metadata");
                if !has_finalizer(old) && !meta.contains_key("deletionTimestamp") {
                    let mut finalizers = tree::list(old, &["metadata", "finalizers"]).to_vec();
                    finalizers.push(json!(FINALIZER));
                    meta.insert("finalizers".to_owned(), json!(finalizers));
                }
                Ok(new)
            });
            gone_is_well(written.await.map(|_| ()))?;
        }
        self.tell(
            name,
            range,
            ("True", "", "Kubernetes Service CIDR is ready"),
        )
        .await
    }

    async fn release(&self, name: &str) -> Result<(), StatusError> {
        let target = Target::new(&self.ranges, "", name);
        let written = self.server.modify(&target, &self.context, |old| {
            let mut new = old.clone();
            let mut finalizers = tree::list(old, &["metadata", "finalizers"]).to_vec();
            finalizers.retain(|finalizer| finalizer != FINALIZER);
            let meta = tree::object_mut(&mut new, "metadata");
            meta.insert("finalizers".to_owned(), json!(finalizers));
            Ok(new)
        });
        gone_is_well(written.await.map(|_| ()))
    }

    async fn tell(
        &self,
        name: &str,
        range: &Value,
        (status, reason, message): (&str, &str, &str),
    ) -> Result<(), StatusError> {
        let told = |range: &Value| {
            let conditions = tree::list(range, &["status", "conditions"]).iter();
            { conditions }
                .any(|it| it["type"] == READY && it["status"] == status && it["reason"] == reason)
        };
        if told(range) {
            return Ok(());
        }
        let target = Target {
            subresource: Some(Subresource::Status),
            ..Target::new(&self.ranges, "", name)
        };
        let condition = json!({"type": READY, "status": status, "reason": reason,
            "message": message, "lastTransitionTime": self.server.now_text()});
        let written = self.server.modify(&target, &self.context, |old| {
            let mut new = old.clone();
            let mut conditions = tree::list(old, &["status", "conditions"]).to_vec();
            conditions.retain(|it| it["type"] != READY);
            conditions.push(condition.clone());
            let status = tree::object_mut(&mut new, "status");
            status.insert("conditions".to_owned(), json!(conditions));
            Ok(new)
        });
        gone_is_well(written.await.map(|_| ()))
    }
}

fn has_finalizer(object: &Value) -> bool {
    let finalizers = tree::list(object, &["metadata", "finalizers"]);
    finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}

/// The service that an address belongs to.
fn parent(address: &Value) -> Option<ObjKey> {
    let parent = tree::at(address, &["spec", "parentRef"]);
    let is_service = tree::text(parent, &["resource"]) == "services"
        && tree::text(parent, &["group"]).is_empty();
    is_service.then(|| {
        ObjKey::new(
            tree::text(parent, &["namespace"]),
            tree::text(parent, &["name"]),
        )
    })
}

fn gone_is_well(written: Result<(), StatusError>) -> Result<(), StatusError> {
    match written {
        Err(fault) if fault.code == 404 => Ok(()),
        other => other,
    }
}
