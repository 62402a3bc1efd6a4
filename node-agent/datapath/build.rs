//! Embeds the BPF objects that `cargo xtask build-ebpf` has made.
//!
//! Without them the crate still compiles; loading then fails with a message that says what to run.
//! `SKEP_BPF_DIR` names another directory of objects.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=SKEP_BPF_DIR");
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let directory = match env::var_os("SKEP_BPF_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => manifest.join("../../target/bpf"),
    };
    // A path that does not exist would make cargo run this script at every build.
    fs::create_dir_all(&directory)?;
    println!("cargo::rerun-if-changed={}", directory.display());
    embed(&directory, &PathBuf::from(env::var("OUT_DIR")?))
}

/// Copies the objects into `out` and writes the table that `objects.rs` includes.
fn embed(directory: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut objects: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "o") {
            objects.push(path);
        }
    }
    objects.sort();
    let mut table = String::from("pub(super) const EMBEDDED: &[(&str, &[u8])] = &[\n");
    for object in &objects {
        let (Some(name), Some(file)) = (object.file_stem(), object.file_name()) else {
            continue;
        };
        fs::copy(object, out.join(file))?;
        writeln!(
            table,
            "    ({:?}, ::aya::include_bytes_aligned!(concat!(env!(\"OUT_DIR\"), {:?}))),",
            name.to_string_lossy(),
            format!("/{}", file.to_string_lossy()),
        )?;
    }
    table.push_str("];\n");
    fs::write(out.join("embedded.rs"), table)?;
    Ok(())
}
