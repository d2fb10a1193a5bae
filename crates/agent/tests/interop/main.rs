//! hextet's BGP and BFD, as the agent drives them, against the programs of others on a real kernel.
//!
//! Each test has a lab of its own, so they run beside each other. A speaker is a process of its own,
//! that can be killed: this program again, in the role of [`speaker::process`].

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod babel;
mod bfd;
mod bgp;
mod bird;
mod fabric;
mod frr;
mod gobgp;
mod hostile;
mod restart;
mod security;
mod speaker;
