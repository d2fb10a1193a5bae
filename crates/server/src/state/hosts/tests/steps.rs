//! Random changes of the store, and the events that they are.

use super::*;

#[derive(Clone, Debug)]
pub enum Step_ {
    Router(RouterSpec, bool),
    Attachment(u8, u8, bool),
    /// Where a router translates.
    Gateway(u8, Option<u8>, bool),
    /// A pool's scope.
    Pool(u8, Option<u8>, bool),
    Proxy(u8, bool),
    FloatingIp(FloatingSpec, bool),
    /// To a port, and by which floating IP.
    Forwarding(u8, u8, u8, bool),
    Network(u8, bool, bool),
    Tunnel(u8, u8, bool),
    /// Whether it is willing to translate.
    Host(u8, bool, bool),
    Subnet(u8, bool),
    Group(u8, bool),
    AddressGroup(u8, u8, bool),
    Rule(u8, u8, Option<u8>, bool),
    Port(Spec, bool),
    /// A port's binding on a host, and whether the workload was heard there.
    Binding(u8, u8, bool, bool),
    /// Which address, of which network, and who says that it has it.
    Holder((u8, u8), u8, u8, bool),
    /// What groups of a network a port has joined.
    Joined(u8, u8, BTreeSet<u8>, bool),
    /// A metering label.
    Label(u8, bool),
    /// A rule of one.
    MeterRule(u8, bool),
}

/// 0 to 2.
pub fn mostly_first() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(0), 1 => Just(1), 1 => Just(2)]
}

/// What most of the others need to be of any effect.
pub fn first_steps() -> Vec<Step_> {
    let networks = (0..=OUTSIDE).map(|n| Step_::Network(n, n != OUTSIDE, true));
    let subnets = (0..=OUTSIDE).map(|n| Step_::Subnet(n, true));
    let tunnels = (0..3).map(|h| Step_::Tunnel(h, 0, true));
    networks.chain(subnets).chain(tunnels).collect()
}

pub fn host_step() -> impl Strategy<Value = Step_> {
    let there = prop::bool::weighted(0.75);
    prop_oneof![
        1 => (0u8..3, mostly_first(), there).prop_map(|(h, a, t)| Step_::Tunnel(h, a, t)),
        2 => (0u8..3, any::<bool>(), there).prop_map(|(h, w, t)| Step_::Host(h, w, t)),
    ]
}

pub fn group_step() -> impl Strategy<Value = Step_> {
    let there = prop::bool::weighted(0.75);
    prop_oneof![
        1 => (0..GROUPS, there).prop_map(|(n, t)| Step_::Group(n, t)),
        2 => (0u8..2, 0u8..8, there).prop_map(|(n, w, t)| Step_::AddressGroup(n, w, t)),
        4 => (0u8..8, prop::option::of(0..GROUPS + 2), there)
            .prop_map(|(n, r, t)| Step_::Rule(n, n % 4, r, t)),
    ]
}

pub fn meter_step() -> impl Strategy<Value = Step_> {
    let there = prop::bool::weighted(0.75);
    prop_oneof![
        (0..LABELS, there).prop_map(|(n, t)| Step_::Label(n, t)),
        (0..3 * LABELS, there).prop_map(|(n, t)| Step_::MeterRule(n, t)),
    ]
}

fn some_spec() -> impl Strategy<Value = Spec> {
    let groups = prop::collection::btree_set(0u8..4, 0..3);
    (
        0u8..8,
        0u8..3,
        (mostly_first(), prop::option::weighted(0.4, 0u8..12)),
        prop::option::of(0u8..3),
        groups,
        (
            prop::bool::weighted(0.2),
            prop::option::weighted(0.3, 0u8..3),
        ),
    )
        .prop_map(
            |(n, network, (address, pair), host, groups, (source, migrating_to))| {
                // A port never changes its network: its number says which it is on.
                let network = (network + n) % 3;
                Spec {
                    n: n + 8 * network,
                    network,
                    address,
                    pair,
                    host,
                    groups,
                    source,
                    migrating_to,
                }
            },
        )
}

pub fn step() -> impl Strategy<Value = Step_> {
    let there = prop::bool::weighted(0.75);
    let router = (
        0u8..3,
        prop::collection::btree_set((0u8..3, 0u8..3), 0..3),
        prop::bool::ANY,
    )
        .prop_map(|(n, hops, gateway)| RouterSpec { n, hops, gateway });
    let floating = (
        0u8..3,
        prop::option::weighted(0.8, 0u8..24),
        mostly_first(),
        prop::option::weighted(0.8, 0u8..3),
    )
        .prop_map(|(n, port, address, router)| FloatingSpec {
            n,
            port,
            address,
            router,
        });
    prop_oneof![
        3 => (0..=OUTSIDE, prop::bool::weighted(0.7), there)
            .prop_map(|(n, private, t)| Step_::Network(n, private && n != OUTSIDE, t)),
        3 => (router, there).prop_map(|(r, t)| Step_::Router(r, t)),
        4 => (0u8..3, 0..=OUTSIDE, there).prop_map(|(r, n, t)| Step_::Attachment(r, n, t)),
        2 => (0u8..3, prop::option::weighted(0.8, 0u8..3), there)
            .prop_map(|(r, h, t)| Step_::Gateway(r, h, t)),
        1 => (0u8..2, prop::option::weighted(0.8, 0u8..2), there)
            .prop_map(|(p, s, t)| Step_::Pool(p, s, t)),
        1 => (0..PROXIED, there).prop_map(|(r, t)| Step_::Proxy(r, t)),
        3 => (floating, there).prop_map(|(s, t)| Step_::FloatingIp(s, t)),
        2 => (0u8..3, 0u8..24, 0u8..3, there)
            .prop_map(|(n, p, f, t)| Step_::Forwarding(n, p, f, t)),
        3 => host_step(),
        2 => (0..=OUTSIDE, there).prop_map(|(n, t)| Step_::Subnet(n, t)),
        7 => group_step(),
        3 => meter_step(),
        9 => (some_spec(), there).prop_map(|(s, t)| Step_::Port(s, t)),
        4 => (0u8..24, 0u8..3, prop::bool::ANY, there)
            .prop_map(|(p, h, o, t)| Step_::Binding(p, h, o, t)),
        4 => (0u8..24, prop::collection::btree_set(0u8..3, 1..3), there)
            .prop_map(|(p, g, t)| Step_::Joined(p, p / 8, g, t)),
        5 => ((0u8..8, prop_oneof![Just(0), Just(9)]), 0u8..3, 0u8..8, there)
            .prop_map(|(a, n, p, t)| Step_::Holder(a, n, p + 8 * n, t)),
    ]
}

pub fn put(key: Bytes, thing: &impl Serialize, revision: u64) -> Event {
    Event::Put(KeyValue {
        key,
        value: serde_json::to_vec(thing).unwrap().into(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: None,
    })
}

pub fn put_or_delete(key: Bytes, event: Event, there: bool) -> Event {
    if there { event } else { Event::Delete { key } }
}

/// Of either family.
pub fn multicast(n: u8) -> IpAddr {
    match n % 2 {
        0 => [239, 0, 0, n].into(),
        _ => Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, n.into()).into(),
    }
}

pub fn event(step: &Step_, revision: u64) -> Event {
    match step {
        Step_::Network(n, private, there) => {
            let key = keys::network(NetworkId(id(1, *n)));
            let network = network(*n, *private, revision);
            put_or_delete(key.clone(), put(key, &network, revision), *there)
        }
        Step_::Tunnel(n, address, there) => {
            let key = keys::tunnel(&host(*n));
            let address = [
                Some("2001:db8::1".parse().unwrap()),
                Some("192.0.2.1".parse().unwrap()),
                None,
            ][usize::from(*address)];
            let record = TunnelRecord {
                number: 1 + u32::from(*n),
                address,
            };
            put_or_delete(key.clone(), put(key, &record, revision), *there)
        }
        Step_::Subnet(n, there) => {
            let key = keys::subnet(NetworkId(id(1, *n)), SubnetId(id(2, *n)));
            put_or_delete(
                key.clone(),
                put(key, &subnet(*n, revision), revision),
                *there,
            )
        }
        Step_::Group(n, there) => {
            let key = keys::group(SecurityGroupId(id(3, *n)));
            put_or_delete(
                key.clone(),
                put(key, &group(*n, revision), revision),
                *there,
            )
        }
        Step_::Rule(n, g, remote, there) => {
            let key = keys::rule(SecurityGroupId(id(3, *g)), SecurityGroupRuleId(id(4, *n)));
            let event = put(key.clone(), &rule(*n, *g, *remote, revision), revision);
            put_or_delete(key, event, *there)
        }
        Step_::Port(spec, there) => {
            let key = keys::port(NetworkId(id(1, spec.network)), mac(spec.n));
            put_or_delete(
                key.clone(),
                put(key, &port(spec, revision), revision),
                *there,
            )
        }
        Step_::Binding(port, at, taken_over, there) => {
            let key = keys::binding(PortId(id(5, *port)), &host(*at));
            let record = BindingRecord {
                vnic_type: neutron::VnicType::Normal,
                profile: profile(None),
                status: Status::Down,
                taken_over: *taken_over,
            };
            put_or_delete(key.clone(), put(key, &record, revision), *there)
        }
        Step_::Holder((n, last), network, port, there) => {
            let key = keys::holder(NetworkId(id(1, *network)), address(*n, *last));
            let record = HolderRecord {
                port_id: PortId(id(5, *port)),
            };
            put_or_delete(key.clone(), put(key, &record, revision), *there)
        }
        _ => router_event(step, revision),
    }
}

/// Of routers, and of what is told of them.
pub fn router_event(step: &Step_, revision: u64) -> Event {
    match step {
        Step_::Router(spec, there) => {
            let key = keys::router(RouterId(id(6, spec.n)));
            let event = put(key.clone(), &router(spec, revision), revision);
            put_or_delete(key, event, *there)
        }
        Step_::Gateway(n, at, there) => {
            let key = keys::gateway(RouterId(id(6, *n)));
            let record = GatewayRecord {
                host: at.map(host),
                segment: 100 + u32::from(*n),
                generation: revision,
            };
            put_or_delete(key.clone(), put(key, &record, revision), *there)
        }
        Step_::Host(n, willing, there) => {
            let record = HostRecord {
                id: id(13, *n),
                host: host(*n),
                created_at: Timestamp::UNIX_EPOCH,
                description: String::new(),
                admin_state_up: true,
                gateway_mac: None,
                physical_networks: BTreeSet::new(),
                gateway: *willing,
            };
            let key = keys::host(&host(*n));
            put_or_delete(key.clone(), put(key, &record, revision), *there)
        }
        Step_::Pool(n, scope, there) => {
            let key = keys::subnet_pool(SubnetPoolId(id(7, *n)));
            let pool = pool(*n, *scope, revision);
            put_or_delete(key.clone(), put(key, &pool, revision), *there)
        }
        Step_::Proxy(n, there) => {
            let proxy = NdpProxy {
                id: NdpProxyId(id(9, *n)),
                standard: standard(revision),
                router_id: RouterId(id(6, *n)),
                port_id: PortId(id(5, *n)),
                ip_address: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, (*n).into()),
            };
            let key = keys::ndp_proxy(proxy.id);
            put_or_delete(key.clone(), put(key, &proxy, revision), *there)
        }
        Step_::FloatingIp(spec, there) => {
            let ip = floating_ip(spec, revision);
            let key = keys::floating_ip(ip.id);
            put_or_delete(key.clone(), put(key, &ip, revision), *there)
        }
        Step_::Forwarding(n, port, ip, there) => {
            // What it belongs to never changes; only whether that is there.
            let forwarding = forwarding(*n, *port, *ip, revision);
            let key = keys::port_forwarding(FloatingIpId(id(10, *n)), forwarding.id);
            put_or_delete(key.clone(), put(key, &forwarding, revision), *there)
        }
        Step_::Attachment(n, network, there) => {
            let port = attachment(*n, *network, revision);
            let key = State::port_key(&port);
            put_or_delete(key.clone(), put(key, &port, revision), *there)
        }
        other => other_event(other, revision),
    }
}

/// Of what others name.
pub fn other_event(step: &Step_, revision: u64) -> Event {
    match step {
        Step_::AddressGroup(n, which, there) => {
            let key = keys::address_group(AddressGroupId(id(5, *n)));
            let group = address_group(*n, *which, revision);
            put_or_delete(key.clone(), put(key, &group, revision), *there)
        }
        Step_::Joined(port, network, groups, there) => {
            let key = keys::joined(PortId(id(5, *port)));
            let record = JoinRecord {
                network_id: NetworkId(id(1, *network)),
                project_id: ProjectId(format!("p{}", port % 2)),
                groups: groups.iter().map(|n| multicast(*n)).collect(),
            };
            put_or_delete(key.clone(), put(key, &record, revision), *there)
        }
        Step_::Label(n, there) => {
            // The routers' project's own, everybody's, and somebody else's.
            let label = MeteringLabel {
                id: MeteringLabelId(id(14, *n)),
                project_id: ProjectId(if *n == 0 { "p" } else { "q" }.into()),
                name: String::new(),
                description: String::new(),
                shared: *n == 1,
            };
            let key = keys::metering_label(label.id);
            put_or_delete(key.clone(), put(key, &label, revision), *there)
        }
        Step_::MeterRule(n, there) => {
            let rule = MeteringRule {
                id: MeteringRuleId(id(15, *n)),
                metering_label_id: MeteringLabelId(id(14, *n % LABELS)),
                project_id: ProjectId("p".into()),
                direction: Direction::Egress,
                excluded: *n >= 2 * LABELS,
                remote_ip_prefix: None,
                source_ip_prefix: Some(Prefix::host([10, 0, 0, *n].into())),
                destination_ip_prefix: None,
            };
            let key = keys::metering_rule(rule.metering_label_id, rule.id);
            put_or_delete(key.clone(), put(key, &rule, revision), *there)
        }
        other => panic!("{other:?} makes nothing"),
    }
}
