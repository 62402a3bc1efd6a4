//! What the agent shows of itself and its pods: the paths of a kubelet that it offers.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;

use super::{LogSession, StreamError, StreamHandler};
use crate::worker::PodSummary;

/// The beginning of an answer; its body follows on the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentAnswer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentOutput {
    /// First.
    Answer(AgentAnswer),
    /// A piece of the body.
    Body(Bytes),
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

impl StreamHandler {
    /// Answers a GET of `path` (without a leading slash): `healthz`, `healthz/ping`, `pods`,
    /// `runningpods/`, `containerLogs/NAMESPACE/POD/CONTAINER`.
    ///
    /// # Errors
    /// [`StreamError`] 404 for other paths; or why a log cannot be read.
    pub async fn agent(
        &self,
        path: &str,
        query: &str,
        output: mpsc::Sender<AgentOutput>,
    ) -> Result<(), StreamError> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (content_type, body) = match parts.as_slice() {
            ["healthz"] | ["healthz", "ping"] => {
                let state = self.runtime.status().await;
                let state = state.map_err(|error| StreamError::internal(error.to_string()))?;
                drop(state);
                (TEXT, "ok".to_owned())
            }
            ["pods"] => (JSON, pod_list(&self.pods.all())),
            ["runningpods"] => {
                let mut pods = self.pods.all();
                pods.retain(|pod| pod.status.phase.as_deref() == Some("Running"));
                (JSON, pod_list(&pods))
            }
            ["containerLogs", namespace, pod, container] => {
                let session = log_session(namespace, pod, container, query)?;
                return self.agent_log(&session, output).await;
            }
            _ => return Err(StreamError::not_found("404 page not found")),
        };
        let answer = AgentOutput::Answer(AgentAnswer {
            status: 200,
            content_type,
        });
        for message in [answer, AgentOutput::Body(Bytes::from(body))] {
            if output.send(message).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn agent_log(
        &self,
        session: &LogSession,
        output: mpsc::Sender<AgentOutput>,
    ) -> Result<(), StreamError> {
        let (lines, mut read) = mpsc::channel(1);
        let relay = async {
            let mut answered = false;
            while let Some(bytes) = read.recv().await {
                if !answered && output.send(text_answer()).await.is_err() {
                    return true;
                }
                answered = true;
                if output.send(AgentOutput::Body(bytes)).await.is_err() {
                    break;
                }
            }
            answered
        };
        let log = async move {
            let done = self.logs(session, &lines).await;
            drop(lines);
            done
        };
        let (done, answered) = tokio::join!(log, relay);
        done?;
        if !answered && output.send(text_answer()).await.is_err() {
            tracing::debug!("the client left before an empty log");
        }
        Ok(())
    }
}

fn text_answer() -> AgentOutput {
    AgentOutput::Answer(AgentAnswer {
        status: 200,
        content_type: TEXT,
    })
}

fn pod_list(pods: &[PodSummary]) -> String {
    let items: Vec<serde_json::Value> = pods
        .iter()
        .map(|summary| {
            let mut pod = json!(*summary.pod);
            pod["status"] = json!(*summary.status);
            pod
        })
        .collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}).to_string()
}

fn log_session(
    namespace: &str,
    pod: &str,
    container: &str,
    query: &str,
) -> Result<LogSession, StreamError> {
    let mut session = LogSession {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: container.to_owned(),
        ..LogSession::default()
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, "true"));
        let bad = || StreamError::bad_request(format!("unable to decode query: {key}={value}"));
        let flag = matches!(value, "true" | "1" | "");
        match key {
            "follow" => session.follow = flag,
            "previous" => session.previous = flag,
            "timestamps" => session.timestamps = flag,
            "tailLines" => session.tail_lines = Some(value.parse().or(Err(bad()))?),
            "limitBytes" => session.limit_bytes = Some(value.parse().or(Err(bad()))?),
            "sinceSeconds" => session.since_seconds = Some(value.parse().or(Err(bad()))?),
            "sinceTime" => {
                let text = value.replace("%3A", ":").replace("%3a", ":");
                session.since_time = Some(text.parse::<Timestamp>().or(Err(bad()))?);
            }
            _ => {}
        }
    }
    Ok(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logs_options_come_from_the_query() {
        let query = "follow=true&tailLines=5&sinceTime=2026-01-31T12%3A00%3A00Z&other=1";
        let session = log_session("d", "p", "c", query).unwrap();
        assert!(session.follow && !session.previous);
        assert_eq!(session.tail_lines, Some(5));
        let time = session.since_time.unwrap().to_string();
        assert_eq!(time, "2026-01-31T12:00:00Z");
        let error = log_session("d", "p", "c", "tailLines=-1").unwrap_err();
        assert_eq!(error.code, 400);
    }
}
