//! `pods/exec` and `pods/attach`: the checks, and which protocol carries the streams.

use serde_json::Value;
use tracing::debug;

use super::upgrade::{Agreed, socket, spdy, switching};
use super::{Located, exec_channels, exec_spdy, locate, node_error};
use crate::handlers::Call;
use crate::http::{Request, Response};
use crate::node_streams::ExecRequest;
use crate::registry::Subresource;
use crate::server::Target;
use crate::status::StatusError;
use crate::tree;

/// Protocols that we speak, best first; over SPDY they mean the same streams.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

impl Call {
    pub(in crate::handlers) async fn exec(
        &self,
        target: &Target,
        request: Request,
    ) -> Result<Response, StatusError> {
        let main = Target {
            subresource: None,
            ..target.clone()
        };
        let pod = self.api.server.get(&main, None).await?.value();
        let name = self.query.get("container").unwrap_or_default();
        let located = locate(target, &pod, name)?;
        check_phase(target, &pod)?;
        let exec = self.exec_request(target, &located)?;
        let agreed = self.negotiate(&PROTOCOLS, &PROTOCOLS)?;
        let opened = self.api.nodes.exec(&located.node, exec.clone()).await;
        let session = opened.map_err(|fault| node_error(target, &fault))?;
        let (stop, carried) = (self.api.stop.clone(), agreed.clone());
        self.api.tasks.spawn(async move {
            let bridge = async {
                match carried {
                    Agreed::WebSocket { .. } => {
                        exec_channels::bridge(socket(request).await?, session).await;
                    }
                    Agreed::Spdy { .. } => {
                        let (connection, drive) = spdy(request).await?;
                        exec_spdy::bridge(connection, drive, session, &exec).await;
                    }
                }
                Ok::<(), hyper::Error>(())
            };
            tokio::select! {
                done = bridge => if let Err(fault) = done {
                    debug!(%fault, "exec was not upgraded");
                },
                () = stop.cancelled() => {}
            }
        });
        Ok(switching(&agreed))
    }

    fn exec_request(&self, target: &Target, located: &Located) -> Result<ExecRequest, StatusError> {
        let command: Vec<String> = self.query.all("command").map(str::to_owned).collect();
        let attaches = target.subresource == Some(Subresource::Attach);
        if command.is_empty() && !attaches {
            return Err(StatusError::bad_request(
                "you must specify a command for the container",
            ));
        }
        let tty = self.query.flag("tty");
        let request = ExecRequest {
            target: located.container.clone(),
            command: if attaches { Vec::new() } else { command },
            stdin: self.query.flag("stdin"),
            stdout: self.query.flag("stdout"),
            // A terminal has one output.
            stderr: self.query.flag("stderr") && !tty,
            tty,
        };
        if !(request.stdin || request.stdout || request.stderr) {
            let message = "you must specify at least one of stdin, stdout, stderr";
            return Err(StatusError::bad_request(message));
        }
        Ok(request)
    }
}

fn check_phase(target: &Target, pod: &Value) -> Result<(), StatusError> {
    let phase = tree::text(pod, &["status", "phase"]);
    let what = match target.subresource {
        Some(Subresource::Attach) => "attach to",
        _ => "exec into",
    };
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(StatusError::bad_request(format!(
            "cannot {what} a container in a completed pod; current phase is {phase}"
        )));
    }
    Ok(())
}
