//! Typed structs for code that reads fields (scheduler, controllers, agent); changes when a group
//! is added. The files below `GROUP/VERSION.rs` are generated, see `cargo xtask codegen`.
//!
//! Rules of the generated structs: required scalars and structs are plain, optional ones are
//! `Option`, lists and maps are plain and left out when empty, `metadata` is always plain,
//! `null` reads as absent, unknown fields and `managedFields` are ignored (strictness is [`crate::decode`]'s job), a
//! kind writes its own `apiVersion` and `kind`, and a large struct that is seldom set is boxed.

mod scalars;

pub mod apiextensions {
    //! Group `apiextensions.k8s.io`.
    pub mod v1;
}
pub mod apps {
    //! Group `apps`.
    pub mod v1;
}
pub mod authentication {
    //! Group `authentication.k8s.io`.
    pub mod v1;
}
pub mod autoscaling {
    //! Group `autoscaling`.
    pub mod v1;
    pub mod v2;
}
pub mod batch {
    //! Group `batch`.
    pub mod v1;
}
pub mod certificates {
    //! Group `certificates.k8s.io`.
    pub mod v1;
}
pub mod coordination {
    //! Group `coordination.k8s.io`.
    pub mod v1;
}
pub mod core {
    //! The core group, whose name is empty.
    pub mod v1;
}
pub mod discovery {
    //! Group `discovery.k8s.io`.
    pub mod v1;
}
pub mod events {
    //! Group `events.k8s.io`.
    pub mod v1;
}
pub mod meta {
    //! Types all groups share (`meta.k8s.io`).
    pub mod table;
    pub mod v1;
}
pub mod networking {
    //! Group `networking.k8s.io`.
    pub mod v1;
}
pub mod policy {
    //! Group `policy`.
    pub mod v1;
}
pub mod rbac {
    //! Group `rbac.authorization.k8s.io`.
    pub mod v1;
}
pub mod scheduling {
    //! Group `scheduling.k8s.io`; of the alpha version only what a Job refers to.
    pub mod v1;
    pub mod v1alpha3;
}
pub mod storage {
    //! Group `storage.k8s.io`.
    pub mod v1;
}

pub use self::scalars::{Bytes, IntOrString, MicroTime, Round, Time};
pub use crate::quantity::Quantity;

use serde::{Deserialize, Deserializer};

use self::meta::v1::ObjectMeta;

/// A top-level kind: an object with metadata that the API server stores.
pub trait Object:
    Default
    + Clone
    + std::fmt::Debug
    + serde::Serialize
    + serde::de::DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// `v1`, `apps/v1`.
    const API_VERSION: &'static str;
    /// API group, empty for core.
    const GROUP: &'static str;
    /// Version without the group.
    const VERSION: &'static str;
    /// `Pod`.
    const KIND: &'static str;
    /// Resource name in paths: `pods`.
    const PLURAL: &'static str;
    /// Whether objects live in a namespace.
    const NAMESPACED: bool;

    /// The object's metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// The object's metadata, to change.
    fn metadata_mut(&mut self) -> &mut ObjectMeta;

    /// `metadata.name`, empty when not set.
    fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }
    /// `metadata.namespace`, empty when not set.
    fn namespace(&self) -> &str {
        self.metadata().namespace.as_deref().unwrap_or_default()
    }
    /// `metadata.uid`, empty when not set.
    fn uid(&self) -> &str {
        self.metadata().uid.as_deref().unwrap_or_default()
    }
}

/// Reads `null` as the default, as Go's decoder leaves a field untouched.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// As [`null_as_default`], without room for more: a list of one large struct would otherwise hold the
/// room of four, and caches hold many.
pub(crate) fn exact_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let mut list: Vec<T> = null_as_default(deserializer)?;
    list.shrink_to_fit();
    Ok(list)
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
