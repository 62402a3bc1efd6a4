//! Desired state of this node as tables with one revision.
