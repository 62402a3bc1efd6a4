//! `verify` and `load`: the BPF programs in this kernel; changes when another figure of a loaded
//! program matters.
//!
//! The datapath's own tool loads and attaches, since only it knows how; this file compares what
//! it reports with the committed table, so that growth shows in review.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::build::ebpf::Words;
use crate::build::host::Profile;
use crate::cluster::privileged;
use crate::{build, process, workspace};

/// Instructions the kernel processes before it gives up, since 5.2.
const LIMIT: u64 = 1_000_000;

/// No program may use more than this part of the limit: other kernels need more steps.
const SHARE_MAX: u64 = 4;

/// Growth against the table that fails, in hundredths.
const GROWTH_MAX: u64 = 10;

/// Load every BPF program into this kernel and compare its size with ebpf/verified.txt.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArguments {
    /// Write the table from what was measured.
    #[arg(long)]
    update: bool,
}

/// Load and attach the programs to a device, for inspection by bpftool; unload on exit.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArguments {
    /// The network device.
    #[arg(long)]
    iface: String,
}

/// What the datapath's tool reports of one program.
#[derive(Debug, Clone, Deserialize)]
struct Loaded {
    object: String,
    program: String,
    verified_insns: u64,
    stack_bytes: u64,
    load_us: u64,
    jited_bytes: u64,
}

/// The committed figures and the kernel they are of.
#[derive(Debug, Default, PartialEq, Eq)]
struct Table {
    kernel: String,
    /// `object/program` to verified instructions and stack bytes.
    rows: BTreeMap<String, (u64, u64)>,
}

pub(crate) fn verify(arguments: &VerifyArguments) -> Result<()> {
    let tool = build_tool()?;
    let mut command = privileged::as_root(&tool)?;
    let said = process::capture(command.arg("verify")).context("load the BPF programs")?;
    let loaded: Vec<Loaded> = serde_json::from_str(&said)
        .with_context(|| format!("read what {} printed", tool.display()))?;
    print!("{}", report(&loaded));
    let kernel = kernel()?;
    let path = workspace::root().join("ebpf/verified.txt");
    if arguments.update {
        return std::fs::write(&path, render(&kernel, &loaded)).context("write the table");
    }
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("read {}: make it with --update", path.display()))?;
    let (faults, notes) = compare(&parse(&text)?, &kernel, &loaded);
    notes.iter().for_each(|note| println!("{note}"));
    if !faults.is_empty() {
        bail!("against ebpf/verified.txt:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

pub(crate) fn load(arguments: &LoadArguments) -> Result<()> {
    let tool = build_tool()?;
    let mut command = privileged::as_root(&tool)?;
    process::run(command.args(["load", "--iface", &arguments.iface]))
}

fn build_tool() -> Result<PathBuf> {
    build::ebpf::build(&build::ebpf::toolchain()?, Words::Silent)?;
    let mut command = workspace::cargo("build");
    command.arg("--quiet");
    command.args(["--package", "node-agent-datapath", "--bin", "datapath-tool"]);
    process::run(&mut command).context("build the datapath's tool")?;
    Ok(Profile::Dev.binary("datapath-tool"))
}

/// `6.18` of `6.18.44-x`: verification steps change between these, not within.
fn kernel() -> Result<String> {
    let release =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").context("kernel release")?;
    Ok(release
        .trim()
        .split('.')
        .take(2)
        .collect::<Vec<_>>()
        .join("."))
}

fn report(loaded: &[Loaded]) -> String {
    let mut text = format!(
        "{:<24} {:>10} {:>7} {:>9} {:>9}\n",
        "program", "verified", "stack", "native", "load"
    );
    for one in loaded {
        let Loaded {
            object,
            program,
            verified_insns,
            stack_bytes,
            load_us,
            jited_bytes,
        } = one;
        let name = format!("{object}/{program}");
        let load_ms = format!("{}.{}", load_us / 1000, load_us % 1000 / 100);
        text.push_str(&format!(
            "{name:<24} {verified_insns:>10} {stack_bytes:>5} B {jited_bytes:>7} B {load_ms:>6} ms\n"
        ));
    }
    text
}

fn render(kernel: &str, loaded: &[Loaded]) -> String {
    let mut lines: Vec<String> = loaded
        .iter()
        .map(|one| {
            let name = format!("{}/{}", one.object, one.program);
            format!(
                "{name:<24} {:>8} {:>6}\n",
                one.verified_insns, one.stack_bytes
            )
        })
        .collect();
    lines.sort_unstable();
    format!(
        "# Verified instructions and stack bytes of each BPF program. Written by\n\
         # `cargo xtask verify --update`; a change belongs to the commit that caused it.\n\
         kernel {kernel}\n{}",
        lines.concat()
    )
}

fn parse(text: &str) -> Result<Table> {
    let mut table = Table::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["kernel", kernel] => (*kernel).clone_into(&mut table.kernel),
            [name, insns, stack] => {
                let figure = |word: &str| word.parse().with_context(|| format!("line {line:?}"));
                table
                    .rows
                    .insert((*name).to_owned(), (figure(insns)?, figure(stack)?));
            }
            _ => bail!("line {line:?}"),
        }
    }
    Ok(table)
}

/// What fails and what is only worth a note.
fn compare(table: &Table, kernel: &str, loaded: &[Loaded]) -> (Vec<String>, Vec<String>) {
    let (mut faults, mut notes) = (Vec::new(), Vec::new());
    let same_kernel = table.kernel == kernel;
    if !same_kernel {
        notes.push(format!(
            "the table is of kernel {}, this is {kernel}",
            table.kernel
        ));
    }
    let mut left = table.rows.clone();
    for one in loaded {
        let name = format!("{}/{}", one.object, one.program);
        let now = one.verified_insns;
        if now > LIMIT / SHARE_MAX {
            faults.push(format!(
                "{name}: {now} verified instructions, the bound is {}",
                LIMIT / SHARE_MAX
            ));
        }
        match left.remove(&name) {
            None => faults.push(format!("{name}: not in the table")),
            Some((before, _)) if now * 100 > before * (100 + GROWTH_MAX) => {
                let text = format!("{name}: {before} -> {now} verified instructions");
                if same_kernel {
                    faults.push(text)
                } else {
                    notes.push(text)
                }
            }
            Some(_) => {}
        }
    }
    faults.extend(
        left.into_keys()
            .map(|name| format!("{name}: in the table, not in the tree")),
    );
    (faults, notes)
}

#[cfg(test)]
mod tests {
    use super::{LIMIT, Loaded, SHARE_MAX, Table, compare, parse, render};

    fn loaded(verified_insns: u64) -> Vec<Loaded> {
        vec![Loaded {
            object: "sock".to_owned(),
            program: "connect4".to_owned(),
            verified_insns,
            stack_bytes: 64,
            load_us: 900,
            jited_bytes: 700,
        }]
    }

    fn table(insns: u64) -> Table {
        parse(&render("6.18", &loaded(insns))).unwrap()
    }

    #[test]
    fn the_table_comes_back_as_it_was_written() {
        let table = table(100);
        assert_eq!(table.kernel, "6.18");
        assert_eq!(table.rows["sock/connect4"], (100, 64));
    }

    #[test]
    fn growth_fails_on_the_tables_kernel_and_is_noted_on_another() {
        let grown = loaded(111);
        assert_eq!(compare(&table(100), "6.18", &loaded(110)), (vec![], vec![]));
        assert_eq!(compare(&table(100), "6.18", &grown).0.len(), 1);
        let (faults, notes) = compare(&table(100), "6.1", &grown);
        assert_eq!((faults.len(), notes.len()), (0, 2));
    }

    #[test]
    fn a_program_is_in_the_table_and_the_table_in_the_tree() {
        assert_eq!(compare(&table(100), "6.18", &[]).0.len(), 1);
        let empty = Table {
            kernel: "6.18".to_owned(),
            ..Table::default()
        };
        assert_eq!(compare(&empty, "6.18", &loaded(1)).0.len(), 1);
    }

    #[test]
    fn a_program_near_the_kernels_limit_fails_even_when_the_table_has_it() {
        let most = LIMIT / SHARE_MAX;
        assert!(compare(&table(most), "6.18", &loaded(most)).0.is_empty());
        assert_eq!(
            compare(&table(most + 1), "6.18", &loaded(most + 1)).0.len(),
            1
        );
    }
}
