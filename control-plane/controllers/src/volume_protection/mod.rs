//! Storage in use stays: a claim that pods use and a volume that is bound are deleted only when they are
//! no longer.

mod controller;
mod plan;

pub(crate) use controller::VolumeProtectionController;
