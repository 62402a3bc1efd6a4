//! The cluster's own signers: approved certificate requests get their certificate, nodes' requests are
//! approved where roles say so, and old ones go.
//!
//! Owns: what each `kubernetes.io/` signer gives, and when a request is too old. Must not know: who
//! may approve (admission asks roles). Every replica does this; the store decides between them.

mod asked;
mod rules;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::asked::Asked;
use self::rules::Fate;
use crate::auth::{Attributes, User};
use crate::object::Obj;
use crate::pki::Pki;
use crate::registry::{Kind, Subresource};
use crate::server::{DeleteRequest, Preconditions, Server, Target, WriteContext};
use crate::status::StatusError;
use crate::tree;

const GROUP: &str = "certificates.k8s.io";
const RETRY: Duration = Duration::from_secs(5);
/// How often the age of requests is looked at.
const CLEAN_EVERY: Duration = Duration::from_secs(600);

struct Signer {
    server: Arc<Server>,
    pki: Arc<Pki>,
    kind: Arc<Kind>,
    context: WriteContext,
}

/// Signs, approves and cleans until `stop`.
pub(crate) async fn follow(server: Arc<Server>, pki: Arc<Pki>, stop: CancellationToken) {
    let Ok(kind) = server.kind(GROUP, "v1", "certificatesigningrequests") else {
        return;
    };
    let context = WriteContext::own();
    let signer = Signer {
        server,
        pki,
        kind,
        context,
    };
    let mut changes = signer.server.cache.of(&signer.kind).tail();
    loop {
        let pause = match signer.settle_all().await {
            Ok(()) => CLEAN_EVERY,
            Err(fault) => {
                warn!(%fault, "certificate requests are not settled; trying again");
                RETRY
            }
        };
        // Cancel safe: a watch's `changed`, a timer and a token lose nothing when dropped.
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

impl Signer {
    async fn settle_all(&self) -> Result<(), StatusError> {
        let all = self.server.cache.of(&self.kind).snapshot();
        for request in all.values() {
            match self.settle(request).await {
                // Somebody else was first; its change wakes us again.
                Err(fault) if !matches!(fault.code, 404 | 409) => return Err(fault),
                _ => {}
            }
        }
        Ok(())
    }

    async fn settle(&self, request: &Obj) -> Result<(), StatusError> {
        let object = request.value();
        let now = (self.server.clock)();
        match rules::fate(&object, now) {
            Fate::Keep => Ok(()),
            Fate::Remove(why) => self.remove(request, why).await,
            Fate::Sign => self.sign(request, &object).await,
            Fate::MayApprove => self.approve(request, &object).await,
        }
    }

    fn target(&self, request: &Obj, subresource: Option<Subresource>) -> Target {
        Target {
            subresource,
            ..Target::new(&self.kind, "", &request.key.name)
        }
    }

    async fn remove(&self, request: &Obj, why: &str) -> Result<(), StatusError> {
        info!(
            request = &*request.key.name,
            why, "certificate request removed"
        );
        let exactly = DeleteRequest {
            preconditions: Preconditions {
                uid: Some(request.meta.uid.to_string()),
                ..Preconditions::default()
            },
            ..DeleteRequest::default()
        };
        let target = self.target(request, None);
        let deleted = self.server.delete(&target, &exactly, &self.context);
        deleted.await.map(|_| ())
    }

    async fn sign(&self, request: &Obj, object: &Value) -> Result<(), StatusError> {
        let usages: Vec<&str> = tree::list(object, &["spec", "usages"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let signer = tree::text(object, &["spec", "signerName"]);
        let issued = Asked::read(tree::text(object, &["spec", "request"])).and_then(|asked| {
            rules::check(signer, &asked, &usages)?;
            let seconds = rules::seconds(object);
            let signed = self.pki.sign_request(&asked.der, &usages, seconds);
            signed.map_err(|fault| fault.to_string())
        });
        let target = self.target(request, Some(Subresource::Status));
        let now = self.server.now_text();
        let written = self.server.modify(&target, &self.context, |old| {
            let mut new = old.clone();
            if rules::fate(old, (self.server.clock)()) != Fate::Sign {
                return Ok(new);
            }
            match &issued {
                Ok(pem) => {
                    let status = tree::object_mut(&mut new, "status");
                    status.insert("certificate".to_owned(), json!(STANDARD.encode(pem)));
                }
                Err(why) => tell(&mut new, "Failed", "SignerValidationFailure", why, &now),
            }
            Ok(new)
        });
        written.await.map(|_| ())
    }

    /// Approves a node's request for its client certificate, when roles let the asker have one.
    async fn approve(&self, request: &Obj, object: &Value) -> Result<(), StatusError> {
        let Ok(asked) = Asked::read(tree::text(object, &["spec", "request"])) else {
            return Ok(());
        };
        let usages: Vec<&str> = tree::list(object, &["spec", "usages"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        if rules::check(rules::NODE_CLIENT, &asked, &usages).is_err() {
            return Ok(());
        }
        let user = asker(object);
        let may = |subresource: &str| {
            let attributes = Attributes {
                verb: "create".to_owned(),
                group: GROUP.to_owned(),
                version: "v1".to_owned(),
                resource: "certificatesigningrequests".to_owned(),
                subresource: subresource.to_owned(),
                ..Attributes::default()
            };
            self.server
                .authorizer
                .authorize(&user, &attributes)
                .is_allowed()
        };
        let message = if user.name == asked.common_name && may("selfnodeclient") {
            "Auto approving self kubelet client certificate after SubjectAccessReview."
        } else if may("nodeclient") {
            "Auto approving kubelet client certificate after SubjectAccessReview."
        } else {
            return Ok(());
        };
        let target = self.target(request, Some(Subresource::Approval));
        let now = self.server.now_text();
        let written = self.server.modify(&target, &self.context, |old| {
            let mut new = old.clone();
            if rules::fate(old, (self.server.clock)()) == Fate::MayApprove {
                tell(&mut new, "Approved", "AutoApproved", message, &now);
            }
            Ok(new)
        });
        written.await.map(|_| ())
    }
}

/// Who asked, as admission noted.
fn asker(object: &Value) -> User {
    let groups = tree::list(object, &["spec", "groups"]).iter();
    User {
        name: tree::text(object, &["spec", "username"]).to_owned(),
        uid: tree::text(object, &["spec", "uid"]).to_owned(),
        groups: groups
            .filter_map(|group| Some(group.as_str()?.to_owned()))
            .collect(),
        ..User::default()
    }
}

fn tell(object: &mut Value, kind: &str, reason: &str, message: &str, now: &str) {
    let mut conditions = tree::list(object, &["status", "conditions"]).to_vec();
    conditions.push(
        json!({"type": kind, "status": "True", "reason": reason, "message": message,
        "lastUpdateTime": now, "lastTransitionTime": now}),
    );
    let status = tree::object_mut(object, "status");
    status.insert("conditions".to_owned(), json!(conditions));
}

/// When a certificate (PEM) ends.
fn ends(pem: &[u8]) -> Option<Timestamp> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}
