//! `/healthz`, `/livez`, `/readyz`.

use super::Call;
use crate::http::{Response, text_response};
use crate::status::StatusError;

/// What is checked. By the time requests are served the cache is loaded, so `ping` answers and the
/// rest can only fail at shutdown.
const CHECKS: &[&str] = &["ping", "log", "storage", "watch-cache"];

impl Call {
    pub(super) fn health(&self, check: &[&str]) -> Result<Response, StatusError> {
        if let Some(name) = check.first()
            && !CHECKS.contains(name)
        {
            return Err(StatusError::path_not_found());
        }
        let stopping = self.api.stop.is_cancelled();
        if stopping && self.path.starts_with("/readyz") {
            return Ok(text_response(
                500,
                "[-]shutdown failed: the server is stopping\n",
            ));
        }
        if !self.query.tristate("verbose").unwrap_or_default() {
            return Ok(text_response(200, "ok"));
        }
        let mut text: String = CHECKS
            .iter()
            .map(|name| format!("[+]{name} ok\n"))
            .collect();
        let endpoint = self
            .path
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        text.push_str(endpoint);
        text.push_str(" check passed\n");
        Ok(text_response(200, text))
    }
}
