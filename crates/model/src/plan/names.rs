//! What the planner calls its chains and sets.

use std::net::IpAddr;

use hextet_types::{Family, MeteringLabelId, RouterId, SecurityGroupId, SubnetId};

use crate::{
    neutron::Direction,
    state::{ChainName, CounterName, LimiterName, LimiterRate, SetName},
};

/// Set: the interfaces of all ports.
pub const PORTS: &str = "ports";
/// Set: interfaces that are named like ports and are none.
pub const EXEMPT: &str = "exempt";
/// Set: ports whose sources nobody checks.
pub const UNCHECKED: &str = "unchecked";
/// Set: ports all of whose groups are stateless.
pub const STATELESS: &str = "stateless";
/// Set: the link-local addresses of each port.
pub const LINK_LOCALS: &str = "link-locals";
/// Set: the interfaces towards the fabric.
pub const UPLINKS: &str = "uplinks";
/// Set: ICMPv6 types that never leave their link.
pub const ND_TYPES: &str = "nd-types";
/// Set: UDP ports at which DHCP clients listen; whoever serves them by routing was asked before.
pub const DHCP_CLIENTS: &str = "dhcp-clients";
/// Verdict map: what `guard` looks into, by protocol.
pub const GUARDED: &str = "guarded";
/// Set, filled by packets: how fast each port pings the host.
pub const PINGS: &str = "pings";
/// Set, filled by packets: the connections that each port has opened.
pub const CONNECTIONS_FROM: &str = "connections-from";
/// Set, filled by packets: the connections that others have opened to each port.
pub const CONNECTIONS_TO: &str = "connections-to";

/// Set, filled by packets: how fast the host sends errors to each site outside.
pub fn sites(family: Family) -> SetName {
    SetName(format!("sites{}", digit(family)))
}

/// What each profile allows in a direction: a verdict map by the group of the interface.
pub const fn profiles(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "profile-egress",
        Direction::Ingress => "profile-ingress",
    }
}

/// What several profiles that have one number allow, each at its ports: a chain, and a verdict map of that name.
pub fn shared(number: u32, direction: Direction) -> String {
    format!("shared-{}-{number:08x}", letter(direction))
}

/// Sources out of prefixes of one length: (interface, MAC, masked address).
pub fn wide_sources(family: Family, len: u8) -> SetName {
    SetName(format!("sources{}-{len}", digit(family)))
}

/// Addresses inside the cloud, by prefixes of one length.
pub fn inside(len: u8) -> SetName {
    SetName(format!("inside4-{len}"))
}

/// The addresses of a remote group's members.
pub fn members(group: SecurityGroupId, family: Family) -> SetName {
    SetName(format!("r{}-{}", digit(family), group.0.simple()))
}

/// A group's chain.
pub fn group_chain(group: SecurityGroupId, direction: Direction) -> ChainName {
    ChainName(format!("g{}-{}", letter(direction), group.0.simple()))
}

/// The chain of the profile that is known by that text.
pub fn profile_chain(profile: &str, direction: Direction) -> ChainName {
    ChainName(format!("p{}-{profile}", letter(direction)))
}

/// A subnet's translation.
pub fn nat_chain(subnet: SubnetId) -> ChainName {
    ChainName(format!("nat44-{}", subnet.0.simple()))
}

/// The part of a subnet's translation that uses the run of sources that begins there.
pub fn nat_run_chain(subnet: SubnetId, first: IpAddr) -> ChainName {
    ChainName(format!("nat44-{}-{first}", subnet.0.simple()))
}

/// Which run of sources a client of that subnet gets.
pub fn nat_runs(subnet: SubnetId) -> SetName {
    SetName(format!("nat44-runs-{}", subnet.0.simple()))
}

/// Set, filled by packets: the connections that each port has open through the translation of that subnet.
pub fn nat_connections(subnet: SubnetId) -> SetName {
    SetName(format!("nat44-conns-{}", subnet.0.simple()))
}

/// Set, filled by packets: those of them that go to one destination.
pub fn nat_shares(subnet: SubnetId) -> SetName {
    SetName(format!("nat44-share-{}", subnet.0.simple()))
}

/// Set, of the main namespace: what each router may send from, by its link.
pub fn outside(family: Family) -> SetName {
    SetName(format!("outside{}", digit(family)))
}

/// Set, of a router: published prefixes of one length.
pub fn published(family: Family, len: u8) -> SetName {
    SetName(format!("published{}-{len}", digit(family)))
}

/// Map, of a router: where forwarded ports of a protocol lead that have those first bits in common, to a port of
/// another number or of the same.
pub fn forwards(protocol: u8, mask: u16, to_port: bool) -> SetName {
    let port = if to_port { "-to-port" } else { "" };
    SetName(format!("forward{protocol}-{mask:04x}{port}"))
}

/// Map: where ports of the host's own addresses lead.
pub fn exposed(protocol: u8) -> SetName {
    SetName(format!("exposed-{protocol}"))
}

/// Map: how fast each port, or each address of a router, may send or receive: by its link or address.
pub const fn limits(kind: &LimiterRate, direction: Direction) -> &'static str {
    match (kind, direction) {
        (LimiterRate::Octets(..), Direction::Egress) => "limit-octets-egress",
        (LimiterRate::Octets(..), Direction::Ingress) => "limit-octets-ingress",
        (LimiterRate::Packets(..), Direction::Egress) => "limit-packets-egress",
        (LimiterRate::Packets(..), Direction::Ingress) => "limit-packets-ingress",
    }
}

/// A limiter of what is known by that text: it is another as soon as its rate is.
pub fn limiter(of: &str, direction: Direction, rate: &LimiterRate) -> LimiterName {
    let (kind, rate, burst) = match rate {
        LimiterRate::Octets(rate, burst) => ('o', rate, burst),
        LimiterRate::Packets(rate, burst) => ('p', rate, burst),
    };
    LimiterName(format!("l{}{kind}-{of}-{rate}-{burst}", letter(direction)))
}

/// Set: the ports that send with this code point.
pub fn dscp(mark: u8) -> SetName {
    SetName(format!("dscp-{mark}"))
}

/// What a metering label has counted of a direction at a router.
pub fn meter(label: MeteringLabelId, router: RouterId, direction: Direction) -> CounterName {
    let (label, router) = (label.0.simple(), router.0.simple());
    CounterName(format!("meter-{}-{label}-{router}", letter(direction)))
}

/// Of which label, router and direction a counter is; none, where it is no label's.
pub fn metered(name: &CounterName) -> Option<(MeteringLabelId, RouterId, Direction)> {
    let mut parts = name.0.strip_prefix("meter-")?.split('-');
    let direction = match parts.next()? {
        "e" => Direction::Egress,
        "i" => Direction::Ingress,
        _ => return None,
    };
    let label = MeteringLabelId(parts.next()?.parse().ok()?);
    let router = RouterId(parts.next()?.parse().ok()?);
    (meter(label, router, direction) == *name).then_some((label, router, direction))
}

/// What a metering label does with a direction's packets.
pub fn meter_chain(label: MeteringLabelId, direction: Direction) -> ChainName {
    ChainName(format!("meter-{}-{}", letter(direction), label.0.simple()))
}

/// Set: what a metering label counts of a direction, or leaves out: by prefixes of those lengths, of source and
/// destination.
pub fn meter_set(
    label: MeteringLabelId,
    direction: Direction,
    excluded: bool,
    (family, source, destination): (Family, Option<u8>, Option<u8>),
) -> SetName {
    let what = if excluded { "not" } else { "is" };
    let length = |len: Option<u8>| len.map_or_else(String::new, |len| len.to_string());
    SetName(format!(
        "meter-{}-{}-{what}{}-{}-{}",
        letter(direction),
        label.0.simple(),
        digit(family),
        length(source),
        length(destination)
    ))
}

/// `4` or `6`.
pub const fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

/// `e` or `i`.
pub const fn letter(direction: Direction) -> char {
    match direction {
        Direction::Egress => 'e',
        Direction::Ingress => 'i',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meters_name_says_what_it_counts() {
        let (label, router) = (
            MeteringLabelId(uuid::Uuid::from_u128(1)),
            RouterId(uuid::Uuid::from_u128(2)),
        );
        for direction in [Direction::Ingress, Direction::Egress] {
            let name = meter(label, router, direction);
            assert_eq!(metered(&name), Some((label, router, direction)));
        }
        for name in ["", "meter-", "meter-x-1-2", "meter-e-1-2", "other"] {
            assert_eq!(metered(&name.into()), None, "{name}");
        }
        let more = format!("{}-3", meter(label, router, Direction::Egress));
        assert_eq!(metered(&more.as_str().into()), None);
    }

    #[test]
    fn every_name_fits_the_kernel() {
        let group = SecurityGroupId(uuid::Uuid::max());
        let subnet = SubnetId(uuid::Uuid::max());
        let v4 = "255.255.255.255".parse().unwrap();
        assert!(nat_run_chain(subnet, v4).0.len() < 128);
        assert!(members(group, Family::V6).0.len() < 128);
        let label = MeteringLabelId(uuid::Uuid::max());
        let lengths = (Family::V6, Some(128), Some(128));
        assert!(meter_set(label, Direction::Egress, true, lengths).0.len() < 128);
        let router = RouterId(uuid::Uuid::max());
        assert!(meter(label, router, Direction::Egress).0.len() < 128);
    }
}
