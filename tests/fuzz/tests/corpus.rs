//! Every target over its checked-in inputs and a bounded number of changes of them.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]
#![expect(clippy::print_stdout, reason = "how many cases there were")]

use std::panic::catch_unwind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fuzz::{TARGETS, Target};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// Changed inputs a target.
const CASES: usize = 1500;
/// Far above what any input takes, far below what a quadratic algorithm would.
const SOON: Duration = Duration::from_secs(10);
/// No input grows beyond this.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Pieces that decoders look for.
const WORDS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"\0",
    b"\xff",
    b"k8s\0",
    b"$patch",
    b"-1",
    b"9223372036854775808",
    b"1e400",
    b"\\u0000",
    b"\\",
    b"&a ",
    b"*a",
    b"<<: ",
    b"--- ",
    b"f:",
    b"k:{",
    b"=",
    b"!",
    b"(",
    b")",
    b"%00",
    b"+",
    b";q=",
    b"../",
    b"\xf0\x9f\x98\x80",
];

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|fault| panic!("{}: {fault}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

fn try_one(target: &Target, input: &[u8]) {
    let started = Instant::now();
    let result = catch_unwind(|| (target.run)(input));
    let shown = String::from_utf8_lossy(input);
    assert!(
        result.is_ok(),
        "{} breaks on {input:?} ({shown})",
        target.name
    );
    let took = started.elapsed();
    assert!(took < SOON, "{} took {took:?} for {shown}", target.name);
}

fn changed(random: &mut StdRng, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut input = inputs.choose(random).unwrap().clone();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=input.len());
        let end = random.random_range(at..=input.len());
        match random.random_range(0..6) {
            0 if at < input.len() => input[at] = random.random(),
            1 => {
                let word = WORDS.choose(random).unwrap();
                input.splice(at..at, word.iter().copied());
            }
            2 => {
                input.drain(at..end);
            }
            3 => {
                let part = input[at..end].to_vec();
                input.extend(part);
            }
            4 => {
                let other = inputs.choose(random).unwrap();
                let cut = random.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[cut..]);
            }
            _ if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            _ => {}
        }
        input.truncate(INPUT_BYTES_MAX);
    }
    input
}

/// `FUZZ_SECONDS`: how long a target is tried at least.
fn seconds() -> Duration {
    let seconds = std::env::var("FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// `FUZZ_SEED`: other changes than those of every test run.
fn seed() -> u64 {
    let seed = std::env::var("FUZZ_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    seed.unwrap_or(1)
}

fn check(targets: &[Target]) {
    for target in targets {
        let inputs = corpus(target);
        assert!(!inputs.is_empty(), "{} has no inputs", target.name);
        for input in inputs.iter().map(Vec::as_slice).chain([b"".as_slice()]) {
            try_one(target, input);
        }
        let mut random = StdRng::seed_from_u64(seed());
        let end = Instant::now() + seconds();
        let mut cases = 0;
        while cases < CASES || Instant::now() < end {
            try_one(target, &changed(&mut random, &inputs));
            cases += 1;
        }
        println!("{}: {cases} cases", target.name);
    }
}

#[test]
fn no_body_breaks_its_decoder() {
    check(&TARGETS[..TARGETS.len() / 2]);
}

#[test]
fn no_request_or_message_breaks_its_decoder() {
    check(&TARGETS[TARGETS.len() / 2..]);
}

#[test]
fn every_directory_of_inputs_has_its_target() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name();
        let known = TARGETS.iter().any(|target| *target.name == *name);
        assert!(known || cfg!(not(feature = "all")), "{name:?}");
    }
}
