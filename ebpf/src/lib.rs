// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What happens to a packet or a call: the decisions, without a kernel helper in sight.
//!
//! Everything here runs on the host under `cargo test`; the programs under `programs/` only load
//! bytes, look up maps and act on the answers. Maps come in through [`select::ServiceMaps`].
#![cfg_attr(not(test), no_std)]

pub mod checksum;
pub mod conntrack;
pub mod family;
pub mod packet;
pub mod select;
pub mod words;
