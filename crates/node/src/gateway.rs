//! The way out of the network that this node is for others (`gateway = true`): a default route for whoever comes from the network's addresses
//! (RFC 9079), while the host itself has a way to the world.
//!
//! What comes so has, in the world, the address by which this host sends: of IPv4 always, of IPv6 where the network's addresses are nobody's in
//! the world (RFC 4193). Else somebody routes them to this host.

use std::net::IpAddr;

use hextet_babel::packet::Destination;
use hextet_kernel::{filter::Table, ways::Leaving};
use hextet_mesh::{node::is_global, parameters::Parameters};
use hextet_model::state::{
    Chain, ChainHook, ChainName, Field, Hook, NatRange, NftRule as Rule, Policy, Statement, Value,
};
use hextet_types::{Family, IfName, Prefix};

use crate::rules::{equal, within};

/// The table's name.
pub const TABLE: &str = "hextet_mesh_gateway";
/// The priority `srcnat`.
const SRCNAT: i32 = 100;

/// A family's way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayOut {
    /// Who may take it.
    own: Prefix,
    /// Where it leaves this host.
    by: IfName,
    /// What its packets' sources become.
    source: Option<IpAddr>,
}

/// For the families of which the host has one. `source` is the host's address towards another.
pub fn ways_out(
    network: &Parameters,
    leaving: &[Leaving],
    name: impl Fn(u32) -> Option<IfName>,
    source: impl Fn(Family) -> Option<IpAddr>,
) -> Vec<WayOut> {
    let own = network.ipv4.iter().chain([&network.prefix]);
    let ways = own.filter_map(|own| {
        let family = own.family();
        let leaves = leaving.iter().find(|way| way.family == family)?;
        let is_translated = family == Family::V4 || !is_global(own.addr());
        let source = match is_translated {
            true => Some(source(family)?),
            false => None,
        };
        Some(WayOut {
            own: *own,
            by: name(leaves.link)?,
            source,
        })
    });
    ways.collect()
}

impl WayOut {
    /// What others are told.
    pub fn destination(&self) -> Option<Destination> {
        let all = Prefix::default_route(self.own.family());
        Destination::from_source(all, self.own).ok()
    }
}

/// The table that translates; none, where nothing is.
pub fn table(ways: &[WayOut]) -> Option<Table> {
    let rules: Vec<Rule> = ways.iter().filter_map(translates).collect();
    (!rules.is_empty()).then(|| Table {
        chains: vec![Chain {
            name: ChainName("postrouting".to_owned()),
            hook: Some(ChainHook {
                hook: Hook::Postrouting,
                priority: SRCNAT,
                policy: Policy::Accept,
                nat: true,
            }),
            rules,
        }],
        ..Table::default()
    })
}

fn translates(way: &WayOut) -> Option<Rule> {
    let source = way.source?;
    let mut statements = within(Field::Saddr(way.own.family()), way.own);
    statements.push(equal(Field::OifName, Value::IfName(way.by.clone())));
    statements.push(Statement::Snat(NatRange {
        first: source,
        last: source,
    }));
    Some(Rule {
        statements,
        comment: None,
    })
}
