//! Pods that nobody else ends: those of nodes that are gone, those deleted before they had a node, and
//! the oldest of very many that have ended.

mod controller;

pub(crate) use controller::PodGcController;
