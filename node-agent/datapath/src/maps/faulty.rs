//! Any maps, with failures: refused calls, calls that failed after taking effect, batches that
//! stopped in the middle, slow calls, and a crash after a given number of writes.
//!
//! Failures follow from the seed alone, so a failing run can be repeated.

use std::time::Duration;

use ebpf_abi::frontend::Frontend;
use ebpf_abi::map::{BE, FE4, META, SLOT, SVC};
use ebpf_abi::meta::Meta;
use ebpf_abi::service::{Backend, BackendLoad, Head, Service, Slot};

use super::{FrontendKey, HeadKind, Limits, MapError, ReadServiceMaps, ServiceMaps};

/// How writes fail. Reads do not: the real ones are loads from shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Equal seeds give equal failures for equal calls.
    pub seed: u64,
    /// Of 1,000 writes, how many fail.
    pub per_mille: u16,
    /// Busy time added to each write.
    pub latency: Duration,
    /// After so many writes the writer is dead: every further write fails.
    pub crash_after: Option<u64>,
}

impl Faults {
    /// Failures only.
    #[must_use]
    pub fn new(seed: u64, per_mille: u16) -> Self {
        Self {
            seed,
            per_mille,
            latency: Duration::ZERO,
            crash_after: None,
        }
    }

    /// The same, and a crash after `writes` writes.
    #[must_use]
    pub fn crash_after(self, writes: u64) -> Self {
        Self {
            crash_after: Some(writes),
            ..self
        }
    }
}

/// Maps whose writes fail now and then.
#[derive(Debug)]
pub struct FaultyServiceMaps<M> {
    inner: M,
    faults: Faults,
    state: u64,
    writes: u64,
    failed: u64,
}

/// What happens to one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Works,
    /// Refused before anything happened.
    Refused,
    /// Took effect (of a batch: one half), but the caller is told that it failed.
    Cut,
}

impl<M> FaultyServiceMaps<M> {
    /// Wraps maps.
    #[must_use]
    pub fn new(inner: M, faults: Faults) -> Self {
        Self {
            inner,
            faults,
            state: faults.seed,
            writes: 0,
            failed: 0,
        }
    }

    /// Writes that failed so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// True once the crash point has been passed.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.faults
            .crash_after
            .is_some_and(|limit| self.writes > limit)
    }

    /// A number from the seed: splitmix64 (Steele, Lea, Flood, 2014).
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fate(&mut self) -> Result<Fate, MapError> {
        self.writes += 1;
        if self.crashed() {
            return Err(MapError::Crashed);
        }
        let started = std::time::Instant::now();
        while started.elapsed() < self.faults.latency {
            std::hint::spin_loop();
        }
        let drawn = self.draw();
        if drawn % 1000 >= self.faults.per_mille.into() {
            return Ok(Fate::Works);
        }
        self.failed += 1;
        Ok(if drawn & (1 << 40) == 0 {
            Fate::Refused
        } else {
            Fate::Cut
        })
    }

    fn write(
        &mut self,
        operation: &'static str,
        map: &'static str,
        write: impl FnOnce(&mut M) -> Result<(), MapError>,
    ) -> Result<(), MapError> {
        match self.fate()? {
            Fate::Works => write(&mut self.inner),
            Fate::Refused => Err(MapError::Injected { operation, map }),
            Fate::Cut => {
                write(&mut self.inner)?;
                Err(MapError::Injected { operation, map })
            }
        }
    }

    fn write_many<T>(
        &mut self,
        operation: &'static str,
        map: &'static str,
        items: &[T],
        write: impl FnOnce(&mut M, &[T]) -> Result<(), MapError>,
    ) -> Result<(), MapError> {
        match self.fate()? {
            Fate::Works => write(&mut self.inner, items),
            Fate::Refused => Err(MapError::Injected { operation, map }),
            Fate::Cut => {
                let half = items.len().div_ceil(2);
                write(&mut self.inner, &items[..half])?;
                Err(MapError::Injected { operation, map })
            }
        }
    }
}

impl<M: ReadServiceMaps> ReadServiceMaps for FaultyServiceMaps<M> {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn service(&self, index: u32) -> Result<Service, MapError> {
        self.inner.service(index)
    }

    fn backend(&self, index: u32) -> Result<Backend, MapError> {
        self.inner.backend(index)
    }

    fn load(&self, index: u32) -> Result<BackendLoad, MapError> {
        self.inner.load(index)
    }

    fn slots(&self, base: u32, len: u16) -> Result<Vec<Slot>, MapError> {
        self.inner.slots(base, len)
    }

    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError> {
        self.inner.frontends()
    }

    fn meta(&self) -> Result<Meta, MapError> {
        self.inner.meta()
    }
}

impl<M: ServiceMaps> ServiceMaps for FaultyServiceMaps<M> {
    fn write_service(&mut self, index: u32, service: &Service) -> Result<(), MapError> {
        self.write("write", SVC.name, |maps| maps.write_service(index, service))
    }

    fn publish(&mut self, index: u32, kind: HeadKind, head: Head) -> Result<(), MapError> {
        self.write("publish in", SVC.name, |maps| {
            maps.publish(index, kind, head)
        })
    }

    fn set_options(&mut self, index: u32, flags: u32, affinity_s: u32) -> Result<(), MapError> {
        self.write("write", SVC.name, |maps| {
            maps.set_options(index, flags, affinity_s)
        })
    }

    fn write_slots(&mut self, base: u32, slots: &[Slot]) -> Result<(), MapError> {
        self.write_many("write", SLOT.name, slots, |maps, part| {
            maps.write_slots(base, part)
        })
    }

    fn write_backend(&mut self, index: u32, backend: &Backend) -> Result<(), MapError> {
        self.write("write", BE.name, |maps| maps.write_backend(index, backend))
    }

    fn reset_load(&mut self, index: u32) -> Result<(), MapError> {
        self.write("write", BE.name, |maps| maps.reset_load(index))
    }

    fn insert_frontends(&mut self, entries: &[(FrontendKey, Frontend)]) -> Result<(), MapError> {
        self.write_many("update", FE4.name, entries, ServiceMaps::insert_frontends)
    }

    fn remove_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), MapError> {
        self.write_many("delete from", FE4.name, keys, ServiceMaps::remove_frontends)
    }

    fn set_applied_revision(&mut self, revision: u64) -> Result<(), MapError> {
        self.write("write", META.name, |maps| {
            maps.set_applied_revision(revision)
        })
    }
}
