//! What every namespace has: the service account `default` and the cluster CA as a ConfigMap.

mod controller;

pub(crate) use controller::ServiceAccountController;
