//! How a program ended and what it said: changes when tests look at something else of it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// A program that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Runs to the end. `input`: what it reads from standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn of(command: &mut Command, input: &[u8]) -> Result<Self> {
        let line = line(command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start `{line}`"))?;
        let mut pipe = child.stdin.take().context("standard input")?;
        let input = input.to_vec();
        // Beside reading: a program may answer before it has read everything.
        let writer = std::thread::spawn(move || pipe.write_all(&input));
        let output = child
            .wait_with_output()
            .with_context(|| format!("wait for `{line}`"))?;
        // A program that does not read its input to the end may have good reason.
        drop(writer.join());
        Ok(Self {
            line,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// # Errors
    /// When the exit code is not 0.
    pub fn success(self) -> Result<Self> {
        if self.code != Some(0) {
            bail!(
                "`{}`: exit code {:?}\n{}{}",
                self.line,
                self.code,
                self.stdout,
                self.stderr
            );
        }
        Ok(self)
    }

    /// # Errors
    /// When it did not fail, or failed without saying `text`.
    pub fn failure_saying(self, text: &str) -> Result<Self> {
        ensure!(
            self.code != Some(0),
            "`{}` succeeded:\n{}",
            self.line,
            self.stdout
        );
        let said = format!("{}{}", self.stdout, self.stderr);
        ensure!(
            said.contains(text),
            "`{}` said:\n{said}\nwithout: {text}",
            self.line
        );
        Ok(self)
    }

    /// # Errors
    /// When kubectl, or the server through it, warned of something.
    pub fn without_warning(self) -> Result<Self> {
        let warned = self
            .stderr
            .lines()
            .find(|line| line.to_lowercase().contains("warning"));
        if let Some(warning) = warned {
            bail!("`{}`: {warning}", self.line);
        }
        Ok(self)
    }

    /// Standard output without the white space around it.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }
}

fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|word| word.to_string_lossy()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::Output;

    fn sh(script: &str) -> Output {
        Output::of(Command::new("sh").args(["-c", script]), b"input").unwrap()
    }

    #[test]
    fn input_and_output_are_passed_on() {
        assert_eq!(sh("cat").success().unwrap().text(), "input");
    }

    #[test]
    fn a_failure_is_no_success_and_must_say_what_is_expected() {
        let output = sh("echo no such thing >&2; exit 3");
        output.clone().success().unwrap_err();
        output.clone().failure_saying("no such").unwrap();
        output.failure_saying("other").unwrap_err();
        sh("true").failure_saying("").unwrap_err();
    }

    #[test]
    fn a_warning_is_noticed() {
        sh("echo Warning: old >&2").without_warning().unwrap_err();
        sh("echo fine").without_warning().unwrap();
    }
}
