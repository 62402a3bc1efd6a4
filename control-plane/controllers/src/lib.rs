//! The controllers: one directory each, a pure plan and its I/O.
