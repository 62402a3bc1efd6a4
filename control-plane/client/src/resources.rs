//! The resources that controllers, scheduler and node state name.

use crate::api::{Resource, Scope};

macro_rules! resources {
    ($($(#[$doc:meta])* $name:ident = $group:literal, $version:literal, $plural:literal, $kind:literal, $scope:ident;)*) => {
        $($(#[$doc])* pub const $name: Resource = Resource {
            group: $group, version: $version, plural: $plural, kind: $kind, scope: Scope::$scope,
        };)*

        /// Every resource named here.
        pub const ALL: &[Resource] = &[$($name),*];
    };
}

resources! {
    /// Pods.
    PODS = "", "v1", "pods", "Pod", Namespaced;
    /// Nodes.
    NODES = "", "v1", "nodes", "Node", Cluster;
    /// Namespaces.
    NAMESPACES = "", "v1", "namespaces", "Namespace", Cluster;
    /// Services.
    SERVICES = "", "v1", "services", "Service", Namespaced;
    /// Endpoints.
    ENDPOINTS = "", "v1", "endpoints", "Endpoints", Namespaced;
    /// Config maps.
    CONFIG_MAPS = "", "v1", "configmaps", "ConfigMap", Namespaced;
    /// Secrets.
    SECRETS = "", "v1", "secrets", "Secret", Namespaced;
    /// Service accounts.
    SERVICE_ACCOUNTS = "", "v1", "serviceaccounts", "ServiceAccount", Namespaced;
    /// Events.
    EVENTS = "", "v1", "events", "Event", Namespaced;
    /// Persistent volumes.
    PERSISTENT_VOLUMES = "", "v1", "persistentvolumes", "PersistentVolume", Cluster;
    /// Persistent volume claims.
    PERSISTENT_VOLUME_CLAIMS = "", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", Namespaced;
    /// Endpoint slices.
    ENDPOINT_SLICES = "discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", Namespaced;
    /// Leases.
    LEASES = "coordination.k8s.io", "v1", "leases", "Lease", Namespaced;
    /// Pod disruption budgets.
    POD_DISRUPTION_BUDGETS = "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", Namespaced;
    /// Deployments.
    DEPLOYMENTS = "apps", "v1", "deployments", "Deployment", Namespaced;
    /// Replica sets.
    REPLICA_SETS = "apps", "v1", "replicasets", "ReplicaSet", Namespaced;
}
