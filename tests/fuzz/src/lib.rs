//! Every decoder that reads bytes from outside, as functions of bytes: none may panic, hang or
//! take much memory, and what reads its own output must read the same again.
//!
//! Two drivers share the targets: `tests/corpus.rs`, in every test run, replays the checked-in
//! inputs and a bounded number of changes of them; `cargo xtask fuzz NAME` searches with
//! libFuzzer, guided by coverage. What that finds goes into `corpus/NAME/` with its fix.

mod bodies;
#[cfg(feature = "all")]
mod kinds;
#[cfg(feature = "all")]
mod requests;
#[cfg(feature = "all")]
mod streams;
mod texts;

/// One decoder.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of its directory below `corpus`.
    pub name: &'static str,
    /// Decodes; panics only for a bug.
    pub run: fn(&[u8]),
}

const fn target_of(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// All decoders.
pub const TARGETS: &[Target] = &[
    target_of("apply", bodies::apply),
    #[cfg(feature = "all")]
    target_of("crd", kinds::definition),
    target_of("fields-v1", bodies::fields_v1),
    target_of("json", bodies::json),
    target_of("json-patch", bodies::json_patch),
    #[cfg(feature = "all")]
    target_of("kinds", kinds::kinds),
    target_of("merge-patch", bodies::merge_patch),
    target_of("protobuf", bodies::protobuf),
    target_of("quantity", texts::quantity),
    target_of("scalars", texts::scalars),
    #[cfg(feature = "all")]
    target_of("stored", kinds::stored),
    target_of("strategic-patch", bodies::strategic_patch),
    target_of("yaml", bodies::yaml),
    #[cfg(feature = "all")]
    target_of("accept", requests::accept),
    #[cfg(feature = "all")]
    target_of("audit-policy", requests::audit_policy),
    #[cfg(feature = "all")]
    target_of("cel", requests::cel),
    #[cfg(feature = "all")]
    target_of("certificate", requests::certificate),
    #[cfg(feature = "all")]
    target_of("continue", requests::continue_token),
    target_of("field-selector", texts::field_selector),
    #[cfg(feature = "all")]
    target_of("jsonpath", requests::json_path),
    #[cfg(feature = "all")]
    target_of("jwt", requests::jwt),
    target_of("label-selector", texts::label_selector),
    #[cfg(feature = "all")]
    target_of("path", requests::path),
    #[cfg(feature = "all")]
    target_of("query", requests::query),
    #[cfg(feature = "all")]
    target_of("dns", streams::dns),
    #[cfg(feature = "all")]
    target_of("node-stream", streams::node_stream),
    #[cfg(feature = "all")]
    target_of("spdy", streams::spdy),
    #[cfg(feature = "all")]
    target_of("websocket-channels", streams::channels),
];

/// The target of a name.
///
/// # Panics
/// There is none.
#[must_use]
pub fn target(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert!(found.is_some(), "no fuzz target {name:?}: one of {names:?}");
    found.unwrap_or(&TARGETS[0])
}

/// `data` as text; what is no UTF-8 is replaced.
fn text(data: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(data)
}
