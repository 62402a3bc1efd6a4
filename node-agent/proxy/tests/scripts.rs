//! Golden scripts: objects in, map dump out, on maps that fail one write in ten.
//!
//! Every script runs with 50 seeds as it stands, and with 50 seeds and a writer that dies somewhere
//! in the middle and starts again from the maps. After each single write the maps are checked as a
//! reader would see them. Every script ends with all objects deleted and every map empty.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's own steps")]

#[path = "scripts/language.rs"]
mod language;
#[path = "scripts/runner.rs"]
mod runner;
#[path = "scripts/watched.rs"]
mod watched;

use runner::{Crash, run};

const SEEDS: u64 = 50;

fn check(script: &str) {
    for seed in 0..SEEDS {
        run(script, seed, Crash::Never);
        run(script, seed, Crash::Somewhere);
    }
}

#[test]
fn a_service_follows_its_backends() {
    check(include_str!("scripts/backends.txt"));
}

#[test]
fn nothing_is_taken_away_before_the_tables_are_complete() {
    check(include_str!("scripts/in_sync.txt"));
}

#[test]
fn frontends_of_every_kind_come_and_go() {
    check(include_str!("scripts/frontends.txt"));
}

#[test]
fn an_address_moves_between_services_without_a_gap() {
    check(include_str!("scripts/moving.txt"));
}

#[test]
fn a_restart_recognises_what_is_in_the_maps() {
    check(include_str!("scripts/restart.txt"));
}
