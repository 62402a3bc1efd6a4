//! Stock clients against skep, with each of the stores: which client runs which suite changes
//! here.
//!
//! A suite of kubectl or Helm is a directory of transcripts (`tests::transcript`): what a user
//! types and what the terminal answers. Names of tests are CLIENT/TRANSCRIPT/STORE; a part of a
//! name selects. `WRITE_GOLDEN=1` writes transcripts anew, to be read before they are kept.

mod commands;
mod place;
mod scripted;
mod stage;
mod typed;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use tests::Store;

use crate::stage::Stage;

/// Most of a test's time is waiting, for a pod or for a client.
const THREADS: usize = 4;

const STORES: [(&str, Store); 2] = [("embedded", Store::Embedded), ("etcd", Store::Etcd)];

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let stage = Arc::new(Stage::default());
    let mut trials = Vec::new();
    for suite in typed::suites()? {
        for (store_name, store) in STORES {
            let (stage, suite) = (Arc::clone(&stage), suite.clone());
            let name = format!("{}/{store_name}", suite.name());
            trials.push(trial(name, move || {
                typed::run(&suite, stage.cluster(store)?.as_ref(), store)
            }));
        }
    }
    for script in scripted::SCRIPTS {
        for (store_name, store) in STORES {
            let stage = Arc::clone(&stage);
            trials.push(trial(format!("python/{script}/{store_name}"), move || {
                scripted::run(script, stage.cluster(store)?.as_ref())
            }));
        }
    }
    for program in commands::PROGRAMS {
        let name = format!("{}/every command has its line", program.tool);
        trials.push(trial(name, move || commands::check(program)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    stage.down(conclusion.has_failed())?;
    Ok(conclusion.exit_code())
}

fn trial(name: String, action: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, || {
        action().map_err(|error| Failed::from(format!("{error:#}")))
    })
}
