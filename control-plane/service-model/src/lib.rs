//! Service, EndpointSlices and Nodes joined into frontends and backends.
