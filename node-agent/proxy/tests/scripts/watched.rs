//! Maps that are looked at, as a reader would, after every single write.

use node_agent_datapath::abi::frontend::{FE_WILDCARD, Frontend};
use node_agent_datapath::abi::meta::Meta;
use node_agent_datapath::abi::service::{BE_FREE, Backend, BackendLoad, Head, Service, Slot};
use node_agent_datapath::maps::fake::FakeServiceMaps;
use node_agent_datapath::maps::{
    FrontendKey, HeadKind, Limits, MapError, ReadServiceMaps, ServiceMaps,
};

/// The fake, checked after each write.
#[derive(Debug)]
pub(crate) struct Watched(pub(crate) FakeServiceMaps);

/// What every reader may rely on at every moment: from a frontend one gets to backends that are in
/// use and belong to that very service.
pub(crate) fn check_readers_view(maps: &dyn ReadServiceMaps) {
    for (key, value) in maps.frontends().unwrap() {
        if value.flags & FE_WILDCARD != 0 {
            continue;
        }
        assert_ne!(value.svc, 0, "{key}: a frontend without a service");
        let service = maps.service(value.svc).unwrap();
        for kind in HeadKind::ALL {
            let head = kind.of(&service);
            for slot in maps.slots(head.base, head.len).unwrap() {
                let backend = maps.backend(slot.backend).unwrap();
                assert_ne!(
                    backend.state, BE_FREE,
                    "{key}: {kind:?} reaches a free backend"
                );
                assert_eq!(
                    backend.svc, value.svc,
                    "{key}: {kind:?} reaches a stranger's backend"
                );
            }
        }
    }
}

impl Watched {
    fn checked(&mut self, result: Result<(), MapError>) -> Result<(), MapError> {
        check_readers_view(&self.0);
        result
    }
}

impl ReadServiceMaps for Watched {
    fn limits(&self) -> Limits {
        self.0.limits()
    }
    fn service(&self, index: u32) -> Result<Service, MapError> {
        self.0.service(index)
    }
    fn backend(&self, index: u32) -> Result<Backend, MapError> {
        self.0.backend(index)
    }
    fn load(&self, index: u32) -> Result<BackendLoad, MapError> {
        self.0.load(index)
    }
    fn slots(&self, base: u32, len: u16) -> Result<Vec<Slot>, MapError> {
        self.0.slots(base, len)
    }
    fn frontends(&self) -> Result<Vec<(FrontendKey, Frontend)>, MapError> {
        self.0.frontends()
    }
    fn meta(&self) -> Result<Meta, MapError> {
        self.0.meta()
    }
}

impl ServiceMaps for Watched {
    fn write_service(&mut self, index: u32, service: &Service) -> Result<(), MapError> {
        let result = self.0.write_service(index, service);
        self.checked(result)
    }
    fn publish(&mut self, index: u32, kind: HeadKind, head: Head) -> Result<(), MapError> {
        let result = self.0.publish(index, kind, head);
        self.checked(result)
    }
    fn set_options(&mut self, index: u32, flags: u32, affinity_s: u32) -> Result<(), MapError> {
        let result = self.0.set_options(index, flags, affinity_s);
        self.checked(result)
    }
    fn write_slots(&mut self, base: u32, slots: &[Slot]) -> Result<(), MapError> {
        let result = self.0.write_slots(base, slots);
        self.checked(result)
    }
    fn write_backend(&mut self, index: u32, backend: &Backend) -> Result<(), MapError> {
        let result = self.0.write_backend(index, backend);
        self.checked(result)
    }
    fn reset_load(&mut self, index: u32) -> Result<(), MapError> {
        self.0.reset_load(index)
    }
    fn insert_frontends(&mut self, entries: &[(FrontendKey, Frontend)]) -> Result<(), MapError> {
        // One by one: the kernel's batch is not atomic either.
        for entry in entries {
            self.0.insert_frontends(std::slice::from_ref(entry))?;
            check_readers_view(&self.0);
        }
        Ok(())
    }
    fn remove_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), MapError> {
        for key in keys {
            self.0.remove_frontends(std::slice::from_ref(key))?;
            check_readers_view(&self.0);
        }
        Ok(())
    }
    fn set_applied_revision(&mut self, revision: u64) -> Result<(), MapError> {
        self.0.set_applied_revision(revision)
    }
}
