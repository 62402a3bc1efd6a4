//! Layouts shared by the BPF programs and user space.
