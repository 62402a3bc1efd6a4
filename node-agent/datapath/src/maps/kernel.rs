//! The pinned maps of this kernel: arrays as shared memory, frontends by batch calls.

use std::io;
use std::path::{Path, PathBuf};

use ebpf_abi::frontend::{Fe4Key, Fe6Key, Frontend};
use ebpf_abi::map::{BE, BE_LOAD, FE4, FE6, META, MapSpec, SLOT, SVC};
use ebpf_abi::meta::Meta;
use ebpf_abi::service::{Backend, BackendLoad, Head, Service, Slot};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    FrontendKey, HeadKind, Limits, MapError, ReadServiceMaps, ServiceMaps, fe4_key, fe6_key,
};
use crate::sys::{Access, BatchError, Map, MappedArray, MappedValue};

/// The service maps of a pin directory.
#[derive(Debug)]
pub struct KernelServiceMaps {
    services: MappedArray<Service>,
    slots: MappedArray<Slot>,
    backends: MappedArray<Backend>,
    loads: MappedArray<BackendLoad>,
    meta: MappedArray<Meta>,
    fe4: Map,
    fe6: Map,
}

/// The word of `svc` that holds flags and affinity time-out.
const OPTIONS_WORD: usize = std::mem::offset_of!(Service, flags) / size_of::<u64>();
const _: () = assert!(
    std::mem::offset_of!(Service, flags).is_multiple_of(size_of::<u64>())
        && std::mem::offset_of!(Service, affinity_s) == std::mem::offset_of!(Service, flags) + 4,
    "flags and affinity share one word, so that one store changes both"
);
/// The word of `meta` that holds the applied revision.
const REVISION_WORD: usize = std::mem::offset_of!(Meta, applied_revision) / size_of::<u64>();

/// A pinned map could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("open map {}", path.display())]
pub struct OpenError {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

pub(crate) fn open_map(directory: &Path, spec: &MapSpec, access: Access) -> Result<Map, OpenError> {
    let path = directory.join(spec.name);
    Map::open(&path, access).map_err(|source| OpenError { path, source })
}

pub(crate) fn open_array<T: MappedValue>(
    directory: &Path,
    spec: &MapSpec,
    access: Access,
) -> Result<MappedArray<T>, OpenError> {
    // The kernel takes a shared mapping of a descriptor that cannot write for a private one, which
    // maps do not have (mm/mmap.c, `do_mmap`). So the mapping alone is for reading only.
    let map = open_map(directory, spec, Access::ReadWrite)?;
    MappedArray::new(&map, access).map_err(|source| OpenError {
        path: directory.join(spec.name),
        source,
    })
}

impl KernelServiceMaps {
    /// Opens the maps pinned in `directory`.
    /// # Errors
    /// [`OpenError`] names the first that failed.
    pub fn open(directory: &Path, access: Access) -> Result<Self, OpenError> {
        Ok(Self {
            services: open_array(directory, &SVC, access)?,
            slots: open_array(directory, &SLOT, access)?,
            backends: open_array(directory, &BE, access)?,
            loads: open_array(directory, &BE_LOAD, access)?,
            meta: open_array(directory, &META, access)?,
            fe4: open_map(directory, &FE4, access)?,
            fe6: open_map(directory, &FE6, access)?,
        })
    }
}

fn read<T: MappedValue>(spec: &MapSpec, array: &MappedArray<T>, index: u32) -> Result<T, MapError> {
    array.read(index).ok_or(MapError::Bounds {
        map: spec.name,
        index,
        limit: array.len(),
    })
}

/// Tells why a store into a mapped array was refused.
fn written<T: MappedValue>(
    spec: &MapSpec,
    array: &MappedArray<T>,
    index: u32,
    done: bool,
) -> Result<(), MapError> {
    match done {
        true => Ok(()),
        false if index >= array.len() => Err(MapError::Bounds {
            map: spec.name,
            index,
            limit: array.len(),
        }),
        false => Err(MapError::ReadOnly { map: spec.name }),
    }
}

fn write<T: MappedValue>(
    spec: &MapSpec,
    array: &MappedArray<T>,
    index: u32,
    value: &T,
) -> Result<(), MapError> {
    written(spec, array, index, array.write(index, value))
}

fn entries<K: FromBytes + Into<FrontendKey>>(
    spec: &'static MapSpec,
    map: &Map,
) -> Result<Vec<(FrontendKey, Frontend)>, MapError> {
    let failed = |source| MapError::System {
        operation: "read",
        map: spec.name,
        source,
    };
    let pairs = map.entries().map_err(failed)?;
    pairs
        .into_iter()
        .map(|(key, value)| {
            let key = K::read_from_bytes(&key).map_err(|_size| failed(wrong_size()))?;
            let value = Frontend::read_from_bytes(&value).map_err(|_size| failed(wrong_size()))?;
            Ok((key.into(), value))
        })
        .collect()
}

fn wrong_size() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an element has the wrong size")
}

fn batch_failed(spec: &'static MapSpec, operation: &'static str, error: BatchError) -> MapError {
    match error.source.raw_os_error() {
        Some(libc::E2BIG) => MapError::Full {
            map: spec.name,
            limit: spec.entries,
        },
        _ => MapError::System {
            operation,
            map: spec.name,
            source: io::Error::other(error),
        },
    }
}

fn insert<K: IntoBytes + Immutable>(
    spec: &'static MapSpec,
    map: &Map,
    entries: &[(K, Frontend)],
) -> Result<(), MapError> {
    let keys: Vec<u8> = entries
        .iter()
        .flat_map(|(key, _)| key.as_bytes())
        .copied()
        .collect();
    let values: Vec<u8> = entries
        .iter()
        .flat_map(|(_, value)| value.as_bytes())
        .copied()
        .collect();
    map.update_batch(&keys, &values)
        .map_err(|error| batch_failed(spec, "update", error))
}

/// Deletes in batches; a batch stops at a key that is absent, which is stepped over.
fn remove<K: IntoBytes + Immutable>(
    spec: &'static MapSpec,
    map: &Map,
    keys: &[K],
) -> Result<(), MapError> {
    let mut rest = keys;
    while !rest.is_empty() {
        let bytes: Vec<u8> = rest.iter().flat_map(IntoBytes::as_bytes).copied().collect();
        match map.delete_batch(&bytes) {
            Ok(()) => return Ok(()),
            Err(error) if error.source.raw_os_error() == Some(libc::ENOENT) => {
                let done = usize::try_from(error.done).unwrap_or(0);
                rest = rest.get(done + 1..).unwrap_or(&[]);
            }
            Err(error) => return Err(batch_failed(spec, "delete from", error)),
        }
    }
    Ok(())
}

impl ReadServiceMaps for KernelServiceMaps {
    fn limits(&self) -> Limits {
        Limits {
            services: self.services.len(),
            slots: self.slots.len(),
            backends: self.backends.len().min(self.loads.len()),
            frontends: self.fe4.info().max_entries,
        }
    }

    fn service(&self, index: u32) -> Result<Service, MapError> {
        read(&SVC, &self.services, index)
    }

    fn backend(&self, index: u32) -> Result<Backend, MapError> {
        read(&BE, &self.backends, index)
    }

    fn load(&self, index: u32) -> Result<BackendLoad, MapError> {
        read(&BE_LOAD, &self.loads, index)
    }

    fn slots(&self, base: u32, len: u16) -> Result<Vec<Slot>, MapError> {
        (base..base.saturating_add(len.into()))
            .map(|index| read(&SLOT, &self.slots, index))
            .collect()
    }

    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError> {
        let mut all = entries::<Fe4Key>(&FE4, &self.fe4)?;
        all.extend(entries::<Fe6Key>(&FE6, &self.fe6)?);
        all.sort_unstable_by_key(|(key, _)| *key);
        Ok(all)
    }

    fn meta(&self) -> Result<Meta, MapError> {
        read(&META, &self.meta, 0)
    }
}

impl ServiceMaps for KernelServiceMaps {
    fn write_service(&mut self, index: u32, service: &Service) -> Result<(), MapError> {
        write(&SVC, &self.services, index, service)
    }

    fn publish(&mut self, index: u32, kind: HeadKind, head: Head) -> Result<(), MapError> {
        let done = self.services.publish(index, kind.word(), head.pack());
        written(&SVC, &self.services, index, done)
    }

    fn set_options(&mut self, index: u32, flags: u32, affinity_s: u32) -> Result<(), MapError> {
        let mut service = read(&SVC, &self.services, index)?;
        service.flags = flags;
        service.affinity_s = affinity_s;
        let bytes = &service.as_bytes()[OPTIONS_WORD * size_of::<u64>()..];
        let word = u64::read_from_prefix(bytes).map_or(0, |(word, _)| word);
        let done = self.services.publish(index, OPTIONS_WORD, word);
        written(&SVC, &self.services, index, done)
    }

    fn write_slots(&mut self, base: u32, slots: &[Slot]) -> Result<(), MapError> {
        (base..)
            .zip(slots)
            .try_for_each(|(index, slot)| write(&SLOT, &self.slots, index, slot))
    }

    fn write_backend(&mut self, index: u32, backend: &Backend) -> Result<(), MapError> {
        write(&BE, &self.backends, index, backend)
    }

    fn reset_load(&mut self, index: u32) -> Result<(), MapError> {
        write(&BE_LOAD, &self.loads, index, &BackendLoad::default())
    }

    fn insert_frontends(&mut self, list: &[(FrontendKey, Frontend)]) -> Result<(), MapError> {
        let v4: Vec<_> = list
            .iter()
            .filter_map(|(key, value)| Some((fe4_key(key)?, *value)))
            .collect();
        let v6: Vec<_> = list
            .iter()
            .filter_map(|(key, value)| Some((fe6_key(key)?, *value)))
            .collect();
        insert(&FE4, &self.fe4, &v4)?;
        insert(&FE6, &self.fe6, &v6)
    }

    fn remove_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), MapError> {
        let v4: Vec<_> = keys.iter().filter_map(fe4_key).collect();
        let v6: Vec<_> = keys.iter().filter_map(fe6_key).collect();
        remove(&FE4, &self.fe4, &v4)?;
        remove(&FE6, &self.fe6, &v6)
    }

    fn set_applied_revision(&mut self, revision: u64) -> Result<(), MapError> {
        let done = self.meta.publish(0, REVISION_WORD, revision);
        written(&META, &self.meta, 0, done)
    }
}
