//! Random clouds, and whether the kernel does with their packets what an explanation says.
//!
//! A world is made of a seed: networks, groups, ports and one to three hosts of both families
//! ([`make`]). Each host is a network namespace with the state that its plan asks for; what leaves one by
//! its uplink is carried to the one that announces the address, or lost in the world outside ([`site`]).
//! Packets are mostly honest, and otherwise all that a workload or a stranger may try ([`shot`]). Of each
//! packet `explain` says what becomes of it at every host that it passes; what really comes out, where, and
//! with which addresses must be just that ([`run`]).
//!
//! Worlds of projects have private networks, routers and ways outside ([`tenant`]); what connection tracking knows
//! there is written down in [`track`].
//!
//! A generator that meets nothing proves nothing, so its coverage is counted ([`coverage`]), and planted
//! faults of a plan have to be noticed ([`fault`]).
//!
//! Nothing here leaves its namespaces. Neither a world nor its packets depend on anything but the seed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "all of this is a test: what fails here is the test that asked for it"
)]

pub mod coverage;
pub mod fault;
pub mod make;
pub mod run;
pub mod shot;
pub mod suite;
pub mod tenant;
pub mod track;
