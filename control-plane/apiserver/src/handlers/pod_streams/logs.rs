//! `pods/log`: a container's log as plain text.

use futures::StreamExt as _;

use super::{check_log, locate, node_error};
use crate::handlers::Call;
use crate::http::{Response, streamed};
use crate::node_streams::LogRequest;
use crate::server::Target;
use crate::status::StatusError;

impl Call {
    pub(in crate::handlers) async fn logs(&self, target: &Target) -> Result<Response, StatusError> {
        let main = Target {
            subresource: None,
            ..target.clone()
        };
        let pod = self.api.server.get(&main, None).await?.value();
        let name = self.query.get("container").unwrap_or_default();
        let located = locate(target, &pod, name)?;
        let request = self.log_request(located.container)?;
        check_log(&pod, &request.target, request.previous)?;
        let opened = self.api.nodes.logs(&located.node, request).await;
        let log = opened.map_err(|fault| node_error(target, &fault))?;
        // An error after the first byte can only end the text; a message in it is what kubectl shows.
        let text = log.map(|chunk| match chunk {
            Ok(bytes) => bytes,
            Err(fault) => format!("\nerror: {fault}\n").into(),
        });
        let stop = self.api.stop.clone();
        let text = text.take_until(async move { stop.cancelled().await });
        Ok(streamed("text/plain; charset=utf-8", text))
    }

    fn log_request(
        &self,
        target: crate::node_streams::ContainerRef,
    ) -> Result<LogRequest, StatusError> {
        let positive = |key: &str, least: i64| -> Result<Option<i64>, StatusError> {
            match self.query.number(key)? {
                Some(number) if number < least => Err(StatusError::new(
                    422,
                    "Invalid",
                    format!(
                        "PodLogOptions \"{}\" is invalid: {key}: Invalid value: {number}: must be \
                         greater than or equal to {least}",
                        target.pod
                    ),
                )),
                other => Ok(other),
            }
        };
        let since_seconds = positive("sinceSeconds", 1)?;
        let since_time = self.query.get("sinceTime").map(str::to_owned);
        if since_seconds.is_some() && since_time.is_some() {
            return Err(StatusError::bad_request(
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        Ok(LogRequest {
            follow: self.query.flag("follow"),
            previous: self.query.flag("previous"),
            timestamps: self.query.flag("timestamps"),
            since_seconds,
            since_time,
            tail_lines: positive("tailLines", 0)?,
            limit_bytes: positive("limitBytes", 1)?,
            target,
        })
    }
}
