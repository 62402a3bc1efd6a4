//! ReplicaSet: as many pods of one template as asked for.

mod controller;
mod plan;

pub(crate) use controller::ReplicaSetController;

#[cfg(test)]
mod tests;
