//! Cluster DNS: names, snapshot, handler, forwarder, cache.
