//! The mesh situation's decisions: who belongs to a network, which addresses a node has, which tunnels it makes.
//!
//! A pure crate: no socket, no clock, no randomness of its own. What is measured, heard and drawn by chance comes by events and seeds.
//!
//! [`key`] signs and checks, [`signed`] is what all that is signed has in common; [`certificate`] says who a node is, [`issuers`] who may
//! say so, [`parameters`] what holds for a whole network, [`revocation`] which certificates count no more, [`rules`] who may talk to whom, and [`trust`] judges by all of
//! these; [`gossip`] brings all that to every node. [`token`] is how somebody is let in, [`allocator`] which addresses are free. [`topology`]
//! chooses tunnels, [`letter`] is how nodes agree on them, and [`node`] is one that does all this.

pub mod allocator;
pub mod certificate;
pub mod gossip;
pub mod issuers;
pub mod key;
pub mod label;
pub mod letter;
pub mod node;
pub mod parameters;
pub mod request;
pub mod revocation;
pub mod rules;
pub mod signed;
pub mod token;
pub mod topology;
pub mod trust;
mod wire;
