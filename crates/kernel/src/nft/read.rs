//! Reading the table back.

use std::collections::{BTreeMap, BTreeSet};

use hextet_model::state::{
    Chain, ChainName, CounterName, Element, KeyType, Limiter, LimiterName, Policy, Set, SetName,
    TABLE, Value, Verdict,
};

use super::{
    DATA_VERDICT, HEADER, NFPROTO_INET, OBJECT_LIMIT, counter, expr,
    expr::Expr,
    key_len, lower, msg, read_key_type, set_flag,
    transaction::{ELEMENT_OBJECT, clipped, hook_number, read_comment},
};
use crate::{
    error::Error,
    netlink::{Answer, Attrs, Batch, Socket, be32, text},
};

/// `NFT_TABLE_F_DORMANT`: the table stands and does nothing.
const DORMANT: u32 = 1;
/// `NFT_CHAIN_BASE` of a chain's flags; others are hardware offload and bindings.
const CHAIN_BASE: u32 = 1;
const SET_ELEM_FLAGS: u32 = 0;

/// All that stands in our table.
#[derive(Debug, Default)]
pub struct Table {
    /// Whether the table stands at all.
    pub present: bool,
    /// Whether it is switched off.
    pub dormant: bool,
    /// Its limiters; none where it is none that the model can say.
    pub limiters: BTreeMap<LimiterName, Option<Limiter>>,
    /// Its counters.
    pub counters: BTreeSet<CounterName>,
    /// Its sets; a text where it is none that the model can say.
    pub sets: BTreeMap<SetName, Result<Set, String>>,
    /// Its chains.
    pub chains: BTreeMap<ChainName, ReadChain>,
    /// Elements of those sets that are not filled by packets.
    pub elements: Vec<Element>,
}

/// A chain as the kernel has it.
#[derive(Debug, Default)]
pub struct ReadChain {
    hook: Option<ReadHook>,
    flags: u32,
    rules: Vec<(Vec<Expr>, Option<String>)>,
}

#[derive(Debug, PartialEq, Eq)]
struct ReadHook {
    number: u32,
    priority: i32,
    policy: u32,
    kind: String,
}

impl ReadChain {
    /// Whether it does exactly what this chain says.
    pub fn is(&self, chain: &Chain) -> bool {
        self.has_hook(chain)
            && self.policy_is(chain)
            && self.flags & !CHAIN_BASE == 0
            && self.rules.len() == chain.rules.len()
            && self
                .rules
                .iter()
                .zip(&chain.rules)
                .all(|((exprs, comment), rule)| {
                    comment.as_deref() == rule.comment.as_deref().map(clipped)
                        && lower::rule(rule).is_ok_and(|wanted| wanted == *exprs)
                })
    }

    /// Whether it hangs where this chain does.
    pub fn has_hook(&self, chain: &Chain) -> bool {
        match (&self.hook, &chain.hook) {
            (None, None) => true,
            (Some(is), Some(wanted)) => {
                is.number == hook_number(wanted.hook)
                    && is.priority == wanted.priority
                    && is.kind == wanted.kind()
            }
            _ => false,
        }
    }

    fn policy_is(&self, chain: &Chain) -> bool {
        match (&self.hook, &chain.hook) {
            (Some(is), Some(wanted)) => is.policy == u32::from(wanted.policy == Policy::Accept),
            _ => true,
        }
    }

    /// In a few words.
    pub fn summary(&self) -> String {
        let unknown = |exprs: &[Expr]| exprs.iter().any(|e| matches!(e, Expr::Other { .. }));
        let foreign = self
            .rules
            .iter()
            .filter(|(exprs, _)| unknown(exprs))
            .count();
        match foreign {
            0 => format!("{} rules", self.rules.len()),
            n => format!("{} rules, {n} of them foreign", self.rules.len()),
        }
    }
}

/// Reads everything; an absent table is empty.
pub fn read_table(socket: &mut Socket) -> Result<Table, Error> {
    let mut table = Table::default();
    let Some((flags, _)) = table_state(socket)? else {
        return Ok(table);
    };
    table.present = true;
    table.dormant = flags & DORMANT != 0;
    let mut request = request(msg::GETOBJ);
    table
        .limiters
        .extend(socket.dump(&mut request, read_limiter)?);
    let counters = counter::read_counters(socket)?;
    table
        .counters
        .extend(counters.into_iter().map(|count| count.name));
    let mut request = super::read::request(msg::GETSET);
    table.sets.extend(socket.dump(&mut request, read_set)?);
    let mut request = super::read::request(msg::GETCHAIN);
    table.chains.extend(socket.dump(&mut request, read_chain)?);
    let mut request = super::read::request(msg::GETRULE);
    for (chain, rule) in socket.dump(&mut request, read_rule)? {
        table.chains.entry(chain).or_default().rules.push(rule);
    }
    read_elements(socket, &mut table)?;
    Ok(table)
}

/// How many sets and chains the table holds; none, where there is no table.
pub fn table_use(socket: &mut Socket) -> Result<Option<u32>, Error> {
    Ok(table_state(socket)?.map(|(_, users)| users))
}

/// The number of the namespace's last transaction, whoever made it; never 0.
pub fn generation(socket: &mut Socket) -> Result<u32, Error> {
    let mut request = Batch::default();
    request.message(msg::GETGEN, 0, &HEADER);
    let mut found = None;
    socket.query(&mut request, |_, answer| {
        found = Attrs::after(answer.payload, HEADER.len())
            .get(1)
            .and_then(be32);
    })?;
    found.ok_or_else(|| Error::Lost {
        operation: "read the generation of nf_tables".to_owned(),
    })
}

fn table_state(socket: &mut Socket) -> Result<Option<(u32, u32)>, Error> {
    let mut request = Batch::default();
    request.message(msg::GETTABLE, 0, &HEADER);
    let tables = socket.dump(&mut request, |answer| {
        let attrs = ours(answer)?;
        let number = |kind| attrs.get(kind).and_then(be32).unwrap_or(0);
        Some((number(2), number(3)))
    })?;
    Ok(tables.first().copied())
}

pub(super) fn request(kind: u16) -> Batch {
    let mut request = Batch::default();
    request.message(kind, 0, &HEADER).text(1, TABLE);
    request
}

/// The attributes of a message about our table (its name is always attribute 1).
pub(super) fn ours<'a>(answer: &Answer<'a>) -> Option<Attrs<'a>> {
    let attrs = Attrs::after(answer.payload, HEADER.len());
    let inet = answer.payload.first() == Some(&NFPROTO_INET);
    (inet && attrs.get(1).and_then(text) == Some(TABLE)).then_some(attrs)
}

/// Other objects are read elsewhere, or nobody's that we would know.
fn read_limiter(answer: &Answer<'_>) -> Option<(LimiterName, Option<Limiter>)> {
    let attrs = ours(answer)?;
    let name = LimiterName(attrs.get(2).and_then(text)?.to_owned());
    if attrs.get(3).and_then(be32)? != OBJECT_LIMIT {
        return None;
    }
    let rate = Expr::read_data("limit", attrs.nest(4));
    let rate = rate.and_then(|limit| lower::limiter_rate(&limit));
    let limiter = rate.map(|rate| Limiter {
        name: name.clone(),
        rate,
    });
    Some((name, limiter))
}

fn read_set(answer: &Answer<'_>) -> Option<(SetName, Result<Set, String>)> {
    let attrs = ours(answer)?;
    let name = SetName(attrs.get(2).and_then(text)?.to_owned());
    let number = |kind| attrs.get(kind).and_then(be32);
    let set = || {
        let set_flags = number(3).unwrap_or(0);
        let key = read_key_type(number(4)?)?;
        let known = set_flag::MAP | set_flag::EVAL | set_flag::OBJECT;
        if set_flags & !known != 0 || number(5)? != key_len(&key) {
            return None;
        }
        let size = attrs.nest(9).get(1).and_then(be32);
        let dynamic = match (set_flags & set_flag::EVAL != 0, size) {
            (true, Some(size)) => Some(size),
            (false, None) => None,
            _ => return None,
        };
        let is_map = set_flags & set_flag::MAP != 0;
        let verdicts = is_map && number(6)? == DATA_VERDICT;
        let to_limiters = set_flags & set_flag::OBJECT != 0;
        if to_limiters && (is_map || number(15)? != OBJECT_LIMIT) {
            return None;
        }
        let data = match (is_map && !verdicts, to_limiters) {
            (true, _) => read_key_type(number(6)?)?,
            (_, true) => vec![KeyType::Limiter],
            _ => Vec::new(),
        };
        if !data.is_empty() && !to_limiters && number(7)? != key_len(&data) {
            return None;
        }
        Some(Set {
            name: name.clone(),
            key,
            verdicts,
            data,
            dynamic,
        })
    };
    let described = set().ok_or_else(|| "a set of another kind".to_owned());
    Some((name, described))
}

fn read_chain(answer: &Answer<'_>) -> Option<(ChainName, ReadChain)> {
    let attrs = ours(answer)?;
    let name = ChainName(attrs.get(3).and_then(text)?.to_owned());
    let hook = attrs.get(4).map(|hook| {
        let number = |kind| Attrs(hook).get(kind).and_then(be32);
        ReadHook {
            number: number(1).unwrap_or(u32::MAX),
            priority: number(2).unwrap_or(0).cast_signed(),
            policy: attrs.get(5).and_then(be32).unwrap_or(1),
            kind: attrs.get(7).and_then(text).unwrap_or_default().to_owned(),
        }
    });
    let flags = attrs.get(10).and_then(be32).unwrap_or(0);
    Some((
        name,
        ReadChain {
            hook,
            flags,
            rules: Vec::new(),
        },
    ))
}

type ReadRule = (ChainName, (Vec<Expr>, Option<String>));

fn read_rule(answer: &Answer<'_>) -> Option<ReadRule> {
    let attrs = ours(answer)?;
    let chain = ChainName(attrs.get(2).and_then(text)?.to_owned());
    let exprs = Expr::read_all(attrs.get(4).unwrap_or_default());
    let comment = attrs.get(7).and_then(read_comment).map(str::to_owned);
    Some((chain, (exprs, comment)))
}

fn read_elements(socket: &mut Socket, table: &mut Table) -> Result<(), Error> {
    let mut spoiled = BTreeSet::new();
    let kept = table
        .sets
        .values()
        .flatten()
        .filter(|set| set.dynamic.is_none());
    for set in kept {
        let mut request = Batch::default();
        request
            .message(msg::GETSETELEM, 0, &HEADER)
            .text(1, TABLE)
            .text(2, &set.name.0);
        let lists = socket.dump(&mut request, |answer| {
            let list = ours(answer)?.get(3)?;
            let elements = Attrs(list)
                .into_iter()
                .map(|(_, element)| read_element(set, element));
            Some(elements.collect::<Option<Vec<_>>>())
        })?;
        for list in lists {
            match list {
                Some(list) => {
                    table.elements.extend(list);
                }
                None => {
                    spoiled.insert(set.name.clone());
                }
            }
        }
    }
    table
        .elements
        .retain(|element| !spoiled.contains(&element.set));
    for name in spoiled {
        table
            .sets
            .insert(name, Err("a set with foreign elements".to_owned()));
    }
    Ok(())
}

fn read_element(set: &Set, element: &[u8]) -> Option<Element> {
    let attrs = Attrs(element);
    let key = super::value::read_key(&set.key, attrs.nest(1).get(1)?)?;
    let with = |verdict: Option<Verdict>, data| Element {
        set: set.name.clone(),
        key,
        verdict,
        data,
    };
    if attrs.get(3).and_then(be32).unwrap_or(SET_ELEM_FLAGS) != SET_ELEM_FLAGS {
        return None;
    }
    if set.data == [KeyType::Limiter] {
        let name = attrs.get(ELEMENT_OBJECT).and_then(text)?;
        return Some(with(
            None,
            vec![Value::Limiter(LimiterName(name.to_owned()))],
        ));
    }
    let data = attrs.get(2).map(Attrs);
    match (set.verdicts, set.data.is_empty(), data) {
        (true, _, Some(data)) => Some(with(Some(expr::read_verdict(data)?), Vec::new())),
        (false, true, None) => Some(with(None, Vec::new())),
        (false, false, Some(data)) => {
            let values = super::value::read_key(&set.data, data.get(1)?)?;
            Some(with(None, values))
        }
        _ => None,
    }
}

/// Reads a message as a description of each kind.
#[cfg(feature = "fuzzing")]
pub fn read_any(answer: &Answer<'_>) {
    let _ = (read_chain(answer), read_rule(answer), read_limiter(answer));
    let _ = counter::read_count(answer);
    let Some((_, Ok(set))) = read_set(answer) else {
        return;
    };
    for (_, element) in Attrs::after(answer.payload, HEADER.len()) {
        let _ = read_element(&set, element);
    }
}

/// The key types of one set.
pub fn key_types(socket: &mut Socket, name: &SetName) -> Result<Option<Vec<KeyType>>, Error> {
    let mut request = Batch::default();
    request
        .message(msg::GETSET, 0, &HEADER)
        .text(1, TABLE)
        .text(2, &name.0);
    let mut found = None;
    socket.query(&mut request, |_, answer| {
        found = read_set(answer)
            .and_then(|(_, set)| set.ok())
            .map(|set| set.key);
    })?;
    Ok(found)
}
