//! Which interface a next hop is behind.

use std::net::IpAddr;

use hextet_bgp::Hop;
use hextet_model::state::NextHop;
use hextet_types::{IfName, Prefix};
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

use crate::config::BgpConfig;

/// The prefixes that are on links of this host.
#[derive(Clone, Debug, Default)]
pub struct NextHops {
    /// Whether there is any peer to learn one from.
    wanted: bool,
    /// Peers whose interface was configured.
    peers: Vec<(IpAddr, IfName)>,
    on_link: Vec<(Prefix, IfName)>,
}

impl NextHops {
    /// For these peers, with the addresses that the host has now.
    pub fn new(config: Option<&BgpConfig>) -> NextHops {
        let peers = config.iter().flat_map(|c| &c.peers);
        let peers = peers
            .filter_map(|p| Some((p.address, p.interface.clone()?)))
            .collect();
        let mut next_hops = NextHops {
            wanted: config.is_some(),
            peers,
            on_link: Vec::new(),
        };
        next_hops.refresh();
        next_hops
    }

    /// Whether there is anybody to learn routes from.
    pub fn are_wanted(&self) -> bool {
        self.wanted
    }

    /// Looks at the host's addresses anew.
    pub fn refresh(&mut self) {
        if !self.wanted {
            return;
        }
        let Ok(addresses) = getifaddrs() else { return };
        self.on_link = addresses
            .filter(|a| a.flags.contains(InterfaceFlags::IFF_UP))
            .filter_map(|a| {
                let address = ip(a.address?)?;
                let mask = ip(a.netmask?)?;
                let len = match mask {
                    IpAddr::V4(mask) => u32::from(mask).leading_ones(),
                    IpAddr::V6(mask) => u128::from(mask).leading_ones(),
                };
                let prefix = Prefix::new(address, u8::try_from(len).ok()?).ok()?;
                Some((prefix, a.interface_name.parse().ok()?))
            })
            .collect();
    }

    /// The hop with its interface: its own, its peer's, or that of the longest prefix it lies in.
    pub fn resolve(&self, hop: &Hop) -> Option<NextHop> {
        let configured = || {
            self.peers
                .iter()
                .find(|(a, _)| *a == hop.addr)
                .map(|(_, i)| i.clone())
        };
        let connected = || {
            let covering = self
                .on_link
                .iter()
                .filter(|(prefix, _)| prefix.contains(hop.addr));
            covering
                .max_by_key(|(prefix, _)| prefix.len())
                .map(|(_, i)| i.clone())
        };
        let link = hop
            .interface
            .clone()
            .or_else(configured)
            .or_else(connected)?;
        Some(NextHop {
            via: Some(hop.addr),
            link,
        })
    }
}

fn ip(address: nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_hops() -> NextHops {
        NextHops {
            wanted: true,
            peers: vec![("192.0.2.9".parse().unwrap(), "eth9".parse().unwrap())],
            on_link: vec![
                ("192.0.2.0/24".parse().unwrap(), "eth0".parse().unwrap()),
                ("192.0.2.0/31".parse().unwrap(), "eth1".parse().unwrap()),
            ],
        }
    }

    #[test]
    fn the_nearest_knowledge_of_the_interface_wins() {
        let resolve = |addr: &str, interface: Option<&str>| {
            let interface = interface.map(|i| i.parse().unwrap());
            let hop = Hop {
                addr: addr.parse().unwrap(),
                interface,
            };
            next_hops().resolve(&hop).map(|h| h.link.to_string())
        };
        assert_eq!(resolve("fe80::1", Some("eth7")).as_deref(), Some("eth7"));
        assert_eq!(resolve("192.0.2.9", None).as_deref(), Some("eth9"));
        assert_eq!(resolve("192.0.2.1", None).as_deref(), Some("eth1"));
        assert_eq!(resolve("192.0.2.77", None).as_deref(), Some("eth0"));
        assert_eq!(resolve("198.51.100.1", None), None);
    }
}
