//! What the API promises about a packet, written straight from the meaning of its resources and with
//! nothing of the planner in it: no sets, no shapes, no chains.

use std::net::IpAddr;

use hextet_model::{
    explain::{Packet, Payload},
    intent::{Group, Intent, RoutingDomain},
    neutron::{Direction, Port, SecurityGroupRule, Subnet},
    plan::HostConfig,
    state::CtState,
};
use hextet_types::{Family, PortId};

/// What becomes of a packet, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Delivered(PortId),
    Leaves { translated: bool },
    Host,
    Dropped(&'static str),
}

pub struct Judge<'a> {
    pub intent: &'a Intent,
    pub config: &'a HostConfig,
}

impl Judge<'_> {
    pub fn fate(&self, packet: &Packet) -> Fate {
        self.judge(packet).unwrap_or_else(Fate::Dropped)
    }

    fn judge(&self, packet: &Packet) -> Result<Fate, &'static str> {
        let sender = packet.link.as_ref().and_then(|link| {
            let mut ports = self.intent.ports.values();
            ports.find(|p| has_tap(p) && p.if_name() == *link)
        });
        let from_fabric = packet
            .link
            .as_ref()
            .is_some_and(|l| self.config.uplinks.contains(l));
        match sender {
            Some(port) => {
                if self.is_up(port) && pings_gateway(packet) {
                    return Ok(Fate::Host);
                }
                self.may_send(port, packet)?;
            }
            None if from_fabric => {}
            None => return Err("unknown port"),
        }
        if packet.destination.to_string().starts_with("fe80:") {
            return Err("no route");
        }
        if is_host(self.config, packet.destination) {
            return match sender {
                Some(port) if is_foreign_error(port, packet) => Err("foreign error"),
                Some(_) if !welcome_at_host(packet) => Err("host"),
                _ => Ok(Fate::Host),
            };
        }
        let receiver = self.intent.ports.values().find(|port| {
            let has = port
                .fixed_ips
                .iter()
                .any(|f| f.ip_address == packet.destination);
            has && self.owns_its_tap(port) && self.is_up(port)
        });
        let receiver = receiver.or_else(|| self.delegatee(packet.destination));
        if receiver.is_none() && self.is_black_hole(packet.destination) {
            return Err("black hole");
        }
        self.passes(sender, receiver, packet)?;
        match receiver {
            Some(port) => Ok(Fate::Delivered(port.id)),
            None => self.leaves(packet),
        }
    }

    /// Up, of those at the same interface the first, and with a source that is its own.
    fn may_send(&self, port: &Port, packet: &Packet) -> Result<(), &'static str> {
        if !self.is_up(port) {
            return Err("down");
        }
        if let (Family::V6, Payload::Icmp { icmp_type, .. }) = (packet.family(), packet.payload)
            && [130, 131, 132, 133, 134, 135, 136, 137, 143].contains(&icmp_type)
        {
            return Err("edge");
        }
        match (packet.family(), packet.payload) {
            (Family::V4, Payload::Icmp { icmp_type: 5, .. }) => return Err("redirect"),
            (
                _,
                Payload::Ports {
                    protocol: 17,
                    destination: 68 | 546,
                    ..
                },
            ) => return Err("dhcp client"),
            _ => {}
        }
        let (mac, source) = (packet.mac, packet.source);
        let to = |prefixes: &[&str]| {
            let destination = packet.destination.to_string();
            prefixes.iter().any(|l| destination.starts_with(l))
        };
        let link_local = source.to_string().starts_with("fe80:");
        let own =
            mac == Some(port.mac_address) && source == IpAddr::V6(port.mac_address.link_local());
        let wide = port.pairs().any(|p| {
            let prefix = p.ip_address;
            mac == Some(p.mac_address) && !prefix.is_host() && prefix.contains(source)
        });
        let any = !port.port_security_enabled || wide;
        let exact = own || may_use(port, packet, source);
        match link_local {
            true if exact && to(&["fe80:", "ff02:"]) => Ok(()),
            true if any && to(&["fe80:", "ff"]) => Ok(()),
            true if any => Err("link-local"),
            false if any || exact => Ok(()),
            _ => Err("spoofed"),
        }
    }

    fn passes(
        &self,
        sender: Option<&Port>,
        receiver: Option<&Port>,
        packet: &Packet,
    ) -> Result<(), &'static str> {
        let ends = [sender, receiver];
        let mut ports = ends.into_iter().flatten();
        if ends == [None, None] {
            return Ok(());
        }
        let known = packet.connection == CtState::Established;
        let judged_again = known && ports.clone().any(|p| self.is_stateless(p));
        if !known || judged_again {
            if packet.family() == Family::V6 && packet.source.to_string().starts_with("fe80:") {
                return Err("link-local");
            }
            match (packet.family(), packet.payload) {
                (Family::V4, Payload::Icmp { icmp_type: 5, .. }) => return Err("redirect"),
                (
                    Family::V6,
                    Payload::Icmp {
                        icmp_type: 133..=137,
                        ..
                    },
                ) => return Err("discovery"),
                (
                    _,
                    Payload::Ports {
                        protocol: 17,
                        destination: 68 | 546,
                        ..
                    },
                ) => return Err("dhcp client"),
                _ => {}
            }
        }
        match packet.connection {
            CtState::Related => {
                return match sender {
                    Some(port) if is_foreign_error(port, packet) => Err("foreign error"),
                    _ => Ok(()),
                };
            }
            CtState::Invalid => {
                if ports.any(|p| !self.is_stateless(p)) {
                    return Err("invalid");
                }
                if receiver.is_none() && self.nat_subnet(packet).is_some() {
                    return Err("invalid");
                }
            }
            _ => {}
        }
        if sender.is_none() && !known && receiver.is_some() && self.is_private(packet) {
            return Err("private");
        }
        if let Some(port) = sender
            && !self.allows(port, Direction::Egress, packet)
        {
            return Err("egress");
        }
        let link_local_icmp = sender.is_none()
            && packet.protocol() == 1
            && packet.source.to_string().starts_with("169.254.");
        if let Some(port) = receiver
            && !link_local_icmp
            && !self.allows(port, Direction::Ingress, packet)
        {
            return Err("ingress");
        }
        Ok(())
    }

    fn allows(&self, port: &Port, direction: Direction, packet: &Packet) -> bool {
        if !port.port_security_enabled {
            return true;
        }
        if packet.connection == CtState::Established && !self.is_stateless(port) {
            return true;
        }
        let groups = port
            .security_groups
            .iter()
            .filter_map(|id| self.intent.groups.get(id));
        let mut rules =
            groups.flat_map(|group| group.rules.values().map(move |rule| (group, rule)));
        rules.any(|(group, rule)| {
            rule.direction == direction && self.rule_allows(group, rule, packet)
        })
    }

    fn rule_allows(&self, group: &Group, rule: &SecurityGroupRule, packet: &Packet) -> bool {
        let other_end = match rule.direction {
            Direction::Ingress => packet.source,
            Direction::Egress => packet.destination,
        };
        let in_addresses = rule.remote_address_group_id.is_none_or(|id| {
            let mut prefixes = group.addresses.get(&id).into_iter().flatten();
            prefixes.any(|p| p.contains(other_end))
        });
        let in_prefix = rule.remote_ip_prefix.is_none_or(|p| p.contains(other_end));
        let in_group = rule.remote_group_id.is_none_or(|group| {
            let members = self.intent.members.get(&(group, RoutingDomain::Routed));
            members.is_some_and(|m| m.contains(&other_end))
        });
        let same_family = rule.ethertype == packet.family()
            && rule
                .remote_ip_prefix
                .is_none_or(|p| p.family() == rule.ethertype);
        same_family && in_prefix && in_group && in_addresses && service_allows(rule, packet)
    }

    fn leaves(&self, packet: &Packet) -> Result<Fate, &'static str> {
        let inside = |addr| {
            let mut subnets = self.intent.subnets.values();
            subnets.any(|s: &Subnet| s.cidr.contains(addr))
        };
        let translated = match self.nat_subnet(packet) {
            Some(subnet) if packet.connection == CtState::New && !inside(packet.destination) => {
                let sources = self.intent.nat44_sources.get(&subnet.id);
                let pooled = subnet.nat44.is_none_or(|nat| nat.pool_subnet_id.is_some());
                if pooled && !sources.is_some_and(|s| s.iter().any(IpAddr::is_ipv4)) {
                    return Err("no source");
                }
                true
            }
            _ => false,
        };
        Ok(Fate::Leaves { translated })
    }

    fn nat_subnet(&self, packet: &Packet) -> Option<&Subnet> {
        let mut subnets = self.intent.subnets.values();
        subnets.find(|s| {
            s.nat44.is_some() && packet.source.is_ipv4() && s.cidr.contains(packet.source)
        })
    }

    /// To a translated subnet, from nobody in the cloud.
    fn is_private(&self, packet: &Packet) -> bool {
        let mut subnets = self.intent.subnets.values();
        let inside = subnets.any(|s| s.cidr.contains(packet.source));
        let mut subnets = self.intent.subnets.values();
        let private = subnets.any(|s| {
            s.nat44.is_some() && s.family() == Family::V4 && s.cidr.contains(packet.destination)
        });
        private && !inside && !packet.source.to_string().starts_with("169.254.")
    }

    fn is_black_hole(&self, addr: IpAddr) -> bool {
        let source = self
            .intent
            .nat44_sources
            .values()
            .flatten()
            .any(|s| *s == addr);
        let inside = self.intent.subnets.values().any(|s| s.cidr.contains(addr));
        let aggregate = self
            .config
            .aggregates
            .iter()
            .any(|a| a.prefix.contains(addr));
        let mut subnets = self.intent.subnets.values();
        let delegated = subnets.any(|s| s.delegation.is_some() && s.cidr.contains(addr));
        source && addr.is_ipv4() || inside && self.config.blackhole_inside || delegated || aggregate
    }

    fn delegatee(&self, addr: IpAddr) -> Option<&Port> {
        self.intent.ports.values().find(|port| {
            let mut delegated = port.delegated_prefixes.iter();
            let has = delegated.any(|d| d.prefix.contains(addr));
            has && self.owns_its_tap(port) && self.is_up(port)
        })
    }

    fn owns_its_tap(&self, port: &Port) -> bool {
        let same = |p: &&Port| has_tap(p) && p.if_name() == port.if_name();
        has_tap(port) && self.intent.ports.values().find(same).map(|p| p.id) == Some(port.id)
    }

    fn is_up(&self, port: &Port) -> bool {
        let network = self.intent.networks.get(&port.network_id);
        port.admin_state_up && network.is_some_and(|n| n.admin_state_up)
    }

    fn is_stateless(&self, port: &Port) -> bool {
        let groups = || {
            port.security_groups
                .iter()
                .map(|id| self.intent.groups.get(id))
        };
        port.port_security_enabled
            && groups().count() > 0
            && groups().all(|g| g.is_some_and(|g| !g.group.stateful))
    }
}

fn may_use(port: &Port, packet: &Packet, source: IpAddr) -> bool {
    let mac = packet.mac;
    let own =
        mac == Some(port.mac_address) && port.fixed_ips.iter().any(|f| f.ip_address == source);
    own || port
        .pairs()
        .any(|p| mac == Some(p.mac_address) && p.ip_address.contains(source))
}

/// An ICMP error about a connection that has nothing to do with the port.
fn is_foreign_error(port: &Port, packet: &Packet) -> bool {
    let ends = packet.flow.unwrap_or([packet.source, packet.destination]);
    port.port_security_enabled
        && packet.connection == CtState::Related
        && [1, 58].contains(&packet.protocol())
        && !ends.iter().any(|end| may_use(port, packet, *end))
}

fn has_tap(port: &Port) -> bool {
    port.device_owner != "network:nat44"
}

fn is_host(config: &HostConfig, addr: IpAddr) -> bool {
    let for_many = addr.is_multicast() || addr.to_string() == "255.255.255.255";
    addr == IpAddr::V4(config.link_local_v4) || for_many
}

fn pings_gateway(packet: &Packet) -> bool {
    let request = Payload::Icmp {
        icmp_type: 128,
        code: 0,
    };
    packet.destination.to_string() == "fe80::1" && packet.payload == request
}

fn welcome_at_host(packet: &Packet) -> bool {
    let known = [CtState::Established, CtState::Related].contains(&packet.connection);
    let echo = matches!(packet.payload, Payload::Icmp { icmp_type: 8, .. })
        && packet.destination.to_string().starts_with("169.254.");
    known || echo
}

fn service_allows(rule: &SecurityGroupRule, packet: &Packet) -> bool {
    let (min, max) = (rule.port_range_min, rule.port_range_max);
    let Some(protocol) = rule.protocol.map(|p| p.0) else {
        return min.is_none() && max.is_none();
    };
    let protocol = if rule.ethertype == Family::V6 && protocol == 1 {
        58
    } else {
        protocol
    };
    if protocol != packet.protocol() {
        return false;
    }
    if min.is_none() && max.is_none() {
        return true;
    }
    match packet.payload {
        Payload::Ports { destination, .. } => {
            let first = min.or(max).unwrap();
            let last = max.or(min).unwrap();
            first <= destination && destination <= last
        }
        Payload::Icmp { icmp_type, code } => {
            min == Some(icmp_type.into()) && max.is_none_or(|max| max == u16::from(code))
        }
        Payload::Protocol(_) => false,
    }
}
