//! Disruption budgets: how many pods of a selection may be evicted right now.

mod controller;
mod plan;
#[cfg(test)]
mod tests;

pub(crate) use self::controller::DisruptionController;
