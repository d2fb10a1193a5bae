//! Listeners: accept, encrypt, serve, drain.

pub mod answer;
pub mod listener;
mod patience;
