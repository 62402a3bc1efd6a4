//! Bytes of an answer as they lie in memory: pieces that other answers share, written one after the
//! other. Nothing is copied before it is encrypted.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Pieces of one frame of an answer; none is empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parts {
    first: Bytes,
    more: VecDeque<Bytes>,
    len: usize,
}

impl Parts {
    /// Adds a piece at the end.
    pub(crate) fn push(&mut self, part: Bytes) {
        if part.is_empty() {
            return;
        }
        self.len += part.len();
        if self.first.is_empty() {
            self.first = part;
        } else {
            self.more.push_back(part);
        }
    }

    /// Number of bytes.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces, in order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// All in one piece; copies when there are several.
    pub(crate) fn into_bytes(mut self) -> Bytes {
        self.copy_to_bytes(self.len)
    }
}

impl From<Bytes> for Parts {
    fn from(bytes: Bytes) -> Self {
        let mut parts = Self::default();
        parts.push(bytes);
        parts
    }
}

impl Buf for Parts {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        &self.first
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let parts = self.pieces().filter(|part| !part.is_empty());
        let mut filled = 0;
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "advanced beyond the end");
        self.len -= count;
        while count >= self.first.len() && count > 0 {
            count -= self.first.len();
            // What is written is let go at once.
            self.first = self.more.pop_front().unwrap_or_default();
        }
        self.first.advance(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        assert!(count <= self.len, "copied beyond the end");
        if count == self.first.len() {
            let whole = self.first.clone();
            self.advance(count);
            return whole;
        }
        let mut copy = Vec::with_capacity(count);
        while copy.len() < count {
            let part = self.chunk();
            let take = part.len().min(count - copy.len());
            copy.extend_from_slice(&part[..take]);
            self.advance(take);
        }
        Bytes::from(copy)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(pieces: &[Vec<u8>]) -> Parts {
        let mut parts = Parts::default();
        for piece in pieces {
            parts.push(Bytes::from(piece.clone()));
        }
        parts
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pieces_read_as_one_text_however_it_is_taken(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..9),
            steps in prop::collection::vec(0..7_usize, 0..12),
        ) {
            let whole = pieces.concat();
            prop_assert_eq!(&parts(&pieces).into_bytes()[..], &whole[..]);
            let mut left = parts(&pieces);
            let mut at = 0;
            for step in steps {
                prop_assert_eq!(left.remaining(), whole.len() - at);
                prop_assert_eq!(left.chunk().is_empty(), left.is_empty());
                let mut slices = [IoSlice::new(&[]); 16];
                let filled = left.chunks_vectored(&mut slices);
                let seen: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
                prop_assert_eq!(&seen[..], &whole[at..]);
                let step = step.min(left.remaining());
                if step % 2 == 0 {
                    left.advance(step);
                } else {
                    prop_assert_eq!(&left.copy_to_bytes(step)[..], &whole[at..at + step]);
                }
                at += step;
            }
        }
    }
}
