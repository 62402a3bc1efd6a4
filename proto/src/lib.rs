//! What crosses a process boundary: node stream, operator inspection, CRI.
