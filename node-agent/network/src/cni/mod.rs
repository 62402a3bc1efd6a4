//! The container network interface: a plugin that the runtime executes, and the agent that answers.
//!
//! The plugin is the agent's own program under another name: it relays the call to the agent's socket
//! and prints the answer. Source: CNI specification 1.0.0.

pub mod install;
pub mod plugin;
pub mod server;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Versions of the specification that are spoken.
pub(crate) const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Largest request or answer.
pub(crate) const MESSAGE_SIZE_MAX: u64 = 1 << 20;

/// Error codes of the specification that are used here.
pub(crate) mod code {
    /// The configuration is of a version that is not spoken.
    pub(crate) const INCOMPATIBLE_VERSION: u32 = 1;
    /// A CNI_* variable is missing or wrong.
    pub(crate) const INVALID_ENVIRONMENT: u32 = 4;
    /// Input or output failed.
    pub(crate) const IO: u32 = 5;
    /// What came in is no JSON, or not what it should be.
    pub(crate) const DECODE: u32 = 6;
    /// Try again later.
    pub(crate) const TRY_AGAIN: u32 = 11;
    /// The plugin cannot serve ADD now (1.1.0, STATUS).
    pub(crate) const NOT_AVAILABLE: u32 = 50;
    /// First code that a plugin defines itself.
    pub(crate) const NETWORK: u32 = 100;
}

/// One call, as the plugin relays it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Call {
    pub(crate) command: String,
    #[serde(default)]
    pub(crate) container_id: String,
    #[serde(default)]
    pub(crate) netns: String,
    #[serde(default)]
    pub(crate) interface: String,
    #[serde(default)]
    pub(crate) args: String,
    pub(crate) config: Value,
}

/// The agent's answer: what the plugin prints, and whether it is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    pub(crate) ok: bool,
    pub(crate) body: Value,
}

/// An error as the specification prints it.
pub(crate) fn error(version: &str, code: u32, message: &str, details: &str) -> Answer {
    let body = serde_json::json!({
        "cniVersion": version, "code": code, "msg": message, "details": details,
    });
    Answer { ok: false, body }
}

/// The version that a configuration asks for.
pub(crate) fn version_of(config: &Value) -> &str {
    config
        .get("cniVersion")
        .and_then(Value::as_str)
        .unwrap_or("1.0.0")
}
