//! Load, attach and pin the BPF programs; maps behind a trait.
