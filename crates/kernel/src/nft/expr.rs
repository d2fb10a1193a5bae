//! nf_tables expressions: the instructions that a rule consists of in the kernel.
//!
//! What is written and what is read back come to the same values here: registers are numbered by their
//! four octets, counters and handles are left out. So two rules are equal when they do the same.

use hextet_model::state::{ChainName, CounterName, SetName, Verdict};

use super::OBJECT_COUNTER;
pub use super::checksum::Checksum;
use crate::netlink::{Attrs, Message, be32, be64, octet, text};

/// `meta` keys, `enum nft_meta_keys`.
pub mod meta {
    /// Packet mark.
    pub const MARK: u32 = 3;
    /// Name of the incoming interface.
    pub const IIFNAME: u32 = 6;
    /// Name of the outgoing interface.
    pub const OIFNAME: u32 = 7;
    /// Hardware type of the incoming interface.
    pub const IIFTYPE: u32 = 8;
    /// Family.
    pub const NFPROTO: u32 = 15;
    /// Transport protocol.
    pub const L4PROTO: u32 = 16;
    /// Unicast, broadcast or multicast on the link.
    pub const PKTTYPE: u32 = 19;
    /// The input interface's group.
    pub const IIFGROUP: u32 = 21;
    /// The output interface's group.
    pub const OIFGROUP: u32 = 22;
}

/// `ct` keys, `enum nft_ct_keys`.
pub mod ct {
    /// State bits.
    pub const STATE: u32 = 0;
    /// Status bits.
    pub const STATUS: u32 = 2;
    /// The source of a direction, IPv4.
    pub const SRC_IP: u32 = 19;
    /// The source of a direction, IPv6.
    pub const SRC_IP6: u32 = 21;
}

/// Where a payload offset counts from, `enum nft_payload_bases`.
pub mod base {
    /// Ethernet header.
    pub const LINK: u32 = 0;
    /// IP header.
    pub const NETWORK: u32 = 1;
    /// TCP, UDP, ICMP header.
    pub const TRANSPORT: u32 = 2;
}

/// Equal.
pub const CMP_EQ: u32 = 0;
/// Not equal.
pub const CMP_NE: u32 = 1;
/// `NFT_LIMIT_F_INV`, `NFT_CONNLIMIT_F_INV`, `NFT_LOOKUP_F_INV`: the condition turned round.
pub const INVERT: u32 = 1;
/// `NFT_DYNSET_OP_ADD`.
pub const DYNSET_ADD: u32 = 0;
/// `NFT_DYNSET_OP_UPDATE`.
pub const DYNSET_UPDATE: u32 = 1;
/// `NF_NAT_RANGE_PERSISTENT`.
pub const NAT_PERSISTENT: u32 = 8;
/// `NF_NAT_RANGE_MAP_IPS` and `NF_NAT_RANGE_PROTO_SPECIFIED`, which the kernel adds by itself.
const NAT_BY_ITSELF: u32 = 1 | 2;
/// `NFT_REJECT_ICMPX_UNREACH`.
pub const REJECT_ICMPX: u32 = 2;
/// `NFT_REJECT_ICMPX_ADMIN_PROHIBITED`.
pub const ADMIN_PROHIBITED: u8 = 3;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFTA_DYNSET_EXPR: u16 = 7;
const NUMGEN_RANDOM: u32 = 1;

/// A register, numbered by its first four octets of 64: 0 to 15.
pub type Slot = u8;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads something of the packet's company.
    Meta { key: u32, to: Slot },
    /// Sets it.
    MetaSet { key: u32, from: Slot },
    /// Loads octets of the packet.
    Payload {
        base: u32,
        offset: u32,
        len: u32,
        to: Slot,
    },
    /// Writes octets of the packet; that checksum follows.
    PayloadSet {
        base: u32,
        offset: u32,
        len: u32,
        from: Slot,
        checksum: Checksum,
    },
    /// Loads something of its connection.
    Ct { key: u32, to: Slot },
    /// Loads something that its connection has for each direction, original (0) or reply (1).
    CtOf { key: u32, direction: u8, to: Slot },
    /// Asks the routing table.
    Fib { flags: u32, result: u32, to: Slot },
    /// Whether an IPv6 extension header is there, 1 or 0.
    HeaderPresent { header: u8, to: Slot },
    /// Loads a random number below that one.
    Random { below: u32, to: Slot },
    /// `(slot & mask) ^ xor`, in place.
    Bitwise {
        slot: Slot,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Goes on when the comparison holds.
    Cmp { op: u32, slot: Slot, data: Vec<u8> },
    /// Loads a constant.
    Immediate { to: Slot, data: Vec<u8> },
    /// Ends the rule.
    Verdict(Verdict),
    /// Looks a key up; in a map, does the verdict found.
    Lookup {
        set: SetName,
        slot: Slot,
        flags: u32,
        verdict: bool,
    },
    /// Loads what a map has for a key; without, the rule is over.
    Map { set: SetName, slot: Slot, to: Slot },
    /// Does what the object does that a map has for a key; without, the rule is over.
    ObjectMap { set: SetName, slot: Slot },
    /// Puts a key into a dynamic set, and does `inner` for it.
    Dynset {
        set: SetName,
        op: u32,
        slot: Slot,
        inner: Box<Expr>,
    },
    /// Compares the number of connections.
    Connlimit { count: u32, flags: u32 },
    /// Compares a packet rate.
    Limit {
        rate: u64,
        seconds: u64,
        burst: u32,
        kind: u32,
        flags: u32,
    },
    /// Translates an address, of `family` as in `NFPROTO_*`.
    Nat {
        kind: u32,
        family: u32,
        first: Slot,
        last: Slot,
        port: Option<Slot>,
        flags: u32,
    },
    /// Drops, with an answer.
    Reject { kind: u32, code: u8 },
    /// Translates the source to the outgoing link's address.
    Masquerade,
    /// No connection tracking.
    Notrack,
    /// Counts.
    Counter,
    /// Counts at the counter of that name.
    CounterRef(CounterName),
    /// What we never write.
    Other { name: String, octets: Vec<u8> },
}

impl Expr {
    /// Writes it as a list element.
    pub fn write(&self, m: &mut Message<'_>) {
        m.nest(NFTA_LIST_ELEM, |m| self.write_named(m));
    }

    fn write_named(&self, m: &mut Message<'_>) {
        m.text(NFTA_EXPR_NAME, self.name());
        if !matches!(self, Expr::Notrack | Expr::Masquerade) {
            m.nest(NFTA_EXPR_DATA, |m| self.write_data(m));
        }
    }

    fn name(&self) -> &str {
        match self {
            Expr::Meta { .. } | Expr::MetaSet { .. } => "meta",
            Expr::Payload { .. } | Expr::PayloadSet { .. } => "payload",
            Expr::Ct { .. } | Expr::CtOf { .. } => "ct",
            Expr::Fib { .. } => "fib",
            Expr::HeaderPresent { .. } => "exthdr",
            Expr::Random { .. } => "numgen",
            Expr::Bitwise { .. } => "bitwise",
            Expr::Cmp { .. } => "cmp",
            Expr::Immediate { .. } | Expr::Verdict(_) => "immediate",
            Expr::Lookup { .. } | Expr::Map { .. } => "lookup",
            Expr::ObjectMap { .. } | Expr::CounterRef(_) => "objref",
            Expr::Reject { .. } => "reject",
            Expr::Dynset { .. } => "dynset",
            Expr::Connlimit { .. } => "connlimit",
            Expr::Limit { .. } => "limit",
            Expr::Nat { .. } => "nat",
            Expr::Masquerade => "masq",
            Expr::Notrack => "notrack",
            Expr::Counter => "counter",
            Expr::Other { name, .. } => name,
        }
    }

    /// Writes what it does.
    pub fn write_data(&self, m: &mut Message<'_>) {
        match self {
            Expr::Meta { key, to } | Expr::Ct { key, to } => m.be32(1, register(*to)).be32(2, *key),
            Expr::MetaSet { key, from } => m.be32(2, *key).be32(3, register(*from)),
            Expr::CtOf { key, direction, to } => {
                m.be32(1, register(*to)).be32(2, *key).octet(3, *direction)
            }
            Expr::Payload {
                base,
                offset,
                len,
                to,
            } => m
                .be32(1, register(*to))
                .be32(2, *base)
                .be32(3, *offset)
                .be32(4, *len),
            Expr::Fib { flags, result, to } => {
                m.be32(1, register(*to)).be32(2, *result).be32(3, *flags)
            }
            Expr::HeaderPresent { header, to } => {
                m.be32(1, register(*to))
                    .octet(2, *header)
                    .be32(3, 0)
                    .be32(4, 1);
                m.be32(5, HEADER_PRESENT).be32(6, 0)
            }
            Expr::Random { below, to } => m
                .be32(1, register(*to))
                .be32(2, *below)
                .be32(3, NUMGEN_RANDOM)
                .be32(4, 0),
            Expr::Bitwise { slot, mask, xor } => {
                m.be32(1, register(*slot))
                    .be32(2, register(*slot))
                    .be32(3, length(mask));
                m.nest(4, |m| value(m, mask)).nest(5, |m| value(m, xor))
            }
            Expr::Cmp { op, slot, data } => m
                .be32(1, register(*slot))
                .be32(2, *op)
                .nest(3, |m| value(m, data)),
            Expr::Immediate { to, data } => m.be32(1, register(*to)).nest(2, |m| value(m, data)),
            Expr::Verdict(verdict) => m.be32(1, 0).nest(2, |m| write_verdict(m, verdict)),
            _ => {
                self.write_more_data(m);
                m
            }
        };
    }

    fn write_more_data(&self, m: &mut Message<'_>) {
        match self {
            Expr::Lookup {
                set,
                slot,
                flags,
                verdict,
            } => {
                m.text(1, &set.0).be32(2, register(*slot));
                if *verdict {
                    m.be32(3, 0);
                }
                m.be32(5, *flags)
            }
            Expr::Dynset {
                set,
                op,
                slot,
                inner,
            } => {
                m.text(1, &set.0).be32(3, *op).be32(4, register(*slot));
                m.nest(NFTA_DYNSET_EXPR, |m| inner.write_named(m))
            }
            Expr::Connlimit { count, flags } => m.be32(1, *count).be32(2, *flags),
            Expr::Limit {
                rate,
                seconds,
                burst,
                kind,
                flags,
            } => m
                .be64(1, *rate)
                .be64(2, *seconds)
                .be32(3, *burst)
                .be32(4, *kind)
                .be32(5, *flags),
            Expr::Nat {
                kind,
                family,
                first,
                last,
                port,
                flags,
            } => {
                m.be32(1, *kind).be32(2, *family).be32(3, register(*first));
                if last != first {
                    m.be32(4, register(*last));
                }
                if let Some(port) = port {
                    m.be32(5, register(*port));
                }
                m.be32(7, *flags)
            }
            Expr::PayloadSet {
                base,
                offset,
                len,
                from,
                checksum,
            } => {
                let [kind, at, flags] = checksum.numbers();
                m.be32(2, *base).be32(3, *offset).be32(4, *len);
                m.be32(5, register(*from)).be32(6, kind).be32(7, at);
                m.be32(8, flags)
            }
            _ => {
                self.write_rest(m);
                m
            }
        };
    }

    fn write_rest(&self, m: &mut Message<'_>) {
        match self {
            Expr::Map { set, slot, to } => {
                m.text(1, &set.0).be32(2, register(*slot));
                m.be32(3, register(*to)).be32(5, 0)
            }
            Expr::ObjectMap { set, slot } => m.be32(3, register(*slot)).text(4, &set.0),
            Expr::Reject { kind, code } => m.be32(1, *kind).octet(2, *code),
            Expr::Counter => m.be64(1, 0).be64(2, 0),
            Expr::CounterRef(name) => m.be32(1, OBJECT_COUNTER).text(2, &name.0),
            Expr::Other { octets, .. } => m.raw(octets),
            _ => m,
        };
    }

    /// Reads all expressions of a rule (the value of `NFTA_RULE_EXPRESSIONS`).
    pub fn read_all(list: &[u8]) -> Vec<Expr> {
        let elements = Attrs(list)
            .into_iter()
            .filter(|(kind, _)| *kind == NFTA_LIST_ELEM);
        elements
            .map(|(_, element)| Expr::read(Attrs(element)))
            .collect()
    }

    fn read(element: Attrs<'_>) -> Expr {
        let name = element
            .get(NFTA_EXPR_NAME)
            .and_then(text)
            .unwrap_or_default();
        let data = element.nest(NFTA_EXPR_DATA);
        let read = Expr::read_data(name, data);
        read.unwrap_or_else(|| Expr::Other {
            name: name.to_owned(),
            octets: data.0.to_vec(),
        })
    }

    /// Reads what an expression of that name does.
    pub fn read_data(name: &str, data: Attrs<'_>) -> Option<Expr> {
        let n = |kind: u16| data.get(kind).and_then(be32);
        let slot = |kind: u16| n(kind).and_then(slot_of);
        let octets = |kind: u16| Some(data.nest(kind).get(NFTA_DATA_VALUE)?.to_vec());
        Some(match name {
            "meta" => match slot(3) {
                Some(from) => Expr::MetaSet { key: n(2)?, from },
                None => Expr::Meta {
                    key: n(2)?,
                    to: slot(1)?,
                },
            },
            "payload" if n(5).is_none() => Expr::Payload {
                base: n(2)?,
                offset: n(3)?,
                len: n(4)?,
                to: slot(1)?,
            },
            "payload" => Expr::PayloadSet {
                base: n(2)?,
                offset: n(3)?,
                len: n(4)?,
                from: slot(5)?,
                checksum: Checksum::of([n(6)?, n(7)?, n(8).unwrap_or(0)])?,
            },
            "ct" if data.get(3).is_none() && data.get(4).is_none() => Expr::Ct {
                key: n(2)?,
                to: slot(1)?,
            },
            "ct" if data.get(4).is_none() => Expr::CtOf {
                key: n(2)?,
                direction: *data.get(3)?.first()?,
                to: slot(1)?,
            },
            "fib" => Expr::Fib {
                flags: n(3)?,
                result: n(2)?,
                to: slot(1)?,
            },
            "exthdr" if (n(3)?, n(4)?, n(5)?, n(6).unwrap_or(0)) == (0, 1, HEADER_PRESENT, 0) => {
                Expr::HeaderPresent {
                    header: *data.get(2)?.first()?,
                    to: slot(1)?,
                }
            }
            "numgen" if (n(3)?, n(4).unwrap_or(0)) == (NUMGEN_RANDOM, 0) => Expr::Random {
                below: n(2)?,
                to: slot(1)?,
            },
            "bitwise" if slot(1)? == slot(2)? && n(6).unwrap_or(0) == 0 => Expr::Bitwise {
                slot: slot(1)?,
                mask: octets(4)?,
                xor: octets(5)?,
            },
            "cmp" => Expr::Cmp {
                op: n(2)?,
                slot: slot(1)?,
                data: octets(3)?,
            },
            "immediate" if n(1)? == 0 => Expr::Verdict(read_verdict(data.nest(2))?),
            "immediate" => Expr::Immediate {
                to: slot(1)?,
                data: octets(2)?,
            },
            _ => return Expr::read_more_data(name, data),
        })
    }

    fn read_more_data(name: &str, data: Attrs<'_>) -> Option<Expr> {
        let n = |kind: u16| data.get(kind).and_then(be32);
        let slot = |kind: u16| n(kind).and_then(slot_of);
        let long = |kind: u16| data.get(kind).and_then(be64);
        let set = || Some(SetName(data.get(1).and_then(text)?.to_owned()));
        Some(match name {
            "lookup" if n(3).unwrap_or(0) == 0 => {
                let (flags, verdict) = (n(5).unwrap_or(0), n(3).is_some());
                Expr::Lookup {
                    set: set()?,
                    slot: slot(2)?,
                    flags,
                    verdict,
                }
            }
            "lookup" if n(5).unwrap_or(0) == 0 => Expr::Map {
                set: set()?,
                slot: slot(2)?,
                to: slot(3)?,
            },
            "objref" if data.get(1).is_none() => Expr::ObjectMap {
                set: SetName(data.get(4).and_then(text)?.to_owned()),
                slot: slot(3)?,
            },
            "objref" if n(1) == Some(OBJECT_COUNTER) => {
                Expr::CounterRef(CounterName(data.get(2).and_then(text)?.to_owned()))
            }
            "reject" => Expr::Reject {
                kind: n(1)?,
                code: data.get(2).and_then(octet).unwrap_or(0),
            },
            "dynset" if data.get(5).is_none() => {
                let inner = Box::new(Expr::read(Attrs(data.get(NFTA_DYNSET_EXPR)?)));
                Expr::Dynset {
                    set: set()?,
                    op: n(3)?,
                    slot: slot(4)?,
                    inner,
                }
            }
            "connlimit" => Expr::Connlimit {
                count: n(1)?,
                flags: n(2).unwrap_or(0),
            },
            "limit" => Expr::Limit {
                rate: long(1)?,
                seconds: long(2)?,
                burst: n(3).unwrap_or(0),
                kind: n(4).unwrap_or(0),
                flags: n(5).unwrap_or(0),
            },
            "nat" if n(6).is_none() || n(6) == n(5) => Expr::Nat {
                kind: n(1)?,
                family: n(2)?,
                first: slot(3)?,
                last: slot(4).or_else(|| slot(3))?,
                port: slot(5),
                flags: n(7).unwrap_or(0) & !NAT_BY_ITSELF,
            },
            "masq" if n(1).unwrap_or(0) == 0 => Expr::Masquerade,
            "notrack" => Expr::Notrack,
            "counter" => Expr::Counter,
            _ => return None,
        })
    }
}

const HEADER_PRESENT: u32 = 1;

/// Writes a verdict as data.
pub fn write_verdict(m: &mut Message<'_>, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Return => (-5, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
    };
    m.nest(NFTA_DATA_VERDICT, |m| {
        m.attr(NFTA_VERDICT_CODE, &i32::to_be_bytes(code));
        if let Some(chain) = chain {
            m.text(NFTA_VERDICT_CHAIN, &chain.0);
        }
    });
}

/// Reads a verdict from data.
pub fn read_verdict(data: Attrs<'_>) -> Option<Verdict> {
    let verdict = data.nest(NFTA_DATA_VERDICT);
    let chain = || {
        let name = verdict.get(NFTA_VERDICT_CHAIN).and_then(text)?;
        Some(ChainName(name.to_owned()))
    };
    Some(
        match verdict.get(NFTA_VERDICT_CODE).and_then(be32)?.cast_signed() {
            0 => Verdict::Drop,
            1 => Verdict::Accept,
            -5 => Verdict::Return,
            -3 => Verdict::Jump(chain()?),
            -4 => Verdict::Goto(chain()?),
            _ => return None,
        },
    )
}

/// Writes octets as data.
pub fn value(m: &mut Message<'_>, octets: &[u8]) {
    m.attr(NFTA_DATA_VALUE, octets);
}

fn length(octets: &[u8]) -> u32 {
    u32::try_from(octets.len()).unwrap_or(u32::MAX)
}

/// `NFT_REG32_00` and on.
fn register(slot: Slot) -> u32 {
    8 + u32::from(slot)
}

/// The kernel says `NFT_REG_1` to `NFT_REG_4` where one of 16 octets begins.
fn slot_of(register: u32) -> Option<Slot> {
    match register {
        1..=4 => u8::try_from((register - 1) * 4).ok(),
        8..=23 => u8::try_from(register - 8).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
