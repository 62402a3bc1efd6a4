//! The API server as the client trait: controllers, scheduler and node state call it without HTTP.
//!
//! Owns: the translation between the two crates' words. Must not know: kinds, policy. Objects pass
//! as the bytes the API server serialised once.

use std::sync::Arc;

use async_trait::async_trait;
use control_plane_apiserver::auth::TokenKeys;
use control_plane_apiserver::auth::User;
use control_plane_apiserver::cache::{Filter, ListRequest, WatchItem, WatchStart, Watcher};
use control_plane_apiserver::object::Obj;
use control_plane_apiserver::registry::{Kind, Subresource};
use control_plane_apiserver::server::{
    self, DeleteRequest, Fence, Preconditions, Server, Target, WriteContext, selection,
};
use control_plane_apiserver::status::StatusError;
use control_plane_client::api::{
    Api, ApiError, ApiHandle, DeleteOptions, Object, ObjectKey, ObjectList, Patch, Propagation,
    Resource, Scope, Selection, WatchEvent, WatchStream,
};
use futures::StreamExt as _;
use serde_json::{Value, json};

/// The API server, called on behalf of one component.
#[derive(Debug)]
pub(crate) struct InProcess {
    server: Arc<Server>,
    tokens: Arc<TokenKeys>,
    user: Arc<User>,
    fence: Option<Fence>,
}

impl InProcess {
    /// A client that writes as `system:<component>`.
    pub(crate) fn handle(
        server: &Arc<Server>,
        tokens: &Arc<TokenKeys>,
        component: &str,
    ) -> ApiHandle {
        Self::fenced(server, tokens, component, None)
    }

    /// A client whose writes happen only while `fence` holds.
    pub(crate) fn fenced(
        server: &Arc<Server>,
        tokens: &Arc<TokenKeys>,
        component: &str,
        fence: Option<Fence>,
    ) -> ApiHandle {
        Arc::new(Self {
            server: Arc::clone(server),
            tokens: Arc::clone(tokens),
            user: Arc::new(User::control_plane(component)),
            fence,
        })
    }

    fn context(&self) -> WriteContext {
        WriteContext {
            fence: self.fence.clone(),
            ..WriteContext::of(Arc::clone(&self.user))
        }
    }

    fn kind(&self, resource: Resource) -> Result<Arc<Kind>, ApiError> {
        self.server
            .kind(resource.group, resource.version, resource.plural)
            .map_err(refusal)
    }

    fn target(
        &self,
        resource: Resource,
        key: &ObjectKey,
        subresource: Option<&str>,
    ) -> Result<Target, ApiError> {
        let kind = self.kind(resource)?;
        let mut target = Target::new(&kind, &key.namespace, &key.name);
        if let Some(name) = subresource {
            let found = kind.subresource(name);
            target.subresource = Some(found.ok_or_else(|| refusal(StatusError::path_not_found()))?);
        }
        Ok(target)
    }
}

fn refusal(error: StatusError) -> ApiError {
    ApiError {
        code: error.code,
        reason: error.reason.to_owned(),
        message: error.message,
    }
}

fn object(obj: &Arc<Obj>) -> Object {
    let key = ObjectKey {
        namespace: Arc::clone(&obj.key.namespace),
        name: Arc::clone(&obj.key.name),
    };
    Object {
        key,
        revision: obj.rv,
        json: obj.json.clone(),
    }
}

fn filter(kind: &Kind, what: &Selection) -> Result<Filter, ApiError> {
    let namespace = what.namespace.as_deref().unwrap_or_default();
    selection(
        kind,
        namespace,
        what.labels.as_deref(),
        what.fields.as_deref(),
    )
    .map_err(refusal)
}

fn event(item: &WatchItem) -> WatchEvent {
    match item {
        WatchItem::Added(obj) => WatchEvent::Added(object(obj)),
        WatchItem::Modified(obj) => WatchEvent::Modified(object(obj)),
        WatchItem::Deleted(obj) => WatchEvent::Deleted(object(obj)),
        WatchItem::Bookmark { rv, .. } => WatchEvent::Bookmark(*rv),
    }
}

fn stream(watcher: Watcher) -> WatchStream {
    futures::stream::unfold(Some(watcher), |state| async move {
        let mut watcher = state?;
        let (events, next): (Vec<Result<WatchEvent, ApiError>>, _) = match watcher.next().await {
            Ok(items) => (
                items.iter().map(|item| Ok(event(item))).collect(),
                Some(watcher),
            ),
            Err(gone) => (
                vec![Err(refusal(StatusError::expired(gone.to_string())))],
                None,
            ),
        };
        Some((futures::stream::iter(events), next))
    })
    .flatten()
    .boxed()
}

fn delete_request(options: &DeleteOptions) -> DeleteRequest {
    let DeleteOptions {
        grace_period_seconds,
        uid,
        resource_version,
        propagation,
    } = options;
    DeleteRequest {
        grace_seconds: *grace_period_seconds,
        preconditions: Preconditions {
            uid: uid.clone(),
            resource_version: resource_version.clone(),
        },
        propagation: propagation.map(|propagation| match propagation {
            Propagation::Orphan => server::Propagation::Orphan,
            Propagation::Background => server::Propagation::Background,
            Propagation::Foreground => server::Propagation::Foreground,
        }),
    }
}

#[async_trait]
impl Api for InProcess {
    fn resources(&self) -> Vec<Resource> {
        let mut found: Vec<Resource> = Vec::new();
        for kind in self.server.registry.served() {
            let known = |one: &Resource| one.group == kind.group && one.plural == kind.plural;
            // What is made when it is read has no changes to follow.
            if kind.is_view() || kind.strategy.is_virtual() || found.iter().any(known) {
                continue;
            }
            found.push(Resource {
                group: kind.group,
                version: kind.version,
                plural: kind.plural,
                kind: kind.kind,
                scope: if kind.namespaced() {
                    Scope::Namespaced
                } else {
                    Scope::Cluster
                },
            });
        }
        found
    }

    async fn get(&self, resource: Resource, key: &ObjectKey) -> Result<Object, ApiError> {
        let target = self.target(resource, key, None)?;
        self.server
            .get(&target, None)
            .await
            .map(|obj| object(&obj))
            .map_err(refusal)
    }

    async fn list(&self, resource: Resource, what: &Selection) -> Result<ObjectList, ApiError> {
        let kind = self.kind(resource)?;
        let request = ListRequest {
            filter: filter(&kind, what)?,
            ..ListRequest::default()
        };
        let page = self.server.list(&kind, &request).await.map_err(refusal)?;
        Ok(ObjectList {
            items: page.items.iter().map(object).collect(),
            revision: page.revision,
        })
    }

    async fn watch(
        &self,
        resource: Resource,
        what: &Selection,
        revision: u64,
    ) -> Result<WatchStream, ApiError> {
        let kind = self.kind(resource)?;
        let start = WatchStart::After(revision);
        self.server
            .watch(&kind, filter(&kind, what)?, start)
            .await
            .map(stream)
            .map_err(refusal)
    }

    async fn create(
        &self,
        resource: Resource,
        namespace: &str,
        body: Value,
    ) -> Result<Object, ApiError> {
        let kind = self.kind(resource)?;
        let made = self
            .server
            .create(&kind, namespace, body, &self.context())
            .await;
        made.map(|obj| object(&obj)).map_err(refusal)
    }

    async fn create_subresource(
        &self,
        resource: Resource,
        key: &ObjectKey,
        subresource: &str,
        body: Value,
    ) -> Result<Value, ApiError> {
        let target = self.target(resource, key, Some(subresource))?;
        let success = json!({"kind": "Status", "apiVersion": "v1", "status": "Success"});
        let answer = match target.subresource {
            Some(Subresource::Binding) => self
                .server
                .bind(&target, &body, &self.context())
                .await
                .map(|()| success),
            Some(Subresource::Eviction) => {
                let request = DeleteRequest::default();
                let main = Target {
                    subresource: None,
                    ..target
                };
                self.server
                    .evict(&main, &request, &self.context())
                    .await
                    .map(|()| success)
            }
            Some(Subresource::Token) => self.server.issue_token(&self.tokens, &target, &body).await,
            _ => Err(StatusError::method_not_supported(
                target.kind.group_resource(),
                "create",
            )),
        };
        answer.map_err(refusal)
    }

    async fn update(
        &self,
        resource: Resource,
        key: &ObjectKey,
        subresource: Option<&str>,
        body: Value,
    ) -> Result<Object, ApiError> {
        let target = self.target(resource, key, subresource)?;
        let updated = self.server.update(&target, body, &self.context()).await;
        updated.map(|(obj, _)| object(&obj)).map_err(refusal)
    }

    async fn patch(
        &self,
        resource: Resource,
        key: &ObjectKey,
        subresource: Option<&str>,
        patch: Patch,
    ) -> Result<Object, ApiError> {
        let target = self.target(resource, key, subresource)?;
        let patch = match patch {
            Patch::Json(body) => server::Patch::Json(body),
            Patch::Merge(body) => server::Patch::Merge(body),
            Patch::Strategic(body) => server::Patch::Strategic(body),
        };
        let patched = self
            .server
            .patch(&target, &patch, &self.context(), |_| Ok(()))
            .await;
        patched.map(|patched| object(&patched.obj)).map_err(refusal)
    }

    async fn delete(
        &self,
        resource: Resource,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<(), ApiError> {
        let target = self.target(resource, key, None)?;
        let deleted = self
            .server
            .delete(&target, &delete_request(options), &self.context())
            .await;
        deleted.map(|_| ()).map_err(refusal)
    }
}
