//! What a start does with a damaged log.

use bytes::Bytes;

use crate::embedded::dir::DataDir;
use crate::embedded::log::Log;
use crate::embedded::log::scan::Scan;
use crate::embedded::record::{Mark, Place, Record};
use crate::error::OpenError;
use crate::model::Rev;

fn place(rev: u64, index: u16) -> Place {
    Place {
        rev: Rev(rev),
        index,
    }
}

fn put(rev: u64, index: u16, count: u16, live: u64, key: &'static str) -> (Place, Bytes) {
    let value = Some(Bytes::from_static(b"value"));
    let record = Record {
        count,
        live,
        deadline_ms: None,
        key: key.into(),
        value,
    };
    (place(rev, index), record.encode(place(rev, index)))
}

fn delete(rev: u64, live: u64, key: &'static str) -> (Place, Bytes) {
    let record = Record {
        count: 1,
        live,
        deadline_ms: None,
        key: key.into(),
        value: None,
    };
    (place(rev, 0), record.encode(place(rev, 0)))
}

fn mark(compacted: u64, live: u64) -> (Place, Bytes) {
    let mark = Mark {
        compacted: Rev(compacted),
        live,
    };
    (Place::MARK, Bytes::copy_from_slice(&mark.encode()))
}

/// Revision, compaction and stale places of a log, or where it is corrupt and how.
fn scan(records: &[(Place, Bytes)]) -> Result<(u64, u64, u64, String), String> {
    let mut scan = Scan::default();
    for (place, bytes) in records {
        scan.take(&place.encode(), bytes)
            .map_err(|(at, fault)| format!("{at}: {fault}"))?;
    }
    let (found, stale) = scan
        .finish()
        .map_err(|(at, fault)| format!("{at}: {fault}"))?;
    let stale: Vec<_> = stale.iter().map(Place::to_string).collect();
    Ok((
        found.rev.0,
        found.compacted.0,
        found.index.len(),
        stale.join(" "),
    ))
}

#[test]
fn a_whole_log_gives_its_revision_and_its_keys() {
    assert_eq!(scan(&[]), Ok((1, 1, 0, String::new())));
    let log = [
        put(2, 0, 2, 2, "a"),
        put(2, 1, 2, 2, "b"),
        delete(3, 1, "a"),
        put(4, 0, 1, 1, "b"),
    ];
    assert_eq!(scan(&log), Ok((4, 1, 1, String::new())));
}

#[test]
fn a_compacted_log_keeps_its_revision_and_shows_what_is_left_to_remove() {
    let log = [mark(9, 1), put(3, 0, 1, 1, "a")];
    assert_eq!(
        scan(&log),
        Ok((9, 9, 1, String::new())),
        "the last commits were deletes"
    );
    let log = [
        mark(4, 1),
        put(2, 0, 1, 1, "a"),
        delete(3, 0, "a"),
        put(4, 0, 1, 1, "b"),
    ];
    assert_eq!(
        scan(&log),
        Ok((4, 4, 1, "2.0 3.0".to_owned())),
        "a stop within a compaction"
    );
    let log = [
        mark(3, 2),
        put(2, 0, 1, 1, "a"),
        put(3, 0, 1, 2, "b"),
        put(4, 0, 1, 2, "a"),
    ];
    assert_eq!(scan(&log), Ok((4, 3, 2, "2.0".to_owned())));
}

#[test]
fn a_missing_record_is_found_wherever_it_was() {
    let whole = [
        put(2, 0, 2, 2, "a"),
        put(2, 1, 2, 2, "b"),
        put(3, 0, 1, 3, "c"),
        put(4, 0, 3, 6, "d"),
        put(4, 1, 3, 6, "e"),
        put(4, 2, 3, 6, "f"),
    ];
    assert_eq!(scan(&whole), Ok((4, 1, 6, String::new())));
    for missing in 0..whole.len() {
        let mut log = whole.to_vec();
        log.remove(missing);
        let fault = scan(&log).unwrap_err();
        assert!(
            fault.contains("missing") || fault.contains("this is the last"),
            "{fault}"
        );
    }
    let log = [mark(5, 2), put(2, 0, 1, 1, "a")];
    assert_eq!(scan(&log), Err("up to 5: 1 keys are left of 2".to_owned()));
    let log = [mark(5, 1), put(7, 0, 1, 1, "a")];
    assert_eq!(
        scan(&log),
        Err("7.0: records before it are missing".to_owned())
    );
}

#[test]
fn a_changed_record_is_named() {
    let mut log = [put(2, 0, 1, 1, "a"), put(3, 0, 1, 2, "b")];
    log[1].1 = log[0].1.clone();
    assert_eq!(
        scan(&log),
        Err("3.0: its checksum does not fit its bytes".to_owned())
    );
}

#[test]
fn a_log_that_ends_before_the_acknowledged_head_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let log = Log::open(&dir).unwrap();
    log.append(vec![put(2, 0, 1, 1, "a")], &[]).unwrap();
    assert_eq!(log.recover(Rev(2)).unwrap().rev, Rev(2));
    let error = log.recover(Rev(3)).unwrap_err();
    assert!(
        matches!(&error, OpenError::Corrupt { record, .. } if record == "2"),
        "{error}"
    );
}
