//! PATCH: JSON, merge and strategic merge patches, server-side apply.

use proto_api::apply::OnConflict;
use proto_api::decode::{self, Encoding, Finding};
use proto_api::patch;
use serde_json::Value;

use super::Call;
use super::objects::FieldValidation;
use crate::field::{FieldError, Path};
use crate::http::{BodyKind, Request, Response, read_body};
use crate::registry::Subresource;
use crate::server::{Made, Patch, Target};
use crate::status::StatusError;

impl Call {
    pub(super) async fn patch(
        &self,
        target: &Target,
        request: Request,
    ) -> Result<Response, StatusError> {
        self.accept_for(&target.kind)?;
        let kind = BodyKind::of(&self.headers)?;
        let body = read_body(request.into_body()).await?;
        if kind == BodyKind::ApplyPatch {
            return self.apply(target, &body).await;
        }
        if self.query.tristate("force").is_some() {
            let why = "may not be specified for non-apply patch";
            let error = FieldError::forbidden(&Path::root("force"), why);
            return Err(self.options_refusal(&[error]));
        }
        let (tree, mut findings) = decode::parse(&body, Encoding::Json)
            .map_err(|fault| StatusError::bad_request(format!("error decoding patch: {fault}")))?;
        self.note_body(&tree);
        let patch = match kind {
            BodyKind::JsonPatch => {
                findings.extend(patch::unknown_members(&tree));
                findings = findings
                    .iter()
                    .map(|f| Finding::InPatch(f.to_string()))
                    .collect();
                Patch::Json(tree)
            }
            BodyKind::StrategicPatch if target.kind.custom.is_some() => {
                return Err(BodyKind::not_a_patch());
            }
            BodyKind::MergePatch => Patch::Merge(difference(tree)?),
            BodyKind::StrategicPatch => Patch::Strategic(difference(tree)?),
            BodyKind::ApplyPatch | BodyKind::Object(_) => return Err(BodyKind::not_a_patch()),
        };
        let refuse = |made: &Made<'_>| self.refuse_patch(&findings, made);
        let context = self.write_context(false)?;
        let patched = self
            .api
            .server
            .patch(target, &patch, &context, refuse)
            .await?;
        findings.extend(patched.findings);
        let mut answer = self.written_answer(200, target, &patched.obj)?;
        self.warn(&mut answer, &findings, &[])?;
        Ok(answer)
    }

    /// Strict validation refuses a patch with, or that leads to, unknown or duplicate fields.
    fn refuse_patch(&self, own: &[Finding], made: &Made<'_>) -> Result<(), StatusError> {
        let findings = [own, made.findings].concat();
        if findings.is_empty() || self.field_validation()? != FieldValidation::Strict {
            return Ok(());
        }
        let why = decode::strict_message(&findings);
        let error = FieldError::invalid(&Path::root("patch"), (made.shown)(), why);
        Err(StatusError::invalid("", "", "", &[error]))
    }

    /// Server-side apply.
    async fn apply(&self, target: &Target, body: &[u8]) -> Result<Response, StatusError> {
        let scale = target.subresource == Some(Subresource::Scale);
        if target.kind.is_view() && !scale {
            return Err(BodyKind::not_a_patch());
        }
        if self.query.get("fieldManager").is_none() {
            let path = Path::root("fieldManager");
            let error = FieldError::required(&path, "is required for apply patch");
            return Err(self.options_refusal(&[error]));
        }
        let (config, findings) = decode::parse(body, Encoding::Yaml)
            .map_err(|fault| StatusError::bad_request(format!("error decoding YAML: {fault}")))?;
        if let Some(finding) = findings.first()
            && self.field_validation()? == FieldValidation::Strict
        {
            return Err(StatusError::bad_request(format!(
                "error strict decoding YAML: error converting YAML to JSON: {finding}"
            )));
        }
        self.note_body(&config);
        let conflict = if self.query.flag("force") {
            OnConflict::Take
        } else {
            OnConflict::Refuse
        };
        let context = self.write_context(false)?;
        let (obj, created) = self
            .api
            .server
            .apply(target, &config, conflict, &context)
            .await?;
        let code = if created { 201 } else { 200 };
        let mut answer = self.written_answer(code, target, &obj)?;
        self.warn(&mut answer, &findings, &[])?;
        Ok(answer)
    }
}

/// A patch that is a part of an object.
fn difference(tree: Value) -> Result<Value, StatusError> {
    let found = match &tree {
        Value::Object(_) => return Ok(tree),
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
    };
    Err(StatusError::bad_request(format!(
        "error decoding patch: json: cannot unmarshal {found} into Go value of type \
         map[string]interface {{}}"
    )))
}
