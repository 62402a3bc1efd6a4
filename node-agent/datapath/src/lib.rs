//! Load, attach and pin the BPF programs; maps behind a trait.

pub mod maps;
pub mod pods;
pub mod sys;
