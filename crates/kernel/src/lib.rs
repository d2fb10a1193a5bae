//! The Linux kernel as hextet sees it: the only crate that speaks netlink, nftables, tc, conntrack, sysctl
//! and network namespaces.
//!
//! [`Kernel`] makes the kernel equal to a desired state and touches only what is ours. Everything here
//! blocks for as long as a system call does; nothing here decides what should stand.

pub mod allocator;
mod audiences;
mod bpf;
mod btf;
pub mod conntrack;
mod edge;
mod error;
pub mod filter;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod host;
pub mod links;
pub mod netlink;
pub mod netns;
mod nft;
pub mod packet;
mod patch;
pub mod priority;
mod reconcile;
mod route;
mod sources;
pub mod sysctl;
mod tc;
pub mod tcp;
mod tcx;
pub mod tun;
pub mod udp;
mod uplink;
pub mod ways;
pub mod wireguard;
pub mod workload;

mod xfrm;

pub use error::{Error, Refusal};
pub use reconcile::{
    Config, Counted, Expected, Keeper, Kernel, Look, Onlooker, Op, Report, Scope, Seen, Standing,
    diff, diff_keys,
};
pub use route::PROTOCOL;
