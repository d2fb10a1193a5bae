//! Which route a packet takes in a namespace.

use std::net::IpAddr;

use hextet_types::{Family, Prefix};

use super::{MAIN_TABLE, Machine};
use crate::{
    explain::packet::{Flight, Packet},
    state::{Key, Object, Route, RouteKey, RouteKind, Rule, RuleAction},
};

impl<'a> Machine<'a> {
    /// What policy rules lead to, which come before the main table.
    pub(super) fn route_by_rules(&self, flight: &Flight<'_>) -> Option<(Prefix, &'a RouteKind)> {
        let family = flight.packet.family();
        let first = Key::Rule(self.netns.clone(), family, 0, None, None);
        let rules = self.state.objects.range(first..).map_while(|(_, object)| {
            let Object::Rule(rule) = object else {
                return None;
            };
            (rule.netns == *self.netns && rule.family == family).then_some(rule)
        });
        let applies = |rule: &&Rule| {
            let by_link = rule.iif.is_none() || rule.iif == flight.packet.link;
            let marked = |(value, mask)| flight.mark & mask == value;
            by_link && rule.fwmark.is_none_or(marked)
        };
        let found = rules.filter(applies).find_map(|rule| match rule.action {
            RuleAction::Blackhole => Some((Prefix::default_route(family), &RouteKind::Blackhole)),
            RuleAction::Table(table) => self.route_in(table, flight.packet.destination),
        });
        found.filter(|(_, kind)| **kind != RouteKind::Throw)
    }

    /// The longest prefix of a table that is looked through as a whole. A `throw` goes on with the next rule.
    fn route_in(&self, table: u32, destination: IpAddr) -> Option<(Prefix, &'a RouteKind)> {
        let first = Key::Route(RouteKey {
            netns: self.netns.clone(),
            table,
            prefix: Prefix::default_route(Family::V4),
            source: None,
            metric: 0,
        });
        let mut best: Option<&'a Route> = None;
        for (_, object) in self.state.objects.range(first..) {
            match object {
                Object::Route(route)
                    if route.key.netns == *self.netns && route.key.table == table =>
                {
                    let longer = |than: &Route| route.key.prefix.len() > than.key.prefix.len();
                    if route.key.prefix.contains(destination) && best.is_none_or(longer) {
                        best = Some(route);
                    }
                }
                _ => break,
            }
        }
        best.map(|route| (route.key.prefix, &route.kind))
            .filter(|(_, kind)| **kind != RouteKind::Throw)
    }

    /// The longest prefix, of those for one prefix the longest for the source, and of these the lowest metric.
    pub(super) fn best_route(&self, packet: &Packet) -> Option<(Prefix, &'a RouteKind)> {
        let family = packet.family();
        let lengths = self.ways.lengths.iter().filter(|(of, _)| *of == family);
        let mut prefixes =
            lengths.filter_map(|(_, len)| Prefix::new(packet.destination, *len).ok());
        prefixes.find_map(|prefix| self.route_for(prefix, packet.source))
    }

    fn route_for(&self, prefix: Prefix, source: IpAddr) -> Option<(Prefix, &'a RouteKind)> {
        let first = Key::Route(RouteKey {
            netns: self.netns.clone(),
            table: MAIN_TABLE,
            prefix,
            source: None,
            metric: 0,
        });
        let all = self.state.objects.range(first..);
        let routes = all.map_while(|(_, object)| match object {
            Object::Route(route) => Some(route),
            _ => None,
        });
        let to_it = |route: &&Route| {
            let key = &route.key;
            (&key.netns, key.table, key.prefix) == (self.netns, MAIN_TABLE, prefix)
        };
        let fits = |route: &&Route| route.key.source.is_none_or(|from| from.contains(source));
        let best = routes.take_while(to_it).filter(fits).reduce(|best, route| {
            let length = |route: &Route| route.key.source.map(Prefix::len);
            match length(route) > length(best) {
                true => route,
                false => best,
            }
        });
        best.map(|route| (prefix, &route.kind))
    }
}
