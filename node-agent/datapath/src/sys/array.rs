//! Array maps as shared memory: what publishing a service change without a system call rests on.
//!
//! The kernel and this process see the same pages. Elements are read and written as aligned 64-bit
//! words with atomic operations, so no word is ever seen half written; a value wider than one word
//! may be seen mixed, which is why readers only follow words published with release order.

use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::map::{MMAPABLE, Map, MapKind};

/// What may be done through a descriptor or a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Inspection: the kernel refuses writes.
    ReadOnly,
    /// The agent that owns the maps.
    ReadWrite,
}

const WORD: usize = size_of::<u64>();

/// A value that can live in a mapped array: plain data of whole 64-bit words.
pub trait MappedValue: FromBytes + IntoBytes + Immutable + Copy {
    /// Words per element.
    const WORDS: usize = {
        assert!(
            size_of::<Self>().is_multiple_of(WORD),
            "mapped values are whole words"
        );
        size_of::<Self>() / WORD
    };
}

impl<T: FromBytes + IntoBytes + Immutable + Copy> MappedValue for T {}

/// A mapped array of `T`. The mapping keeps the map alive; the descriptor may be closed.
#[derive(Debug)]
pub struct MappedArray<T> {
    words: NonNull<AtomicU64>,
    bytes: usize,
    length: u32,
    access: Access,
    value: PhantomData<T>,
}

// SAFETY: all access to the pages goes through atomic words; the handle owns the mapping and `T`
// is only ever produced by value.
unsafe impl<T: Send> Send for MappedArray<T> {}
// SAFETY: as above; shared access only performs atomic loads and stores.
unsafe impl<T: Send> Sync for MappedArray<T> {}

impl<T: MappedValue> MappedArray<T> {
    /// Maps `map` into this process.
    /// # Errors
    /// `InvalidInput` when the map is not a mappable array of elements as large as `T`, otherwise
    /// the kernel's error.
    pub fn new(map: &Map, access: Access) -> io::Result<Self> {
        let info = map.info();
        let fits = info.kind == MapKind::ARRAY
            && info.flags & MMAPABLE != 0
            && usize::try_from(info.value_size) == Ok(size_of::<T>());
        if !fits {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "map {} is not a mappable array of {}-byte values",
                    info.name,
                    size_of::<T>()
                ),
            ));
        }
        let elements = usize::try_from(info.max_entries)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let page = rustix::param::page_size();
        let bytes = (elements * size_of::<T>()).next_multiple_of(page);
        let protection = match access {
            Access::ReadOnly => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a fresh shared mapping at an address of the kernel's choice; nothing else refers
        // to it, and it is unmapped exactly once, in `drop`.
        let address = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                MapFlags::SHARED,
                map.as_fd(),
                0,
            )
        }?;
        let words = NonNull::new(address.cast::<AtomicU64>())
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self {
            words,
            bytes,
            length: info.max_entries,
            access,
            value: PhantomData,
        })
    }

    /// Elements in the array.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.length
    }

    /// True for an array without elements, which the kernel does not make.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn word(&self, index: u32, word: usize) -> Option<&AtomicU64> {
        if index >= self.length || word >= T::WORDS {
            return None;
        }
        let offset = usize::try_from(index).ok()? * T::WORDS + word;
        // SAFETY: `offset` is below `length * WORDS`, which `new` mapped; the pages stay mapped as
        // long as `self` lives.
        let word = unsafe { self.words.add(offset) };
        // SAFETY: pages are aligned to far more than a word and an atomic has no invalid value.
        Some(unsafe { word.as_ref() })
    }

    /// Reads an element word by word; `None` past the end.
    #[must_use]
    pub fn read(&self, index: u32) -> Option<T> {
        let mut value = T::new_zeroed();
        for (word, bytes) in value.as_mut_bytes().chunks_exact_mut(WORD).enumerate() {
            let loaded = self.word(index, word)?.load(Ordering::Acquire);
            bytes.copy_from_slice(loaded.as_bytes());
        }
        Some(value)
    }

    /// Writes an element word by word; returns whether it was written: not past the end and not
    /// through a read-only mapping. Readers may see a mixture until the element is published by a
    /// later [`MappedArray::publish`].
    #[must_use]
    pub fn write(&self, index: u32, value: &T) -> bool {
        value
            .as_bytes()
            .chunks_exact(WORD)
            .enumerate()
            .all(|(word, bytes)| {
                u64::read_from_bytes(bytes)
                    .is_ok_and(|loaded| self.store(index, word, loaded, Ordering::Relaxed))
            })
    }

    /// Reads one word of an element with acquire order.
    #[must_use]
    pub fn read_word(&self, index: u32, word: usize) -> Option<u64> {
        Some(self.word(index, word)?.load(Ordering::Acquire))
    }

    /// Publishes one word of an element: everything written before is visible to whoever sees the
    /// new word. Returns whether it was written.
    #[must_use]
    pub fn publish(&self, index: u32, word: usize, value: u64) -> bool {
        self.store(index, word, value, Ordering::Release)
    }

    fn store(&self, index: u32, word: usize, value: u64, order: Ordering) -> bool {
        if self.access == Access::ReadOnly {
            return false;
        }
        let Some(target) = self.word(index, word) else {
            return false;
        };
        target.store(value, order);
        true
    }
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        // SAFETY: address and length are those of the mapping made in `new`; no reference into it
        // outlives `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.words.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "an own mapping can always be unmapped");
    }
}
