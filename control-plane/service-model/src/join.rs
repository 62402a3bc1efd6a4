//! Service + EndpointSlices -> model.
