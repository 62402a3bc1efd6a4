//! The check of the whole log at start: rebuilds the index and proves that nothing is missing.

use bytes::Bytes;

use crate::embedded::index::{Index, Slot};
use crate::embedded::log::Recovered;
use crate::embedded::record::{Mark, Place, Record, RecordFault};
use crate::model::Rev;

/// The state of a scan: rebuilds the index and checks that nothing is missing.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    index: Index,
    mark: Option<Mark>,
    /// The commit that is being read: its last place, its number of changes, its live keys.
    run: Option<(Place, u16, u64)>,
    /// Records up to the mark that no key needs.
    stale: Vec<Place>,
}

/// Where, and what is wrong.
pub(crate) type ScanFault = (String, String);

impl Scan {
    pub(crate) fn at(&self) -> String {
        self.run.map_or_else(
            || "the first".to_owned(),
            |(place, ..)| format!("after {place}"),
        )
    }

    pub(crate) fn take(&mut self, key: &[u8], value: &Bytes) -> Result<(), ScanFault> {
        let place = Place::decode(key).ok_or_else(|| {
            (
                format!("{key:02x?}"),
                "its place has a wrong length".to_owned(),
            )
        })?;
        let fault = |fault: RecordFault| (place.to_string(), fault.to_string());
        if place == Place::MARK {
            self.mark = Some(Mark::decode(value).map_err(fault)?);
            return Ok(());
        }
        let record = Record::decode(place, value).map_err(fault)?;
        self.check_place(place, &record)?;
        self.run = Some((place, record.count, record.live));
        let compacted = self.compacted();
        let before = match &record.value {
            Some(_) => {
                let slot = Slot {
                    place,
                    deadline_ms: record.deadline_ms,
                };
                self.index.insert(Bytes::copy_from_slice(&record.key), slot)
            }
            None => {
                if place.rev <= compacted {
                    self.stale.push(place);
                }
                self.index.remove(&record.key)
            }
        };
        if let Some(before) = before.filter(|before| before.place.rev <= compacted) {
            self.stale.push(before.place);
        }
        Ok(())
    }

    fn compacted(&self) -> Rev {
        self.mark.map_or(Rev::FIRST, |mark| mark.compacted)
    }

    /// After the mark, revisions and the changes within each must follow without a gap.
    fn check_place(&self, place: Place, record: &Record) -> Result<(), ScanFault> {
        if place.rev <= self.compacted() {
            return Ok(());
        }
        let within = self.run.filter(|(last, ..)| last.rev == place.rev);
        let complete = match within {
            Some((last, count, _)) => place.index == last.index + 1 && record.count == count,
            None => {
                self.check_run_end()?;
                let last = self
                    .run
                    .map_or(Rev(0), |(last, ..)| last.rev)
                    .max(self.compacted());
                place.rev == last.next() && place.index == 0
            }
        };
        if complete {
            return Ok(());
        }
        Err((
            place.to_string(),
            "records before it are missing".to_owned(),
        ))
    }

    fn check_run_end(&self) -> Result<(), ScanFault> {
        match self.run {
            Some((last, count, _))
                if last.rev > self.compacted() && last.index.checked_add(1) != Some(count) =>
            {
                Err((
                    last.to_string(),
                    format!("its commit has {count} records, this is the last"),
                ))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn finish(mut self) -> Result<(Recovered, Vec<Place>), ScanFault> {
        self.check_run_end()?;
        let compacted = self.compacted();
        let last = self.run.filter(|(last, ..)| last.rev > compacted);
        let live = last
            .map(|(.., live)| live)
            .or(self.mark.map(|mark| mark.live))
            .unwrap_or(0);
        if self.index.len() != live {
            let at = format!("up to {}", last.map_or(compacted, |(last, ..)| last.rev));
            return Err((at, format!("{} keys are left of {live}", self.index.len())));
        }
        self.stale.sort_unstable();
        let rev = last.map_or(compacted, |(last, ..)| last.rev);
        Ok((
            Recovered {
                index: self.index,
                rev,
                compacted,
            },
            self.stale,
        ))
    }
}
