//! One transaction: what goes, then what comes, in an order in which the kernel takes it.
//!
//! Everything of a namespace's table goes into one batch, which the kernel does wholly or not at all.

use std::collections::{BTreeMap, BTreeSet};

use hextet_model::state::{
    Chain, ChainName, CounterName, Element, Hook, KeyType, Limiter, LimiterName, Policy, Set,
    SetName, TABLE, Value,
};

use super::expr::Expr;
use super::{
    DATA_VERDICT, HEADER, NFNL_SUBSYS_NFTABLES, OBJECT_COUNTER, OBJECT_LIMIT, expr, key_len,
    key_type_number, lower, msg, set_flag,
};
use crate::{
    error::{Error, Refusal},
    netlink::{Batch, Message, Socket, flags},
};

const NFNL_BATCH_BEGIN: u16 = 0x10;
const NFNL_BATCH_END: u16 = 0x11;
/// A list's length field holds 64 KiB.
const LIST_OCTETS: usize = 48 << 10;
/// `NFTA_SET_ELEM_OBJREF`.
pub(super) const ELEMENT_OBJECT: u16 = 9;
const USERDATA_COMMENT: u8 = 0;
const COMMENT_MAX: usize = 120;

/// One step of a transaction, on one object.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// The limiter is new; `true`, where one of that name has to go first.
    Limiter(&'a Limiter, bool),
    /// The limiter goes.
    NoLimiter(&'a LimiterName),
    /// The counter is new, and begins with nothing.
    Counter(&'a CounterName),
    /// The counter goes.
    NoCounter(&'a CounterName),
    /// The set is new; `true`, where one of that name has to go first.
    Set(&'a Set, bool),
    /// The set goes, with its elements.
    NoSet(&'a SetName),
    /// The chain gets exactly these rules; `Exists` says what stands there.
    Chain(&'a Chain, Exists),
    /// The chain goes, with its rules.
    NoChain(&'a ChainName),
    /// The element is new; `true`, where one of that key has to go first.
    Element(&'a Element, bool),
    /// The element goes.
    NoElement(&'a SetName, &'a [Value]),
}

impl<'a> Change<'a> {
    fn emptied_chain(&self) -> Option<&'a ChainName> {
        match *self {
            Change::Chain(chain, Exists::SameHook | Exists::OtherHook) => Some(&chain.name),
            Change::NoChain(name) => Some(name),
            _ => None,
        }
    }

    fn leaving_chain(&self) -> Option<&'a ChainName> {
        match *self {
            Change::Chain(chain, Exists::OtherHook) => Some(&chain.name),
            Change::NoChain(name) => Some(name),
            _ => None,
        }
    }

    fn leaving_limiter(&self) -> Option<&'a LimiterName> {
        match *self {
            Change::Limiter(limiter, true) => Some(&limiter.name),
            Change::NoLimiter(name) => Some(name),
            _ => None,
        }
    }

    fn leaving_set(&self) -> Option<&'a SetName> {
        match *self {
            Change::Set(set, true) => Some(&set.name),
            Change::NoSet(name) => Some(name),
            _ => None,
        }
    }
}

/// Whether a chain stands before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exists {
    /// There is none of that name.
    No,
    /// There is one on the same hook, so that it may stay and only its rules change.
    SameHook,
    /// There is one, on another hook or on none.
    OtherHook,
}

/// Applies changes as one transaction. `key_types` tells the key of a set that is not among the changes.
/// Gives back the refused changes by index; if there is one, nothing was done at all.
pub fn transact(
    socket: &mut Socket,
    changes: &[Change<'_>],
    key_types: impl Fn(&SetName) -> Option<Vec<KeyType>>,
) -> Result<Vec<(usize, Refusal)>, Error> {
    let mut writer = Writer::new(TABLE, changes, &key_types);
    writer.write_all(changes)?;
    writer.commit(socket)
}

/// Makes a table of that name have these and nothing else, as one transaction; changes that take something away are none.
pub fn replace_table(
    socket: &mut Socket,
    table: &str,
    changes: &[Change<'_>],
) -> Result<Vec<(usize, Refusal)>, Error> {
    let none = |_: &SetName| None;
    let mut writer = Writer::new(table, changes, &none);
    writer.new_table();
    writer.open(msg::DELTABLE, 0);
    writer.write_all(changes)?;
    writer.commit(socket)
}

impl Writer<'_> {
    fn commit(self, socket: &mut Socket) -> Result<Vec<(usize, Refusal)>, Error> {
        let Writer {
            mut batch, owners, ..
        } = self;
        end(&mut batch);
        let last = batch.len() - 2;
        let outcome = socket.transact(&mut batch, last)?;
        let mut refused = Vec::new();
        for (index, refusal) in outcome {
            let owner = owners.iter().rev().find(|(first, _)| *first <= index);
            let changes = owner.map_or(&[][..], |(_, changes)| changes);
            match changes {
                [] => refused.push((0, refusal)),
                some => refused.extend(some.iter().map(|change| (*change, refusal.clone()))),
            }
        }
        Ok(refused)
    }
}

/// Deletes a table with everything in it; that there is none is no error.
pub fn delete_table(socket: &mut Socket, table: &str) -> Result<(), Error> {
    let mut batch = begin();
    batch.message(msg::DELTABLE, 0, &HEADER).text(1, table);
    end(&mut batch);
    for (_, refusal) in socket.transact(&mut batch, 1)? {
        if refusal.errno != libc::ENOENT {
            return Err(refusal.of(format!("delete table inet {table}")));
        }
    }
    Ok(())
}

fn begin() -> Batch {
    let mut batch = Batch::default();
    batch.message(NFNL_BATCH_BEGIN, 0, &batch_header());
    batch
}

fn end(batch: &mut Batch) {
    batch.message(NFNL_BATCH_END, 0, &batch_header());
}

fn batch_header() -> [u8; 4] {
    let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
    [0, 0, high, low]
}

struct Writer<'a> {
    table: &'a str,
    batch: Batch,
    /// (first message, the changes that it and those up to the next entry are for).
    owners: Vec<(usize, Vec<usize>)>,
    sets: BTreeMap<&'a SetName, &'a Set>,
    leaving: BTreeSet<&'a SetName>,
    key_types: &'a dyn Fn(&SetName) -> Option<Vec<KeyType>>,
}

impl<'a> Writer<'a> {
    fn new(
        table: &'a str,
        changes: &[Change<'a>],
        key_types: &'a dyn Fn(&SetName) -> Option<Vec<KeyType>>,
    ) -> Self {
        let new_sets = changes.iter().filter_map(|change| match change {
            Change::Set(set, _) => Some((&set.name, *set)),
            _ => None,
        });
        let sets = new_sets.collect();
        let leaving = changes.iter().filter_map(Change::leaving_set).collect();
        Writer {
            table,
            batch: begin(),
            owners: Vec::new(),
            sets,
            leaving,
            key_types,
        }
    }

    fn write_all(&mut self, changes: &[Change<'a>]) -> Result<(), Error> {
        self.new_table();
        self.elements(msg::DELSETELEM, changes)?;
        let all = || changes.iter().enumerate();
        for (i, change) in all() {
            if let Some(chain) = change.emptied_chain() {
                self.own(i);
                self.open(msg::DELRULE, 0).text(2, &chain.0);
            }
        }
        for (i, change) in all() {
            if let Some(set) = change.leaving_set() {
                self.own(i);
                self.open(msg::DELSET, 0).text(2, &set.0);
            }
        }
        for (i, change) in all() {
            if let Some(chain) = change.leaving_chain() {
                self.own(i);
                self.open(msg::DELCHAIN, 0).text(3, &chain.0);
            }
        }
        self.limiters(changes);
        self.counters(changes);
        for (i, change) in all() {
            if let Change::Set(set, _) = change {
                self.own(i);
                self.set(i, set);
            }
        }
        for (i, change) in all() {
            if let Change::Chain(chain, _) = change {
                self.own(i);
                self.chain(chain);
            }
        }
        for (i, change) in all() {
            if let Change::Chain(chain, _) = change {
                self.own(i);
                self.rules(chain)?;
            }
        }
        self.elements(msg::NEWSETELEM, changes)
    }

    fn new_table(&mut self) {
        self.open(msg::NEWTABLE, flags::CREATE).be32(2, 0);
    }

    fn own(&mut self, change: usize) {
        self.owners.push((self.batch.len(), vec![change]));
    }

    fn open(&mut self, kind: u16, flags: u16) -> Message<'_> {
        let mut message = self.batch.message(kind, flags, &HEADER);
        message.text(1, self.table);
        message
    }

    /// Those that go, then those that come.
    fn limiters(&mut self, changes: &[Change<'a>]) {
        for (i, change) in changes.iter().enumerate() {
            if let Some(name) = change.leaving_limiter() {
                self.own(i);
                self.open(msg::DELOBJ, 0)
                    .text(2, &name.0)
                    .be32(3, OBJECT_LIMIT);
            }
        }
        for (i, change) in changes.iter().enumerate() {
            if let Change::Limiter(limiter, _) = change {
                self.own(i);
                let mut m = self.open(msg::NEWOBJ, flags::CREATE | flags::EXCL);
                m.text(2, &limiter.name.0)
                    .be32(3, OBJECT_LIMIT)
                    .nest(4, |m| lower::limiter(limiter.rate).write_data(m));
            }
        }
    }

    fn counters(&mut self, changes: &[Change<'a>]) {
        for (i, change) in changes.iter().enumerate() {
            let (kind, flags, name) = match change {
                Change::Counter(name) => (msg::NEWOBJ, flags::CREATE | flags::EXCL, name),
                Change::NoCounter(name) => (msg::DELOBJ, 0, name),
                _ => continue,
            };
            self.own(i);
            let mut m = self.open(kind, flags);
            m.text(2, &name.0).be32(3, OBJECT_COUNTER);
            if kind == msg::NEWOBJ {
                m.nest(4, |m| Expr::Counter.write_data(m));
            }
        }
    }

    fn set(&mut self, id: usize, set: &Set) {
        let leads_to_limiters = set.data == [KeyType::Limiter];
        let mut set_flags = 0;
        if leads_to_limiters {
            set_flags |= set_flag::OBJECT;
        } else if set.verdicts || !set.data.is_empty() {
            set_flags |= set_flag::MAP;
        }
        if set.dynamic.is_some() {
            set_flags |= set_flag::EVAL;
        }
        let id = u32::try_from(id).unwrap_or(u32::MAX);
        let mut m = self.open(msg::NEWSET, flags::CREATE | flags::EXCL);
        m.text(2, &set.name.0)
            .be32(3, set_flags)
            .be32(4, key_type_number(&set.key))
            .be32(5, key_len(&set.key));
        if set.verdicts {
            m.be32(6, DATA_VERDICT).be32(7, 16);
        } else if !set.data.is_empty() && !leads_to_limiters {
            m.be32(6, key_type_number(&set.data))
                .be32(7, key_len(&set.data));
        }
        if let Some(size) = set.dynamic {
            m.nest(9, |m| {
                m.be32(1, size);
            });
        }
        let data = match leads_to_limiters {
            true => &[][..],
            false => &set.data,
        };
        m.be32(10, id).attr(13, &set_userdata(&set.key, data));
        if leads_to_limiters {
            m.be32(15, OBJECT_LIMIT);
        }
    }

    fn chain(&mut self, chain: &Chain) {
        let mut m = self.open(msg::NEWCHAIN, flags::CREATE);
        m.text(3, &chain.name.0);
        if let Some(hook) = &chain.hook {
            m.nest(4, |m| {
                m.be32(1, hook_number(hook.hook))
                    .be32(2, hook.priority.cast_unsigned());
            });
            m.be32(
                5,
                match hook.policy {
                    Policy::Drop => 0,
                    Policy::Accept => 1,
                },
            );
            m.text(7, hook.kind());
        }
    }

    fn rules(&mut self, chain: &Chain) -> Result<(), Error> {
        for rule in &chain.rules {
            let exprs = lower::rule(rule)?;
            let mut m = self.open(msg::NEWRULE, flags::CREATE | flags::APPEND);
            m.text(2, &chain.name.0)
                .nest(4, |m| exprs.iter().for_each(|expr| expr.write(m)));
            if let Some(comment) = &rule.comment {
                m.attr(7, &comment_userdata(comment));
            }
        }
        Ok(())
    }

    /// Elements that come or go, those of one set together in lists.
    fn elements(&mut self, kind: u16, changes: &[Change<'a>]) -> Result<(), Error> {
        let mut of_set: BTreeMap<&SetName, Vec<usize>> = BTreeMap::new();
        for (i, change) in changes.iter().enumerate() {
            let set = match change {
                Change::Element(element, replaces) => {
                    (kind == msg::NEWSETELEM || *replaces).then_some(&element.set)
                }
                Change::NoElement(set, _) => (kind == msg::DELSETELEM).then_some(*set),
                _ => None,
            };
            let gone = |set: &&SetName| kind == msg::DELSETELEM && self.leaving.contains(*set);
            if let Some(set) = set.filter(|set| !gone(set)) {
                of_set.entry(set).or_default().push(i);
            }
        }
        for (set, members) in of_set {
            let types = match self.sets.get(set) {
                Some(set) if kind == msg::NEWSETELEM => set.key.clone(),
                _ => (self.key_types)(set).ok_or_else(|| {
                    Error::unfit(
                        format!("change elements of set {set}"),
                        "there is no such set",
                    )
                })?,
            };
            self.lists(kind, set, &types, &members, changes)?;
        }
        Ok(())
    }

    fn lists(
        &mut self,
        kind: u16,
        set: &SetName,
        types: &[KeyType],
        members: &[usize],
        changes: &[Change<'a>],
    ) -> Result<(), Error> {
        let octets = key_len(types) as usize + 64;
        let with_chain_names = octets + 160;
        for part in members.chunks((LIST_OCTETS / with_chain_names).max(1)) {
            self.owners.push((self.batch.len(), part.to_vec()));
            let new = kind == msg::NEWSETELEM;
            let flags = if new { flags::CREATE | flags::EXCL } else { 0 };
            let mut result = Ok(());
            self.open(kind, flags).text(2, &set.0).nest(3, |m| {
                for change in part.iter().filter_map(|i| changes.get(*i)) {
                    let (values, element) = match change {
                        Change::Element(e, _) => (&e.key[..], new.then_some(*e)),
                        Change::NoElement(_, values) => (*values, None),
                        _ => continue,
                    };
                    let Some(key) = super::value::write_key(types, values) else {
                        result = Err(misfit(set, values));
                        continue;
                    };
                    m.nest(1, |m| {
                        m.nest(1, |m| expr::value(m, &key));
                        if let Some(element) = element {
                            data(m, element);
                        }
                    });
                }
            });
            result?;
        }
        Ok(())
    }
}

/// What an element of a map leads to.
fn data(m: &mut Message<'_>, element: &Element) {
    if let Some(verdict) = &element.verdict {
        m.nest(2, |m| expr::write_verdict(m, verdict));
    } else if let [Value::Limiter(name)] = &element.data[..] {
        m.text(ELEMENT_OBJECT, &name.0);
    } else if !element.data.is_empty() {
        let octets = super::value::write_data(&element.data);
        m.nest(2, |m| expr::value(m, &octets));
    }
}

fn misfit(set: &SetName, values: &[Value]) -> Error {
    let key: Vec<_> = values.iter().map(ToString::to_string).collect();
    let operation = format!("change element {} of set {set}", key.join(" . "));
    Error::unfit(operation, "its key is not of the set's type")
}

pub(super) fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

/// A rule's comment as nft keeps it: type, length, text with NUL.
fn comment_userdata(comment: &str) -> Vec<u8> {
    let text = clipped(comment);
    let mut octets = vec![
        USERDATA_COMMENT,
        u8::try_from(text.len() + 1).unwrap_or(u8::MAX),
    ];
    octets.extend_from_slice(text.as_bytes());
    octets.push(0);
    octets
}

/// A comment as the kernel will keep it.
pub(super) fn clipped(comment: &str) -> &str {
    let mut end = comment.len().min(COMMENT_MAX);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    comment.get(..end).unwrap_or_default()
}

/// A rule's comment read from its user data.
pub(super) fn read_comment(userdata: &[u8]) -> Option<&str> {
    match userdata {
        [USERDATA_COMMENT, len, text @ ..] if text.len() >= usize::from(*len) => {
            crate::netlink::text(text)
        }
        _ => None,
    }
}

/// What nft writes beside a set so that it lists values in the right order of octets
/// (`NFTNL_UDATA_SET_KEYBYTEORDER`, `_DATABYTEORDER`: 1 is the host's, 2 the network's).
fn set_userdata(key: &[KeyType], data: &[KeyType]) -> Vec<u8> {
    let order = |types: &[KeyType]| -> u32 {
        match types {
            [KeyType::Mark | KeyType::DevGroup | KeyType::IfName] => 1,
            [_] => 2,
            _ => 0,
        }
    };
    let mut octets = vec![0, 4];
    octets.extend_from_slice(&order(key).to_ne_bytes());
    if !data.is_empty() {
        octets.extend_from_slice(&[1, 4]);
        octets.extend_from_slice(&order(data).to_ne_bytes());
    }
    octets
}
