//! Priority and fairness: how many requests run at a time, and who is next.
//!
//! Owns: the table made of flow schemas and priority levels, the seats, the queues. Must not know:
//! what a request does. A request takes seats of its level, or waits in the queues of its flow; queues
//! of a level are served in turn, so a flood of one flow delays the others of its level by one
//! request, and other levels not at all.
//! Invariants: a vital request (`matching::is_vital`) finds a seat whatever the objects say;
//! requests that wait are bounded; seats are never lost (they come back when dropped).

mod config;
mod follow;
mod matching;
mod metrics;
mod seats;
#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use serde_json::Value;

use self::config::{Distinguisher, LevelSpec, Limits, Queuing, SchemaSpec};
pub(crate) use self::follow::{follow, load};
pub(crate) use self::matching::Request;
use self::matching::{is_vital, matches};
pub(crate) use self::metrics::FlowMetrics;
use self::metrics::{Counted, SchemaCounters};
use self::seats::{Asked, LevelId, LevelPlan, Refused, Seat, Seats};
use crate::auth::User;
use crate::registry::flow_control;
use crate::status::StatusError;

/// How long a request waits for a seat.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(15);
/// When a refused client may try again.
const RETRY_AFTER_SECONDS: u32 = 1;
/// Seats for vital requests whose level has none; beside the server's, not of them.
const RESERVED_SEATS: u64 = 32;
/// No object can be called so.
const RESERVED: &str = "(reserved)";
const RESERVED_QUEUES: Queuing = Queuing {
    queues: 128,
    hand: 6,
    length: 50,
};

static SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
static LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// A schema whose level exists.
#[derive(Debug)]
struct Schema {
    spec: SchemaSpec,
    /// None: exempt.
    level: Option<LevelId>,
    uids: Option<(HeaderValue, HeaderValue)>,
    counters: SchemaCounters,
}

/// What the objects say, ready for use.
#[derive(Debug)]
struct Rules {
    /// In the order in which they are tried.
    schemas: Vec<Arc<Schema>>,
    /// For what none of them matches.
    rest: Arc<Schema>,
    reserved: LevelId,
}

/// The levels, and which requests belong to them.
#[derive(Debug)]
pub(crate) struct Flow {
    seats: Arc<Seats>,
    rules: ArcSwap<Rules>,
    metrics: FlowMetrics,
    configured: Mutex<Configured>,
}

/// What the rules are made of.
#[derive(Debug, PartialEq, Eq)]
struct Configured {
    levels: Vec<LevelSpec>,
    /// Those whose level exists, in the order in which they are tried.
    schemas: Vec<SchemaSpec>,
    /// The mandatory one for everything.
    rest: SchemaSpec,
}

/// What a request holds while it runs: seats, or nothing when it is exempt.
#[derive(Debug)]
pub(crate) struct Admitted {
    _seat: Option<Seat>,
    _counted: Counted,
}

/// The schema that a request was sorted by.
#[derive(Debug, Clone)]
pub(crate) struct Sorted(Arc<Schema>);

impl Sorted {
    /// Tells the client which objects decided.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        if let Some((schema, level)) = &self.0.uids {
            headers.insert(&SCHEMA_UID, schema.clone());
            headers.insert(&LEVEL_UID, level.clone());
        }
    }
}

impl Configured {
    /// The objects, and those without which nothing works where they are missing.
    fn read<'a>(
        schemas: impl Iterator<Item = &'a Value>,
        levels: impl Iterator<Item = &'a Value>,
    ) -> Self {
        let mut schemas: Vec<SchemaSpec> = schemas.map(SchemaSpec::read).collect();
        let mut levels: Vec<LevelSpec> = levels.map(LevelSpec::read).collect();
        for fixed in flow_control::mandatory_schemas() {
            let fixed = SchemaSpec::read(&fixed);
            if schemas.iter().all(|schema| schema.name != fixed.name) {
                schemas.push(fixed);
            }
        }
        for fixed in flow_control::mandatory_levels() {
            let fixed = LevelSpec::read(&fixed);
            if levels.iter().all(|level| level.name != fixed.name) {
                levels.push(fixed);
            }
        }
        schemas.retain(|schema| levels.iter().any(|level| level.name == schema.level));
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        levels.sort_by(|a, b| a.name.cmp(&b.name));
        let mut rest = SchemaSpec::read(&flow_control::catch_all());
        let stored = schemas.iter().find(|schema| schema.name == rest.name);
        if let Some(stored) = stored {
            rest.uid.clone_from(&stored.uid);
        }
        Self {
            levels,
            schemas,
            rest,
        }
    }
}

fn uids(schema: &SchemaSpec, level: &LevelSpec) -> Option<(HeaderValue, HeaderValue)> {
    if schema.uid.is_empty() || level.uid.is_empty() {
        return None;
    }
    let value = |uid: &str| HeaderValue::from_str(uid).ok();
    Some((value(&schema.uid)?, value(&level.uid)?))
}

impl Flow {
    /// With the objects that every cluster begins with.
    pub(crate) fn new(metrics: FlowMetrics) -> Self {
        let seats = Arc::<Seats>::default();
        let levels = flow_control::levels();
        let schemas = flow_control::schemas();
        let configured = Configured::read(schemas.iter(), levels.iter());
        let rules = rules(&configured, &seats, &metrics);
        Self {
            seats,
            rules: ArcSwap::from_pointee(rules),
            metrics,
            configured: Mutex::new(configured),
        }
    }

    /// Goes by these objects from now on; who runs and who waits stays.
    fn configure<'a>(
        &self,
        schemas: impl Iterator<Item = &'a Value>,
        levels: impl Iterator<Item = &'a Value>,
    ) {
        let new = Configured::read(schemas, levels);
        let mut configured = self.configured.lock();
        if *configured != new {
            let rules = rules(&new, &self.seats, &self.metrics);
            self.rules.store(Arc::new(rules));
            *configured = new;
        }
    }

    /// The first schema that matches.
    pub(crate) fn sort(&self, user: &User, request: &Request<'_>) -> Sorted {
        let rules = self.rules.load();
        let found = rules
            .schemas
            .iter()
            .find(|schema| matches(&schema.spec.rules, user, request));
        Sorted(Arc::clone(found.unwrap_or(&rules.rest)))
    }

    /// Waits for a seat.
    ///
    /// # Errors
    /// 429 when there is none and no queue, the queue is full, or no seat came free in time.
    pub(crate) async fn admit(
        &self,
        sorted: &Sorted,
        user: &User,
        request: &Request<'_>,
    ) -> Result<Admitted, StatusError> {
        let schema = &sorted.0;
        let Some(level) = schema.level else {
            return Ok(Admitted {
                _seat: None,
                _counted: schema.counters.dispatched(Duration::ZERO),
            });
        };
        let started = Instant::now();
        let vital = is_vital(user, request);
        let flow = flow_of(&schema.spec, user, request);
        let mut asked = self.seats.ask(level, flow, request.width);
        if vital && !matches!(asked, Asked::Seat(_)) {
            let reserved = self.rules.load().reserved;
            asked = self.seats.ask(reserved, hash(&user.name), 1);
        }
        let refused = match asked {
            Asked::Seat(seat) => return Ok(admitted(schema, seat, started)),
            Asked::Refused(refused) => refused,
            // Its level went this moment: as if it were full.
            Asked::NoLevel => Refused::NoSeat,
            Asked::Place(mut place) => {
                let _waiting = schema.counters.waiting();
                match tokio::time::timeout(WAIT_MAX, &mut place.seat).await {
                    Ok(Ok(seat)) => return Ok(admitted(schema, seat, started)),
                    Ok(Err(_)) | Err(_) => Refused::TimedOut,
                }
            }
        };
        schema.counters.refused(refused);
        Err(too_many(&schema.spec.level, refused))
    }
}

fn admitted(schema: &Schema, seat: Seat, started: Instant) -> Admitted {
    Admitted {
        _seat: Some(seat),
        _counted: schema.counters.dispatched(started.elapsed()),
    }
}

fn rules(configured: &Configured, seats: &Arc<Seats>, metrics: &FlowMetrics) -> Rules {
    let limited = config::limits(configured.levels.iter());
    let mut plans: Vec<LevelPlan> = limited
        .iter()
        .map(|(level, limited, limits)| LevelPlan {
            name: Arc::clone(&level.name),
            limits: *limits,
            queuing: limited.queuing,
            gauges: metrics.of_level(&level.name),
        })
        .collect();
    plans.push(LevelPlan {
        name: RESERVED.into(),
        limits: Limits {
            min: RESERVED_SEATS,
            nominal: RESERVED_SEATS,
            max: RESERVED_SEATS,
        },
        queuing: Some(RESERVED_QUEUES),
        gauges: metrics.of_level(RESERVED),
    });
    let ids = seats.configure(plans);
    let id_of = |name: &str| {
        let at = limited.iter().position(|(level, ..)| &*level.name == name);
        at.map(|at| ids[at])
    };
    let schema = |spec: &SchemaSpec| {
        let named = |level: &&LevelSpec| level.name == spec.level;
        let level = configured.levels.iter().find(named);
        Arc::new(Schema {
            level: id_of(&spec.level),
            uids: level.and_then(|level| uids(spec, level)),
            counters: metrics.of_schema(&spec.level, &spec.name),
            spec: spec.clone(),
        })
    };
    Rules {
        schemas: configured.schemas.iter().map(schema).collect(),
        rest: schema(&configured.rest),
        reserved: ids.last().copied().unwrap_or_default(),
    }
}

fn hash(what: impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

fn flow_of(schema: &SchemaSpec, user: &User, request: &Request<'_>) -> u64 {
    let what = match schema.by {
        Distinguisher::Nothing => "",
        Distinguisher::User => user.name.as_str(),
        Distinguisher::Namespace => request.resource.map_or("", |path| path.namespace.as_str()),
    };
    hash((&*schema.name, what))
}

fn too_many(level: &str, refused: Refused) -> StatusError {
    let message = format!(
        "too many requests, please try again later: priority level {level}: {}",
        refused.why()
    );
    StatusError::too_many_requests(message, RETRY_AFTER_SECONDS)
}
