//! What a node reads besides letters and Babel, for its fuzz target: answers to echo requests, and what its operator says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hextet_types::Family;

use crate::{config::Config, direct::echo, trace};

/// What anybody answers to a direct route's echo request, or to a trace's.
pub fn read_answer(octets: &[u8], (ident, sequence): (u16, u16)) {
    for family in Family::BOTH {
        let from = match family {
            Family::V4 => IpAddr::from(Ipv4Addr::LOCALHOST),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        };
        let _ = (
            echo::reply(from, octets, ident),
            trace::answer(family, octets, (ident, sequence)),
        );
    }
}

/// What an operator writes.
pub fn read_config(text: &str) {
    let _ = Config::parse(text);
}
