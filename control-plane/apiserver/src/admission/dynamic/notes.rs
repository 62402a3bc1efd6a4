//! What admission says of a request beside yes and no: warnings for the client, annotations for the
//! audit log.

use parking_lot::Mutex;

/// Longer warnings are cut (as upstream).
const WARNING_CHARS_MAX: usize = 256;
/// More bytes of warnings are not told (as upstream).
const WARNINGS_BYTES_MAX: usize = 4096;

/// From which audit level on an annotation is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteLevel {
    /// In every event.
    Metadata,
    /// In events that show the request's body.
    Request,
}

/// What was said of one request. A write that is tried again says the same things once.
#[derive(Debug, Default)]
pub struct Notes {
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    warnings: Vec<String>,
    annotations: Vec<(NoteLevel, String, String)>,
}

impl Notes {
    /// Tells the client.
    pub fn warn(&self, text: &str) {
        let text: String = text.chars().take(WARNING_CHARS_MAX).collect();
        let mut said = self.said.lock();
        let bytes: usize = said.warnings.iter().map(String::len).sum();
        if !said.warnings.contains(&text) && bytes + text.len() <= WARNINGS_BYTES_MAX {
            said.warnings.push(text);
        }
    }

    /// Tells the audit log; a key that is there already keeps its value.
    pub fn annotate(&self, level: NoteLevel, key: &str, value: &str) {
        let mut said = self.said.lock();
        if !said.annotations.iter().any(|(_, own, _)| own == key) {
            let note = (level, key.to_owned(), value.to_owned());
            said.annotations.push(note);
        }
    }

    /// The warnings so far.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.said.lock().warnings.clone()
    }

    /// The annotations so far: level, key, value.
    #[must_use]
    pub fn annotations(&self) -> Vec<(NoteLevel, String, String)> {
        self.said.lock().annotations.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_kept_once_and_within_bounds() {
        let notes = Notes::default();
        notes.warn("a");
        notes.warn("a");
        notes.warn(&"b".repeat(1000));
        assert_eq!(notes.warnings(), ["a".to_owned(), "b".repeat(256)]);
        for n in 0..100 {
            notes.warn(&format!("{n:0200}"));
        }
        let bytes: usize = notes.warnings().iter().map(String::len).sum();
        assert!(bytes <= WARNINGS_BYTES_MAX, "{bytes}");
        notes.annotate(NoteLevel::Metadata, "k", "1");
        notes.annotate(NoteLevel::Request, "k", "2");
        assert_eq!(
            notes.annotations(),
            [(NoteLevel::Metadata, "k".to_owned(), "1".to_owned())]
        );
    }
}
