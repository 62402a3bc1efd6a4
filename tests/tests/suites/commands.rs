//! Whether the transcripts leave out a command: changes when a client shows its commands
//! differently.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tests::{Output, transcript};

use crate::typed;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    /// Below the tools' directory.
    pub(crate) tool: &'static str,
    /// Its name in transcripts, and the directory of these.
    name: &'static str,
    /// Commands that no transcript runs, and why.
    without: &'static [(&'static str, &'static str)],
}

pub(crate) const PROGRAMS: [Program; 2] = [
    Program {
        tool: "kubectl",
        name: "kubectl",
        without: &[("help", "asks no server")],
    },
    Program {
        tool: "kubectl-1.32",
        name: "kubectl",
        without: &[("help", "asks no server")],
    },
];

/// Every command that the program's help names must stand in a transcript.
pub(crate) fn check(program: Program) -> Result<()> {
    let mut typed = BTreeSet::new();
    for file in typed::transcripts(program.name)? {
        let text = std::fs::read_to_string(&file)?;
        for step in transcript::parse(&text)? {
            typed.extend(uses(&step.command, program.name));
        }
    }
    let mut missing = commands(program, &[])?;
    missing.retain(|command| {
        let is_left_out = program.without.iter().any(|(name, _)| name == command);
        !is_left_out && !typed.contains(command)
    });
    ensure!(missing.is_empty(), "no transcript runs: {missing:#?}");
    Ok(())
}

/// Commands with their groups: `get`, `create`, `create role`.
fn commands(program: Program, group: &[&str]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for name in named_by_help(program, group)? {
        let path = [group, &[name.as_str()]].concat();
        let below = match group {
            [] => commands(program, &path)?,
            _ => Vec::new(),
        };
        all.push(path.join(" "));
        all.extend(below);
    }
    Ok(all)
}

/// Help lists commands below a line that ends with `Commands:`, or has a group's name in brackets.
fn named_by_help(program: Program, group: &[&str]) -> Result<Vec<String>> {
    let mut command = Command::new(tests::tools().join(program.tool));
    command.args(group).arg("--help");
    let help = Output::of(&mut command, b"")?.success()?.stdout;
    let mut names = Vec::new();
    let mut in_list = false;
    for line in help.lines() {
        if !line.starts_with(' ') {
            in_list = line.ends_with(':') && line.contains("Commands");
        } else if in_list {
            names.push(
                line.split_whitespace()
                    .next()
                    .context("a command")?
                    .to_owned(),
            );
        }
    }
    Ok(names)
}

/// What a command line uses of the program: the one and the two words behind each of its names.
fn uses(line: &str, name: &str) -> Vec<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut all = Vec::new();
    for at in (0..words.len()).filter(|at| words[*at] == name) {
        let behind = words[at + 1..].iter().filter(|word| !word.starts_with('-'));
        let behind: Vec<&str> = behind.copied().take(2).collect();
        all.extend(behind.first().map(|first| (*first).to_owned()));
        all.push(behind.join(" "));
    }
    all
}
