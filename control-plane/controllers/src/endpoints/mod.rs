//! Endpoints of Services with a selector: the older form of EndpointSlices, at most 1,000 addresses.

mod controller;
mod plan;

pub(crate) use controller::EndpointsController;

#[cfg(test)]
mod tests;
