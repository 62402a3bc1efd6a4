//! The bytes of a file, in pages that copies share: changes when files are kept otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What a disk writes at once, and the unit in which room is counted.
pub const PAGE: usize = 4096;
const PAGE_U64: u64 = 4096;

/// The bytes of a file. Pages that were never written take no room and read as zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

/// Number of the page with this byte, and the byte's place in it.
fn place(offset: u64) -> (u64, usize) {
    let within = usize::try_from(offset % PAGE_U64).unwrap_or_default();
    (offset / PAGE_U64, within)
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

impl Sparse {
    /// Its length.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many pages it takes.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// How many more pages a write would take.
    pub(crate) fn pages_for(&self, offset: u64, len: usize) -> usize {
        if len == 0 {
            return 0;
        }
        let (first, last) = (place(offset).0, place(offset + wide(len) - 1).0);
        (first..=last)
            .filter(|number| !self.pages.contains_key(number))
            .count()
    }

    /// The pieces that hold data, with their places, none beyond the end.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pages.iter().filter_map(|(number, page)| {
            let start = number * PAGE_U64;
            let left = self.len.checked_sub(start).filter(|left| *left > 0)?;
            let end = usize::try_from(left).unwrap_or(PAGE).min(PAGE);
            Some((start, &page[..end]))
        })
    }

    /// Writes, and grows if need be.
    pub(crate) fn write(&mut self, offset: u64, mut data: &[u8]) {
        self.len = self.len.max(offset + wide(data.len()));
        let mut at = offset;
        while !data.is_empty() {
            let (number, within) = place(at);
            let (now, rest) = data.split_at(data.len().min(PAGE - within));
            let page = self
                .pages
                .entry(number)
                .or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + now.len()].copy_from_slice(now);
            at += wide(now.len());
            data = rest;
        }
    }

    /// Reads at most so many bytes; fewer at the end.
    #[must_use]
    pub fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size.min(left)];
        let mut done = 0;
        while done < bytes.len() {
            let (number, within) = place(offset + wide(done));
            let now = (PAGE - within).min(bytes.len() - done);
            if let Some(page) = self.pages.get(&number) {
                bytes[done..done + now].copy_from_slice(&page[within..within + now]);
            }
            done += now;
        }
        bytes
    }

    /// Cuts or grows; what is cut is zero when the file grows again.
    pub(crate) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (number, within) = place(len);
            let gone = if within == 0 { number } else { number + 1 };
            drop(self.pages.split_off(&gone));
            if let Some(page) = self.pages.get_mut(&number) {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_where_they_were_written_and_zero_elsewhere() {
        let mut file = Sparse::default();
        file.write(PAGE_U64 - 2, b"abcd");
        file.write(3 * PAGE_U64, b"e");
        assert_eq!((file.len(), file.pages()), (3 * PAGE_U64 + 1, 3));
        assert_eq!(file.read(PAGE_U64 - 3, 6), b"\0abcd\0");
        assert_eq!(file.read(3 * PAGE_U64, 10), b"e");
        assert_eq!(file.read(9 * PAGE_U64, 10), b"");
        assert_eq!(file.pages_for(0, 2 * PAGE), 0);
        assert_eq!(file.pages_for(PAGE_U64, 2 * PAGE + 1), 1);
    }

    #[test]
    fn what_was_cut_does_not_come_back() {
        let mut file = Sparse::default();
        file.write(0, &[7; 2 * PAGE]);
        file.set_len(PAGE_U64 + 1);
        file.set_len(2 * PAGE_U64);
        assert_eq!(file.read(PAGE_U64, 3), [7, 0, 0]);
        file.set_len(0);
        assert_eq!((file.pages(), file.is_empty()), (0, true));
        assert!(file.pieces().next().is_none());
    }
}
