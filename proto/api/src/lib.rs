//! Kubernetes objects as data: schema table, types, selectors, quantities, patches, transcoding.

pub mod quantity;
pub mod schema;
pub mod types;
