//! What a node knows of a neighbour by the packets between them.

mod history;
mod rtt;

pub use history::History;
pub use rtt::{Rtt, Stamps};
