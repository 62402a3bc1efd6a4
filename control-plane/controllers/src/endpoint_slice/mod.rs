//! EndpointSlices of Services with a selector: who answers, at most 100 a slice, as few writes as possible.

mod controller;
mod desired;
mod plan;
mod trigger;

pub(crate) use controller::EndpointSliceController;

#[cfg(test)]
mod tests;
