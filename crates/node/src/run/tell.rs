//! How the node stands, for people.

use std::{collections::BTreeMap, net::IpAddr};

use hextet_babel::{LinkId, packet::Class};
use hextet_mesh::{
    node::{ContactStatus, Strand, home_of},
    topology::{Reach, Stage},
};

use super::{Runner, Tunnel};
use crate::{host, status};

impl Runner {
    pub(super) fn status(&self) -> status::Status {
        let node = self.node.status();
        let body = &self.node.certificate().body;
        let network = &self.node.trust().parameters().body;
        let chosen = node.tunnels.iter();
        status::Status {
            node: body.node.to_string(),
            network: body.network.to_string(),
            home: (body.prefixes.first().copied())
                .and_then(home_of)
                .map(IpAddr::V6),
            prefixes: body.prefixes.iter().chain(&body.ipv4).copied().collect(),
            reach: word(node.reach).to_owned(),
            candidates: node.candidates,
            contacts: node.contacts,
            nodes: self.known_status(),
            certificate: status::Shown {
                serial: body.serial,
                not_after: body.not_after.0,
                groups: body.groups.iter().map(ToString::to_string).collect(),
            },
            parameters: network.version,
            resuming: self.babel.is_resuming,
            refused: self.refusals.count,
            revoked: (self.node.trust().revocations())
                .map(|list| list.body.entries().len())
                .sum(),
            tunnels: chosen
                .flat_map(|tunnel| self.tunnel_status(tunnel))
                .collect(),
            lan: self.lan_status(),
            direct: self.direct_status(),
            routes: self.route_status(),
        }
    }

    fn known_status(&self) -> Vec<status::Known> {
        let known = self.node.certificates().map(|body| status::Known {
            node: body.node.to_string(),
            prefixes: body.prefixes.iter().chain(&body.ipv4).copied().collect(),
        });
        known.collect()
    }

    /// A line for each strand; one, if there is none yet.
    fn tunnel_status(&self, chosen: &ContactStatus) -> Vec<status::Tunnel> {
        let strands = self.tunnels.keys();
        let strands: Vec<Strand> = strands
            .filter(|strand| strand.node == chosen.node)
            .copied()
            .collect();
        match strands.is_empty() {
            true => vec![self.strand_status(chosen, Strand::first(chosen.node))],
            false => strands
                .into_iter()
                .map(|strand| self.strand_status(chosen, strand))
                .collect(),
        }
    }

    fn strand_status(&self, chosen: &ContactStatus, strand: Strand) -> status::Tunnel {
        let made = self.tunnels.get(&strand);
        let seen = made.and_then(|tunnel| tunnel.status.as_ref());
        status::Tunnel {
            node: chosen.node.to_string(),
            strand: strand.number,
            interface: made.map_or_else(String::new, |tunnel| tunnel.name.to_string()),
            kind: chosen.kind.to_string(),
            ours: chosen.ours,
            stage: match chosen.stage {
                Stage::Opening => "opening",
                Stage::Up => "up",
                Stage::Draining => "draining",
            }
            .to_owned(),
            up: made.is_some_and(|tunnel| tunnel.link.is_some()),
            round_trip_ms: chosen.round_trip.map(|time| time.as_secs_f64() * 1_000.0),
            endpoint: seen.and_then(|status| status.endpoint),
            reason: chosen.reason.clone(),
            octets_out: seen.map_or(0, |status| status.octets_out),
            octets_in: seen.map_or(0, |status| status.octets_in),
            lost: seen.map_or(0, |status| status.unsent + status.dropped),
            refused: seen.map_or(0, |status| status.refused),
            mtu: seen.map(|status| status.mtu.into()),
            routes: made.and_then(|tunnel| tunnel.routes).unwrap_or_default(),
        }
    }

    fn lan_status(&self) -> Vec<status::Beside> {
        let reached = self.neighbours.reached.iter();
        let shown = reached.map(|(node, way)| status::Beside {
            node: node.to_string(),
            interface: self.interface_name(way.link),
            address: way.addr,
            round_trip_ms: way.round_trip.map(|time| time.as_secs_f64() * 1_000.0),
        });
        shown.collect()
    }

    fn direct_status(&self) -> Vec<status::Direct> {
        let shown = self.direct.status().map(|(route, good)| status::Direct {
            to: route.to,
            interface: host::name(route.link),
            good,
        });
        shown.collect()
    }

    fn interface_name(&self, link: LinkId) -> Option<String> {
        self.segments.name(link.0).map(ToString::to_string)
    }

    fn route_status(&self) -> Vec<status::Route> {
        let by_link: BTreeMap<LinkId, (String, &Tunnel)> = (self.tunnels.iter())
            .filter_map(|(strand, tunnel)| Some((tunnel.link?, (strand.node.to_string(), tunnel))))
            .collect();
        let routes = self.babel.routes.iter().map(|route| status::Route {
            to: route.to.prefix(),
            from: route.to.source(),
            class: match route.to.class() {
                Class::Latency => "latency",
                Class::Throughput => "throughput",
            }
            .to_owned(),
            via: route.via.map(|(link, next_hop)| {
                let tunnel = by_link.get(&link);
                let beside = || match next_hop {
                    IpAddr::V6(addr) => self.neighbours.node(link, addr),
                    IpAddr::V4(_) => None,
                };
                status::Hop {
                    node: tunnel
                        .map(|(node, _)| node.clone())
                        .or_else(|| beside().map(|node| node.to_string())),
                    interface: tunnel
                        .map(|(_, tunnel)| tunnel.name.to_string())
                        .or_else(|| self.interface_name(link)),
                    next_hop,
                }
            }),
            metric: route.metric.0,
            chosen: route.is_chosen,
            feasible: route.is_feasible,
        });
        routes.collect()
    }
}

const fn word(reach: Reach) -> &'static str {
    match reach {
        Reach::Public => "public",
        Reach::Punchable => "punchable",
        Reach::Closed => "closed",
    }
}
