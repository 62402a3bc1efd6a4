//! The roles of upstream's controllers (`system:controller:*`), as data: those of Kubernetes 1.37.
//!
//! Controllers of this process call without roles. These are for controllers that run elsewhere under
//! the usual accounts of `kube-system`, and for tools that read them. Each is bound to the account
//! of its name.

use super::policy::{EVENTS, READ, Row};

const WATCH: &str = "list watch";
const FULL: &str = "create delete get list patch update watch";
const APPS: &str = "apps extensions";

/// Name without `system:controller:`, and rules.
pub(super) const CONTROLLERS: &[(&str, &[Row])] = &[
    (
        "attachdetach-controller",
        &[
            (
                WATCH,
                "core",
                "persistentvolumeclaims persistentvolumes pods",
                "",
            ),
            (READ, "core", "nodes", ""),
            ("patch update", "core", "nodes/status", ""),
            (
                "create delete get list watch",
                "storage.k8s.io",
                "volumeattachments",
                "",
            ),
            (READ, "storage.k8s.io", "csidrivers csinodes", ""),
            EVENTS,
        ],
    ),
    (
        "certificate-controller",
        &[
            (
                "delete get list watch",
                "certificates.k8s.io",
                "certificatesigningrequests",
                "",
            ),
            (
                "update",
                "certificates.k8s.io",
                "certificatesigningrequests/approval certificatesigningrequests/status",
                "",
            ),
            (
                "approve",
                "certificates.k8s.io",
                "signers",
                "kubernetes.io/kube-apiserver-client-kubelet",
            ),
            (
                "sign",
                "certificates.k8s.io",
                "signers",
                "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet \
                 kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown",
            ),
            ("create", "authorization.k8s.io", "subjectaccessreviews", ""),
            EVENTS,
        ],
    ),
    (
        "clusterrole-aggregation-controller",
        &[(
            "escalate get list patch update watch",
            "rbac.authorization.k8s.io",
            "clusterroles",
            "",
        )],
    ),
    (
        "cronjob-controller",
        &[
            ("get list update watch", "batch", "cronjobs", ""),
            (FULL, "batch", "jobs", ""),
            ("update", "batch", "cronjobs/status cronjobs/finalizers", ""),
            ("delete list watch", "core", "pods", ""),
            EVENTS,
        ],
    ),
    (
        "daemon-set-controller",
        &[
            (READ, APPS, "daemonsets", ""),
            (
                "update",
                APPS,
                "daemonsets/status daemonsets/finalizers",
                "",
            ),
            (WATCH, "core", "nodes", ""),
            ("create delete list patch watch", "core", "pods", ""),
            ("create", "core", "pods/binding", ""),
            (FULL, "apps", "controllerrevisions", ""),
            EVENTS,
        ],
    ),
    (
        "deployment-controller",
        &[
            ("get list update watch", APPS, "deployments", ""),
            (
                "update",
                APPS,
                "deployments/status deployments/finalizers",
                "",
            ),
            (FULL, APPS, "replicasets", ""),
            ("get list update watch", "core", "pods", ""),
            EVENTS,
        ],
    ),
    (
        "device-taint-eviction-controller",
        &[
            ("delete get list watch", "core", "pods", ""),
            ("patch update", "core", "pods/status", ""),
            (
                READ,
                "resource.k8s.io",
                "resourceclaims resourceslices deviceclasses",
                "",
            ),
            EVENTS,
        ],
    ),
    (
        "disruption-controller",
        &[
            (READ, APPS, "deployments replicasets", ""),
            (READ, "core", "replicationcontrollers", ""),
            (READ, "policy", "poddisruptionbudgets", ""),
            (READ, "apps", "statefulsets", ""),
            ("update", "policy", "poddisruptionbudgets/status", ""),
            ("patch update", "core", "pods/status", ""),
            ("get", "*", "*/scale", ""),
            EVENTS,
        ],
    ),
    (
        "endpoint-controller",
        &[
            (READ, "core", "pods services", ""),
            (
                "create delete get list update watch",
                "core",
                "endpoints",
                "",
            ),
            ("create", "core", "endpoints/restricted", ""),
            EVENTS,
        ],
    ),
    (
        "endpointslice-controller",
        &[
            (READ, "core", "nodes pods services", ""),
            ("update", "core", "services/finalizers", ""),
            (
                "create delete get list update watch",
                "discovery.k8s.io",
                "endpointslices",
                "",
            ),
            EVENTS,
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            (READ, "core", "endpoints services", ""),
            (
                "update",
                "core",
                "services/finalizers endpoints/finalizers",
                "",
            ),
            (
                "create delete get list update watch",
                "discovery.k8s.io",
                "endpointslices",
                "",
            ),
            EVENTS,
        ],
    ),
    (
        "ephemeral-volume-controller",
        &[
            (READ, "core", "pods", ""),
            ("update", "core", "pods/finalizers", ""),
            (
                "create get list watch",
                "core",
                "persistentvolumeclaims",
                "",
            ),
            EVENTS,
        ],
    ),
    (
        "expand-controller",
        &[
            (
                "get list patch update watch",
                "core",
                "persistentvolumes",
                "",
            ),
            ("patch update", "core", "persistentvolumeclaims/status", ""),
            (READ, "core", "persistentvolumeclaims", ""),
            EVENTS,
        ],
    ),
    (
        "generic-garbage-collector",
        &[("delete get list patch update watch", "*", "*", ""), EVENTS],
    ),
    (
        "horizontal-pod-autoscaler",
        &[
            (READ, "autoscaling", "horizontalpodautoscalers", ""),
            (
                "update",
                "autoscaling",
                "horizontalpodautoscalers/status",
                "",
            ),
            ("get update", "*", "*/scale", ""),
            (WATCH, "core", "pods", ""),
            (WATCH, "metrics.k8s.io", "pods", ""),
            (READ, "custom.metrics.k8s.io", "*", ""),
            (READ, "external.metrics.k8s.io", "*", ""),
            EVENTS,
        ],
    ),
    (
        "job-controller",
        &[
            ("get list patch update watch", "batch", "jobs", ""),
            ("update", "batch", "jobs/status jobs/finalizers", ""),
            ("create delete list patch watch", "core", "pods", ""),
            EVENTS,
        ],
    ),
    (
        "legacy-service-account-token-cleaner",
        &[
            (
                "get",
                "core",
                "configmaps",
                "kube-apiserver-legacy-service-account-token-tracking",
            ),
            ("delete patch", "core", "secrets", ""),
        ],
    ),
    (
        "namespace-controller",
        &[
            ("delete get list watch", "core", "namespaces", ""),
            (
                "update",
                "core",
                "namespaces/finalize namespaces/status",
                "",
            ),
            ("delete deletecollection get list watch", "*", "*", ""),
        ],
    ),
    (
        "node-controller",
        &[
            ("delete get list patch update watch", "core", "nodes", ""),
            ("patch update", "core", "nodes/status pods/status", ""),
            ("delete get list watch", "core", "pods", ""),
            EVENTS,
        ],
    ),
    (
        "persistent-volume-binder",
        &[
            (
                "create delete get list update watch",
                "core",
                "persistentvolumes",
                "",
            ),
            (
                "update",
                "core",
                "persistentvolumes/status persistentvolumeclaims/status",
                "",
            ),
            (
                "get list update watch",
                "core",
                "persistentvolumeclaims",
                "",
            ),
            ("create delete get list watch", "core", "pods", ""),
            (READ, "storage.k8s.io", "storageclasses", ""),
            (WATCH, "core", "nodes", ""),
            EVENTS,
            ("watch", "core", "events", ""),
        ],
    ),
    (
        "pod-garbage-collector",
        &[
            ("delete list watch", "core", "pods", ""),
            (READ, "core", "nodes", ""),
            ("patch", "core", "pods/status", ""),
        ],
    ),
    (
        "pv-protection-controller",
        &[
            ("get list update watch", "core", "persistentvolumes", ""),
            EVENTS,
        ],
    ),
    (
        "pvc-protection-controller",
        &[
            (
                "get list update watch",
                "core",
                "persistentvolumeclaims",
                "",
            ),
            ("update", "core", "persistentvolumeclaims/status", ""),
            (READ, "core", "pods", ""),
            EVENTS,
        ],
    ),
    (
        "replicaset-controller",
        &[
            ("get list update watch", APPS, "replicasets", ""),
            (
                "update",
                APPS,
                "replicasets/status replicasets/finalizers",
                "",
            ),
            ("create delete list patch watch", "core", "pods", ""),
            EVENTS,
        ],
    ),
    (
        "replication-controller",
        &[
            (
                "get list update watch",
                "core",
                "replicationcontrollers",
                "",
            ),
            (
                "update",
                "core",
                "replicationcontrollers/status replicationcontrollers/finalizers",
                "",
            ),
            ("create delete list patch watch", "core", "pods", ""),
            EVENTS,
        ],
    ),
    (
        "resource-claim-controller",
        &[
            (READ, "core", "pods", ""),
            ("update", "core", "pods/finalizers", ""),
            (
                "create delete get list watch",
                "resource.k8s.io",
                "resourceclaims",
                "",
            ),
            (
                "patch update",
                "resource.k8s.io",
                "resourceclaims resourceclaims/status resourceclaims/binding",
                "",
            ),
            ("patch update", "core", "pods/status", ""),
            EVENTS,
        ],
    ),
    (
        "resourcequota-controller",
        &[
            (WATCH, "*", "*", ""),
            ("update", "core", "resourcequotas/status", ""),
            EVENTS,
        ],
    ),
    (
        "root-ca-cert-publisher",
        &[("create update", "core", "configmaps", ""), EVENTS],
    ),
    (
        "route-controller",
        &[
            (WATCH, "core", "nodes", ""),
            ("patch", "core", "nodes/status", ""),
            EVENTS,
        ],
    ),
    (
        "selinux-warning-controller",
        &[
            EVENTS,
            (
                READ,
                "core",
                "persistentvolumes persistentvolumeclaims pods",
                "",
            ),
            (READ, "storage.k8s.io", "csidrivers", ""),
        ],
    ),
    (
        "service-account-controller",
        &[("create", "core", "serviceaccounts", ""), EVENTS],
    ),
    (
        "service-cidrs-controller",
        &[
            (
                "get list patch update watch",
                "networking.k8s.io",
                "servicecidrs",
                "",
            ),
            (
                "patch update",
                "networking.k8s.io",
                "servicecidrs/finalizers servicecidrs/status",
                "",
            ),
            (READ, "networking.k8s.io", "ipaddresses", ""),
            EVENTS,
        ],
    ),
    (
        "service-controller",
        &[
            (READ, "core", "services", ""),
            ("patch update", "core", "services/status", ""),
            (WATCH, "core", "nodes", ""),
            EVENTS,
        ],
    ),
    (
        "statefulset-controller",
        &[
            (FULL, "core", "pods", ""),
            (READ, "apps", "statefulsets", ""),
            (
                "update",
                "apps",
                "statefulsets/status statefulsets/finalizers",
                "",
            ),
            (FULL, "apps", "controllerrevisions", ""),
            (
                "create delete get list update watch",
                "core",
                "persistentvolumeclaims",
                "",
            ),
            ("update", "core", "pods/finalizers", ""),
            EVENTS,
        ],
    ),
    (
        "ttl-after-finished-controller",
        &[("delete get list watch", "batch", "jobs", ""), EVENTS],
    ),
    (
        "ttl-controller",
        &[("list patch update watch", "core", "nodes", ""), EVENTS],
    ),
    (
        "validatingadmissionpolicy-status-controller",
        &[
            (
                READ,
                "admissionregistration.k8s.io",
                "validatingadmissionpolicies",
                "",
            ),
            (
                "get patch update",
                "admissionregistration.k8s.io",
                "validatingadmissionpolicies/status",
                "",
            ),
            EVENTS,
        ],
    ),
    (
        "volumeattributesclass-protection-controller",
        &[
            (READ, "core", "persistentvolumeclaims persistentvolumes", ""),
            (
                "get list update watch",
                "storage.k8s.io",
                "volumeattributesclasses",
                "",
            ),
            EVENTS,
        ],
    ),
];
