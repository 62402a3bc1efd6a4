//! The typed kinds that can be cached, and what the store may index of them.

use proto_api::types::Object as TypedObject;
use proto_api::types::apps::v1::{Deployment, ReplicaSet};
use proto_api::types::coordination::v1::Lease;
use proto_api::types::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
    Secret, Service, ServiceAccount,
};
use proto_api::types::discovery::v1::EndpointSlice;
use proto_api::types::policy::v1::PodDisruptionBudget;

use crate::api::Resource;
use crate::resources;

/// A kind with a shared store.
pub trait Kind: TypedObject {
    /// The resource that holds objects of this kind.
    const RESOURCE: Resource;
    /// Whether the store indexes labels: for kinds that selectors look up often.
    const LABEL_INDEX: bool = false;

    /// The node this object is on, for the node index.
    fn node(&self) -> Option<&str> {
        None
    }
}

macro_rules! kinds {
    ($($kind:ty => $resource:ident;)*) => {
        $(impl Kind for $kind {
            const RESOURCE: Resource = resources::$resource;
        })*
    };
}

kinds! {
    ConfigMap => CONFIG_MAPS;
    Deployment => DEPLOYMENTS;
    Endpoints => ENDPOINTS;
    EndpointSlice => ENDPOINT_SLICES;
    Event => EVENTS;
    Lease => LEASES;
    Namespace => NAMESPACES;
    Node => NODES;
    PersistentVolume => PERSISTENT_VOLUMES;
    PersistentVolumeClaim => PERSISTENT_VOLUME_CLAIMS;
    PodDisruptionBudget => POD_DISRUPTION_BUDGETS;
    ReplicaSet => REPLICA_SETS;
    Secret => SECRETS;
    Service => SERVICES;
    ServiceAccount => SERVICE_ACCOUNTS;
}

impl Kind for Pod {
    const RESOURCE: Resource = resources::PODS;
    const LABEL_INDEX: bool = true;

    fn node(&self) -> Option<&str> {
        self.spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref())
            .filter(|node| !node.is_empty())
    }
}
