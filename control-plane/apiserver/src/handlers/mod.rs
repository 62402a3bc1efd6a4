//! The HTTP surface: authenticate, authorise, dispatch by verb, answer.
//!
//! Owns: what HTTP adds to the verbs of `server/`. Each verb is a file. Must not know: kinds'
//! rules. A request is logged once, with its outcome.

mod answer;
mod audited;
mod authenticate;
mod authorize;
mod connect;
mod create;
mod delete;
mod discovery;
mod get;
mod health;
mod impersonate;
mod list;
mod objects;
mod openapi;
mod patch;
mod pod_streams;
mod reviews;
mod seats;
mod selectors;
mod token;
mod update;
mod watch;

use std::sync::Arc;
use std::time::Instant;

use hyper::HeaderMap;
use hyper::header::USER_AGENT;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error};

use self::audited::{audit_id, named, note_said};
pub(crate) use self::discovery::Discovery;
use self::objects::add_warnings;
pub(crate) use self::openapi::OpenApi;
#[cfg(feature = "fuzzing")]
pub(crate) use self::pod_streams::read_messages;
#[cfg(test)]
pub(crate) use self::reviews::review_resources;
#[cfg(feature = "fuzzing")]
pub(crate) use self::selectors::read_queries;
use crate::audit::{AuditLog, Trail};
use crate::auth::{TokenKeys, User};
use crate::field::{FieldError, Path};
use crate::flow::{Flow, Sorted};
use crate::http::{
    Accept, Peer, Query, Request, RequestInfo, ResourcePath, Response, compressed, held,
    refuse_oversize, status_response,
};
use crate::metrics::Metrics;
use crate::node_streams::NodeStreams;
use crate::registry::{Kind, Subresource};
use crate::server::{Asked, Notes, Owners, Server, Target, WriteContext, WriteMode};
use crate::status::{GroupResource, StatusError};

/// Longest name of a field manager (as upstream).
const FIELD_MANAGER_BYTES_MAX: usize = 128;

/// What paths that name no resource begin with. The authorisation matrix has an entry for each.
pub(crate) const PLAIN_ROOTS: &[&str] = &[
    "",
    ".well-known",
    "api",
    "apis",
    "healthz",
    "livez",
    "metrics",
    "openapi",
    "openid",
    "readyz",
    "version",
];

/// Everything a request may need.
pub(crate) struct Api {
    pub(crate) server: Arc<Server>,
    pub(crate) nodes: Arc<dyn NodeStreams>,
    pub(crate) tokens: Arc<TokenKeys>,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: OpenApi,
    pub(crate) metrics: Metrics,
    pub(crate) flow: Arc<Flow>,
    pub(crate) audit: Option<AuditLog>,
    pub(crate) version: serde_json::Value,
    /// Ends long answers at shutdown.
    pub(crate) stop: CancellationToken,
    /// Owns what outlives its request: exec sessions.
    pub(crate) tasks: TaskTracker,
}

/// One request, taken apart.
pub(crate) struct Call {
    pub(crate) api: Arc<Api>,
    pub(crate) user: Arc<User>,
    pub(crate) info: RequestInfo,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) path: String,
    /// The request's trail in the audit log, where there is one.
    pub(crate) trail: Option<Arc<Trail>>,
    /// What admission says of it.
    pub(crate) notes: Arc<Notes>,
}

impl Api {
    /// Answers one request.
    pub(crate) async fn handle(self: Arc<Self>, peer: Peer, request: Request) -> Response {
        let started = Instant::now();
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let query = Query::parse(request.uri().query());
        let info = RequestInfo::parse(&method, &path, &query);
        let codec = Accept::of_status(request.headers()).for_reader(request.headers(), &query);
        let (verb, plural) = (info.verb, info.resource.as_ref().map(|r| r.plural.clone()));
        let id = audit_id(request.headers());
        let trail = self.trail(&peer, &info, &request, &id);
        let notes = Arc::new(Notes::default());
        let mut sorted = None;
        let asked = (trail.clone(), Arc::clone(&notes), &mut sorted);
        let asked = Arc::clone(&self).answer(&peer, info, query, request, asked);
        let mut answer = match Box::pin(asked).await {
            Ok(answer) => answer,
            Err(refusal) => {
                note_said(trail.as_deref(), &notes);
                if refusal.code >= 500 {
                    error!(%method, path, code = refusal.code, message = refusal.message, "failed");
                }
                self.note_refusal(trail.as_deref(), &refusal);
                status_response(&refusal, codec)
            }
        };
        add_warnings(&mut answer, &notes.warnings());
        if let Some(sorted) = sorted {
            sorted.tell(answer.headers_mut());
        }
        let answer = named(id, answer);
        let code = answer.status().as_u16();
        let elapsed = started.elapsed();
        debug!(%method, path, code, peer = %peer.address, ?elapsed, "answered");
        self.metrics
            .request(verb, plural.as_deref().unwrap_or_default(), code, elapsed);
        answer
    }

    async fn answer(
        self: Arc<Self>,
        peer: &Peer,
        info: RequestInfo,
        query: Query,
        request: Request,
        (trail, notes, sorted): (Option<Arc<Trail>>, Arc<Notes>, &mut Option<Sorted>),
    ) -> Result<Response, StatusError> {
        refuse_oversize(&request)?;
        let user = self.authenticate(peer, request.headers(), request.uri().path())?;
        let acting = self.impersonate(&user, request.headers())?;
        if let Some(trail) = &trail {
            trail.user(&user, acting.as_ref());
        }
        let user = acting.unwrap_or(user);
        let asks = seats::asks(&self.server, &info, &query, request.uri().path());
        let sorted = sorted.insert(self.flow.sort(&user, &asks));
        let admitted = self.flow.admit(sorted, &user, &asks).await?;
        let long_running = is_long_running(&info);
        let call = Call {
            user: Arc::new(user),
            trail,
            notes,
            info,
            query,
            headers: request.headers().clone(),
            path: request.uri().path().to_owned(),
            api: self,
        };
        call.authorize()?;
        let answer = match call.info.resource.clone() {
            Some(resource) => call.dispatch(&resource, request).await?,
            None => call.plain_path().await?,
        };
        let answer = call.noted(answer).await;
        if long_running {
            return Ok(answer);
        }
        let answer = compressed(answer, &call.headers).await;
        Ok(held(answer, admitted))
    }
}

/// Whether the answer goes on for as long as the client wants: it must hold no seat.
fn is_long_running(info: &RequestInfo) -> bool {
    let streams = |subresource: &str| {
        matches!(subresource, "log" | "exec" | "attach" | "portforward")
            || subresource.starts_with("proxy")
    };
    info.verb == "watch"
        || info
            .resource
            .as_ref()
            .is_some_and(|resource| streams(&resource.subresource))
}

impl Call {
    async fn dispatch(
        &self,
        path: &ResourcePath,
        request: Request,
    ) -> Result<Response, StatusError> {
        if let Some(review) = reviews::Review::find(path) {
            return self.review(review, path, request).await;
        }
        if path.plural == "bindings" && path.group.is_empty() && path.subresource.is_empty() {
            return self.create_binding(path, request).await;
        }
        let kind = self
            .api
            .server
            .kind(&path.group, &path.version, &path.plural)?;
        if let Some(text) = kind.strategy.deprecation() {
            self.notes.warn(text);
        }
        if kind.strategy.is_virtual() && !matches!(self.info.verb, "get" | "list") {
            let resource = kind.group_resource();
            return Err(StatusError::method_not_supported(resource, self.info.verb));
        }
        if path.name.is_empty() {
            return self.collection(&kind, path, request).await;
        }
        if kind.namespaced() && path.namespace.is_empty() {
            return Err(StatusError::path_not_found());
        }
        let mut target = Target::new(&kind, &path.namespace, &path.name);
        if !path.subresource.is_empty() {
            let found = kind.subresource(&path.subresource);
            target.subresource = Some(found.ok_or_else(StatusError::path_not_found)?);
        }
        self.one(target, request).await
    }

    async fn collection(
        &self,
        kind: &Arc<Kind>,
        path: &ResourcePath,
        request: Request,
    ) -> Result<Response, StatusError> {
        match self.info.verb {
            "list" => self.list(kind, path).await,
            "watch" => self.watch(kind, path).await,
            "create" if kind.namespaced() != path.namespace.is_empty() => {
                self.create(kind, path, request).await
            }
            "deletecollection" => self.delete_collection(kind, path, request).await,
            verb => Err(StatusError::method_not_supported(
                kind.group_resource(),
                verb,
            )),
        }
    }

    async fn one(&self, target: Target, request: Request) -> Result<Response, StatusError> {
        let unsupported =
            |verb| StatusError::method_not_supported(target.kind.group_resource(), verb);
        if matches!(
            target.subresource,
            Some(
                Subresource::Proxy
                    | Subresource::Exec
                    | Subresource::Attach
                    | Subresource::Portforward
            )
        ) {
            self.review_connection(&target).await?;
        }
        match (target.subresource, self.info.verb) {
            (Some(Subresource::Proxy), _) => self.proxy(&target, request).await,
            (
                None
                | Some(
                    Subresource::Status
                    | Subresource::Scale
                    | Subresource::Ephemeralcontainers
                    | Subresource::Resize
                    | Subresource::Approval,
                ),
                "get",
            ) => self.get(&target).await,
            (None, "watch") => {
                let path = self.info.resource.clone().unwrap_or_default();
                self.watch(&target.kind, &path).await
            }
            (
                None
                | Some(
                    Subresource::Status
                    | Subresource::Scale
                    | Subresource::Ephemeralcontainers
                    | Subresource::Resize
                    | Subresource::Approval
                    | Subresource::Finalize,
                ),
                "update",
            ) => self.update(&target, request).await,
            (
                None
                | Some(
                    Subresource::Status
                    | Subresource::Scale
                    | Subresource::Ephemeralcontainers
                    | Subresource::Resize
                    | Subresource::Approval,
                ),
                "patch",
            ) => self.patch(&target, request).await,
            (None, "delete") => self.delete(&target, request).await,
            (Some(Subresource::Binding), "create") => self.bind(&target, request).await,
            (Some(Subresource::Eviction), "create") => self.evict(&target, request).await,
            (Some(Subresource::Token), "create") => self.issue_token(&target, request).await,
            (Some(Subresource::Log), "get") => self.logs(&target).await,
            (Some(Subresource::Exec | Subresource::Attach), "get" | "create") => {
                self.exec(&target, request).await
            }
            (Some(Subresource::Portforward), "get" | "create") => {
                self.port_forward(&target, request).await
            }
            (_, verb) => Err(unsupported(verb)),
        }
    }

    async fn plain_path(&self) -> Result<Response, StatusError> {
        if self.info.verb != "get" {
            let gr = GroupResource {
                group: "",
                resource: "",
            };
            return Err(StatusError::method_not_supported(gr, self.info.verb));
        }
        let parts: Vec<&str> = self
            .path
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        if !PLAIN_ROOTS.contains(parts.first().unwrap_or(&"")) {
            return Err(StatusError::path_not_found());
        }
        match parts.as_slice() {
            ["healthz" | "livez" | "readyz", check @ ..] => self.health(check).await,
            ["version"] => Ok(crate::http::json_response(200, &self.api.version)),
            ["metrics"] => Ok(self.api.metrics.render(&self.api.server)),
            ["openapi", rest @ ..] => self.openapi(rest),
            ["api" | "apis", ..] => self.discovery(&parts),
            ["openid", "v1", "jwks"] => Ok(token::jwks(&self.api.tokens)),
            [".well-known", "openid-configuration"] => Ok(token::openid_configuration()),
            [] => Ok(self.api.discovery.paths()),
            _ => Err(StatusError::path_not_found()),
        }
    }

    /// `fieldManager`, else the start of the user agent.
    fn field_manager(&self) -> String {
        let agent = self
            .headers
            .get(USER_AGENT)
            .and_then(|value| value.to_str().ok());
        let program = agent
            .unwrap_or("unknown")
            .split('/')
            .next()
            .unwrap_or_default();
        let manager = self.query.get("fieldManager").unwrap_or(program);
        let mut end = manager.len().min(FIELD_MANAGER_BYTES_MAX);
        while !manager.is_char_boundary(end) {
            end -= 1;
        }
        manager[..end].to_owned()
    }

    fn field_manager_error(&self) -> Option<FieldError> {
        let manager = self.query.get("fieldManager")?;
        let path = Path::root("fieldManager");
        if manager.len() > FIELD_MANAGER_BYTES_MAX {
            return Some(FieldError::too_long(&path, FIELD_MANAGER_BYTES_MAX));
        }
        let why = "should only contain printable characters";
        let printable = |c: char| !c.is_control() && (c == ' ' || !c.is_whitespace());
        let hidden = manager.chars().any(|c| !printable(c));
        hidden.then(|| FieldError::invalid(&path, manager, why))
    }

    /// The refusal of the options of a write.
    pub(crate) fn options_refusal(&self, errors: &[FieldError]) -> StatusError {
        let options = match self.info.verb {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            "patch" => "PatchOptions",
            _ => "DeleteOptions",
        };
        StatusError::invalid("meta.k8s.io", options, "", errors)
    }

    /// Who writes, and whether it is committed.
    ///
    /// # Errors
    /// An unknown `dryRun`, or a `fieldManager` that is no name.
    pub(crate) fn write_context(&self, body_dry_run: bool) -> Result<WriteContext, StatusError> {
        let mut mode = if body_dry_run {
            WriteMode::DryRun
        } else {
            WriteMode::Commit
        };
        let asked: Vec<&str> = self
            .query
            .all("dryRun")
            .filter(|value| !value.is_empty())
            .collect();
        let mut errors: Vec<FieldError> = delete::dry_run_error(&asked).into_iter().collect();
        if !self.info.verb.starts_with("delete") {
            errors.extend(self.field_manager_error());
        }
        if !errors.is_empty() {
            return Err(self.options_refusal(&errors));
        }
        if !asked.is_empty() {
            mode = WriteMode::DryRun;
        }
        Ok(WriteContext {
            user: Arc::clone(&self.user),
            mode,
            manager: self.field_manager(),
            owners: Owners::FromCreation,
            fence: None,
            asked: Asked {
                field_manager: self.query.get("fieldManager").map(Arc::from),
                field_validation: self.query.get("fieldValidation").map(Arc::from),
                notes: Some(Arc::clone(&self.notes)),
                ..Asked::default()
            },
        })
    }
}
