//! What a host must be told, written down from the tables alone, without any of the counts.

use super::*;

/// Whether the network is there, and private.
pub fn is_private(state: &State, id: NetworkId) -> bool {
    let network = state.networks.get(&id);
    network.is_some_and(|n| n.network_type == NetworkType::Vxlan)
}

/// The ports that a host takes, as they are told there, and whether their addresses are there.
pub fn taken(state: &State, host: &HostId) -> Vec<(Port, bool)> {
    let takes = |at: &HostId, port: &Port| {
        state.tunnels.endpoint(at).is_some() || !is_private(state, port.network_id)
    };
    let workloads = state.ports.values().filter(|p| {
        ![NAT44_OWNER, Router::INTERFACE_OWNER].contains(&p.device_owner.as_str()) && takes(host, p)
    });
    let mut all = Vec::new();
    for port in workloads {
        let is_bound = |at: &HostId| port.binding.host_id.as_ref() == Some(at);
        let prepared = |at: &HostId| {
            let row = state.bindings.row(port.id, at);
            row.map(|r| r.value.clone()).filter(|_| !is_bound(at))
        };
        let migrating = (0..3).map(self::host).find(|to| {
            let wanted = port.binding.profile.get("migrating_to");
            let there = prepared(to).is_some_and(|b| b.taken_over && takes(to, port));
            wanted.is_some_and(|w| w == to.as_str()) && there
        });
        let home = match migrating {
            Some(to) => to == *host,
            None => is_bound(host),
        };
        if is_bound(host) {
            all.push((port.as_ref().clone(), home));
        } else if let Some(binding) = prepared(host) {
            let mut there = port.as_ref().clone();
            there.binding.host_id = Some(host.clone());
            there.binding.profile = binding.profile.clone();
            all.push((there, home));
        }
    }
    all
}

/// What a host must be told, written down from the state's tables alone, without any of its counts.
pub fn from_tables(state: &State, host: &HostId) -> Intent {
    let mut intent = Intent::default();
    let ports = taken(state, host);
    let (routers, networks) = reach_from_tables(state, host);
    for subnet in state.subnets.values() {
        let network = state.networks.get(&subnet.network_id);
        let told = networks.contains(&subnet.network_id);
        if network.is_some() && (told || !is_private(state, subnet.network_id)) {
            intent.subnets.insert(subnet.id, subnet.as_ref().clone());
        }
    }
    let sources = state
        .ports
        .values()
        .filter(|p| p.device_owner == NAT44_OWNER && p.binding.host_id.as_ref() == Some(host));
    for source in sources {
        let sources = intent
            .nat44_sources
            .entry(source.device_id.parse().unwrap())
            .or_default();
        sources.extend(source.fixed_ips.iter().map(|f| f.ip_address));
    }
    remotes_from_tables(state, host, &networks, &mut intent);
    floating_from_tables(state, host, &mut intent);
    let networks_told = networks.clone();
    let networks = networks.iter().filter_map(|id| state.networks.get(id));
    intent.networks = networks.map(|n| (n.id, n.as_ref().clone())).collect();
    let routers = routers
        .iter()
        .filter_map(|id| router_from_tables(state, *id));
    intent.routers = routers.map(|r| (r.router.id, r)).collect();
    for gateway in intent
        .routers
        .values()
        .filter_map(|r| r.gateway_host.as_ref())
    {
        let endpoint = state.tunnels.endpoint(&gateway.host).unwrap();
        intent.hosts.insert(gateway.host.clone(), endpoint);
    }
    // With three hosts each watches all others.
    let is_able = |h: &HostId| state.hosts.get(h).is_some() && state.tunnels.endpoint(h).is_some();
    let others = (0..3).map(self::host).filter(|h| h != host && is_able(h));
    let others = others.filter(|h| is_able(host) && state.hosts.get(h).is_some_and(|r| r.gateway));
    let watched = others.filter_map(|h| Some((state.tunnels.endpoint(&h)?.address, h)));
    intent.watched = watched.map(|(addr, h)| (h, addr)).collect();
    holders_from_tables(state, &ports, &mut intent);
    audiences_from_tables(state, &networks_told, &mut intent);
    for (port, home) in ports {
        groups_from_tables(state, &port, &mut intent);
        if !home {
            intent.standbys.insert(port.id);
        }
        intent.ports.insert(port.id, port);
    }
    intent
}

pub fn groups_from_tables(state: &State, port: &Port, intent: &mut Intent) {
    for id in &port.security_groups {
        let rules: BTreeMap<_, _> = state
            .rules
            .values()
            .filter(|r| r.security_group_id == *id)
            .map(|r| (r.id, r.as_ref().clone()))
            .collect();
        for remote in rules.values().filter_map(|r| r.remote_group_id) {
            let domain = state.domain_of(port.network_id);
            let mut reached = (BTreeSet::new(), BTreeSet::from([port.network_id]));
            close(state, &mut reached);
            let members = state.ports.values().filter(|p| {
                let there = match domain {
                    RoutingDomain::Routed => state.domain_of(p.network_id) == domain,
                    RoutingDomain::Network(_) => {
                        reached.1.contains(&p.network_id) && is_private(state, p.network_id)
                    }
                };
                p.security_groups.contains(&remote) && there
            });
            let members: BTreeSet<_> = members.flat_map(|p| member_addresses(p)).collect();
            if !members.is_empty() {
                intent.members.insert((remote, domain), members);
            }
        }
        if let Some(group) = state.groups.get(id) {
            let group = group.as_ref().clone();
            let named = rules.values().filter_map(|r| r.remote_address_group_id);
            let named = named.filter_map(|id| state.address_groups.get(&id));
            let addresses = named.map(|g| (g.id, g.addresses.iter().copied().collect()));
            let told = Group {
                group,
                addresses: addresses.collect(),
                rules,
            };
            intent.groups.insert(*id, told);
        }
    }
}

/// A router as it has to be told.
pub fn router_from_tables(state: &State, id: RouterId) -> Option<ToldRouter> {
    let router = state.layer3.routers.get(&id)?;
    let of = |owner: &str, private: bool| {
        let ports = state.ports.values().filter(|p| {
            p.device_owner == owner
                && p.device_id == id.to_string()
                && state.networks.get(&p.network_id).is_some()
                && is_private(state, p.network_id) == private
        });
        let interface = |p: &Arc<Port>| RouterInterface {
            network_id: p.network_id,
            mac_address: p.mac_address,
            fixed_ips: p.fixed_ips.clone(),
            admin_state_up: p.admin_state_up,
        };
        let interfaces = ports.map(|p| (p.id, interface(p)));
        interfaces.collect::<BTreeMap<PortId, RouterInterface>>()
    };
    let mut gateways = of(Router::GATEWAY_OWNER, false);
    gateways.retain(|id, _| router.gateways.iter().any(|g| g.port_id == *id));
    let mut told = ToldRouter {
        router: router.as_ref().clone(),
        interfaces: of(Router::INTERFACE_OWNER, true),
        gateways,
        gateway_host: None,
        published: BTreeSet::new(),
        meters: meters_from_tables(state, &router.standard.project_id),
    };
    if !told.gateways.is_empty() {
        outside_from_tables(state, &mut told);
    }
    Some(told)
}

/// What is counted at a project's routers.
pub fn meters_from_tables(
    state: &State,
    project: &ProjectId,
) -> BTreeMap<MeteringLabelId, BTreeSet<MeterRule>> {
    let mut meters: BTreeMap<MeteringLabelId, BTreeSet<MeterRule>> = BTreeMap::new();
    for rule in state.metering.rules.values() {
        let label = state.metering.labels.get(&rule.metering_label_id);
        if label.is_some_and(|label| label.shared || label.project_id == *project) {
            let told = MeterRule {
                direction: rule.direction,
                excluded: rule.excluded,
                source: rule.source_ip_prefix,
                destination: None,
            };
            meters
                .entry(rule.metering_label_id)
                .or_default()
                .insert(told);
        }
    }
    meters
}

/// Adds what only routers have that lead outside.
pub fn outside_from_tables(state: &State, told: &mut ToldRouter) {
    let record = state.layer3.gateways.get(&told.router.id);
    let at = record.and_then(|r| Some((r, r.host.clone()?)));
    let at = at.filter(|(_, host)| state.tunnels.endpoint(host).is_some());
    told.gateway_host = at.map(|(record, host)| GatewayHost {
        host,
        segment: record.segment,
        generation: record.generation,
    });
    let scope = |s: &Subnet| state.pools.get(&s.subnetpool_id?)?.address_scope_id;
    let open = |s: &Subnet| {
        let pool = s.subnetpool_id.and_then(|id| state.pools.get(&id));
        pool.is_some_and(|p| p.made_by_admin)
    };
    for outside in state
        .subnets
        .values()
        .filter(|s| s.network_id == NetworkId(id(1, OUTSIDE)))
    {
        let interfaces = told.interfaces.values().flat_map(|i| &i.fixed_ips);
        for inside in interfaces.filter_map(|f| state.subnets.get(&f.subnet_id)) {
            let single = told.router.enable_ndp_proxy && inside.cidr.family() == Family::V6;
            let same = scope(inside).is_some() && scope(inside) == scope(outside);
            if !single && same && open(inside) {
                told.published.insert(inside.cidr);
            }
        }
        for proxy in state.layer3.proxies.values() {
            let port = state.ports.get(&proxy.port_id);
            let mut addresses = port.iter().flat_map(|p| &p.fixed_ips);
            let at = addresses.find(|f| f.ip_address == IpAddr::V6(proxy.ip_address));
            let inside = at.and_then(|f| state.subnets.get(&f.subnet_id));
            let enabled = proxy.router_id == told.router.id && told.router.enable_ndp_proxy;
            if let Some(inside) =
                inside.filter(|s| enabled && open(s) && scope(s) == scope(outside))
                && scope(inside).is_some()
            {
                told.published.insert(Prefix::host(proxy.ip_address.into()));
            }
        }
    }
}

pub type Reached = (BTreeSet<RouterId>, BTreeSet<NetworkId>);

/// Adds routers that routes of those lead to, and all their networks.
pub fn close(state: &State, (routers, networks): &mut Reached) {
    let all = state.layer3.routers.ids();
    let all: Vec<_> = all
        .filter_map(|id| router_from_tables(state, *id))
        .collect();
    let is_on = |r: &ToldRouter, n: NetworkId| r.interfaces.values().any(|i| i.network_id == n);
    let first = all.iter().filter(|r| networks.iter().any(|n| is_on(r, *n)));
    routers.extend(first.map(|r| r.router.id));
    loop {
        let told = all.iter().filter(|r| routers.contains(&r.router.id));
        let hops: BTreeSet<_> = told
            .flat_map(|r| {
                let on = r.interfaces.values().map(|i| i.network_id);
                on.flat_map(|n| r.router.routes.iter().map(move |h| (n, h.nexthop)))
            })
            .collect();
        let is_hop = |i: &RouterInterface| {
            let mut addresses = i.fixed_ips.iter();
            addresses.any(|f| hops.contains(&(i.network_id, f.ip_address)))
        };
        let more = all.iter().filter(|r| r.interfaces.values().any(is_hop));
        let before = routers.len();
        routers.extend(more.map(|r| r.router.id));
        if routers.len() == before {
            break;
        }
    }
    for router in all.iter().filter(|r| routers.contains(&r.router.id)) {
        let ports = router.interfaces.values().chain(router.gateways.values());
        networks.extend(ports.map(|i| i.network_id));
    }
}

/// Routers and networks that the host must be told of.
pub fn reach_from_tables(state: &State, host: &HostId) -> Reached {
    let own = taken(state, host).into_iter().map(|(p, _)| p.network_id);
    let mut reached = (BTreeSet::new(), own.collect());
    close(state, &mut reached);
    // From a gateway one gets to its router alone, not to others on that one's networks.
    for id in state.layer3.routers.ids() {
        let gateway = router_from_tables(state, *id).and_then(|r| r.gateway_host);
        if gateway.is_some_and(|g| g.host == *host) {
            let mut from_here = (BTreeSet::from([*id]), BTreeSet::new());
            close(state, &mut from_here);
            reached.0.extend(from_here.0);
            reached.1.extend(from_here.1);
        }
    }
    reached
}

/// Who counts as having addresses of a network that several may use, and where.
pub fn held(state: &State, network: NetworkId) -> BTreeMap<IpAddr, (PortId, HostId)> {
    let hosts = || (0..3).map(self::host);
    let at_home = |at: &HostId| -> Vec<Port> {
        let theirs = taken(state, at).into_iter();
        let theirs = theirs.filter(|(port, home)| *home && port.network_id == network);
        theirs.map(|(port, _)| port).collect()
    };
    let has = |port: &Port, addr: IpAddr| port.fixed_ips.iter().any(|f| f.ip_address == addr);
    let mut all = BTreeMap::new();
    let known = state.networks.get(&network).is_some();
    for (addr, row) in state.holders.of(network).filter(|_| known) {
        let of_subnet = |port: &Port| {
            let mut fixed = port.fixed_ips.iter().filter(|f| f.ip_address == *addr);
            fixed.any(|f| state.subnets.get(&f.subnet_id).is_some())
        };
        let mut serving = state.ports.values().filter(|p| {
            p.network_id == network && p.device_owner.starts_with("network:") && of_subnet(p)
        });
        let owned = hosts().any(|at| at_home(&at).iter().any(of_subnet));
        if owned || serving.next().is_some() {
            continue;
        }
        for at in hosts() {
            for port in at_home(&at) {
                let mut pairs = port.allowed_address_pairs.iter();
                let may = pairs.any(|pair| pair.ip_address.contains(*addr)) && !has(&port, *addr);
                if port.id == row.value.port_id && may {
                    all.insert(*addr, (port.id, at.clone()));
                }
            }
        }
    }
    all
}

/// To whom it matters: who has a port that may use such an address.
pub fn holders_from_tables(state: &State, ports: &[(Port, bool)], intent: &mut Intent) {
    let networks: BTreeSet<_> = ports.iter().map(|(port, _)| port.network_id).collect();
    for network in networks {
        let held = held(state, network);
        for (port, _) in ports.iter().filter(|(port, _)| port.network_id == network) {
            let may = |addr: &IpAddr| {
                let mut pairs = port.allowed_address_pairs.iter();
                pairs.any(|pair| pair.ip_address.contains(*addr))
            };
            for (addr, (holder, _)) in held.iter().filter(|(addr, _)| may(addr)) {
                intent.holders.insert((network, *addr), *holder);
            }
        }
    }
}

/// Who has joined groups of the private networks that a host is told of.
pub fn audiences_from_tables(state: &State, networks: &BTreeSet<NetworkId>, intent: &mut Intent) {
    for port in state.ports.values() {
        let network = port.network_id;
        let is_told = networks.contains(&network) && is_private(state, network);
        let row = state.joins.row(port.id);
        let row = row.filter(|row| row.value.network_id == network);
        let (Some(row), true) = (row, is_told && places::is_guest(port)) else {
            continue;
        };
        for group in &row.value.groups {
            let mut own = port.fixed_ips.iter().map(|f| f.ip_address);
            let Some(addr) = own.find(|a| a.is_ipv4() == group.is_ipv4()) else {
                continue;
            };
            let mac = port.mac_address;
            let all = intent.audiences.entry((network, *group)).or_default();
            all.insert(port.id, Joined { mac, addr });
        }
    }
}

/// By whom each address of a network is had first: as its own, and of those by the port that comes first.
pub fn places(state: &State, network: NetworkId) -> BTreeMap<IpAddr, (bool, PortId, HostId)> {
    let mut all: BTreeMap<IpAddr, (bool, PortId, HostId)> = BTreeMap::new();
    if !is_private(state, network) {
        return all;
    }
    for at in (0..3).map(self::host) {
        let theirs = taken(state, &at).into_iter();
        for (port, _) in theirs.filter(|(p, home)| *home && p.network_id == network) {
            for addr in member_addresses(&port) {
                let own = port.fixed_ips.iter().any(|f| f.ip_address == addr);
                let claim = (!own, port.id, at.clone());
                let had = all.entry(addr).or_insert_with(|| claim.clone());
                *had = claim.min(had.clone());
            }
        }
    }
    for (addr, (port, at)) in held(state, network) {
        let own = all.get(&addr).is_some_and(|(paired, ..)| !paired);
        if !own {
            all.insert(addr, (true, port, at));
        }
    }
    all
}

pub fn floating_from_tables(state: &State, host: &HostId, intent: &mut Intent) {
    for ip in state.layer3.floating_ips.values() {
        let port = ip.port_id.and_then(|id| state.ports.get(&id));
        let fixed = ip.fixed_ip_address;
        let (Some(port), Some(fixed), Some(router)) = (port, fixed, ip.router_id) else {
            continue;
        };
        let place = places(state, port.network_id).remove(&fixed.into());
        if place.is_some_and(|(_, _, at)| at == *host) {
            let told = FloatingIp {
                id: ip.id,
                router_id: router,
                floating_ip_address: ip.floating_ip_address,
                network_id: port.network_id,
                fixed_ip_address: fixed,
                qos_policy_id: None,
            };
            intent.floating_ips.insert(ip.id, told);
        }
    }
    for forwarding in state.layer3.forwardings.values() {
        let ip = state.layer3.floating_ips.get(&forwarding.floatingip_id);
        let router = ip.and_then(|ip| router_from_tables(state, ip.router_id?));
        let port = state.ports.get(&forwarding.internal_port_id);
        let (Some(ip), Some(router), Some(port)) = (ip, router, port) else {
            continue;
        };
        if router.gateway_host.is_some_and(|g| g.host == *host) {
            let told = PortForwarding {
                id: forwarding.id,
                router_id: router.router.id,
                floating_ip_address: ip.floating_ip_address,
                protocol: forwarding.protocol,
                external_port_range: forwarding.external_port_range,
                network_id: port.network_id,
                internal_ip_address: forwarding.internal_ip_address,
                internal_port_range: forwarding.internal_port_range,
            };
            intent.port_forwardings.insert(forwarding.id, told);
        }
    }
}

pub fn remotes_from_tables(
    state: &State,
    host: &HostId,
    networks: &BTreeSet<NetworkId>,
    intent: &mut Intent,
) {
    let own = state.tunnels.endpoint(host);
    intent.hosts.extend(own.map(|own| (host.clone(), own)));
    for network in networks
        .iter()
        .filter(|id| is_private(state, **id))
        .copied()
    {
        let all = places(state, network);
        for (addr, (_, _, at)) in all.into_iter().filter(|(_, (_, _, at))| at != host) {
            let endpoint: TunnelEndpoint = state.tunnels.endpoint(&at).unwrap();
            intent.hosts.insert(at.clone(), endpoint);
            intent.remotes.entry(network).or_default().insert(addr, at);
        }
        for at in (0..3).map(self::host).filter(|at| at != host) {
            let theirs = taken(state, &at).into_iter();
            let there = theirs.filter(|(p, home)| *home && p.network_id == network);
            let told = there.filter_map(|(port, _)| RemotePort::of(&port, &at));
            intent.remote_ports.extend(told.map(|p| (p.id, p)));
        }
    }
}
