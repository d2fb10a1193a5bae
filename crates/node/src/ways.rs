//! Babel's ways as routes of the kernel, and the node's own addresses.
//!
//! What always holds: this host itself takes no way to a destination that is none of the network's and that nobody has said to accept, but carries
//! on what others send there, since it has told them that it leads there; while Babel has
//! not learnt again what an earlier run knew, that one's routes stand. What leads out of the network for those who come from its addresses
//! ([`crate::gateway`]) has a table of its own, and is taken by this host if its operator says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use anyhow::Result;
use hextet_babel::{
    LinkId, Way,
    packet::{Class, Destination},
};
use hextet_kernel::ways::{
    FIRST, Hop, Key, LAST, Leaving, METRIC, Out, Route, Share, Table, Taken, Ways as Kernel,
};
use hextet_mesh::{
    certificate::{Certificate, Class as CertificateClass},
    node::home_of,
    parameters::Parameters,
};
use hextet_types::{Family, Prefix};
use tracing::warn;

use crate::{babel::Changes, direct, served::leads_nowhere};

/// The kernel's routes of this node.
#[derive(Debug)]
pub struct Ways {
    kernel: Kernel,
    /// As Babel has chosen them, those that are not let in, too.
    chosen: BTreeMap<Destination, Way>,
    /// Links that lead to the same neighbour, each with all of them.
    bundles: BTreeMap<LinkId, Vec<Share>>,
    /// As Babel and the certificate want them.
    wanted: BTreeMap<Key, Route>,
    /// As they were found, or set.
    standing: BTreeMap<Key, Route>,
    /// What is let in, of the network's own and what the operator says; the default route only if it is named.
    welcome: Vec<Prefix>,
    /// What else is let in, as another program says.
    served: BTreeSet<Prefix>,
    /// The network's own prefixes.
    own: Vec<Prefix>,
    /// Whether packets of others are forwarded.
    carries: bool,
    /// Whether this host's own leave the network by the mesh.
    takes_out: bool,
    sources: Sources,
    /// Destinations of direct routes that have failed: the way that is taken in their place, and the link that was theirs.
    taken_over: BTreeMap<Prefix, (Prefix, u32)>,
    /// Whether routes of an earlier run stay.
    keeps: bool,
}

/// From which of its addresses the host sends.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    /// The node's first one.
    pub v6: Option<IpAddr>,
    /// Where the network has such.
    pub v4: Option<IpAddr>,
}

impl Sources {
    /// The first address of each family.
    pub fn of(certificate: &Certificate) -> Sources {
        let v6 = certificate.prefixes.first().copied().and_then(home_of);
        Sources {
            v6: v6.map(IpAddr::V6),
            v4: certificate.ipv4.map(first_v4),
        }
    }

    /// The one of that family.
    pub fn for_family(self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

fn direct(way: Prefix, target: IpAddr, taken: Taken) -> Option<direct::Route> {
    // Nothing comes before the first metric, and what is wider than the way does not hide it.
    let is_before = way.covers(taken.to) && taken.metric > FIRST;
    Some(direct::Route {
        to: taken.to,
        link: taken.link.filter(|_| is_before)?,
        way,
        target,
    })
}

/// The address by which a node answers for a prefix.
fn first(prefix: Prefix) -> Option<IpAddr> {
    match prefix.addr() {
        IpAddr::V4(_) => Some(first_v4(prefix)),
        IpAddr::V6(_) => home_of(prefix).map(IpAddr::V6),
    }
}

/// The address itself, or the first one behind the network's.
fn first_v4(prefix: Prefix) -> IpAddr {
    match prefix.addr() {
        IpAddr::V4(addr) if !prefix.is_host() => Ipv4Addr::from(u32::from(addr) | 1).into(),
        addr => addr,
    }
}

impl Ways {
    /// Gives the host the node's addresses; what stood before is left as it is.
    ///
    /// # Errors
    ///
    /// The kernel does not answer, or refuses the addresses.
    pub fn open(
        certificate: &Certificate,
        network: &Parameters,
        (accept, default): (&[Prefix], bool),
    ) -> Result<Ways> {
        let mut kernel = Kernel::open()?;
        let sources = Sources::of(certificate);
        let addresses: Vec<IpAddr> = [sources.v6, sources.v4].into_iter().flatten().collect();
        kernel.own(&addresses)?;
        let own = welcome(network, &[]);
        kernel.part(&Out {
            own: own.clone(),
            all: default,
        })?;
        let standing = kernel.routes()?.into_iter();
        let standing: BTreeMap<Key, Route> = standing.map(|route| (route.key(), route)).collect();
        let prefixes = certificate.prefixes.iter().chain(&certificate.ipv4);
        let wanted = prefixes.filter(|prefix| !prefix.is_host()).map(|prefix| {
            let route = Route {
                table: Table::Main,
                to: *prefix,
                from: None,
                metric: LAST,
                hop: Hop::Unreachable,
                source: None,
            };
            (route.key(), route)
        });
        let mut ways = Ways {
            kernel,
            chosen: BTreeMap::new(),
            bundles: BTreeMap::new(),
            wanted: wanted.collect(),
            standing,
            welcome: welcome(network, accept),
            served: BTreeSet::new(),
            own,
            takes_out: default,
            carries: certificate.class != CertificateClass::Client,
            sources,
            taken_over: BTreeMap::new(),
            keeps: true,
        };
        ways.mend();
        Ok(ways)
    }

    /// Whether ways of an earlier run stand.
    pub fn has_earlier(&self) -> bool {
        let mut standing = self.standing.values();
        standing.any(|route| route.hop != Hop::Unreachable)
    }

    /// What Babel has found.
    pub fn change(&mut self, changes: Changes) {
        let mut set = Vec::new();
        let mut gone = Vec::new();
        for (to, way) in changes {
            match way {
                Some(way) => drop(self.chosen.insert(to, way)),
                None => drop(self.chosen.remove(&to)),
            }
            self.choose(to, &mut set, &mut gone);
        }
        self.apply(&set, &gone);
    }

    fn choose(&mut self, to: Destination, set: &mut Vec<Route>, gone: &mut Vec<Key>) {
        let way = self.chosen.get(&to).copied();
        let place = self.place(to);
        for table in self.tables(to) {
            match way.filter(|_| place == Some(table)) {
                Some(way) => self.want(self.route(to, way, table), set),
                None => self.leave(key(table, to), gone),
            }
        }
        if to == Destination::of(to.prefix()) {
            self.follow(to.prefix(), set, gone);
        }
    }

    /// From now on ways to what lies in these are taken, too, and to nothing else that was named so before.
    pub fn accept(&mut self, served: &BTreeSet<Prefix>) {
        self.served.clone_from(served);
        let (mut set, mut gone) = (Vec::new(), Vec::new());
        let chosen: Vec<Destination> = self.chosen.keys().copied().collect();
        for to in chosen {
            self.choose(to, &mut set, &mut gone);
        }
        self.apply(&set, &gone);
    }

    /// From now on flows to a neighbour are shared out over all links that lead there, as this says.
    pub fn share(&mut self, bundles: BTreeMap<LinkId, Vec<Share>>) {
        let before = std::mem::replace(&mut self.bundles, bundles);
        let is_same = |link: &LinkId| before.get(link) == self.bundles.get(link);
        let touched = |way: &Way| matches!(way, Way::Via { link, .. } if !is_same(link));
        let touched: Vec<(Destination, Way)> = (self.chosen.iter())
            .filter(|(_, way)| touched(way))
            .map(|(to, way)| (*to, *way))
            .collect();
        self.change(
            touched
                .into_iter()
                .map(|(to, way)| (to, Some(way)))
                .collect(),
        );
    }

    fn want(&mut self, route: Route, set: &mut Vec<Route>) {
        let key = route.key();
        self.wanted.insert(key, route.clone());
        if self.standing.insert(key, route.clone()).as_ref() != Some(&route) {
            set.push(route);
        }
    }

    fn leave(&mut self, key: Key, gone: &mut Vec<Key>) {
        self.wanted.remove(&key);
        if self.standing.remove(&key).is_some() {
            gone.push(key);
        }
    }

    /// What is taken over goes where the mesh's way goes; nowhere else, while there is none.
    fn follow(&mut self, way: Prefix, set: &mut Vec<Route>, gone: &mut Vec<Key>) {
        let followers = self.taken_over.iter().filter(|(_, (of, _))| *of == way);
        let followers: Vec<Prefix> = followers.map(|(to, _)| *to).collect();
        let way = self.wanted.get(&(Table::Main, way, None, METRIC)).cloned();
        let way = way.filter(|way| way.hop != Hop::Unreachable);
        for to in followers {
            match &way {
                Some(way) => {
                    let metric = FIRST;
                    let route = Route {
                        to,
                        metric,
                        ..way.clone()
                    };
                    self.want(route, set);
                }
                None => self.leave((Table::Main, to, None, FIRST), gone),
            }
        }
    }

    /// The mesh's way is taken for a destination, before all others of the host; or is not, any more.
    pub fn take_over(&mut self, to: Prefix, way: Option<(Prefix, u32)>) {
        let (mut set, mut gone) = (Vec::new(), Vec::new());
        match way {
            Some((way, link)) => {
                self.taken_over.insert(to, (way, link));
                self.follow(way, &mut set, &mut gone);
            }
            None => {
                self.taken_over.remove(&to);
                self.leave((Table::Main, to, None, FIRST), &mut gone);
            }
        }
        self.apply(&set, &gone);
    }

    /// How what is for the world leaves this host without the mesh; by that link alone, if one is named.
    pub fn leaving(&mut self, link: Option<u32>) -> Vec<Leaving> {
        match self.kernel.leaving(link) {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "look for the host's way to the world");
                Vec::new()
            }
        }
    }

    /// Routes of the host by which packets go to other nodes in place of the mesh's ways.
    pub fn direct(&mut self) -> Vec<direct::Route> {
        match self.find_direct() {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "look for direct routes");
                Vec::new()
            }
        }
    }

    fn find_direct(&mut self) -> Result<Vec<direct::Route>, hextet_kernel::Error> {
        let mut ways: Vec<(Prefix, IpAddr)> = Vec::new();
        for ((table, to, from, metric), route) in &self.wanted {
            let is_plain = (*table, *from, *metric) == (Table::Main, None, METRIC);
            // Workloads' addresses are no nodes': their hosts' own routes to them are as good as they are.
            let is_node = self.own.iter().any(|own| own.covers(*to));
            let is_way = is_plain && is_node && route.hop != Hop::Unreachable;
            if is_way && let Some(first) = first(*to) {
                ways.push((*to, first));
            }
        }
        let over = self.taken_over.values().cloned();
        // Their own places are taken: they are looked for by their links.
        let over = over.filter_map(|(way, link)| Some((way, first(way)?, Some(link))));
        let asked = ways.into_iter().map(|(way, target)| (way, target, None));
        let asked: Vec<(Prefix, IpAddr, Option<u32>)> = asked.chain(over).collect();
        let targets = asked.iter().map(|(_, target, link)| (*target, *link));
        let taken = self.kernel.taken(&targets.collect::<Vec<_>>())?;
        let mut found = Vec::new();
        for ((way, target, _), taken) in asked.into_iter().zip(taken) {
            let taken = taken.filter(|taken| !taken.is_ours);
            found.extend(taken.and_then(|taken| direct(way, target, taken)));
        }
        Ok(found)
    }

    /// Makes the kernel have what is wanted, and, once Babel has learnt everything (`keeps` is false), nothing else.
    pub fn look(&mut self, keeps: bool) {
        self.keeps = keeps;
        match self.kernel.routes() {
            Ok(found) => {
                self.standing = found
                    .into_iter()
                    .map(|route| (route.key(), route))
                    .collect();
                self.mend();
            }
            Err(error) => warn!(%error, "look at the routes"),
        }
    }

    fn mend(&mut self) {
        let missing = self.wanted.iter();
        let missing = missing.filter(|(key, route)| self.standing.get(*key) != Some(*route));
        let set: Vec<Route> = missing.map(|(_, route)| route.clone()).collect();
        let gone: Vec<Key> = match self.keeps {
            true => Vec::new(),
            false => {
                let standing = self.standing.keys();
                let gone = standing.filter(|key| !self.wanted.contains_key(*key));
                gone.copied().collect()
            }
        };
        for route in &set {
            self.standing.insert(route.key(), route.clone());
        }
        for key in &gone {
            self.standing.remove(key);
        }
        self.apply(&set, &gone);
    }

    fn apply(&mut self, set: &[Route], gone: &[Key]) {
        let done = [self.kernel.set(set), self.kernel.delete(gone)];
        for error in done.into_iter().filter_map(Result::err).flatten() {
            // The next look tries again.
            warn!(%error, "a route is not as it should be");
        }
    }

    fn route(&self, to: Destination, way: Way, table: Table) -> Route {
        let hop = match way {
            Way::Via { link, next_hop } => match self.bundles.get(&link).map(Vec::as_slice) {
                Some(shares) if shares.len() > 1 => Hop::Shared(shares.to_vec()),
                Some([share]) => Hop::Via {
                    link: share.link,
                    next_hop: share.next_hop,
                },
                _ => Hop::Via {
                    link: link.0,
                    next_hop,
                },
            },
            Way::Unreachable => Hop::Unreachable,
        };
        let source = self.sources.for_family(to.prefix().family());
        let is_own = matches!(table, Table::Main | Table::Many | Table::Out);
        let (table, to, from, metric) = key(table, to);
        Route {
            table,
            to,
            from,
            metric,
            source: source.filter(|_| is_own && hop != Hop::Unreachable),
            hop,
        }
    }

    /// In which table it belongs; none, where nothing may lead.
    fn place(&self, to: Destination) -> Option<Table> {
        if self.leads_out(to) {
            let is_for_all = to.class() == Class::Latency;
            return (is_for_all && (self.carries || self.takes_out)).then_some(Table::Out);
        }
        let [own, carried] = tables(to);
        match self.is_welcome(to) {
            true => Some(own),
            false => (self.carries && !leads_nowhere(to.prefix())).then_some(carried),
        }
    }

    /// Those in which it might be.
    fn tables(&self, to: Destination) -> Vec<Table> {
        match self.leads_out(to) {
            true => vec![Table::Out],
            false => tables(to).to_vec(),
        }
    }

    /// Whether it is the way out of the network for those who come from its addresses.
    fn leads_out(&self, to: Destination) -> bool {
        let is_own = |source| self.own.contains(&source);
        to.prefix().is_default() && to.source().is_some_and(is_own)
    }

    fn is_welcome(&self, to: Destination) -> bool {
        let mut welcome = self.welcome.iter();
        welcome.any(|prefix| prefix.covers(to.prefix())) || covers(&self.served, to.prefix())
    }
}

/// Whether one of these covers it, in as many steps as a prefix has bits.
fn covers(all: &BTreeSet<Prefix>, prefix: Prefix) -> bool {
    let wider = (0..=prefix.len()).filter_map(|len| Prefix::new(prefix.addr(), len).ok());
    let mut wider = wider;
    wider.any(|wider| all.contains(&wider))
}

/// The way out is for who has the network's addresses by its table alone, as IPv4 has no routes by source.
fn key(table: Table, to: Destination) -> Key {
    let from = to.source().filter(|_| table != Table::Out);
    (table, to.prefix(), from, METRIC)
}

/// For all packets, and for those alone that have come by the mesh.
const fn tables(to: Destination) -> [Table; 2] {
    match to.class() {
        Class::Latency => [Table::Main, Table::Carried],
        Class::Throughput => [Table::Many, Table::CarriedMany],
    }
}

fn welcome(network: &Parameters, accept: &[Prefix]) -> Vec<Prefix> {
    let own = std::iter::once(network.prefix).chain(network.ipv4);
    own.chain(accept.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_the_first_address_of_each_prefix() {
        for (prefix, first) in [
            ("10.1.2.0/24", "10.1.2.1"),
            ("10.1.2.0/32", "10.1.2.0"),
            ("10.1.2.4/30", "10.1.2.5"),
        ] {
            let prefix: Prefix = prefix.parse().unwrap();
            assert_eq!(first_v4(prefix), first.parse::<IpAddr>().unwrap());
        }
    }
}
