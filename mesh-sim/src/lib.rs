//! A thousand nodes on a synthetic map of the world, each running the mesh's own choice of tunnels with what little it knows.
//!
//! Simulated time only: the same seed gives the same figures on any machine.

pub mod chance;
pub mod experiments;
pub mod graph;
pub mod map;
pub mod measure;
pub mod plot;
pub mod re6st;
pub mod report;
pub mod weather;
pub mod world;
