//! A port of ours, kept open at the gateway in front of this host (crate `portmap`).
//!
//! What always holds: one gateway of each family is asked, that of the route that the kernel prefers; for IPv4 only where our address there is
//! not the world's. What it says is one more candidate: who can reach this node is found out from what others see.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    num::NonZeroU16,
};

use hextet_kernel::ways::Leaving;
use hextet_mesh::node::is_global;
use hextet_portmap::{Gateway, Keeper, LIFETIME_SECS, Mapping, Transport, Wanted};
use hextet_types::Family;
use tracing::info;

/// Of PCP and NAT-PMP.
const PORT: u16 = 5351;

/// By family.
#[derive(Debug, Default)]
pub struct Mappings(BTreeMap<Family, Kept>);

#[derive(Debug)]
struct Kept {
    wanted: Wanted,
    keeper: Keeper,
    told: Option<Mapping>,
}

impl Mappings {
    /// Asks the gateways that there are now, and says where we are reached by them. `local` is where this node listens.
    pub fn look(&mut self, local: &[SocketAddr], leaving: &[Leaving]) -> Vec<SocketAddr> {
        let gateways = leaving
            .iter()
            .filter_map(|way| Some((way.family, gateway(way)?)));
        let wanted = gateways.filter_map(|(family, is)| Some((family, wants(is, local)?)));
        let wanted: BTreeMap<Family, Wanted> = wanted.collect();
        self.0
            .retain(|family, kept| wanted.get(family) == Some(&kept.wanted));
        for (family, wanted) in wanted {
            let keep = || Kept {
                wanted,
                keeper: Keeper::start(wanted),
                told: None,
            };
            self.0.entry(family).or_insert_with(keep);
        }
        let mut open = Vec::new();
        for kept in self.0.values_mut() {
            let now = *kept.keeper.watch().borrow();
            if std::mem::replace(&mut kept.told, now) != now {
                tell(&kept.wanted, now);
            }
            open.extend(now.map(|mapping| mapping.external));
        }
        open.retain(|at| is_global(at.ip()));
        open
    }
}

fn tell(wanted: &Wanted, now: Option<Mapping>) {
    let gateway = wanted.gateway.address;
    match now {
        Some(Mapping { external, by }) => {
            info!(%gateway, %external, %by, "the gateway lets others reach this node");
        }
        None => info!(%gateway, "the gateway does not let others reach this node any more"),
    }
}

fn gateway(way: &Leaving) -> Option<Gateway> {
    let address = way.gateway?;
    let is_link_local = match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let is_of_family = Family::of(address) == way.family;
    is_of_family.then_some(Gateway {
        address,
        scope: is_link_local.then_some(way.link),
    })
}

/// What is asked of it, if anything.
fn wants(gateway: Gateway, local: &[SocketAddr]) -> Option<Wanted> {
    let mut local = local.iter();
    let own = match gateway.address {
        IpAddr::V4(_) => {
            let towards = towards(gateway.address)?;
            local.find(|at| at.ip() == towards && !is_global(at.ip()))?
        }
        // A gateway of IPv6 has a link-local address: it is told of the address that others are to reach.
        IpAddr::V6(_) => local.find(|at| at.is_ipv6() && is_global(at.ip()))?,
    };
    Some(Wanted {
        gateway,
        client: own.ip(),
        port: NonZeroU16::new(own.port())?,
        transport: Transport::Udp,
        lifetime_secs: LIFETIME_SECS,
    })
}

/// Our address towards another.
pub fn towards(address: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((address, PORT)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_world_does_not_reach_is_asked_for() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let gateway = |text: &str| Gateway {
            address: text.parse().unwrap(),
            scope: None,
        };
        // Towards the loopback address everybody has one.
        let local = [at("127.0.0.1:6698"), at("[2001:db8::7]:6698")];
        let wanted = wants(gateway("127.0.0.9"), &local).map(|wanted| wanted.client);
        assert_eq!(wanted, Some(local[0].ip()));
        assert_eq!(wants(gateway("127.0.0.9"), &local[1..]), None);
        let wanted = wants(gateway("fe80::1"), &local).map(|wanted| wanted.client);
        assert_eq!(wanted, Some(local[1].ip()));
        assert_eq!(wants(gateway("fe80::1"), &[at("[fd00::1]:6698")]), None);
    }
}
