//! Deployment: one ReplicaSet for each version of a template, and the way from one to the next.

mod annotations;
mod conditions;
mod controller;
mod history;
mod plan;
mod proportional;
mod rolling;
mod sets;

pub(crate) use controller::DeploymentController;

#[cfg(test)]
mod tests;
