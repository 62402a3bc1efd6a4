//! Our keys inside etcd's key space. Pure.

use bytes::Bytes;

/// Our keys inside etcd's.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    /// `<prefix>/`
    data: Bytes,
    /// `<prefix>.progress`
    pub(crate) progress: Vec<u8>,
    prefix: Vec<u8>,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            data: format!("{prefix}/").into(),
            progress: format!("{prefix}.progress").into(),
            prefix: prefix.into(),
        }
    }

    pub(crate) fn theirs(&self, key: &[u8]) -> Vec<u8> {
        [&self.data, key].concat()
    }

    pub(crate) fn ours(&self, key: &Bytes) -> Option<Bytes> {
        key.starts_with(&self.data)
            .then(|| key.slice(self.data.len()..))
    }

    /// Start and end of all keys with this prefix of ours.
    pub(crate) fn range_of(&self, prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let start = self.theirs(prefix);
        let mut end = start.clone();
        // The data prefix ends in '/', so there is always a byte that can be raised.
        while let Some(last) = end.pop() {
            if let Some(raised) = last.checked_add(1) {
                end.push(raised);
                break;
            }
        }
        (start, end)
    }

    /// Start and end of what streams watch: '.' and '/' follow each other.
    pub(crate) fn watched(&self) -> (Vec<u8>, Vec<u8>) {
        let with = |byte: u8| [self.prefix.as_slice(), &[byte]].concat();
        (with(b'.'), with(b'0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_there_and_back_and_ranges_hold_what_they_should() {
        let keys = Keys::new("/a");
        assert_eq!(keys.theirs(b"o/x"), b"/a/o/x");
        assert_eq!(keys.ours(&"/a/o/x".into()), Some("o/x".into()));
        assert_eq!(keys.ours(&"/a.progress".into()), None);
        assert_eq!(keys.range_of(b""), (b"/a/".to_vec(), b"/a0".to_vec()));
        assert_eq!(
            keys.range_of(b"o\xff"),
            (b"/a/o\xff".to_vec(), b"/a/p".to_vec())
        );
        let (start, end) = keys.watched();
        let inside = |key: &[u8]| start.as_slice() <= key && key < end.as_slice();
        assert!(inside(b"/a.progress") && inside(b"/a/o/x"));
        assert!(!inside(b"/a-b/x") && !inside(b"/ab/x"));
    }
}
