//! `/metrics`, under upstream's names.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::audit::Counts;
use crate::flow::FlowMetrics;
use crate::http::{Response, text_response};
use crate::server::Server;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    resource: String,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: &'static str,
    resource: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    resource: &'static str,
}

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

fn latency() -> Histogram {
    Histogram::new(BUCKETS)
}

/// What the server counts.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<VerbLabels, Histogram, fn() -> Histogram>,
    watches: Family<ResourceLabels, Counter>,
    objects: Family<ResourceLabels, Gauge<i64, AtomicI64>>,
    revision: Gauge<i64, AtomicI64>,
    flow: FlowMetrics,
    audit: Option<Arc<Counts>>,
    audit_events: Gauge<i64, AtomicI64>,
    audit_dropped: Gauge<i64, AtomicI64>,
}

impl Metrics {
    /// `audit`: what became of audit events, where there is a log.
    pub(crate) fn new(audit: Option<Arc<Counts>>) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(latency as fn() -> Histogram),
            watches: Family::default(),
            objects: Family::default(),
            revision: Gauge::default(),
            flow: FlowMetrics::default(),
            audit,
            audit_events: Gauge::default(),
            audit_dropped: Gauge::default(),
        };
        let r = &mut metrics.registry;
        r.register(
            "apiserver_request",
            "Requests answered",
            metrics.requests.clone(),
        );
        r.register(
            "apiserver_request_duration_seconds",
            "Time to the answer's head, watches excluded",
            metrics.durations.clone(),
        );
        r.register(
            "apiserver_watches_started",
            "Watches started",
            metrics.watches.clone(),
        );
        r.register(
            "apiserver_storage_objects",
            "Objects in the watch cache",
            metrics.objects.clone(),
        );
        r.register(
            "apiserver_watch_cache_revision",
            "Revision up to which the watch cache is complete",
            metrics.revision.clone(),
        );
        metrics.flow.register(r);
        r.register(
            "apiserver_audit_events",
            "Audit events put into the log's queue",
            metrics.audit_events.clone(),
        );
        r.register(
            "apiserver_audit_events_dropped",
            "Audit events that did not fit the queue, or could not be written",
            metrics.audit_dropped.clone(),
        );
        metrics
    }

    /// What others measure, shown with the rest.
    pub(crate) fn with(mut self, register: impl FnOnce(&mut Registry)) -> Self {
        register(&mut self.registry);
        self
    }

    pub(crate) fn flow(&self) -> FlowMetrics {
        self.flow.clone()
    }

    pub(crate) fn request(&self, verb: &'static str, resource: &str, code: u16, took: Duration) {
        // An unknown resource would let clients make labels at will.
        let resource = if code == 404 {
            String::new()
        } else {
            resource.to_owned()
        };
        let labels = RequestLabels {
            verb,
            resource: resource.clone(),
            code,
        };
        self.requests.get_or_create(&labels).inc();
        if verb != "watch" {
            let labels = VerbLabels { verb, resource };
            self.durations
                .get_or_create(&labels)
                .observe(took.as_secs_f64());
        }
    }

    pub(crate) fn watch_started(&self, resource: &'static str) {
        self.watches
            .get_or_create(&ResourceLabels { resource })
            .inc();
    }

    pub(crate) fn render(&self, server: &Server) -> Response {
        for resource in &server.cache.resources() {
            let count = i64::try_from(resource.len()).unwrap_or(i64::MAX);
            let labels = ResourceLabels {
                resource: resource.kind.plural,
            };
            self.objects.get_or_create(&labels).set(count);
        }
        self.revision
            .set(i64::try_from(server.cache.applied()).unwrap_or(i64::MAX));
        if let Some(counts) = &self.audit {
            let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            self.audit_events.set(gauge(counts.logged()));
            self.audit_dropped.set(gauge(counts.dropped()));
        }
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text_response(200, text),
            Err(fault) => text_response(500, format!("metrics cannot be written: {fault}\n")),
        }
    }
}
