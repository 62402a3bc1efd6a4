//! Messages of `v4.channel.k8s.io` and `v5.channel.k8s.io`. Pure.
//!
//! Each binary message starts with a channel number: 0 stdin, 1 stdout, 2 stderr, 3 the final
//! Status, 4 terminal size; in v5, 255 followed by a channel closes that channel. A forwarded port
//! has two channels, data and error, which the server begins with the port's number.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::node_streams::ExecInput;

const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const STATUS: u8 = 3;
const RESIZE: u8 = 4;
pub(super) const CLOSE: u8 = 255;

/// A message on a channel.
pub(super) fn framed(channel: u8, bytes: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(channel);
    frame.extend_from_slice(bytes);
    Bytes::from(frame)
}

/// One message of the client of a command; `None` for what has no meaning here.
pub(super) fn exec_input(bytes: &Bytes) -> Option<ExecInput> {
    match *bytes.first()? {
        STDIN if bytes.len() > 1 => Some(ExecInput::Stdin(bytes.slice(1..))),
        CLOSE if bytes.get(1) == Some(&STDIN) => Some(ExecInput::CloseStdin),
        RESIZE => resize(&bytes[1..]),
        _ => None,
    }
}

/// A terminal's size, `{"Width":80,"Height":24}`.
pub(super) fn resize(json: &[u8]) -> Option<ExecInput> {
    let size: Value = serde_json::from_slice(json).ok()?;
    let side = |name: &str| size[name].as_u64().and_then(|n| u16::try_from(n).ok());
    Some(ExecInput::Resize {
        width: side("Width")?,
        height: side("Height")?,
    })
}

/// What the client of forwarded ports sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PortMessage {
    Data { port: usize, bytes: Bytes },
    Close { port: usize },
}

/// One message of the client of `ports` forwarded ports; `None` for what has no meaning here.
pub(super) fn port_input(bytes: &Bytes, ports: usize) -> Option<PortMessage> {
    let data = |channel: u8| {
        let port = usize::from(channel) / 2;
        (channel.is_multiple_of(2) && port < ports).then_some(port)
    };
    match *bytes.first()? {
        CLOSE => data(*bytes.get(1)?).map(|port| PortMessage::Close { port }),
        channel => {
            let port = data(channel)?;
            let bytes = bytes.slice(1..);
            (!bytes.is_empty()).then_some(PortMessage::Data { port, bytes })
        }
    }
}

/// The channels of the `index`th port: data, error.
pub(super) fn port_channels(index: usize) -> Option<(u8, u8)> {
    let data = u8::try_from(index.checked_mul(2)?).ok()?;
    (data < CLOSE - 1).then_some((data, data + 1))
}

/// The last message about a command.
pub(super) fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The last message about a command that did not come to its end.
pub(super) fn failure(message: &str) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError",
        "message": message, "code": 500,
    })
}

/// Reads a message of either kind of client.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_messages(message: &Bytes) {
    if let Some(ExecInput::Stdin(bytes)) = exec_input(message) {
        assert!(bytes.len() < message.len());
    }
    for ports in [0, 1, PORTS_READ] {
        if let Some(PortMessage::Data { port, .. } | PortMessage::Close { port }) =
            port_input(message, ports)
        {
            assert!(port < ports);
        }
    }
}

/// More ports than a channel byte can name.
#[cfg(feature = "fuzzing")]
const PORTS_READ: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_told_apart() {
        let parse = |bytes: &'static [u8]| exec_input(&Bytes::from_static(bytes));
        assert_eq!(
            parse(b"\x00hi"),
            Some(ExecInput::Stdin(Bytes::from_static(b"hi")))
        );
        assert_eq!(parse(b"\xff\x00"), Some(ExecInput::CloseStdin));
        assert_eq!(
            parse(b"\x04{\"Width\":80,\"Height\":24}"),
            Some(ExecInput::Resize {
                width: 80,
                height: 24
            })
        );
        for nothing in [
            &b""[..],
            b"\x00",
            b"\xff\x01",
            b"\x04{",
            b"\x04{\"Width\":70000}",
            b"\x09x",
        ] {
            let message = Bytes::copy_from_slice(nothing);
            assert_eq!(exec_input(&message), None, "{nothing:?}");
        }
    }

    #[test]
    fn an_exit_code_reaches_kubectl_as_a_cause() {
        assert_eq!(exit_status(0)["status"], "Success");
        let status = exit_status(3);
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "3");
    }

    #[test]
    fn a_port_has_a_channel_for_data_and_one_for_errors() {
        assert_eq!(port_channels(0), Some((0, 1)));
        assert_eq!(port_channels(3), Some((6, 7)));
        assert_eq!(port_channels(126), Some((252, 253)));
        assert_eq!(port_channels(127), None);
        assert_eq!(port_channels(usize::MAX), None);
        let parse = |bytes: &'static [u8]| port_input(&Bytes::from_static(bytes), 2);
        let bytes = Bytes::from_static(b"x");
        assert_eq!(parse(b"\x02x"), Some(PortMessage::Data { port: 1, bytes }));
        assert_eq!(parse(b"\xff\x00"), Some(PortMessage::Close { port: 0 }));
        for nothing in [&b""[..], b"\x01x", b"\x04x", b"\x00", b"\xff", b"\xff\x01"] {
            let message = Bytes::copy_from_slice(nothing);
            assert_eq!(port_input(&message, 2), None, "{nothing:?}");
        }
    }
}
