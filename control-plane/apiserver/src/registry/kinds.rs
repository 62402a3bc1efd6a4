//! The table of kinds. A new built-in kind is a row here and a strategy beside it.

use super::Subresource::{
    Approval, Attach, Binding, Ephemeralcontainers, Eviction, Exec, Finalize, Log, Portforward,
    Proxy, Resize, Scale, Status, Token,
};
use super::row::{GroupVersion, Row, cluster, namespaced};
use super::{
    FieldReader, admission_policy, autoscaling, batch, certificate_request, component_status,
    config_map, controller_revision, csi, custom_resource_definition, daemon_set, endpoint_slice,
    endpoints, event, flow_control, ingress, lease, limit_range, namespace, network_policy, node,
    pod, pod_disruption_budget, pod_template, priority_class, rbac, replication_controller,
    resource_quota, runtime_class, secret, service, service_account, service_address, stateful_set,
    storage_class, trust_bundle, volume, volume_claim, webhook_configuration, workload,
};

const CORE: GroupVersion = ("", "v1");
const ADMISSION: GroupVersion = ("admissionregistration.k8s.io", "v1");
const APIEXTENSIONS: GroupVersion = ("apiextensions.k8s.io", "v1");
const APPS: GroupVersion = ("apps", "v1");
const AUTOSCALING_V1: GroupVersion = ("autoscaling", "v1");
const AUTOSCALING: GroupVersion = ("autoscaling", "v2");
const BATCH: GroupVersion = ("batch", "v1");
const CERTIFICATES: GroupVersion = ("certificates.k8s.io", "v1");
const COORDINATION: GroupVersion = ("coordination.k8s.io", "v1");
const DISCOVERY: GroupVersion = ("discovery.k8s.io", "v1");
const EVENTS: GroupVersion = ("events.k8s.io", "v1");
const FLOW_CONTROL: GroupVersion = ("flowcontrol.apiserver.k8s.io", "v1");
const NETWORKING: GroupVersion = ("networking.k8s.io", "v1");
const NODE: GroupVersion = ("node.k8s.io", "v1");
const POLICY: GroupVersion = ("policy", "v1");
const RBAC: GroupVersion = ("rbac.authorization.k8s.io", "v1");
const SCHEDULING: GroupVersion = ("scheduling.k8s.io", "v1");
const STORAGE: GroupVersion = ("storage.k8s.io", "v1");

const NAMESPACE_FIELDS: &[(&str, FieldReader)] = &[("status.phase", |p| p.status.phase.or(""))];
const NODE_FIELDS: &[(&str, FieldReader)] =
    &[("spec.unschedulable", |p| p.spec.unschedulable.or("false"))];
const SECRET_FIELDS: &[(&str, FieldReader)] = &[("type", |p| p.kind_type.or(""))];
const SERVICE_FIELDS: &[(&str, FieldReader)] = &[
    ("spec.clusterIP", |p| p.spec.cluster_ip.or("")),
    ("spec.type", |p| p.spec.kind_type.or("")),
];
const REPLICA_FIELDS: &[(&str, FieldReader)] =
    &[("status.replicas", |p| p.status.replicas.or("0"))];
const JOB_FIELDS: &[(&str, FieldReader)] = &[("status.successful", |p| p.status.succeeded.or("0"))];
const SIGNER_FIELDS: &[(&str, FieldReader)] = &[("spec.signerName", |p| p.spec.signer_name.or(""))];

pub(super) const KINDS: &[Row] = &[
    cluster(
        CORE,
        "ComponentStatus",
        "componentstatuses",
        &component_status::ComponentStatus,
        &component_status::TABLE,
    )
    .short(&["cs"]),
    namespaced(
        CORE,
        "ConfigMap",
        "configmaps",
        &config_map::ConfigMap,
        &config_map::TABLE,
    )
    .short(&["cm"]),
    namespaced(
        CORE,
        "Endpoints",
        "endpoints",
        &endpoints::Endpoints,
        &endpoints::TABLE,
    )
    .short(&["ep"]),
    namespaced(CORE, "Event", "events", &event::Event, &event::TABLE)
        .short(&["ev"])
        .fields(event::FIELDS),
    cluster(
        CORE,
        "Namespace",
        "namespaces",
        &namespace::Namespace,
        &namespace::TABLE,
    )
    .short(&["ns"])
    .subresources(&[Finalize, Status])
    .fields(NAMESPACE_FIELDS),
    cluster(CORE, "Node", "nodes", &node::Node, &node::TABLE)
        .short(&["no"])
        .subresources(&[Proxy, Status])
        .fields(NODE_FIELDS),
    namespaced(CORE, "Pod", "pods", &pod::Pod, &pod::TABLE)
        .short(&["po"])
        .all()
        .subresources(&[
            Attach,
            Binding,
            Ephemeralcontainers,
            Eviction,
            Exec,
            Log,
            Portforward,
            Proxy,
            Resize,
            Status,
        ])
        .fields(pod::FIELDS),
    namespaced(CORE, "Secret", "secrets", &secret::Secret, &secret::TABLE).fields(SECRET_FIELDS),
    namespaced(
        CORE,
        "ServiceAccount",
        "serviceaccounts",
        &service_account::ServiceAccount,
        &service_account::TABLE,
    )
    .short(&["sa"])
    .subresources(&[Token]),
    namespaced(
        CORE,
        "Service",
        "services",
        &service::Service,
        &service::TABLE,
    )
    .short(&["svc"])
    .all()
    .subresources(&[Proxy, Status])
    .fields(SERVICE_FIELDS),
    namespaced(
        CORE,
        "LimitRange",
        "limitranges",
        &limit_range::LimitRange,
        &limit_range::TABLE,
    )
    .short(&["limits"]),
    cluster(
        CORE,
        "PersistentVolume",
        "persistentvolumes",
        &volume::Volume,
        &volume::TABLE,
    )
    .short(&["pv"])
    .subresources(&[Status]),
    namespaced(
        CORE,
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        &volume_claim::VolumeClaim,
        &volume_claim::TABLE,
    )
    .short(&["pvc"])
    .subresources(&[Status]),
    namespaced(
        CORE,
        "PodTemplate",
        "podtemplates",
        &pod_template::PodTemplate,
        &pod_template::TABLE,
    ),
    namespaced(
        CORE,
        "ReplicationController",
        "replicationcontrollers",
        &replication_controller::ReplicationController,
        &replication_controller::TABLE,
    )
    .short(&["rc"])
    .all()
    .subresources(&[Scale, Status])
    .fields(REPLICA_FIELDS),
    namespaced(
        CORE,
        "ResourceQuota",
        "resourcequotas",
        &resource_quota::ResourceQuota,
        &resource_quota::TABLE,
    )
    .short(&["quota"])
    .subresources(&[Status]),
    cluster(
        ADMISSION,
        "MutatingAdmissionPolicy",
        "mutatingadmissionpolicies",
        &admission_policy::Policy::Mutating,
        &admission_policy::MUTATING_TABLE,
    )
    .categories(&["api-extensions"]),
    cluster(
        ADMISSION,
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings",
        &admission_policy::Binding(admission_policy::Policy::Mutating),
        &admission_policy::BINDING_TABLE,
    )
    .categories(&["api-extensions"]),
    cluster(
        ADMISSION,
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        &webhook_configuration::WebhookConfiguration::Mutating,
        &webhook_configuration::TABLE,
    )
    .categories(&["api-extensions"]),
    cluster(
        ADMISSION,
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        &admission_policy::Policy::Validating,
        &admission_policy::VALIDATING_TABLE,
    )
    .categories(&["api-extensions"])
    .subresources(&[Status]),
    cluster(
        ADMISSION,
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        &admission_policy::Binding(admission_policy::Policy::Validating),
        &admission_policy::BINDING_TABLE,
    )
    .categories(&["api-extensions"]),
    cluster(
        ADMISSION,
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        &webhook_configuration::WebhookConfiguration::Validating,
        &webhook_configuration::TABLE,
    )
    .categories(&["api-extensions"]),
    cluster(
        APIEXTENSIONS,
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &custom_resource_definition::CustomResourceDefinition,
        &custom_resource_definition::TABLE,
    )
    .short(&["crd", "crds"])
    .categories(&["api-extensions"])
    .subresources(&[Status]),
    namespaced(
        APPS,
        "Deployment",
        "deployments",
        &workload::Deployment,
        &workload::DEPLOYMENT_TABLE,
    )
    .short(&["deploy"])
    .all()
    .subresources(&[Scale, Status]),
    namespaced(
        APPS,
        "ReplicaSet",
        "replicasets",
        &workload::ReplicaSet,
        &workload::REPLICA_SET_TABLE,
    )
    .short(&["rs"])
    .all()
    .subresources(&[Scale, Status])
    .fields(REPLICA_FIELDS),
    namespaced(
        APPS,
        "ControllerRevision",
        "controllerrevisions",
        &controller_revision::ControllerRevision,
        &controller_revision::TABLE,
    ),
    namespaced(
        APPS,
        "DaemonSet",
        "daemonsets",
        &daemon_set::DaemonSet,
        &daemon_set::TABLE,
    )
    .short(&["ds"])
    .all()
    .subresources(&[Status]),
    namespaced(
        APPS,
        "StatefulSet",
        "statefulsets",
        &stateful_set::StatefulSet,
        &stateful_set::TABLE,
    )
    .short(&["sts"])
    .all()
    .subresources(&[Scale, Status]),
    namespaced(
        AUTOSCALING,
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        &autoscaling::HorizontalPodAutoscaler,
        &autoscaling::TABLE,
    )
    .short(&["hpa"])
    .all()
    .subresources(&[Status]),
    namespaced(
        AUTOSCALING_V1,
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        &autoscaling::HorizontalPodAutoscaler,
        &autoscaling::TABLE_V1,
    )
    .short(&["hpa"])
    .all()
    .subresources(&[Status])
    .view_of(AUTOSCALING.0, autoscaling::VIEW),
    namespaced(
        BATCH,
        "CronJob",
        "cronjobs",
        &batch::CronJob,
        &batch::CRON_JOB_TABLE,
    )
    .short(&["cj"])
    .all()
    .subresources(&[Status]),
    namespaced(BATCH, "Job", "jobs", &batch::Job, &batch::JOB_TABLE)
        .all()
        .subresources(&[Status])
        .fields(JOB_FIELDS),
    cluster(
        CERTIFICATES,
        "CertificateSigningRequest",
        "certificatesigningrequests",
        &certificate_request::CertificateRequest,
        &certificate_request::TABLE,
    )
    .short(&["csr"])
    .subresources(&[Approval, Status])
    .fields(SIGNER_FIELDS),
    cluster(
        CERTIFICATES,
        "ClusterTrustBundle",
        "clustertrustbundles",
        &trust_bundle::TrustBundle,
        &trust_bundle::TABLE,
    )
    .fields(SIGNER_FIELDS),
    namespaced(
        COORDINATION,
        "Lease",
        "leases",
        &lease::Lease,
        &lease::TABLE,
    ),
    namespaced(
        DISCOVERY,
        "EndpointSlice",
        "endpointslices",
        &endpoint_slice::EndpointSlice,
        &endpoint_slice::TABLE,
    ),
    namespaced(EVENTS, "Event", "events", &event::Event, &event::TABLE)
        .short(&["ev"])
        .fields(event::FIELDS_VIEW)
        .view_of(CORE.0, event::VIEW),
    cluster(
        FLOW_CONTROL,
        "FlowSchema",
        "flowschemas",
        &flow_control::FlowSchema,
        &flow_control::SCHEMA_TABLE,
    )
    .subresources(&[Status]),
    cluster(
        FLOW_CONTROL,
        "PriorityLevelConfiguration",
        "prioritylevelconfigurations",
        &flow_control::PriorityLevel,
        &flow_control::LEVEL_TABLE,
    )
    .subresources(&[Status]),
    namespaced(
        NETWORKING,
        "Ingress",
        "ingresses",
        &ingress::Ingress,
        &ingress::TABLE,
    )
    .short(&["ing"])
    .subresources(&[Status]),
    cluster(
        NETWORKING,
        "IngressClass",
        "ingressclasses",
        &ingress::IngressClass,
        &ingress::CLASS_TABLE,
    ),
    cluster(
        NETWORKING,
        "IPAddress",
        "ipaddresses",
        &service_address::IpAddress,
        &service_address::ADDRESS_TABLE,
    )
    .short(&["ip"]),
    namespaced(
        NETWORKING,
        "NetworkPolicy",
        "networkpolicies",
        &network_policy::NetworkPolicy,
        &network_policy::TABLE,
    )
    .short(&["netpol"]),
    cluster(
        NETWORKING,
        "ServiceCIDR",
        "servicecidrs",
        &service_address::ServiceRange,
        &service_address::RANGE_TABLE,
    )
    .subresources(&[Status]),
    cluster(
        NODE,
        "RuntimeClass",
        "runtimeclasses",
        &runtime_class::RuntimeClass,
        &runtime_class::TABLE,
    ),
    namespaced(
        POLICY,
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        &pod_disruption_budget::PodDisruptionBudget,
        &pod_disruption_budget::TABLE,
    )
    .short(&["pdb"])
    .subresources(&[Status]),
    cluster(
        RBAC,
        "ClusterRoleBinding",
        "clusterrolebindings",
        &rbac::CLUSTER_ROLE_BINDING,
        &rbac::BINDING_TABLE,
    ),
    cluster(
        RBAC,
        "ClusterRole",
        "clusterroles",
        &rbac::CLUSTER_ROLE,
        &rbac::ROLE_TABLE,
    ),
    namespaced(
        RBAC,
        "RoleBinding",
        "rolebindings",
        &rbac::ROLE_BINDING,
        &rbac::BINDING_TABLE,
    ),
    namespaced(RBAC, "Role", "roles", &rbac::ROLE, &rbac::ROLE_TABLE),
    cluster(
        SCHEDULING,
        "PriorityClass",
        "priorityclasses",
        &priority_class::PriorityClass,
        &priority_class::TABLE,
    )
    .short(&["pc"]),
    cluster(
        STORAGE,
        "CSIDriver",
        "csidrivers",
        &csi::Driver,
        &csi::DRIVER_TABLE,
    ),
    cluster(STORAGE, "CSINode", "csinodes", &csi::Node, &csi::NODE_TABLE),
    namespaced(
        STORAGE,
        "CSIStorageCapacity",
        "csistoragecapacities",
        &csi::StorageCapacity,
        &csi::CAPACITY_TABLE,
    ),
    cluster(
        STORAGE,
        "StorageClass",
        "storageclasses",
        &storage_class::StorageClass,
        &storage_class::TABLE,
    )
    .short(&["sc"]),
    cluster(
        STORAGE,
        "VolumeAttachment",
        "volumeattachments",
        &csi::VolumeAttachment,
        &csi::ATTACHMENT_TABLE,
    )
    .subresources(&[Status]),
    cluster(
        STORAGE,
        "VolumeAttributesClass",
        "volumeattributesclasses",
        &storage_class::VolumeAttributesClass,
        &storage_class::ATTRIBUTES_TABLE,
    )
    .short(&["vac"]),
];
