//! Namespaces that are deleted: their content goes first, then they.

mod controller;
mod plan;

pub(crate) use controller::NamespaceController;
