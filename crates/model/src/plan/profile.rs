//! Profiles: what a port may send and receive, as far as that follows from its distinct list of groups.
//!
//! A port's interface is in the link group that has its profile's number, and two verdict maps go by that
//! number. So the rules of a namespace hold nothing for each port: Linux walks all elements with a verdict
//! whenever a rule, or another such element, is new; older versions once for each way to get there, which is the
//! square of their number.
//!
//! Numbers have 31 bits of a hash, and whoever chooses lists of groups could look for two with the same. Of such
//! the number leads to a map that tells their ports apart.

use std::sync::Arc;

use hextet_types::SecurityGroupId;
use sha2::{Digest, Sha256};

use super::{
    group::{self, DIRECTIONS},
    index::Name,
    names,
    nft::{self, because, rule},
    unit::View,
    why,
};
use crate::{
    neutron::{Direction, Port},
    state::{Field, KeyType, Object, Statement, Value, Verdict},
};

/// The link group of ports that pass all: those without port security.
const OPEN: u32 = FIRST;
/// The link group of ports that pass nothing.
const CLOSED: u32 = FIRST + 1;
/// Groups from here on are ours.
const FIRST: u32 = 1 << 31;

/// A distinct list of groups: sorted, without repetition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Profile(Arc<[SecurityGroupId]>);

impl Profile {
    /// The port's list.
    pub fn of(port: &Port) -> Profile {
        let mut groups = port.security_groups.clone();
        groups.sort_unstable();
        groups.dedup();
        Profile(groups.into())
    }

    /// The groups.
    pub fn groups(&self) -> &[SecurityGroupId] {
        &self.0
    }

    /// Its number; others may have it, too.
    pub fn number(&self) -> u32 {
        let [a, b, c, d, ..] = self.digest();
        (FIRST | u32::from_be_bytes([a, b, c, d])).max(CLOSED + 1)
    }

    fn chain(&self, direction: Direction) -> crate::state::ChainName {
        let hex: String = self.digest()[..16]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        names::profile_chain(&hex, direction)
    }

    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for group in self.groups() {
            hash.update(group.0.as_bytes());
        }
        hash.finalize().into()
    }
}

/// The link group of a port's interface.
pub fn group_of(port: &Port, up: bool) -> u32 {
    match (up, port.port_security_enabled) {
        (false, _) => CLOSED,
        (true, false) => OPEN,
        (true, true) => Profile::of(port).number(),
    }
}

/// Where rules look a port up, and what they do with those that groups do not concern.
pub fn maps() -> Vec<Object> {
    let map = |direction| nft::verdict_map(names::profiles(direction), [KeyType::DevGroup]);
    let open = |direction| Verdict::Goto(group::allowed(direction).into());
    let mut objects = DIRECTIONS.map(map).to_vec();
    objects.extend(DIRECTIONS.map(|direction| element(OPEN, direction, open(direction))));
    objects.extend(DIRECTIONS.map(|direction| element(CLOSED, direction, Verdict::Drop)));
    objects
}

fn element(number: u32, direction: Direction, to: Verdict) -> Object {
    nft::map_element(names::profiles(direction), [Value::U32(number)], to)
}

/// Judges what comes from a port, or goes to one.
pub fn judge(direction: Direction) -> Statement {
    let interface = match direction {
        Direction::Egress => Field::IifGroup,
        Direction::Ingress => Field::OifGroup,
    };
    Statement::VerdictMap(vec![interface.into()], names::profiles(direction).into())
}

/// A profile's chains: one group after the other, and what none of them allows is dropped.
pub fn chains(view: View<'_>, profile: &Profile) -> Vec<Object> {
    if !view.index.is_named(&Name::Profile(profile.clone())) {
        return Vec::new();
    }
    let chain = |direction| {
        let groups = profile.groups().iter();
        let jumps = groups.map(|id| rule([nft::jump(names::group_chain(*id, direction))]));
        let rest = because([Statement::Counter, nft::DROP], why::NOT_ALLOWED);
        nft::chain(profile.chain(direction), jumps.chain([rest]).collect())
    };
    DIRECTIONS.map(chain).into()
}

/// Where a number leads.
pub fn number(view: View<'_>, number: u32) -> Vec<Object> {
    let profiles: Vec<&Profile> = view.index.profiles_with(number).collect();
    let lead = |direction| match profiles[..] {
        [] => Vec::new(),
        [one] => vec![element(
            number,
            direction,
            Verdict::Goto(one.chain(direction)),
        )],
        _ => shared(view, number, &profiles, direction),
    };
    DIRECTIONS.into_iter().flat_map(lead).collect()
}

fn shared(view: View<'_>, number: u32, profiles: &[&Profile], direction: Direction) -> Vec<Object> {
    let name = names::shared(number, direction);
    let interface = match direction {
        Direction::Egress => Field::IifName,
        Direction::Ingress => Field::OifName,
    };
    let by_name = Statement::VerdictMap(vec![interface.into()], name.as_str().into());
    let rest = because([Statement::Counter, nft::DROP], why::NO_PROFILE);
    let mut objects = vec![
        nft::verdict_map(name.as_str(), [KeyType::IfName]),
        nft::chain(name.as_str(), vec![rule([by_name]), rest]),
        element(number, direction, Verdict::Goto(name.as_str().into())),
    ];
    for profile in profiles {
        let ports = view.index.ports(&Name::Profile((*profile).clone()));
        let plugged = ports.filter_map(|id| view.plugged(id));
        objects.extend(plugged.map(|port| {
            let to = Verdict::Goto(profile.chain(direction));
            nft::map_element(name.as_str(), [Value::IfName(port.if_name())], to)
        }));
    }
    objects
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn profile(groups: &[u128]) -> Profile {
        let id = |n: &u128| SecurityGroupId(uuid::Uuid::from_u128(*n));
        Profile(groups.iter().map(id).collect())
    }

    #[test]
    fn a_profile_is_known_by_all_its_groups() {
        let profiles = [&[][..], &[1], &[2], &[1, 2]].map(profile);
        let chains: BTreeSet<_> = profiles
            .iter()
            .map(|p| p.chain(Direction::Egress))
            .collect();
        let numbers: BTreeSet<_> = profiles.iter().map(Profile::number).collect();
        assert_eq!((chains.len(), numbers.len()), (4, 4));
        assert!(numbers.iter().all(|number| *number > CLOSED));
        assert!(chains.iter().all(|chain| chain.0.len() < 128));
    }
}
