//! What a user types at a terminal and what the terminal answers, kept as a text: changes when the
//! form of these texts does.
//!
//! ```text
//! # A comment.
//! $ kubectl create configmap c --from-literal=a=b
//! configmap/c created
//! $ kubectl apply -f - <<E
//! > apiVersion: v1
//! > E
//! ...
//! ! error: no objects passed to apply
//! ? 1
//! ~ kubectl get pod box
//! NAME   READY   STATUS    RESTARTS   AGE
//! box    1/1     Running   *          *
//! $1.37 kubectl autoscale deployment web --cpu=50%
//! ```
//!
//! `$`: a command line for the shell, `>` its further lines. Then what it must say: standard output,
//! `!` standard error, `?` an exit code that is not 0. `*` stands for any characters of a line, a
//! line `...` for any lines. `~` instead of `$`: repeated until the answer is the one expected. A
//! version behind the sign: only with that version of the program under test.

mod matching;
mod record;

use std::fmt;

use anyhow::{Result, bail};

use crate::output::Output;

pub use record::with_answers;

/// One command and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Of the line with the command, from 1.
    pub line: usize,
    /// Lines of the text that belong to the answer.
    answer: std::ops::Range<usize>,
    /// For the shell.
    pub command: String,
    pub repeats: bool,
    /// Runs only with this version of the program under test.
    pub version: Option<String>,
    pub expected: Expected,
}

/// What a command must say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    pub stdout: Vec<String>,
    pub stderr: Vec<String>,
    pub code: i32,
}

/// # Errors
/// When a line belongs to no command.
pub fn parse(text: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.starts_with('#') || (line.is_empty() && steps.is_empty()) {
            continue;
        }
        if let Some(step) = command(at, line) {
            steps.push(step);
            continue;
        }
        let Some(step) = steps.last_mut() else {
            bail!("line {}: before the first command: {line}", at + 1);
        };
        step.answer.end = at + 1;
        if let Some(more) = continuation(line, step, at) {
            step.command.push('\n');
            step.command.push_str(more);
        } else if line == "!" || line.starts_with("! ") {
            step.expected
                .stderr
                .push(line.get(2..).unwrap_or_default().to_owned());
        } else if let Some(code) = line.strip_prefix("? ") {
            step.expected.code = code.parse()?;
        } else {
            step.expected.stdout.push(line.to_owned());
        }
    }
    Ok(steps)
}

fn command(at: usize, line: &str) -> Option<Step> {
    let repeats = line.starts_with('~');
    let rest = line.strip_prefix(['$', '~'])?;
    let (version, command) = rest.split_once(' ')?;
    let is_version = version.chars().all(|c| c.is_ascii_digit() || c == '.');
    is_version.then(|| Step {
        line: at + 1,
        answer: at + 1..at + 1,
        command: command.to_owned(),
        repeats,
        version: (!version.is_empty()).then(|| version.to_owned()),
        expected: Expected::default(),
    })
}

/// Further lines of a command come before any answer.
fn continuation<'a>(line: &'a str, step: &mut Step, at: usize) -> Option<&'a str> {
    if step.expected != Expected::default() || step.answer.start != at {
        return None;
    }
    let more = line.strip_prefix("> ").or_else(|| line.strip_prefix('>'))?;
    step.answer.start = at + 1;
    Some(more)
}

impl Step {
    /// `place`: replaces `$NS` in what is expected.
    ///
    /// # Errors
    /// When the program said something else, or ended otherwise.
    pub fn check(&self, output: &Output, place: &str) -> Result<()> {
        let wanted = self.expected.in_place(place);
        let code = output.code.unwrap_or(-1);
        let wrong = matching::compare(&wanted.stdout, &output.stdout)
            .and_then(|()| matching::compare(&wanted.stderr, &output.stderr));
        let wrong = match wrong {
            Err(line) => line.to_owned(),
            Ok(()) if code != wanted.code => format!("exit code {code}"),
            Ok(()) => return Ok(()),
        };
        bail!(
            "line {}: {}\nwrong: {wrong}\nexpected:\n{wanted}\ngot:\n{}",
            self.line,
            self.command,
            Expected::of(output)
        )
    }

    /// Whether it runs with this version of the program under test.
    pub fn is_for(&self, version: &str) -> bool {
        self.version.as_deref().is_none_or(|only| only == version)
    }
}

impl Expected {
    fn of(output: &Output) -> Self {
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        Self {
            stdout: lines(&output.stdout),
            stderr: lines(&output.stderr),
            code: output.code.unwrap_or(-1),
        }
    }

    fn in_place(&self, place: &str) -> Self {
        let lines = |lines: &[String]| {
            let replaced = lines.iter().map(|line| line.replace("$NS", place));
            replaced.collect()
        };
        Self {
            stdout: lines(&self.stdout),
            stderr: lines(&self.stderr),
            code: self.code,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.stdout {
            writeln!(f, "{}", line.trim_end())?;
        }
        for line in &self.stderr {
            writeln!(f, "{}", format!("! {line}").trim_end())?;
        }
        if self.code != 0 {
            writeln!(f, "? {}", self.code)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Expected, parse};
    use crate::output::Output;

    fn output(stdout: &str, stderr: &str, code: i32) -> Output {
        Output {
            line: String::new(),
            code: Some(code),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        }
    }

    #[test]
    fn commands_their_lines_and_their_answers_are_told_apart() {
        let text = "# c\n\n$ one <<E\n> > x\n>\n> E\na\n> b\n! no\n? 3\n~1.37 two\n$ three";
        let steps = parse(text).unwrap();
        assert_eq!(steps.len(), 3);
        assert_eq!(steps[0].command, "one <<E\n> x\n\nE");
        let expected = Expected {
            stdout: vec!["a".to_owned(), "> b".to_owned()],
            stderr: vec!["no".to_owned()],
            code: 3,
        };
        assert_eq!(steps[0].expected, expected);
        assert!(steps[1].repeats && steps[1].is_for("1.37") && !steps[1].is_for("1.32"));
        assert!(steps[2].is_for("1.32") && steps[2].expected == Expected::default());
        parse("text before a command").unwrap_err();
    }

    #[test]
    fn an_answer_is_checked_whole_with_streams_and_exit_code() {
        let step = &parse("$ x\npod/a-* in $NS\n! warned\n? 1").unwrap()[0];
        step.check(&output("pod/a-7 in here\n", "warned\n", 1), "here")
            .unwrap();
        for (stdout, stderr, code) in [
            ("pod/a-7 in there\n", "warned\n", 1),
            ("pod/a-7 in here\nmore\n", "warned\n", 1),
            ("pod/a-7 in here\n", "", 1),
            ("pod/a-7 in here\n", "warned\n", 0),
        ] {
            step.check(&output(stdout, stderr, code), "here")
                .unwrap_err();
        }
    }
}
