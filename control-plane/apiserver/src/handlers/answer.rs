//! Answers: an object, its metadata or its row, in JSON or protobuf, as the client asked for.

use std::sync::Arc;

use bytes::Bytes;
use proto_api::schema::{Gvk, Schema, TypeId};
use proto_api::transcode::{self, TranscodeError};
use serde_json::{Value, json};

use super::Call;
use super::objects::gvk;
use crate::http::{
    Accept, Codec, Format, Layout, Offer, Response, json_bytes, protobuf_bytes, tree_response,
};
use crate::object::Obj;
use crate::registry::{Kind, Subresource};
use crate::server::{Server, Target, scale_of};
use crate::status::{Details, StatusError};
use crate::tables::{self, Header};

impl Call {
    /// The form of an answer about objects of `kind`.
    ///
    /// # Errors
    /// 406 when the client accepts nothing that `kind` is written in.
    pub(super) fn accept_for(&self, kind: &Kind) -> Result<Accept, StatusError> {
        let accept = Accept::of(&self.headers, self.offer(gvk(kind)))?;
        Ok(self.for_reader(accept))
    }

    /// The form of a stream about objects of `kind`.
    ///
    /// # Errors
    /// 406 when the client accepts no stream that `kind` is written in.
    pub(super) fn accept_stream(&self, kind: &Kind) -> Result<Accept, StatusError> {
        Accept::of_stream(&self.headers, self.offer(gvk(kind)))
    }

    fn offer(&self, gvk: Gvk<'_>) -> Offer {
        match message_type(self.api.server.schema, gvk) {
            Some(_) => Offer::All,
            None => Offer::Text,
        }
    }

    fn for_reader(&self, accept: Accept) -> Accept {
        let codec = accept.codec.for_reader(&self.headers, &self.query);
        Accept { codec, ..accept }
    }

    /// One object in the form that the client asked for.
    pub(super) fn object_answer(
        &self,
        code: u16,
        kind: &Kind,
        obj: &Arc<Obj>,
    ) -> Result<Response, StatusError> {
        let accept = self.accept_for(kind)?;
        match (accept.format, accept.codec, &kind.view) {
            (Format::Plain, Codec::Text(Layout::Json), None) => {
                Ok(json_bytes(code, obj.json.clone()))
            }
            (Format::Plain, Codec::Protobuf, None) => {
                let body = object_body(self.api.server.schema, kind, obj)?;
                Ok(protobuf_bytes(code, body))
            }
            _ => self.value_answer(code, kind, &Server::shown(kind, obj)),
        }
    }

    /// The object that a write of `target` left, in the form of the path that was written to.
    pub(super) fn written_answer(
        &self,
        code: u16,
        target: &Target,
        obj: &Arc<Obj>,
    ) -> Result<Response, StatusError> {
        if target.subresource == Some(Subresource::Scale) {
            return self.tree_answer(code, &scale_of(&target.kind, &obj.value()));
        }
        self.object_answer(code, &target.kind, obj)
    }

    /// One object that is a tree already.
    pub(super) fn value_answer(
        &self,
        code: u16,
        kind: &Kind,
        value: &Value,
    ) -> Result<Response, StatusError> {
        let accept = self.accept_for(kind)?;
        let answer = match accept.format {
            Format::Plain => return coded(self.api.server.schema, code, value, accept.codec),
            Format::Metadata(version) => tables::partial_metadata(value, version),
            Format::Table(version) => {
                let rv = value["metadata"]["resourceVersion"].clone();
                let meta = json!({"resourceVersion": rv});
                let include = self.include_object()?;
                let now = (self.api.server.clock)();
                let rows = std::iter::once(value);
                tables::render(
                    &*kind.table,
                    rows,
                    &meta,
                    include,
                    Header::Shown,
                    version,
                    now,
                )
            }
        };
        coded(self.api.server.schema, code, &answer, accept.codec)
    }

    /// A tree that is no stored object: a review, a scale, a Status. Table and metadata forms are
    /// not made of these.
    ///
    /// # Errors
    /// 406 when the client accepts nothing that it is written in.
    pub(super) fn tree_answer(&self, code: u16, value: &Value) -> Result<Response, StatusError> {
        let text = |name: &str| value[name].as_str().unwrap_or_default();
        let gvk = Gvk::parse(text("apiVersion"), text("kind"));
        let accept = self.for_reader(Accept::of(&self.headers, self.offer(gvk))?);
        coded(self.api.server.schema, code, value, accept.codec)
    }

    /// Status Success of something that has no object to show.
    pub(super) fn success(
        &self,
        code: u16,
        details: Option<&Details>,
    ) -> Result<Response, StatusError> {
        let mut status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
        if let Some(details) = details {
            status["details"] = json!({"name": details.name, "kind": details.kind});
            if !details.group.is_empty() {
                status["details"]["group"] = json!(details.group);
            }
            if !details.uid.is_empty() {
                status["details"]["uid"] = json!(details.uid);
            }
        }
        if code != 200 {
            status["code"] = json!(code);
        }
        self.tree_answer(code, &status)
    }
}

/// The type whose message objects of `gvk` are written as; `None` when there is no message.
pub(super) fn message_type(schema: &Schema, gvk: Gvk<'_>) -> Option<TypeId> {
    schema
        .kind(gvk)
        .filter(|id| transcode::has_message(schema, *id))
}

/// The message of `obj`, shared by all answers.
pub(super) fn object_message(
    schema: &Schema,
    kind: &Kind,
    obj: &Obj,
) -> Result<Bytes, StatusError> {
    let id = message_type(schema, gvk(kind))
        .ok_or_else(|| StatusError::not_acceptable("application/json"))?;
    obj.message(schema, id).map_err(|fault| unencodable(&fault))
}

/// The message of a tree of type `gvk`.
pub(super) fn tree_message(
    schema: &Schema,
    gvk: Gvk<'_>,
    value: &Value,
) -> Result<Bytes, StatusError> {
    let id =
        message_type(schema, gvk).ok_or_else(|| StatusError::not_acceptable("application/json"))?;
    let message = transcode::message(schema, id, value).map_err(|fault| unencodable(&fault))?;
    Ok(Bytes::from(message))
}

/// The whole protobuf body of `obj`.
pub(super) fn object_body(schema: &Schema, kind: &Kind, obj: &Obj) -> Result<Bytes, StatusError> {
    let message = object_message(schema, kind, obj)?;
    let body = transcode::envelope(&kind.api_version(), kind.kind, &message);
    Ok(Bytes::from(body))
}

/// The whole protobuf body of a tree with `apiVersion` and `kind`; metadata alone is written too.
pub(super) fn value_body(schema: &Schema, value: &Value) -> Result<Bytes, StatusError> {
    let text = |name: &str| value[name].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let body = if kind == "PartialObjectMetadata" {
        let message = metadata_message(schema, value)?;
        transcode::envelope(api_version, kind, &message)
    } else {
        transcode::to_protobuf(schema, value).map_err(|fault| unencodable(&fault))?
    };
    Ok(Bytes::from(body))
}

/// The message of a PartialObjectMetadata: the object's metadata as field 1.
pub(super) fn metadata_message(schema: &Schema, value: &Value) -> Result<Vec<u8>, StatusError> {
    let meta = meta_message(schema, OBJECT_META, &value["metadata"])?;
    let mut message = transcode::field_head(1, meta.len() as u64);
    message.extend_from_slice(&meta);
    Ok(message)
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The message of a list's metadata.
pub(super) fn list_meta_message(schema: &Schema, meta: &Value) -> Result<Vec<u8>, StatusError> {
    meta_message(schema, LIST_META, meta)
}

fn meta_message(schema: &Schema, name: &str, meta: &Value) -> Result<Vec<u8>, StatusError> {
    let id = schema
        .named(name)
        .ok_or_else(|| StatusError::internal(format!("no schema of {name}")))?;
    transcode::message(schema, id, meta).map_err(|fault| unencodable(&fault))
}

fn unencodable(fault: &TranscodeError) -> StatusError {
    StatusError::internal(format!("the object cannot be written as protobuf: {fault}"))
}

fn coded(schema: &Schema, code: u16, value: &Value, codec: Codec) -> Result<Response, StatusError> {
    match codec {
        Codec::Text(layout) => Ok(tree_response(code, value, layout)),
        Codec::Protobuf => Ok(protobuf_bytes(code, value_body(schema, value)?)),
    }
}
