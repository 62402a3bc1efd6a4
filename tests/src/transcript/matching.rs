//! Whether a text is the one expected: changes with what stands for what.

/// Any number of lines, also none.
const ANY_LINES: &str = "...";

/// Whether the lines of `text` are those of `wanted`, whose `*` and `...` stand for anything. If
/// not: the first line of `text` that is not.
pub(super) fn compare<'a>(wanted: &[String], text: &'a str) -> Result<(), &'a str> {
    let said: Vec<&str> = text.lines().collect();
    // Which lines of `said` may come next, after the lines of `wanted` so far.
    let mut next = vec![false; said.len() + 1];
    next[0] = true;
    let mut furthest = 0;
    for wanted in wanted {
        next = step(wanted, &said, &next);
        let last = next.iter().rposition(|may| *may);
        furthest = furthest.max(last.unwrap_or_default());
    }
    if next.last() == Some(&true) {
        return Ok(());
    }
    Err(said
        .get(furthest)
        .copied()
        .unwrap_or("(there should be more)"))
}

fn step(wanted: &str, said: &[&str], before: &[bool]) -> Vec<bool> {
    let mut after = vec![false; before.len()];
    if wanted.trim() == ANY_LINES {
        let from = before.iter().position(|may| *may).unwrap_or(before.len());
        after[from..].fill(true);
        return after;
    }
    for (at, line) in said.iter().enumerate() {
        after[at + 1] = before[at] && matches(&squeezed(wanted), &squeezed(line));
    }
    after
}

/// A line without what depends on the longest entry of a table: two or more spaces after the first
/// word become two, and none are left at the end.
fn squeezed(line: &str) -> String {
    let line = line.trim_end();
    let text = line.trim_start_matches(' ');
    let mut new = " ".repeat(line.len() - line.trim_start_matches(' ').len());
    let mut spaces = 0;
    for c in text.chars() {
        spaces = if c == ' ' { spaces + 1 } else { 0 };
        if spaces <= 2 {
            new.push(c);
        }
    }
    new
}

/// `*` in `wanted` stands for any characters.
fn matches(wanted: &str, line: &str) -> bool {
    let mut parts = wanted.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::{compare, matches, squeezed};

    #[test]
    fn columns_may_be_wider() {
        for (line, expected) in [
            ("NAME     AGE   ", "NAME  AGE"),
            ("  a: b c", "  a: b c"),
            ("   ", ""),
        ] {
            assert_eq!(squeezed(line), expected);
        }
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (wanted, line, expected) in [
            ("", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("*b", "a b", true),
        ] {
            assert_eq!(matches(wanted, line), expected, "{wanted:?} {line:?}");
        }
    }

    #[test]
    fn the_line_that_is_wrong_is_named() {
        let wanted = ["a*".to_owned(), "...".to_owned(), "c".to_owned()];
        assert_eq!(compare(&wanted[..1], "b\n"), Err("b"));
        assert_eq!(compare(&wanted[..1], "ab\nc\n"), Err("c"));
        assert_eq!(compare(&wanted, "ab\n"), Err("(there should be more)"));
    }

    #[test]
    fn three_points_stand_for_any_lines() {
        let owned = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        for (wanted, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("...", "", true),
            ("a ... b", "a\nb\n", true),
            ("a ... b", "a\nx\nb\ny\nb\n", true),
            ("a ... b", "a\nb\nc\n", false),
            ("... b ...", "a\nb\nc\n", true),
            ("a b", "a\n\nb\n", false),
        ] {
            assert_eq!(
                compare(&owned(wanted), text).is_ok(),
                expected,
                "{wanted} {text:?}"
            );
        }
    }
}
