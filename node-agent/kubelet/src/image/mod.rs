//! Images: names, archives, the pause image inside the binary, pulls and their policies.

pub(crate) mod archive;
pub(crate) mod pause;
mod puller;
mod reference;

pub(crate) use puller::{ImagePuller, PullRequest};
pub(crate) use reference::normalize;
