//! What the server reads of every object without building a tree: metadata and the fields that
//! selectors may name.
//!
//! Unknown fields are skipped by the parser; a field of an unexpected type reads as empty, so a
//! peek never refuses an object that passed its kind's decoding.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Why stored bytes are no object.
#[derive(Debug, thiserror::Error)]
pub enum PeekError {
    /// No `metadata` where the encoder puts it.
    #[error("stored object has no metadata at its head")]
    NoMetadata,
    /// Not the JSON that the encoder writes.
    #[error("stored object is not valid JSON")]
    Json(#[from] serde_json::Error),
}

/// Metadata that the server itself acts on.
#[derive(Debug, Clone, Default)]
pub struct Meta {
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// Labels, sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// `metadata.generation`, 0 when the kind has none.
    pub generation: i64,
    /// `deletionTimestamp` is set.
    pub terminating: bool,
    /// `metadata.finalizers`.
    pub finalizers: Box<[Box<str>]>,
    /// `metadata.ownerReferences`, reduced.
    pub owners: Box<[OwnerMeta]>,
}

/// One owner reference, reduced to what ownership queries need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerMeta {
    /// Uid of the owner.
    pub uid: Box<str>,
    /// The owner manages this object.
    pub controller: bool,
}

impl Meta {
    /// Value of label `key`.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.labels[at].1)
    }
}

/// A scalar as text; anything else reads as empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scalar<'a>(pub Cow<'a, str>);

impl Scalar<'_> {
    /// The text, `default` when empty.
    #[must_use]
    pub fn or(&self, default: &str) -> Box<str> {
        if self.0.is_empty() {
            default.into()
        } else {
            self.0.as_ref().into()
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl<'de> Visitor<'de> for ScalarVisitor {
            type Value = Scalar<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Owned(v.to_owned())))
            }
            fn visit_bool<E>(self, v: bool) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Borrowed(if v { "true" } else { "false" })))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Owned(v.to_string())))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Self::Value, E> {
                Ok(Scalar(Cow::Owned(v.to_string())))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Scalar::default())
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Scalar::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::default())
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// A borrowed view of the fields that selectors may name, over all kinds.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Peek<'a> {
    /// The whole object's text.
    #[serde(skip)]
    pub raw: &'a [u8],
    #[serde(borrow)]
    metadata: MetadataPeek<'a>,
    /// `spec`.
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub spec: SpecPeek<'a>,
    /// `status`.
    #[serde(borrow, deserialize_with = "null_is_default")]
    pub status: StatusPeek<'a>,
    /// `involvedObject` of an event.
    #[serde(borrow)]
    pub involved_object: ReferencePeek<'a>,
    /// `reason` of an event.
    #[serde(borrow)]
    pub reason: Scalar<'a>,
    /// `source` of an event.
    #[serde(borrow)]
    pub source: SourcePeek<'a>,
    /// `reportingComponent` of an event.
    #[serde(borrow)]
    pub reporting_component: Scalar<'a>,
    /// `type` of an event or a secret.
    #[serde(borrow, rename = "type")]
    pub kind_type: Scalar<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MetadataPeek<'a> {
    #[serde(borrow)]
    uid: Scalar<'a>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    labels: std::collections::BTreeMap<Cow<'a, str>, Scalar<'a>>,
    generation: i64,
    #[serde(borrow)]
    deletion_timestamp: Scalar<'a>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    finalizers: Vec<Scalar<'a>>,
    #[serde(borrow, deserialize_with = "null_is_default")]
    owner_references: Vec<OwnerPeek<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OwnerPeek<'a> {
    #[serde(borrow)]
    uid: Scalar<'a>,
    #[serde(borrow)]
    controller: Scalar<'a>,
}

/// Selectable fields of `spec`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SpecPeek<'a> {
    #[serde(borrow)]
    pub node_name: Scalar<'a>,
    #[serde(borrow)]
    pub restart_policy: Scalar<'a>,
    #[serde(borrow)]
    pub scheduler_name: Scalar<'a>,
    #[serde(borrow)]
    pub service_account_name: Scalar<'a>,
    #[serde(borrow)]
    pub host_network: Scalar<'a>,
    #[serde(borrow)]
    pub unschedulable: Scalar<'a>,
    #[serde(borrow, rename = "clusterIP")]
    pub cluster_ip: Scalar<'a>,
    #[serde(borrow, rename = "type")]
    pub kind_type: Scalar<'a>,
    #[serde(borrow)]
    pub signer_name: Scalar<'a>,
}

/// Selectable fields of `status`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatusPeek<'a> {
    #[serde(borrow)]
    pub phase: Scalar<'a>,
    #[serde(borrow, rename = "podIP")]
    pub pod_ip: Scalar<'a>,
    #[serde(borrow)]
    pub nominated_node_name: Scalar<'a>,
    #[serde(borrow)]
    pub replicas: Scalar<'a>,
    #[serde(borrow)]
    pub succeeded: Scalar<'a>,
}

/// Selectable fields of an object reference.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReferencePeek<'a> {
    #[serde(borrow)]
    pub kind: Scalar<'a>,
    #[serde(borrow)]
    pub namespace: Scalar<'a>,
    #[serde(borrow)]
    pub name: Scalar<'a>,
    #[serde(borrow)]
    pub uid: Scalar<'a>,
    #[serde(borrow)]
    pub api_version: Scalar<'a>,
    #[serde(borrow)]
    pub resource_version: Scalar<'a>,
    #[serde(borrow)]
    pub field_path: Scalar<'a>,
}

/// Selectable fields of an event's source.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SourcePeek<'a> {
    #[serde(borrow)]
    pub component: Scalar<'a>,
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl<'a> Peek<'a> {
    /// Reads `json`.
    ///
    /// # Errors
    /// Not JSON, or metadata of another shape.
    pub fn parse(json: &'a [u8]) -> Result<Self, PeekError> {
        let peek: Self = serde_json::from_slice(json)?;
        Ok(Self { raw: json, ..peek })
    }

    pub(super) fn meta(&self) -> Meta {
        let m = &self.metadata;
        let boxed = |s: &Scalar<'_>| -> Box<str> { s.0.as_ref().into() };
        Meta {
            uid: boxed(&m.uid),
            labels: m
                .labels
                .iter()
                .map(|(k, v)| (k.as_ref().into(), boxed(v)))
                .collect(),
            generation: m.generation,
            terminating: !m.deletion_timestamp.0.is_empty(),
            finalizers: m.finalizers.iter().map(boxed).collect(),
            owners: m
                .owner_references
                .iter()
                .map(|o| OwnerMeta {
                    uid: boxed(&o.uid),
                    controller: o.controller.0 == "true",
                })
                .collect(),
        }
    }
}
