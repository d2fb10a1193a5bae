//! Octets from a BGP peer, in pieces of any size, cut into messages and read.
//!
//! The first octet says what the session has negotiated, the second how large the pieces are.

#![no_main]

use hextet_bgp::packet::Framer;
use hextet_fuzz::{bgp_context, read_bgp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [negotiated, piece, octets @ ..] = input else {
        return;
    };
    let context = bgp_context(*negotiated);
    let mut framer = Framer::new();
    if negotiated & 1 << 4 != 0 {
        framer.allow_extended();
    }
    for piece in octets.chunks(usize::from(*piece).max(1)) {
        framer.push(piece);
        assert!(framer.buffered() <= octets.len());
        loop {
            match framer.next_message() {
                Ok(Some((kind, body))) => read_bgp(kind, body, &context),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
