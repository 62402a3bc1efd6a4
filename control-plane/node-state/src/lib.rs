//! One index of desired state, a delta stream for each node.
