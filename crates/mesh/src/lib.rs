//! The mesh situation's decisions: which tunnels a node makes.
//!
//! A pure crate: no socket, no clock, no randomness of its own. What is measured, heard and drawn by chance comes by events and seeds.

pub mod topology;
