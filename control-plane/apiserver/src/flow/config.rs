//! What flow schemas and priority levels say, read from the objects. Pure.

use std::sync::Arc;

use serde_json::Value;

use super::matching::{PathRule, ResourceRule, Rule, Subject};
use crate::tree;

/// Shares of a limited level that names none.
const SHARES: u64 = 30;
/// Seats of the server: upstream's bounds for reads and writes together.
pub(super) const SERVER_SEATS: u64 = 600;

/// What tells the flows of a schema apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

/// A flow schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SchemaSpec {
    pub(super) name: Arc<str>,
    pub(super) uid: String,
    pub(super) level: Arc<str>,
    pub(super) precedence: i64,
    pub(super) by: Distinguisher,
    pub(super) rules: Vec<Rule>,
}

/// The queues of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queuing {
    pub(super) queues: u32,
    pub(super) hand: u32,
    pub(super) length: usize,
}

/// What a level's shares and percentages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limited {
    shares: u64,
    lendable_percent: u64,
    /// None: as much as the others lend.
    borrowing_percent: Option<u64>,
    /// None: what cannot run now is refused.
    pub(super) queuing: Option<Queuing>,
}

/// A priority level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LevelSpec {
    pub(super) name: Arc<str>,
    pub(super) uid: String,
    /// None: exempt.
    pub(super) limited: Option<Limited>,
}

/// How many seats a level may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// Its own, whatever the others do.
    pub(super) min: u64,
    /// Its share: what it has besides `min` may be lent to others.
    pub(super) nominal: u64,
    /// With all it may borrow.
    pub(super) max: u64,
}

fn number(value: &Value, path: &[&str], default: u64) -> u64 {
    let given = tree::int(value, path);
    given.map_or(default, |given| u64::try_from(given).unwrap_or_default())
}

fn texts(value: &Value, field: &str) -> Vec<Box<str>> {
    let texts = tree::list(value, &[field]).iter();
    texts
        .filter_map(|text| Some(text.as_str()?.into()))
        .collect()
}

fn subject(value: &Value) -> Option<Subject> {
    let text = |path: &[&str]| Box::<str>::from(tree::text(value, path));
    match tree::text(value, &["kind"]) {
        "User" => Some(Subject::User(text(&["user", "name"]))),
        "Group" => Some(Subject::Group(text(&["group", "name"]))),
        "ServiceAccount" => Some(Subject::Account {
            namespace: text(&["serviceAccount", "namespace"]),
            name: text(&["serviceAccount", "name"]),
        }),
        _ => None,
    }
}

fn rule(value: &Value) -> Rule {
    let resource = |value: &Value| ResourceRule {
        verbs: texts(value, "verbs"),
        groups: texts(value, "apiGroups"),
        resources: texts(value, "resources"),
        namespaces: texts(value, "namespaces"),
        cluster: tree::flag(value, &["clusterScope"]),
    };
    let path = |value: &Value| PathRule {
        verbs: texts(value, "verbs"),
        paths: texts(value, "nonResourceURLs"),
    };
    let list = |field: &str| tree::list(value, &[field]).iter();
    Rule {
        subjects: list("subjects").filter_map(subject).collect(),
        resources: list("resourceRules").map(resource).collect(),
        paths: list("nonResourceRules").map(path).collect(),
    }
}

impl SchemaSpec {
    pub(super) fn read(object: &Value) -> Self {
        let method = ["spec", "distinguisherMethod", "type"];
        let level = ["spec", "priorityLevelConfiguration", "name"];
        Self {
            name: tree::text(object, &["metadata", "name"]).into(),
            uid: tree::text(object, &["metadata", "uid"]).to_owned(),
            level: tree::text(object, &level).into(),
            precedence: tree::int(object, &["spec", "matchingPrecedence"]).unwrap_or_default(),
            by: match tree::text(object, &method) {
                "ByUser" => Distinguisher::User,
                "ByNamespace" => Distinguisher::Namespace,
                _ => Distinguisher::Nothing,
            },
            rules: tree::list(object, &["spec", "rules"])
                .iter()
                .map(rule)
                .collect(),
        }
    }
}

fn queuing(response: &Value) -> Option<Queuing> {
    if tree::text(response, &["type"]) != "Queue" {
        return None;
    }
    let of = |field: &str, default: u64| number(response, &["queuing", field], default).max(1);
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let queues = narrow(of("queues", 64));
    Some(Queuing {
        queues,
        hand: narrow(of("handSize", 8)).min(queues),
        length: usize::try_from(of("queueLengthLimit", 50)).unwrap_or(usize::MAX),
    })
}

impl LevelSpec {
    pub(super) fn read(object: &Value) -> Self {
        let limited = tree::at(object, &["spec", "limited"]);
        let borrowing = tree::int(limited, &["borrowingLimitPercent"]);
        let exempt = tree::text(object, &["spec", "type"]) == "Exempt";
        Self {
            name: tree::text(object, &["metadata", "name"]).into(),
            uid: tree::text(object, &["metadata", "uid"]).to_owned(),
            limited: (!exempt).then(|| Limited {
                shares: number(limited, &["nominalConcurrencyShares"], SHARES),
                lendable_percent: number(limited, &["lendablePercent"], 0).min(100),
                borrowing_percent: borrowing.map(|it| u64::try_from(it).unwrap_or_default()),
                queuing: queuing(tree::at(limited, &["limitResponse"])),
            }),
        }
    }
}

/// The seats of every limited level, by its shares.
pub(super) fn limits<'a>(
    levels: impl Iterator<Item = &'a LevelSpec> + Clone,
) -> Vec<(&'a LevelSpec, Limited, Limits)> {
    let limited = levels.filter_map(|level| Some((level, level.limited?)));
    let shares: u64 = limited.clone().map(|(_, it)| it.shares).sum::<u64>().max(1);
    let nominal = |it: &Limited| (SERVER_SEATS * it.shares).div_ceil(shares);
    let percent = |of: u64, percent: u64| of.saturating_mul(percent).saturating_add(50) / 100;
    limited
        .map(|(level, it)| {
            let nominal = nominal(&it);
            let borrowed = it
                .borrowing_percent
                .map_or(SERVER_SEATS, |part| percent(nominal, part));
            let limits = Limits {
                min: nominal - percent(nominal, it.lendable_percent),
                nominal,
                // A level without shares is closed: it borrows nothing either.
                max: if nominal == 0 {
                    0
                } else {
                    nominal.saturating_add(borrowed)
                },
            };
            (level, it, limits)
        })
        .collect()
}
