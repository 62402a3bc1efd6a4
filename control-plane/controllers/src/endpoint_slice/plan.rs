//! From the slices there are to the slices there should be, with as few writes as possible. Pure.
//!
//! An endpoint that stays, stays in its slice. New endpoints go first where a write happens anyway, then into
//! the fullest slice that takes them all, then into new slices. A slice that would be deleted beside one
//! that would be created is rewritten instead.

use std::collections::HashMap;
use std::sync::Arc;

use control_plane_client::Cached;
use proto_api::types::discovery::v1::{Endpoint, EndpointSlice};

use super::desired::{self, Group, Template};
use crate::service_pods::Family;

/// Endpoints a slice holds at most.
pub(super) const ENDPOINTS_MAX: usize = 100;

pub(super) type Slice = Arc<Cached<EndpointSlice>>;

/// What to write.
#[derive(Debug, Clone, Default)]
pub(super) struct Writes {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<(Slice, EndpointSlice)>,
    pub(super) delete: Vec<Slice>,
}

impl Writes {
    pub(super) fn is_empty(&self) -> bool {
        self.create.is_empty() && self.update.is_empty() && self.delete.is_empty()
    }

    fn extend(&mut self, other: Self) {
        self.create.extend(other.create);
        self.update.extend(other.update);
        self.delete.extend(other.delete);
    }
}

/// The writes for all families of a Service. `present`: its slices, made by us.
pub(super) fn plan(
    template: &Template,
    families: Vec<(Family, Vec<Group>)>,
    present: &[Slice],
) -> Writes {
    let mut writes = Writes::default();
    let wanted: Vec<&str> = families.iter().map(|(family, _)| family.name()).collect();
    let foreign = |slice: &&Slice| !wanted.contains(&slice.address_type.as_str());
    writes
        .delete
        .extend(present.iter().filter(foreign).cloned());
    for (family, groups) in families {
        let of_family = present
            .iter()
            .filter(|slice| slice.address_type == family.name())
            .cloned()
            .collect();
        writes.extend(plan_family(template, family, groups, of_family));
    }
    writes
}

fn plan_family(
    template: &Template,
    family: Family,
    groups: Vec<Group>,
    present: Vec<Slice>,
) -> Writes {
    let mut writes = Writes::default();
    let count = present.len();
    let mut rest = present;
    for group in groups {
        let (same, others): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|slice| desired::canonical(slice.ports.clone()) == group.ports);
        rest = others;
        writes.extend(plan_group(template, family, group, same));
    }
    writes.delete.extend(rest);
    if writes.delete.len() == count && writes.create.is_empty() {
        keep_placeholder(template, family, &mut writes);
    }
    rewrite_instead_of_delete(&mut writes);
    writes
}

/// A Service without endpoints has one empty slice, so that its readers see "none" and not "unknown".
fn keep_placeholder(template: &Template, family: Family, writes: &mut Writes) {
    let placeholder = template.slice(family, Vec::new());
    let is_one = |slice: &Slice| {
        slice.endpoints.is_empty()
            && slice.ports.is_empty()
            && slice.metadata.labels == placeholder.metadata.labels
    };
    match writes.delete.iter().position(is_one) {
        Some(at) => drop(writes.delete.swap_remove(at)),
        None => writes.create.push(placeholder),
    }
}

/// A slice of the group with what stays in it.
struct Kept {
    slice: Slice,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn plan_group(template: &Template, family: Family, group: Group, present: Vec<Slice>) -> Writes {
    let Group { ports, endpoints } = group;
    let mut missing: HashMap<Identity, Endpoint> = HashMap::with_capacity(endpoints.len());
    for endpoint in endpoints {
        missing.insert(Identity::of(&endpoint), endpoint);
    }
    let mut kept: Vec<Kept> = present
        .into_iter()
        .map(|slice| keep(template, slice, &mut missing))
        .collect();
    // In the order of names, so that equal input gives equal output.
    let mut missing: Vec<Endpoint> = missing.into_values().collect();
    missing.sort_by(|a, b| b.addresses.cmp(&a.addresses));
    fill(&mut kept, &mut missing);

    let mut writes = Writes::default();
    for Kept {
        slice,
        endpoints,
        changed,
    } in kept
    {
        if endpoints.is_empty() {
            writes.delete.push(slice);
        } else if changed {
            let mut next = template.slice(family, ports.clone());
            next.endpoints = endpoints;
            writes.update.push((slice, next));
        }
    }
    while !missing.is_empty() {
        let rest = missing.split_off(missing.len().saturating_sub(ENDPOINTS_MAX));
        let mut next = template.slice(family, ports.clone());
        next.endpoints = rest;
        writes.create.push(next);
    }
    writes
}

fn keep(template: &Template, slice: Slice, missing: &mut HashMap<Identity, Endpoint>) -> Kept {
    let mut changed = slice.metadata.labels != template.labels;
    let mut endpoints = Vec::with_capacity(slice.endpoints.len());
    for present in &slice.endpoints {
        match missing.remove(&Identity::of(present)) {
            Some(wanted) => {
                changed |= wanted != *present;
                endpoints.push(wanted);
            }
            None => changed = true,
        }
    }
    Kept {
        slice,
        endpoints,
        changed,
    }
}

fn fill(kept: &mut [Kept], missing: &mut Vec<Endpoint>) {
    let mut written: Vec<&mut Kept> = kept
        .iter_mut()
        .filter(|k| k.changed && !k.endpoints.is_empty())
        .collect();
    written.sort_by_key(|k| std::cmp::Reverse(k.endpoints.len()));
    for k in written {
        while k.endpoints.len() < ENDPOINTS_MAX
            && let Some(endpoint) = missing.pop()
        {
            k.endpoints.push(endpoint);
        }
    }
    // What is more than a slice gets new slices first; the remainder may fit somewhere.
    let remainder = missing.len() % ENDPOINTS_MAX;
    if remainder == 0 {
        return;
    }
    let roomy = kept
        .iter_mut()
        .filter(|k| !k.endpoints.is_empty() && k.endpoints.len() + remainder <= ENDPOINTS_MAX)
        .max_by_key(|k| k.endpoints.len());
    if let Some(k) = roomy {
        k.changed = true;
        let from = missing.len() - remainder;
        k.endpoints.extend(missing.drain(from..));
    }
}

fn rewrite_instead_of_delete(writes: &mut Writes) {
    while !writes.create.is_empty()
        && let Some(slice) = writes.delete.pop()
    {
        let next = writes.create.swap_remove(0);
        writes.update.push((slice, next));
    }
}

/// What makes an endpoint the same one: address, node and pod; conditions may change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    addresses: Vec<String>,
    node: Option<String>,
    target: Option<String>,
    hostname: Option<String>,
}

impl Identity {
    fn of(endpoint: &Endpoint) -> Self {
        Self {
            addresses: endpoint.addresses.clone(),
            node: endpoint.node_name.clone(),
            target: endpoint
                .target_ref
                .as_ref()
                .and_then(|target| target.uid.clone()),
            hostname: endpoint.hostname.clone(),
        }
    }
}
