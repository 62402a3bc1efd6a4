// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The time-outs of flows, as the loader has configured them.

use ebpf_abi::config::Config;

use crate::rodata::config;

/// Time-outs in a configuration; the rest of it is at its default.
#[inline(always)]
pub(crate) fn timeouts() -> Config {
    Config {
        tcp_syn_s: config!(tcp_syn_s),
        tcp_established_s: config!(tcp_established_s),
        tcp_fin_s: config!(tcp_fin_s),
        tcp_rst_s: config!(tcp_rst_s),
        udp_new_s: config!(udp_new_s),
        udp_assured_s: config!(udp_assured_s),
        ..Config::DEFAULT
    }
}
