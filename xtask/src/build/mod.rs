//! What is compiled, by which toolchain: one file a target.

pub(crate) mod ebpf;
pub(crate) mod host;
