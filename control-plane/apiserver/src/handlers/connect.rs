//! What a connection (exec, attach, portforward, proxy) is told to those who may refuse it.

use serde_json::{Value, json};

use super::Call;
use crate::registry::Subresource;
use crate::server::Target;
use crate::status::StatusError;

impl Call {
    /// Asks policies and webhooks about a connection.
    ///
    /// # Errors
    /// It is refused.
    pub(super) async fn review_connection(&self, target: &Target) -> Result<(), StatusError> {
        let context = self.write_context(false)?;
        let server = &self.api.server;
        if !server.dynamic.asks(&context) {
            return Ok(());
        }
        let Some(subresource) = target.subresource else {
            return Ok(());
        };
        let options = self.connect_options(subresource, target.kind.kind);
        server.review_connection(target, options, &context).await
    }

    fn connect_options(&self, subresource: Subresource, parent: &'static str) -> Value {
        let kind = subresource.shown_kind(parent);
        let mut options = json!({"kind": kind, "apiVersion": "v1"});
        let texts =
            |name: &str| -> Vec<String> { self.query.all(name).map(str::to_owned).collect() };
        match subresource {
            Subresource::Exec | Subresource::Attach => {
                for flag in ["stdin", "stdout", "stderr", "tty"] {
                    if self.query.flag(flag) {
                        options[flag] = json!(true);
                    }
                }
                if let Some(container) = self.query.get("container") {
                    options["container"] = json!(container);
                }
                if subresource == Subresource::Exec {
                    options["command"] = json!(texts("command"));
                }
            }
            Subresource::Portforward => {
                let ports: Vec<i64> = texts("ports")
                    .iter()
                    .filter_map(|port| port.parse().ok())
                    .collect();
                if !ports.is_empty() {
                    options["ports"] = json!(ports);
                }
            }
            Subresource::Proxy => {
                let path = self.path.split_once("/proxy").map_or("", |(_, path)| path);
                if !path.is_empty() {
                    options["path"] = json!(path);
                }
            }
            _ => {}
        }
        options
    }
}
