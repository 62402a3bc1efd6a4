//! `fuzz`: one decoder under libFuzzer; changes with how the targets of `tests/fuzz` are built.
//!
//! Works with the stable compiler: the counters that guide the search come from an LLVM pass that
//! `-C passes` names. The decoders hold no unsafe code, so no sanitizer is needed; overflows and
//! debug assertions are on.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::{process, workspace};

/// Search inputs that break a decoder.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Which decoder: a directory of `tests/fuzz/corpus`. None lists them.
    target: Option<String>,
    /// How long to search.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Edges are counted in place, comparisons are told to libFuzzer.
const COVERAGE: [&str; 6] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=3",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// One input may take so long, and the whole process so much memory.
const INPUT_SECONDS: u32 = 10;
const MEMORY_MIB: u32 = 1024;

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let corpus = workspace::root().join("tests/fuzz/corpus");
    let names = names(&corpus)?;
    let Some(name) = &arguments.target else {
        println!("{}", names.join("\n"));
        return Ok(());
    };
    if !names.contains(name) {
        bail!("no fuzz target {name}: one of {}", names.join(", "));
    }
    let program = build()?;
    let work = workspace::target().join("fuzz").join(name);
    let (found, broken) = (work.join("corpus"), work.join("broken"));
    for dir in [&found, &broken] {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    let mut command = std::process::Command::new(program);
    command
        .current_dir(&work)
        .env("FUZZ_TARGET", name)
        .arg(format!("-max_total_time={}", arguments.seconds))
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-artifact_prefix={}/", broken.display()))
        .arg("-print_final_stats=1")
        .args([&found, &corpus.join(name)]);
    process::run(&mut command).with_context(|| {
        format!(
            "the input is in {}: fix the decoder and add it to {}",
            broken.display(),
            corpus.join(name).display()
        )
    })
}

fn names(corpus: &std::path::Path) -> Result<Vec<String>> {
    let entries =
        std::fs::read_dir(corpus).with_context(|| format!("read {}", corpus.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Builds the program with counters. Naming the machine keeps them out of build scripts.
fn build() -> Result<PathBuf> {
    let machine = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let dir = workspace::target().join("fuzz-build");
    let mut command = workspace::cargo("build");
    command
        .args(["--locked", "--package", "fuzz", "--features", "libfuzzer"])
        .args(["--profile", "fuzz", "--target", &machine])
        .env("CARGO_TARGET_DIR", &dir)
        .env("RUSTFLAGS", COVERAGE.join(" "));
    process::run(&mut command)?;
    Ok(dir.join(machine).join("fuzz").join("fuzz"))
}
