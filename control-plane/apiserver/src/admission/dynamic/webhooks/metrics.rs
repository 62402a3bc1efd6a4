//! What admission webhooks are measured by, under upstream's names.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::hook::Step;

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Codes above are counted as this one, so that a webhook cannot make labels at will.
const CODE_MAX: u16 = 600;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    rejected: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    code: u16,
    rejected: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    error_type: &'static str,
    rejection_code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpenLabels {
    name: String,
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    name: String,
    kind: &'static str,
    r#type: &'static str,
    operation: &'static str,
}

/// Why a request was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejection {
    /// The webhook could not be asked, or its answer made no sense.
    Calling,
    /// The server could not use the answer.
    Internal,
    /// The webhook said no.
    Answer,
}

impl Rejection {
    const fn name(self) -> &'static str {
        match self {
            Self::Calling => "calling_webhook_error",
            Self::Internal => "apiserver_internal_error",
            Self::Answer => "no_error",
        }
    }
}

/// What admission webhooks are measured by.
#[derive(Debug, Clone)]
pub(crate) struct WebhookMetrics {
    durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
    requests: Family<RequestLabels, Counter>,
    rejections: Family<RejectionLabels, Gauge>,
    open: Family<OpenLabels, Gauge>,
    condition_errors: Family<ConditionLabels, Counter>,
    condition_exclusions: Family<ConditionLabels, Counter>,
}

/// One webhook on one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) name: &'a str,
    pub(super) step: Step,
    pub(super) operation: &'static str,
}

impl Default for WebhookMetrics {
    fn default() -> Self {
        Self {
            durations: Family::new_with_constructor(latency as fn() -> Histogram),
            requests: Family::default(),
            rejections: Family::default(),
            open: Family::default(),
            condition_errors: Family::default(),
            condition_exclusions: Family::default(),
        }
    }
}

fn latency() -> Histogram {
    Histogram::new(BUCKETS)
}

impl WebhookMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "apiserver_admission_webhook_admission_duration_seconds",
            "Time that admission webhooks took",
            self.durations.clone(),
        );
        registry.register(
            "apiserver_admission_webhook_request",
            "Requests that admission webhooks were asked about",
            self.requests.clone(),
        );
        // Gauges that only grow: the format ends a counter's name with `_total`, upstream does not.
        registry.register(
            "apiserver_admission_webhook_rejection_count",
            "Requests that admission webhooks rejected",
            self.rejections.clone(),
        );
        registry.register(
            "apiserver_admission_webhook_fail_open_count",
            "Requests that went on although an admission webhook could not be asked",
            self.open.clone(),
        );
        registry.register(
            "apiserver_admission_match_condition_evaluation_errors",
            "Match conditions that could not be evaluated",
            self.condition_errors.clone(),
        );
        registry.register(
            "apiserver_admission_match_condition_exclusions",
            "Requests that match conditions left out",
            self.condition_exclusions.clone(),
        );
    }

    /// The webhook was asked.
    pub(super) fn asked(&self, asked: Asked<'_>, took: Duration, code: u16, rejected: bool) {
        let Asked {
            name,
            step,
            operation,
        } = asked;
        let labels = DurationLabels {
            name: name.to_owned(),
            r#type: step.name(),
            operation,
            rejected: rejected.to_string(),
        };
        self.durations
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
        let labels = RequestLabels {
            name: name.to_owned(),
            r#type: step.name(),
            operation,
            code: code.min(CODE_MAX),
            rejected: rejected.to_string(),
        };
        self.requests.get_or_create(&labels).inc();
    }

    pub(super) fn rejected(&self, asked: Asked<'_>, why: Rejection, code: u16) {
        let labels = RejectionLabels {
            name: asked.name.to_owned(),
            r#type: asked.step.name(),
            operation: asked.operation,
            error_type: why.name(),
            rejection_code: code.min(CODE_MAX),
        };
        self.rejections.get_or_create(&labels).inc();
    }

    pub(super) fn failed_open(&self, asked: Asked<'_>) {
        let labels = OpenLabels {
            name: asked.name.to_owned(),
            r#type: asked.step.name(),
        };
        self.open.get_or_create(&labels).inc();
    }

    pub(super) fn condition(&self, asked: Asked<'_>, is_error: bool) {
        let labels = ConditionLabels {
            name: asked.name.to_owned(),
            kind: "webhook",
            r#type: asked.step.name(),
            operation: asked.operation,
        };
        let family = if is_error {
            &self.condition_errors
        } else {
            &self.condition_exclusions
        };
        family.get_or_create(&labels).inc();
    }
}
