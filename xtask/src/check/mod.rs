//! What is checked of the source tree and of the programs: one file a check.

pub(crate) mod deps;
pub(crate) mod licences;
pub(crate) mod lint;
pub(crate) mod tidy;
pub(crate) mod verify;
