// SPDX-License-Identifier: Apache-2.0 OR MIT OR GPL-2.0-only
//! Names of the objects and of the programs in them.

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// `BPF_CGROUP_INET4_CONNECT` and its siblings, on a cgroup2 directory.
    CgroupSockAddr,
    /// `BPF_CGROUP_INET_SOCK_RELEASE`, on a cgroup2 directory.
    CgroupSockRelease,
    /// Ingress of the host side of a pod's veth: packets the pod sends.
    VethIngress,
    /// Egress of the host side of a pod's veth: packets to the pod.
    VethEgress,
    /// Not attached: run by `BPF_PROG_TEST_RUN`.
    TestRun,
}

/// One program of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProgramSpec {
    /// Object: the file is `<object>.o`.
    pub object: &'static str,
    /// Name of the function, of the program in the kernel and of its pinned link.
    pub name: &'static str,
    /// Attach point.
    pub hook: Hook,
}

/// Socket hooks.
pub const OBJECT_SOCK: &str = "sock";
/// Packet hooks on a pod's veth.
pub const OBJECT_POD: &str = "pod";
/// Conntrack collection.
pub const OBJECT_GC: &str = "gc";
/// The selection test program; not part of a running node.
pub const OBJECT_PICK: &str = "pick";

const fn program(object: &'static str, name: &'static str, hook: Hook) -> ProgramSpec {
    ProgramSpec { object, name, hook }
}

/// Every program of a running node.
pub const PROGRAMS: &[ProgramSpec] = &[
    program(OBJECT_SOCK, "connect4", Hook::CgroupSockAddr),
    program(OBJECT_SOCK, "connect6", Hook::CgroupSockAddr),
    program(OBJECT_SOCK, "sendmsg4", Hook::CgroupSockAddr),
    program(OBJECT_SOCK, "sendmsg6", Hook::CgroupSockAddr),
    program(OBJECT_SOCK, "recvmsg4", Hook::CgroupSockAddr),
    program(OBJECT_SOCK, "recvmsg6", Hook::CgroupSockAddr),
    program(OBJECT_SOCK, "getpeername4", Hook::CgroupSockAddr),
    program(OBJECT_SOCK, "getpeername6", Hook::CgroupSockAddr),
    program(OBJECT_SOCK, "sock_release", Hook::CgroupSockRelease),
    program(OBJECT_POD, "from_pod", Hook::VethIngress),
    program(OBJECT_POD, "to_pod", Hook::VethEgress),
    program(OBJECT_GC, "gc4", Hook::TestRun),
    program(OBJECT_GC, "gc6", Hook::TestRun),
];

/// Program of [`OBJECT_PICK`].
pub const PROGRAM_PICK: ProgramSpec = program(OBJECT_PICK, "pick", Hook::TestRun);
