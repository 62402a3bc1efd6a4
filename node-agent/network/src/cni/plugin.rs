//! The plugin's side: environment and standard input to the agent's socket, the answer to standard
//! output. Blocking and short: the runtime waits for the process.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, Call, MESSAGE_SIZE_MAX, VERSIONS, code, error, version_of};

/// How long the agent may take for one call.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Name that the runtime executes for the loopback device (containerd before 2.0 always does).
pub const LOOPBACK_NAME: &str = "loopback";
/// Name of our plugin.
pub const PLUGIN_NAME: &str = "skep-cni";

/// Whether this process was executed as a CNI plugin under `program` (`argv[0]`).
#[must_use]
pub fn is_plugin(program: &str) -> bool {
    matches!(file_name(program), PLUGIN_NAME | LOOPBACK_NAME)
        && std::env::var_os("CNI_COMMAND").is_some()
}

fn file_name(program: &str) -> &str {
    Path::new(program)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// Serves one call and prints the answer.
#[must_use]
pub fn run(program: &str) -> ExitCode {
    let mut input = String::new();
    let read = std::io::stdin()
        .take(MESSAGE_SIZE_MAX)
        .read_to_string(&mut input);
    let answer = match read {
        Ok(_) => answer(program, &input, |name| std::env::var(name).ok()),
        Err(failure) => error(
            "1.0.0",
            code::IO,
            "cannot read the configuration",
            &failure.to_string(),
        ),
    };
    let mut out = std::io::stdout().lock();
    let printed = if answer.body.is_null() {
        Ok(())
    } else {
        writeln!(out, "{}", answer.body)
    };
    if answer.ok && printed.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn answer(program: &str, input: &str, variable: impl Fn(&str) -> Option<String>) -> Answer {
    let command = variable("CNI_COMMAND").unwrap_or_default();
    if command == "VERSION" {
        let version = serde_json::from_str::<Value>(input).unwrap_or_default();
        let body = json!({"cniVersion": version_of(&version), "supportedVersions": VERSIONS});
        return Answer { ok: true, body };
    }
    let config: Value = match serde_json::from_str(input) {
        Ok(config) => config,
        Err(failure) => {
            let details = failure.to_string();
            return error(
                "1.0.0",
                code::DECODE,
                "the network configuration is no JSON",
                &details,
            );
        }
    };
    let version = version_of(&config).to_owned();
    if !VERSIONS.contains(&&*version) {
        let details = format!("spoken: {}", VERSIONS.join(", "));
        let message = format!("CNI version {version} is not supported");
        return error(&version, code::INCOMPATIBLE_VERSION, &message, &details);
    }
    let get = |name: &str| variable(name).unwrap_or_default();
    let call = Call {
        container_id: get("CNI_CONTAINERID"),
        netns: get("CNI_NETNS"),
        interface: get("CNI_IFNAME"),
        args: get("CNI_ARGS"),
        command,
        config,
    };
    if file_name(program) == LOOPBACK_NAME {
        return loopback(&call, &version);
    }
    relay(&call, &version)
}

/// `lo` is brought up with the pod's own device; the runtime only wants the answer.
fn loopback(call: &Call, version: &str) -> Answer {
    let body = match call.command.as_str() {
        "ADD" => json!({
            "cniVersion": version,
            "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": call.netns}],
            "ips": [{"version": "4", "address": "127.0.0.1/8", "interface": 0}],
            "dns": {},
        }),
        _ => Value::Null,
    };
    Answer { ok: true, body }
}

fn relay(call: &Call, version: &str) -> Answer {
    let Some(socket) = call.config.get("socket").and_then(Value::as_str) else {
        let message = "the network configuration names no agent socket";
        return error(
            version,
            code::DECODE,
            message,
            "field \"socket\" is missing",
        );
    };
    match exchange(socket, call) {
        Ok(answer) => answer,
        Err(failure) => {
            let unavailable = if call.command == "STATUS" {
                code::NOT_AVAILABLE
            } else {
                code::TRY_AGAIN
            };
            let message = format!("the node agent does not answer at {socket}");
            error(version, unavailable, &message, &failure.to_string())
        }
    }
}

fn exchange(socket: &str, call: &Call) -> std::io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(&serde_json::to_vec(call)?)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.take(MESSAGE_SIZE_MAX).read_to_end(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn version_lists_what_is_spoken() {
        let said = answer("skep-cni", "{}", with(&[("CNI_COMMAND", "VERSION")]));
        assert!(said.ok);
        assert_eq!(
            said.body["supportedVersions"],
            json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
        );
    }

    #[test]
    fn an_agent_that_is_down_means_try_again() {
        let config = r#"{"cniVersion":"1.0.0","name":"skep","socket":"/nonexistent/cni.sock"}"#;
        let said = answer(
            "/opt/cni/bin/skep-cni",
            config,
            with(&[("CNI_COMMAND", "ADD")]),
        );
        assert_eq!((said.ok, &said.body["code"]), (false, &json!(11)));
        let said = answer("skep-cni", config, with(&[("CNI_COMMAND", "STATUS")]));
        assert_eq!(said.body["code"], json!(50));
    }

    #[test]
    fn rubbish_and_versions_of_the_future_are_refused() {
        let said = answer("skep-cni", "{", with(&[("CNI_COMMAND", "ADD")]));
        assert_eq!(said.body["code"], json!(6));
        let said = answer(
            "skep-cni",
            r#"{"cniVersion":"9.0.0"}"#,
            with(&[("CNI_COMMAND", "ADD")]),
        );
        assert_eq!(said.body["code"], json!(1));
    }

    #[test]
    fn loopback_needs_no_agent() {
        let variables = [("CNI_COMMAND", "ADD"), ("CNI_NETNS", "/run/netns/x")];
        let said = answer(
            "/bin/loopback",
            r#"{"cniVersion":"0.3.1"}"#,
            with(&variables),
        );
        assert!(said.ok && said.body["interfaces"][0]["name"] == "lo");
    }
}
