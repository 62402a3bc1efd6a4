//! Keeps the graph equal to the API, for every kind that is served, custom ones as they come and go.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use control_plane_client::{ApiError, ApiHandle, Object, Resource, Selection, WatchEvent};
use futures::StreamExt as _;
use proto_api::types::meta::v1::ObjectMeta;
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::graph::Graph;
use super::plan::Item;

/// How often it is asked which kinds there are.
const KINDS_INTERVAL: Duration = Duration::from_secs(1);
/// Pause before a kind is listed or watched again.
const PAUSE: Duration = Duration::from_millis(500);
/// Kinds whose objects are many, short-lived and never own or are owned (as upstream).
const IGNORED: &str = "events";

/// What the graph needs of any object.
#[derive(Deserialize)]
struct Partial {
    #[serde(default)]
    metadata: ObjectMeta,
}

/// The metadata of any object.
pub(super) fn metadata(object: &Object) -> Option<ObjectMeta> {
    match object.decode::<Partial>() {
        Ok(partial) => Some(partial.metadata),
        Err(fault) => {
            warn!(key = %object.key, %fault, "metadata cannot be read, its owners are not looked at");
            None
        }
    }
}

fn item(resource: Resource, object: &Object) -> Option<Item> {
    let metadata = metadata(object)?;
    Some(Item::of(resource, &object.key, object.revision, &metadata))
}

/// Follows all kinds for as long as the handle lives; returns when those of the start are listed.
pub(super) async fn start(api: ApiHandle, graph: Graph) -> AbortOnDropHandle<()> {
    let mut kinds = Kinds {
        api,
        graph,
        followed: HashMap::new(),
    };
    for listed in kinds.refresh() {
        // A kind that ends before its first list has nothing to wait for.
        let _ended = listed.await.is_err();
    }
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut timer = tokio::time::interval(KINDS_INTERVAL);
        loop {
            timer.tick().await;
            kinds.refresh();
        }
    }))
}

struct Kinds {
    api: ApiHandle,
    graph: Graph,
    followed: HashMap<Resource, AbortOnDropHandle<()>>,
}

impl Kinds {
    /// Begins with new kinds and ends with those that are gone. What is returned is told of the
    /// first list of each new kind.
    fn refresh(&mut self) -> Vec<oneshot::Receiver<()>> {
        let mut served = self.api.resources();
        served.retain(|resource| resource.plural != IGNORED);
        let same = served.len() == self.followed.len()
            && served.iter().all(|one| self.followed.contains_key(one));
        if same {
            return Vec::new();
        }
        self.followed.retain(|one, _| served.contains(one));
        self.graph.serve(served.clone());
        let mut waits = Vec::new();
        for resource in served {
            if self.followed.contains_key(&resource) {
                continue;
            }
            let (listed, wait) = oneshot::channel();
            let follow = follow(Arc::clone(&self.api), self.graph.clone(), resource, listed);
            let task = AbortOnDropHandle::new(tokio::spawn(follow));
            self.followed.insert(resource, task);
            waits.push(wait);
        }
        waits
    }
}

/// Lists and watches one kind until it is dropped.
#[expect(clippy::infinite_loop, reason = "the task is aborted with its handle")]
async fn follow(api: ApiHandle, graph: Graph, resource: Resource, listed: oneshot::Sender<()>) {
    let mut listed = Some(listed);
    loop {
        match list(&api, &graph, resource).await {
            Ok(revision) => {
                if let Some(listed) = listed.take() {
                    // Who waited may be gone already.
                    let _told = listed.send(()).is_ok();
                }
                watch(&api, &graph, resource, revision).await;
            }
            Err(error) => warn!(kind = resource.kind, %error, "list failed, tries again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn list(api: &ApiHandle, graph: &Graph, resource: Resource) -> Result<u64, ApiError> {
    let list = api.list(resource, &Selection::default()).await?;
    let items = list
        .items
        .iter()
        .filter_map(|object| item(resource, object));
    graph.replace(resource, items.collect());
    Ok(list.revision)
}

/// Follows changes, resuming where it stopped; returns when only a list helps.
async fn watch(api: &ApiHandle, graph: &Graph, resource: Resource, mut revision: u64) {
    loop {
        let mut stream = match api.watch(resource, &Selection::default(), revision).await {
            Ok(stream) => stream,
            Err(error) => return debug!(kind = resource.kind, %error, "watch failed, lists again"),
        };
        while let Some(event) = stream.next().await {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    revision = object.revision;
                    if let Some(item) = item(resource, &object) {
                        graph.put(item);
                    }
                }
                Ok(WatchEvent::Deleted(object)) => {
                    revision = object.revision;
                    if let Some(item) = item(resource, &object) {
                        graph.remove(&item);
                    }
                }
                Ok(WatchEvent::Bookmark(at)) => revision = at,
                Err(error) => {
                    return debug!(kind = resource.kind, %error, "watch broke off, lists again");
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
