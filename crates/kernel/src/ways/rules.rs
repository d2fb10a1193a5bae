//! Which packets go by which table of a mesh's routes.
//!
//! All rules bear [`MESH_PROTOCOL`]: what bears it and is not wanted any more is deleted.

use hextet_types::{Family, Prefix};

use super::Table;
use crate::{
    Error,
    netlink::{Answer, Attrs, Batch, Socket, addr, flags, ne32, octet},
    route::{MESH_PROTOCOL, af, family},
};

/// Of packets that are many: the bit of their marks. Who is in that class is said by who marks them.
pub const MANY: u32 = 0x0200_0000;
/// Of packets that have come by the mesh: the same. What goes on by the mesh to destinations that this host itself does not go to by it has
/// routes of its own.
pub const CARRIED: u32 = 0x0400_0000;
/// Of packets that carry others' between nodes: the same. They never go by the mesh themselves.
pub const UNDERLAY: u32 = 0x0800_0000;

/// What leaves the network by others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Out {
    /// What comes from these addresses, and by the mesh.
    pub own: Vec<Prefix>,
    /// Whether this host's own does, too, and whatever it has no other way for.
    pub all: bool,
}

/// Before the main table's, which is 32,766, and behind it.
const FIRST: u32 = 32_000;
const BEHIND: u32 = 32_800;

const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
const FIB_RULE_INVERT: u32 = 2;
const HEADER: usize = 12;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    family: Family,
    /// Lower comes first.
    priority: u32,
    /// Packets with all of these marks; 0 for all packets.
    mark: u32,
    /// Those without, in place of those with.
    invert: bool,
    /// From there.
    from: Option<Prefix>,
    table: Table,
    /// Any route there, or none but default ones.
    default: bool,
}

fn wanted(out: &Out) -> Vec<Lookup> {
    let mut all = Vec::new();
    for family in Family::BOTH {
        let rule = |place, mark, table| Lookup {
            family,
            priority: FIRST + place,
            mark,
            invert: false,
            from: None,
            table,
            default: true,
        };
        // What the host itself has a route to, a workload of its own for example, goes there and is not carried on.
        let main = |place, mark| Lookup {
            default: false,
            ..rule(place, mark, Table::Main)
        };
        all.extend([
            rule(0, MANY, Table::Many),
            main(1, CARRIED),
            rule(2, MANY | CARRIED, Table::CarriedMany),
            rule(3, CARRIED, Table::Carried),
        ]);
        for own in out.own.iter().filter(|own| own.family() == family) {
            let from = Some(*own);
            let mark = if out.all { 0 } else { CARRIED };
            all.extend([
                Lookup {
                    from,
                    ..main(4, mark)
                },
                Lookup {
                    from,
                    ..rule(5, mark, Table::Out)
                },
            ]);
        }
        if out.all {
            all.push(Lookup {
                priority: BEHIND,
                invert: true,
                ..rule(0, UNDERLAY, Table::Out)
            });
        }
    }
    all
}

/// Makes the rules these, and no others.
pub fn set(socket: &mut Socket, out: &Out) -> Result<(), Error> {
    let wanted = wanted(out);
    let mut standing = Vec::new();
    for family in Family::BOTH {
        let mut request = Batch::default();
        let mut header = [0; HEADER];
        header[0] = af(family);
        request.message(RTM_GETRULE, 0, &header);
        standing.extend(socket.dump(&mut request, read)?);
    }
    let mut batch = Batch::default();
    for gone in standing.iter().filter(|rule| !wanted.contains(rule)) {
        put(&mut batch, RTM_DELRULE, 0, gone);
    }
    for missing in wanted.iter().filter(|rule| !standing.contains(rule)) {
        put(
            &mut batch,
            RTM_NEWRULE,
            flags::CREATE | flags::EXCL,
            missing,
        );
    }
    if batch.is_empty() {
        return Ok(());
    }
    let outcome = socket.request(&mut batch)?;
    let refused = outcome.into_iter().next();
    refused.map_or(Ok(()), |(_, refusal)| {
        Err(refusal.of("say which packets go by which table"))
    })
}

fn put(batch: &mut Batch, kind: u16, how: u16, rule: &Lookup) {
    let mut header = [0; HEADER];
    (header[0], header[7]) = (af(rule.family), FR_ACT_TO_TBL);
    header[2] = rule.from.map_or(0, |from| from.len());
    if rule.invert {
        header[8..].copy_from_slice(&FIB_RULE_INVERT.to_ne_bytes());
    }
    let mut message = batch.message(kind, how, &header);
    message
        .ne32(FRA_PRIORITY, rule.priority)
        .ne32(FRA_TABLE, rule.table.number())
        .octet(FRA_PROTOCOL, MESH_PROTOCOL);
    if rule.mark != 0 {
        message
            .ne32(FRA_FWMARK, rule.mark)
            .ne32(FRA_FWMASK, rule.mark);
    }
    if let Some(from) = rule.from {
        message.addr(FRA_SRC, from.addr());
    }
    if !rule.default {
        message.ne32(FRA_SUPPRESS_PREFIXLEN, 0);
    }
}

/// One of ours.
pub fn read(answer: &Answer<'_>) -> Option<Lookup> {
    let head = answer.payload.get(..HEADER)?;
    let attrs = Attrs::after(answer.payload, HEADER);
    let is_ours = attrs.get(FRA_PROTOCOL).and_then(octet) == Some(MESH_PROTOCOL);
    let family = family(head[0]).filter(|_| is_ours && answer.kind == RTM_NEWRULE)?;
    let number = attrs.get(FRA_TABLE).and_then(ne32)?;
    let mut tables = Table::ALL.into_iter();
    let suppress = attrs.get(FRA_SUPPRESS_PREFIXLEN).and_then(ne32);
    Some(Lookup {
        family,
        priority: attrs.get(FRA_PRIORITY).and_then(ne32)?,
        mark: attrs.get(FRA_FWMARK).and_then(ne32).unwrap_or(0),
        invert: ne32(head.get(8..)?)? & FIB_RULE_INVERT != 0,
        from: match attrs.get(FRA_SRC) {
            Some(from) => Some(Prefix::new(addr(from)?, head[2]).ok()?),
            None => None,
        },
        table: tables.find(|table| table.number() == number)?,
        default: suppress.is_none_or(|len| len == u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_out_by_others_is_said_by_the_packets_source_or_by_nothing_else() {
        let own = vec!["fd00::/48".parse().unwrap(), "10.9.0.0/16".parse().unwrap()];
        let of = |all: bool| {
            let out = Out {
                own: own.clone(),
                all,
            };
            let rules = wanted(&out).into_iter();
            let rules = rules.filter(|rule| rule.table == Table::Out);
            rules
                .map(|rule| (rule.priority, rule.from, rule.mark, rule.invert))
                .collect::<Vec<_>>()
        };
        let [v6, v4] = [own[0], own[1]].map(Some);
        let behind = (BEHIND, None, UNDERLAY, true);
        assert_eq!(
            of(false),
            [
                (FIRST + 5, v4, CARRIED, false),
                (FIRST + 5, v6, CARRIED, false)
            ]
        );
        assert_eq!(
            of(true),
            [
                (FIRST + 5, v4, 0, false),
                behind,
                (FIRST + 5, v6, 0, false),
                behind
            ]
        );
        let none = wanted(&Out::default());
        assert!(none.iter().all(|rule| rule.table != Table::Out));
    }
}
