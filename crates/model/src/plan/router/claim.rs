//! Who answers for which address outside of routers, and for whom that matters.
//!
//! A claim is what somebody says, whether or not it holds: that is looked at when the address is planned
//! ([`super::outside::public`]). Of several that hold for an address the first wins.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_types::{FloatingIpId, NetworkId, PortForwardingId, Prefix, RouterId};

use super::{is_usable, take_out};
use crate::intent::{FloatingIp, PortForwarding, Router};

/// Whose an address may be; the order is that in which claims win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// A router's own: a gateway's, or one of its interfaces that is published.
    Router(RouterId),
    /// A floating IP for an address here.
    Floating(FloatingIpId),
    /// A floating IP whose ports are forwarded.
    Forwarding(PortForwardingId),
    /// A port's here, on a private network.
    Port(NetworkId),
}

/// All claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Routers with a gateway there.
    with_gateway: BTreeMap<NetworkId, BTreeSet<RouterId>>,
    of: BTreeMap<IpAddr, BTreeSet<Claim>>,
    /// Floating IPs and forwardings that name the router.
    by: BTreeMap<RouterId, BTreeSet<Claim>>,
    /// Floating IPs for an address.
    standing_for: BTreeMap<(NetworkId, IpAddr), BTreeSet<FloatingIpId>>,
    /// Addresses that lead to a port here.
    living: BTreeMap<NetworkId, BTreeSet<IpAddr>>,
}

/// Addresses that a router answers for itself, if it can.
pub fn own_addresses(router: &Router) -> BTreeSet<IpAddr> {
    let gateways = router.gateways.values().flat_map(|g| &g.fixed_ips);
    let inside = router.interfaces.values().flat_map(|i| &i.fixed_ips);
    let published = inside.filter(|f| is_published(router, f.ip_address));
    let all = gateways.chain(published).map(|f| f.ip_address);
    all.filter(|addr| is_usable(*addr)).collect()
}

/// Whether that address is reached untranslated.
pub fn is_published(router: &Router, addr: IpAddr) -> bool {
    router.published.iter().any(|prefix| prefix.contains(addr))
}

fn gateway_networks(router: &Router) -> impl Iterator<Item = NetworkId> + '_ {
    router.gateways.values().map(|gateway| gateway.network_id)
}

impl Claims {
    /// A router is another now, or is gone.
    pub fn set_router(&mut self, id: RouterId, old: Option<&Router>, new: Option<&Router>) {
        if let Some(old) = old {
            for network in gateway_networks(old) {
                take_out(&mut self.with_gateway, &network, id);
            }
            for addr in own_addresses(old) {
                take_out(&mut self.of, &addr, Claim::Router(id));
            }
        }
        if let Some(new) = new {
            for network in gateway_networks(new) {
                self.with_gateway.entry(network).or_default().insert(id);
            }
            for addr in own_addresses(new) {
                self.of.entry(addr).or_default().insert(Claim::Router(id));
            }
        }
    }

    /// A floating IP stands for another address now, or is gone.
    pub fn set_floating(&mut self, old: Option<&FloatingIp>, new: Option<&FloatingIp>) {
        let behind = |ip: &FloatingIp| (ip.network_id, IpAddr::V4(ip.fixed_ip_address));
        let place = |ip: &FloatingIp| (IpAddr::V4(ip.floating_ip_address), ip.router_id);
        if let Some(old) = old {
            self.unclaim(place(old), Claim::Floating(old.id));
            take_out(&mut self.standing_for, &behind(old), old.id);
        }
        if let Some(new) = new {
            self.claim(place(new), Claim::Floating(new.id));
            let standing = self.standing_for.entry(behind(new)).or_default();
            standing.insert(new.id);
        }
    }

    /// A port forwarding is another now, or is gone.
    pub fn set_forwarding(&mut self, old: Option<&PortForwarding>, new: Option<&PortForwarding>) {
        let place = |f: &PortForwarding| (IpAddr::V4(f.floating_ip_address), f.router_id);
        if let Some(old) = old {
            self.unclaim(place(old), Claim::Forwarding(old.id));
        }
        if let Some(new) = new {
            self.claim(place(new), Claim::Forwarding(new.id));
        }
    }

    fn claim(&mut self, (addr, router): (IpAddr, RouterId), claim: Claim) {
        self.of.entry(addr).or_default().insert(claim);
        self.by.entry(router).or_default().insert(claim);
    }

    fn unclaim(&mut self, (addr, router): (IpAddr, RouterId), claim: Claim) {
        take_out(&mut self.of, &addr, claim);
        take_out(&mut self.by, &router, claim);
    }

    /// An address of a private network leads to a port here, or does not; gives whether that is new.
    pub fn set_port(&mut self, network: NetworkId, addr: IpAddr, lives: bool) -> bool {
        if self.lives(network, addr) == lives {
            return false;
        }
        let claim = Claim::Port(network);
        if lives {
            self.living.entry(network).or_default().insert(addr);
            self.of.entry(addr).or_default().insert(claim);
        } else {
            take_out(&mut self.living, &network, addr);
            take_out(&mut self.of, &addr, claim);
        }
        true
    }

    /// Whether an address of a private network leads to a port here.
    pub fn lives(&self, network: NetworkId, addr: IpAddr) -> bool {
        let living = self.living.get(&network);
        living.is_some_and(|all| all.contains(&addr))
    }

    /// The addresses of a private network's ports here that lie in a prefix.
    pub fn living(&self, network: NetworkId, prefix: Prefix) -> impl Iterator<Item = IpAddr> + '_ {
        let living = self.living.get(&network).into_iter();
        let within = move |all: &'_ BTreeSet<IpAddr>| -> Vec<IpAddr> {
            all.range(prefix.addr()..=prefix.last()).copied().collect()
        };
        living.flat_map(within)
    }

    /// All who claim an address, in order.
    pub fn of(&self, addr: IpAddr) -> impl Iterator<Item = Claim> + '_ {
        self.of.get(&addr).into_iter().flatten().copied()
    }

    /// All addresses that anybody claims.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.of.keys().copied()
    }

    /// The floating IPs and port forwardings that name a router.
    pub fn by(&self, router: RouterId) -> impl Iterator<Item = Claim> + '_ {
        self.by.get(&router).into_iter().flatten().copied()
    }

    /// The floating IPs that stand for an address.
    pub fn standing_for(
        &self,
        network: NetworkId,
        addr: IpAddr,
    ) -> impl Iterator<Item = FloatingIpId> + '_ {
        let standing = self.standing_for.get(&(network, addr));
        standing.into_iter().flatten().copied()
    }

    /// The routers with a gateway on that network.
    pub fn with_gateway_on(&self, network: NetworkId) -> impl Iterator<Item = RouterId> + '_ {
        let with = self.with_gateway.get(&network);
        with.into_iter().flatten().copied()
    }

    /// Whether any router has a gateway.
    pub fn any_gateway(&self) -> bool {
        !self.with_gateway.is_empty()
    }
}
