//! Neighbour discovery and DHCP messages by themselves: what was read is read the same after it was written.
//!
//! The first octet says which message it is.

#![no_main]

use std::fmt::Debug;

use hextet_autoconf::{
    dhcpv4, dhcpv6,
    nd::{NeighbourAdvertisement, NeighbourSolicitation, RouterSolicitation},
    ra::RouterAdvertisement,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [which, message @ ..] = input else { return };
    match which % 6 {
        0 => read_again(
            message,
            |m| RouterSolicitation::decode(m).ok(),
            RouterSolicitation::encode,
        ),
        1 => read_again(
            message,
            |m| RouterAdvertisement::decode(m).ok(),
            RouterAdvertisement::encode,
        ),
        2 => read_again(
            message,
            |m| NeighbourSolicitation::decode(m).ok(),
            NeighbourSolicitation::encode,
        ),
        3 => read_again(
            message,
            |m| NeighbourAdvertisement::decode(m).ok(),
            NeighbourAdvertisement::encode,
        ),
        4 => read_again(
            message,
            dhcpv6::message::Message::decode,
            dhcpv6::message::Message::encode,
        ),
        _ => {
            // What is written is bounded. It is read again where it is of the kind that we write: without
            // a client's own overload of the name fields (RFC 2132 §9.3), which the writer manages itself.
            let Some(read) = dhcpv4::message::Message::decode(message) else {
                return;
            };
            let written = read.encode(1_472);
            assert!(written.len() <= 1_472);
            let overloaded = read.options.get(52).is_some();
            assert!(overloaded || dhcpv4::message::Message::decode(&written).is_some());
        }
    }
});

fn read_again<T: PartialEq + Debug>(
    message: &[u8],
    decode: impl Fn(&[u8]) -> Option<T>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    let Some(read) = decode(message) else { return };
    assert_eq!(decode(&encode(&read)), Some(read));
}
