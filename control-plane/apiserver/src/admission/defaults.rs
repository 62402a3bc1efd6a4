//! Classes that objects get or must name: DefaultStorageClass, DefaultIngressClass, RuntimeClass;
//! the taint of a new node (TaintNodesByCondition); and the finalizer that keeps storage in use
//! (StorageObjectInUseProtection).

use std::sync::Arc;

use serde_json::{Value, json};

use super::Admission;
use crate::object::{Obj, ObjKey};
use crate::server::Target;
use crate::status::StatusError;
use crate::tree;

const DEFAULT_STORAGE: &str = "storageclass.kubernetes.io/is-default-class";
const DEFAULT_STORAGE_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
const CLAIM_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_INGRESS: &str = "ingressclass.kubernetes.io/is-default-class";
const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";
const NOT_READY: &str = "node.kubernetes.io/not-ready";

impl Admission {
    /// Gives a new object the classes that the cluster has for it.
    pub(super) fn complete_defaults(
        &self,
        target: &Target,
        object: &mut Value,
    ) -> Result<(), StatusError> {
        match target.kind.kind {
            "PersistentVolumeClaim" => {
                self.default_storage_class(object);
                protect(object, "kubernetes.io/pvc-protection");
            }
            "PersistentVolume" => protect(object, "kubernetes.io/pv-protection"),
            "Ingress" => self.default_ingress_class(target, object)?,
            "Pod" => self.complete_runtime_class(target, object)?,
            "Node" => taint_new_node(object),
            _ => {}
        }
        Ok(())
    }

    fn default_storage_class(&self, claim: &mut Value) {
        let annotated = !tree::at(claim, &["metadata", "annotations", CLAIM_CLASS]).is_null();
        if annotated || !tree::at(claim, &["spec", "storageClassName"]).is_null() {
            return;
        }
        let mut defaults = self.marked("storageclasses", &[DEFAULT_STORAGE, DEFAULT_STORAGE_BETA]);
        // The newest wins, then the first by name.
        defaults.sort_by(|a, b| {
            let time =
                |class: &Value| tree::text(class, &["metadata", "creationTimestamp"]).to_owned();
            let name = |class: &Value| tree::text(class, &["metadata", "name"]).to_owned();
            time(b).cmp(&time(a)).then_with(|| name(a).cmp(&name(b)))
        });
        if let Some(class) = defaults.first() {
            let name = tree::text(class, &["metadata", "name"]).to_owned();
            tree::object_mut(claim, "spec").insert("storageClassName".to_owned(), json!(name));
        }
    }

    fn default_ingress_class(
        &self,
        target: &Target,
        ingress: &mut Value,
    ) -> Result<(), StatusError> {
        let annotated = !tree::at(ingress, &["metadata", "annotations", INGRESS_CLASS]).is_null();
        if annotated || !tree::at(ingress, &["spec", "ingressClassName"]).is_null() {
            return Ok(());
        }
        let defaults = self.marked("ingressclasses", &[DEFAULT_INGRESS]);
        if defaults.len() > 1 {
            let why = format!(
                "{} default IngressClasses were found, only 1 allowed",
                defaults.len()
            );
            let resource = target.kind.group_resource();
            return Err(StatusError::forbidden(resource, &target.key.name, &why));
        }
        if let Some(class) = defaults.first() {
            let name = tree::text(class, &["metadata", "name"]).to_owned();
            tree::object_mut(ingress, "spec").insert("ingressClassName".to_owned(), json!(name));
        }
        Ok(())
    }

    /// Classes that an annotation marks as default.
    fn marked(&self, plural: &str, annotations: &[&str]) -> Vec<Value> {
        let group = if plural == "storageclasses" {
            "storage.k8s.io"
        } else {
            "networking.k8s.io"
        };
        let is_default = |class: &Value| {
            annotations.iter().any(|annotation| {
                tree::text(class, &["metadata", "annotations", annotation]) == "true"
            })
        };
        self.in_namespace(group, plural, "")
            .iter()
            .map(|class| class.value())
            .filter(is_default)
            .collect()
    }

    fn complete_runtime_class(&self, target: &Target, pod: &mut Value) -> Result<(), StatusError> {
        let name = tree::text(pod, &["spec", "runtimeClassName"]).to_owned();
        let refuse = |why: String| {
            let resource = target.kind.group_resource();
            Err(StatusError::forbidden(resource, &target.key.name, &why))
        };
        let overhead = tree::at(pod, &["spec", "overhead"]).clone();
        if name.is_empty() {
            return if tree::is_unset(&overhead) {
                Ok(())
            } else {
                refuse("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned())
            };
        }
        let Some(class) = self.find("node.k8s.io", "runtimeclasses", &name) else {
            return refuse(format!("pod rejected: RuntimeClass \"{name}\" not found"));
        };
        let class = class.value();
        let fixed = tree::at(&class, &["overhead", "podFixed"]).clone();
        if !tree::is_unset(&overhead) && overhead != fixed {
            return refuse(
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
                    .to_owned(),
            );
        }
        let spec = tree::object_mut(pod, "spec");
        if !tree::is_unset(&fixed) {
            spec.insert("overhead".to_owned(), fixed);
        }
        for (key, value) in tree::entries(&class, &["scheduling", "nodeSelector"]) {
            let own = spec.entry("nodeSelector".to_owned()).or_insert(Value::Null);
            let own = tree::as_object(own);
            if let Some(other) = own.get(key).filter(|other| *other != value) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                return refuse(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; \
                     pod.spec.nodeSelector[{key}] = {}",
                    text(value),
                    text(other)
                ));
            }
            own.insert(key.clone(), value.clone());
        }
        let extra = tree::list(&class, &["scheduling", "tolerations"]);
        if !extra.is_empty() {
            let slot = spec.entry("tolerations".to_owned()).or_insert(Value::Null);
            if slot.is_null() {
                *slot = json!([]);
            }
            if let Some(own) = slot.as_array_mut() {
                for toleration in extra {
                    if !own.contains(toleration) {
                        own.push(toleration.clone());
                    }
                }
            }
        }
        Ok(())
    }

    /// The cluster-scoped object `name`, if its kind is served and it exists.
    pub(super) fn find(&self, group: &str, plural: &str, name: &str) -> Option<Arc<Obj>> {
        let kind = self.registry.by_plural(group, "v1", plural)?;
        self.cache.of(&kind).get(&ObjKey::new("", name))
    }

    /// The objects of a kind in a namespace (empty: cluster-scoped ones); none when the kind is
    /// not served.
    pub(super) fn in_namespace(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Obj>> {
        let Some(kind) = self.registry.by_plural(group, "v1", plural) else {
            return Vec::new();
        };
        let objects = self.cache.of(&kind).snapshot();
        if objects.is_empty() {
            return Vec::new();
        }
        objects
            .range(ObjKey::new(namespace, "")..)
            .take_while(|(key, _)| &*key.namespace == namespace)
            .map(|(_, obj)| Arc::clone(obj))
            .collect()
    }
}

/// TaintNodesByCondition: nothing lands on a node before it is known to be ready.
/// Whoever follows the users of storage takes the finalizer away.
fn protect(object: &mut Value, finalizer: &str) {
    let mut held = tree::list(object, &["metadata", "finalizers"]).to_vec();
    if held.iter().all(|one| one != finalizer) {
        held.push(json!(finalizer));
        let meta = tree::object_mut(object, "metadata");
        meta.insert("finalizers".to_owned(), json!(held));
    }
}

fn taint_new_node(node: &mut Value) {
    let ready = tree::list(node, &["status", "conditions"])
        .iter()
        .any(|one| one["type"] == "Ready" && one["status"] == "True");
    if ready {
        return;
    }
    let spec = tree::object_mut(node, "spec");
    let slot = spec.entry("taints".to_owned()).or_insert(Value::Null);
    if slot.is_null() {
        *slot = json!([]);
    }
    if let Some(taints) = slot.as_array_mut() {
        let known = |taint: &Value| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule";
        if !taints.iter().any(known) {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
    }
}
