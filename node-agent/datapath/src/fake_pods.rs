//! Pods and routes in memory, for tests of whoever calls [`crate::pods`].

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::pods::{
    AttachedPod, NodeRoute, PodAttachment, PodDatapath, PodError, PodRange, Removal, RouteDatapath,
};

/// A datapath that only remembers.
#[derive(Debug)]
pub struct FakePods {
    capacity: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pods: BTreeMap<u32, PodAttachment>,
    routes: BTreeMap<PodRange, NodeRoute>,
}

impl FakePods {
    /// Room for `capacity` pods.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
        }
    }
}

impl PodDatapath for FakePods {
    fn attach_pod(&self, pod: &PodAttachment) -> Result<AttachedPod, PodError> {
        if pod.ifindex == 0 || (pod.ipv4.is_none() && pod.ipv6.is_none()) {
            return Err(PodError::Incomplete {
                attachment: Box::new(pod.clone()),
            });
        }
        let mut state = self.state.lock();
        let known = state
            .pods
            .iter()
            .find(|(_, other)| other.ifindex == pod.ifindex)
            .map(|(index, _)| *index);
        let free = || (1..=self.capacity).find(|index| !state.pods.contains_key(index));
        let index = known.or_else(free).ok_or(PodError::Full {
            capacity: self.capacity,
        })?;
        state.pods.insert(index, pod.clone());
        Ok(AttachedPod {
            index,
            attachment: pod.clone(),
        })
    }

    fn detach_pod(&self, ifindex: u32) -> Result<Removal, PodError> {
        let mut state = self.state.lock();
        let before = state.pods.len();
        state.pods.retain(|_, pod| pod.ifindex != ifindex);
        Ok(if state.pods.len() < before {
            Removal::Removed
        } else {
            Removal::WasAbsent
        })
    }

    fn list_pods(&self) -> Result<Vec<AttachedPod>, PodError> {
        let state = self.state.lock();
        Ok(state
            .pods
            .iter()
            .map(|(index, pod)| AttachedPod {
                index: *index,
                attachment: pod.clone(),
            })
            .collect())
    }
}

impl RouteDatapath for FakePods {
    fn set_route(&self, range: PodRange, route: NodeRoute) -> Result<(), PodError> {
        self.state.lock().routes.insert(range, route);
        Ok(())
    }

    fn remove_route(&self, range: PodRange) -> Result<Removal, PodError> {
        let removed = self.state.lock().routes.remove(&range);
        Ok(match removed {
            Some(_) => Removal::Removed,
            None => Removal::WasAbsent,
        })
    }

    fn list_routes(&self) -> Result<Vec<(PodRange, NodeRoute)>, PodError> {
        let state = self.state.lock();
        Ok(state
            .routes
            .iter()
            .map(|(range, route)| (*range, *route))
            .collect())
    }
}
