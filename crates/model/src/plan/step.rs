//! What one change of the intent touches: units to compute again, and flows to look at again.

mod physical;
mod router;
mod shared;
mod subnet;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_types::{Family, HostId, NetworkId, PortId, QosPolicyId, SecurityGroupId, SubnetId};

use shared::{held_on, is_offered};

use super::{
    index::{Name, Referrer, has_interface, names_of_port, names_of_sources},
    place::{Place, Places},
    profile::Profile,
    qos,
    router::network::next_hops,
    rules::{self, Match},
    unit::Unit,
};
use crate::{
    intent::{Change, Group, Intent, RoutingDomain},
    neutron::{Direction, Network, Port, QosPolicy},
    state::Cut,
};

/// What a run of changes touches.
#[derive(Debug, Default)]
pub struct Touched {
    /// To be computed again, by place.
    pub units: BTreeMap<Place, BTreeSet<Unit>>,
    /// Ends of flows that may no longer be allowed.
    pub recheck: BTreeSet<(Place, IpAddr)>,
    /// Connections that are translated otherwise now.
    pub cut: BTreeSet<Cut>,
}

impl Touched {
    fn units_of(&mut self, place: Place) -> &mut BTreeSet<Unit> {
        self.units.entry(place).or_default()
    }
}

/// Takes one step: intent, indexes and what it touches.
pub fn step(intent: &mut Intent, places: &mut Places, change: Change, touched: &mut Touched) {
    let mut step = Step {
        intent,
        places,
        touched,
    };
    match &change {
        Change::PutNetwork(network) => step.network(network.id, Some(network)),
        Change::RemoveNetwork(id) => step.network(*id, None),
        Change::PutSubnet(subnet) => step.subnet(subnet.id, Some(subnet)),
        Change::RemoveSubnet(id) => step.subnet(*id, None),
        Change::PutPort(port) => step.port(port.id, Some(port)),
        Change::RemovePort(id) => step.port(*id, None),
        Change::PutGroup(group) => step.group(group.group.id, Some(group)),
        Change::RemoveGroup(id) => step.group(*id, None),
        Change::AddMembers(id, domain, members) => step.members(*id, *domain, members),
        Change::RemoveMembers(id, domain, members) => {
            step.members(*id, *domain, members);
            step.recheck_members(*id, *domain, members);
        }
        Change::SetNat44Sources(id, sources) => step.sources(*id, sources),
        Change::PutHost(host, _) | Change::RemoveHost(host) => step.host(host),
        Change::PutRemotes(id, remotes) => {
            for (addr, host) in remotes {
                step.remote(*id, *addr, Some(host));
            }
        }
        Change::RemoveRemotes(id, addrs) => {
            for addr in addrs {
                step.remote(*id, *addr, None);
            }
        }
        Change::PutRemotePort(port) => step.remote_port(port.id, Some(port)),
        Change::RemoveRemotePort(id) => step.remote_port(*id, None),
        Change::PutRouter(router) => step.router(router.router.id, Some(router)),
        Change::RemoveRouter(id) => step.router(*id, None),
        Change::PutFloatingIp(ip) => step.floating_ip(ip.id, Some(ip)),
        Change::RemoveFloatingIp(id) => step.floating_ip(*id, None),
        Change::PutPortForwarding(f) => step.port_forwarding(f.id, Some(f)),
        Change::RemovePortForwarding(id) => step.port_forwarding(*id, None),
        Change::PutQosPolicy(policy) => step.qos_policy(policy.id, Some(policy)),
        Change::RemoveQosPolicy(id) => step.qos_policy(*id, None),
        Change::PutStandby(id) | Change::RemoveStandby(id) => step.standby(*id),
        Change::PutHolder(id, addr, _) | Change::RemoveHolder(id, addr) => step.holder(*id, *addr),
        Change::PutAudience(id, ..) | Change::RemoveAudience(id, _) => step.audience(*id),
        Change::PutWatched(..) | Change::RemoveWatched(_) => {}
        Change::SetNovaMetadata(_) => step.nova_metadata(),
        Change::PutUpstream(on, _) | Change::RemoveUpstream(on) => step.upstream(on),
    }
    intent.apply(change);
}

/// After the last step: what follows from what was touched.
pub fn settle(intent: &Intent, places: &mut Places, touched: &mut Touched) {
    for (place, units) in &mut touched.units {
        if let Some(index) = places.get_mut(*place) {
            index.settle(intent, *place, units);
        }
        let mut more = Vec::new();
        for unit in units.iter() {
            match unit {
                Unit::Port(id) => {
                    let port = intent.ports.get(id);
                    let all = port.into_iter().flat_map(addresses);
                    more.extend(all.map(Unit::Address));
                    let held = port.into_iter().flat_map(|p| held_on(intent, p.network_id));
                    more.extend(held.map(Unit::Address));
                    let number = port.map(|p| Profile::of(p).number());
                    let index = places.get(*place).zip(number);
                    let shared = index.filter(|(index, number)| index.is_shared(*number));
                    more.extend(shared.map(|(_, number)| Unit::Number(number)));
                    let exposed = port.into_iter().flat_map(|p| &p.exposed);
                    more.extend(exposed.map(|e| Unit::Exposed(e.protocol, e.external_port)));
                    more.push(Unit::Multicast);
                }
                Unit::MemberSets(id) => {
                    let members = intent.members.get(&(*id, place.domain()));
                    let members = members.into_iter().flatten();
                    more.extend(members.map(|addr| Unit::Member(*id, *addr)));
                }
                Unit::Tunnel | Unit::Peer(_) | Unit::Remote(_) | Unit::Address(_) => {
                    more.push(Unit::Multicast);
                }
                _ => {}
            }
        }
        units.extend(more);
        if let Place::Network(id) = place
            && (leads_on(intent, places, *id, units) || is_offered(places, *place, *id, units))
        {
            units.insert(Unit::Routers);
        }
    }
    let public = router::public(intent, places, &touched.units);
    touched
        .units_of(Place::Main)
        .extend(public.into_iter().map(Unit::Public));
}

/// Whether a route may go by way of one of those that have changed.
fn leads_on(intent: &Intent, places: &Places, id: NetworkId, units: &BTreeSet<Unit>) -> bool {
    let mut addrs = units
        .iter()
        .filter_map(|unit| match unit {
            Unit::Address(addr) | Unit::Remote(addr) => Some(addr),
            _ => None,
        })
        .peekable();
    if units.contains(&Unit::Routers) || addrs.peek().is_none() {
        return false;
    }
    let hops = next_hops(intent, places, id);
    !hops.is_empty() && addrs.any(|addr| hops.contains(addr))
}

struct Step<'a> {
    intent: &'a Intent,
    places: &'a mut Places,
    touched: &'a mut Touched,
}

impl Step<'_> {
    /// Where that network's ports live, by what is known of it so far.
    fn home(&self, network: NetworkId) -> Place {
        Place::of(self.intent.networks.get(&network))
    }

    fn ports(&self, place: Place, name: &Name) -> Vec<PortId> {
        let index = self.places.get(place).into_iter();
        index.flat_map(|index| index.ports(name)).collect()
    }

    /// The places where anybody says that name.
    fn places_with(&self, name: &Name) -> Vec<Place> {
        let with = self.places.all().filter(|(_, index)| index.is_named(name));
        with.map(|(place, _)| place).collect()
    }

    fn rename(
        &mut self,
        place: Place,
        who: Referrer,
        (old, new): (&BTreeSet<Name>, &BTreeSet<Name>),
    ) {
        let touched = self.touched.units_of(place);
        self.places.make(place).rename(who, old, new, touched);
    }

    fn touch_ports(&mut self, place: Place, name: &Name) {
        let ports = self.ports(place, name);
        self.touched
            .units_of(place)
            .extend(ports.into_iter().map(Unit::Port));
    }

    /// Asks to look at the flows of these families, of all ports with that name.
    fn recheck_ports(&mut self, place: Place, name: &Name, families: &BTreeSet<Family>) {
        for id in self.ports(place, name) {
            let port = self.intent.ports.get(&id).into_iter();
            let concerned = |addr: &IpAddr| families.contains(&Family::of(*addr));
            let ends = port.flat_map(addresses).filter(concerned);
            self.touched.recheck.extend(ends.map(|addr| (place, addr)));
        }
    }

    fn network(&mut self, id: NetworkId, new: Option<&Network>) {
        let old = self.intent.networks.get(&id);
        self.physical_network(old, new);
        let (from, to) = (Place::of(old), Place::of(new));
        if from != to {
            self.moves(id, from, to);
        }
        let shape = |n: &Network| (n.mtu, n.network_type);
        if old.map(shape) != new.map(shape) {
            self.touch_routers_on(id);
            self.touch_network(id);
        }
        let segment = |n: &Network| (n.segmentation_id, n.mtu);
        if old.map(segment) != new.map(segment) {
            self.touched.units_of(to).insert(Unit::Tunnel);
        }
        let relevant = |n: &Network| {
            let (up, mtu) = (n.admin_state_up, n.mtu);
            (up, mtu, n.dns_domain.clone(), n.qos_policy_id)
        };
        if old.map(relevant) == new.map(relevant) {
            return;
        }
        let up = |n: Option<&Network>| n.is_some_and(|n| n.admin_state_up);
        self.touch_ports(to, &Name::Network(id));
        if up(old) && !up(new) {
            self.recheck_ports(to, &Name::Network(id), &Family::BOTH.into());
        }
    }

    /// All that lives on a network goes from one place to another, of which one may come or go with it.
    fn moves(&mut self, id: NetworkId, from: Place, to: Place) {
        let name = Name::Network(id);
        let index = self.places.get(from).into_iter();
        let who: Vec<Referrer> = index.flat_map(|index| index.referrers(&name)).collect();
        self.places.make(to);
        self.touched
            .units_of(to)
            .extend(Unit::always(to).iter().cloned());
        for who in who {
            match who {
                Referrer::Port(port) => {
                    let port = self.intent.ports.get(&port);
                    self.move_port(port.map(|p| (from, p)), port.map(|p| (to, p)));
                }
                Referrer::Subnet(subnet) => {
                    let subnet = self.intent.subnets.get(&subnet);
                    self.move_subnet(subnet.map(|s| (from, s)), subnet.map(|s| (to, s)));
                }
                Referrer::Group(_)
                | Referrer::Sources(_)
                | Referrer::Remote(_)
                | Referrer::RemotePort(_) => {}
            }
        }
        self.move_remotes(id, from, to);
        self.move_remote_ports(id, from, to);
        if from != Place::Main {
            self.places.remove(from);
            self.touched
                .units_of(from)
                .extend(Unit::always(from).iter().cloned());
        }
    }

    fn move_remotes(&mut self, id: NetworkId, from: Place, to: Place) {
        let remotes = self.intent.remotes.get(&id).into_iter().flatten();
        for (addr, host) in remotes {
            let (none, peer) = (BTreeSet::new(), [Name::Peer(host.clone())].into());
            for (place, names) in [(from, (&peer, &none)), (to, (&none, &peer))] {
                if place != Place::Main {
                    self.rename(place, Referrer::Remote(*addr), names);
                    self.touched.units_of(place).insert(Unit::Remote(*addr));
                }
            }
        }
    }

    fn port(&mut self, id: PortId, new: Option<&Port>) {
        let old = self.intent.ports.get(&id);
        let at_home = |p: &Port| self.home(p.network_id);
        let (was, is) = (old.map(at_home), new.map(at_home));
        self.move_port(was.zip(old), is.zip(new));
        if let Some((place, old)) = was.zip(old) {
            self.take_back(place, old, new);
        }
        let has = new.is_some_and(has_interface);
        for sharing in self.places.interfaces_mut().set(id, has) {
            if let Some(port) = self.intent.ports.get(&sharing) {
                let place = self.home(port.network_id);
                self.touched.units_of(place).insert(Unit::Port(sharing));
            }
        }
        if let Some((place, old)) = was.zip(old).filter(|(_, old)| port_narrowed(old, new)) {
            let ends = addresses(old).map(|addr| (place, addr));
            self.touched.recheck.extend(ends);
        }
    }

    /// Ways to a port's addresses lead here from now on, or elsewhere; all else stays.
    fn standby(&mut self, id: PortId) {
        if let Some(port) = self.intent.ports.get(&id) {
            let place = self.home(port.network_id);
            let held = held_on(self.intent, port.network_id);
            let units = self.touched.units_of(place);
            units.extend(addresses(port).chain(held).map(Unit::Address));
            if !port.delegated_prefixes.is_empty() {
                units.insert(Unit::Port(id));
            }
            if port.may_carry() {
                units.insert(Unit::Routers);
            }
        }
    }

    /// Others have joined a group of the network than before.
    fn audience(&mut self, id: NetworkId) {
        let place = self.home(id);
        self.touched.units_of(place).insert(Unit::Multicast);
    }

    fn move_port(&mut self, old: Option<(Place, &Port)>, new: Option<(Place, &Port)>) {
        let places: BTreeSet<Place> = [old, new].into_iter().flatten().map(|(p, _)| p).collect();
        for place in places {
            let here = |p: Option<(Place, &Port)>| -> BTreeSet<Name> {
                let here = p.filter(|(p, _)| *p == place);
                here.map_or_else(BTreeSet::new, |(_, port)| names_of_port(port))
            };
            let Some((_, port)) = new.or(old) else {
                continue;
            };
            let (old, new) = (here(old), here(new));
            self.rename(place, Referrer::Port(port.id), (&old, &new));
            self.touched.units_of(place).insert(Unit::Port(port.id));
            for name in old.symmetric_difference(&new) {
                if let Name::Group(group) = name {
                    self.say_group(place, *group, self.intent.groups.get(group));
                }
            }
        }
    }

    fn say_group(&mut self, place: Place, id: SecurityGroupId, group: Option<&Group>) {
        let touched = self.touched.units_of(place);
        self.places.make(place).say_group(id, group, touched);
    }

    fn group(&mut self, id: SecurityGroupId, new: Option<&Group>) {
        let old = self.intent.groups.get(&id);
        if old == new {
            return;
        }
        let narrowed = old.map_or_else(BTreeSet::new, |old| narrowed_families(old, new));
        let name = Name::Group(id);
        for place in self.places_with(&name) {
            self.say_group(place, id, new);
            self.touched.units_of(place).insert(Unit::Group(id));
            if is_stateless(old) != is_stateless(new) {
                self.touch_ports(place, &name);
            }
            if !narrowed.is_empty() {
                self.recheck_ports(place, &name, &narrowed);
            }
        }
    }

    fn members(&mut self, id: SecurityGroupId, domain: RoutingDomain, members: &BTreeSet<IpAddr>) {
        for place in self.places_of_members(id, domain) {
            self.touched
                .units_of(place)
                .extend(members.iter().map(|addr| Unit::Member(id, *addr)));
        }
    }

    fn recheck_members(
        &mut self,
        id: SecurityGroupId,
        domain: RoutingDomain,
        members: &BTreeSet<IpAddr>,
    ) {
        for place in self.places_of_members(id, domain) {
            self.touched
                .recheck
                .extend(members.iter().map(|addr| (place, *addr)));
        }
    }

    /// Where the group's members of that domain are asked for, or were before this run of changes.
    fn places_of_members(&self, id: SecurityGroupId, domain: RoutingDomain) -> BTreeSet<Place> {
        let asked = self.places_with(&Name::Members(id)).into_iter();
        let touched = self.touched.units.iter();
        let were = touched.filter(|(_, units)| units.contains(&Unit::MemberSets(id)));
        let were = were.map(|(place, _)| *place);
        let all = asked.chain(were);
        all.filter(|place| place.domain() == domain).collect()
    }

    /// Its endpoint is there, another, or gone.
    fn host(&mut self, host: &HostId) {
        let name = Name::Peer(host.clone());
        for (place, index) in self.places.all() {
            let units = self.touched.units.entry(place).or_default();
            units.insert(Unit::Tunnel);
            if matches!(place, Place::Router(_)) {
                units.insert(Unit::Outside);
            }
            if index.is_named(&name) {
                units.insert(Unit::Peer(host.clone()));
            }
            units.extend(index.referrers(&name).filter_map(|who| match who {
                Referrer::Remote(addr) => Some(Unit::Remote(addr)),
                _ => None,
            }));
        }
    }

    fn remote(&mut self, id: NetworkId, addr: IpAddr, new: Option<&HostId>) {
        let place = self.home(id);
        if place == Place::Main {
            return;
        }
        let old = self.intent.remotes.get(&id).and_then(|all| all.get(&addr));
        let names = |host: Option<&HostId>| host.map(|h| Name::Peer(h.clone())).into_iter();
        let (old, new) = (names(old).collect(), names(new).collect());
        self.rename(place, Referrer::Remote(addr), (&old, &new));
        let units = self.touched.units_of(place);
        units.insert(Unit::Remote(addr));
        let index = self.places.get(place);
        let held = self.intent.holders.contains_key(&(id, addr));
        if held || index.is_some_and(|index| index.is_named(&Name::Paired(addr))) {
            units.insert(Unit::Address(addr));
        }
    }

    /// All that has the policy.
    fn qos_policy(&mut self, id: QosPolicyId, new: Option<&QosPolicy>) {
        let rules = |policy: Option<&QosPolicy>| policy.map(|p| p.rules.clone());
        if rules(self.intent.qos_policies.get(&id)) == rules(new) {
            return;
        }
        let ports = self.intent.ports.values();
        for port in ports.filter(|port| qos::policy_of(self.intent, port) == Some(id)) {
            let place = self.home(port.network_id);
            self.touched.units_of(place).insert(Unit::Port(port.id));
        }
        let floating = self.intent.floating_ips.values();
        let floating = floating.filter(|ip| ip.qos_policy_id == Some(id));
        let gateways = self.intent.routers.values();
        let gateways = gateways.filter(|router| qos::of_gateway(router) == Some(id));
        let routers = floating.map(|ip| ip.router_id);
        for router in routers.chain(gateways.map(|r| r.router.id)) {
            if self.places.get(Place::Router(router)).is_some() {
                let units = self.touched.units_of(Place::Router(router));
                units.insert(Unit::Outside);
            }
        }
    }

    /// All servers of Nova's.
    fn nova_metadata(&mut self) {
        let servers = self.intent.ports.values().filter(|p| p.server().is_some());
        for port in servers {
            let place = self.home(port.network_id);
            self.touched.units_of(place).insert(Unit::Port(port.id));
        }
    }

    fn sources(&mut self, id: SubnetId, new: &BTreeSet<IpAddr>) {
        let none = BTreeSet::new();
        let old = self.intent.nat44_sources.get(&id).unwrap_or(&none);
        let who = Referrer::Sources(id);
        let (old_names, new_names) = (names_of_sources(old), names_of_sources(new));
        self.rename(Place::Main, who, (&old_names, &new_names));
        self.touched.units_of(Place::Main).insert(Unit::Nat44(id));
        let gone = old.difference(new).map(|addr| (Place::Main, *addr));
        self.touched.recheck.extend(gone);
    }
}

fn is_stateless(group: Option<&Group>) -> bool {
    group.is_some_and(|g| !g.group.stateful)
}

/// Where flows of that port may end: its addresses and those of its address pairs.
fn addresses(port: &Port) -> impl Iterator<Item = IpAddr> + '_ {
    let pairs = port.allowed_address_pairs.iter().map(|p| p.ip_address);
    let pairs = pairs
        .filter(|prefix| prefix.is_host())
        .map(|prefix| prefix.addr());
    port.fixed_ips.iter().map(|f| f.ip_address).chain(pairs)
}

/// Whether something is no longer allowed that was.
fn port_narrowed(old: &Port, new: Option<&Port>) -> bool {
    let Some(new) = new else { return true };
    let lost_group = || {
        old.security_groups
            .iter()
            .any(|g| !new.security_groups.contains(g))
    };
    let lost_address = old.fixed_ips.iter().any(|f| !new.fixed_ips.contains(f));
    let lost_pair = || old.pairs().any(|pair| !new.pairs().any(|p| p == pair));
    let policy = match (old.port_security_enabled, new.port_security_enabled) {
        (true, true) => lost_group() || lost_pair(),
        (false, true) => true,
        (_, false) => false,
    };
    policy
        || lost_address
        || old.admin_state_up && !new.admin_state_up
        || old.mac_address != new.mac_address
        || old.network_id != new.network_id
}

/// The families of flows that the group may have carried and does not any more.
fn narrowed_families(old: &Group, new: Option<&Group>) -> BTreeSet<Family> {
    if old.group.stateful && new.is_some_and(|new| !new.group.stateful) {
        return Family::BOTH.into();
    }
    let left = new.map_or_else(BTreeSet::new, all_matches);
    all_matches(old)
        .difference(&left)
        .map(|(_, lost)| lost.shape.family)
        .collect()
}

fn all_matches(group: &Group) -> BTreeSet<(Direction, Match)> {
    let rules = group.rules.values();
    rules
        .flat_map(|rule| {
            rules::matches(group, rule)
                .into_iter()
                .map(|m| (rule.direction, m))
        })
        .collect()
}
