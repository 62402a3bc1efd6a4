//! Dependents follow their owners: background, foreground and orphaned deletion by `ownerReferences`.

mod controller;
mod follow;
mod graph;
mod plan;

pub(crate) use controller::GarbageCollector;

#[cfg(test)]
mod tests;
