//! The nft language (nft(8)) for a table's parts, to be read by people and judged by `nft -c -f`.
//!
//! It says the same as what the kernel crate encodes: a test there loads both and compares.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hextet_types::{Family, Mac};

use super::{
    Netns, Object,
    nft::{
        Chain, ChainHook, CmpOp, CtDirection, CtState, DynOp, Element, Field, Hook, KeyPart,
        KeyType, Limit, LimitUnit, Limiter, LimiterRate, Lookup, NatEnd, NatRange, PktType, Policy,
        Rule, Set, SetName, Statement, TABLE, Value, Verdict,
    },
};

/// A namespace's whole table, ready for `nft -f`.
pub fn table_text<'a>(objects: impl IntoIterator<Item = &'a Object>, netns: &Netns) -> String {
    let mut limiters = Vec::new();
    let mut counters = Vec::new();
    let mut sets = Vec::new();
    let mut chains = Vec::new();
    let mut elements: BTreeMap<&SetName, Vec<&Element>> = BTreeMap::new();
    for object in objects {
        match object {
            Object::Limiter(ns, limiter) if ns == netns => limiters.push(limiter),
            Object::Counter(ns, name) if ns == netns => counters.push(name),
            Object::Set(ns, set) if ns == netns => sets.push(set),
            Object::Chain(ns, chain) if ns == netns => chains.push(chain),
            Object::Element(ns, element) if ns == netns => {
                elements.entry(&element.set).or_default().push(element);
            }
            _ => {}
        }
    }
    let mut text = format!("table inet {TABLE} {{\n");
    for limiter in limiters {
        let _ = writeln!(text, "\t{limiter}");
    }
    for counter in counters {
        let _ = writeln!(text, "\tcounter {counter} {{\n\t}}");
    }
    for set in sets {
        let held = elements.get(&set.name).map_or(&[][..], Vec::as_slice);
        text.push_str(&set_text(set, held));
    }
    for chain in chains {
        for line in chain.to_string().lines() {
            text.push('\t');
            text.push_str(line);
            text.push('\n');
        }
    }
    text.push_str("}\n");
    text
}

fn set_text(set: &Set, elements: &[&Element]) -> String {
    let mut text = String::new();
    for line in set.to_string().lines() {
        if line == "}" && !elements.is_empty() {
            text.push_str("\t\telements = {\n");
            for element in elements {
                let _ = writeln!(text, "\t\t\t{element},");
            }
            text.push_str("\t\t}\n");
        }
        text.push('\t');
        text.push_str(line);
        text.push('\n');
    }
    text
}

impl fmt::Display for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit {} {{ {} }}", self.name, self.rate)
    }
}

impl fmt::Display for LimiterRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimiterRate::Octets(rate, burst) => {
                write!(f, "rate over {rate} bytes/second burst {burst} bytes")
            }
            LimiterRate::Packets(rate, burst) => {
                write!(f, "rate over {rate}/second burst {burst} packets")
            }
        }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_map = self.verdicts || !self.data.is_empty();
        let kind = if is_map { "map" } else { "set" };
        writeln!(f, "{kind} {} {{", self.name)?;
        f.write_str("\ttype ")?;
        joined(f, &self.key, " . ")?;
        if !self.data.is_empty() {
            f.write_str(" : ")?;
            joined(f, &self.data, " . ")?;
        }
        f.write_str(if self.verdicts { " : verdict\n" } else { "\n" })?;
        if let Some(size) = self.dynamic {
            writeln!(f, "\tsize {size}\n\tflags dynamic")?;
        }
        f.write_str("}")
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyType::IfName => "ifname",
            KeyType::DevGroup => "devgroup",
            KeyType::EtherAddr => "ether_addr",
            KeyType::Addr(Family::V4) => "ipv4_addr",
            KeyType::Addr(Family::V6) => "ipv6_addr",
            KeyType::NfProto => "nf_proto",
            KeyType::InetProto => "inet_proto",
            KeyType::InetService => "inet_service",
            KeyType::IcmpType(Family::V4) => "icmp_type",
            KeyType::IcmpType(Family::V6) => "icmpv6_type",
            KeyType::IcmpCode(Family::V4) => "icmp_code",
            KeyType::IcmpCode(Family::V6) => "icmpv6_code",
            KeyType::Mark => "mark",
            KeyType::Limiter => "limit",
        })
    }
}

/// The element as it stands between the braces of `add element inet hextet SET { … }`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        joined(f, &self.key, " . ")?;
        if !self.data.is_empty() {
            f.write_str(" : ")?;
            joined(f, &self.data, " . ")?;
        }
        match &self.verdict {
            Some(verdict) => write!(f, " : {verdict}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::IfName(name) => write!(f, "\"{name}\""),
            Value::Mac(mac) => write!(f, "{mac}"),
            Value::Addr(addr) => write!(f, "{addr}"),
            Value::Family(Family::V4) => f.write_str("ipv4"),
            Value::Family(Family::V6) => f.write_str("ipv6"),
            Value::U8(n) => write!(f, "{n}"),
            Value::Port(n) => write!(f, "{n}"),
            Value::U32(n) => write!(f, "{n:#x}"),
            Value::Limiter(name) => write!(f, "\"{name}\""),
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "chain {} {{", self.name)?;
        if let Some(hook) = &self.hook {
            writeln!(f, "\t{hook}")?;
        }
        for rule in &self.rules {
            writeln!(f, "\t{rule}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Display for ChainHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        };
        let kind = self.kind();
        let policy = match self.policy {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        };
        let priority = self.priority;
        write!(
            f,
            "type {kind} hook {hook} priority {priority}; policy {policy};"
        )
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        joined(f, &self.statements, " ")?;
        match &self.comment {
            Some(comment) => write!(f, " comment \"{}\"", comment.replace('"', "'")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Return => f.write_str("return"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Statement::Compare(part, op, value) => compare(f, part, *op, value),
            Statement::NamePrefix(field, prefix) => write!(f, "{field} \"{prefix}*\""),
            Statement::CtStateIn(states) => {
                f.write_str("ct state ")?;
                joined(f, states, ",")
            }
            Statement::Lookup(Lookup { key, set, negate }) => {
                joined(f, key, " . ")?;
                write!(f, "{} @{set}", if *negate { " !=" } else { "" })
            }
            Statement::VerdictMap(key, map) => {
                joined(f, key, " . ")?;
                write!(f, " vmap @{map}")
            }
            Statement::Dynamic(key, set, op) => dynamic(f, key, set, op),
            Statement::Limit(rate, false) => write!(f, "limit rate {rate}"),
            Statement::Limit(rate, true) => write!(f, "limit rate over {rate}"),
            Statement::LimitMap(key, map) => {
                f.write_str("limit name ")?;
                joined(f, key, " . ")?;
                write!(f, " map @{map}")
            }
            Statement::SetDscp(family, mark) => {
                let header = if *family == Family::V4 { "ip" } else { "ip6" };
                write!(f, "{header} dscp set {mark}")
            }
            Statement::SetMark {
                value,
                mask: u32::MAX,
            } => write!(f, "meta mark set {value:#x}"),
            Statement::SetMark { value, mask } => {
                let keep = !mask;
                write!(f, "meta mark set meta mark & {keep:#010x} | {value:#010x}")
            }
            Statement::SetPktType(to) => {
                let to = match to {
                    PktType::Host => "host",
                    PktType::Broadcast => "broadcast",
                    PktType::Multicast => "multicast",
                };
                write!(f, "meta pkttype set {to}")
            }
            Statement::SetSaddr(to) => write!(f, "ip6 saddr set {to}"),
            Statement::Counter => f.write_str("counter"),
            Statement::Count(name) => write!(f, "counter name \"{name}\""),
            Statement::Notrack => f.write_str("notrack"),
            Statement::Snat(NatRange { first, last }) => {
                let family = if first.is_ipv4() { "ip" } else { "ip6" };
                write!(f, "snat {family} to {first}")?;
                if first != last {
                    write!(f, "-{last}")?;
                }
                f.write_str(" persistent")
            }
            Statement::Masquerade => f.write_str("masquerade"),
            Statement::NatMap(end, key, map, _) => nat_map(f, *end, key, map),
            Statement::Reject => f.write_str("reject with icmpx admin-prohibited"),
            Statement::Verdict(verdict) => write!(f, "{verdict}"),
        }
    }
}

fn dynamic(f: &mut fmt::Formatter<'_>, key: &[KeyPart], set: &SetName, op: &DynOp) -> fmt::Result {
    let verb = match op {
        DynOp::CtCountOver(_) => "add",
        DynOp::LimitOver(_) => "update",
    };
    write!(f, "{verb} @{set} {{ ")?;
    joined(f, key, " . ")?;
    match op {
        DynOp::CtCountOver(count) => write!(f, " ct count over {count} }}"),
        DynOp::LimitOver(rate) => write!(f, " limit rate over {rate} }}"),
    }
}

fn nat_map(f: &mut fmt::Formatter<'_>, end: NatEnd, key: &[KeyPart], map: &SetName) -> fmt::Result {
    f.write_str(match end {
        NatEnd::Source => "snat ip to ",
        NatEnd::Destination => "dnat ip to ",
    })?;
    // Here nft reads no mask that is not in parentheses.
    for (i, part) in key.iter().enumerate() {
        f.write_str(if i > 0 { " . " } else { "" })?;
        match part.mask {
            Some(_) => write!(f, "({part})")?,
            None => write!(f, "{part}")?,
        }
    }
    write!(f, " map @{map}")
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            LimitUnit::Second => "second",
            LimitUnit::Minute => "minute",
        };
        write!(f, "{}/{unit} burst {} packets", self.rate, self.burst)
    }
}

impl fmt::Display for CtState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CtState::Invalid => "invalid",
            CtState::Established => "established",
            CtState::Related => "related",
            CtState::New => "new",
            CtState::Untracked => "untracked",
        })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::IifName => "iifname",
            Field::OifName => "oifname",
            Field::IifGroup => "iifgroup",
            Field::OifGroup => "oifgroup",
            Field::EtherSaddr => "ether saddr",
            Field::Saddr(Family::V4) => "ip saddr",
            Field::Saddr(Family::V6) => "ip6 saddr",
            Field::Daddr(Family::V4) => "ip daddr",
            Field::Daddr(Family::V6) => "ip6 daddr",
            Field::NfProto => "meta nfproto",
            Field::L4Proto => "meta l4proto",
            Field::Sport => "th sport",
            Field::Dport => "th dport",
            Field::IcmpType(Family::V4) => "icmp type",
            Field::IcmpType(Family::V6) => "icmpv6 type",
            Field::IcmpCode(Family::V4) => "icmp code",
            Field::IcmpCode(Family::V6) => "icmpv6 code",
            Field::NdTarget => "@th,64,128",
            Field::Mark => "meta mark",
            Field::PktType => "meta pkttype",
            Field::CtStatus => "ct status",
            Field::CtSaddr(CtDirection::Original, Family::V4) => "ct original ip saddr",
            Field::CtSaddr(CtDirection::Original, Family::V6) => "ct original ip6 saddr",
            Field::CtSaddr(CtDirection::Reply, Family::V4) => "ct reply ip saddr",
            Field::CtSaddr(CtDirection::Reply, Family::V6) => "ct reply ip6 saddr",
            Field::FibDaddrType => "fib daddr type",
            Field::Ip6Fragment => "exthdr frag",
            Field::Ip6NextHeader => "ip6 nexthdr",
            Field::Ip4Fragment => "ip frag-off",
            Field::Dscp(Family::V4) => "@nh,8,8",
            Field::Dscp(Family::V6) => "@nh,0,16",
            Field::Random(below) => return write!(f, "numgen random mod {below}"),
        })
    }
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.field)?;
        match &self.mask {
            Some(mask) => {
                f.write_str(" & ")?;
                mask_text(f, self.field, mask)
            }
            None => Ok(()),
        }
    }
}

fn mask_text(f: &mut fmt::Formatter<'_>, field: Field, mask: &[u8]) -> fmt::Result {
    match field {
        Field::Saddr(_) | Field::Daddr(_) | Field::CtSaddr(..) => {
            if let Ok(octets) = <[u8; 4]>::try_from(mask) {
                return write!(f, "{}", Ipv4Addr::from(octets));
            }
            if let Ok(octets) = <[u8; 16]>::try_from(mask) {
                return write!(f, "{}", Ipv6Addr::from(octets));
            }
        }
        Field::EtherSaddr => {
            if let Ok(octets) = <[u8; 6]>::try_from(mask) {
                return write!(f, "{}", Mac::new(octets));
            }
        }
        _ => {}
    }
    f.write_str("0x")?;
    mask.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
}

fn compare(f: &mut fmt::Formatter<'_>, part: &KeyPart, op: CmpOp, value: &Value) -> fmt::Result {
    if part.field == Field::Ip6Fragment {
        let wanted = matches!(value, Value::U8(n) if *n != 0) == (op == CmpOp::Eq);
        return f.write_str(if wanted {
            "exthdr frag exists"
        } else {
            "exthdr frag missing"
        });
    }
    let sign = match op {
        CmpOp::Eq => "==",
        CmpOp::Ne => "!=",
    };
    write!(f, "{part} {sign} ")?;
    let number = match value {
        Value::U8(n) => u32::from(*n),
        Value::U32(n) => *n,
        Value::Addr(IpAddr::V6(addr)) if part.field == Field::NdTarget => {
            return write!(f, "{:#034x}", u128::from(*addr));
        }
        _ => return write!(f, "{value}"),
    };
    let name = match (part.field, number) {
        (Field::PktType, 0) => "host",
        (Field::PktType, 1) => "broadcast",
        (Field::PktType, 2) => "multicast",
        (Field::FibDaddrType, 1) => "unicast",
        (Field::FibDaddrType, 2) => "local",
        (Field::FibDaddrType, 3) => "broadcast",
        (Field::FibDaddrType, 5) => "multicast",
        (Field::FibDaddrType, 6) => "blackhole",
        _ => return write!(f, "{value}"),
    };
    f.write_str(name)
}

fn joined<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    separator: &str,
) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_read_as_nft_writes_them() {
        let net = Some(vec![255, 255, 255, 0]);
        let cases = [
            (
                Statement::Compare(Field::L4Proto.into(), CmpOp::Ne, Value::U8(58)),
                "meta l4proto != 58",
            ),
            (
                Statement::Compare(Field::FibDaddrType.into(), CmpOp::Eq, Value::U32(2)),
                "fib daddr type == local",
            ),
            (
                Statement::Compare(Field::Ip6Fragment.into(), CmpOp::Ne, Value::U8(1)),
                "exthdr frag missing",
            ),
            (
                Statement::Lookup(Lookup {
                    key: vec![
                        KeyPart {
                            field: Field::Saddr(Family::V4),
                            mask: net,
                        },
                        Field::Dport.into(),
                    ],
                    set: "s".into(),
                    negate: true,
                }),
                "ip saddr & 255.255.255.0 . th dport != @s",
            ),
            (
                Statement::SetMark {
                    value: 0x20_0000,
                    mask: 0xf0_0000,
                },
                "meta mark set meta mark & 0xff0fffff | 0x00200000",
            ),
            (
                Statement::SetPktType(PktType::Host),
                "meta pkttype set host",
            ),
            (
                Statement::Dynamic(
                    vec![Field::Saddr(Family::V4).into()],
                    "c".into(),
                    DynOp::CtCountOver(9),
                ),
                "add @c { ip saddr ct count over 9 }",
            ),
            (
                Statement::Snat(NatRange {
                    first: IpAddr::from([192, 0, 2, 1]),
                    last: IpAddr::from([192, 0, 2, 4]),
                }),
                "snat ip to 192.0.2.1-192.0.2.4 persistent",
            ),
            (Statement::Masquerade, "masquerade"),
        ];
        for (statement, text) in cases {
            assert_eq!(statement.to_string(), text);
        }
    }

    #[test]
    fn a_comment_cannot_end_its_own_quotes() {
        let rule = Rule {
            statements: vec![Statement::Verdict(Verdict::Accept)],
            comment: Some("a\"; drop".to_owned()),
        };
        assert_eq!(rule.to_string(), "accept comment \"a'; drop\"");
    }
}
