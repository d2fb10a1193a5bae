//! Routes (`RTM_*ROUTE`, rtnetlink(7)).

use std::net::IpAddr;

use hextet_model::state::{Netns, NextHop, Route, RouteKey, RouteKind};
use hextet_types::{Family, IfName, Prefix};

use super::{Indexes, PROTOCOL, af, family};
use crate::netlink::{Answer, Attrs, Batch, Message, addr, flags, ne16, ne32};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const HEADER: usize = 12;
const NEXT_HOP_HEADER: usize = 8;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_ENCAP_TYPE: u16 = 21;
const RTA_NH_ID: u16 = 30;
const RTN_UNICAST: u8 = 1;
const RTN_BLACKHOLE: u8 = 6;
const RTN_THROW: u8 = 9;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const SCOPE_NOWHERE: u8 = 255;
/// The metric that the kernel gives to an IPv6 route that asks for none (`IP6_RT_PRIO_USER`).
pub const DEFAULT_METRIC_V6: u32 = 1024;

/// How a route is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// There must be none with that prefix and metric.
    Create,
    /// Takes the place of ours.
    Replace,
}

/// Asks for all routes of ours in one family.
pub fn request_all(batch: &mut Batch, family: Family) {
    let mut header = [0; HEADER];
    header[0] = af(family);
    header[5] = PROTOCOL;
    batch.message(RTM_GETROUTE, 0, &header);
}

/// Whether a message is about a route of ours.
pub fn is_ours(answer: &Answer<'_>) -> bool {
    answer.payload.get(5) == Some(&PROTOCOL)
}

/// Reads a route of ours: its key, and what it does or why no route of the model does that.
pub fn read(
    answer: &Answer<'_>,
    netns: &Netns,
    links: &Indexes,
) -> Option<(RouteKey, Result<Route, String>)> {
    if answer.kind != RTM_NEWROUTE || !is_ours(answer) {
        return None;
    }
    let head = answer.payload.get(..HEADER)?;
    let family = family(head[0])?;
    let attrs = Attrs::after(answer.payload, HEADER);
    let dst = match attrs.get(RTA_DST) {
        Some(value) => addr(value)?,
        None => family.unspecified(),
    };
    let source = match attrs.get(RTA_SRC) {
        Some(value) => Some(Prefix::new(addr(value)?, head[2]).ok()?),
        None => None,
    };
    let key = RouteKey {
        netns: netns.clone(),
        table: attrs
            .get(RTA_TABLE)
            .and_then(ne32)
            .unwrap_or(u32::from(head[4])),
        prefix: Prefix::new(dst, head[1]).ok()?,
        source,
        metric: attrs.get(RTA_PRIORITY).and_then(ne32).unwrap_or(0),
    };
    let plain = head[3] == 0
        && ![RTA_METRICS, RTA_ENCAP_TYPE, RTA_NH_ID]
            .iter()
            .any(|k| attrs.get(*k).is_some());
    let kind = match head[7] {
        RTN_UNICAST => read_hops(attrs, links).map(RouteKind::Unicast),
        RTN_BLACKHOLE => Some(RouteKind::Blackhole),
        RTN_THROW => Some(RouteKind::Throw),
        _ => None,
    };
    let prefsrc = attrs.get(RTA_PREFSRC).and_then(addr);
    let route = match kind.filter(|_| plain) {
        Some(kind) => Ok(Route {
            key: key.clone(),
            kind,
            prefsrc,
        }),
        None => Err("a route of another kind".to_owned()),
    };
    Some((key, route))
}

fn read_hops(attrs: Attrs<'_>, links: &Indexes) -> Option<Vec<NextHop>> {
    let mut hops = Vec::new();
    match attrs.get(RTA_MULTIPATH) {
        None => hops.push(read_hop(attrs, ne32(attrs.get(RTA_OIF)?)?, links)?),
        Some(mut rest) => {
            while !rest.is_empty() {
                let len = usize::from(ne16(rest)?);
                let hop = rest.get(..len).filter(|hop| hop.len() >= NEXT_HOP_HEADER)?;
                let index = ne32(hop.get(4..)?)?;
                hops.push(read_hop(Attrs::after(hop, NEXT_HOP_HEADER), index, links)?);
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
    hops.sort();
    Some(hops)
}

fn read_hop(attrs: Attrs<'_>, index: u32, links: &Indexes) -> Option<NextHop> {
    let via = match (attrs.get(RTA_GATEWAY), attrs.get(RTA_VIA)) {
        (Some(value), _) => Some(addr(value)?),
        (None, Some(value)) => Some(addr(value.get(2..)?)?),
        (None, None) => None,
    };
    Some(NextHop {
        via,
        link: links.name(index)?.clone(),
    })
}

/// Writes a route. Gives back the link that is missing, where one is.
pub fn put<'a>(
    batch: &mut Batch,
    route: &'a Route,
    how: How,
    links: &Indexes,
) -> Result<(), &'a IfName> {
    let family = route.key.prefix.family();
    let hops = match &route.kind {
        RouteKind::Unicast(hops) => hops.as_slice(),
        RouteKind::Blackhole | RouteKind::Throw => &[],
    };
    let mut indexed = Vec::with_capacity(hops.len());
    for hop in hops {
        indexed.push((hop, links.index(&hop.link).ok_or(&hop.link)?));
    }
    let on_link = family == Family::V4 && !hops.is_empty() && hops.iter().all(|h| h.via.is_none());
    let scope = if on_link { SCOPE_LINK } else { SCOPE_UNIVERSE };
    let kind = match &route.kind {
        RouteKind::Unicast(_) => RTN_UNICAST,
        RouteKind::Blackhole => RTN_BLACKHOLE,
        RouteKind::Throw => RTN_THROW,
    };
    let how = match how {
        How::Create => flags::CREATE | flags::EXCL,
        How::Replace => flags::CREATE | flags::REPLACE,
    };
    let mut m = batch.message(RTM_NEWROUTE, how, &header(&route.key, scope, kind));
    identity(&mut m, &route.key);
    if let Some(source) = route.prefsrc {
        m.addr(RTA_PREFSRC, source);
    }
    match indexed.as_slice() {
        [] => {}
        [(hop, index)] => {
            m.ne32(RTA_OIF, *index);
            gateway(&mut m, family, hop);
        }
        several => {
            m.nest(RTA_MULTIPATH, |m| {
                for (hop, index) in several {
                    m.next_hop(*index, |m| gateway(m, family, hop));
                }
            });
        }
    }
    Ok(())
}

/// Deletes a route of ours.
pub fn delete(batch: &mut Batch, key: &RouteKey) {
    let mut m = batch.message(RTM_DELROUTE, 0, &header(key, SCOPE_NOWHERE, 0));
    identity(&mut m, key);
}

fn header(key: &RouteKey, scope: u8, kind: u8) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = af(key.prefix.family());
    header[1] = key.prefix.len();
    header[2] = key.source.map_or(0, Prefix::len);
    header[4] = u8::try_from(key.table).unwrap_or(0);
    header[5] = PROTOCOL;
    header[6] = scope;
    header[7] = kind;
    header
}

fn identity(m: &mut Message<'_>, key: &RouteKey) {
    m.addr(RTA_DST, key.prefix.addr())
        .ne32(RTA_TABLE, key.table);
    if let Some(source) = key.source {
        m.addr(RTA_SRC, source.addr());
    }
    if key.metric != 0 {
        m.ne32(RTA_PRIORITY, key.metric);
    }
}

fn gateway(m: &mut Message<'_>, family: Family, hop: &NextHop) {
    match hop.via {
        Some(via) if Family::of(via) == family => {
            m.addr(RTA_GATEWAY, via);
        }
        Some(IpAddr::V6(via)) => {
            let mut value = u16::from(af(Family::V6)).to_ne_bytes().to_vec();
            value.extend_from_slice(&via.octets());
            m.attr(RTA_VIA, &value);
        }
        _ => {}
    }
}
