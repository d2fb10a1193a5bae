//! Worlds of projects: private networks with the same addresses on the same hosts, routers, and ways outside.
//!
//! Their hosts are joined by an underlay that the suite carries frame by frame, so that it sees what is in a tunnel,
//! and can forge it. What becomes of a packet `explain` says for each host that it comes to, when it is told what
//! connection tracking knows there ([`crate::track`]); and by the names of the places that a packet has passed it is
//! counted what the worlds have met ([`met`]).

pub mod look;
pub mod make;
pub mod met;
pub mod run;
pub mod shot;
