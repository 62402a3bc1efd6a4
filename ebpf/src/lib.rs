//! Packet and connection logic, and the BPF programs that use it.
