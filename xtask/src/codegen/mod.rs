//! `xtask codegen`: makes the generated files of `proto/api` from upstream's published schema.
//!
//! The files are checked in; the command is run when the Kubernetes release or the shape of the
//! output changes. `--check` compares instead of writing, for the linters.

mod definitions;
mod gotypes;
mod inputs;
mod rust_types;
mod table;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Arguments of `xtask codegen`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Compare with the checked-in files and fail on a difference, write nothing.
    #[arg(long)]
    check: bool,
}

/// One generated file.
struct Output {
    path: PathBuf,
    text: String,
}

/// Runs the generator.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = &workspace::root();
    let inputs = inputs::fetch(&root.join("target/codegen"))?;
    let definitions = definitions::read(&inputs.definitions)?;
    let api = root.join("proto/api/src");
    let mut outputs = Vec::new();
    for file in rust_types::emit(&definitions)? {
        outputs.push(Output {
            path: api.join("types").join(file.path).with_extension("rs"),
            text: rustfmt(root, &file.text)?,
        });
    }
    let table = table::emit(&definitions, &gotypes::read(&inputs.kubectl)?)?;
    outputs.push(Output {
        path: api.join("schema/table.txt"),
        text: table.schema,
    });
    outputs.push(Output {
        path: api.join("schema/descriptions.txt"),
        text: table.descriptions,
    });
    for output in &outputs {
        store(output, args.check)?;
    }
    Ok(())
}

fn store(output: &Output, check: bool) -> Result<()> {
    let path = output.path.display();
    let present = fs::read_to_string(&output.path).unwrap_or_default();
    if present == output.text {
        return Ok(());
    }
    if check {
        bail!("{path} is not what the generator makes; run `cargo xtask codegen`");
    }
    if let Some(dir) = output.path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    fs::write(&output.path, &output.text).with_context(|| format!("write {path}"))
}

fn rustfmt(root: &Path, text: &str) -> Result<String> {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start rustfmt")?;
    let mut stdin = child.stdin.take().context("rustfmt's input")?;
    stdin
        .write_all(text.as_bytes())
        .context("write to rustfmt")?;
    drop(stdin);
    let output = child.wait_with_output().context("read from rustfmt")?;
    if !output.status.success() {
        bail!("rustfmt refused generated code: {}", output.status);
    }
    String::from_utf8(output.stdout).context("rustfmt's output")
}
