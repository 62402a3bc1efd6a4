//! The store: trait, embedded engine, etcd, memory, and the conformance suite.
