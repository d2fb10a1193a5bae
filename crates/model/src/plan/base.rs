//! What stands on every host: settings, and where there are ports, the chains that each packet passes, and XFRM policies.
//!
//! ```text
//!  prerouting ─▶ from-port, for what the port's program has not checked: source checked, or dropped
//!  forward ─▶ established
//!          ├▶ from-workload ─▶ unusual, profile ─▶ to-port ─▶ profile ─▶ admit
//!          └▶ to-workload ─▶ guard ─▶ to-port
//!  input ─▶ to-host ─▶ errors: echo requests to the gateway's addresses, nothing else
//!  output ─▶ own-reports, what the host itself reports to others than its ports
//!  output-to-ports ─▶ from-host ─▶ to-port
//!  postrouting ─▶ nat44-SUBNET, where there is translation
//! ```
//!
//! What groups cannot allow, redirects, discovery and DHCP, the port's program drops as it comes from a port;
//! `guard` sees what comes from elsewhere.
//!
//! What is not from or to a port passes all of them untouched. Where no port is, as in the main namespace of a host that
//! has only private networks, no rule asks for a connection, so that the kernel neither tracks any there nor puts
//! fragments together.
//!
//! A chain that somebody empties closes what it would have judged. The port's program lets a packet in as
//! multicast, which the kernel does not forward, and `prerouting` or `checked` make it one for the host; `forward`
//! drops what no chain has accepted; and what comes to the host itself without having passed `admit` an
//! XFRM policy stops. (`guard`, `unusual`, `invalid`, `private` and `flood`, which
//! chains only look into, are the exceptions.)
//!
//! Deviation: packets of ports whose groups are stateless are judged by rules both ways, but they are
//! tracked like all others (no `notrack`): a translated address, or a stateful port on the same host
//! that is the other end, needs the entry.

use hextet_types::{Family, IfName};
use std::net::{IpAddr, Ipv6Addr};

use super::{
    HostConfig, address, flood, names,
    nft::{self, ACCEPT, DROP, RETURN, because, rule},
    place::{self, Place},
    profile, report,
    rules::icmp_of,
    underlay,
    unit::{Output, View},
    why,
};
use crate::{
    neutron::{Direction, Protocol},
    state::{
        Address, Announcement, CtState, DynOp, Field, Hook, KeyPart, KeyType, Limit, LimitUnit,
        Namespace, Netns, NftRule, Object, PktType, Statement, Sysctl, Value, Verdict, XfrmPolicy,
        marks,
    },
};

/// Marks a packet as one that may go to a port, or from a port to the host, and lets it pass.
pub const ADMIT: &str = "admit";
/// As [`ADMIT`], of what a connection brings along, wherever it goes.
pub const EXPECTED: &str = "expected";
/// Judges what goes to a port, whoever it comes from.
pub const TO_PORT: &str = "to-port";
/// The source is right: the packet may be forwarded.
pub const CHECKED: &str = "checked";
/// Checks the source of what comes from a port.
pub const FROM_PORT: &str = "from-port";
/// Judges ICMP errors of a port; see [`super::source`].
pub const ERRORS: &str = "errors";
const ESTABLISHED: &str = "established";
const FROM_WORKLOAD: &str = "from-workload";
const TO_WORKLOAD: &str = "to-workload";
const GUARD: &str = "guard";
const UNUSUAL: &str = "unusual";
const TO_HOST: &str = "to-host";
const FROM_HOST: &str = "from-host";
/// Judges what belongs to no connection that makes sense.
pub const INVALID: &str = "invalid";
/// Whether a packet from elsewhere may go to a private address; see [`super::nat`].
pub const PRIVATE: &str = "private";

/// The gateway of every port.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The policy that stops what nothing admitted comes before those of others.
const SHIELD_PRIORITY: u32 = 1;
/// Ports that the set of pings has room for.
const MAX_PINGING_PORTS: u32 = 65_536;
/// More pings from one port are dropped.
const PING_LIMIT: Limit = Limit {
    rate: 20,
    unit: LimitUnit::Second,
    burst: 20,
};

const SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/all/accept_source_route", "0"),
    // Whether a socket here waits for it need not be asked of each packet: nearly all are forwarded. (It is
    // the setting of IPv6, too.)
    ("net/ipv4/ip_early_demux", "0"),
    // Until its source is checked, a packet from a port counts as one that came by multicast.
    ("net/ipv6/conf/default/drop_unicast_in_l2_multicast", "0"),
    // Linux looks at these options before any filter does; a negative number has it say nothing of those
    // that it does not know.
    ("net/ipv6/max_hbh_opts_number", "-8"),
    ("net/netfilter/nf_conntrack_tcp_loose", "0"),
];

/// Of a busy flow connection tracking sees a packet now and then alone (`crates/kernel/bpf/flows.h`), so it can't follow
/// TCP's window.
const PRIVATE_SYSCTLS: [(&str, &str); 1] = [("net/netfilter/nf_conntrack_tcp_be_liberal", "1")];

/// What depends on the configuration alone. The rate of the host's errors is one for all namespaces in older
/// kernels, and is set where these see it.
pub fn host(view: View<'_>) -> Output {
    let config = view.config;
    let mut output = Output::default();
    let more: &[_] = match view.place {
        Place::Main => &report::SYSCTLS,
        Place::Network(_) => &PRIVATE_SYSCTLS,
        Place::Router(_) => &[],
    };
    let sysctls = SYSCTLS.iter().chain(more);
    output.objects.extend(sysctls.map(|(path, value)| {
        Object::Sysctl(Sysctl {
            netns: Netns::Main,
            path: (*path).to_owned(),
            value: (*value).to_owned(),
        })
    }));
    output
        .objects
        .extend(config.hears_routers.iter().map(|link| {
            // Even though it forwards (RFC 4861 §6.2.2), the host itself has its addresses and routes from routers here.
            Object::Sysctl(Sysctl {
                netns: Netns::Main,
                path: format!("net/ipv6/conf/{link}/accept_ra"),
                value: "2".to_owned(),
            })
        }));
    output.objects.extend(links(config));
    output.objects.extend(report::limit());
    output
        .objects
        .extend("lo".parse::<IfName>().ok().into_iter().flat_map(|link| {
            let addresses = [IpAddr::V4(config.link_local_v4), IpAddr::V6(GATEWAY_V6)];
            addresses.map(|addr| {
                Object::Address(Address {
                    netns: Netns::Main,
                    link: link.clone(),
                    addr,
                    prefix_len: Family::of(addr).bits(),
                })
            })
        }));
    for aggregate in &config.aggregates {
        let announcement = Announcement {
            scope: aggregate.scope,
        };
        output.announce.push((aggregate.prefix, announcement));
        output.objects.push(address::blackhole(aggregate.prefix));
    }
    if let Netns::Named(name) = view.place.netns() {
        output.joints.push(Object::Namespace(Namespace { name }));
    }
    output
}

/// What judges packets of ports, where there are any: all others pay for it.
pub fn judges(config: &HostConfig) -> Vec<Object> {
    let rules = output_to_ports();
    let mut objects = sets(config);
    objects.extend(chains(config));
    objects.extend(Family::BOTH.map(shield));
    objects.push(nft::base_chain(
        "output-to-ports",
        Hook::Output,
        nft::FILTER,
        rules,
    ));
    objects
}

/// What comes from a port to the host itself and nothing admitted (because our table is gone, or one of its chains) is
/// dropped.
fn shield(family: Family) -> Object {
    Object::XfrmPolicy(XfrmPolicy {
        netns: Netns::Main,
        family,
        mark: (marks::FROM_PORT, marks::FROM_PORT | marks::ADMITTED),
        priority: SHIELD_PRIORITY,
    })
}

/// Which links are whose: what every packet is asked.
fn links(config: &HostConfig) -> Vec<Object> {
    let mut objects = [names::PORTS, names::EXEMPT].map(names_of_links).to_vec();
    let exempt = config.exempt.iter();
    objects.extend(exempt.map(|name| nft::name_element(names::EXEMPT, name)));
    objects
}

fn names_of_links(set: &str) -> Object {
    nft::set(set, [KeyType::IfName])
}

fn sets(config: &HostConfig) -> Vec<Object> {
    let mut objects = vec![
        nft::set(names::ND_TYPES, [KeyType::IcmpType(Family::V6)]),
        nft::set(names::DHCP_CLIENTS, [KeyType::InetService]),
        nft::dynamic_set(names::PINGS, [KeyType::IfName], MAX_PINGING_PORTS),
        nft::set(
            names::LINK_LOCALS,
            [
                KeyType::IfName,
                KeyType::EtherAddr,
                KeyType::Addr(Family::V6),
            ],
        ),
        nft::verdict_map(names::GUARDED, [KeyType::InetProto]),
    ];
    objects.extend([names::UNCHECKED, names::STATELESS, names::UPLINKS].map(names_of_links));
    objects.extend(profile::maps());
    let nd_types = 133..=137;
    objects.extend(nd_types.map(|t| nft::element(names::ND_TYPES, [Value::U8(t)])));
    let dhcp_clients = [68, 546];
    objects.extend(dhcp_clients.map(|p| nft::element(names::DHCP_CLIENTS, [Value::Port(p)])));
    let uplinks = config.all_uplinks().into_iter();
    objects.extend(uplinks.map(|name| nft::name_element(names::UPLINKS, name)));
    objects
}

fn chains(config: &HostConfig) -> Vec<Object> {
    let from_host = vec![
        rule([
            nft::state_in(&[CtState::Established]),
            nft::goto(ESTABLISHED),
        ]),
        gateway_reports(),
        jump_guard(),
        related(ADMIT),
        link_local_icmp(Family::V4),
        link_local_icmp(Family::V6),
        rule([nft::goto(TO_PORT)]),
    ];
    let mut chains = vec![
        nft::chain(CHECKED, vec![rule([IS_FOR_US, ACCEPT])]),
        nft::chain(ADMIT, vec![counted(flood::BOTH), rule([ADMITTED, ACCEPT])]),
        nft::chain(
            EXPECTED,
            vec![counted(flood::FROM), rule([ADMITTED, ACCEPT])],
        ),
        nft::chain(FROM_WORKLOAD, from_workload()),
        nft::chain(TO_WORKLOAD, to_workload()),
        nft::chain(FROM_HOST, from_host),
        nft::chain(UNUSUAL, vec![invalid_is_judged(), related(ERRORS)]),
        nft::chain(GUARD, guard()),
        nft::chain(TO_HOST, to_host(config)),
    ];
    for (protocol, name, rule) in guarded() {
        let to = Verdict::Jump(name.into());
        chains.push(nft::chain(name, vec![rule]));
        chains.push(nft::map_element(names::GUARDED, [Value::U8(protocol)], to));
    }
    chains
}

/// The chains by which packets come from links and sockets, and go to them; they depend on whether ports are and tunnels
/// end here. A router's place has its own.
pub fn gates(view: View<'_>) -> Vec<Object> {
    if matches!(view.place, Place::Router(_)) {
        return Vec::new();
    }
    let gate = |(name, hook, priority, rules): (_, _, _, Vec<_>)| {
        (!rules.is_empty()).then(|| nft::base_chain(name, hook, priority, rules))
    };
    let gates = [
        (
            "prerouting",
            Hook::Prerouting,
            nft::EACH_FRAGMENT,
            prerouting(view),
        ),
        ("input", Hook::Input, nft::FILTER, input(view)),
        ("output", Hook::Output, nft::RAW, output(view)),
    ];
    gates.into_iter().filter_map(gate).collect()
}

fn prerouting(view: View<'_>) -> Vec<NftRule> {
    let mut rules = Vec::new();
    if view.has_ports() {
        let [named, is_port] = from_port();
        rules.extend([
            rule([nft::marked(marks::SOURCE_CHECKED), IS_FOR_US, ACCEPT]),
            rule([nft::marked(marks::FROM_PORT), nft::goto(FROM_PORT)]),
            because([named, is_port, Statement::Counter, DROP], why::NO_PROGRAM),
        ]);
    }
    rules.extend(unknown_ports(view, Field::IifName));
    rules.extend(tunnelled(view, nft::goto(underlay::PLAIN_TUNNELS)));
    rules
}

fn input(view: View<'_>) -> Vec<NftRule> {
    let by_tunnel = tunnelled(view, nft::goto(underlay::TUNNELS));
    let mut rules = Vec::new();
    if by_tunnel.is_some() {
        rules.push(rule([nft::marked(marks::ADMITTED), ACCEPT]));
    }
    if view.has_ports() {
        let [named, is_port] = from_port();
        rules.push(rule([named, is_port, nft::goto(TO_HOST)]));
    }
    rules.extend(by_tunnel);
    rules
}

/// Before connection tracking: where no port is, no other chain sees what leaves.
fn output(view: View<'_>) -> Vec<NftRule> {
    let mut rules: Vec<NftRule> = underlay::leaves(view).into_iter().collect();
    rules.extend(unknown_ports(view, Field::OifName));
    if view.has_ports() {
        rules.push(rule([nft::name_in(Field::OifName, names::PORTS), ACCEPT]));
    }
    rules.extend(report::output());
    rules
}

fn output_to_ports() -> Vec<NftRule> {
    vec![
        // Neighbour discovery and multicast listener reports of the host's own, among others.
        rule([nft::state_in(&[CtState::Untracked]), ACCEPT]),
        rule([
            nft::name_in(Field::OifName, names::PORTS),
            nft::goto(FROM_HOST),
        ]),
    ]
}

/// What happens to tunnel packets, where there are any.
fn tunnelled(view: View<'_>, verdict: Statement) -> Option<NftRule> {
    let [is_udp, to_tunnels] = underlay::is_tunnelled();
    underlay::end(view).map(|_| rule([is_udp, to_tunnels, verdict]))
}

/// Of what comes from elsewhere the beginning of the link's name says so, which costs less than a look into the set.
fn from_port() -> [Statement; 2] {
    [
        Statement::NamePrefix(Field::IifName, IfName::OF_PORTS.to_owned()),
        nft::name_in(Field::IifName, names::PORTS),
    ]
}

const IS_FOR_US: Statement = Statement::SetPktType(PktType::Host);

/// As [`ADMIT`] does.
pub const ADMITTED: Statement = Statement::SetMark {
    value: marks::ADMITTED,
    mask: marks::ADMITTED,
};

/// The first packet of a connection is counted: of those after it the connection is confirmed
/// (`IPS_CONFIRMED`).
fn counted(chain: &str) -> NftRule {
    let confirmed = KeyPart {
        field: Field::CtStatus,
        mask: Some(0x8_u32.to_be_bytes().to_vec()),
    };
    rule([nft::compare(confirmed, Value::U32(0)), nft::jump(chain)])
}

/// Nothing passes an interface that is named like a port and that is none here. In the host's own namespace these are,
/// besides those that no plan knows, the two links that are patched where a port lives elsewhere: their program takes
/// all that comes in, and should somebody take it away, nothing gets from a private network to the host.
fn unknown_ports(view: View<'_>, field: Field) -> impl Iterator<Item = NftRule> + '_ {
    let near_ends = (view.place == Place::Main).then_some(place::OUTER_ENDS);
    let prefixes = view.config.port_prefixes.iter().map(IfName::as_str);
    prefixes.chain(near_ends).map(move |prefix| {
        let begins = Statement::NamePrefix(field, prefix.to_owned());
        let not_ours = nft::name_not_in(field, names::PORTS);
        let not_exempt = nft::name_not_in(field, names::EXEMPT);
        because(
            [begins, not_ours, not_exempt, Statement::Counter, DROP],
            why::UNKNOWN_PORT,
        )
    })
}

/// The host's ICMPv6 errors come from the gateway, as those of IPv4 do: an unnumbered host has no better
/// source, and others need not be known to workloads. (A route's preferred source cannot be this one: the
/// kernel takes a link-local address for that on the route's own link alone.)
fn gateway_reports() -> NftRule {
    let error = KeyPart {
        field: Field::IcmpType(Family::V6),
        mask: Some(vec![0x80]),
    };
    rule([
        nft::compare(error, Value::U8(0)),
        Statement::SetSaddr(GATEWAY_V6),
    ])
}

fn jump_guard() -> NftRule {
    rule([nft::jump(GUARD)])
}

fn related(to: &str) -> NftRule {
    rule([nft::state_in(&[CtState::Related]), nft::goto(to)])
}

fn link_local(field: Field) -> Statement {
    let prefix = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0));
    nft::compare(
        nft::address_part(field, Family::V6, 10),
        Value::Addr(prefix),
    )
}

fn link_local_stays() -> NftRule {
    let statements = [
        link_local(Field::Saddr(Family::V6)),
        Statement::Counter,
        DROP,
    ];
    because(statements, why::LINK_LOCAL)
}

fn from_workload() -> Vec<NftRule> {
    let profile = profile::judge(Direction::Egress);
    let rest = because([Statement::Counter, DROP], why::NO_PROFILE);
    let unusual = nft::state_in(&[CtState::Invalid, CtState::Related]);
    vec![rule([unusual, nft::jump(UNUSUAL)]), rule([profile]), rest]
}

fn to_workload() -> Vec<NftRule> {
    vec![
        link_local_stays(),
        jump_guard(),
        related(ADMIT),
        rule([nft::jump(PRIVATE)]),
        link_local_icmp(Family::V4),
        rule([nft::goto(TO_PORT)]),
    ]
}

/// What no rule of a group can allow, wherever it comes from but a port. It comes after the check for
/// established connections, to which none of this can belong.
fn guard() -> Vec<NftRule> {
    let by_protocol = Statement::VerdictMap(vec![Field::L4Proto.into()], names::GUARDED.into());
    vec![rule([by_protocol]), invalid_is_judged()]
}

fn invalid_is_judged() -> NftRule {
    rule([nft::state_in(&[CtState::Invalid]), nft::jump(INVALID)])
}

/// The protocols that `guard` looks into, each with the chain that does it, and its rule.
fn guarded() -> [(u8, &'static str, NftRule); 3] {
    let drop = |found, why: &str| because([found, Statement::Counter, DROP], why);
    let redirect = nft::compare(Field::IcmpType(Family::V4), Value::U8(5));
    let nd = nft::found(
        vec![Field::IcmpType(Family::V6).into()],
        names::ND_TYPES.into(),
        false,
    );
    let to_dhcp_client = nft::found(vec![Field::Dport.into()], names::DHCP_CLIENTS.into(), false);
    [
        (
            Protocol::ICMP.0,
            "guard-icmp",
            drop(redirect, why::REDIRECT),
        ),
        (Protocol::ICMPV6.0, "guard-icmpv6", drop(nd, why::DISCOVERY)),
        (
            Protocol::UDP.0,
            "guard-udp",
            drop(to_dhcp_client, why::DHCP),
        ),
    ]
}

/// What path-MTU discovery and tracing need, from other hosts and from this one.
fn link_local_icmp(family: Family) -> NftRule {
    let from = match family {
        Family::V4 => nft::compare(
            nft::address_part(Field::Saddr(Family::V4), Family::V4, 16),
            Value::Addr(IpAddr::from([169, 254, 0, 0])),
        ),
        Family::V6 => link_local(Field::Saddr(Family::V6)),
    };
    because(
        [nft::protocol(icmp_of(family).0), from, nft::goto(ADMIT)],
        "link-local ICMP always reaches a port",
    )
}

/// What the port's groups allow; what goes elsewhere passes without the mark that would let it go to a port. Where
/// there are stateless ports, the answers of those that are not pass.
fn to_port(view: View<'_>) -> Vec<NftRule> {
    let mut rules = Vec::new();
    if view.index.any_stateless() {
        rules.push(rule([
            nft::state_in(&[CtState::Established]),
            nft::name_not_in(Field::OifName, names::STATELESS),
            nft::goto(ADMIT),
        ]));
    }
    rules.push(rule([profile::judge(Direction::Ingress)]));
    rules.extend(unknown_ports(view, Field::OifName));
    rules.extend([counted(flood::FROM), rule([ACCEPT])]);
    rules
}

/// The host's own services are not for workloads. (Pings of `fe80::1` the port's program answers.)
fn to_host(config: &HostConfig) -> Vec<NftRule> {
    let key: Vec<KeyPart> = vec![Field::IifName.into()];
    let too_fast = Statement::Dynamic(key, names::PINGS.into(), DynOp::LimitOver(PING_LIMIT));
    let echo = |end: &[Statement]| {
        let gateway = Value::Addr(IpAddr::V4(config.link_local_v4));
        let mut statements = vec![
            nft::protocol(Protocol::ICMP.0),
            nft::compare(Field::IcmpType(Family::V4), Value::U8(8)),
            nft::compare(Field::Daddr(Family::V4), gateway),
        ];
        statements.extend_from_slice(end);
        rule(statements)
    };
    let mut rules = vec![
        rule([nft::state_in(&[CtState::Established]), ADMITTED, ACCEPT]),
        related(ERRORS),
        echo(&[too_fast, Statement::Counter, DROP]),
        echo(&[ADMITTED, ACCEPT]),
    ];
    rules.push(because([Statement::Counter, DROP], why::HOST));
    rules
}

/// What belongs to a known connection passes, except at ports whose groups are stateless: there rules
/// judge both directions, as long as there is such a port. As long as there is none, it passes at the first
/// rule that it meets.
pub fn established(view: View<'_>) -> Vec<Object> {
    let passes = [ADMITTED, ACCEPT];
    let mut rules = Vec::new();
    let mut known = vec![nft::state_in(&[CtState::Established])];
    if view.index.any_stateless() {
        let from = nft::name_in(Field::IifName, names::STATELESS);
        let to = nft::name_in(Field::OifName, names::STATELESS);
        rules.push(rule([from, nft::goto(FROM_WORKLOAD)]));
        rules.push(rule([to, nft::goto(TO_WORKLOAD)]));
        known.push(nft::goto(ESTABLISHED));
    } else {
        known.extend(passes.clone());
    }
    rules.push(rule(passes));
    let from_a_port = nft::name_in(Field::IifName, names::PORTS);
    let to_a_port = nft::name_in(Field::OifName, names::PORTS);
    let forward = vec![
        rule(known),
        rule([nft::marked(marks::FROM_PORT), nft::goto(FROM_WORKLOAD)]),
        // Somebody else on the host may have overwritten the mark.
        rule([from_a_port, nft::goto(FROM_WORKLOAD)]),
        rule([to_a_port, nft::goto(TO_WORKLOAD)]),
        because([ACCEPT], "neither from nor to a port"),
    ];
    vec![
        nft::base_chain("forward", Hook::Forward, nft::FILTER, forward),
        nft::chain(ESTABLISHED, rules),
        nft::chain(TO_PORT, to_port(view)),
    ]
}

/// What makes no sense as part of a connection is dropped where either end is a stateful port, and
/// where it would leave untranslated.
pub fn invalid(private: impl IntoIterator<Item = Statement>) -> Object {
    let drop = |statements: &[Statement]| {
        let mut statements = statements.to_vec();
        statements.extend([Statement::Counter, DROP]);
        because(statements, why::INVALID)
    };
    let stateful = |field| {
        [
            nft::name_in(field, names::PORTS),
            nft::name_not_in(field, names::STATELESS),
        ]
    };
    let mut rules = vec![
        drop(&stateful(Field::IifName)),
        drop(&stateful(Field::OifName)),
    ];
    let uplink = nft::name_in(Field::OifName, names::UPLINKS);
    rules.extend(
        private
            .into_iter()
            .map(|saddr| drop(&[uplink.clone(), saddr])),
    );
    rules.push(rule([RETURN]));
    nft::chain(INVALID, rules)
}
