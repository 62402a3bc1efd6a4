//! Clusters on this machine: nodes are namespaces with their own containerd and agent, the
//! control plane is a process on the host side. See `xtask/README.md` for the picture.

pub(crate) mod addresses;
mod cgroups;
mod client;
mod containerd;
pub(crate) mod control_plane;
mod daemon;
pub(crate) mod down;
mod etcd;
pub(crate) mod exec;
pub(crate) mod files;
pub(crate) mod image;
mod links;
mod mounts;
mod node;
pub(crate) mod privileged;
mod resolver;
pub(crate) mod supervise;
mod underlay;
pub(crate) mod up;
pub(crate) mod wait;
