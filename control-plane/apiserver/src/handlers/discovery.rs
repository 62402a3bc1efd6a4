//! Discovery: which resources there are, aggregated or one group at a time.

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use proto_api::openapi::Resource;
use proto_api::schema::Gvk;
use serde_json::{Value, json};

use super::Call;
use super::reviews::REVIEWS;
use crate::http::{Accept, Response, json_bytes, text_response};
use crate::registry::{Kind, Registry, Scope, by_preference, group_version};
use crate::status::StatusError;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// Answers discovery; what it tells follows the registry.
pub(crate) struct Discovery {
    registry: Registry,
    address: String,
    made: ArcSwap<Served>,
}

/// Everything discovery tells of the kinds of one generation of the registry.
pub(crate) struct Served {
    generation: u64,
    core: Aggregated,
    groups: Aggregated,
    resources: Vec<Listed>,
    paths: Bytes,
}

struct Aggregated {
    body: Bytes,
    etag: String,
}

/// One resource (or subresource) as discovery tells it.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    group: &'static str,
    version: &'static str,
    name: String,
    singular: &'static str,
    namespaced: bool,
    kind: &'static str,
    /// Group and version of the body, where they differ.
    body: Option<(&'static str, &'static str)>,
    verbs: Vec<&'static str>,
    short: Box<[&'static str]>,
    categories: Box<[&'static str]>,
    storage_hash: Option<String>,
}

impl Discovery {
    /// `address`: `host:port` that clients inside reach the server at.
    pub(crate) fn new(registry: Registry, address: &str) -> Self {
        Self {
            made: ArcSwap::from_pointee(Served::new(&registry)),
            address: address.to_owned(),
            registry,
        }
    }

    /// What is served now.
    pub(crate) fn served(&self) -> Arc<Served> {
        let made = self.made.load_full();
        if made.generation == self.registry.generation() {
            return made;
        }
        // Two requests may do this at once; the results are equal.
        let made = Arc::new(Served::new(&self.registry));
        self.made.store(Arc::clone(&made));
        made
    }

    /// The paths there are, for `GET /`.
    pub(crate) fn paths(&self) -> Response {
        json_bytes(200, self.served().paths.clone())
    }

    fn api_versions(&self) -> Value {
        json!({
            "kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"],
            "serverAddressByClientCIDRs": [
                {"clientCIDR": "0.0.0.0/0", "serverAddress": self.address},
            ],
        })
    }
}

impl Served {
    fn new(registry: &Registry) -> Self {
        // Read first: kinds that change meanwhile make the next request do this again.
        let generation = registry.generation();
        let resources = listed(registry);
        let groups = group_names(&resources);
        let named: Vec<Value> = groups
            .iter()
            .filter(|g| !g.is_empty())
            .map(|g| group_item(g, &resources))
            .collect();
        let core = vec![group_item("", &resources)];
        let mut paths: Vec<String> = ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics"]
            .iter()
            .map(|path| (*path).to_owned())
            .collect();
        for group in groups.iter().filter(|g| !g.is_empty()) {
            paths.push(format!("/apis/{group}"));
            let versions = versions(group, &resources);
            paths.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
        }
        paths.extend(["/openapi/v3", "/readyz", "/version"].map(str::to_owned));
        Self {
            generation,
            core: Aggregated::new(&core),
            groups: Aggregated::new(&named),
            paths: Bytes::from(json!({"paths": paths}).to_string()),
            resources,
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Groups with their versions, in the order of preference.
    pub(super) fn group_versions(&self) -> Vec<(&'static str, &'static str)> {
        let of = |group| {
            versions(group, &self.resources)
                .into_iter()
                .map(move |version| (group, version))
        };
        group_names(&self.resources)
            .into_iter()
            .flat_map(of)
            .collect()
    }

    /// The resources of one group and version, subresources included.
    pub(super) fn of_group<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Listed> {
        self.resources
            .iter()
            .filter(move |resource| resource.group == group && resource.version == version)
    }

    fn group_list(&self) -> Value {
        let groups: Vec<Value> = group_names(&self.resources)
            .iter()
            .filter(|group| !group.is_empty())
            .map(|group| group_value(group, &self.resources))
            .collect();
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    }

    fn group(&self, group: &str) -> Option<Value> {
        let known = !group.is_empty() && self.resources.iter().any(|r| r.group == group);
        known.then(|| {
            let mut value = group_value(group, &self.resources);
            value["kind"] = json!("APIGroup");
            value["apiVersion"] = json!("v1");
            value
        })
    }

    fn resource_list(&self, group: &str, version: &str) -> Option<Value> {
        let resources: Vec<Value> = self.of_group(group, version).map(Listed::legacy).collect();
        (!resources.is_empty()).then(|| {
            json!({
                "kind": "APIResourceList", "apiVersion": "v1",
                "groupVersion": group_version(group, version), "resources": resources,
            })
        })
    }
}

impl Aggregated {
    fn new(items: &[Value]) -> Self {
        let body = json!({
            "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {}, "items": items,
        })
        .to_string();
        let etag = format!("\"{}\"", proto_api::openapi::hash(body.as_bytes()));
        Self {
            body: Bytes::from(body),
            etag,
        }
    }
}

impl Listed {
    fn legacy(&self) -> Value {
        let mut value = json!({
            "name": self.name, "singularName": self.singular, "namespaced": self.namespaced,
            "kind": self.kind, "verbs": self.verbs,
        });
        if let Some((group, version)) = self.body {
            value["group"] = json!(group);
            value["version"] = json!(version);
        }
        if !self.short.is_empty() {
            value["shortNames"] = json!(self.short);
        }
        if !self.categories.is_empty() {
            value["categories"] = json!(self.categories);
        }
        if let Some(hash) = &self.storage_hash {
            value["storageVersionHash"] = json!(hash);
        }
        value
    }

    pub(super) fn for_openapi(&self) -> Resource<'_> {
        let (group, version) = self.body.unwrap_or((self.group, self.version));
        Resource {
            name: &self.name,
            gvk: Gvk {
                group,
                version,
                kind: self.kind,
            },
            namespaced: self.namespaced,
            verbs: &self.verbs,
        }
    }

    fn response_kind(&self) -> Value {
        let (group, version) = self.body.unwrap_or((self.group, self.version));
        json!({"group": group, "version": version, "kind": self.kind})
    }
}

fn listed(registry: &Registry) -> Vec<Listed> {
    let mut all: Vec<Listed> = registry
        .served()
        .iter()
        .flat_map(|kind| of_kind(kind))
        .collect();
    all.extend(REVIEWS.iter().map(|review| Listed {
        group: review.group,
        version: "v1",
        name: review.plural.to_owned(),
        singular: review.singular,
        namespaced: review.scope == Scope::Namespaced,
        kind: review.kind,
        body: None,
        verbs: vec!["create"],
        short: Box::default(),
        categories: Box::default(),
        storage_hash: None,
    }));
    all
}

/// What changes when objects are stored in another version (`storageVersionHash`). A version that
/// is not the stored one has none.
fn storage_hash(kind: &Kind) -> Option<String> {
    let stored = kind.stored_api_version();
    let other_version = kind.custom.is_some() && stored != kind.api_version();
    if kind.strategy.is_virtual() || other_version {
        return None;
    }
    let Gvk { group, version, .. } = Gvk::parse(&stored, kind.kind);
    let text = format!("{group}/{version}/{}", kind.kind);
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let start = hash.as_ref().get(..STORAGE_HASH_BYTES)?;
    Some(BASE64_STANDARD.encode(start))
}

/// Bytes of a hash that are shown.
const STORAGE_HASH_BYTES: usize = 8;

fn of_kind(kind: &Kind) -> Vec<Listed> {
    let main = Listed {
        group: kind.group,
        version: kind.version,
        name: kind.plural.to_owned(),
        singular: kind.singular,
        namespaced: kind.scope == Scope::Namespaced,
        kind: kind.kind,
        body: None,
        verbs: if kind.strategy.is_virtual() {
            vec!["get", "list"]
        } else {
            VERBS.to_vec()
        },
        short: kind.short.clone(),
        categories: kind.categories.clone(),
        storage_hash: storage_hash(kind),
    };
    let mut all = vec![main.clone()];
    all.extend(kind.subresources.iter().map(|sub| {
        let body = sub.body();
        Listed {
            name: format!("{}/{}", kind.plural, sub.name()),
            singular: "",
            kind: sub.shown_kind(kind.kind),
            body: body.map(|(group, version, _)| (group, version)),
            verbs: sub.verbs().to_vec(),
            short: Box::default(),
            categories: Box::default(),
            storage_hash: None,
            ..main.clone()
        }
    }));
    all
}

/// Groups in the order of preference: core, apps, the others by name.
fn group_names(resources: &[Listed]) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = resources.iter().map(|r| r.group).collect();
    names.sort_by_key(|group| match *group {
        "" => (0, ""),
        "apps" => (1, ""),
        other => (2, other),
    });
    names.dedup();
    names
}

/// The versions of a group, the preferred one first.
fn versions(group: &str, resources: &[Listed]) -> Vec<&'static str> {
    let own = resources.iter().filter(|r| r.group == group);
    let mut versions: Vec<&'static str> = own.map(|r| r.version).collect();
    versions.sort_by(|a, b| by_preference(a, b));
    versions.dedup();
    versions
}

fn group_value(group: &str, resources: &[Listed]) -> Value {
    let versions: Vec<Value> = versions(group, resources)
        .iter()
        .map(|version| json!({"groupVersion": group_version(group, version), "version": version}))
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
}

/// A group with its resources, subresources inside their parents.
fn group_item(group: &str, resources: &[Listed]) -> Value {
    let versions: Vec<Value> = versions(group, resources)
        .iter()
        .map(|version| {
            let own: Vec<&Listed> = resources
                .iter()
                .filter(|r| r.group == group && r.version == *version)
                .collect();
            json!({"version": version, "resources": resource_items(&own), "freshness": "Current"})
        })
        .collect();
    let meta = if group.is_empty() {
        json!({})
    } else {
        json!({"name": group})
    };
    json!({"metadata": meta, "versions": versions})
}

fn resource_items(own: &[&Listed]) -> Vec<Value> {
    let item = |resource: &&Listed| {
        let mut value = json!({
            "resource": resource.name, "responseKind": resource.response_kind(),
            "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": resource.singular, "verbs": resource.verbs,
        });
        if !resource.short.is_empty() {
            value["shortNames"] = json!(resource.short);
        }
        if !resource.categories.is_empty() {
            value["categories"] = json!(resource.categories);
        }
        let prefix = format!("{}/", resource.name);
        let subs: Vec<Value> = own
            .iter()
            .filter_map(|sub| {
                let name = sub.name.strip_prefix(&prefix)?;
                Some(json!({
                    "subresource": name, "responseKind": sub.response_kind(),
                    "verbs": sub.verbs,
                }))
            })
            .collect();
        if !subs.is_empty() {
            value["subresources"] = json!(subs);
        }
        value
    };
    own.iter()
        .filter(|resource| !resource.name.contains('/'))
        .map(item)
        .collect()
}

impl Call {
    pub(super) fn discovery(&self, parts: &[&str]) -> Result<Response, StatusError> {
        let discovery = &self.api.discovery;
        let aggregated = Accept::discovery(&self.headers);
        let served = discovery.served();
        let missing = StatusError::path_not_found;
        match parts {
            ["api"] if aggregated => Ok(self.aggregated(&served.core)),
            ["apis"] if aggregated => Ok(self.aggregated(&served.groups)),
            ["api"] => Ok(vary(self.tree_answer(200, &discovery.api_versions())?)),
            ["apis"] => Ok(vary(self.tree_answer(200, &served.group_list())?)),
            ["api", version] => {
                let list = served.resource_list("", version).ok_or_else(missing)?;
                self.tree_answer(200, &list)
            }
            ["apis", group] => {
                let group = served.group(group).ok_or_else(missing)?;
                self.tree_answer(200, &group)
            }
            ["apis", group, version] => {
                let list = served.resource_list(group, version).ok_or_else(missing)?;
                self.tree_answer(200, &list)
            }
            _ => Err(missing()),
        }
    }

    fn aggregated(&self, document: &Aggregated) -> Response {
        let known = self
            .headers
            .get(IF_NONE_MATCH)
            .and_then(|value| value.to_str().ok());
        let mut answer = if known == Some(document.etag.as_str()) {
            text_response(304, Bytes::new())
        } else {
            json_bytes(200, document.body.clone())
        };
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
        if let Ok(etag) = HeaderValue::from_str(&document.etag) {
            headers.insert(ETAG, etag);
        }
        vary(answer)
    }
}

/// The answer depends on the Accept header.
fn vary(mut answer: Response) -> Response {
    answer
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_tell_the_same_resources() {
        let served = Served::new(&Registry::default());
        let aggregated: Value = serde_json::from_slice(&served.core.body).unwrap();
        let resources = &aggregated["items"][0]["versions"][0]["resources"];
        let pods = resources
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["resource"] == "pods")
            .unwrap();
        assert_eq!(pods["shortNames"], json!(["po"]));
        assert_eq!(pods["subresources"].as_array().unwrap().len(), 10);
        let legacy = served.resource_list("", "v1").unwrap();
        let legacy = legacy["resources"].as_array().unwrap();
        assert!(
            legacy
                .iter()
                .any(|resource| resource["name"] == "pods/eviction")
        );
        let hash = |name: &str| {
            let found = legacy.iter().find(|resource| resource["name"] == name);
            found.map(|resource| resource["storageVersionHash"].clone())
        };
        // As kube-apiserver says of the same kinds.
        assert_eq!(hash("pods"), Some(json!("xPOwRZ+Yhw8=")));
        assert_eq!(hash("configmaps"), Some(json!("qFsyl6wFWjQ=")));
        assert_eq!(hash("pods/exec"), Some(Value::Null));
        assert!(served.resource_list("apps", "v2").is_none());
        assert!(served.group("").is_none());
        assert_eq!(
            served.group("apps").unwrap()["preferredVersion"]["version"],
            "v1"
        );
    }
}
