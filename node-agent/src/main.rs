//! The node agent's binary: wiring only.

fn main() {}
