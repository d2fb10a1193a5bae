//! From the model's statements to nf_tables expressions, as nft(8) itself would write them, with the
//! conditions that a field silently brings along (`ip saddr` means: if it is IPv4).

use std::net::Ipv6Addr;

use hextet_model::state::{
    CmpOp, CtDirection, CtState, DynOp, Field, KeyPart, Limit, LimitUnit, LimiterRate, NatEnd,
    NatRange, NftRule, PktType, SetName, Statement, Value,
};
use hextet_types::Family;

use super::{
    expr::{self, Checksum, Expr, Slot, base, ct, meta},
    value::{IFNAMSIZ, nfproto, octets},
};
use crate::error::Error;

const IPPROTO_ICMP: u8 = 1;
const IPPROTO_ICMPV6: u8 = 58;
const IPPROTO_FRAGMENT: u8 = 44;
const ARPHRD_ETHER: u16 = 1;
const FIB_DADDR: u32 = 2;
const FIB_ADDRTYPE: u32 = 3;
/// Registers hold 16 times four octets.
const SLOTS: usize = 16;
/// What the kernel makes of a burst of nothing (`NFT_LIMIT_PKT_BURST_DEFAULT`).
const BURST_DEFAULT: u32 = 5;

/// A rule's expressions.
pub fn rule(rule: &NftRule) -> Result<Vec<Expr>, Error> {
    let mut lowering = Lowering::default();
    for statement in &rule.statements {
        lowering
            .statement(statement)
            .map_err(|reason| Error::unfit(format!("encode the rule '{rule}'"), reason))?;
    }
    Ok(lowering.exprs)
}

/// What the rule has established about its packets so far.
#[derive(Default)]
struct Lowering {
    exprs: Vec<Expr>,
    family: Option<Family>,
    l4proto: Option<u8>,
    ether: bool,
}

type Lowered = Result<(), String>;

impl Lowering {
    fn statement(&mut self, statement: &Statement) -> Lowered {
        match statement {
            Statement::Compare(part, op, value) => self.compare(part, *op, value)?,
            Statement::NamePrefix(field, prefix) => self.name_prefix(*field, prefix)?,
            Statement::CtStateIn(states) => self.ct_state(states),
            Statement::Lookup(lookup) => {
                self.key(&lookup.key)?;
                let flags = if lookup.negate { expr::INVERT } else { 0 };
                let set = lookup.set.clone();
                self.exprs.push(Expr::Lookup {
                    set,
                    slot: 0,
                    flags,
                    verdict: false,
                });
            }
            Statement::VerdictMap(key, map) => {
                self.key(key)?;
                let set = map.clone();
                self.exprs.push(Expr::Lookup {
                    set,
                    slot: 0,
                    flags: 0,
                    verdict: true,
                });
            }
            Statement::Dynamic(key, set, op) => {
                self.key(key)?;
                self.dynset(set, op);
            }
            Statement::Limit(rate, over) => self.exprs.push(limit(rate, *over)),
            Statement::LimitMap(key, map) => {
                self.key(key)?;
                let set = map.clone();
                self.exprs.push(Expr::ObjectMap { set, slot: 0 });
            }
            Statement::SetDscp(family, mark) => self.set_dscp(*family, *mark),
            Statement::SetMark { value, mask } => self.set_mark(*value, *mask),
            Statement::SetPktType(to) => self.set_pkt_type(*to),
            Statement::SetSaddr(to) => self.set_saddr(*to),
            Statement::Counter => self.exprs.push(Expr::Counter),
            Statement::Count(name) => self.exprs.push(Expr::CounterRef(name.clone())),
            Statement::Notrack => self.exprs.push(Expr::Notrack),
            Statement::Snat(range) => self.snat(range)?,
            Statement::Masquerade => self.exprs.push(Expr::Masquerade),
            Statement::NatMap(end, key, map, port) => self.nat_map(*end, key, map, *port)?,
            Statement::Reject => self.exprs.push(Expr::Reject {
                kind: expr::REJECT_ICMPX,
                code: expr::ADMIN_PROHIBITED,
            }),
            Statement::Verdict(verdict) => self.exprs.push(Expr::Verdict(verdict.clone())),
        }
        Ok(())
    }

    fn dynset(&mut self, set: &SetName, op: &DynOp) {
        let (op, inner) = match op {
            DynOp::CtCountOver(count) => {
                let (count, flags) = (*count, expr::INVERT);
                (expr::DYNSET_ADD, Expr::Connlimit { count, flags })
            }
            DynOp::LimitOver(rate) => (expr::DYNSET_UPDATE, limit(rate, true)),
        };
        self.exprs.push(Expr::Dynset {
            set: set.clone(),
            op,
            slot: 0,
            inner: Box::new(inner),
        });
    }

    fn compare(&mut self, part: &KeyPart, op: CmpOp, value: &Value) -> Lowered {
        self.key(std::slice::from_ref(part))?;
        let data = octets(value, field_len(part.field))
            .ok_or_else(|| format!("{} is never {value}", part.field))?;
        let code = match op {
            CmpOp::Eq => expr::CMP_EQ,
            CmpOp::Ne => expr::CMP_NE,
        };
        self.exprs.push(Expr::Cmp {
            op: code,
            slot: 0,
            data,
        });
        if (op, &part.mask) == (CmpOp::Eq, &None) {
            match (part.field, value) {
                (Field::NfProto, Value::Family(family)) => self.family = Some(*family),
                (Field::L4Proto, Value::U8(protocol)) => self.l4proto = Some(*protocol),
                _ => {}
            }
        }
        Ok(())
    }

    fn name_prefix(&mut self, field: Field, prefix: &str) -> Lowered {
        if !matches!(field, Field::IifName | Field::OifName) {
            return Err(format!("{field} is no interface name"));
        }
        if !(1..IFNAMSIZ).contains(&prefix.len()) {
            return Err(format!("'{prefix}' is no prefix of an interface name"));
        }
        self.key(&[field.into()])?;
        let data = prefix.as_bytes().to_vec();
        self.exprs.push(Expr::Cmp {
            op: expr::CMP_EQ,
            slot: 0,
            data,
        });
        Ok(())
    }

    fn ct_state(&mut self, states: &[CtState]) {
        let bits = states.iter().fold(0u32, |bits, state| {
            bits | match state {
                CtState::Invalid => 1,
                CtState::Established => 2,
                CtState::Related => 4,
                CtState::New => 8,
                CtState::Untracked => 64,
            }
        });
        self.exprs.push(Expr::Ct {
            key: ct::STATE,
            to: 0,
        });
        let mask = bits.to_ne_bytes().to_vec();
        self.exprs.push(Expr::Bitwise {
            slot: 0,
            mask,
            xor: vec![0; 4],
        });
        self.exprs.push(Expr::Cmp {
            op: expr::CMP_NE,
            slot: 0,
            data: vec![0; 4],
        });
    }

    fn set_mark(&mut self, value: u32, mask: u32) {
        let xor = value.to_ne_bytes().to_vec();
        if mask == u32::MAX {
            self.exprs.push(Expr::Immediate { to: 0, data: xor });
        } else {
            self.exprs.push(Expr::Meta {
                key: meta::MARK,
                to: 0,
            });
            let mask = (!mask & !value).to_ne_bytes().to_vec();
            self.exprs.push(Expr::Bitwise { slot: 0, mask, xor });
        }
        self.exprs.push(Expr::MetaSet {
            key: meta::MARK,
            from: 0,
        });
    }

    fn set_pkt_type(&mut self, to: PktType) {
        let number = match to {
            PktType::Host => 0,
            PktType::Broadcast => 1,
            PktType::Multicast => 2,
        };
        self.exprs.extend([
            Expr::Immediate {
                to: 0,
                data: vec![number],
            },
            Expr::MetaSet {
                key: meta::PKTTYPE,
                from: 0,
            },
        ]);
    }

    /// The code point lies in the first 16 bits of the header: in IPv4 in the upper six of the second octet, in IPv6 behind
    /// four bits of version.
    fn set_dscp(&mut self, family: Family, mark: u8) {
        self.require_family(family);
        let (shift, checksum) = match family {
            Family::V4 => (2, Checksum::Ipv4Header),
            Family::V6 => (6, Checksum::None),
        };
        let keep = !(0x3f_u16 << shift);
        let set = (u16::from(mark) & 0x3f) << shift;
        let (base, offset, len) = (base::NETWORK, 0, 2);
        self.exprs.extend([
            Expr::Payload {
                base,
                offset,
                len,
                to: 0,
            },
            Expr::Bitwise {
                slot: 0,
                mask: keep.to_be_bytes().to_vec(),
                xor: set.to_be_bytes().to_vec(),
            },
            Expr::PayloadSet {
                base,
                offset,
                len,
                from: 0,
                checksum,
            },
        ]);
    }

    fn set_saddr(&mut self, to: Ipv6Addr) {
        self.require_family(Family::V6);
        let data = to.octets().to_vec();
        self.exprs.push(Expr::Immediate { to: 0, data });
        self.exprs.push(Expr::PayloadSet {
            base: base::NETWORK,
            offset: 8,
            len: 16,
            from: 0,
            checksum: Checksum::PseudoHeader,
        });
    }

    fn snat(&mut self, range: &NatRange) -> Lowered {
        let family = Family::of(range.first);
        if Family::of(range.last) != family || range.last < range.first {
            return Err(format!(
                "{}-{} is no range of addresses",
                range.first, range.last
            ));
        }
        let octets = |addr| octets(&Value::Addr(addr), usize::from(family.bits()) / 8);
        self.exprs
            .extend(octets(range.first).map(|data| Expr::Immediate { to: 0, data }));
        let mut last = 0;
        if range.first != range.last {
            last = 4;
            self.exprs
                .extend(octets(range.last).map(|data| Expr::Immediate { to: 4, data }));
        }
        let family = u32::from(nfproto(family));
        let flags = expr::NAT_PERSISTENT;
        self.exprs.push(Expr::Nat {
            kind: 0,
            family,
            first: 0,
            last,
            port: None,
            flags,
        });
        Ok(())
    }

    /// What the map has goes into the first register, and its port behind.
    fn nat_map(&mut self, end: NatEnd, key: &[KeyPart], map: &SetName, port: bool) -> Lowered {
        self.require_family(Family::V4);
        self.key(key)?;
        let set = map.clone();
        self.exprs.push(Expr::Map {
            set,
            slot: 0,
            to: 0,
        });
        self.exprs.push(Expr::Nat {
            kind: match end {
                NatEnd::Source => 0,
                NatEnd::Destination => 1,
            },
            family: u32::from(nfproto(Family::V4)),
            first: 0,
            last: 0,
            port: port.then_some(1),
            flags: 0,
        });
        Ok(())
    }

    /// Loads a key's parts one behind another, from the first register on.
    fn key(&mut self, parts: &[KeyPart]) -> Lowered {
        if parts.is_empty() {
            return Err("a key without parts".to_owned());
        }
        for part in parts {
            self.require(part.field);
        }
        let mut slot = 0;
        for part in parts {
            let len = field_len(part.field);
            let slots = len.div_ceil(4);
            if slot + slots > SLOTS {
                return Err("a key of more than 64 octets".to_owned());
            }
            let to = Slot::try_from(slot).unwrap_or(Slot::MAX);
            self.exprs.push(load(part.field, to));
            if let Some(mask) = &part.mask {
                if mask.len() != len {
                    return Err(format!("the mask of {} is not as long as it", part.field));
                }
                let mask = host_order(part.field, mask);
                self.exprs.push(Expr::Bitwise {
                    slot: to,
                    xor: vec![0; mask.len()],
                    mask,
                });
            }
            slot += slots;
        }
        Ok(())
    }

    /// Makes sure that the packet has the field.
    fn require(&mut self, field: Field) {
        match field {
            Field::EtherSaddr => self.require_ether(),
            Field::Saddr(family) | Field::Daddr(family) | Field::Dscp(family) => {
                self.require_family(family);
            }
            Field::Ip6Fragment | Field::Ip6NextHeader => self.require_family(Family::V6),
            Field::Ip4Fragment => self.require_family(Family::V4),
            Field::IcmpType(family) | Field::IcmpCode(family) => {
                self.require_family(family);
                self.require_l4proto(match family {
                    Family::V4 => IPPROTO_ICMP,
                    Family::V6 => IPPROTO_ICMPV6,
                });
            }
            _ => {}
        }
    }

    fn require_ether(&mut self) {
        if !self.ether {
            self.exprs.push(Expr::Meta {
                key: meta::IIFTYPE,
                to: 0,
            });
            self.equal(ARPHRD_ETHER.to_ne_bytes().to_vec());
            self.ether = true;
        }
    }

    fn require_family(&mut self, family: Family) {
        if self.family == Some(family) {
            return;
        }
        if self.ether && self.family.is_none() {
            self.exprs.push(Expr::Payload {
                base: base::LINK,
                offset: 12,
                len: 2,
                to: 0,
            });
            self.equal(match family {
                Family::V4 => vec![0x08, 0x00],
                Family::V6 => vec![0x86, 0xdd],
            });
        } else {
            self.exprs.push(Expr::Meta {
                key: meta::NFPROTO,
                to: 0,
            });
            self.equal(vec![nfproto(family)]);
        }
        self.family = Some(family);
    }

    fn require_l4proto(&mut self, protocol: u8) {
        if self.l4proto != Some(protocol) {
            self.exprs.push(Expr::Meta {
                key: meta::L4PROTO,
                to: 0,
            });
            self.equal(vec![protocol]);
            self.l4proto = Some(protocol);
        }
    }

    fn equal(&mut self, data: Vec<u8>) {
        self.exprs.push(Expr::Cmp {
            op: expr::CMP_EQ,
            slot: 0,
            data,
        });
    }
}

fn load(field: Field, to: Slot) -> Expr {
    let payload = |base, offset, len| Expr::Payload {
        base,
        offset,
        len,
        to,
    };
    let company = |key| Expr::Meta { key, to };
    match field {
        Field::IifName => company(meta::IIFNAME),
        Field::OifName => company(meta::OIFNAME),
        Field::IifGroup => company(meta::IIFGROUP),
        Field::OifGroup => company(meta::OIFGROUP),
        Field::NfProto => company(meta::NFPROTO),
        Field::L4Proto => company(meta::L4PROTO),
        Field::Mark => company(meta::MARK),
        Field::PktType => company(meta::PKTTYPE),
        Field::CtStatus => Expr::Ct {
            key: ct::STATUS,
            to,
        },
        Field::CtSaddr(direction, family) => Expr::CtOf {
            key: match family {
                Family::V4 => ct::SRC_IP,
                Family::V6 => ct::SRC_IP6,
            },
            direction: match direction {
                CtDirection::Original => 0,
                CtDirection::Reply => 1,
            },
            to,
        },
        Field::FibDaddrType => Expr::Fib {
            flags: FIB_DADDR,
            result: FIB_ADDRTYPE,
            to,
        },
        Field::Ip6Fragment => Expr::HeaderPresent {
            header: IPPROTO_FRAGMENT,
            to,
        },
        Field::EtherSaddr => payload(base::LINK, 6, 6),
        Field::Ip6NextHeader => payload(base::NETWORK, 6, 1),
        Field::Ip4Fragment => payload(base::NETWORK, 6, 2),
        Field::Dscp(Family::V4) => payload(base::NETWORK, 1, 1),
        Field::Dscp(Family::V6) => payload(base::NETWORK, 0, 2),
        Field::Saddr(Family::V4) => payload(base::NETWORK, 12, 4),
        Field::Daddr(Family::V4) => payload(base::NETWORK, 16, 4),
        Field::Saddr(Family::V6) => payload(base::NETWORK, 8, 16),
        Field::Daddr(Family::V6) => payload(base::NETWORK, 24, 16),
        Field::Sport => payload(base::TRANSPORT, 0, 2),
        Field::Dport => payload(base::TRANSPORT, 2, 2),
        Field::IcmpType(_) => payload(base::TRANSPORT, 0, 1),
        Field::IcmpCode(_) => payload(base::TRANSPORT, 1, 1),
        Field::NdTarget => payload(base::TRANSPORT, 8, 16),
        Field::Random(below) => Expr::Random { below, to },
    }
}

fn limit(rate: &Limit, over: bool) -> Expr {
    Expr::Limit {
        rate: rate.rate,
        seconds: match rate.unit {
            LimitUnit::Second => 1,
            LimitUnit::Minute => 60,
        },
        burst: if rate.burst == 0 {
            BURST_DEFAULT
        } else {
            rate.burst
        },
        kind: 0,
        flags: if over { expr::INVERT } else { 0 },
    }
}

/// What a limiter does.
pub fn limiter(rate: LimiterRate) -> Expr {
    let (rate, burst, kind) = match rate {
        LimiterRate::Packets(rate, burst) => (rate, burst, 0),
        LimiterRate::Octets(rate, burst) => (rate, burst, 1),
    };
    Expr::Limit {
        rate,
        seconds: 1,
        burst,
        kind,
        flags: expr::INVERT,
    }
}

/// The rate of a limiter that does this.
pub fn limiter_rate(limit: &Expr) -> Option<LimiterRate> {
    let Expr::Limit {
        rate,
        burst,
        kind: unit,
        ..
    } = *limit
    else {
        return None;
    };
    let rate = match unit {
        0 => LimiterRate::Packets(rate, burst),
        _ => LimiterRate::Octets(rate, burst),
    };
    (limiter(rate) == *limit).then_some(rate)
}

fn field_len(field: Field) -> usize {
    match field {
        Field::IifName | Field::OifName => IFNAMSIZ,
        Field::EtherSaddr => 6,
        Field::Saddr(family) | Field::Daddr(family) | Field::CtSaddr(_, family) => {
            usize::from(family.bits()) / 8
        }
        Field::NfProto
        | Field::L4Proto
        | Field::IcmpType(_)
        | Field::IcmpCode(_)
        | Field::PktType
        | Field::Ip6NextHeader
        | Field::Dscp(Family::V4)
        | Field::Ip6Fragment => 1,
        Field::Ip4Fragment | Field::Dscp(Family::V6) | Field::Sport | Field::Dport => 2,
        Field::NdTarget => 16,
        Field::Mark
        | Field::IifGroup
        | Field::OifGroup
        | Field::CtStatus
        | Field::FibDaddrType
        | Field::Random(_) => 4,
    }
}

/// Masks come in network order; some fields stand in registers in the host's.
fn host_order(field: Field, mask: &[u8]) -> Vec<u8> {
    let mut mask = mask.to_vec();
    let in_host_order = matches!(
        field,
        Field::Mark
            | Field::IifGroup
            | Field::OifGroup
            | Field::CtStatus
            | Field::FibDaddrType
            | Field::Random(_)
    );
    if in_host_order && cfg!(target_endian = "little") {
        mask.reverse();
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_where_the_registers_do() {
        let key = vec![Field::IifName.into(); 5];
        let statement = Statement::VerdictMap(key, "m".into());
        let too_long = NftRule {
            statements: vec![statement],
            comment: None,
        };
        assert!(rule(&too_long).is_err());
    }
}
