//! One IPv4 address's ports 80 and 443 for many sites: who is meant stands in what clients send first.
//!
//! * [`name`], [`hello`], [`http`], [`sites`]: pure; names, the readers of a ClientHello (RFC 6066 §3) and of a request's head
//!   (RFC 9112 §3.2), and the table.
//! * [`Proxy`] hands connections on.
//!
//! What always holds: TLS is passed through, octet for octet; nothing is kept of a client but what it sent before it was known
//! whom it means, and that is bounded; a connection goes on where it went at first, whatever the table says later.

pub mod hello;
pub mod http;
pub mod listen;
pub mod name;
pub mod sites;

pub use listen::{Limits, Proxy};
pub use name::HostName;
pub use sites::{Backend, Site, Sites};

/// What the beginning of a connection says of whom it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Nothing yet: more has to come.
    More,
    /// This site; none where it names none.
    Name(Option<HostName>),
    /// It is not what it has to be.
    Bad(&'static str),
}

/// Octets that are read before it has to be known who is meant.
pub const MAX_HEAD: usize = 16 * 1024 + 5;
