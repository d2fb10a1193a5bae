//! Private networks on real kernels, kept by real agents: each test has hosts of its own, joined by an underlay.
//!
//! An agent is a process of its own, that can be killed: this program again, in the role of [`agent::process`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, that is how it fails"
)]

mod agent;
mod clients;
mod forged;
mod host;
mod isolation;
mod lasting;
mod policy;
mod tampering;
mod world;
