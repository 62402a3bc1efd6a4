//! Creates what is missing in a namespace and repairs the published CA.

use std::sync::Arc;

use async_trait::async_trait;
use control_plane_client::resources::{CONFIG_MAPS, SERVICE_ACCOUNTS};
use control_plane_client::{
    ApiError, Change, Informer, ObjectKey, Resource, Subscription, WorkQueue,
};
use proto_api::types::core::v1::{ConfigMap, Namespace, ServiceAccount};
use serde_json::{Value, json};

use crate::context::{Context, ReconcileError, failed};
use crate::runner::{Next, Reconciler};

const ACCOUNT: &str = "default";
const CA_MAP: &str = "kube-root-ca.crt";
const CA_KEY: &str = "ca.crt";
const CA_NOTE: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using \
                       internal endpoints such as the internal service IP or kubernetes.default.svc. \
                       No other usage is guaranteed across distributions of Kubernetes clusters.";

pub(crate) struct ServiceAccountController {
    context: Context,
    namespaces: Arc<Informer<Namespace>>,
    accounts: Arc<Informer<ServiceAccount>>,
    maps: Arc<Informer<ConfigMap>>,
    _subscriptions: [Subscription; 3],
}

impl ServiceAccountController {
    pub(crate) async fn start(context: Context) -> (Arc<Self>, WorkQueue<ObjectKey>) {
        let namespaces = context.informers.of::<Namespace>();
        let accounts = context.informers.of::<ServiceAccount>();
        let maps = context.informers.of::<ConfigMap>();
        namespaces.synced().await;
        accounts.synced().await;
        maps.synced().await;
        let queue = WorkQueue::new();
        let wake = queue.clone();
        let on_namespace = namespaces.subscribe(move |change| {
            if !matches!(change, Change::Deleted(_)) {
                wake.add(change.object().key.clone());
            }
        });
        let wake = queue.clone();
        let on_account = accounts.subscribe(move |change| {
            if let Change::Deleted(account) = change
                && &*account.key.name == ACCOUNT
            {
                wake.add(ObjectKey::new("", Arc::clone(&account.key.namespace)));
            }
        });
        let wake = queue.clone();
        let on_map = maps.subscribe(move |change| {
            let map = change.object();
            if &*map.key.name == CA_MAP && !matches!(change, Change::Added(_)) {
                wake.add(ObjectKey::new("", Arc::clone(&map.key.namespace)));
            }
        });
        let subscriptions = [on_namespace, on_account, on_map];
        let controller = Self {
            context,
            namespaces,
            accounts,
            maps,
            _subscriptions: subscriptions,
        };
        (Arc::new(controller), queue)
    }

    async fn create(
        &self,
        resource: Resource,
        namespace: &str,
        body: Value,
    ) -> Result<(), ReconcileError> {
        match self.context.api().create(resource, namespace, body).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() || is_refused_for_good(&error) => Ok(()),
            Err(error) => Err(failed(
                "create",
                resource,
                &ObjectKey::new(namespace, ACCOUNT),
            )(error)),
        }
    }
}

/// The namespace goes or is gone: nothing to create in it.
fn is_refused_for_good(error: &ApiError) -> bool {
    error.code == 403 || error.is_not_found()
}

#[async_trait]
impl Reconciler for ServiceAccountController {
    type Key = ObjectKey;
    const NAME: &'static str = "serviceaccount";
    const WORKERS: usize = 2;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(namespace) = self.namespaces.get(key) else {
            return Ok(Next::Done);
        };
        if namespace.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let account = ObjectKey::new(Arc::clone(&key.name), ACCOUNT);
        if self.accounts.get(&account).is_none() {
            let body = json!({"metadata": {"name": ACCOUNT}});
            self.create(SERVICE_ACCOUNTS, &key.name, body).await?;
        }
        let ca = &self.context.config.cluster_ca_pem;
        let map = ObjectKey::new(Arc::clone(&key.name), CA_MAP);
        match self.maps.get(&map) {
            None => {
                let body = json!({
                    "metadata": {
                        "name": CA_MAP,
                        "annotations": {"kubernetes.io/description": CA_NOTE},
                    },
                    "data": {CA_KEY: ca},
                });
                self.create(CONFIG_MAPS, &key.name, body).await?;
            }
            Some(present) if present.data.len() == 1 && present.data.get(CA_KEY) == Some(ca) => {}
            Some(present) => {
                let mut data: serde_json::Map<String, Value> = present
                    .data
                    .keys()
                    .map(|key| (key.clone(), Value::Null))
                    .collect();
                data.insert(CA_KEY.to_owned(), json!(ca));
                self.context
                    .patch_seen(&present, json!({"data": data}))
                    .await?;
            }
        }
        Ok(Next::Done)
    }

    fn all_keys(&self) -> Vec<ObjectKey> {
        self.namespaces
            .snapshot()
            .iter()
            .map(|namespace| namespace.key.clone())
            .collect()
    }
}
