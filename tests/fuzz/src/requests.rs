//! Decoders of what stands around a body: paths, queries, headers, credentials, expressions.

use std::sync::OnceLock;

use control_plane_apiextensions::JsonPath;
use control_plane_apiextensions::cel::{Budget, Program, Variables};
use control_plane_apiserver::pki::Pki;
use control_plane_apiserver::{AuditPolicy, fuzzing};
use serde_json::json;

use crate::text;

pub(crate) fn accept(data: &[u8]) {
    fuzzing::accept(data);
}

pub(crate) fn query(data: &[u8]) {
    fuzzing::query(&text(data));
}

pub(crate) fn path(data: &[u8]) {
    fuzzing::path(&text(data));
}

pub(crate) fn continue_token(data: &[u8]) {
    fuzzing::continue_token(&text(data));
}

pub(crate) fn certificate(data: &[u8]) {
    fuzzing::certificate(data);
}

pub(crate) fn audit_policy(data: &[u8]) {
    let _policy = AuditPolicy::parse(&text(data)).is_ok();
}

pub(crate) fn json_path(data: &[u8]) {
    if let Ok(path) = JsonPath::parse(&text(data)) {
        let object = json!({"a": [{"b": 1}, {"b": "x"}], "spec": {"c.d": null}});
        let _found = path.find(&object);
    }
}

/// What an expression may cost; the API server gives rules more than this.
const COST: u64 = 100_000;

pub(crate) fn cel(data: &[u8]) {
    if let Ok(program) = Program::compile(&text(data), &["self"]) {
        let _value = program
            .evaluate(&Variables::new(), &mut Budget::new(COST))
            .is_ok();
    }
}

pub(crate) fn jwt(data: &[u8]) {
    static PKI: OnceLock<Option<Pki>> = OnceLock::new();
    let pki = PKI.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("skep-fuzz-{}", std::process::id()));
        let pki = Pki::open(&dir).ok();
        let _removed = std::fs::remove_dir_all(&dir).is_ok();
        pki
    });
    if let Some(pki) = pki {
        let accepted = pki.tokens().verify(&text(data), &[]);
        assert!(accepted.is_err(), "nobody signed this");
    }
}
