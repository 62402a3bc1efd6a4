//! Creates the system objects. Where the API's Service leads is held true by the API servers.

use std::sync::Arc;

use async_trait::async_trait;
use control_plane_client::resources::{NAMESPACES, SERVICES};
use control_plane_client::{Change, Informer, ObjectKey, Resource, Subscription, WorkQueue};
use proto_api::types::core::v1::{Namespace, Service};
use serde_json::Value;
use tracing::warn;

use super::objects::{self, API_NAME, API_NAMESPACE, DNS_NAME, DNS_NAMESPACE};
use crate::context::{Context, ReconcileError, failed};
use crate::runner::{Next, Reconciler};

/// One system object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum System {
    Namespace(&'static str),
    ApiService,
    DnsService,
}

pub(crate) struct BootstrapController {
    context: Context,
    namespaces: Arc<Informer<Namespace>>,
    services: Arc<Informer<Service>>,
    _subscriptions: [Subscription; 2],
}

impl BootstrapController {
    pub(crate) async fn start(context: Context) -> (Arc<Self>, WorkQueue<System>) {
        let namespaces = context.informers.of::<Namespace>();
        let services = context.informers.of::<Service>();
        namespaces.synced().await;
        services.synced().await;
        let queue = WorkQueue::new();
        let wake = queue.clone();
        let on_namespace = namespaces.subscribe(move |change| {
            if let Change::Deleted(namespace) = change {
                let name = objects::NAMESPACES
                    .into_iter()
                    .find(|name| **name == *namespace.key.name);
                name.into_iter()
                    .for_each(|name| wake.add(System::Namespace(name)));
            }
        });
        let wake = queue.clone();
        let on_service = services.subscribe(move |change| {
            let key = &change.object().key;
            match (&*key.namespace, &*key.name) {
                (API_NAMESPACE, API_NAME) => wake.add(System::ApiService),
                (DNS_NAMESPACE, DNS_NAME) => wake.add(System::DnsService),
                _ => {}
            }
        });
        let subscriptions = [on_namespace, on_service];
        let controller = Self {
            context,
            namespaces,
            services,
            _subscriptions: subscriptions,
        };
        for system in controller.all_keys() {
            queue.add(system);
        }
        (Arc::new(controller), queue)
    }

    async fn create(
        &self,
        resource: Resource,
        namespace: &str,
        body: Value,
    ) -> Result<Next, ReconcileError> {
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        let key = ObjectKey::new(namespace, name);
        match self.context.api().create(resource, namespace, body).await {
            Ok(_) => Ok(Next::Done),
            Err(error) if error.is_already_exists() => Ok(Next::Done),
            Err(error) => Err(failed("create", resource, &key)(error)),
        }
    }

    /// Creates a Service; one that is there with another address is left alone and complained of.
    async fn service(&self, namespace: &str, body: Value) -> Result<Next, ReconcileError> {
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        let wanted = body["spec"]["clusterIP"].as_str().unwrap_or_default();
        match self.services.get(&ObjectKey::new(namespace, name)) {
            None => self.create(SERVICES, namespace, body).await,
            Some(present) => {
                let ip = present
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.cluster_ip.as_deref());
                if ip != Some(wanted) {
                    warn!(service = %present.key, ?ip, wanted, "system service has another address");
                }
                Ok(Next::Done)
            }
        }
    }
}

#[async_trait]
impl Reconciler for BootstrapController {
    type Key = System;
    const NAME: &'static str = "bootstrap";
    const WORKERS: usize = 1;

    async fn reconcile(&self, key: &System) -> Result<Next, ReconcileError> {
        let config = &self.context.config;
        match key {
            System::Namespace(name) => {
                if self.namespaces.get(&ObjectKey::new("", *name)).is_some() {
                    return Ok(Next::Done);
                }
                self.create(NAMESPACES, "", objects::namespace(name)).await
            }
            System::ApiService => {
                self.service(API_NAMESPACE, objects::api_service(config))
                    .await
            }
            System::DnsService => {
                self.service(DNS_NAMESPACE, objects::dns_service(config))
                    .await
            }
        }
    }

    fn all_keys(&self) -> Vec<System> {
        let rest = [System::ApiService, System::DnsService];
        objects::NAMESPACES
            .into_iter()
            .map(System::Namespace)
            .chain(rest)
            .collect()
    }
}
