//! What a cluster has before anybody asks: the system namespaces, the `kubernetes` Service with the API
//! server behind it, and the Service of the cluster DNS. Put back when deleted.

mod controller;
mod objects;

pub(crate) use controller::BootstrapController;
