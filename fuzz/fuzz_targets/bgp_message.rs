//! The body of one BGP message, which gets deeper than a stream with its headers does.
//!
//! The first octet says what the session has negotiated, the second which message it is.

#![no_main]

use hextet_bgp::packet::MessageType;
use hextet_fuzz::{bgp_context, read_bgp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [negotiated, kind, body @ ..] = input else {
        return;
    };
    if let Some(kind) = MessageType::from_octet(*kind) {
        read_bgp(kind, body, &bgp_context(*negotiated));
    }
});
