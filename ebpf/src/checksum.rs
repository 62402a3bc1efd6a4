// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The Internet checksum, in full and by difference (RFC 1071, RFC 1624).
//!
//! Sums are over 16-bit words in the order of the host, as the kernel keeps them: the one's
//! complement sum does not mind the order as long as all words share it (RFC 1071, 2 B).

/// Reduces a sum to 16 bits, carries added back.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    #[expect(clippy::cast_possible_truncation, reason = "two folds leave 16 bits")]
    let folded = twice as u16;
    folded
}

/// The difference to add to a checksum's sum when the words `old` become `new` at an even offset.
///
/// The result is what `bpf_l3_csum_replace` and `bpf_l4_csum_replace` take as `to` with `from` 0
/// and size 0.
#[inline(always)]
pub fn diff<const N: usize>(old: &[u32; N], new: &[u32; N]) -> u32 {
    const { assert!(N <= 1024) }
    let mut sum = 0u64;
    let mut i = 0;
    while i < N {
        sum += u64::from(!old[i]);
        sum += u64::from(new[i]);
        i += 1;
    }
    fold_words(sum)
}

/// [`diff`] of one 16-bit word.
#[inline(always)]
pub const fn diff16(old: u16, new: u16) -> u32 {
    !old as u32 + new as u32
}

/// Reduces a sum of fewer than 2^32 words to one word, carries added back.
#[inline(always)]
const fn fold_words(sum: u64) -> u32 {
    let once = (sum & 0xffff_ffff) + (sum >> 32);
    let twice = (once & 0xffff_ffff) + (once >> 32);
    #[expect(clippy::cast_possible_truncation, reason = "two folds leave 32 bits")]
    let folded = twice as u32;
    folded
}

/// Adds two differences.
#[inline(always)]
pub const fn add(a: u32, b: u32) -> u32 {
    fold(a) as u32 + fold(b) as u32
}

/// A checksum field after a change by `diff` (RFC 1624, equation 3).
#[inline(always)]
pub fn update(check: [u8; 2], diff: u32) -> [u8; 2] {
    bytes(!fold(add(u32::from(!word(check)), diff)))
}

/// The checksum over `data`, starting from the sum `seed`; an odd last byte counts as padded.
pub fn full(data: &[u8], seed: u32) -> [u8; 2] {
    let sum = data.chunks(2).fold(u32::from(fold(seed)), |sum, pair| {
        let pair = [pair[0], pair.get(1).copied().unwrap_or(0)];
        u32::from(fold(sum + u32::from(word(pair))))
    });
    bytes(!fold(sum))
}

#[inline(always)]
#[expect(
    clippy::host_endian_bytes,
    reason = "the kernel sums words in the order of the host"
)]
fn word(bytes: [u8; 2]) -> u16 {
    u16::from_ne_bytes(bytes)
}

#[inline(always)]
#[expect(
    clippy::host_endian_bytes,
    reason = "the kernel sums words in the order of the host"
)]
fn bytes(word: u16) -> [u8; 2] {
    word.to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::words;

    #[test]
    fn the_example_of_rfc_1071_sums_up() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        let sum = !u16::from_be_bytes(full(&data, 0));
        assert_eq!(sum, 0xddf2);
    }

    #[test]
    fn data_with_its_checksum_sums_to_zero() {
        let mut data = *b"\x45\0\0\x54\0\0\x40\0\x40\x01\0\0\x0a\0\0\x01\x0a\0\0\x02";
        let check = full(&data, 0);
        data[10..12].copy_from_slice(&check);
        assert_eq!(full(&data, 0), [0, 0]);
    }

    proptest! {
        #[test]
        fn an_update_by_difference_equals_the_full_sum(
            mut data in prop::array::uniform32(any::<u8>()),
            new in prop::array::uniform16(any::<u8>()),
            new_port in prop::array::uniform2(any::<u8>()),
            at in (0usize..=8).prop_map(|i| i * 2),
        ) {
            let before = full(&data, 0);
            let mut old = [0; 16];
            old.copy_from_slice(&data[at..at + 16]);
            data[at..at + 16].copy_from_slice(&new);
            let old_port = [data[30], data[31]];
            data[30..32].copy_from_slice(&new_port);
            let addrs = diff(&words::from_bytes(old), &words::from_bytes(new));
            let ports = diff16(words::port(old_port), words::port(new_port));
            let by_difference = update(before, add(addrs, ports));
            // 0x0000 and 0xffff are the same number in one's complement.
            let value = |check| u16::from_be_bytes(check) % 0xffff;
            prop_assert_eq!(value(by_difference), value(full(&data, 0)));
        }

        #[test]
        fn a_difference_taken_back_leaves_the_checksum(
            check in any::<[u8; 2]>(), old in any::<u32>(), new in any::<u32>(),
        ) {
            let there = update(check, diff(&[old], &[new]));
            let back = update(there, diff(&[new], &[old]));
            let value = |check| u16::from_be_bytes(check) % 0xffff;
            prop_assert_eq!(value(back), value(check));
        }
    }
}
