//! A host as somebody finds it who has not touched it yet: its links, its own addresses, its routes.
//!
//! Only looks. What is ours is among it, and says so.

use std::net::IpAddr;

use hextet_model::state::Netns;
use hextet_types::{Family, Mac, Prefix};

use crate::{
    error::Error,
    links::{Found as Link, Links},
    netlink::{Answer, Attrs, Batch, Socket, addr, ne32},
    route::{
        address::{self, Found as Address},
        af, family, neighbour,
    },
};

pub use crate::route::address::{Found as OwnAddress, Standing};

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTMSG: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTNEXTHOP: usize = 8;
const TABLE_MAIN: u32 = 254;
const RTN_UNICAST: u8 = 1;
/// Set on what the kernel remembers of a destination only (`rtm_flags`).
const RTM_F_CLONED: u32 = 0x200;
/// Learned from router advertisements (`rtm_protocol`).
const RTPROT_RA: u8 = 9;

/// What there is in the caller's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// All links.
    pub links: Vec<Link>,
    /// All addresses.
    pub addresses: Vec<Address>,
    /// The unicast routes of the main table.
    pub routes: Vec<HostRoute>,
}

/// A route of the host itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// Where to.
    pub prefix: Prefix,
    /// By way of; none where that is on the link.
    pub gateway: Option<IpAddr>,
    /// By the link of this index.
    pub link: u32,
    /// The smaller, the better.
    pub metric: u32,
    /// Whether a router's advertisement made it.
    pub by_router: bool,
}

/// Looks around.
///
/// # Errors
///
/// The kernel can't be asked.
pub fn look() -> Result<Host, Error> {
    let links = Links::open(&Netns::Main)?.list(false)?;
    let mut socket = Socket::open(libc::NETLINK_ROUTE as isize, "rtnetlink")?;
    let mut request = Batch::default();
    address::request_all(&mut request);
    let addresses = socket.dump(&mut request, address::read)?;
    let mut routes = Vec::new();
    for family in Family::BOTH {
        let mut request = Batch::default();
        let mut header = [0; RTMSG];
        header[0] = af(family);
        request.message(RTM_GETROUTE, 0, &header);
        routes.extend(socket.dump(&mut request, read_route)?);
    }
    Ok(Host {
        links,
        addresses,
        routes,
    })
}

/// All neighbours: on the link of an index, the address, and the Ethernet address if it is known.
///
/// # Errors
///
/// The kernel can't be asked.
pub fn neighbours() -> Result<Vec<(u32, IpAddr, Option<Mac>)>, Error> {
    let mut socket = Socket::open(libc::NETLINK_ROUTE as isize, "rtnetlink")?;
    let mut request = Batch::default();
    neighbour::request_all(&mut request);
    socket.dump(&mut request, neighbour::read_any)
}

fn read_route(answer: &Answer<'_>) -> Option<HostRoute> {
    let head = answer.payload.get(..RTMSG)?;
    if answer.kind != RTM_NEWROUTE || head[7] != RTN_UNICAST {
        return None;
    }
    let attrs = Attrs::after(answer.payload, RTMSG);
    let table = attrs.get(RTA_TABLE).and_then(ne32);
    let cloned = ne32(&head[8..])? & RTM_F_CLONED != 0;
    if table.unwrap_or(u32::from(head[4])) != TABLE_MAIN || cloned {
        return None;
    }
    let to = match attrs.get(RTA_DST) {
        Some(value) => addr(value)?,
        None => family(head[0])?.unspecified(),
    };
    let (link, gateway) = match (attrs.get(RTA_OIF), attrs.get(RTA_MULTIPATH)) {
        (Some(link), _) => (ne32(link)?, attrs.get(RTA_GATEWAY).and_then(addr)),
        // Of several next hops the first stands for all.
        (None, Some(hops)) => {
            let gateway = Attrs::after(hops, RTNEXTHOP).get(RTA_GATEWAY);
            (ne32(hops.get(4..)?)?, gateway.and_then(addr))
        }
        (None, None) => return None,
    };
    Some(HostRoute {
        prefix: Prefix::new(to, head[1]).ok()?,
        gateway,
        link,
        metric: attrs.get(RTA_PRIORITY).and_then(ne32).unwrap_or(0),
        by_router: head[5] == RTPROT_RA,
    })
}

impl Host {
    /// The link of an index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The best default route of a family.
    pub fn default_route(&self, family: Family) -> Option<&HostRoute> {
        let of_family = |r: &&HostRoute| r.prefix.is_default() && r.prefix.family() == family;
        let defaults = self.routes.iter().filter(of_family);
        defaults.min_by_key(|route| route.metric)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{self, Command};

    use super::*;
    use crate::netns::{self, Handle};

    #[test]
    fn a_host_is_seen_as_it_is() {
        let name = format!("hxt-{}-look", process::id());
        netns::create(&name).unwrap();
        let ip = |words: &str| {
            let all = words.split(' ');
            let done = Command::new("ip").args(["-n", &name]).args(all).status();
            assert!(done.unwrap().success(), "ip {words}");
        };
        ip("link add eth0 type veth peer name other");
        ip("link set other up");
        ip("link set eth0 up");
        ip("addr add 192.0.2.7/24 dev eth0");
        ip("addr add 2001:db8::7/64 dev eth0 nodad valid_lft 1000 preferred_lft 500");
        ip("addr add 2001:db8::8/64 dev eth0 nodad");
        ip("route add default via 192.0.2.1");
        ip("-6 route add default via fe80::1 dev eth0 proto ra metric 100");
        let handle = Handle::open(&Netns::Named(name.clone())).unwrap();
        let host = handle.run(look).unwrap().unwrap();
        netns::delete(&name).unwrap();
        let eth0 = host.links.iter().find(|l| l.name.as_str() == "eth0");
        let eth0 = eth0.unwrap().index;
        let address = |text: &str| {
            let addr: IpAddr = text.parse().unwrap();
            let found = host.addresses.iter().find(|a| a.addr == addr).unwrap();
            assert_eq!(found.index, eth0, "{text}");
            (found.prefix_len, found.standing)
        };
        assert_eq!(address("192.0.2.7").0, 24);
        let (len, standing) = address("2001:db8::7");
        assert!(len == 64 && !standing.permanent && !standing.duplicate);
        assert!((490..=500).contains(&standing.preferred_secs.unwrap()));
        assert!((990..=1000).contains(&standing.valid_secs.unwrap()));
        let (_, standing) = address("2001:db8::8");
        assert_eq!((standing.permanent, standing.valid_secs), (true, None));
        let v4 = host.default_route(Family::V4).unwrap();
        assert_eq!(v4.gateway, Some("192.0.2.1".parse().unwrap()));
        let v6 = host.default_route(Family::V6).unwrap();
        assert_eq!((v6.link, v6.metric, v6.by_router), (eth0, 100, true));
        assert_eq!(v6.gateway, Some("fe80::1".parse().unwrap()));
    }
}
