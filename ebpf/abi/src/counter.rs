// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! `drop` and `metric`: a counter for every verdict, a reason for every drop. Written by the
//! programs, one copy a CPU; user space adds them up.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Value of `drop` and `metric`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Count {
    /// Packets, or calls in a socket hook.
    pub packets: u64,
    /// Bytes from the Ethernet header on; 0 in a socket hook.
    pub bytes: u64,
}
super::layout!(Count, size 16, align 8);

/// Defines an enum of counter indexes with its names, both from one list.
macro_rules! counters {
    ($(#[$doc:meta])* $enum:ident { $($(#[$vdoc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $enum { $($(#[$vdoc])* $variant,)* }

        impl $enum {
            /// All of them, by index.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Index in the map.
            #[inline(always)]
            pub const fn index(self) -> u32 {
                self as u32
            }

            /// Name in metrics and on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

counters! {
    /// Why a packet was dropped or a call refused: index into `drop`.
    DropReason {
        /// The packet is shorter than its headers say.
        Malformed = "malformed",
        /// The source is not the pod's own address.
        Spoofed = "spoofed_source",
        /// The service has no backend to take a new connection.
        NoBackend = "no_backend",
        /// The address is a service's, the port is not.
        UnknownPort = "unknown_port",
        /// The table of flows is full (or the insert failed): the packet is not half translated.
        ConntrackFull = "conntrack_full",
        /// The reverse tuple is in use by another flow.
        ConntrackConflict = "conntrack_conflict",
        /// The flow's backend has gone.
        BackendGone = "backend_gone",
        /// A fragment that would need translation: its ports are not known.
        Fragment = "fragment",
        /// A header chain longer than is followed, on a packet to a service.
        HeaderChain = "header_chain",
        /// The kernel refused to write the packet.
        Rewrite = "rewrite_failed",
        /// The device is not in `ifx`.
        NoEndpoint = "no_endpoint",
        /// A protocol that is not translated, to a service's address.
        Protocol = "protocol",
        /// Maps contradict each other (an index without an element).
        Inconsistent = "inconsistent",
        /// The hop limit ran out.
        HopLimit = "hop_limit",
    }
}

counters! {
    /// What was done with a packet or a call that was not refused: index into `metric`.
    Metric {
        /// from_pod: to a pod of this node, by redirection.
        FromPodLocal = "from_pod_local",
        /// from_pod: to another node, by redirection.
        FromPodRemote = "from_pod_remote",
        /// from_pod: handed to the stack.
        FromPodStack = "from_pod_stack",
        /// from_pod: not IP, handed to the stack.
        FromPodOther = "from_pod_other",
        /// to_pod: passed.
        ToPod = "to_pod",
        /// Packet to a service, translated to its backend (also counted by its delivery).
        ServiceForward = "service_forward",
        /// Packet of a backend, translated back to its service (also counted by its delivery).
        ServiceReverse = "service_reverse",
        /// Flows that the packet path has opened.
        ConntrackNew = "conntrack_new",
        /// Flows that collection has removed.
        ConntrackExpired = "conntrack_expired",
        /// ICMP error whose inner packet was translated.
        IcmpTranslated = "icmp_translated",
        /// connect to a service, translated.
        SocketConnect = "socket_connect",
        /// sendmsg to a service, translated.
        SocketSend = "socket_send",
        /// recvmsg from a backend, shown as its service.
        SocketReceive = "socket_receive",
        /// getpeername of a translated socket.
        SocketPeerName = "socket_peer_name",
        /// Release of a counted socket.
        SocketRelease = "socket_release",
        /// Choices that session affinity made.
        Affinity = "affinity",
        /// Choices from the terminating set, since no ready backend was left.
        TerminatingFallback = "terminating_fallback",
    }
}
