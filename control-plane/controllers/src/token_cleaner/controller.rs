//! Deletes bootstrap tokens at their end.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control_plane_client::{Cached, DeleteOptions, Informer, ObjectKey, Subscription, WorkQueue};
use jiff::Timestamp;
use proto_api::types::core::v1::Secret;

use crate::context::{Context, ReconcileError};
use crate::runner::{Next, Reconciler};

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const EXPIRATION: &str = "expiration";

pub(crate) struct TokenCleaner {
    context: Context,
    secrets: Arc<Informer<Secret>>,
    _subscription: Subscription,
}

/// When a token ends; `None`: it does not, or is none. What cannot be read has ended, as where it is
/// checked.
fn ends(secret: &Secret) -> Option<Timestamp> {
    if secret.metadata.namespace.as_deref() != Some(NAMESPACE)
        || secret.type_.as_deref() != Some(TYPE)
    {
        return None;
    }
    let at = secret.data.get(EXPIRATION)?;
    let text = std::str::from_utf8(&at.0).unwrap_or_default();
    Some(text.trim().parse().unwrap_or(Timestamp::UNIX_EPOCH))
}

impl TokenCleaner {
    pub(crate) async fn start(context: Context) -> (Arc<Self>, WorkQueue<ObjectKey>) {
        let secrets = context.informers.of::<Secret>();
        secrets.synced().await;
        let queue = WorkQueue::new();
        let wake = queue.clone();
        let subscription = secrets.subscribe(move |change| {
            if let Some(secret) = change.new_state()
                && ends(secret).is_some()
            {
                wake.add(secret.key.clone());
            }
        });
        let controller = Self {
            context,
            secrets,
            _subscription: subscription,
        };
        for key in controller.all_keys() {
            queue.add(key);
        }
        (Arc::new(controller), queue)
    }
}

#[async_trait]
impl Reconciler for TokenCleaner {
    type Key = ObjectKey;
    const NAME: &'static str = "token-cleaner";
    const WORKERS: usize = 1;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(secret) = self.secrets.get(key) else {
            return Ok(Next::Done);
        };
        let Some(end) = ends(&secret) else {
            return Ok(Next::Done);
        };
        let left = end.duration_since(self.context.clock.now());
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => Ok(Next::After(left)),
            _ => {
                self.context
                    .delete_seen(&secret, DeleteOptions::default())
                    .await?;
                Ok(Next::Done)
            }
        }
    }

    fn all_keys(&self) -> Vec<ObjectKey> {
        let is_token = |secret: &&Arc<Cached<Secret>>| ends(secret).is_some();
        let secrets = self.secrets.snapshot();
        secrets
            .iter()
            .filter(is_token)
            .map(|secret| secret.key.clone())
            .collect()
    }
}
