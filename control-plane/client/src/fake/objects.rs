//! The fake API's state and the rules of its writes.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use proto_api::types::Time;
use serde_json::{Map, Value, json};

use super::faults::error;
use crate::api::{
    ApiError, DeleteOptions, Object, ObjectKey, ObjectList, Patch, Propagation, Resource, Scope,
    Selection, WatchEvent,
};
use crate::clock::Clock;
use crate::resources::{NAMESPACES, PODS};

/// Log entries kept; older ones are compacted away.
const LOG_MAX: usize = 100_000;

/// Plural names whose status only `/status` writes.
const WITH_STATUS: [&str; 5] = [
    "pods",
    "deployments",
    "replicasets",
    "namespaces",
    "services",
];

/// One write request.
pub(super) enum Write<'a> {
    Create {
        namespace: &'a str,
        body: Value,
    },
    Subresource {
        key: &'a ObjectKey,
        subresource: &'a str,
        body: Value,
    },
    Update {
        key: &'a ObjectKey,
        subresource: Option<&'a str>,
        body: Value,
    },
    Patch {
        key: &'a ObjectKey,
        subresource: Option<&'a str>,
        patch: Patch,
    },
    Delete {
        key: &'a ObjectKey,
        options: &'a DeleteOptions,
    },
}

impl Write<'_> {
    /// Whether the write can meet a conflict.
    pub(super) fn locks(&self) -> bool {
        matches!(self, Self::Update { .. } | Self::Patch { .. })
    }
}

pub(super) struct Objects {
    revision: u64,
    compacted: u64,
    stored: BTreeMap<(Resource, ObjectKey), (Value, Object)>,
    log: VecDeque<(Resource, u64, WatchEvent)>,
    names: u64,
    clock: Clock,
}

impl Objects {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            revision: 1,
            compacted: 0,
            stored: BTreeMap::new(),
            log: VecDeque::new(),
            names: 0,
            clock,
        }
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(super) fn compact(&mut self) {
        self.compacted = self.revision;
        self.log.clear();
    }

    pub(super) fn values(&self, resource: Resource) -> Vec<Value> {
        self.of(resource).map(|(value, _)| value.clone()).collect()
    }

    fn of(&self, resource: Resource) -> impl Iterator<Item = &(Value, Object)> {
        self.stored
            .range((resource, ObjectKey::new("", ""))..)
            .take_while(move |((other, _), _)| *other == resource)
            .map(|(_, stored)| stored)
    }

    pub(super) fn get(&self, resource: Resource, key: &ObjectKey) -> Result<Object, ApiError> {
        self.stored
            .get(&(resource, key.clone()))
            .map(|(_, object)| object.clone())
            .ok_or_else(|| not_found(resource, key))
    }

    pub(super) fn list(
        &self,
        resource: Resource,
        what: &Selection,
    ) -> Result<ObjectList, ApiError> {
        let labels = equalities(what.labels.as_deref())?;
        let fields = equalities(what.fields.as_deref())?;
        let items = self
            .of(resource)
            .filter(|(value, object)| {
                what.namespace
                    .as_deref()
                    .is_none_or(|ns| &*object.key.namespace == ns)
                    && labels.iter().all(|(key, wanted)| {
                        value["metadata"]["labels"].get(key).and_then(Value::as_str) == Some(wanted)
                    })
                    && fields.iter().all(|(path, wanted)| {
                        let pointer = format!("/{}", path.replace('.', "/"));
                        value.pointer(&pointer).and_then(Value::as_str) == Some(wanted)
                    })
            })
            .map(|(_, object)| object.clone())
            .collect();
        Ok(ObjectList {
            items,
            revision: self.revision,
        })
    }

    pub(super) fn events_after(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        revision: u64,
    ) -> Vec<WatchEvent> {
        let from = self.log.partition_point(|(_, at, _)| *at <= revision);
        self.log
            .iter()
            .skip(from)
            .filter(|(of, _, _)| *of == resource)
            .map(|(_, _, event)| event)
            .filter(|event| match event {
                WatchEvent::Added(o) | WatchEvent::Modified(o) | WatchEvent::Deleted(o) => {
                    namespace.is_none_or(|ns| &*o.key.namespace == ns)
                }
                WatchEvent::Bookmark(_) => true,
            })
            .cloned()
            .collect()
    }

    pub(super) fn seed(&mut self, resource: Resource, mut value: Value) -> Object {
        let namespace = value["metadata"]["namespace"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        self.stamp(resource, &namespace, &mut value);
        let name = value["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        self.commit(resource, ObjectKey::new(namespace, name), value)
    }

    pub(super) fn write(
        &mut self,
        resource: Resource,
        write: Write<'_>,
    ) -> Result<Object, ApiError> {
        match write {
            Write::Create { namespace, body } => self.create(resource, namespace, body),
            Write::Subresource {
                key,
                subresource,
                body,
            } => self.create_subresource(resource, key, subresource, &body),
            Write::Update {
                key,
                subresource,
                body,
            } => self.update(resource, key, subresource, body),
            Write::Patch {
                key,
                subresource,
                patch,
            } => {
                let mut body = self.value(resource, key)?.clone();
                match patch {
                    Patch::Merge(patch) => json_patch::merge(&mut body, &patch),
                    Patch::Json(patch) => apply_json_patch(&mut body, patch)?,
                    Patch::Strategic(_) => {
                        let message = "the fake knows no strategic merge patch".to_owned();
                        return Err(error(415, "UnsupportedMediaType", message));
                    }
                }
                self.update(resource, key, subresource, body)
            }
            Write::Delete { key, options } => self.delete(resource, key, options),
        }
    }

    fn value(&self, resource: Resource, key: &ObjectKey) -> Result<&Value, ApiError> {
        self.stored
            .get(&(resource, key.clone()))
            .map(|(value, _)| value)
            .ok_or_else(|| not_found(resource, key))
    }

    fn create(
        &mut self,
        resource: Resource,
        namespace: &str,
        mut body: Value,
    ) -> Result<Object, ApiError> {
        if resource.scope == Scope::Namespaced {
            self.check_namespace(resource, namespace)?;
        }
        if WITH_STATUS.contains(&resource.plural) {
            body["status"] = match resource.plural {
                "pods" => json!({"phase": "Pending"}),
                "namespaces" => json!({"phase": "Active"}),
                _ => json!({}),
            };
        }
        if resource == NAMESPACES {
            body["spec"] = json!({"finalizers": ["kubernetes"]});
        }
        let metadata = metadata_mut(&mut body);
        for server_side in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "generation",
        ] {
            metadata.remove(server_side);
        }
        self.stamp(resource, namespace, &mut body);
        let name = body["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if name.is_empty() {
            let message = "metadata.name: Required value: name or generateName is required";
            return Err(error(422, "Invalid", message.to_owned()));
        }
        let key = ObjectKey::new(namespace, name);
        if self.stored.contains_key(&(resource, key.clone())) {
            let message = format!("{} \"{}\" already exists", resource.plural, key.name);
            return Err(error(409, "AlreadyExists", message));
        }
        Ok(self.commit(resource, key, body))
    }

    fn check_namespace(&self, resource: Resource, namespace: &str) -> Result<(), ApiError> {
        let key = ObjectKey::new("", namespace);
        let Ok(found) = self.value(NAMESPACES, &key) else {
            return Err(not_found(NAMESPACES, &key));
        };
        if found["metadata"].get("deletionTimestamp").is_some() {
            let message = format!(
                "{} is forbidden: unable to create new content in namespace {namespace} because it \
                 is being terminated",
                resource.plural
            );
            return Err(error(403, "Forbidden", message));
        }
        Ok(())
    }

    /// Fills in what the server gives a new object.
    fn stamp(&mut self, resource: Resource, namespace: &str, body: &mut Value) {
        self.names += 1;
        let number = self.names;
        let now = Time::from_timestamp(self.clock.now());
        let metadata = metadata_mut(body);
        if !namespace.is_empty() {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        if metadata.get("name").and_then(Value::as_str).is_none()
            && let Some(base) = metadata.get("generateName").and_then(Value::as_str)
        {
            let name = format!("{base}{number:05}");
            metadata.insert("name".to_owned(), json!(name));
        }
        metadata
            .entry("uid")
            .or_insert_with(|| json!(format!("uid-{number}")));
        metadata
            .entry("creationTimestamp")
            .or_insert_with(|| json!(now));
        metadata.entry("generation").or_insert_with(|| json!(1));
        body["kind"] = json!(resource.kind);
        body["apiVersion"] = json!(if resource.group.is_empty() {
            resource.version.to_owned()
        } else {
            format!("{}/{}", resource.group, resource.version)
        });
    }

    fn create_subresource(
        &mut self,
        resource: Resource,
        key: &ObjectKey,
        subresource: &str,
        body: &Value,
    ) -> Result<Object, ApiError> {
        if (resource, subresource) != (PODS, "binding") {
            return Err(error(
                404,
                "NotFound",
                format!("the fake has no {subresource}"),
            ));
        }
        let mut pod = self.value(resource, key)?.clone();
        let conflict = |message: String| Err(error(409, "Conflict", message));
        if pod["metadata"].get("deletionTimestamp").is_some() {
            return conflict(format!(
                "pod {} is being deleted, cannot be assigned to a host",
                key.name
            ));
        }
        if let Some(node) = pod["spec"].get("nodeName").and_then(Value::as_str) {
            return conflict(format!(
                "pod {} is already assigned to node \"{node}\"",
                key.name
            ));
        }
        pod["spec"]["nodeName"] = body["target"]["name"].clone();
        Ok(self.commit(resource, key.clone(), pod))
    }

    fn update(
        &mut self,
        resource: Resource,
        key: &ObjectKey,
        subresource: Option<&str>,
        body: Value,
    ) -> Result<Object, ApiError> {
        let (stored, object) = self
            .stored
            .get(&(resource, key.clone()))
            .cloned()
            .ok_or_else(|| not_found(resource, key))?;
        let version = body["metadata"]
            .get("resourceVersion")
            .and_then(Value::as_str);
        if version.is_some_and(|version| version != object.revision.to_string()) {
            let message = format!(
                "Operation cannot be fulfilled on {} \"{}\": the object has been modified; please \
                 apply your changes to the latest version and try again",
                resource.plural, key.name
            );
            return Err(error(409, "Conflict", message));
        }
        let uid = body["metadata"].get("uid");
        if uid.is_some() && uid != stored["metadata"].get("uid") {
            return Err(error(409, "Conflict", format!("uid mismatch on {key}")));
        }
        let next = merged(resource, subresource, &stored, body)?;
        if next == stored {
            return Ok(object);
        }
        if is_done(&next) {
            return Ok(self.remove(resource, key, next));
        }
        Ok(self.commit(resource, key.clone(), next))
    }

    fn delete(
        &mut self,
        resource: Resource,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<Object, ApiError> {
        let mut value = self.value(resource, key)?.clone();
        let object = self.get(resource, key)?;
        let uid = value["metadata"]["uid"].as_str().unwrap_or_default();
        let version = object.revision.to_string();
        if options.uid.as_deref().is_some_and(|wanted| wanted != uid)
            || options
                .resource_version
                .as_ref()
                .is_some_and(|wanted| *wanted != version)
        {
            return Err(error(
                409,
                "Conflict",
                format!("Precondition failed on {key}"),
            ));
        }
        let already = value["metadata"].get("deletionTimestamp").is_some();
        match options.propagation {
            Some(Propagation::Foreground) if !already => {
                add_finalizer(&mut value, "foregroundDeletion");
            }
            Some(Propagation::Orphan) if !already => add_finalizer(&mut value, "orphan"),
            Some(Propagation::Background | Propagation::Foreground | Propagation::Orphan)
            | None => {}
        }
        let grace = grace(resource, &value, options);
        if resource == NAMESPACES {
            value["status"]["phase"] = json!("Terminating");
        }
        let until = self
            .clock
            .now()
            .saturating_add(SignedDuration::from_secs(grace));
        let until = Time::from_timestamp(until.unwrap_or(Timestamp::MAX));
        let metadata = metadata_mut(&mut value);
        if !already {
            metadata.insert("deletionTimestamp".to_owned(), json!(until));
            metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
        } else if grace == 0 {
            metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(0));
        }
        if is_done(&value) {
            return Ok(self.remove(resource, key, value));
        }
        if already && grace != 0 {
            return Ok(object);
        }
        Ok(self.commit(resource, key.clone(), value))
    }

    fn commit(&mut self, resource: Resource, key: ObjectKey, value: Value) -> Object {
        let fresh = !self.stored.contains_key(&(resource, key.clone()));
        let (value, object) = self.next_state(&key, value);
        let event = if fresh {
            WatchEvent::Added(object.clone())
        } else {
            WatchEvent::Modified(object.clone())
        };
        self.stored.insert((resource, key), (value, object.clone()));
        self.log(resource, event);
        object
    }

    fn remove(&mut self, resource: Resource, key: &ObjectKey, value: Value) -> Object {
        let (_, object) = self.next_state(key, value);
        self.stored.remove(&(resource, key.clone()));
        self.log(resource, WatchEvent::Deleted(object.clone()));
        object
    }

    fn next_state(&mut self, key: &ObjectKey, mut value: Value) -> (Value, Object) {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let json = Bytes::from(value.to_string());
        let object = Object {
            key: key.clone(),
            revision: self.revision,
            json,
        };
        (value, object)
    }

    fn log(&mut self, resource: Resource, event: WatchEvent) {
        self.log.push_back((resource, self.revision, event));
        while self.log.len() > LOG_MAX {
            if let Some((_, revision, _)) = self.log.pop_front() {
                self.compacted = revision;
            }
        }
    }
}

fn metadata_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value["metadata"].is_object() {
        value["metadata"] = json!({});
    }
    value["metadata"]
        .as_object_mut()
        .expect("made an object above")
}

fn add_finalizer(value: &mut Value, finalizer: &str) {
    let entry = metadata_mut(value)
        .entry("finalizers")
        .or_insert_with(|| json!([]));
    if let Some(all) = entry.as_array_mut()
        && !all.iter().any(|present| present == finalizer)
    {
        all.push(json!(finalizer));
    }
}

/// The object after a write through the main resource or one subresource.
fn merged(
    resource: Resource,
    subresource: Option<&str>,
    stored: &Value,
    body: Value,
) -> Result<Value, ApiError> {
    let mut next;
    match subresource {
        Some("status") => {
            next = stored.clone();
            next["status"] = body["status"].clone();
        }
        Some("finalize") if resource == NAMESPACES => {
            next = stored.clone();
            next["spec"]["finalizers"] = body["spec"]["finalizers"].clone();
        }
        Some(other) => {
            return Err(error(
                404,
                "NotFound",
                format!("the fake has no subresource {other}"),
            ));
        }
        None => {
            next = body;
            if WITH_STATUS.contains(&resource.plural) {
                next["status"] = stored["status"].clone();
            }
            let metadata = metadata_mut(&mut next);
            for field in [
                "uid",
                "creationTimestamp",
                "deletionTimestamp",
                "generation",
            ] {
                if let Some(value) = stored["metadata"].get(field) {
                    metadata.insert(field.to_owned(), value.clone());
                }
            }
            if next.get("spec") != stored.get("spec") {
                let generation = stored["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
                next["metadata"]["generation"] = json!(generation);
            }
        }
    }
    next["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"].clone();
    Ok(next)
}

/// Whether nothing holds a deleted object any more.
fn is_done(value: &Value) -> bool {
    let metadata = &value["metadata"];
    let held = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    metadata.get("deletionTimestamp").is_some()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && !held(&metadata["finalizers"])
        && !(value["kind"] == "Namespace" && held(&value["spec"]["finalizers"]))
}

/// Seconds a deletion waits: only pods that run somewhere wait at all.
fn grace(resource: Resource, value: &Value, options: &DeleteOptions) -> i64 {
    let bound = value["spec"]
        .get("nodeName")
        .and_then(Value::as_str)
        .is_some();
    let ended = matches!(
        value["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if resource != PODS || !bound || ended {
        return 0;
    }
    let own = value["spec"]["terminationGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(30);
    options.grace_period_seconds.unwrap_or(own)
}

fn apply_json_patch(body: &mut Value, patch: Value) -> Result<(), ApiError> {
    let invalid = |message: String| error(422, "Invalid", message);
    let patch: json_patch::Patch =
        serde_json::from_value(patch).map_err(|error| invalid(error.to_string()))?;
    json_patch::patch(body, &patch).map_err(|error| invalid(error.to_string()))
}

fn equalities(selector: Option<&str>) -> Result<Vec<(&str, &str)>, ApiError> {
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
        return Ok(Vec::new());
    };
    selector
        .split(',')
        .map(|part| {
            part.split_once('=').ok_or_else(|| {
                error(
                    400,
                    "BadRequest",
                    format!("the fake knows only equality, not {part:?}"),
                )
            })
        })
        .collect()
}

fn not_found(resource: Resource, key: &ObjectKey) -> ApiError {
    error(
        404,
        "NotFound",
        format!("{} \"{}\" not found", resource.plural, key.name),
    )
}
