//! One hypervisor in a network namespace of its own, all of it in the process of a test: what
//! [`hypervisor::Hypervisor`] plans and applies is what an agent would, the ports are TAPs whose other end
//! the test holds ([`wire::Wire`]), and frames are composed octet by octet ([`packet`]).
//!
//! The kernel forwards within the system call that sends a frame, so a test needs no waiting to be right.
//! Nothing here leaves the namespace; what is made ends with the thread that made it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "all of this is part of tests: what fails here is the test that asked for it"
)]

pub mod cloud;
pub mod defence;
pub mod hypervisor;
pub mod packet;
pub mod responder;
pub mod site;
pub mod told;
pub mod wire;
