//! Bootstrap tokens end when they say so: an expired one is deleted.

mod controller;

pub(crate) use controller::TokenCleaner;
