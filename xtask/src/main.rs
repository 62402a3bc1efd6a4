//! Build, load, verify, cluster, test, lint, bench.

fn main() {}
