//! Looking at a node's datapath from its pins alone, with or without an agent.

pub mod names;
