//! Addresses, veth pairs, routes, tunnels and the CNI plugin.
