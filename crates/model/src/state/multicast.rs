//! What ports' programs know of multicast: entries in their maps.

use std::net::{IpAddr, Ipv6Addr};

use hextet_types::{Family, IfName, Mac};
use serde::{Deserialize, Serialize};

use super::{Netns, Object};

/// Who gets what comes by a link of VRRP (RFC 5798, RFC 9568), which is sent to all of a network that have asked for it: an
/// entry in the map of the program there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    /// Where both links are.
    pub netns: Netns,
    /// The port's link, or the VXLAN device, that it comes in by.
    pub link: IfName,
    /// The sender's Ethernet address.
    pub from: Mac,
    /// Of advertisements of this family.
    pub family: Family,
    /// Which of the sender's receivers it is; less than [`Receiver::MOST`].
    pub slot: u8,
    /// The link that a copy leaves by.
    pub to: IfName,
    /// The number of the host that it goes to, where that is a VXLAN device.
    pub host: Option<u32>,
    /// Whether any source will do.
    pub any_source: bool,
}

impl Receiver {
    /// Receivers of one sender and family.
    pub const MOST: u8 = 16;
}

/// What the program on a link of a private network knows of it, to make copies of what is sent to groups: an entry in its
/// map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaker {
    /// Where the link is.
    pub netns: Netns,
    /// A port's link, or the VXLAN device.
    pub link: IfName,
    /// Which it is.
    pub fact: SpeakerFact,
    /// The value; see [`SpeakerFact`].
    pub value: u64,
}

/// See [`Speaker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpeakerFact {
    /// The number of its network, see [`Netns::number`]. Without it nothing is copied.
    Network,
    /// The first 64 bits of the IPv6 address that a port speaks from where its own source is link-local.
    OwnHigh,
    /// The other 64 bits.
    OwnLow,
}

impl Speaker {
    /// All that is to be said of a link in the network of that number.
    pub fn all(link: &IfName, network: u64, own: Option<Ipv6Addr>) -> Vec<Object> {
        let own = own.map(|own| own.to_bits());
        let halves = own.map(|own| {
            let (high, low) = ((own >> 64) as u64, own as u64);
            [(SpeakerFact::OwnHigh, high), (SpeakerFact::OwnLow, low)]
        });
        let network = [(SpeakerFact::Network, network)].into_iter();
        let facts = network.chain(halves.into_iter().flatten());
        let object = |(fact, value)| {
            Object::Speaker(Speaker {
                netns: Netns::Main,
                link: link.clone(),
                fact,
                value,
            })
        };
        facts.map(object).collect()
    }
}

/// Who of a private network has joined a group, as programs know it: one entry in their map, which changes at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audience {
    /// The network's namespace.
    pub netns: Netns,
    /// The group.
    pub group: IpAddr,
    /// At most [`Audience::MOST`].
    pub listeners: Vec<Listener>,
}

impl Audience {
    /// Listeners of a group: each packet to it becomes so many.
    pub const MOST: usize = 64;
}

/// Who has joined a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The port's own address of the group's family.
    pub addr: IpAddr,
    /// The port's Ethernet address.
    pub mac: Mac,
    /// Whether the port is on this host.
    pub here: bool,
}
