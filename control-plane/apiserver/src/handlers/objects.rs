//! Objects on the wire: decoding what clients send.

use hyper::header::{HeaderName, HeaderValue};
use proto_api::decode::{self, Decoded, Encoding, Finding};
use proto_api::schema::Gvk;

use super::Call;
use crate::field::{FieldError, Path};
use crate::http::{BodyKind, Request, Response, read_body};
use crate::registry::{Kind, Scope};
use crate::status::StatusError;
use crate::tables::IncludeObject;

/// What happens to fields that the schema does not know (`fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl Call {
    pub(super) fn field_validation(&self) -> Result<FieldValidation, StatusError> {
        match self.query.get("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => {
                let path = Path::root("fieldValidation");
                let known = ["", "Ignore", "Strict", "Warn"];
                let error = FieldError::not_supported(&path, other, &known);
                Err(self.options_refusal(&[error]))
            }
        }
    }

    /// Reads an object of the given group, version and kind.
    ///
    /// # Errors
    /// 400 with upstream's words when the body is something else, 413, 415.
    pub(super) async fn read_object(
        &self,
        request: Request,
        gvk: Gvk<'_>,
    ) -> Result<Decoded, StatusError> {
        let encoding = BodyKind::of(&self.headers)?.object()?;
        let body = read_body(request.into_body()).await?;
        let decoded = self.decode(&body, encoding, gvk)?;
        self.refuse_findings(gvk, &decoded.findings)?;
        self.note_body(&decoded.value);
        Ok(decoded)
    }

    pub(super) fn decode(
        &self,
        body: &[u8],
        encoding: Encoding,
        gvk: Gvk<'_>,
    ) -> Result<Decoded, StatusError> {
        let kind = self.api.server.registry.by_gvk(gvk);
        let decoded = match kind.as_deref().and_then(|kind| kind.custom.as_deref()) {
            Some(custom) => crate::custom::decode(custom, gvk, body, encoding),
            None => decode::body(self.api.server.schema, Some(gvk), body, encoding),
        };
        let decoded =
            decoded.map_err(|fault| StatusError::bad_request(fault.message(gvk, body)))?;
        let found = decoded.gvk();
        if (found.group, found.kind) != (gvk.group, gvk.kind) || found.version != gvk.version {
            return Err(StatusError::bad_request(format!(
                "{} in version \"{}\" cannot be handled as a {}: {}",
                found.kind,
                found.version,
                gvk.kind,
                decode::no_conversion(found, gvk)
            )));
        }
        Ok(decoded)
    }

    /// Strict validation refuses unknown and duplicate fields.
    ///
    /// # Errors
    /// 400 with all of them.
    pub(super) fn refuse_findings(
        &self,
        gvk: Gvk<'_>,
        findings: &[Finding],
    ) -> Result<(), StatusError> {
        if findings.is_empty() || self.field_validation()? != FieldValidation::Strict {
            return Ok(());
        }
        Err(StatusError::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: {}",
            gvk.kind,
            gvk.version,
            gvk.kind,
            decode::strict_message(findings)
        )))
    }

    /// Adds a `Warning: 299` header for each finding and each of the kind's own warnings.
    pub(super) fn warn(
        &self,
        answer: &mut Response,
        findings: &[Finding],
        more: &[String],
    ) -> Result<(), StatusError> {
        let mut texts: Vec<String> = more.to_vec();
        if self.field_validation()? == FieldValidation::Warn {
            texts.extend(findings.iter().map(ToString::to_string));
        }
        add_warnings(answer, &texts);
        Ok(())
    }

    pub(super) fn include_object(&self) -> Result<IncludeObject, StatusError> {
        match self.query.get("includeObject") {
            None | Some("Metadata") => Ok(IncludeObject::Metadata),
            Some("None") => Ok(IncludeObject::None),
            Some("Object") => Ok(IncludeObject::Object),
            Some(other) => Err(StatusError::bad_request(format!(
                "unrecognized includeObject value: {other}"
            ))),
        }
    }
}

/// Adds a `Warning: 299` header for each text.
pub(super) fn add_warnings(answer: &mut Response, texts: &[String]) {
    for text in texts {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            answer
                .headers_mut()
                .append(HeaderName::from_static("warning"), value);
        }
    }
}

pub(super) fn gvk(kind: &Kind) -> Gvk<'static> {
    Gvk {
        group: kind.group,
        version: kind.version,
        kind: kind.kind,
    }
}

/// A path's namespace that a collection is limited to, checked against the kind's scope.
pub(super) fn collection_namespace(kind: &Kind, namespace: &str) -> Result<(), StatusError> {
    if kind.scope == Scope::Cluster && !namespace.is_empty() {
        return Err(StatusError::path_not_found());
    }
    Ok(())
}
