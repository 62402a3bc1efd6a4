//! `/healthz`, `/livez`, `/readyz` and the checks below them.

use std::time::Duration;

use super::Call;
use crate::http::{Response, text_response};
use crate::status::StatusError;

/// A named condition of the server; names are upstream's, `etcd` is the store, whichever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Ping,
    Log,
    Etcd,
    InformerSync,
    Shutdown,
}

const ALIVE: &[Check] = &[Check::Ping, Check::Log, Check::Etcd];
const READY: &[Check] = &[
    Check::Ping,
    Check::Log,
    Check::Etcd,
    Check::InformerSync,
    Check::Shutdown,
];

/// How long the store may take to answer.
const STORE_WAIT: Duration = Duration::from_secs(2);

impl Check {
    const fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Log => "log",
            Self::Etcd => "etcd",
            Self::InformerSync => "informer-sync",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Well,
    Excluded,
    Failed(String),
}

impl Call {
    pub(super) async fn health(&self, check: &[&str]) -> Result<Response, StatusError> {
        let endpoint = self.path.split('/').find(|part| !part.is_empty());
        let endpoint = endpoint.unwrap_or_default();
        let checks = if endpoint == "readyz" { READY } else { ALIVE };
        if let Some(name) = check.first() {
            let found = checks.iter().find(|check| check.name() == *name);
            let found = found.ok_or_else(StatusError::path_not_found)?;
            return Ok(match self.check(*found).await {
                Found::Well | Found::Excluded => text_response(200, "ok"),
                Found::Failed(why) => text_response(500, format!("internal server error: {why}\n")),
            });
        }
        let excluded: Vec<&str> = self.query.all("exclude").collect();
        let mut results = Vec::with_capacity(checks.len());
        for check in checks {
            let found = match excluded.contains(&check.name()) {
                true => Found::Excluded,
                false => self.check(*check).await,
            };
            results.push((check.name(), found));
        }
        let failed = results
            .iter()
            .any(|(_, found)| matches!(found, Found::Failed(_)));
        if !failed && self.query.tristate("verbose").is_none() {
            return Ok(text_response(200, "ok"));
        }
        let code = if failed { 500 } else { 200 };
        Ok(text_response(code, report(endpoint, &results, &excluded)))
    }

    async fn check(&self, check: Check) -> Found {
        match check {
            // Requests are served once the cache is loaded.
            Check::Ping | Check::Log | Check::InformerSync => Found::Well,
            Check::Shutdown if self.api.stop.is_cancelled() => {
                Found::Failed("process is shutting down".to_owned())
            }
            Check::Shutdown => Found::Well,
            Check::Etcd => match tokio::time::timeout(STORE_WAIT, self.api.server.newest()).await {
                Ok(Ok(_)) => Found::Well,
                Ok(Err(fault)) => Found::Failed(fault.message),
                Err(_) => Found::Failed("the store does not answer".to_owned()),
            },
        }
    }
}

/// A line a check. Reasons are for the log: anybody may read this.
fn report(endpoint: &str, results: &[(&str, Found)], excluded: &[&str]) -> String {
    let mut text = String::new();
    let mut failed = false;
    for (name, found) in results {
        let line = match found {
            Found::Well => format!("[+]{name} ok\n"),
            Found::Excluded => format!("[+]{name} excluded: ok\n"),
            Found::Failed(why) => {
                tracing::warn!(endpoint, check = name, why, "a health check fails");
                failed = true;
                format!("[-]{name} failed: reason withheld\n")
            }
        };
        text.push_str(&line);
    }
    let mut unmatched: Vec<String> = excluded
        .iter()
        .filter(|name| !results.iter().any(|(known, _)| known == *name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unmatched.is_empty() {
        unmatched.sort();
        let names = unmatched.join(", ");
        text.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {names}\n"
        ));
    }
    let verdict = if failed { "failed" } else { "passed" };
    text.push_str(&format!("{endpoint} check {verdict}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_what_failed_and_what_was_left_out() {
        let results = [
            ("ping", Found::Well),
            ("log", Found::Excluded),
            ("etcd", Found::Failed("secret".to_owned())),
        ];
        let expected = "[+]ping ok\n[+]log excluded: ok\n[-]etcd failed: reason withheld\n\
                        warn: some health checks cannot be excluded: no matches for \"x\"\n\
                        readyz check failed\n";
        assert_eq!(report("readyz", &results, &["log", "x"]), expected);
    }
}
