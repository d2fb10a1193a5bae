//! What is wrong on a host and on the links that it is on: each finding with its evidence and its remedy.
//!
//! * [`observation`]: what was seen, as plain data.
//! * [`finding`], [`judge`], [`firewall`]: pure; what follows from it.
//! * `look`: seeing.
//!
//! What always holds: nothing is changed by looking. What is sent is a router solicitation on each link, and, to addresses that
//! somebody names, a few echo requests.

pub mod finding;
pub mod firewall;
pub mod judge;
mod look;
pub mod observation;

pub use finding::{Code, Finding, Severity};
pub use judge::findings;
pub use look::{Asked, look, rules_of_others};
