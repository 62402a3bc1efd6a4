//! Running other programs: changes when the way a failed program is reported changes.
//!
//! A failure always names the command line, how it ended, and what it last said.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// How many of the last lines of a failed program's output are shown.
const TAIL_LINES: usize = 25;

/// The command line as one would type it, for messages.
pub(crate) fn display(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&quote(argument));
    }
    line
}

fn quote(argument: &OsStr) -> String {
    let text = argument.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Runs with the terminal's own input and output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = display(command);
    let status = command
        .status()
        .with_context(|| format!("start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// Runs quietly; the output appears only in the error.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    capture(command).map(drop)
}

/// Runs and returns what it wrote to standard output.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let line = display(command);
    let output = output(command)?;
    if !output.status.success() {
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        bail!(
            "`{line}` ended with {}:\n{}",
            output.status,
            tail(&String::from_utf8_lossy(&said))
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of `{line}`"))
}

/// Runs to the end and returns everything, whatever the exit code.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    let line = display(command);
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start `{line}`"))
}

/// Whether the program could be started and ended with success. Its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success())
}

/// The last lines of a text, indented, for an error message.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(TAIL_LINES);
    let shown: Vec<String> = lines
        .iter()
        .skip(start)
        .map(|line| format!("    {line}"))
        .collect();
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{capture, display, tail};

    #[test]
    fn a_command_line_is_shown_as_one_would_type_it() {
        let mut command = Command::new("ip");
        command.args(["link", "set", "a b", ""]);
        assert_eq!(display(&command), "ip link set 'a b' ''");
    }

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error = capture(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("exit status: 3") && text.contains("    why"),
            "{text}"
        );
    }

    #[test]
    fn a_tail_keeps_the_last_lines() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        let shown = tail(&text);
        assert_eq!(shown.lines().count(), super::TAIL_LINES);
        assert!(shown.ends_with("    99"));
    }
}
