//! Packets, composed from the inside out: a [`Payload`] (what follows an IP header), put behind extension
//! headers, cut into fragments, wrapped into an IP packet, and that into a frame.
//!
//! Checksums and lengths are right unless a test bends them afterwards. The words are those of the RFCs.

mod ether;
mod extension;
mod icmp;
mod ip;
mod nd;
mod service;
mod transport;
mod tunnel;

pub use ether::{Ether, arp, ether, ether_ip, tagged};
pub use extension::{Extension, fragment, fragments};
pub use icmp::{Icmp, echo_request, error, icmp, is_icmp};
pub use ip::{Ends, Ip, Parsed, Payload, parse};
pub use nd::{
    NdOption, neighbour_advertisement, neighbour_solicitation, redirect, router_advertisement,
    router_solicitation, solicited_node,
};
pub use service::{dhcpv4_offer, dhcpv4_request, dhcpv6_reply, dhcpv6_request};
pub use transport::{Tcp, tcp, udp};
pub use tunnel::{gre, vxlan};

use etherparse::checksum::Sum16BitWords;

/// What the test recognises its own packets by.
pub const MARKER: &[u8; 16] = b"hextet-test-mark";

/// Whether a frame carries the marker, be it in a tunnel or quoted in an error.
pub fn is_marked(frame: &[u8]) -> bool {
    frame.windows(MARKER.len()).any(|window| window == MARKER)
}

/// The Internet checksum (RFC 1071) over parts, each of even length but the last.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let sum = parts
        .iter()
        .fold(Sum16BitWords::new(), |sum, part| sum.add_slice(part));
    sum.ones_complement().to_ne_bytes()
}
