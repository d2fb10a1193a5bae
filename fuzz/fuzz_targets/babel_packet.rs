//! A packet of Babel from the network: no panic, and what was read, written and read again, is the same.

#![no_main]

use std::net::{IpAddr, Ipv6Addr};

use hextet_babel::packet::{Frame, Writer, decode};
use libfuzzer_sys::fuzz_target;

const FROM: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

fuzz_target!(|datagram: &[u8]| {
    let Ok(frame) = Frame::of(datagram) else {
        return;
    };
    assert!(frame.macs().map(<[u8]>::len).sum::<usize>() <= frame.trailer.len());
    let decoded = decode(frame.body, FROM);
    assert!(2 * (decoded.tlvs.len() + decoded.ignored) <= frame.body.len() + 1);
    for tlv in decoded.tlvs {
        let mut writer = Writer::new(512, FROM);
        writer.push(&tlv).expect("each fits alone");
        let packet = writer.finish();
        let again = decode(Frame::of(&packet).expect("a packet").body, FROM);
        assert_eq!((again.tlvs.as_slice(), again.ignored), (&[tlv][..], 0));
    }
});
