//! Rules: who may talk to whom in a network, by the groups in certificates.
//!
//! They stand in the signed parameters, in order: of those that fit, the first decides; where none fits, the default does. Whoever *receives* enforces them
//! ([`Filter`]), and only for what begins a conversation: answers to what went out come in as ever.
//!
//! What always holds: whose certificate has not been seen is in no group. So it gets nothing that is for a group, and everything that is denied to
//! one is denied to it.

mod filter;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use hextet_types::octets::{Reader, put_u16};

pub use self::filter::{Clause, Filter, Source, compile};
use crate::{
    label::{self, Label},
    wire::{self, Field, Malformed},
};

/// Rules of a network.
pub const MAX_RULES: usize = 64;
/// Groups on one side of a rule.
pub const MAX_GROUPS: usize = 8;
/// Ranges of ports of a rule.
pub const MAX_PORTS: usize = 8;

/// What is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It comes in.
    #[default]
    Allow,
    /// It does not.
    Deny,
}

/// One side of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Everybody.
    Any,
    /// Who is in one of these: 1 to [`MAX_GROUPS`], ascending.
    Groups(Vec<Label>),
}

/// What is talked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Anything.
    Any,
    /// ICMP of either family (RFC 792, RFC 4443).
    Icmp,
    /// TCP to these ports; to all, if there are none.
    Tcp(Ports),
    /// UDP, likewise.
    Udp(Ports),
    /// A protocol by its number (IANA's "Protocol Numbers") that is none of those above.
    Other(u8),
}

/// Ports: at most [`MAX_PORTS`] ranges, ascending, none touching another. None at all mean all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<(u16, u16)>);

impl Ports {
    /// Puts ranges in order and joins what touches; none, if there are too many or one is turned around.
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Option<Ports> {
        let mut ranges: Vec<(u16, u16)> = ranges
            .into_iter()
            .map(|range| (*range.start(), *range.end()))
            .collect();
        ranges.sort_unstable();
        let mut joined: Vec<(u16, u16)> = Vec::new();
        for (first, last) in ranges {
            match joined.last_mut() {
                _ if first > last => return None,
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => joined.push((first, last)),
            }
        }
        (joined.len() <= MAX_PORTS).then_some(Ports(joined))
    }

    /// The first and the last of each range.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    fn put(&self, out: &mut Vec<u8>) {
        wire::put_count(out, self.0.len());
        for (first, last) in &self.0 {
            put_u16(out, *first);
            put_u16(out, *last);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Ports, Malformed> {
        const WHAT: &str = "the ports of a rule";
        let count = wire::count(reader, WHAT, 0, MAX_PORTS)?;
        let mut ranges = Vec::with_capacity(count);
        for _ in 0..count {
            ranges.push((reader.u16().need(WHAT)?, reader.u16().need(WHAT)?));
        }
        let ports = Ports::new(ranges.iter().map(|(first, last)| *first..=*last));
        let ports = ports.filter(|ports| ports.0 == ranges);
        ports.ok_or(Malformed::Value(WHAT))
    }
}

/// One.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Who begins.
    pub from: Who,
    /// With whom.
    pub to: Who,
    /// What.
    pub service: Service,
    /// Whether it may.
    pub verdict: Verdict,
}

/// A network's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// At most [`MAX_RULES`]; the first that fits decides.
    pub list: Vec<Rule>,
    /// Where none fits.
    pub default: Verdict,
}

impl Rules {
    /// Octets of the longest.
    pub const MAX_LEN: usize =
        2 + MAX_RULES * (1 + 2 * (1 + MAX_GROUPS * (1 + label::MAX_LEN)) + 2 + MAX_PORTS * 4);

    /// Whether everybody may talk to everybody, as without any.
    pub fn is_none(&self) -> bool {
        *self == Rules::default()
    }

    /// Checks the bounds of each field.
    ///
    /// # Errors
    ///
    /// The first that doesn't hold.
    pub fn check(&self) -> Result<(), Malformed> {
        if self.list.len() > MAX_RULES {
            return Err(Malformed::Value("the number of rules"));
        }
        for rule in &self.list {
            for who in [&rule.from, &rule.to] {
                if let Who::Groups(groups) = who
                    && !((1..=MAX_GROUPS).contains(&groups.len()) && wire::ascends(groups))
                {
                    return Err(Malformed::Value("the groups of a rule"));
                }
            }
            if let Service::Other(ICMP | TCP | UDP | ICMPV6) = rule.service {
                return Err(Malformed::Value("the protocol of a rule"));
            }
        }
        Ok(())
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_verdict(out, self.default);
        wire::put_count(out, self.list.len());
        for rule in &self.list {
            put_verdict(out, rule.verdict);
            put_who(out, &rule.from);
            put_who(out, &rule.to);
            put_service(out, &rule.service);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Rules, Malformed> {
        let default = verdict(reader)?;
        let count = wire::count(reader, "the number of rules", 0, MAX_RULES)?;
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(Rule {
                verdict: verdict(reader)?,
                from: who(reader)?,
                to: who(reader)?,
                service: service(reader)?,
            });
        }
        let rules = Rules { list, default };
        rules.check()?;
        Ok(rules)
    }
}

/// IANA's numbers of protocols.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

const ANY_SERVICE: u8 = 0;
const OTHER_SERVICE: u8 = 1;
const ICMP_SERVICE: u8 = 2;
const TCP_SERVICE: u8 = 3;
const UDP_SERVICE: u8 = 4;

fn put_verdict(out: &mut Vec<u8>, verdict: Verdict) {
    out.push(u8::from(verdict == Verdict::Deny));
}

fn verdict(reader: &mut Reader<'_>) -> Result<Verdict, Malformed> {
    match wire::count(reader, "what a rule does", 0, 1)? {
        0 => Ok(Verdict::Allow),
        _ => Ok(Verdict::Deny),
    }
}

fn put_who(out: &mut Vec<u8>, who: &Who) {
    let groups = match who {
        Who::Any => &[][..],
        Who::Groups(groups) => groups,
    };
    wire::put_count(out, groups.len());
    groups.iter().for_each(|group| group.put(out));
}

fn who(reader: &mut Reader<'_>) -> Result<Who, Malformed> {
    let count = wire::count(reader, "the groups of a rule", 0, MAX_GROUPS)?;
    let groups = (0..count).map(|_| Label::read(reader, "a group of a rule"));
    let groups: Vec<Label> = groups.collect::<Result<_, _>>()?;
    Ok(match groups.is_empty() {
        true => Who::Any,
        false => Who::Groups(groups),
    })
}

fn put_service(out: &mut Vec<u8>, service: &Service) {
    match service {
        Service::Any => out.push(ANY_SERVICE),
        Service::Other(protocol) => out.extend([OTHER_SERVICE, *protocol]),
        Service::Icmp => out.push(ICMP_SERVICE),
        Service::Tcp(ports) => {
            out.push(TCP_SERVICE);
            ports.put(out);
        }
        Service::Udp(ports) => {
            out.push(UDP_SERVICE);
            ports.put(out);
        }
    }
}

fn service(reader: &mut Reader<'_>) -> Result<Service, Malformed> {
    Ok(match reader.u8().need("the protocol of a rule")? {
        ANY_SERVICE => Service::Any,
        OTHER_SERVICE => Service::Other(reader.u8().need("the protocol of a rule")?),
        ICMP_SERVICE => Service::Icmp,
        TCP_SERVICE => Service::Tcp(Ports::read(reader)?),
        UDP_SERVICE => Service::Udp(Ports::read(reader)?),
        _ => return Err(Malformed::Value("the protocol of a rule")),
    })
}
