//! The BPF programs: changes when the toolchain that builds them changes.
//!
//! The programs are the binary targets of package `ebpf` that require its feature `bpf`. They
//! need a compiler that may rebuild `core` for `bpfel-unknown-none`: a rustup nightly with the
//! library's source, or the distribution's own compiler with its source package. The objects go
//! to `target/bpf/NAME.o`, rewritten only when their bytes change, so that a host build that
//! embeds them is not made stale by a build that changed nothing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{process, workspace};

/// The target all objects are built for: little-endian BPF.
const TARGET: &str = "bpfel-unknown-none";

const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

/// What bpf-linker reads: the bitcode of its own LLVM and of older ones.
const LLVM_MAX: u32 = 22;

/// `--btf`: maps and programs show their types in bpftool, and relocations work.
const RUSTFLAGS: &str = "-Clinker=bpf-linker -Cdebuginfo=2 -Clink-arg=--btf";

/// The workspace's release profile is made for the host. A BPF object is one unit, has no
/// unwinding and keeps its debug information, from which the linker makes BTF.
const PROFILE: [(&str, &str); 7] = [
    ("CARGO_PROFILE_RELEASE_LTO", "true"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "2"),
    ("CARGO_PROFILE_RELEASE_STRIP", "none"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false"),
];

/// Build the BPF programs into target/bpf.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Programs that log their verdicts, for debugging; the next build of the agent takes them in.
    #[arg(long)]
    log: bool,
}

/// Whether programs tell their verdicts (feature `log` of package ebpf).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    Silent,
    Logged,
}

impl Words {
    pub(crate) fn of(log: bool) -> Self {
        if log { Self::Logged } else { Self::Silent }
    }

    fn features(self) -> &'static str {
        match self {
            Self::Silent => "bpf",
            Self::Logged => "bpf,log",
        }
    }
}

/// A compiler that can build for BPF.
#[derive(Debug)]
pub(crate) struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    /// Shown to the user.
    name: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
    #[serde(rename = "required-features", default)]
    required_features: Vec<String>,
}

impl Toolchain {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether packages of the distribution keep it complete.
    pub(crate) fn is_distribution(&self) -> bool {
        self.rustc == Path::new(SYSTEM_RUSTC)
    }
}

/// Builds all objects and says what was made by which compiler.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let toolchain = toolchain()?;
    let changed = build(&toolchain, Words::of(arguments.log))?;
    println!(
        "BPF objects in {} ({})",
        workspace::bpf_objects().display(),
        toolchain.name
    );
    for name in changed {
        println!("  {name} changed");
    }
    Ok(())
}

/// Builds all objects; returns the names of those whose bytes changed.
pub(crate) fn build(toolchain: &Toolchain, words: Words) -> Result<Vec<String>> {
    let names = programs()?;
    if names.is_empty() {
        bail!("package ebpf has no binary target with `required-features = [\"bpf\"]`");
    }
    let mut command = for_bpf(toolchain, Command::new(&toolchain.cargo), "build", words);
    process::run(command.arg("--bins"))
        .context("build the BPF programs (is `cargo xtask setup` done?)")?;
    install(&names)
}

/// A clippy command for the BPF target. The compiler's own clippy is called by its path: cargo
/// would find the one of the host's toolchain first.
pub(crate) fn clippy(toolchain: &Toolchain) -> Command {
    let program = toolchain.cargo.with_file_name("cargo-clippy");
    let mut command = for_bpf(toolchain, Command::new(program), "clippy", Words::Logged);
    command.env("CARGO", &toolchain.cargo);
    command
}

fn for_bpf(toolchain: &Toolchain, mut command: Command, subcommand: &str, words: Words) -> Command {
    command
        .current_dir(workspace::root())
        .args([
            subcommand,
            "--quiet",
            "--release",
            "--package",
            "ebpf",
            "--features",
            words.features(),
        ])
        .args(["-Zbuild-std=core", "--target", TARGET, "--target-dir"])
        .arg(workspace::bpf_build())
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", RUSTFLAGS)
        .env("PATH", path_with_linker())
        // Set by the cargo that runs this program: they name the wrong compiler.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .envs(PROFILE);
    command
}

/// Finds a compiler: a rustup nightly with the library source first, else the distribution's.
pub(crate) fn toolchain() -> Result<Toolchain> {
    rustup_nightly().or_else(distribution).context(
        "no Rust compiler that can build for BPF: run `cargo xtask setup`, or give rustup one \
         with `rustup toolchain install nightly --component rust-src`",
    )
}

fn rustup_nightly() -> Option<Toolchain> {
    let rustup = workspace::find_program("rustup")?;
    let listed = process::capture(Command::new(rustup).args(["toolchain", "list", "-v"])).ok()?;
    listed
        .lines()
        .filter(|line| line.starts_with("nightly"))
        .filter_map(|line| line.split_whitespace().last())
        .map(Path::new)
        .find(|home| {
            home.join("lib/rustlib/src/rust/library/core").is_dir()
                && llvm_major(&home.join("bin/rustc")).is_some_and(|major| major <= LLVM_MAX)
        })
        .map(|home| Toolchain {
            rustc: home.join("bin/rustc"),
            cargo: home.join("bin/cargo"),
            name: format!("rustup {}", home.file_name().unwrap_or_default().display()),
        })
}

fn distribution() -> Option<Toolchain> {
    let rustc = PathBuf::from(SYSTEM_RUSTC);
    let cargo = PathBuf::from("/usr/bin/cargo");
    let sysroot = process::capture(Command::new(&rustc).args(["--print", "sysroot"])).ok()?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
    if !source.is_dir() || !cargo.is_file() {
        return None;
    }
    let version = process::capture(Command::new(&rustc).arg("--version")).ok()?;
    Some(Toolchain {
        rustc,
        cargo,
        name: format!("the system's {}", version.trim()),
    })
}

/// The major version of a compiler's LLVM, from `LLVM version: 22.1.8`.
fn llvm_major(rustc: &Path) -> Option<u32> {
    let said = process::capture(Command::new(rustc).arg("-vV")).ok()?;
    let version = said
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

/// Names of the BPF program files, from the manifest.
pub(crate) fn programs() -> Result<Vec<String>> {
    let mut command = workspace::cargo("metadata");
    command.args(["--format-version=1", "--no-deps"]);
    let metadata: Metadata =
        serde_json::from_str(&process::capture(&mut command)?).context("read cargo metadata")?;
    Ok(metadata
        .packages
        .into_iter()
        .filter(|package| package.name == "ebpf")
        .flat_map(|package| package.targets)
        .filter(|target| target.kind.iter().any(|kind| kind == "bin"))
        .filter(|target| {
            target
                .required_features
                .iter()
                .any(|feature| feature == "bpf")
        })
        .map(|target| target.name)
        .collect())
}

/// bpf-linker was installed by cargo: its directory must be on PATH for rustc to find it.
fn path_with_linker() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    dirs.extend(workspace::cargo_bin());
    std::env::join_paths(dirs).unwrap_or(path)
}

/// Copies changed objects to `target/bpf` and removes those whose program is gone.
fn install(names: &[String]) -> Result<Vec<String>> {
    let built = workspace::bpf_build().join(TARGET).join("release");
    let objects = workspace::bpf_objects();
    std::fs::create_dir_all(&objects).with_context(|| format!("create {}", objects.display()))?;
    remove_stale(&objects, names)?;
    let mut changed = Vec::new();
    for name in names {
        let from = built.join(name);
        let bytes = std::fs::read(&from).with_context(|| format!("read {}", from.display()))?;
        let to = objects.join(format!("{name}.o"));
        if std::fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        std::fs::write(&to, bytes).with_context(|| format!("write {}", to.display()))?;
        changed.push(name.clone());
    }
    Ok(changed)
}

fn remove_stale(objects: &Path, names: &[String]) -> Result<()> {
    for entry in std::fs::read_dir(objects).context("list the BPF objects")? {
        let path = entry.context("list the BPF objects")?.path();
        let known = path
            .file_stem()
            .and_then(OsStr::to_str)
            .is_some_and(|stem| names.iter().any(|name| name == stem));
        if path.extension() == Some(OsStr::new("o")) && !known {
            std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}
