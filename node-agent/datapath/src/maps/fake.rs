//! Maps in memory. Clones share the content, as pins do, so a test can restart the writer.

use std::collections::BTreeMap;
use std::sync::Arc;

use ebpf_abi::frontend::Frontend;
use ebpf_abi::map::{BE, FE4, SLOT, SVC};
use ebpf_abi::meta::Meta;
use ebpf_abi::service::{Backend, BackendLoad, Head, Service, Slot};
use parking_lot::Mutex;

use super::{FrontendKey, HeadKind, Limits, MapError, ReadServiceMaps, ServiceMaps};

#[derive(Debug)]
struct Content {
    services: Vec<Service>,
    slots: Vec<Slot>,
    backends: Vec<Backend>,
    loads: Vec<BackendLoad>,
    frontends: BTreeMap<FrontendKey, Frontend>,
    meta: Meta,
}

/// The service maps in memory.
#[derive(Clone, Debug)]
pub struct FakeServiceMaps {
    limits: Limits,
    content: Arc<Mutex<Content>>,
}

impl FakeServiceMaps {
    /// Empty maps of the given sizes.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let size = |elements: u32| usize::try_from(elements).unwrap_or(usize::MAX);
        let content = Content {
            services: vec![Service::default(); size(limits.services)],
            slots: vec![Slot::default(); size(limits.slots)],
            backends: vec![Backend::default(); size(limits.backends)],
            loads: vec![BackendLoad::default(); size(limits.backends)],
            frontends: BTreeMap::new(),
            meta: Meta::default(),
        };
        Self {
            limits,
            content: Arc::new(Mutex::new(content)),
        }
    }

    /// Empty maps of the small profile's sizes.
    #[must_use]
    pub fn small() -> Self {
        Self::new(Limits {
            services: SVC.entries_small,
            slots: SLOT.entries_small,
            backends: BE.entries_small,
            frontends: FE4.entries_small,
        })
    }
}

fn at<T: Copy>(map: &'static str, elements: &[T], index: u32) -> Result<T, MapError> {
    usize::try_from(index)
        .ok()
        .and_then(|place| elements.get(place))
        .copied()
        .ok_or_else(|| out_of_bounds(map, elements.len(), index))
}

fn at_mut<'a, T>(
    map: &'static str,
    elements: &'a mut [T],
    index: u32,
) -> Result<&'a mut T, MapError> {
    let length = elements.len();
    usize::try_from(index)
        .ok()
        .and_then(|place| elements.get_mut(place))
        .ok_or_else(|| out_of_bounds(map, length, index))
}

fn out_of_bounds(map: &'static str, length: usize, index: u32) -> MapError {
    MapError::Bounds {
        map,
        index,
        limit: u32::try_from(length).unwrap_or(u32::MAX),
    }
}

impl ReadServiceMaps for FakeServiceMaps {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn service(&self, index: u32) -> Result<Service, MapError> {
        at(SVC.name, &self.content.lock().services, index)
    }

    fn backend(&self, index: u32) -> Result<Backend, MapError> {
        at(BE.name, &self.content.lock().backends, index)
    }

    fn load(&self, index: u32) -> Result<BackendLoad, MapError> {
        at(BE.name, &self.content.lock().loads, index)
    }

    fn slots(&self, base: u32, len: u16) -> Result<Vec<Slot>, MapError> {
        let content = self.content.lock();
        (base..base.saturating_add(len.into()))
            .map(|index| at(SLOT.name, &content.slots, index))
            .collect()
    }

    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError> {
        let content = self.content.lock();
        Ok(content
            .frontends
            .iter()
            .map(|(key, value)| (*key, *value))
            .collect())
    }

    fn meta(&self) -> Result<Meta, MapError> {
        Ok(self.content.lock().meta)
    }
}

impl ServiceMaps for FakeServiceMaps {
    fn write_service(&mut self, index: u32, service: &Service) -> Result<(), MapError> {
        *at_mut(SVC.name, &mut self.content.lock().services, index)? = *service;
        Ok(())
    }

    fn publish(&mut self, index: u32, kind: HeadKind, head: Head) -> Result<(), MapError> {
        let mut content = self.content.lock();
        kind.set(at_mut(SVC.name, &mut content.services, index)?, head);
        Ok(())
    }

    fn set_options(&mut self, index: u32, flags: u32, affinity_s: u32) -> Result<(), MapError> {
        let mut content = self.content.lock();
        let service = at_mut(SVC.name, &mut content.services, index)?;
        service.flags = flags;
        service.affinity_s = affinity_s;
        Ok(())
    }

    fn write_slots(&mut self, base: u32, slots: &[Slot]) -> Result<(), MapError> {
        let mut content = self.content.lock();
        for (index, slot) in (base..).zip(slots) {
            *at_mut(SLOT.name, &mut content.slots, index)? = *slot;
        }
        Ok(())
    }

    fn write_backend(&mut self, index: u32, backend: &Backend) -> Result<(), MapError> {
        *at_mut(BE.name, &mut self.content.lock().backends, index)? = *backend;
        Ok(())
    }

    fn reset_load(&mut self, index: u32) -> Result<(), MapError> {
        *at_mut(BE.name, &mut self.content.lock().loads, index)? = BackendLoad::default();
        Ok(())
    }

    fn insert_frontends(&mut self, entries: &[(FrontendKey, Frontend)]) -> Result<(), MapError> {
        let mut content = self.content.lock();
        let limit = usize::try_from(self.limits.frontends).unwrap_or(usize::MAX);
        for (key, value) in entries {
            // Counted only when it may matter: the families have a map each.
            let full = content.frontends.len() >= limit
                && !content.frontends.contains_key(key)
                && content
                    .frontends
                    .keys()
                    .filter(|other| other.address.is_ipv4() == key.address.is_ipv4())
                    .count()
                    >= limit;
            if full {
                return Err(MapError::Full {
                    map: FE4.name,
                    limit: self.limits.frontends,
                });
            }
            content.frontends.insert(*key, *value);
        }
        Ok(())
    }

    fn remove_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), MapError> {
        let mut content = self.content.lock();
        for key in keys {
            content.frontends.remove(key);
        }
        Ok(())
    }

    fn set_applied_revision(&mut self, revision: u64) -> Result<(), MapError> {
        self.content.lock().meta.applied_revision = revision;
        Ok(())
    }
}
