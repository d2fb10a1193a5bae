//! Reads path attributes with the error handling of RFC 7606.

use std::net::Ipv4Addr;

use hextet_types::{Asn, Family, Prefix};

use super::{
    Afi, Aggregator, AsPath, Code, Community, ExtendedCommunity, LargeCommunity, NextHop,
    Notification, Parsed, PathAttributes, Problem, Reach, Reader, UnknownAttribute, Update,
    nlri::read_prefixes,
    update::{Consequence, Context},
    value::{
        Fault, OPTIONAL, Raw, TRANSITIVE, code, expected_flags, many, read_afi, read_aggregator,
        read_next_hop, read_origin, read_raw,
    },
};

/// Problems that are told of a message; those over it act, but are not told.
const MAX_PROBLEMS: usize = 16;

pub(super) struct Decoder<'c> {
    context: &'c Context,
    seen: [u128; 2],
    attributes: PathAttributes,
    next_hop: Option<Ipv4Addr>,
    aggregator: Option<Aggregator>,
    as4_aggregator: Option<Aggregator>,
    as4_path: Option<AsPath>,
    reach: Option<(NextHop, Vec<Prefix>)>,
    /// MP_REACH_NLRI of a family that the session does not have.
    foreign_reach: bool,
    unreach: Option<(Family, Vec<Prefix>)>,
    problems: Vec<Problem>,
    withdraw: bool,
    disabled: Option<(Family, Notification)>,
}

impl<'c> Decoder<'c> {
    pub(super) fn new(context: &'c Context) -> Self {
        Decoder {
            context,
            seen: [0; 2],
            attributes: PathAttributes::new(NextHop::V4(Ipv4Addr::UNSPECIFIED)),
            next_hop: None,
            aggregator: None,
            as4_aggregator: None,
            as4_path: None,
            reach: None,
            foreign_reach: false,
            unreach: None,
            problems: Vec::new(),
            withdraw: false,
            disabled: None,
        }
    }

    pub(super) fn read_all(&mut self, octets: &[u8]) -> Result<(), Notification> {
        let mut r = Reader::new(octets);
        while !r.is_empty() {
            let start = r;
            let Some(raw) = read_raw(&mut r) else {
                // RFC 7606 §4. The NLRI of a truncated MP attribute are lost: §3 (j).
                let kind = octets.get(octets.len() - start.len() + 1).copied();
                if matches!(kind, Some(code::MP_REACH | code::MP_UNREACH)) {
                    return Err(Notification::new(Code::UPDATE_ATTRIBUTE_LIST));
                }
                self.problem(
                    kind.unwrap_or_default(),
                    Consequence::TreatAsWithdraw,
                    "runs over the attributes' end",
                );
                return Ok(());
            };
            self.read_one(&raw)?;
        }
        Ok(())
    }

    fn read_one(&mut self, raw: &Raw<'_>) -> Result<(), Notification> {
        let first = self.mark_seen(raw.code);
        let multiprotocol = matches!(raw.code, code::MP_REACH | code::MP_UNREACH);
        if !first {
            if multiprotocol {
                return Err(Notification::new(Code::UPDATE_ATTRIBUTE_LIST));
            }
            self.problem(raw.code, Consequence::AttributeDiscard, "appears twice");
            return Ok(());
        }
        let external_only = matches!(
            raw.code,
            code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST
        );
        if external_only && !self.context.internal {
            self.problem(
                raw.code,
                Consequence::AttributeDiscard,
                "from an external peer",
            );
            return Ok(());
        }
        let fault = match expected_flags(raw.code) {
            None => return self.unknown(raw),
            Some(flags) if flags != raw.flags & (OPTIONAL | TRANSITIVE) => match raw.code {
                code::AS4_PATH | code::AS4_AGGREGATOR => Err(Fault::Discard("wrong flags")),
                _ => {
                    // The NLRI are still read, so that they can be withdrawn.
                    self.read_value(raw)
                        .and(Err(Fault::Withdraw("wrong flags")))
                }
            },
            Some(_) => self.read_value(raw),
        };
        match fault {
            Ok(()) => Ok(()),
            Err(fault) => self.fault(raw, fault),
        }
    }

    fn fault(&mut self, raw: &Raw<'_>, fault: Fault) -> Result<(), Notification> {
        match fault {
            Fault::Discard(reason) => {
                self.problem(raw.code, Consequence::AttributeDiscard, reason);
            }
            Fault::Withdraw(reason) => {
                self.problem(raw.code, Consequence::TreatAsWithdraw, reason);
            }
            Fault::Disable(family, code) => {
                let notification = Notification::with_data(code, raw.whole);
                let Some(family) = family else {
                    return Err(notification);
                };
                self.problem(raw.code, Consequence::DisableFamily, "unreadable NLRI");
                self.disabled = Some((family, notification));
            }
        }
        Ok(())
    }

    fn mark_seen(&mut self, code: u8) -> bool {
        let [low, high] = &mut self.seen;
        let word = if code < 128 { low } else { high };
        let bit = 1u128 << (code & 127);
        let first = *word & bit == 0;
        *word |= bit;
        first
    }

    fn has(&self, code: u8) -> bool {
        let [low, high] = self.seen;
        (if code < 128 { low } else { high }) >> (code & 127) & 1 == 1
    }

    fn problem(&mut self, attribute: u8, consequence: Consequence, reason: &'static str) {
        self.withdraw |= consequence == Consequence::TreatAsWithdraw;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem {
                attribute,
                reason,
                consequence,
            });
        }
    }

    fn unknown(&mut self, raw: &Raw<'_>) -> Result<(), Notification> {
        if raw.flags & OPTIONAL == 0 {
            return Err(Notification::with_data(
                Code::UPDATE_UNRECOGNIZED,
                raw.whole,
            ));
        }
        if raw.flags & TRANSITIVE != 0 {
            self.attributes.edit_rare(|rare| {
                rare.unknown.push(UnknownAttribute {
                    code: raw.code,
                    value: raw.value.into(),
                });
            });
        }
        Ok(())
    }

    fn read_value(&mut self, raw: &Raw<'_>) -> Result<(), Fault> {
        let value = raw.value;
        let number = || match value.first_chunk::<4>() {
            Some(octets) if value.len() == 4 => Ok(u32::from_be_bytes(*octets)),
            _ => Err(Fault::Withdraw("is not four octets long")),
        };
        match raw.code {
            code::ORIGIN => self.attributes.origin = read_origin(value)?,
            code::AS_PATH => {
                self.attributes.as_path = AsPath::decode(value, self.context.four_octet_as)
                    .ok_or(Fault::Withdraw("malformed path"))?;
            }
            code::NEXT_HOP => self.next_hop = Some(Ipv4Addr::from(number()?)),
            code::MED => self.attributes.med = Some(number()?),
            code::LOCAL_PREF => self.attributes.local_pref = Some(number()?),
            code::ATOMIC_AGGREGATE if !value.is_empty() => {
                return Err(Fault::Discard("is not empty"));
            }
            code::ATOMIC_AGGREGATE => self.attributes.atomic_aggregate = true,
            code::AGGREGATOR => {
                self.aggregator = Some(read_aggregator(value, self.context.four_octet_as)?);
            }
            code::COMMUNITIES => {
                self.attributes.communities =
                    many(value, |n: [u8; 4]| Community(u32::from_be_bytes(n)))?.into();
            }
            code::MP_REACH => self.read_reach(value)?,
            code::MP_UNREACH => self.read_unreach(value)?,
            code::AS4_PATH | code::AS4_AGGREGATOR => self.read_as4(raw)?,
            _ => self.read_rare(raw, number)?,
        }
        Ok(())
    }

    fn read_rare(
        &mut self,
        raw: &Raw<'_>,
        number: impl Fn() -> Result<u32, Fault>,
    ) -> Result<(), Fault> {
        match raw.code {
            code::ORIGINATOR_ID => {
                let id = Ipv4Addr::from(number()?);
                self.attributes.edit_rare(|r| r.originator_id = Some(id));
            }
            code::CLUSTER_LIST => {
                let list = many(raw.value, |n: [u8; 4]| Ipv4Addr::from(n))?;
                self.attributes.edit_rare(|r| r.cluster_list = list);
            }
            code::EXTENDED_COMMUNITIES => {
                let list = many(raw.value, ExtendedCommunity)?;
                self.attributes.edit_rare(|r| r.extended_communities = list);
            }
            code::LARGE_COMMUNITIES => {
                let list = many(raw.value, |octets: [u8; 12]| {
                    let mut r = Reader::new(&octets);
                    LargeCommunity {
                        global: r.u32().unwrap_or_default(),
                        data1: r.u32().unwrap_or_default(),
                        data2: r.u32().unwrap_or_default(),
                    }
                })?;
                self.attributes.edit_rare(|r| r.large_communities = list);
            }
            _ => (),
        }
        Ok(())
    }

    /// AS4_PATH and AS4_AGGREGATOR; from a speaker that has four octets they are dropped, as they
    /// are when malformed (RFC 6793 §4.1, §6).
    fn read_as4(&mut self, raw: &Raw<'_>) -> Result<(), Fault> {
        if self.context.four_octet_as {
            return Err(Fault::Discard("from a four-octet speaker"));
        }
        if raw.code == code::AS4_PATH {
            let path = AsPath::decode(raw.value, true).filter(|p| !p.is_empty());
            let path = path.ok_or(Fault::Discard("malformed path"))?;
            self.as4_path = Some(path.without_confederations());
        } else {
            self.as4_aggregator = Some(read_aggregator(raw.value, true)?);
        }
        Ok(())
    }

    fn read_reach(&mut self, value: &[u8]) -> Result<(), Fault> {
        let mut r = Reader::new(value);
        let afi = read_afi(&mut r)?;
        let Some(family) = self.negotiated(afi) else {
            self.foreign_reach = true;
            return Err(Fault::Discard("of a family that was not negotiated"));
        };
        let disable = || Fault::Disable(Some(family), Code::UPDATE_OPTIONAL);
        let len = usize::from(r.u8().ok_or_else(disable)?);
        let octets = r.take(len).ok_or_else(disable)?;
        let next_hop = read_next_hop(octets, family, self.context).ok_or_else(disable)?;
        r.u8().ok_or_else(disable)?;
        let prefixes = read_prefixes(r.rest(), family).ok_or_else(disable)?;
        let usable = next_hop.is_usable();
        self.reach = Some((next_hop, prefixes));
        if usable {
            Ok(())
        } else {
            Err(Fault::Withdraw("next hop is no host's address"))
        }
    }

    fn read_unreach(&mut self, value: &[u8]) -> Result<(), Fault> {
        let mut r = Reader::new(value);
        let afi = read_afi(&mut r)?;
        let Some(family) = self.negotiated(afi) else {
            return Err(Fault::Discard("of a family that was not negotiated"));
        };
        let prefixes = read_prefixes(r.rest(), family)
            .ok_or(Fault::Disable(Some(family), Code::UPDATE_OPTIONAL))?;
        self.unreach = Some((family, prefixes));
        Ok(())
    }

    fn negotiated(&self, afi: Afi) -> Option<Family> {
        afi.family().filter(|f| self.context.families.contains(*f))
    }

    /// The family of an End-of-RIB marker: MP_UNREACH_NLRI alone, without NLRI (RFC 4724 §2).
    pub(super) fn only_an_empty_unreach(&self) -> Option<Family> {
        let [low, high] = self.seen;
        let alone = low == 1 << code::MP_UNREACH && high == 0 && self.problems.is_empty();
        match &self.unreach {
            Some((family, prefixes)) if alone && prefixes.is_empty() => Some(*family),
            _ => None,
        }
    }

    pub(super) fn finish(
        mut self,
        mut withdrawn: Vec<Prefix>,
        mut nlri: Vec<Prefix>,
    ) -> Result<Parsed, Notification> {
        let v4 = self.context.families.contains(Family::V4);
        if !v4 {
            withdrawn.clear();
            self.foreign_reach |= !nlri.is_empty();
            nlri.clear();
        }
        let (mp_next_hop, mp_prefixes) = match self.reach.take() {
            Some((next_hop, prefixes)) => (Some(next_hop), prefixes),
            None => (None, Vec::new()),
        };
        self.check_mandatory(!nlri.is_empty(), !mp_prefixes.is_empty());
        let withdraw = self.withdraw;
        let no_reach = nlri.is_empty() && mp_prefixes.is_empty() && !self.foreign_reach;
        if withdraw && no_reach && self.disabled.is_none() {
            // RFC 7606 §5.2: then the NLRI may be what is broken.
            return Err(Notification::new(Code::UPDATE_ATTRIBUTE_LIST));
        }
        if let Some((_, prefixes)) = self.unreach.take() {
            withdrawn.extend(prefixes);
        }
        let mut reach = Vec::new();
        if withdraw {
            withdrawn.extend(nlri);
            withdrawn.extend(mp_prefixes);
        } else {
            self.merge_as4();
            let classic = self.next_hop.map(NextHop::V4);
            let parts =
                [(classic, nlri), (mp_next_hop, mp_prefixes)].map(|(next_hop, prefixes)| {
                    Some((next_hop?, prefixes)).filter(|(_, p)| !p.is_empty())
                });
            reach = reaches(self.attributes, parts);
        }
        Ok(Parsed {
            update: Update {
                withdrawn,
                reach,
                end_of_rib: None,
            },
            problems: self.problems,
            disabled: self.disabled,
        })
    }

    /// RFC 7606 §3 (d), and RFC 4271 §6.3 on NEXT_HOP.
    fn check_mandatory(&mut self, nlri: bool, mp_reach: bool) {
        let missing = Consequence::TreatAsWithdraw;
        for code in [code::ORIGIN, code::AS_PATH] {
            if (nlri || mp_reach) && !self.has(code) {
                self.problem(code, missing, "is missing");
            }
        }
        if nlri && !self.has(code::NEXT_HOP) {
            self.problem(code::NEXT_HOP, missing, "is missing");
        }
        let unusable = |addr: Ipv4Addr| !NextHop::V4(addr).is_usable();
        if nlri && self.next_hop.is_some_and(unusable) {
            self.problem(code::NEXT_HOP, missing, "is no host's address");
        }
    }

    /// RFC 6793 §4.2.3.
    fn merge_as4(&mut self) {
        let as4_path = self.as4_path.take();
        let aggregator = match (self.aggregator, self.as4_aggregator) {
            // A two-octet speaker has aggregated since: what it passed on is out of date.
            (Some(two), Some(_)) if two.asn != Asn::TRANS => Some(two),
            (two, four) => {
                if let Some(as4_path) = as4_path {
                    self.attributes.as_path = self.attributes.as_path.merged(&as4_path);
                }
                two.and(four).or(two)
            }
        };
        if aggregator.is_some() {
            self.attributes.edit_rare(|r| r.aggregator = aggregator);
        }
        self.attributes.edit_rare(|r| r.unknown.sort());
    }
}

/// What is announced, by next hop: the attributes are copied only where there are two.
fn reaches(attributes: PathAttributes, parts: [Option<(NextHop, Vec<Prefix>)>; 2]) -> Vec<Reach> {
    let with = |mut attributes: PathAttributes, (next_hop, prefixes)| {
        attributes.next_hop = next_hop;
        Reach {
            attributes,
            prefixes,
        }
    };
    match parts {
        [Some(classic), Some(other)] => {
            vec![with(attributes.clone(), classic), with(attributes, other)]
        }
        [Some(only), None] | [None, Some(only)] => vec![with(attributes, only)],
        [None, None] => Vec::new(),
    }
}
