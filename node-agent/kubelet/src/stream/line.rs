//! Lines of a container's log file: `<time> <stream> <P|F> <content>`. Pure.

use jiff::Timestamp;

/// One entry; a long line of the program is cut into partial entries and a last full one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) time: &'a str,
    /// `stdout` or `stderr`.
    pub(super) stream: &'a str,
    pub(super) is_full: bool,
    /// Without the line's end.
    pub(super) content: &'a [u8],
}

impl Entry<'_> {
    pub(super) fn is_before(&self, since: Timestamp) -> bool {
        self.time
            .parse::<Timestamp>()
            .is_ok_and(|time| time < since)
    }
}

/// Reads one line; `None` for one that is not in the format.
pub(super) fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tag = parts.next()?;
    let content = parts.next().unwrap_or_default();
    if !matches!(stream, "stdout" | "stderr") {
        return None;
    }
    let is_full = !tag.split(|byte| *byte == b':').any(|part| part == b"P");
    Some(Entry {
        time,
        stream,
        is_full,
        content,
    })
}

/// Where the last `lines` lines of `data` begin.
pub(super) fn tail_start(data: &[u8], lines: usize) -> usize {
    if lines == 0 {
        return data.len();
    }
    let end = data.len() - usize::from(data.last() == Some(&b'\n'));
    let mut left = lines;
    for (index, byte) in data[..end].iter().enumerate().rev() {
        if *byte == b'\n' {
            left -= 1;
            if left == 0 {
                return index + 1;
            }
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_with_their_tags() {
        let entry = parse(b"2026-01-31T12:00:00.5Z stdout F hello  world\n").unwrap();
        assert_eq!(
            (entry.stream, entry.is_full, entry.content),
            ("stdout", true, &b"hello  world"[..])
        );
        assert!(
            !parse(b"2026-01-31T12:00:00Z stderr P part\n")
                .unwrap()
                .is_full
        );
        assert_eq!(
            parse(b"2026-01-31T12:00:00Z stderr F \n").unwrap().content,
            b""
        );
        assert_eq!(parse(b"nonsense\n"), None);
        assert_eq!(parse(b"a b c d\n"), None);
        let since: Timestamp = "2026-01-31T12:00:00.6Z".parse().unwrap();
        assert!(entry.is_before(since));
    }

    #[test]
    fn the_tail_begins_at_the_last_lines() {
        let data = b"1\n2\n3\n";
        let tail = |lines| &data[tail_start(data, lines)..];
        assert_eq!(tail(0), b"");
        assert_eq!(tail(1), b"3\n");
        assert_eq!(tail(2), b"2\n3\n");
        assert_eq!(tail(3), b"1\n2\n3\n");
        assert_eq!(tail(9), b"1\n2\n3\n");
        assert_eq!(&b"1\n2"[tail_start(b"1\n2", 1)..], b"2");
    }
}
