//! So many connections for each port, so that one cannot fill the host's table of connections.
//!
//! Counted is a connection's first packet, where it is admitted: packets of known connections pay nothing.
//! A port's own connections and those towards it are counted apart, so that others who knock at a port never
//! keep it from opening its own. The sets' keys are names of ports:
//! a flood fills no set, and an element whose connections are gone makes room for others.
//!
//! Linux counts by going through a list of connections, for a new one up to once each timer tick, and
//! 16,384 of them take it 3 ms. So each port has several short lists, and chance chooses one for each
//! connection: a list that is full leaves the next try another.

use super::{
    HostConfig, names,
    nft::{self, DROP, because},
    why,
};
use crate::state::{DynOp, Field, KeyType, Object, Statement, marks};

/// Counts, for each end that is a port, what goes to a port.
pub const BOTH: &str = "flood";
/// Counts, for the port that it comes from, what goes elsewhere.
pub const FROM: &str = "flood-from";
/// Lists that both sets have room for: as many as the kernel's table has connections, unless told otherwise.
pub const MAX_LISTS: u32 = 262_144;
/// Connections in a list, at most; what a new one costs grows with it.
const LIST: u32 = 256;

const COUNTED: [(Field, &str); 2] = [
    (Field::IifName, names::CONNECTIONS_FROM),
    (Field::OifName, names::CONNECTIONS_TO),
];

/// Into how many lists a port's connections go, and how many there may be in each.
pub fn lists(config: &HostConfig) -> (u32, u32) {
    let lists = config.max_connections_per_port.div_ceil(LIST).max(1);
    (lists, config.max_connections_per_port.div_ceil(lists))
}

/// The chains, and what they count in.
pub fn limit(config: &HostConfig) -> Vec<Object> {
    let (lists, each) = lists(config);
    let set = |(_, name)| nft::dynamic_set(name, [KeyType::IfName, KeyType::Mark], MAX_LISTS);
    let too_many = |(field, name): (Field, &str)| {
        let list = vec![field.into(), Field::Random(lists).into()];
        let over = Statement::Dynamic(list, name.into(), DynOp::CtCountOver(each));
        let mut statements = vec![over, Statement::Counter, DROP];
        if field == Field::IifName {
            statements.insert(0, nft::marked(marks::FROM_PORT));
        }
        because(statements, why::TOO_MANY)
    };
    let mut objects = COUNTED.map(set).to_vec();
    let [from, to] = COUNTED.map(too_many);
    objects.push(nft::chain(FROM, vec![from.clone()]));
    objects.push(nft::chain(BOTH, vec![from, to]));
    objects
}
