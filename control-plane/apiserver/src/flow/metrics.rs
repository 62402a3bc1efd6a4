//! What priority and fairness counts, under upstream's names.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::config::Limits;
use super::seats::Refused;

type LevelFamily = Family<LevelLabels, Gauge<i64, AtomicI64>>;
type SchemaFamily = Family<SchemaLabels, Gauge<i64, AtomicI64>>;
type Number = Gauge<i64, AtomicI64>;

/// Upper bounds of the buckets of waits, in seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

fn waits() -> Histogram {
    Histogram::new(BUCKETS)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabels {
    priority_level: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SchemaLabels {
    priority_level: String,
    flow_schema: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    priority_level: String,
    flow_schema: String,
    reason: &'static str,
}

/// All that is counted.
#[derive(Debug, Clone)]
pub(crate) struct FlowMetrics {
    executing: SchemaFamily,
    waiting: SchemaFamily,
    dispatched: Family<SchemaLabels, Counter>,
    refused: Family<RefusedLabels, Counter>,
    waits: Family<SchemaLabels, Histogram, fn() -> Histogram>,
    seats: LevelFamily,
    nominal: LevelFamily,
    lower: LevelFamily,
    upper: LevelFamily,
}

impl Default for FlowMetrics {
    fn default() -> Self {
        Self {
            executing: Family::default(),
            waiting: Family::default(),
            dispatched: Family::default(),
            refused: Family::default(),
            waits: Family::new_with_constructor(waits as fn() -> Histogram),
            seats: Family::default(),
            nominal: Family::default(),
            lower: Family::default(),
            upper: Family::default(),
        }
    }
}

impl FlowMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        for (name, help, family) in [
            (
                "current_executing_seats",
                "Seats that are taken",
                &self.seats,
            ),
            (
                "nominal_limit_seats",
                "Seats of a level's share",
                &self.nominal,
            ),
            (
                "lower_limit_seats",
                "Seats that a level never lends",
                &self.lower,
            ),
            (
                "upper_limit_seats",
                "Seats with all that a level may borrow",
                &self.upper,
            ),
        ] {
            registry.register(
                format!("apiserver_flowcontrol_{name}"),
                help,
                family.clone(),
            );
        }
        for (name, help, family) in [
            (
                "current_executing_requests",
                "Requests that run",
                &self.executing,
            ),
            (
                "current_inqueue_requests",
                "Requests that wait for a seat",
                &self.waiting,
            ),
        ] {
            registry.register(
                format!("apiserver_flowcontrol_{name}"),
                help,
                family.clone(),
            );
        }
        registry.register(
            "apiserver_flowcontrol_dispatched_requests",
            "Requests that got a seat",
            self.dispatched.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_rejected_requests",
            "Requests that got no seat",
            self.refused.clone(),
        );
        registry.register(
            "apiserver_flowcontrol_request_wait_duration_seconds",
            "Time that requests waited for their seat",
            self.waits.clone(),
        );
    }

    pub(super) fn of_level(&self, name: &str) -> LevelGauges {
        let labels = LevelLabels {
            priority_level: name.to_owned(),
        };
        let executing = self.seats.get_or_create(&labels).clone();
        LevelGauges {
            all: self.clone(),
            labels,
            executing,
        }
    }

    pub(super) fn of_schema(&self, level: &str, schema: &str) -> SchemaCounters {
        let labels = SchemaLabels {
            priority_level: level.to_owned(),
            flow_schema: schema.to_owned(),
        };
        SchemaCounters {
            dispatched: self.dispatched.get_or_create(&labels).clone(),
            waits: self.waits.get_or_create(&labels).clone(),
            executing: self.executing.get_or_create(&labels).clone(),
            waiting: self.waiting.get_or_create(&labels).clone(),
            refused: self.refused.clone(),
            labels,
        }
    }
}

/// The numbers of one level.
#[derive(Debug, Clone)]
pub(super) struct LevelGauges {
    all: FlowMetrics,
    labels: LevelLabels,
    executing: Number,
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl LevelGauges {
    pub(super) fn executing_seats(&self, used: u64) {
        self.executing.set(whole(used));
    }

    pub(super) fn limits(&self, limits: Limits) {
        for (family, number) in [
            (&self.all.nominal, limits.nominal),
            (&self.all.lower, limits.min),
            (&self.all.upper, limits.max),
        ] {
            family.get_or_create(&self.labels).set(whole(number));
        }
    }

    /// The level is gone.
    pub(super) fn forget(&self) {
        let all = &self.all;
        for family in [&all.seats, &all.nominal, &all.lower, &all.upper] {
            family.remove(&self.labels);
        }
    }
}

/// The numbers of one schema.
#[derive(Debug, Clone)]
pub(super) struct SchemaCounters {
    dispatched: Counter,
    waits: Histogram,
    executing: Number,
    waiting: Number,
    refused: Family<RefusedLabels, Counter>,
    labels: SchemaLabels,
}

/// Counts one more for as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(Number);

impl Counted {
    fn new(gauge: &Number) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl SchemaCounters {
    pub(super) fn dispatched(&self, waited: Duration) -> Counted {
        self.dispatched.inc();
        self.waits.observe(waited.as_secs_f64());
        Counted::new(&self.executing)
    }

    pub(super) fn waiting(&self) -> Counted {
        Counted::new(&self.waiting)
    }

    pub(super) fn refused(&self, refused: Refused) {
        let labels = RefusedLabels {
            priority_level: self.labels.priority_level.clone(),
            flow_schema: self.labels.flow_schema.clone(),
            reason: refused.reason(),
        };
        self.refused.get_or_create(&labels).inc();
    }
}
