//! Random commits against a model: a map, a revision, and the history they make.

use std::collections::BTreeMap;
use std::sync::Arc;

use control_plane_storage::{CommitError, Expect, Op, Rev, Store};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::{load, lossy, next_change, text};

const COMMITS: usize = 400;
const KEYS: usize = 6;

#[derive(Clone, Copy, Debug)]
enum Verb {
    Put,
    Delete,
    Check,
}

/// What a step expects of a key, relative to what the model knows.
#[derive(Clone, Copy, Debug)]
enum Belief {
    Any,
    Absent,
    Present,
    Stale,
}

type Step = Vec<(usize, Verb, Belief)>;

#[derive(Debug, Default)]
struct Model {
    entries: BTreeMap<String, (String, u64)>,
    rev: u64,
}

impl Model {
    fn op(&self, key: &str, verb: Verb, belief: Belief, value: &str) -> Op {
        let rev = self.entries.get(key).map_or(1, |(_, rev)| *rev);
        let expect = match belief {
            Belief::Any => Expect::Any,
            Belief::Absent => Expect::Absent,
            Belief::Present => Expect::Rev(Rev(rev)),
            Belief::Stale => Expect::Rev(Rev(rev.saturating_sub(1))),
        };
        let key = key.to_owned();
        match verb {
            Verb::Put => Op::put(key, value.to_owned(), expect),
            Verb::Delete => Op::delete(key, expect),
            Verb::Check => Op::Check {
                key: key.into(),
                expect,
            },
        }
    }

    /// The outcome as text, and the batch it adds to the history.
    fn commit(&mut self, ops: &[Op]) -> (String, Option<String>) {
        for (index, op) in ops.iter().enumerate() {
            let current = self.entries.get(&lossy(op.key()));
            let met = match op.expect() {
                Expect::Any => true,
                Expect::Absent => current.is_none(),
                Expect::Rev(rev) => current.is_some_and(|(_, at)| *at == rev.0),
            };
            if !met {
                return (format!("conflict {index} {current:?}"), None);
            }
        }
        let rev = self.rev + 1;
        let mut changes = BTreeMap::new();
        for op in ops {
            let key = lossy(op.key());
            match op {
                Op::Put { value, .. } => {
                    changes.insert(key.clone(), format!(" {key}={}", lossy(value)));
                    self.entries.insert(key, (lossy(value), rev));
                }
                Op::Delete { .. } => {
                    if self.entries.remove(&key).is_some() {
                        changes.insert(key.clone(), format!(" -{key}"));
                    }
                }
                Op::Check { .. } => {}
            }
        }
        if changes.is_empty() {
            return (format!("at {}", self.rev), None);
        }
        self.rev = rev;
        let changes: String = changes.into_values().collect();
        (format!("at {rev}"), Some(format!("{rev}:{changes}")))
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verb = prop_oneof![4 => Just(Verb::Put), 2 => Just(Verb::Delete), 1 => Just(Verb::Check)];
    let belief = prop_oneof![
        3 => Just(Belief::Any),
        1 => Just(Belief::Absent),
        3 => Just(Belief::Present),
        1 => Just(Belief::Stale),
    ];
    let step = prop::collection::vec((0..KEYS, verb, belief), 1..4).prop_map(|mut step| {
        step.sort_by_key(|(key, ..)| *key);
        step.dedup_by_key(|(key, ..)| *key);
        step
    });
    prop::collection::vec(step, COMMITS)
}

pub(crate) async fn random_commits_do_what_the_model_does(store: Arc<dyn Store>) {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed());
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let steps = steps().new_tree(&mut runner).unwrap().current();
    let mut model = Model {
        rev: 1,
        ..Model::default()
    };
    let mut history = Vec::new();
    for (n, step) in steps.into_iter().enumerate() {
        let ops: Vec<_> = step
            .into_iter()
            .map(|(key, verb, belief)| model.op(&format!("k{key}"), verb, belief, &format!("{n}")))
            .collect();
        let (expected, batch) = model.commit(&ops);
        let found = match store.commit(ops.clone()).await {
            Ok(commit) => format!("at {}", commit.rev),
            Err(CommitError::Conflict { index, current }) => {
                let current = current.map(|current| (lossy(&current.value), current.rev.0));
                format!("conflict {index} {:?}", current.as_ref())
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(found, expected, "commit {n}: {ops:?}");
        history.extend(batch);
    }
    let mut changes = store.changes(Rev::FIRST);
    for expected in history {
        assert_eq!(text(&next_change(&mut changes).await), expected);
    }
    let (rev, entries) = load(&*store, "").await;
    let entries: BTreeMap<_, _> = entries
        .into_iter()
        .map(|entry| (lossy(&entry.key), (lossy(&entry.value), entry.rev.0)))
        .collect();
    assert_eq!((rev.0, entries), (model.rev, model.entries));
}

/// Another sequence each time; printed, so that a failure can be repeated.
fn seed() -> [u8; 32] {
    let seed = match std::env::var("SKEP_STORAGE_SEED") {
        Ok(seed) => seed.parse().expect("SKEP_STORAGE_SEED is a number"),
        Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos(),
    };
    println!("SKEP_STORAGE_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    bytes
}
