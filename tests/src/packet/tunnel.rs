//! Tunnels that carry a whole frame or packet; IPIP and 6in4 are an IP packet as a payload (protocols 4
//! and 41) and need nothing from here.

use super::{Ends, Payload, udp};

/// VXLAN (RFC 7348) with that VNI around a frame.
pub fn vxlan(ends: Ends, vni: u32, frame: &[u8]) -> Payload {
    let [_, a, b, c] = vni.to_be_bytes();
    let data = [&[8, 0, 0, 0, a, b, c, 0][..], frame].concat();
    udp(ends, 49152, 4789, &data)
}

/// GRE (RFC 2784) around a payload of that EtherType.
pub fn gre(ethertype: u16, inner: &[u8]) -> Payload {
    let octets = [&[0, 0][..], &ethertype.to_be_bytes(), inner].concat();
    Payload {
        protocol: 47,
        octets,
    }
}
