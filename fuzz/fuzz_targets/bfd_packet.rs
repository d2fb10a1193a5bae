//! A BFD control packet from the network: no panic, and what was read is written as it was read.

#![no_main]

use hextet_bfd::packet::Packet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let Ok(packet) = Packet::decode(payload) else {
        return;
    };
    let written = packet.encode();
    assert!(written.len() <= payload.len());
    assert_eq!(Packet::decode(&written).as_ref(), Ok(&packet));
});
