//! The Endpoints controller's I/O.

use std::sync::Arc;

use async_trait::async_trait;
use control_plane_client::resources::ENDPOINTS;
use control_plane_client::{DeleteOptions, Informer, ObjectKey, Subscription, WorkQueue, selector};
use proto_api::types::core::v1::{Endpoints, Pod, Service};

use super::plan;
use crate::context::{Context, ReconcileError, failed};
use crate::runner::{Next, Reconciler};
use crate::service_pods;

pub(crate) struct EndpointsController {
    context: Context,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    endpoints: Arc<Informer<Endpoints>>,
    _subscriptions: [Subscription; 3],
}

impl EndpointsController {
    pub(crate) async fn start(context: Context) -> (Arc<Self>, WorkQueue<ObjectKey>) {
        let services = context.informers.of::<Service>();
        let pods = context.informers.of::<Pod>();
        let endpoints = context.informers.of::<Endpoints>();
        services.synced().await;
        pods.synced().await;
        endpoints.synced().await;
        let queue = WorkQueue::new();
        let wake = queue.clone();
        let on_service = services.subscribe(move |change| wake.add(change.object().key.clone()));
        let (wake, known) = (queue.clone(), Arc::clone(&services));
        let on_pod =
            pods.subscribe(move |change| service_pods::wake_for_pod(change, &known, &wake));
        let wake = queue.clone();
        let on_endpoints = endpoints.subscribe(move |change| wake.add(change.object().key.clone()));
        let controller = Self {
            context,
            services,
            pods,
            endpoints,
            _subscriptions: [on_service, on_pod, on_endpoints],
        };
        (Arc::new(controller), queue)
    }

    async fn clean(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        if let Some(present) = self.endpoints.get(key)
            && plan::is_ours(&present)
        {
            self.context
                .delete_seen(&present, DeleteOptions::default())
                .await?;
        }
        Ok(Next::Done)
    }

    async fn write(&self, key: &ObjectKey, next: &mut Endpoints) -> Result<(), ReconcileError> {
        let present = self.endpoints.get(key);
        if let Some(present) = &present {
            next.metadata.resource_version = Some(present.revision.to_string());
            next.metadata.uid.clone_from(&present.metadata.uid);
        }
        let body = serde_json::to_value(&*next).map_err(|source| ReconcileError::Encode {
            what: "Endpoints",
            source,
        })?;
        let api = self.context.api();
        let written = match present {
            Some(_) => api.update(ENDPOINTS, key, None, body).await,
            None => api.create(ENDPOINTS, &key.namespace, body).await,
        };
        written
            .map(|_object| ())
            .map_err(failed("write", ENDPOINTS, key))
    }
}

#[async_trait]
impl Reconciler for EndpointsController {
    type Key = ObjectKey;
    const NAME: &'static str = "endpoints";
    const WORKERS: usize = 2;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(service) = self.services.get(key) else {
            return self.clean(key).await;
        };
        let Some(spec) = service_pods::selecting(&service) else {
            return Ok(Next::Done);
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let pods = self.pods.snapshot();
        let labels = selector::equalities(&spec.selector);
        let selected = service_pods::selected(&pods, &key.namespace, &labels);
        let present = self.endpoints.get(key);
        let mut next = plan::endpoints(
            &service,
            spec,
            selected,
            present.as_ref().map(|cached| &cached.value),
        );
        if present
            .as_ref()
            .is_none_or(|present| plan::differs(present, &next))
        {
            self.write(key, &mut next).await?;
        }
        Ok(Next::Done)
    }

    fn all_keys(&self) -> Vec<ObjectKey> {
        self.services
            .snapshot()
            .iter()
            .map(|service| service.key.clone())
            .collect()
    }
}
