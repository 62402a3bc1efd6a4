//! Service tables to kernel maps.
