//! The power fails at every write of a recorded history of the real engine, and what was not synced is
//! lost: all of it, a part of it, or all but the end of the last write. Nothing acknowledged is lost,
//! no commit is there in part, no revision is lower than one that was told or is given twice.
//!
//! The engine runs on a file system in user space that writes down every change and every sync. For
//! each point of that history the disk is made as a power loss there would leave it, and opened.
//! That the syncs are what keeps the promise is shown by a disk that ignores them: there, the same
//! check must find losses.
//!
//! `SKEP_LONG=1` takes longer histories and more seeds.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test with a main of its own"
)]

mod check;
mod record;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use faulty_disk::{Event, Faults, Loss, Replay};
use tokio::task::{JoinError, JoinSet};

use crate::check::{Checked, check};
use crate::record::{Recorded, Shape, record};

/// Disks that are checked at a time.
const PARALLEL: usize = 4;
/// Of small commits; the bound keeps the test from becoming a formality.
const DISKS_MIN: usize = 3000;
/// Of a history in which something was lost.
const EVENTS_SHOWN: usize = 40;
const FAULTS_SHOWN: usize = 10;

/// How much is tried.
#[derive(Clone, Copy)]
struct Effort {
    /// Commits of a writer in the history of small commits.
    small: u64,
    /// In the history that fills tables.
    large: u64,
    seeds: u64,
    /// Of the points of the large history that only append to the journal, one in so many.
    large_stride: usize,
}

const SHORT: Effort = Effort {
    small: 140,
    large: 90,
    seeds: 2,
    large_stride: 60,
};
const LONG: Effort = Effort {
    small: 400,
    large: 600,
    seeds: 8,
    large_stride: 4,
};

fn main() {
    let Some(dir) = faulty_disk::role() else {
        let dir = tempfile::tempdir().expect("a directory");
        let status = faulty_disk::in_namespaces(dir.path()).expect("run unshare (util-linux)");
        assert!(status.success(), "{status}");
        return;
    };
    let effort = match std::env::var_os("SKEP_LONG") {
        Some(_) => LONG,
        None => SHORT,
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        nothing_acknowledged_is_lost_at_any_write(&dir, effort).await;
        nothing_acknowledged_is_lost_while_tables_are_written(&dir, effort).await;
        a_sync_that_is_missing_is_found(&dir).await;
    });
}

async fn nothing_acknowledged_is_lost_at_any_write(dir: &Path, effort: Effort) {
    let recorded = record(dir, Shape::small(effort.small), Faults::default()).await;
    let verdict = judge(dir, recorded, effort.seeds, |_, _| true).await;
    verdict.expect_none_lost("small commits");
    assert!(verdict.disks >= DISKS_MIN, "{} disks", verdict.disks);
}

/// Commits so large that the engine writes tables and drops journals on the way. Each point is tried
/// at which something else than a journal changes, and some of the others.
async fn nothing_acknowledged_is_lost_while_tables_are_written(dir: &Path, effort: Effort) {
    let recorded = record(dir, Shape::large(effort.large), Faults::default()).await;
    let journals = recorded.journals();
    let stride = effort.large_stride;
    let is_wanted = move |at: usize, event: &Event| match event {
        Event::Write { file, .. } | Event::SetLen { file, .. } | Event::Sync { file } => {
            at.is_multiple_of(stride) || !journals.contains(file)
        }
        Event::Link { .. } | Event::Unlink { .. } | Event::SyncDirectory { .. } => true,
    };
    let verdict = judge(dir, recorded, effort.seeds, is_wanted).await;
    verdict.expect_none_lost("large commits");
}

async fn a_sync_that_is_missing_is_found(dir: &Path) {
    let files = Faults {
        ignore_file_syncs: true,
        ..Faults::default()
    };
    let directories = Faults {
        ignore_directory_syncs: true,
        ..Faults::default()
    };
    for (what, faults) in [("files", files), ("directories", directories)] {
        let recorded = record(dir, Shape::small(10), faults).await;
        let verdict = judge(dir, recorded, 1, |_, _| true).await;
        println!(
            "syncs of {what} ignored: {} of {} disks are found to have lost something, such as: {}",
            verdict.lost.len(),
            verdict.disks,
            verdict
                .lost
                .first()
                .map_or("nothing", |(_, fault)| fault.as_str())
        );
        assert!(
            !verdict.lost.is_empty(),
            "a missing sync of {what} is not found"
        );
    }
}

/// What was found on the disks of one history.
struct Verdict {
    recorded: Arc<Recorded>,
    disks: usize,
    in_flight: u64,
    /// After which event, and what.
    lost: Vec<(usize, String)>,
    began: Instant,
}

impl Verdict {
    fn expect_none_lost(&self, what: &str) {
        println!(
            "{what}: {} commits, {} events, {} disks opened in {:?}; {} lost or broken; {} commits in \
             flight were kept",
            self.recorded.commits(),
            self.recorded.events.len(),
            self.disks,
            self.began.elapsed(),
            self.lost.len(),
            self.in_flight
        );
        assert!(
            self.disks > self.recorded.commits(),
            "too few disks were tried"
        );
        if let Some((at, _)) = self.lost.first() {
            // Enough to see which sync is missing.
            let first = at.saturating_sub(EVENTS_SHOWN);
            for (number, event) in self
                .recorded
                .events
                .iter()
                .enumerate()
                .take(*at)
                .skip(first)
            {
                println!("{:>6} {event}", number + 1);
            }
            let faults = self
                .lost
                .iter()
                .take(FAULTS_SHOWN)
                .map(|(_, fault)| fault.as_str());
            panic!("{what}: {}", faults.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// Opens every disk that a power loss at a wanted point leaves.
async fn judge(
    dir: &Path,
    recorded: Recorded,
    seeds: u64,
    is_wanted: impl Fn(usize, &Event) -> bool,
) -> Verdict {
    let recorded = Arc::new(recorded);
    let began = Instant::now();
    let mut verdict = Verdict {
        recorded: Arc::clone(&recorded),
        disks: 0,
        in_flight: 0,
        lost: Vec::new(),
        began,
    };
    let mut replay = Replay::default();
    let mut checks = JoinSet::new();
    for at in 0..=recorded.events.len() {
        // What changed last, and what would change next.
        let last = at.checked_sub(1).map(|before| &recorded.events[before]);
        if let Some(event) = last {
            replay.step(event);
        }
        for loss in losses(last, recorded.events.get(at), seeds, at, &is_wanted) {
            if checks.len() >= PARALLEL {
                verdict.take(checks.join_next().await);
            }
            let image = replay.crash(loss);
            let below = dir.join(format!("lost-{at}-{loss:?}"));
            let recorded = Arc::clone(&recorded);
            checks.spawn(async move { (at, check(&below, &image, &recorded, at, loss).await) });
        }
    }
    while let Some(checked) = checks.join_next().await {
        verdict.take(Some(checked));
    }
    verdict
}

impl Verdict {
    fn take(&mut self, checked: Option<Result<(usize, Checked), JoinError>>) {
        let Some(checked) = checked else { return };
        self.disks += 1;
        match checked.expect("a check") {
            (_, Ok(in_flight)) => self.in_flight += in_flight,
            (at, Err(fault)) => self.lost.push((at, fault)),
        }
    }
}

/// What to lose at a point. The safe part only changes with a sync, so it is tried once before each, when
/// most is acknowledged on it.
fn losses(
    last: Option<&Event>,
    next: Option<&Event>,
    seeds: u64,
    at: usize,
    is_wanted: impl Fn(usize, &Event) -> bool,
) -> Vec<Loss> {
    let is_sync = |event: &Event| matches!(event, Event::Sync { .. } | Event::SyncDirectory { .. });
    let mut losses = Vec::new();
    if next.is_none_or(|next| is_sync(next) && is_wanted(at, next)) {
        losses.push(Loss::All);
    }
    if last.is_some_and(|last| !is_sync(last) && is_wanted(at, last)) {
        for seed in 0..seeds {
            let seed = seed + u64::try_from(at).expect("a small number") * seeds;
            losses.extend([Loss::Some(seed), Loss::Torn(seed)]);
        }
    }
    losses
}
