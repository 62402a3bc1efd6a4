// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Words about verdicts, for builds with the feature `log`. Without it they cost nothing: neither an
//! instruction nor a map. Arguments are evaluated in such builds only.

/// Says something through aya-log's ring buffer: `say!(warn, "dropped: reason {}", reason)`.
#[cfg(feature = "log")]
macro_rules! say {
    ($level:ident, $($words:tt)+) => {
        aya_log_ebpf::$level!((), $($words)+)
    };
}

#[cfg(not(feature = "log"))]
macro_rules! say {
    ($($words:tt)+) => {};
}

pub(crate) use say;
