//! Kubernetes objects as data: schema table, types, selectors, quantities, patches, transcoding.

pub mod apply;
pub mod decode;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod transcode;
pub mod types;
pub mod yaml;
