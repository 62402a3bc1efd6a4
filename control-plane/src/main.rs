//! The control plane's binary: wiring only.

fn main() {}
