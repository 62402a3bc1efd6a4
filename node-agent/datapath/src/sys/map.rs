//! Maps through system calls: one element, many in one call, and what the kernel says about them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes};

use super::array::Access;
use super::{Command, address, address_mut, bpf, bpf_fd, name_of, object_info, open_pinned, raw};

/// The kernel's number of a map type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MapKind(pub u32);

impl MapKind {
    /// `BPF_MAP_TYPE_HASH`.
    pub const HASH: Self = Self(1);
    /// `BPF_MAP_TYPE_ARRAY`.
    pub const ARRAY: Self = Self(2);
    /// `BPF_MAP_TYPE_PERCPU_HASH`.
    pub const PER_CPU_HASH: Self = Self(5);
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    pub const PER_CPU_ARRAY: Self = Self(6);
    /// `BPF_MAP_TYPE_LRU_HASH`.
    pub const LRU_HASH: Self = Self(9);
    /// `BPF_MAP_TYPE_LRU_PERCPU_HASH`.
    pub const LRU_PER_CPU_HASH: Self = Self(10);
    /// `BPF_MAP_TYPE_LPM_TRIE`.
    pub const LPM_TRIE: Self = Self(11);
    /// `BPF_MAP_TYPE_SK_STORAGE`.
    pub const SK_STORAGE: Self = Self(24);
    /// `BPF_MAP_TYPE_RINGBUF`.
    pub const RING_BUFFER: Self = Self(27);

    /// The type's name as `bpftool` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HASH => "hash",
            Self::ARRAY => "array",
            Self::PER_CPU_HASH => "percpu_hash",
            Self::PER_CPU_ARRAY => "percpu_array",
            Self::LRU_HASH => "lru_hash",
            Self::LRU_PER_CPU_HASH => "lru_percpu_hash",
            Self::LPM_TRIE => "lpm_trie",
            Self::SK_STORAGE => "sk_storage",
            Self::RING_BUFFER => "ringbuf",
            Self(_) => "other",
        }
    }

    fn per_cpu(self) -> bool {
        matches!(
            self,
            Self::PER_CPU_HASH | Self::PER_CPU_ARRAY | Self::LRU_PER_CPU_HASH
        )
    }
}

/// Key and value of an element, as bytes.
pub type Element = (Vec<u8>, Vec<u8>);

/// Facts about a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapInfo {
    pub id: u32,
    pub kind: MapKind,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
    /// At most 15 characters: the kernel cuts the rest.
    pub name: String,
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct RawMapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; 16],
}

/// A batch call that stopped early.
#[derive(Debug, thiserror::Error)]
#[error("{done} of {wanted} elements")]
pub struct BatchError {
    /// Elements that were applied, from the front.
    pub done: u32,
    pub wanted: u32,
    #[source]
    pub source: io::Error,
}

/// An open map with its sizes, so that every buffer can be checked before the kernel sees it.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    info: MapInfo,
    /// Bytes the kernel copies for one value: for per-CPU maps all copies together.
    value_bytes: usize,
    key_bytes: usize,
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct ElementAttribute {
    fd: u32,
    pad: u32,
    key: u64,
    /// Value, or the next key.
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct BatchAttribute {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    fd: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct CreateAttribute {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// `BPF_NOEXIST`.
const ONLY_NEW: u64 = 1;
/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOCATION: u32 = 1;
/// `BPF_F_MMAPABLE`.
pub(super) const MMAPABLE: u32 = 1 << 10;
/// Elements fetched by one lookup batch.
const BATCH_LEN: usize = 4096;

impl Map {
    /// Takes a map's descriptor.
    /// # Errors
    /// The kernel's error when the descriptor is no map.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let mut info = RawMapInfo::new_zeroed();
        object_info(fd.as_fd(), info.as_mut_bytes())?;
        let kind = MapKind(info.kind);
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let value_size = usize::try_from(info.value_size).map_err(invalid)?;
        let value_bytes = if kind.per_cpu() {
            let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
            value_size.next_multiple_of(8) * cpus
        } else {
            value_size
        };
        Ok(Self {
            fd,
            value_bytes,
            key_bytes: usize::try_from(info.key_size).map_err(invalid)?,
            info: MapInfo {
                id: info.id,
                kind,
                key_size: info.key_size,
                value_size: info.value_size,
                max_entries: info.max_entries,
                flags: info.flags,
                name: name_of(&info.name),
            },
        })
    }

    /// Creates a map. Arrays can be mapped into memory; tries grow with use.
    /// # Errors
    /// `InvalidInput` for a name of more than 15 bytes, otherwise the kernel's error.
    pub fn create(
        name: &str,
        kind: MapKind,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    ) -> io::Result<Self> {
        let mut field = [0; 16];
        field[..15]
            .get_mut(..name.len())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?
            .copy_from_slice(name.as_bytes());
        let mut attribute = CreateAttribute {
            kind: kind.0,
            key_size,
            value_size,
            max_entries,
            flags: match kind {
                MapKind::ARRAY => MMAPABLE,
                MapKind::LPM_TRIE => NO_PREALLOCATION,
                _ => 0,
            },
            inner: 0,
            numa_node: 0,
            name: field,
        };
        Self::from_fd(bpf_fd(Command::MapCreate, &mut attribute)?)
    }

    /// Opens a pinned map.
    /// # Errors
    /// The kernel's error; `NotFound` when nothing is pinned there.
    pub fn open(path: &Path, access: Access) -> io::Result<Self> {
        Self::from_fd(open_pinned(path, access)?)
    }

    /// What the kernel says about the map.
    #[must_use]
    pub fn info(&self) -> &MapInfo {
        &self.info
    }

    /// Bytes of one value as the calls here exchange it; for per-CPU maps that is one 8-byte
    /// aligned copy per possible CPU.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    fn check(&self, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let fits = key.len() == self.key_bytes
            && value.is_none_or(|value| value.len() == self.value_bytes);
        if fits {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("map {}: key or value has the wrong size", self.info.name),
        ))
    }

    fn element(&self, key: &[u8], value: u64, flags: u64) -> ElementAttribute {
        ElementAttribute {
            fd: raw(self.fd.as_fd()),
            pad: 0,
            key: address(key),
            value,
            flags,
        }
    }

    /// Reads one element; `None` when the key is absent.
    /// # Errors
    /// `InvalidInput` for a key of the wrong size, otherwise the kernel's error.
    pub fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.check(key, None)?;
        let mut value = vec![0; self.value_bytes];
        let mut attribute = self.element(key, address_mut(&mut value), 0);
        match absent_is_none(bpf(Command::MapLookup, &mut attribute))? {
            Some(_) => Ok(Some(value)),
            None => Ok(None),
        }
    }

    /// Reads one element into a value of plain data.
    /// # Errors
    /// As [`Map::lookup`], and `InvalidData` when `V` has another size.
    pub fn lookup_value<V: FromBytes>(&self, key: &[u8]) -> io::Result<Option<V>> {
        self.lookup(key)?
            .map(|bytes| {
                V::read_from_bytes(&bytes).map_err(|_size| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!(
                            "map {}: values are not {} bytes",
                            self.info.name,
                            size_of::<V>()
                        ),
                    )
                })
            })
            .transpose()
    }

    /// Inserts or replaces one element.
    /// # Errors
    /// As [`Map::lookup`].
    pub fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key, Some(value))?;
        let mut attribute = self.element(key, address(value), 0);
        bpf(Command::MapUpdate, &mut attribute).map(drop)
    }

    /// Inserts one element that must not exist yet.
    /// # Errors
    /// As [`Map::lookup`]; `AlreadyExists` when it does.
    pub fn insert_new(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key, Some(value))?;
        let mut attribute = self.element(key, address(value), ONLY_NEW);
        bpf(Command::MapUpdate, &mut attribute).map(drop)
    }

    /// Deletes one element; returns whether it existed.
    /// # Errors
    /// As [`Map::lookup`].
    pub fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.check(key, None)?;
        let mut attribute = self.element(key, 0, 0);
        Ok(absent_is_none(bpf(Command::MapDelete, &mut attribute))?.is_some())
    }

    /// The key after `key`, or the first one.
    fn next_key(&self, key: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        let mut next = vec![0; self.key_bytes];
        let mut attribute = self.element(key.unwrap_or(&[]), address_mut(&mut next), 0);
        if key.is_none() {
            attribute.key = 0;
        }
        Ok(absent_is_none(bpf(Command::MapNextKey, &mut attribute))?.map(|_| next))
    }

    /// Inserts or replaces many elements with one call. Keys and values lie one after the other.
    /// # Errors
    /// [`BatchError`] says how many were applied.
    pub fn update_batch(&self, keys: &[u8], values: &[u8]) -> Result<(), BatchError> {
        let wanted = self.batch_len(keys, Some(values))?;
        self.batch(Command::MapUpdateBatch, keys, Some(values), wanted)
    }

    /// Deletes many elements with one call; stops at the first that is absent.
    /// # Errors
    /// [`BatchError`] says how many were deleted.
    pub fn delete_batch(&self, keys: &[u8]) -> Result<(), BatchError> {
        let wanted = self.batch_len(keys, None)?;
        self.batch(Command::MapDeleteBatch, keys, None, wanted)
    }

    fn batch_len(&self, keys: &[u8], values: Option<&[u8]>) -> Result<u32, BatchError> {
        let elements = keys.len() / self.key_bytes.max(1);
        let fits = keys.len() == elements * self.key_bytes
            && values.is_none_or(|values| values.len() == elements * self.value_bytes);
        match u32::try_from(elements) {
            Ok(elements) if fits => Ok(elements),
            _ => Err(BatchError {
                done: 0,
                wanted: u32::try_from(elements).unwrap_or(u32::MAX),
                source: io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("map {}: keys and values do not match", self.info.name),
                ),
            }),
        }
    }

    fn batch(
        &self,
        command: Command,
        keys: &[u8],
        values: Option<&[u8]>,
        wanted: u32,
    ) -> Result<(), BatchError> {
        if wanted == 0 {
            return Ok(());
        }
        let mut attribute = BatchAttribute {
            in_batch: 0,
            out_batch: 0,
            keys: address(keys),
            values: values.map_or(0, address),
            count: wanted,
            fd: raw(self.fd.as_fd()),
            element_flags: 0,
            flags: 0,
        };
        bpf(command, &mut attribute)
            .map(drop)
            .map_err(|source| BatchError {
                // The kernel writes back how far it came, unless it refused the call as a whole.
                done: if attribute.count == wanted {
                    0
                } else {
                    attribute.count
                },
                wanted,
                source,
            })
    }

    /// All elements as (key, value) pairs of bytes. Elements changed meanwhile may be seen or not.
    /// # Errors
    /// The kernel's error.
    pub fn entries(&self) -> io::Result<Vec<Element>> {
        match self.entries_batched() {
            // Not every map type has batch lookups (per-CPU hash and tries lack them on old kernels).
            Err(error) if error.raw_os_error() == Some(UNSUPPORTED) => self.entries_one_by_one(),
            result => result,
        }
    }

    fn entries_one_by_one(&self) -> io::Result<Vec<Element>> {
        let mut entries = Vec::new();
        let mut key: Option<Vec<u8>> = None;
        while let Some(next) = self.next_key(key.as_deref())? {
            if let Some(value) = self.lookup(&next)? {
                entries.push((next.clone(), value));
            }
            key = Some(next);
            if entries.len() > usize::try_from(self.info.max_entries).unwrap_or(usize::MAX) {
                break; // the walk restarted because its key was deleted under it
            }
        }
        Ok(entries)
    }

    fn entries_batched(&self) -> io::Result<Vec<Element>> {
        let mut entries = Vec::new();
        let mut length = BATCH_LEN;
        // A position is at most as large as a key, and at least four bytes (a hash bucket).
        let mut position: Option<Vec<u8>> = None;
        loop {
            let mut keys = vec![0; length * self.key_bytes];
            let mut values = vec![0; length * self.value_bytes];
            let mut next = vec![0; self.key_bytes.max(4)];
            let mut attribute = BatchAttribute {
                in_batch: position.as_deref().map_or(0, address),
                out_batch: address_mut(&mut next),
                keys: address_mut(&mut keys),
                values: address_mut(&mut values),
                count: u32::try_from(length).unwrap_or(u32::MAX),
                fd: raw(self.fd.as_fd()),
                element_flags: 0,
                flags: 0,
            };
            let result = bpf(Command::MapLookupBatch, &mut attribute);
            let full = match &result {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    length *= 2; // one bucket holds more than the buffer
                    continue;
                }
                Err(_) => {
                    result?;
                    true
                }
            };
            let count = usize::try_from(attribute.count).unwrap_or(0).min(length);
            let pairs = keys
                .chunks_exact(self.key_bytes)
                .zip(values.chunks_exact(self.value_bytes))
                .take(count);
            entries.extend(pairs.map(|(key, value)| (key.to_vec(), value.to_vec())));
            if full || count == 0 {
                return Ok(entries);
            }
            position = Some(next);
        }
    }
}

/// The kernel's internal `ENOTSUPP`, which reaches user space for unsupported batch commands.
const UNSUPPORTED: i32 = 524;

fn absent_is_none(result: io::Result<i64>) -> io::Result<Option<i64>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
