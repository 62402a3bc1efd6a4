//! The end of the engine's journal after a power loss: changes with the journal's format.
//!
//! A batch that was being written when the power failed may be there in part, and its parts in any
//! mixture. The engine takes a beginning without an end for a torn batch and drops it, but a whole batch
//! with holes for damage, and refuses to start. Since every batch of ours is synced before the next one is
//! written, only the last can be like that, and nobody was told of it: it is cut off here, before
//! the engine looks. A batch that is followed by a whole one was damaged later: that is left as it is, for
//! the engine to report.
//!
//! ```text
//! batch  1 | items u32 | number u64 , item.. , 3 | xxh3 of the items u64 | "FJL\3"
//! item   2 | type | compression | keyspace u64 | key u16 | value u32 | stored u32 | key | value
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const TRAILER: [u8; 4] = [b'F', b'J', b'L', 3];
/// Bytes of an item before its key.
const ITEM_HEAD: usize = 20;
/// Bytes that are looked at together.
const CHUNK: usize = 64 << 10;
const CHUNK_U64: u64 = 64 << 10;
/// Where the part that is cut off is kept, for whoever wants to look.
const CUT: &str = "cut";

/// Cuts the unreadable end off the newest journal in `db`, if it has one. What was cut is kept in a file
/// beside `db`. Returns how many bytes these were.
pub(crate) fn cut_torn_end(db: &Path) -> io::Result<u64> {
    let Some(path) = newest(db)? else {
        return Ok(0);
    };
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    let len = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(CHUNK, file);
    let (mut whole, mut number) = (0, 0);
    // The checksum does not cover the number, but numbers only rise.
    while let Some(batch) = batch_at(&mut reader, whole, len)?
        && (whole == 0 || batch.number > number)
    {
        (whole, number) = (batch.end, batch.number);
    }
    let Some(last) = last_written(&mut reader, whole, len)? else {
        return Ok(0);
    };
    if is_whole_batch_behind(&mut reader, whole, len, number)? {
        return Ok(0);
    }
    keep(&mut reader, whole, last, &db.with_file_name(CUT))?;
    let file = reader.into_inner();
    file.set_len(whole)?;
    file.sync_all()?;
    let cut = last - whole;
    tracing::warn!(
        journal = %path.display(), at = whole, bytes = cut,
        "a commit that was being written when the machine stopped was cut off"
    );
    Ok(cut)
}

/// The journal that the engine goes on writing.
fn newest(db: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(db)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str());
        let number = number.and_then(|name| name.strip_suffix(".jnl")?.parse().ok());
        if let Some(number) = number
            && newest.as_ref().is_none_or(|(before, _)| number > *before)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

struct Batch {
    end: u64,
    number: u64,
}

/// The whole batch that begins at `at`, if there is one.
fn batch_at(reader: &mut BufReader<File>, at: u64, len: u64) -> io::Result<Option<Batch>> {
    let here = reader.stream_position()?;
    // Within the buffer where possible; places are far below the sign.
    reader.seek_relative(at.cast_signed().wrapping_sub(here.cast_signed()))?;
    match read_batch(reader, len.saturating_sub(at)) {
        Ok(batch) => Ok(batch.map(|(bytes, number)| Batch {
            end: at + bytes,
            number,
        })),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Its length and number. `left`: bytes up to the end of the file.
fn read_batch(reader: &mut impl Read, left: u64) -> io::Result<Option<(u64, u64)>> {
    let (tag, items, number) = (byte(reader)?, array(reader)?, array(reader)?);
    if tag != START {
        return Ok(None);
    }
    let mut bytes = 13;
    let mut sum = Xxh3::new();
    for _ in 0..u32::from_le_bytes(items) {
        let Some(item) = read_item(reader, &mut sum, left.saturating_sub(bytes))? else {
            return Ok(None);
        };
        bytes += item;
    }
    let (tag, expected, trailer) = (byte(reader)?, array(reader)?, array(reader)?);
    let is_whole = tag == END && trailer == TRAILER && u64::from_le_bytes(expected) == sum.digest();
    Ok(is_whole.then_some((bytes + 13, u64::from_le_bytes(number))))
}

fn read_item(reader: &mut impl Read, sum: &mut Xxh3, left: u64) -> io::Result<Option<u64>> {
    let tag = byte(reader)?;
    if tag != ITEM {
        return Ok(None);
    }
    let head: [u8; ITEM_HEAD] = array(reader)?;
    let [.., k0, k1, _, _, _, _, s0, s1, s2, s3] = head;
    let body =
        u64::from(u16::from_le_bytes([k0, k1])) + u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
    if body > left {
        return Ok(None);
    }
    sum.update(&[tag]);
    sum.update(&head);
    let mut body_left = usize::try_from(body).unwrap_or(usize::MAX);
    let mut piece = [0; 1024];
    while body_left > 0 {
        let now = body_left.min(piece.len());
        reader.read_exact(&mut piece[..now])?;
        sum.update(&piece[..now]);
        body_left -= now;
    }
    Ok(Some(body + 21))
}

fn byte(reader: &mut impl Read) -> io::Result<u8> {
    array::<1>(reader).map(|[byte]| byte)
}

fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Calls `look` with each piece that is not only zeros, until it answers.
fn pieces<T>(
    reader: &mut BufReader<File>,
    from: u64,
    len: u64,
    mut look: impl FnMut(u64, &[u8]) -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let zeros = vec![0; CHUNK];
    let mut piece = vec![0; CHUNK];
    let mut at = from;
    while at < len {
        let now = usize::try_from((len - at).min(CHUNK_U64)).unwrap_or(CHUNK);
        reader.seek(SeekFrom::Start(at))?;
        reader.read_exact(&mut piece[..now])?;
        if piece[..now] != zeros[..now]
            && let Some(found) = look(at, &piece[..now])?
        {
            return Ok(Some(found));
        }
        at += CHUNK_U64;
    }
    Ok(None)
}

/// Behind the last byte that is not zero. `None`: there is none, the file was only made larger in
/// advance.
fn last_written(reader: &mut BufReader<File>, from: u64, len: u64) -> io::Result<Option<u64>> {
    let mut last = None;
    pieces::<()>(reader, from, len, |at, piece| {
        let end = piece.iter().rposition(|byte| *byte != 0);
        last = end.and_then(|end| Some(at + u64::try_from(end).ok()? + 1));
        Ok(None)
    })?;
    Ok(last)
}

/// Whether a whole batch with a higher number begins somewhere behind `from`.
fn is_whole_batch_behind(
    reader: &mut BufReader<File>,
    from: u64,
    len: u64,
    number: u64,
) -> io::Result<bool> {
    let mut places = Vec::new();
    pieces::<()>(reader, from, len, |at, piece| {
        let starts = piece.iter().zip(at..).filter(|(byte, _)| **byte == START);
        places.extend(starts.map(|(_, place)| place));
        Ok(None)
    })?;
    for place in places {
        if let Some(batch) = batch_at(reader, place, len)?
            && batch.number > number
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn keep(reader: &mut BufReader<File>, from: u64, to: u64, path: &Path) -> io::Result<()> {
    reader.seek(SeekFrom::Start(from))?;
    let mut kept = File::create(path)?;
    io::copy(&mut reader.by_ref().take(to - from), &mut kept)?;
    kept.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(number: u64, values: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![START];
        bytes.extend(u32::try_from(values.len()).unwrap().to_le_bytes());
        bytes.extend(number.to_le_bytes());
        let mut items = Vec::new();
        for value in values {
            items.extend([ITEM, 0, 0]);
            items.extend(7u64.to_le_bytes());
            items.extend(3u16.to_le_bytes());
            let len = u32::try_from(value.len()).unwrap().to_le_bytes();
            items.extend(len);
            items.extend(len);
            items.extend(b"key");
            items.extend(*value);
        }
        let mut sum = Xxh3::new();
        sum.update(&items);
        bytes.extend(items);
        bytes.push(END);
        bytes.extend(sum.digest().to_le_bytes());
        bytes.extend(TRAILER);
        bytes
    }

    /// The journal after the cut, and what was kept of it.
    fn cut(journal: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
        let temp = tempfile::tempdir().unwrap();
        let db = temp.path().join("db");
        fs::create_dir(&db).unwrap();
        fs::write(db.join("9.jnl"), b"older, not looked at").unwrap();
        fs::write(db.join("10.jnl"), journal).unwrap();
        cut_torn_end(&db).unwrap();
        let kept = fs::read(temp.path().join(CUT)).ok();
        (fs::read(db.join("10.jnl")).unwrap(), kept)
    }

    #[test]
    fn a_batch_with_any_byte_wrong_is_cut_off_when_it_is_the_last() {
        let first = batch(1, &[b"one", b"two"]);
        let last = batch(2, &[&[9; 3000]]);
        let mut both = [first.clone(), last.clone()].concat();
        both.resize(both.len() + 70_000, 0);
        assert_eq!(cut(&both), (both.clone(), None));
        let numbers = 5..13;
        for at in (0..last.len()).filter(|at| !numbers.contains(at) && at % 41 < 2) {
            let mut broken = both.clone();
            broken[first.len() + at] ^= 0x40;
            let (left, kept) = cut(&broken);
            assert_eq!(left, first, "byte {at}");
            assert!(kept.is_some_and(|kept| broken[first.len()..].starts_with(&kept)));
        }
        for len in (1..last.len()).step_by(29) {
            let broken = &both[..first.len() + len];
            assert_eq!(cut(broken).0, first, "{len} bytes");
        }
    }

    #[test]
    fn a_batch_that_another_one_follows_is_left_for_the_engine_to_report() {
        let batches = [
            batch(1, &[b"one"]),
            batch(2, &[&[9; 300]]),
            batch(3, &[b"x"]),
        ];
        let mut journal = batches.concat();
        journal[batches[0].len() + 100] ^= 1;
        assert_eq!(cut(&journal), (journal.clone(), None));
        // A piece of an older journal is no batch that follows.
        let mut journal = [
            batch(5, &[b"one"]),
            batch(6, &[&[9; 300]]),
            batch(3, &[b"x"]),
        ]
        .concat();
        let first = batch(5, &[b"one"]).len();
        journal[first + 100] ^= 1;
        assert_eq!(cut(&journal).0.len(), first);
    }

    #[test]
    fn an_absurd_length_is_not_believed() {
        let first = batch(1, &[b"one"]);
        let mut torn = [first.clone(), batch(2, &[b"two"])].concat();
        let stored = first.len() + 13 + 17;
        torn[stored..stored + 4].fill(0xff);
        assert_eq!(cut(&torn).0, first);
        assert_eq!(cut(&[]), (Vec::new(), None));
    }
}
