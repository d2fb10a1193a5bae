//! What comes from the kernel, for its fuzz target: all readers of netlink messages at once.

use hextet_model::state::Netns;

use crate::{
    conntrack, netlink, nft,
    route::{Indexes, address, entry, fdb, link, made, neighbour, rule},
    tc, ways, wireguard, xfrm,
};

/// Reads a datagram as every socket of ours might.
pub fn read_datagram(octets: &[u8]) {
    let mut links = Indexes::default();
    for answer in netlink::answers(octets) {
        if let Some(found) = link::read(&answer) {
            links.insert(found);
        }
        let _ = (
            link::name(&answer),
            link::turned(&answer),
            tc::link_index(&answer),
        );
        let _ = (
            address::read(&answer),
            neighbour::read(&answer),
            fdb::read(&answer),
            made::read_nsid(&answer),
            rule::read(&answer),
        );
        if let Some((key, Ok(route))) = entry::read(&answer, &Netns::Main, &links) {
            assert_eq!(route.key, key);
        }
        let _ = (
            xfrm::read(&answer),
            xfrm::concerns_us(&answer),
            tc::read_qdisc(&answer),
        );
        let _ = (wireguard::read(&answer), wireguard::read_family(&answer));
        ways::read_any(&answer);
        conntrack::read_any(&answer);
        nft::read_any(&answer);
        netlink::hear(&answer);
    }
}
