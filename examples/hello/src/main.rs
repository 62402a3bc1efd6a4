//! An HTTP server that answers with its pod's name, node and address.

fn main() {}
