//! Writing a transcript anew: changes with what differs from run to run.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::{Expected, Step};
use crate::output::Output;

/// The text with the answers of some steps replaced by what was said; to be read before it is
/// kept. `said`: by the step's line. `place`: written as `$NS`.
///
/// # Errors
/// When a pattern of what is left out is none.
pub fn with_answers(
    text: &str,
    steps: &[Step],
    said: &BTreeMap<usize, Output>,
    place: &str,
) -> Result<String> {
    let lines: Vec<&str> = text.lines().collect();
    let (mut new, mut at) = (String::new(), 0);
    for step in steps {
        let Some(output) = said.get(&step.line) else {
            continue;
        };
        for line in &lines[at..step.answer.start] {
            new.push_str(line);
            new.push('\n');
        }
        let answer = Expected::of(output).to_string().replace(place, "$NS");
        for line in answer.lines() {
            new.push_str(&settled(line)?);
            new.push('\n');
        }
        // What follows an answer up to the next command: comments.
        let end = step.answer.end;
        let answer = &lines[step.answer.start..end];
        let is_comment = |line: &&&str| line.starts_with('#');
        at = end - answer.iter().rev().take_while(is_comment).count();
    }
    for line in &lines[at..] {
        new.push_str(line);
        new.push('\n');
    }
    Ok(new)
}

/// What is another one each time, and what is kept of it.
const RANDOM: [(&str, &str); 9] = [
    // Times, unique ids, addresses, digests.
    (
        r#""?\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| \+0000)"?"#,
        "*",
    ),
    (r"\b\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000", "*"),
    (r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", "*"),
    (r"\b\d+\.\d+\.\d+\.\d+(:\d+)?\b", "*"),
    (r"\b[0-9a-f]{64}\b", "*"),
    // Generated ends of names.
    (
        r"-[bcdfghjklmnp-tv-xz2-9]{8,10}(-[bcdfghjklmnp-tv-xz2-9]{5})?\b",
        "-*",
    ),
    // Revisions and temporary directories.
    (r#"resourceVersion: "\d+""#, r#"resourceVersion: "*""#),
    (r"/tmp/\.tmp\w+", "*"),
    // Ages in tables.
    (
        r"(?P<before>^|[ (])(\d+[smh])+(?P<after>[ ),]|$)",
        "$before*$after",
    ),
];

/// A line without what is another one each time.
fn settled(line: &str) -> Result<String> {
    let mut line = line.to_owned();
    for (random, kept) in RANDOM {
        let random = regex::Regex::new(random).context("a pattern")?;
        line = random.replace_all(&line, kept).into_owned();
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{settled, with_answers};
    use crate::output::Output;
    use crate::transcript::parse;

    #[test]
    fn answers_are_replaced_and_all_else_is_kept() {
        let text = "# one\n$ a <<E\n> E\nold\n# two\n$ b\nkept\n";
        let steps = parse(text).unwrap();
        let output = Output {
            line: String::new(),
            code: Some(1),
            stdout: "pod/x in here 5s\n".to_owned(),
            stderr: "oh\n".to_owned(),
        };
        let new = with_answers(text, &steps, &BTreeMap::from([(2, output)]), "here").unwrap();
        let expected = "# one\n$ a <<E\n> E\npod/x in $NS *\n! oh\n? 1\n# two\n$ b\nkept\n";
        assert_eq!(new, expected);
    }

    #[test]
    fn ages_addresses_and_made_up_names_become_stars() {
        for (line, expected) in [
            ("a   5s   10.0.0.1   x", "a   *   *   x"),
            ("8s (x2 over 16s) items", "* (x2 over *) items"),
            ("web-6ddd444f4-4vr7k 1/1 3Gi 10m/s", "web-* 1/1 3Gi 10m/s"),
            ("at: \"2026-11-21T16:18:58Z\"", "at: *"),
        ] {
            assert_eq!(settled(line).unwrap(), expected);
        }
    }
}
