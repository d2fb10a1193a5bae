//! Who may talk to whom, as a table of nftables: what comes by the mesh to the node's own prefixes and begins a conversation.
//!
//! As many rules as the network has, whatever the number of nodes; sources are looked for in sets of prefixes, one for each length. Where a
//! network has no rules there is no table, and nothing is tracked.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use hextet_kernel::filter::Table;
use hextet_mesh::{
    node::PORT,
    rules::{Clause, Filter, Ports, Service, Source, Verdict as Decision},
};
use hextet_model::{
    plan::port_blocks,
    state::{
        Chain, ChainHook, ChainName, CmpOp, CtState, Element, Field, Hook, KeyPart, KeyType,
        Lookup, NftRule as Rule, Policy, Set, SetName, Statement, Value, Verdict,
    },
};
use hextet_types::{Family, IfName, Prefix};

use crate::host::TUNNEL;

/// The table's name.
pub const TABLE: &str = "hextet_mesh";
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const FROM_MESH: &str = "from_mesh";
const TO_US: &str = "to_us";

/// The table that enforces it; none, if everybody may do everything. `home` is where letters come to; by `bare` interfaces the mesh comes
/// without tunnels.
pub fn table(filter: &Filter, home: Ipv6Addr, bare: &[IfName]) -> Option<Table> {
    if filter.clauses.is_empty() && filter.default == Decision::Allow {
        return None;
    }
    let known = Members::new("known", &filter.known);
    let sets = filter.sets.iter().enumerate();
    let sets: Vec<Members> = sets
        .map(|(number, set)| Members::new(&format!("in_{number}"), set))
        .collect();
    let mut to_us = vec![
        rule(vec![
            Statement::CtStateIn(vec![CtState::Established, CtState::Related]),
            verdict(Verdict::Return),
        ]),
        rule(vec![
            family(Family::V6),
            equal(Field::Daddr(Family::V6), Value::Addr(home.into())),
            equal(Field::L4Proto, Value::U8(UDP)),
            equal(Field::Dport, Value::Port(PORT)),
            verdict(Verdict::Return),
        ]),
    ];
    for clause in &filter.clauses {
        to_us.extend(clause_rules(clause, &known, &sets));
    }
    to_us.push(rule(vec![decided(filter.default)]));
    let mut table = Table {
        chains: vec![
            base("input", Hook::Input, bare),
            base("forward", Hook::Forward, bare),
            chain(FROM_MESH, to_own(&filter.own)),
            chain(TO_US, to_us),
        ],
        ..Table::default()
    };
    for members in sets.into_iter().chain([known]) {
        table
            .sets
            .extend(members.sets.into_iter().map(|(.., set)| set));
        table.elements.extend(members.elements);
    }
    Some(table)
}

/// Babel goes from link to link, and what is for others is their matter.
fn to_own(own: &[Prefix]) -> Vec<Rule> {
    let link_local = Prefix::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), 10);
    let mut rules = Vec::new();
    if let Ok(link_local) = link_local {
        let mut statements = within(Field::Saddr(Family::V6), link_local);
        statements.push(verdict(Verdict::Return));
        rules.push(rule(statements));
    }
    for prefix in own {
        let mut statements = within(Field::Daddr(prefix.family()), *prefix);
        statements.push(verdict(Verdict::Goto(TO_US.into())));
        rules.push(rule(statements));
    }
    rules
}

fn clause_rules(clause: &Clause, known: &Members, sets: &[Members]) -> Vec<Rule> {
    let none = Members::default();
    let set = |number: usize| sets.get(number).unwrap_or(&none);
    let sources = match clause.source {
        Source::Any => vec![Vec::new()],
        Source::Set(number) => set(number).holds(),
        Source::SetOrUnknown(number) => {
            let mut sources = set(number).holds();
            sources.extend(Family::BOTH.map(|family| known.lacks(family)));
            sources
        }
    };
    let services = services(&clause.service);
    let mut rules = Vec::new();
    for source in &sources {
        for service in &services {
            let mut statements = source.clone();
            statements.extend(service.iter().cloned());
            statements.push(decided(clause.verdict));
            rules.push(rule(statements));
        }
    }
    rules
}

fn services(service: &Service) -> Vec<Vec<Statement>> {
    let protocol = |number| equal(Field::L4Proto, Value::U8(number));
    match service {
        Service::Any => vec![Vec::new()],
        Service::Icmp => vec![vec![protocol(ICMP)], vec![protocol(ICMPV6)]],
        Service::Tcp(ports) => with_ports(&protocol(TCP), ports),
        Service::Udp(ports) => with_ports(&protocol(UDP), ports),
        Service::Other(number) => vec![vec![protocol(*number)]],
    }
}

fn with_ports(protocol: &Statement, ports: &Ports) -> Vec<Vec<Statement>> {
    if ports.ranges().is_empty() {
        return vec![vec![protocol.clone()]];
    }
    let blocks = ports.ranges().iter();
    let blocks = blocks.flat_map(|(first, last)| port_blocks(*first, *last));
    let statements = blocks.map(|(base, mask)| {
        let port = KeyPart {
            field: Field::Dport,
            mask: (mask != u16::MAX).then(|| mask.to_be_bytes().to_vec()),
        };
        let compare = Statement::Compare(port, CmpOp::Eq, Value::Port(base));
        vec![protocol.clone(), compare]
    });
    statements.collect()
}

/// A set of prefixes: one of nftables for each family and length.
#[derive(Debug, Default)]
struct Members {
    sets: Vec<(Family, Prefix, Set)>,
    elements: Vec<Element>,
}

impl Members {
    fn new(name: &str, prefixes: &BTreeSet<Prefix>) -> Members {
        let mut members = Members::default();
        let mut lengths = BTreeSet::new();
        for prefix in prefixes {
            let (family, len) = (prefix.family(), prefix.len());
            let set = SetName(format!("{name}_{}_{len}", name_of(family)));
            if lengths.insert(set.clone()) {
                let set = Set {
                    name: set.clone(),
                    key: vec![KeyType::Addr(family)],
                    verdicts: false,
                    data: Vec::new(),
                    dynamic: None,
                };
                members.sets.push((family, *prefix, set));
            }
            members.elements.push(Element {
                set,
                key: vec![Value::Addr(prefix.addr())],
                verdict: None,
                data: Vec::new(),
            });
        }
        members
    }

    /// That a source is in it: one of these.
    fn holds(&self) -> Vec<Vec<Statement>> {
        let sets = self.sets.iter();
        sets.map(|(of, prefix, set)| vec![family(*of), lookup(*prefix, set, false)])
            .collect()
    }

    /// That a source of that family is not in it.
    fn lacks(&self, of: Family) -> Vec<Statement> {
        let sets = self.sets.iter().filter(|(family, ..)| *family == of);
        let lookups = sets.map(|(_, prefix, set)| lookup(*prefix, set, true));
        std::iter::once(family(of)).chain(lookups).collect()
    }
}

const fn name_of(family: Family) -> &'static str {
    match family {
        Family::V4 => "4",
        Family::V6 => "6",
    }
}

fn lookup(like: Prefix, set: &Set, negate: bool) -> Statement {
    Statement::Lookup(Lookup {
        key: vec![masked(Field::Saddr(like.family()), like)],
        set: set.name.clone(),
        negate,
    })
}

pub fn within(field: Field, prefix: Prefix) -> Vec<Statement> {
    let value = Value::Addr(prefix.addr());
    vec![
        family(prefix.family()),
        Statement::Compare(masked(field, prefix), CmpOp::Eq, value),
    ]
}

fn masked(field: Field, like: Prefix) -> KeyPart {
    let mask = match like.netmask() {
        IpAddr::V4(mask) => mask.octets().to_vec(),
        IpAddr::V6(mask) => mask.octets().to_vec(),
    };
    KeyPart {
        field,
        mask: (!like.is_host()).then_some(mask),
    }
}

fn family(family: Family) -> Statement {
    equal(Field::NfProto, Value::Family(family))
}

pub fn equal(field: Field, value: Value) -> Statement {
    Statement::Compare(field.into(), CmpOp::Eq, value)
}

fn decided(decision: Decision) -> Statement {
    match decision {
        Decision::Allow => verdict(Verdict::Return),
        // Whoever is not let in is told so, and needs not wait.
        Decision::Deny => Statement::Reject,
    }
}

const fn verdict(verdict: Verdict) -> Statement {
    Statement::Verdict(verdict)
}

const fn rule(statements: Vec<Statement>) -> Rule {
    Rule {
        statements,
        comment: None,
    }
}

fn chain(name: &str, rules: Vec<Rule>) -> Chain {
    Chain {
        name: ChainName(name.to_owned()),
        hook: None,
        rules,
    }
}

fn base(name: &str, hook: Hook, bare: &[IfName]) -> Chain {
    let tunnels = Statement::NamePrefix(Field::IifName, TUNNEL.to_owned());
    let bare = bare.iter();
    let bare = bare.map(|name| equal(Field::IifName, Value::IfName(name.clone())));
    let from_mesh = std::iter::once(tunnels).chain(bare).map(|comes_by| {
        let jump = verdict(Verdict::Jump(FROM_MESH.into()));
        rule(vec![comes_by, jump])
    });
    Chain {
        name: ChainName(name.to_owned()),
        hook: Some(ChainHook {
            hook,
            priority: 0,
            policy: Policy::Accept,
            nat: false,
        }),
        rules: from_mesh.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn who_allows_everything_has_no_table() {
        assert_eq!(table(&Filter::default(), Ipv6Addr::LOCALHOST, &[]), None);
    }

    #[test]
    fn rules_grow_with_rules_and_lengths_and_not_with_nodes() {
        let filter = |nodes: u16| {
            let prefixes = (0..nodes).map(|n| prefix(&format!("2001:db8:0:{n:x}::/64")));
            let set: BTreeSet<Prefix> = prefixes.chain([prefix("10.0.0.0/24")]).collect();
            Filter {
                own: vec![prefix("2001:db8:1::/64")],
                known: set.clone(),
                sets: vec![set],
                clauses: vec![
                    Clause {
                        source: Source::SetOrUnknown(0),
                        service: Service::Tcp(Ports::new([22..=22, 8_000..=8_010]).unwrap()),
                        verdict: Decision::Deny,
                    },
                    Clause {
                        source: Source::Set(0),
                        service: Service::Any,
                        verdict: Decision::Allow,
                    },
                ],
                default: Decision::Deny,
            }
        };
        let count = |nodes| {
            let table = table(&filter(nodes), Ipv6Addr::LOCALHOST, &[]).unwrap();
            let rules: usize = table.chains.iter().map(|chain| chain.rules.len()).sum();
            (rules, table.sets.len(), table.elements.len())
        };
        let (rules, sets, elements) = count(2);
        assert_eq!((sets, elements), (4, 6));
        assert_eq!(count(500), (rules, sets, 2 * 501));
        let lan = ["eth0".parse().unwrap()];
        let with_lan = table(&filter(2), Ipv6Addr::LOCALHOST, &lan).unwrap();
        let ways_in = with_lan.chains.iter().filter(|chain| chain.hook.is_some());
        assert_eq!(ways_in.map(|chain| chain.rules.len()).sum::<usize>(), 4);
    }
}
