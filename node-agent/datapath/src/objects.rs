//! The BPF objects inside this binary.

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// The objects were not there when this binary was built.
#[derive(Debug, thiserror::Error)]
#[error(
    "BPF object {object} was not built into this binary: run `cargo xtask build-ebpf`, then build again"
)]
pub struct NotBuilt {
    pub object: String,
}

/// The ELF of an object, by the names of `ebpf_abi::program`.
/// # Errors
/// [`NotBuilt`].
pub(crate) fn object(name: &str) -> Result<&'static [u8], NotBuilt> {
    embedded::EMBEDDED
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, bytes)| *bytes)
        .ok_or_else(|| NotBuilt {
            object: name.to_owned(),
        })
}

/// True when the objects of a running node are there.
#[must_use]
pub fn are_built() -> bool {
    ebpf_abi::program::PROGRAMS
        .iter()
        .all(|program| object(program.object).is_ok())
}
