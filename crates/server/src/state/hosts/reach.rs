//! How far one gets by routers: from a network that a host has a port of, and from a router that translates
//! on a host. Knows routers as hosts are told of them, and no hosts.
//!
//! From a network one gets to the routers on it, from a router to those whose interface is the next hop of one
//! of its extra routes. Kept up to date router by router; what is answered always follows from the routers that
//! are there, whatever the order in which they came.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use hextet_model::intent::{Router, RouterInterface};
use hextet_types::{NetworkId, RouterId};

use super::{Counts, Index};

/// Where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seed {
    /// At a port of the network.
    Network(NetworkId),
    /// At the router's translation.
    Gateway(RouterId),
}

/// What one gets to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Routers.
    pub routers: BTreeSet<RouterId>,
    /// Private networks, that of the seed included; of a seed that is no private network, it alone.
    pub networks: BTreeSet<NetworkId>,
    /// External networks.
    pub outside: BTreeSet<NetworkId>,
}

impl Reach {
    /// What is not in the other one, too.
    pub fn without(&self, other: &Reach) -> Reach {
        let networks = |a: &BTreeSet<NetworkId>, b| a.difference(b).copied().collect();
        Reach {
            routers: self.routers.difference(&other.routers).copied().collect(),
            networks: networks(&self.networks, &other.networks),
            outside: networks(&self.outside, &other.outside),
        }
    }

    fn trivial(seed: Seed) -> Reach {
        let networks = match seed {
            Seed::Network(network) => BTreeSet::from([network]),
            Seed::Gateway(_) => BTreeSet::new(),
        };
        Reach {
            networks,
            ..Reach::default()
        }
    }
}

/// A seed from which one gets elsewhere now.
#[derive(Debug)]
pub struct Changed {
    /// From where.
    pub seed: Seed,
    /// What one got to.
    pub old: Arc<Reach>,
    /// What one gets to.
    pub new: Arc<Reach>,
}

/// The routers, and how far one gets by them.
#[derive(Debug, Default)]
pub struct Routing {
    routers: HashMap<RouterId, Arc<Router>>,
    /// How many interfaces a router has on a network.
    on: Counts<NetworkId, RouterId>,
    /// Whose interface has an address.
    at: Index<(NetworkId, IpAddr), RouterId>,
    /// Whose extra routes lead to an address.
    via: Index<(NetworkId, IpAddr), RouterId>,
    /// Where it is more than the seed's own network.
    reaches: HashMap<Seed, Arc<Reach>>,
    /// From where one gets to a router.
    reached: Index<RouterId, Seed>,
    /// From which other networks one gets to a network.
    seen_from: Index<NetworkId, NetworkId>,
}

impl Routing {
    /// A router as hosts are told of it.
    pub fn router(&self, id: RouterId) -> Option<&Arc<Router>> {
        self.routers.get(&id)
    }

    /// Other private networks from which one gets to this one.
    pub fn seen_from(&self, network: NetworkId) -> impl Iterator<Item = NetworkId> + '_ {
        self.seen_from.get(&network).copied()
    }

    /// How far one gets.
    pub fn reach(&self, seed: Seed) -> Arc<Reach> {
        let known = self.reaches.get(&seed).cloned();
        known.unwrap_or_else(|| Arc::new(Reach::trivial(seed)))
    }

    /// A router comes, changes or goes; answers from where one gets elsewhere now.
    pub fn set(&mut self, id: RouterId, new: Option<Arc<Router>>) -> Vec<Changed> {
        if let Some(old) = self.routers.remove(&id) {
            self.index(&old, false);
        }
        let mut seeds: BTreeSet<Seed> = self.reached.get(&id).copied().collect();
        seeds.insert(Seed::Gateway(id));
        if let Some(new) = new {
            self.index(&new, true);
            for (network, address) in addresses(&new) {
                seeds.insert(Seed::Network(network));
                let by_routes = self.via.get(&(network, address));
                let by_routes = by_routes.flat_map(|r| self.reached.get(r));
                seeds.extend(by_routes.copied());
            }
            seeds.extend(networks(&new).map(Seed::Network));
            self.routers.insert(id, new);
        }
        let changed = seeds.into_iter().filter_map(|seed| self.change(seed));
        changed.collect()
    }

    fn change(&mut self, seed: Seed) -> Option<Changed> {
        let (old, new) = (self.reach(seed), Arc::new(self.search(seed)));
        if old == new {
            return None;
        }
        for router in old.routers.difference(&new.routers) {
            self.reached.remove(router, &seed);
        }
        for router in new.routers.difference(&old.routers) {
            self.reached.insert(*router, seed);
        }
        if let Seed::Network(network) = seed {
            for other in old.networks.difference(&new.networks) {
                self.seen_from.remove(other, &network);
            }
            for other in new.networks.difference(&old.networks) {
                self.seen_from.insert(*other, network);
            }
        }
        if *new == Reach::trivial(seed) {
            self.reaches.remove(&seed);
        } else {
            self.reaches.insert(seed, Arc::clone(&new));
        }
        Some(Changed { seed, old, new })
    }

    fn search(&self, seed: Seed) -> Reach {
        let mut reach = Reach::trivial(seed);
        let mut next: Vec<RouterId> = match seed {
            Seed::Network(network) => self.on.of(&network).map(|(id, _)| *id).collect(),
            Seed::Gateway(id) => {
                let router = self.routers.get(&id);
                let translates = router.filter(|r| r.gateway_host.is_some());
                translates.map(|_| id).into_iter().collect()
            }
        };
        while let Some(id) = next.pop() {
            let Some(router) = self.routers.get(&id) else {
                continue;
            };
            if reach.routers.insert(id) {
                reach.networks.extend(networks(router));
                reach
                    .outside
                    .extend(router.gateways.values().map(|g| g.network_id));
                next.extend(hops(router).flat_map(|hop| self.at.get(&hop)));
            }
        }
        reach
    }

    fn index(&mut self, router: &Router, there: bool) {
        let id = router.router.id;
        for network in router.interfaces.values().map(|i| i.network_id) {
            if there {
                self.on.up(network, id);
            } else {
                self.on.down(&network, &id);
            }
        }
        let both = [
            (&mut self.at, addresses(router).collect::<BTreeSet<_>>()),
            (&mut self.via, hops(router).collect()),
        ];
        for (index, places) in both {
            for place in places {
                if there {
                    index.insert(place, id);
                } else {
                    index.remove(&place, &id);
                }
            }
        }
    }
}

fn networks(router: &Router) -> impl Iterator<Item = NetworkId> + '_ {
    router.interfaces.values().map(|i| i.network_id)
}

fn addresses(router: &Router) -> impl Iterator<Item = (NetworkId, IpAddr)> + '_ {
    let of = |i: &RouterInterface| {
        let network = i.network_id;
        let addresses: Vec<_> = i.fixed_ips.iter().map(|f| f.ip_address).collect();
        addresses.into_iter().map(move |address| (network, address))
    };
    router.interfaces.values().flat_map(of)
}

/// Whatever a next hop of the router's extra routes may be.
fn hops(router: &Router) -> impl Iterator<Item = (NetworkId, IpAddr)> + '_ {
    let networks: BTreeSet<_> = networks(router).collect();
    let hops = router.router.routes.iter().map(|route| route.nexthop);
    hops.flat_map(move |hop| networks.clone().into_iter().map(move |n| (n, hop)))
}
