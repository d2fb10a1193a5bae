//! What a router lets out and in, and what it translates on the way: nftables' part of its namespace, which is there only
//! where the router has a way outside.
//!
//! A floating IP stands for one address, both ways. Ports of others are forwarded, and what has no public address leaves by
//! the gateway's, both on the gateway host. What is published is never translated.
//!
//! The destination changes only of what comes from outside. So what is sent inside to a floating IP leaves with a public
//! source, comes back from the main namespace, and its answers take the same way back.
//!
//! Only what may be translated is tracked: no IPv6, nothing that stays inside, and nothing that is published; but
//! whatever comes from an address with a floating IP, and what one to which ports are forwarded sends to who asks there in
//! place of others, since it may answer somebody who used that.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use hextet_types::{Family, Prefix};

use super::{
    claim::is_published,
    outside::{self, Exit, Way},
};
use crate::{
    intent::PortForwarding,
    neutron::ForwardedProtocol,
    plan::{
        flood, meter, names,
        nft::{self, ACCEPT, DROP, because, rule},
        qos,
        rules::port_blocks,
        why,
    },
    state::{
        CmpOp, CtState, DynOp, Field, Hook, KeyPart, KeyType, NatEnd, NatRange, NftRule, Object,
        SetName, Statement, Value, marks,
    },
};

const ENTER: &str = "enter";
const LEAVE: &str = "leave";
/// Map: the addresses that floating IPs stand for.
const FLOATING: &str = "floating";
/// Set: those addresses.
const FLOATING_INSIDE: &str = "floating-inside";
/// Set: published addresses to which ports are forwarded.
const FORWARDED_INSIDE: &str = "forwarded-inside";
/// Map: their floating IPs.
const FLOATING_OUT: &str = "floating-out";
/// Map: of addresses inside, by which floating IP those are asked for who come back to their own network.
const FLOATING_BACK: &str = "floating-back";
/// Map: gateways' addresses, by the last bits of who shares them.
const SHARED: &str = "shared";
/// Set, filled by packets: the connections that others have opened to each address.
const CONNECTIONS: &str = "connections-to";
/// Ports that are forwarded one by one, of all of a router's; what is more is not forwarded.
const MAX_SINGLE: usize = 262_144;

/// What there is to translate.
pub struct Translation<'a> {
    exit: Exit<'a>,
    /// Floating IPs, and the addresses that they stand for.
    floating: BTreeMap<Ipv4Addr, Ipv4Addr>,
    forwardings: Vec<&'a PortForwarding>,
    /// For what has no public address.
    shared: Vec<Ipv4Addr>,
    inside: BTreeSet<Prefix>,
    here: bool,
}

/// Where a forwarded port leads: by its protocol and the first bits of its number.
type Forwards = BTreeMap<SetName, (ForwardedProtocol, u16, BTreeMap<(Ipv4Addr, u16), Inside>)>;
/// The address, and the port where it is another.
type Inside = (Ipv4Addr, Option<u16>);

impl<'a> Translation<'a> {
    /// Of a router that is up.
    pub fn of(exit: &Exit<'a>) -> Translation<'a> {
        let here = exit.way() == Way::Here;
        Translation {
            exit: *exit,
            floating: outside::floating(exit),
            forwardings: outside::forwardings(exit),
            shared: match here {
                true => outside::shared_addresses(exit.router),
                false => Vec::new(),
            },
            inside: outside::inside_v4(exit),
            here,
        }
    }

    /// Whether packets have to be marked because they leave here, though by default IPv4 does not.
    pub fn marks(&self) -> bool {
        let published = self.published(Family::V4).next().is_some();
        !self.here && (published || !self.floating.is_empty())
    }

    /// Whether anything may be translated here.
    pub fn tracks(&self) -> bool {
        !self.shared.is_empty() || !self.floating.is_empty() || !self.forwardings.is_empty()
    }

    fn published(&self, family: Family) -> impl Iterator<Item = Prefix> + use<'a> {
        let all = self.exit.router.published.iter().copied();
        all.filter(move |prefix| prefix.family() == family)
    }

    fn lengths(&self, family: Family) -> BTreeSet<u8> {
        self.published(family).map(|prefix| prefix.len()).collect()
    }

    /// Conditions, one for each length, for an address that is published.
    fn is_published(
        &self,
        family: Family,
        field: Field,
    ) -> impl Iterator<Item = Statement> + use<'a> {
        let lengths = self.lengths(family).into_iter();
        lengths.map(move |len| {
            let key = vec![nft::address_part(field, family, len)];
            nft::found(key, names::published(family, len), false)
        })
    }

    /// Where forwarded ports lead that has a public address of its own.
    fn forwarded_inside(&self) -> impl Iterator<Item = Ipv4Addr> {
        let inside = self.forwardings.iter().map(|f| f.internal_ip_address);
        inside.filter(|addr| is_published(self.exit.router, IpAddr::V4(*addr)))
    }

    /// Who asks, in place of a client, those that have a public address of their own: else these would answer it directly.
    fn asker(&self) -> Option<Ipv4Addr> {
        let forwarded = self.forwardings.first().map(|f| f.floating_ip_address);
        self.shared.first().copied().or(forwarded)
    }

    /// What floating IPs stand for, and is translated on its way out: what is published is not.
    fn sources(&self) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        let mut sources = BTreeMap::new();
        for (outside, inside) in &self.floating {
            if !is_published(self.exit.router, IpAddr::V4(*inside)) {
                sources.entry(*inside).or_insert(*outside);
            }
        }
        sources
    }

    /// By which floating IP an address inside is asked for.
    fn backs(&self) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        let mut backs = BTreeMap::new();
        for (outside, inside) in &self.floating {
            backs.entry(*inside).or_insert(*outside);
        }
        backs
    }

    /// The router's own addresses outside, which it answers for by one inside.
    fn answers(&self) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        let own = self
            .exit
            .inner_address()
            .filter(|_| self.tracks() && self.here);
        let outside = own.into_iter().flat_map(|own| {
            let addresses = self.exit.addresses();
            addresses.filter_map(move |addr| match addr {
                IpAddr::V4(addr) => Some((addr, own)),
                IpAddr::V6(_) => None,
            })
        });
        outside.collect()
    }
}

/// All of it.
pub fn objects(t: &Translation<'_>) -> Vec<Object> {
    let mut objects = sets(t);
    objects.extend(chains(t));
    objects.extend(limits(t));
    objects.extend(meter::meters(t.exit.router));
    if t.tracks() || t.marks() {
        objects.push(prerouting(t));
    }
    if t.tracks() {
        let forwards = forwards(&t.forwardings);
        objects.extend(translations(t, &forwards));
        objects.extend(forward_maps(forwards));
    }
    objects
}

fn sets(t: &Translation<'_>) -> Vec<Object> {
    let mut objects = Vec::new();
    for family in Family::BOTH {
        let lengths = t.lengths(family).into_iter();
        objects.extend(
            lengths.map(|len| nft::set(names::published(family, len), [KeyType::Addr(family)])),
        );
        objects.extend(t.published(family).map(|prefix| {
            let set = names::published(family, prefix.len());
            nft::element(set, [Value::Addr(prefix.addr())])
        }));
    }
    objects.extend(addresses(FLOATING_INSIDE, t.floating.values().copied()));
    objects.extend(addresses(FORWARDED_INSIDE, t.forwarded_inside()));
    if t.tracks() {
        let key = [KeyType::Addr(Family::V4), KeyType::Mark];
        objects.push(nft::dynamic_set(CONNECTIONS, key, flood::MAX_LISTS));
        let lengths: BTreeSet<u8> = t.inside.iter().map(|prefix| prefix.len()).collect();
        objects.extend(
            lengths
                .into_iter()
                .map(|len| nft::set(names::inside(len), [KeyType::Addr(Family::V4)])),
        );
        objects.extend(
            t.inside.iter().map(|prefix| {
                nft::element(names::inside(prefix.len()), [Value::Addr(prefix.addr())])
            }),
        );
    }
    objects
}

/// A set of those, where there are any.
fn addresses(set: &str, all: impl Iterator<Item = Ipv4Addr>) -> Vec<Object> {
    let all: BTreeSet<Ipv4Addr> = all.collect();
    if all.is_empty() {
        return Vec::new();
    }
    let elements = all.into_iter().map(|addr| nft::element(set, [v4(addr)]));
    let set = nft::set(set, [KeyType::Addr(Family::V4)]);
    [set].into_iter().chain(elements).collect()
}

fn v4(addr: Ipv4Addr) -> Value {
    Value::Addr(IpAddr::V4(addr))
}

fn at_link(field: Field) -> Option<Statement> {
    outside::link().map(|link| nft::compare(field, Value::IfName(link)))
}

fn is_floating() -> Statement {
    let key = vec![Field::Saddr(Family::V4).into()];
    nft::found(key, FLOATING_INSIDE.into(), false)
}

/// Which packets pass between inside and outside. So many connections come to an address inside as may be open to a port: what is
/// more would be refused there, but stand in the router's table.
fn chains(t: &Translation<'_>) -> Vec<Object> {
    let (Some(from), Some(to)) = (at_link(Field::IifName), at_link(Field::OifName)) else {
        return Vec::new();
    };
    let known = || {
        rule([
            nft::state_in(&[CtState::Established, CtState::Related]),
            ACCEPT,
        ])
    };
    let (mut enter, mut leave) = (Vec::new(), Vec::new());
    if t.tracks() {
        let (lists, each) = flood::lists(t.exit.config());
        let list = vec![Field::Daddr(Family::V4).into(), Field::Random(lists).into()];
        let over = Statement::Dynamic(list, CONNECTIONS.into(), DynOp::CtCountOver(each));
        let too_many = [nft::is_translated(), over, Statement::Counter, DROP];
        enter.extend([
            known(),
            because(too_many, why::TOO_MANY),
            rule([nft::is_translated(), ACCEPT]),
        ]);
        leave.push(known());
    }
    if !t.shared.is_empty() {
        let v4 = nft::compare(Field::NfProto, Value::Family(Family::V4));
        leave.push(rule([v4, ACCEPT]));
    }
    if !t.floating.is_empty() {
        leave.push(rule([is_floating(), ACCEPT]));
    }
    for family in Family::BOTH {
        let published = t.is_published(family, Field::Daddr(family));
        enter.extend(published.map(|is| rule([is, ACCEPT])));
        let published = t.is_published(family, Field::Saddr(family));
        leave.extend(published.map(|is| rule([is, ACCEPT])));
    }
    enter.push(because([Statement::Counter, DROP], why::NOT_PUBLIC));
    leave.push(because(
        [Statement::Counter, Statement::Reject],
        why::NOT_PUBLIC,
    ));
    let forward = vec![
        rule([from, nft::goto(ENTER)]),
        rule([to, nft::goto(LEAVE)]),
        because([ACCEPT], "stays inside"),
    ];
    vec![
        nft::base_chain("forward", Hook::Forward, nft::FILTER, forward),
        nft::chain(ENTER, enter),
        nft::chain(LEAVE, leave),
    ]
}

/// QoS policies of floating IPs, and of the gateway that others share. What is published is neither's.
fn limits(t: &Translation<'_>) -> Vec<Object> {
    let view = t.exit.view();
    let shared = (!t.shared.is_empty()).then(|| qos::of_gateway(t.exit.router));
    let mut limits = qos::Outside::new(view, shared.flatten());
    for (outside, inside) in &t.floating {
        limits.add(*inside, outside::policy_of(&t.exit, *outside));
    }
    let others = |field| {
        let mut conditions: Vec<Statement> = Vec::new();
        if !t.floating.is_empty() {
            let key = vec![KeyPart::from(field)];
            conditions.push(nft::found(key, FLOATING_INSIDE.into(), true));
        }
        let lengths = t.lengths(Family::V4).into_iter();
        conditions.extend(lengths.map(|len| {
            let key = vec![nft::address_part(field, Family::V4, len)];
            nft::found(key, names::published(Family::V4, len), true)
        }));
        conditions
    };
    limits.objects(others)
}

/// What is tracked, and what is marked.
fn prerouting(t: &Translation<'_>) -> Object {
    let mark = Statement::SetMark {
        value: marks::LEAVES_HERE,
        mask: marks::LEAVES_HERE,
    };
    let mut rules: Vec<NftRule> = Vec::new();
    if t.tracks() {
        let v6 = nft::compare(Field::NfProto, Value::Family(Family::V6));
        rules.push(rule([v6, Statement::Notrack, ACCEPT]));
    }
    // What the router reports about it leaves here, too.
    rules.extend(at_link(Field::IifName).map(|from| rule([from, mark.clone()])));
    if !t.floating.is_empty() {
        rules.push(rule([is_floating(), mark.clone(), ACCEPT]));
    }
    if t.tracks() {
        let lengths: BTreeSet<u8> = t.inside.iter().map(|prefix| prefix.len()).collect();
        rules.extend(lengths.into_iter().map(|len| {
            let key = vec![nft::address_part(Field::Daddr(Family::V4), Family::V4, len)];
            let stays = nft::found(key, names::inside(len), false);
            rule([stays, Statement::Notrack, ACCEPT])
        }));
    }
    rules.extend(at_link(Field::IifName).map(|from| rule([from, ACCEPT])));
    if let Some(asker) = t.asker().filter(|_| t.forwarded_inside().next().is_some()) {
        let key = vec![Field::Saddr(Family::V4).into()];
        let answers = nft::found(key, FORWARDED_INSIDE.into(), false);
        let to_asker = nft::compare(Field::Daddr(Family::V4), v4(asker));
        rules.push(rule([answers, to_asker, mark.clone(), ACCEPT]));
    }
    let published = t.is_published(Family::V4, Field::Saddr(Family::V4));
    rules.extend(published.map(|is| match t.tracks() {
        true => rule([is, mark.clone(), Statement::Notrack, ACCEPT]),
        false => rule([is, mark.clone(), ACCEPT]),
    }));
    nft::base_chain("prerouting", Hook::Prerouting, nft::RAW, rules)
}

/// The chains of NAT, and floating IPs' maps.
fn translations(t: &Translation<'_>, forwards: &Forwards) -> Vec<Object> {
    let (Some(from), Some(to)) = (at_link(Field::IifName), at_link(Field::OifName)) else {
        return Vec::new();
    };
    let (daddr, saddr) = (Field::Daddr(Family::V4), Field::Saddr(Family::V4));
    let by_map =
        |end, key: Field, map: &str| Statement::NatMap(end, vec![key.into()], map.into(), false);
    let mut arriving = Vec::new();
    let mut leaving = Vec::new();
    let sources = t.sources();
    let mut floating = t.answers();
    floating.extend(&t.floating);
    if !floating.is_empty() {
        let to_inside = by_map(NatEnd::Destination, daddr, FLOATING);
        arriving.push(rule([from.clone(), to_inside]));
    }
    for (map, (protocol, mask, ends)) in forwards {
        let port = KeyPart {
            field: Field::Dport,
            mask: (*mask != u16::MAX).then(|| mask.to_be_bytes().to_vec()),
        };
        let with_port = ends.values().any(|(_, port)| port.is_some());
        let to_inside = Statement::NatMap(
            NatEnd::Destination,
            vec![daddr.into(), port],
            map.clone(),
            with_port,
        );
        let is = nft::protocol(protocol.number());
        arriving.push(rule([from.clone(), is, to_inside]));
    }
    if !sources.is_empty() {
        let to_outside = by_map(NatEnd::Source, saddr, FLOATING_OUT);
        leaving.push(rule([to.clone(), to_outside]));
    }
    let back = returning_to_own(t);
    let backs = if back.is_empty() {
        BTreeMap::new()
    } else {
        t.backs()
    };
    leaving.extend(back);
    leaving.extend(returning(t));
    if !t.shared.is_empty() {
        let published = t.is_published(Family::V4, saddr);
        leaving.extend(published.map(|is| rule([is, ACCEPT])));
    }
    match t.shared.as_slice() {
        [] => {}
        [one] => {
            let (first, last) = (IpAddr::V4(*one), IpAddr::V4(*one));
            leaving.push(rule([to, Statement::Snat(NatRange { first, last })]));
        }
        _ => {
            let key = vec![bucket()];
            let shared = Statement::NatMap(NatEnd::Source, key, SHARED.into(), false);
            leaving.push(rule([to, shared]));
        }
    }
    let mut objects = maps(&[
        (FLOATING, floating),
        (FLOATING_OUT, sources),
        (FLOATING_BACK, backs),
        (SHARED, buckets(&t.shared)),
    ]);
    objects.extend([
        nft::base_chain("arriving", Hook::Prerouting, nft::DSTNAT, arriving),
        nft::base_chain("leaving", Hook::Postrouting, nft::SRCNAT, leaving),
    ]);
    objects
}

/// Who has a published address, and comes back to a forwarded port of the same router: the answers would go straight to
/// it. From the shared address they are asked for, they come here; or, where none is shared, from that whose ports are
/// forwarded. And a published address would answer from its own host, whichever that is.
fn returning(t: &Translation<'_>) -> Vec<NftRule> {
    let Some(asker) = t.asker() else {
        return Vec::new();
    };
    let goes_inside = outside::link()
        .map(|link| Statement::Compare(Field::OifName.into(), CmpOp::Ne, Value::IfName(link)));
    let Some(goes_inside) = goes_inside.filter(|_| !t.forwardings.is_empty()) else {
        return Vec::new();
    };
    let (first, last) = (IpAddr::V4(asker), IpAddr::V4(asker));
    let mut who: Vec<Statement> = t
        .is_published(Family::V4, Field::Saddr(Family::V4))
        .collect();
    if t.forwarded_inside().next().is_some() {
        let key = vec![Field::Daddr(Family::V4).into()];
        who.push(nft::found(key, FORWARDED_INSIDE.into(), false));
    }
    let snat = Statement::Snat(NatRange { first, last });
    let rules = who
        .into_iter()
        .map(|is| rule([nft::is_translated(), goes_inside.clone(), is, snat.clone()]));
    rules.collect()
}

/// Who has a published address, and comes to a floating IP of a neighbour on the same network: the answers would go straight to
/// it, past this router. From the floating IP they are asked for, they come here.
fn returning_to_own(t: &Translation<'_>) -> Vec<NftRule> {
    let rules = t.published(Family::V4).filter_map(|prefix| {
        let network = t.exit.network_of(prefix.addr())?;
        let neighbour = |inside: &Ipv4Addr| t.exit.leads_to(network, IpAddr::V4(*inside));
        let link = Exit::link_to(network).filter(|_| t.floating.values().any(neighbour))?;
        let from = nft::address_part(Field::Saddr(Family::V4), Family::V4, prefix.len());
        let key = vec![Field::Daddr(Family::V4).into()];
        Some(rule([
            nft::is_translated(),
            nft::compare(Field::OifName, Value::IfName(link)),
            nft::compare(from, Value::Addr(prefix.addr())),
            Statement::NatMap(NatEnd::Source, key, FLOATING_BACK.into(), false),
        ]))
    });
    rules.collect()
}

/// The last bits of a client's address choose among several that are shared, so that it keeps one.
fn bucket() -> KeyPart {
    let last = u8::try_from(outside::MAX_SHARED).map_or(0, |buckets| buckets - 1);
    KeyPart {
        field: Field::Saddr(Family::V4),
        mask: Some(vec![0, 0, 0, last]),
    }
}

/// All buckets, where there are several to choose from.
fn buckets(shared: &[Ipv4Addr]) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
    let all = (0..outside::MAX_SHARED).filter(|_| shared.len() > 1);
    let last = all.filter_map(|n| u8::try_from(n).ok());
    last.map(|n| Ipv4Addr::new(0, 0, 0, n))
        .zip(shared.iter().copied().cycle())
        .collect()
}

fn maps(all: &[(&str, BTreeMap<Ipv4Addr, Ipv4Addr>)]) -> Vec<Object> {
    let mut objects = Vec::new();
    for (name, pairs) in all.iter().filter(|(_, pairs)| !pairs.is_empty()) {
        let addr = [KeyType::Addr(Family::V4)];
        objects.push(nft::data_map(*name, addr, addr));
        let pairs = pairs.iter();
        objects.extend(pairs.map(|(key, to)| nft::data_element(*name, [v4(*key)], [v4(*to)])));
    }
    objects
}

/// Ports that keep their number, or all lead to one, by blocks; others one by one.
fn forwards(forwardings: &[&PortForwarding]) -> Forwards {
    let mut all = Forwards::new();
    let mut single = 0;
    for f in forwardings {
        let (outside, inside) = (f.external_port_range, f.internal_port_range);
        let blocks: Vec<(u16, u16, Option<u16>)> = match inside.single() {
            _ if outside == inside => blocks(outside.first(), outside.last(), None),
            Some(port) => blocks(outside.first(), outside.last(), Some(port)),
            None => {
                let pairs = (outside.first()..=outside.last()).zip(inside.first()..=inside.last());
                pairs.map(|(from, to)| (from, u16::MAX, Some(to))).collect()
            }
        };
        if blocks.len() > 32 {
            single += blocks.len();
            if single > MAX_SINGLE {
                continue;
            }
        }
        for (base, mask, port) in blocks {
            let name = names::forwards(f.protocol.number(), mask, port.is_some());
            let empty = || (f.protocol, mask, BTreeMap::new());
            let (.., ends) = all.entry(name).or_insert_with(empty);
            let to = (f.internal_ip_address, port);
            ends.entry((f.floating_ip_address, base)).or_insert(to);
        }
    }
    all
}

fn blocks(first: u16, last: u16, to: Option<u16>) -> Vec<(u16, u16, Option<u16>)> {
    let blocks = port_blocks(first, last).into_iter();
    blocks.map(|(base, mask)| (base, mask, to)).collect()
}

fn forward_maps(forwards: Forwards) -> Vec<Object> {
    let mut objects = Vec::new();
    for (name, (.., ends)) in forwards {
        let key = [KeyType::Addr(Family::V4), KeyType::InetService];
        let with_port = ends.values().any(|(_, port)| port.is_some());
        objects.push(match with_port {
            true => nft::data_map(name.clone(), key, key),
            false => nft::data_map(name.clone(), key, [KeyType::Addr(Family::V4)]),
        });
        objects.extend(ends.into_iter().map(|((addr, port), (inside, to))| {
            let data: Vec<Value> = [v4(inside)]
                .into_iter()
                .chain(to.map(Value::Port))
                .collect();
            nft::data_element(name.clone(), [v4(addr), Value::Port(port)], data)
        }));
    }
    objects
}
