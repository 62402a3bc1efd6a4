//! How the parts of the control plane are, as `ComponentStatus` objects: asked for at each read,
//! kept nowhere.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::RwLock;
use serde_json::{Value, json};

use super::Server;
use crate::cache::{ListRequest, Listing, ObjMap};
use crate::object::{Obj, ObjKey, encode};
use crate::registry::Kind;
use crate::status::StatusError;
use crate::tree;

/// Tells how a component is: nothing, or why it is not well.
pub type Probe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Upstream's name of the store.
const STORE: &str = "etcd-0";
/// The components beside the store.
const OTHERS: [&str; 2] = ["controller-manager", "scheduler"];
/// The lease of the replica that runs the components, when this one does not.
const LEADER: (&str, &str) = ("kube-system", "skep-control-plane");

/// Probes by component.
#[derive(Default)]
pub(crate) struct Components(RwLock<BTreeMap<&'static str, Probe>>);

impl fmt::Debug for Components {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.read().keys()).finish()
    }
}

impl Server {
    /// Makes `probe` tell how a component of this process is; it must not block.
    pub fn watch_component(&self, name: &'static str, probe: Probe) {
        self.components.0.write().insert(name, probe);
    }

    /// Forgets a component that this process no longer runs.
    pub fn forget_component(&self, name: &'static str) {
        self.components.0.write().remove(name);
    }

    pub(super) async fn list_components(
        &self,
        kind: &Kind,
        request: &ListRequest,
    ) -> Result<Listing, StatusError> {
        let mut objects = ObjMap::new();
        for name in OTHERS.into_iter().chain([STORE]) {
            let obj = self.component(kind, name).await?;
            objects.insert(obj.key.clone(), obj);
        }
        Ok(Listing::of(objects, &request.filter))
    }

    /// One component as an object; `NotFound` for others.
    pub(super) async fn component(&self, kind: &Kind, name: &str) -> Result<Arc<Obj>, StatusError> {
        let found = if name == STORE {
            match self.store.barrier().await {
                Ok(_) => Ok(()),
                Err(fault) => Err(fault.to_string()),
            }
        } else if OTHERS.contains(&name) {
            let probe = self.components.0.read().get(name).cloned();
            probe.map_or_else(|| self.led_elsewhere(name), |probe| probe())
        } else {
            return Err(StatusError::not_found(kind.group_resource(), name));
        };
        let object = json!({
            "kind": kind.kind, "apiVersion": kind.api_version(),
            "metadata": {"name": name}, "conditions": [condition(found)],
        });
        let bytes = encode(&object).map_err(StatusError::internal)?;
        let key = ObjKey::new("", name);
        Obj::from_stored(key, &bytes, 0, |peek| kind.read_fields(peek))
            .map(Arc::new)
            .map_err(StatusError::internal)
    }

    /// Of several replicas one runs the components, and says so by a lease.
    fn led_elsewhere(&self, name: &str) -> Result<(), String> {
        let key = ObjKey::new(LEADER.0, LEADER.1);
        let lease = self
            .cache
            .resource("coordination.k8s.io", "leases")
            .and_then(|leases| leases.get(&key));
        let Some(lease) = lease else {
            return Err(format!("no replica runs the {name}"));
        };
        let lease = lease.value();
        match age(&lease, (self.clock)()) {
            Some((age, most)) if age <= most => Ok(()),
            _ => {
                let holder = tree::text(&lease, &["spec", "holderIdentity"]);
                Err(format!("{holder:?}, which runs the {name}, is silent"))
            }
        }
    }
}

/// How long ago a lease was renewed, and how long that lasts.
fn age(lease: &Value, now: Timestamp) -> Option<(SignedDuration, SignedDuration)> {
    let renewed: Timestamp = tree::text(lease, &["spec", "renewTime"]).parse().ok()?;
    let most = tree::int(lease, &["spec", "leaseDurationSeconds"])?;
    Some((now.duration_since(renewed), SignedDuration::from_secs(most)))
}

fn condition(found: Result<(), String>) -> Value {
    match found {
        Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(why) => json!({"type": "Healthy", "status": "False", "error": why}),
    }
}
