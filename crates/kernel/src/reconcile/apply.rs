//! Doing what the diff says: rtnetlink requests many at a time, the nftables part of a namespace in one
//! transaction, and a fate for every operation.

use std::collections::{BTreeMap, BTreeSet};

use hextet_model::state::{
    Address, EdgeProgram, Key, Link, LocalRulePriority, Neighbour, Netns, Object, Route, RouteKind,
};
use hextet_types::{Family, IfName};

use super::{Kernel, Namespace, Op, Report, Standing, dump::rules, op::Phase};
use crate::{
    error::{Error, Refusal},
    netlink::{Batch, Outcome},
    nft::{self, Change, Exists},
    route::{Indexes, address, entry, link, neighbour, rule},
    sysctl, tc,
};

/// Above so many links to look up, asking for all of them is cheaper.
const LOOK_UPS: usize = 256;
/// Rules of one priority and mark that may have piled up.
const PILED_UP: usize = 16;

/// What became of an operation.
#[derive(Debug)]
enum Fate {
    Done,
    Waiting,
    Failed(Error),
}

impl From<Result<(), Error>> for Fate {
    fn from(result: Result<(), Error>) -> Self {
        match result {
            Ok(()) => Fate::Done,
            Err(e) => Fate::Failed(e),
        }
    }
}

impl Kernel {
    /// Applies operations in the order of [`super::diff`]. Those on nftables are done all together or, in a
    /// namespace where one is refused, not at all; then nothing that relies on them begins there either.
    pub fn apply(&mut self, ops: Vec<Op>) -> Report {
        let mut report = Report::default();
        let mut blocked: BTreeMap<Netns, String> = BTreeMap::new();
        let mut links = BTreeMap::new();
        let mut rest = ops.into_iter().peekable();
        while let Some(first) = rest.next() {
            let (phase, netns) = (first.phase(), first.netns().clone());
            let mut run = vec![first];
            while let Some(op) = rest.next_if(|op| op.phase() == phase && *op.netns() == netns) {
                run.push(op);
            }
            let fates = match blocked.get(&netns) {
                Some(cause) if phase.begins_service() => withheld(&run, cause),
                _ => {
                    let links = links.entry(netns.clone()).or_default();
                    self.apply_run(phase, &netns, &run, links)
                }
            };
            if phase.is_policy() {
                let failed = fates.iter().find_map(|fate| match fate {
                    Fate::Failed(e) => Some(e.to_string()),
                    _ => None,
                });
                if let Some(cause) = failed {
                    blocked.insert(netns, cause);
                }
            }
            for (op, fate) in run.into_iter().zip(fates) {
                self.settle(op, fate, &mut report);
            }
        }
        report
    }

    fn settle(&mut self, op: Op, fate: Fate, report: &mut Report) {
        match fate {
            Fate::Done => {
                report.applied += 1;
                match op {
                    Op::Create(object) | Op::Replace { new: object, .. } => {
                        self.known.insert(object.key(), object.into());
                    }
                    Op::Delete(key) => {
                        self.known.remove(&key);
                    }
                }
            }
            Fate::Waiting => report.waiting.push(op.key()),
            Fate::Failed(error) => report.failed.push((op, error)),
        }
    }

    fn apply_run(
        &mut self,
        phase: Phase,
        netns: &Netns,
        run: &[Op],
        links: &mut Links,
    ) -> Vec<Fate> {
        if matches!(phase, Phase::Sysctl | Phase::SysctlEnds) {
            return run.iter().map(|op| self.apply_sysctl(op)).collect();
        }
        let namespace = match self.namespace(netns) {
            Ok(Some(namespace)) => namespace,
            Ok(None) => return run.iter().map(absent).collect(),
            Err(e) => return all_failed(run, e),
        };
        match phase {
            Phase::Table => apply_table(namespace, run),
            Phase::Rule | Phase::RuleEnds => run
                .iter()
                .map(|op| apply_rule(namespace, op).into())
                .collect(),
            Phase::LocalRule | Phase::LocalRuleEnds => run
                .iter()
                .map(|op| apply_local_rule(namespace, op).into())
                .collect(),
            _ => {
                if let Err(e) = links.look_up(namespace, run) {
                    return all_failed(run, e);
                }
                match phase {
                    Phase::Program => self.apply_programs(netns, run, &links.known),
                    _ => apply_requests(namespace, run, &links.known),
                }
            }
        }
    }

    fn apply_sysctl(&mut self, op: &Op) -> Fate {
        let (path, value) = match op {
            Op::Create(Object::Sysctl(s))
            | Op::Replace {
                new: Object::Sysctl(s),
                ..
            } => (s.path.as_str(), Some(s.value.as_str())),
            Op::Delete(Key::Sysctl(_, path)) => (path.as_str(), None),
            _ => return Fate::Done,
        };
        let covers = |allowed: &String| {
            path == allowed || (allowed.ends_with('/') && path.starts_with(allowed.as_str()))
        };
        if value.is_some() && !self.config.sysctls.iter().any(covers) {
            return Fate::Failed(Error::SysctlNotAllowed(path.to_owned()));
        }
        let Kernel {
            record, namespaces, ..
        } = self;
        let Some(namespace) = namespaces.get(op.netns()) else {
            return absent(op);
        };
        let work = || match (op.netns(), value) {
            (Netns::Main, Some(value)) => record.set(path, value),
            (Netns::Main, None) => record.restore(path),
            (Netns::Named(_), Some(value)) => sysctl::write(path, value),
            (Netns::Named(_), None) => Ok(()),
        };
        namespace.handle.run(work).and_then(|done| done).into()
    }

    /// Joins links to the tc blocks. They come one by one until one is in, which brings the blocks into
    /// being, and the programs hang there before all others join.
    fn apply_programs(&mut self, netns: &Netns, run: &[Op], links: &Indexes) -> Vec<Fate> {
        let index = |op: &Op| match op.object() {
            Some(Object::EdgeProgram(EdgeProgram { link, .. })) => links.index(link),
            _ => None,
        };
        let indexes: Vec<_> = run.iter().map(index).collect();
        let mut fates = Vec::with_capacity(run.len());
        let mut joined = || {
            let mut any_in = false;
            for (index, op) in indexes.iter().zip(run) {
                let fate = self.join(netns, &[*index], std::slice::from_ref(op))?;
                any_in = matches!(fate[..], [Fate::Done]);
                fates.extend(fate);
                if any_in {
                    break;
                }
            }
            if any_in && !self.programs_stand(netns)? {
                self.hang(netns)?;
            }
            let done = fates.len();
            let (indexes, ops) = (indexes.get(done..), run.get(done..));
            fates.extend(self.join(netns, indexes.unwrap_or_default(), ops.unwrap_or_default())?);
            Ok(())
        };
        match joined() {
            Ok(()) => fates,
            Err(e) => all_failed(run, e),
        }
    }

    fn hang(&mut self, netns: &Netns) -> Result<(), Error> {
        self.programs()?;
        match (&self.programs, self.namespaces.get_mut(netns)) {
            (Some(programs), Some(namespace)) => programs.hang(&mut namespace.route),
            _ => Ok(()),
        }
    }

    fn join(
        &mut self,
        netns: &Netns,
        indexes: &[Option<u32>],
        run: &[Op],
    ) -> Result<Vec<Fate>, Error> {
        let Some(namespace) = self.namespaces.get_mut(netns) else {
            return Ok(Vec::new());
        };
        let present: Vec<u32> = indexes.iter().flatten().copied().collect();
        let mut refused = join_links(namespace, &present)?;
        let there = |refusal: &Refusal| refusal.errno == libc::EEXIST;
        if refused.values().any(there) {
            let ours = joined_links(namespace, &present)?;
            let foreign = |index: &u32, refusal: &Refusal| there(refusal) && !ours.contains(index);
            let again: Vec<u32> = refused
                .iter()
                .filter(|(i, r)| foreign(i, r))
                .map(|(i, _)| *i)
                .collect();
            refused.retain(|_, refusal| !there(refusal));
            let mut batch = Batch::default();
            again.iter().for_each(|index| tc::part(&mut batch, *index));
            namespace.route.request(&mut batch)?;
            refused.extend(join_links(namespace, &again)?);
        }
        let fate = |(index, op): (&Option<u32>, &Op)| match index {
            None => Fate::Waiting,
            Some(index) => match refused.remove(index) {
                None => Fate::Done,
                Some(refusal) => judge(op, refusal),
            },
        };
        Ok(indexes.iter().zip(run).map(fate).collect())
    }
}

fn join_links(namespace: &mut Namespace, indexes: &[u32]) -> Result<BTreeMap<u32, Refusal>, Error> {
    let mut batch = Batch::default();
    indexes
        .iter()
        .for_each(|index| tc::join(&mut batch, *index));
    let outcome = namespace.route.request(&mut batch)?;
    let of_link = |(i, refusal)| indexes.get(i).map(|index: &u32| (*index, refusal));
    Ok(outcome.into_iter().filter_map(of_link).collect())
}

fn joined_links(namespace: &mut Namespace, among: &[u32]) -> Result<BTreeSet<u32>, Error> {
    let mut request = Batch::default();
    tc::request_qdiscs(&mut request, if let [one] = among { *one } else { 0 });
    let found = namespace.route.dump(&mut request, tc::read_qdisc)?;
    Ok(found
        .into_iter()
        .filter(|(_, hung)| *hung == tc::Hung::Ours)
        .map(|(i, _)| i)
        .collect())
}

/// What a namespace's operations need to know of its links.
#[derive(Default)]
struct Links {
    known: Indexes,
    asked: BTreeSet<IfName>,
    all: bool,
}

impl Links {
    fn look_up(&mut self, namespace: &mut Namespace, run: &[Op]) -> Result<(), Error> {
        let mut wanted = BTreeSet::new();
        for name in run.iter().flat_map(links_of) {
            if !self.all && !self.asked.contains(name) {
                wanted.insert(name.clone());
            }
        }
        let mut request = Batch::default();
        if wanted.len() > LOOK_UPS {
            self.all = true;
            link::request_all(&mut request, false);
            for found in namespace.route.dump(&mut request, link::read)? {
                self.known.insert(found.name, found.index);
            }
        } else if !wanted.is_empty() {
            wanted
                .iter()
                .for_each(|name| link::request_one(&mut request, name));
            let known = &mut self.known;
            namespace.route.query(&mut request, |_, answer| {
                if let Some(found) = link::read(answer) {
                    known.insert(found.name, found.index);
                }
            })?;
        }
        self.asked.append(&mut wanted);
        Ok(())
    }
}

fn links_of(op: &Op) -> Vec<&IfName> {
    match op {
        Op::Create(object) | Op::Replace { new: object, .. } => match object {
            Object::Link(Link { name, .. }) => vec![name],
            Object::EdgeProgram(EdgeProgram { link, .. })
            | Object::Address(Address { link, .. })
            | Object::Neighbour(Neighbour { link, .. }) => vec![link],
            Object::Route(Route {
                kind: RouteKind::Unicast(hops),
                ..
            }) => hops.iter().map(|hop| &hop.link).collect(),
            _ => Vec::new(),
        },
        Op::Delete(key) => key.link().map(|(_, link)| link).into_iter().collect(),
    }
}

/// Operations that are one request each, or two for a link.
fn apply_requests(namespace: &mut Namespace, run: &[Op], links: &Indexes) -> Vec<Fate> {
    let mut batch = Batch::default();
    let mut owners = Vec::with_capacity(run.len());
    let mut fates: Vec<Option<Fate>> = Vec::with_capacity(run.len());
    for (i, op) in run.iter().enumerate() {
        fates.push(write_request(&mut batch, op, links, entry::How::Create));
        owners.resize(batch.len(), i);
    }
    let outcome = match namespace.route.request(&mut batch) {
        Ok(outcome) => outcome,
        Err(e) => return all_failed(run, e),
    };
    let (exist, outcome) = split_existing_routes(outcome, &owners, run);
    for (request, refusal) in outcome {
        let Some(i) = owners.get(request).copied() else {
            continue;
        };
        if let (Some(op), Some(fate)) = (run.get(i), fates.get_mut(i)) {
            *fate = Some(judge(op, refusal));
        }
    }
    for (i, refusal) in exist {
        if let (Some(op), Some(fate)) = (run.get(i), fates.get_mut(i)) {
            *fate = Some(over_our_own(namespace, op, refusal, links));
        }
    }
    fates
        .into_iter()
        .map(|fate| fate.unwrap_or(Fate::Done))
        .collect()
}

/// Writes an operation's requests; where it needs none, its fate.
fn write_request(batch: &mut Batch, op: &Op, links: &Indexes, how: entry::How) -> Option<Fate> {
    let how = match op {
        Op::Replace { .. } => entry::How::Replace,
        _ => how,
    };
    let wait = Some(Fate::Waiting);
    match op {
        Op::Create(object) | Op::Replace { new: object, .. } => match object {
            Object::Link(o) => match links.index(&o.name) {
                Some(index) => link::set(batch, index, o),
                None => return wait,
            },
            Object::Address(o) => match links.index(&o.link) {
                Some(index) => address::add(batch, index, o.addr, o.prefix_len),
                None => return wait,
            },
            Object::Neighbour(o) => match links.index(&o.link) {
                Some(index) => neighbour::set(batch, index, o.addr, o.mac),
                None => return wait,
            },
            Object::Route(o) => {
                if entry::put(batch, o, how, links).is_err() {
                    return wait;
                }
            }
            _ => return Some(Fate::Done),
        },
        Op::Delete(Key::Route(key)) => entry::delete(batch, key),
        Op::Delete(key) => {
            let Some(index) = key.link().and_then(|(_, link)| links.index(link)) else {
                return Some(Fate::Done);
            };
            match key {
                Key::Link(..) => link::set_up(batch, index, false),
                Key::EdgeProgram(..) => tc::part(batch, index),
                Key::Address(_, _, addr, len) => address::delete(batch, index, *addr, *len),
                Key::Neighbour(_, _, addr) => neighbour::delete(batch, index, *addr),
                _ => return Some(Fate::Done),
            }
        }
    }
    None
}

/// Takes the routes that could not be created because there is one out of an outcome.
fn split_existing_routes(
    outcome: Outcome,
    owners: &[usize],
    run: &[Op],
) -> (Vec<(usize, Refusal)>, Outcome) {
    let mut exist = Vec::new();
    let mut others = Vec::new();
    for (request, refusal) in outcome {
        let owner = owners.get(request).copied();
        match owner.and_then(|i| Some((i, run.get(i)?))) {
            Some((i, Op::Create(Object::Route(_)))) if refusal.errno == libc::EEXIST => {
                exist.push((i, refusal));
            }
            _ => others.push((request, refusal)),
        }
    }
    (exist, others)
}

/// A route that stands in the way of ours: if it is ours too (we had not seen it), it is replaced.
fn over_our_own(namespace: &mut Namespace, op: &Op, refusal: Refusal, links: &Indexes) -> Fate {
    let Some(Object::Route(wanted)) = op.object() else {
        return judge(op, refusal);
    };
    let mut request = Batch::default();
    entry::request_all(&mut request, wanted.key.prefix.family());
    let metric = match (wanted.key.metric, wanted.key.prefix.family()) {
        (0, Family::V6) => entry::DEFAULT_METRIC_V6,
        (metric, _) => metric,
    };
    let same = |key: &hextet_model::state::RouteKey| {
        (key.table, key.prefix, key.metric) == (wanted.key.table, wanted.key.prefix, metric)
    };
    let netns = &wanted.key.netns;
    let ours = namespace.route.dump(&mut request, |answer| {
        entry::read(answer, netns, links).filter(|(key, _)| same(key))
    });
    match ours {
        Ok(ours) if ours.is_empty() => judge(op, refusal),
        Ok(_) => {
            let mut batch = Batch::default();
            if let Some(fate) = write_request(&mut batch, op, links, entry::How::Replace) {
                return fate;
            }
            match namespace.route.request(&mut batch) {
                Ok(outcome) => match outcome.into_iter().next() {
                    Some((_, refusal)) => judge(op, refusal),
                    None => Fate::Done,
                },
                Err(e) => Fate::Failed(e),
            }
        }
        Err(e) => Fate::Failed(e),
    }
}

fn apply_rule(namespace: &mut Namespace, op: &Op) -> Result<(), Error> {
    let old = match op {
        Op::Create(_) => None,
        _ => Some(op.key()),
    };
    if let Some(Key::Rule(_, family, priority, fwmark)) = old {
        for _ in 0..PILED_UP {
            let mut batch = Batch::default();
            rule::delete(&mut batch, family, priority, fwmark);
            match namespace.route.request(&mut batch)?.into_iter().next() {
                None => {}
                Some((_, refusal)) if refusal.errno == libc::ENOENT => break,
                Some((_, refusal)) => return Err(refusal.of(op.to_string())),
            }
        }
    }
    if let Some(Object::Rule(rule)) = op.object() {
        let mut batch = Batch::default();
        rule::add(&mut batch, rule);
        match namespace.route.request(&mut batch)?.into_iter().next() {
            Some((_, refusal)) if refusal.errno != libc::EEXIST => {
                return Err(refusal.of(op.to_string()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The new one comes before the old ones go: without a rule for `local`, the host itself is cut off.
fn apply_local_rule(namespace: &mut Namespace, op: &Op) -> Result<(), Error> {
    let (family, priority) = match (op.object(), op.key()) {
        (
            Some(Object::LocalRulePriority(LocalRulePriority {
                family, priority, ..
            })),
            _,
        ) => (*family, *priority),
        (_, Key::LocalRulePriority(_, family)) => (family, 0),
        _ => return Ok(()),
    };
    let standing = rules(namespace, family)?;
    let local = || standing.iter().filter(|rule| rule.is_local());
    let mut batch = Batch::default();
    if !local().any(|rule| rule.priority == priority) {
        rule::add_local(&mut batch, family, priority);
    }
    for rule in local().filter(|rule| rule.priority != priority) {
        rule::delete_local(&mut batch, family, rule.priority);
    }
    if batch.is_empty() {
        return Ok(());
    }
    match namespace.route.request(&mut batch)?.into_iter().next() {
        Some((_, refusal)) => Err(refusal.of(op.to_string())),
        None => Ok(()),
    }
}

fn apply_table(namespace: &mut Namespace, run: &[Op]) -> Vec<Fate> {
    let changes: Vec<Change<'_>> = run.iter().filter_map(change).collect();
    if let Err(e) = learn_sets(namespace, run) {
        return all_failed(run, e);
    }
    let Namespace { nft, sets, .. } = namespace;
    let refused = match nft::transact(nft, &changes, |name| sets.get(name).cloned()) {
        Ok(refused) => refused,
        Err(e) => return all_failed(run, e),
    };
    if let Some((i, refusal)) = refused.first() {
        let operation = run.get(*i).map_or_else(String::new, ToString::to_string);
        let cause = refusal.clone().of(operation).to_string();
        let mut fates = withheld(run, &cause);
        for (i, refusal) in refused {
            if let (Some(op), Some(fate)) = (run.get(i), fates.get_mut(i)) {
                *fate = Fate::Failed(refusal.of(op.to_string()));
            }
        }
        return fates;
    }
    for op in run {
        if let Some(Object::Set(_, set)) = op.object() {
            namespace.sets.insert(set.name.clone(), set.key.clone());
        }
    }
    if run
        .iter()
        .any(|op| matches!(op, Op::Delete(Key::Set(..) | Key::Chain(..))))
    {
        let emptied = nft::table_use(&mut namespace.nft);
        if let Ok(Some(0)) = emptied
            && let Err(e) = nft::delete_table(&mut namespace.nft)
        {
            tracing::warn!(error = %e, "the empty table stays");
        }
    }
    run.iter().map(|_| Fate::Done).collect()
}

/// Asks for the keys of sets whose elements change and that we have not seen.
fn learn_sets(namespace: &mut Namespace, run: &[Op]) -> Result<(), Error> {
    for op in run {
        let set = match op {
            Op::Delete(Key::Element(_, set, _))
            | Op::Create(Object::Element(_, hextet_model::state::Element { set, .. }))
            | Op::Replace {
                new: Object::Element(_, hextet_model::state::Element { set, .. }),
                ..
            } => set,
            _ => continue,
        };
        if !namespace.sets.contains_key(set)
            && let Some(key) = nft::key_types(&mut namespace.nft, set)?
        {
            namespace.sets.insert(set.clone(), key);
        }
    }
    Ok(())
}

fn change(op: &Op) -> Option<Change<'_>> {
    let replaces = matches!(op, Op::Replace { .. });
    Some(match op {
        Op::Create(object) | Op::Replace { new: object, .. } => match object {
            Object::Set(_, set) => Change::Set(set, replaces),
            Object::Chain(_, chain) => Change::Chain(chain, exists(op, chain)),
            Object::Element(_, element) => Change::Element(element, replaces),
            _ => return None,
        },
        Op::Delete(Key::Set(_, name)) => Change::NoSet(name),
        Op::Delete(Key::Chain(_, name)) => Change::NoChain(name),
        Op::Delete(Key::Element(_, set, key)) => Change::NoElement(set, key),
        Op::Delete(_) => return None,
    })
}

fn exists(op: &Op, chain: &hextet_model::state::Chain) -> Exists {
    match op {
        Op::Replace {
            was: Standing::As(Object::Chain(_, old)),
            ..
        } => {
            let place = |c: &hextet_model::state::Chain| {
                c.hook.map(|hook| (hook.hook, hook.priority, hook.nat))
            };
            if place(old) == place(chain) {
                Exists::SameHook
            } else {
                Exists::OtherHook
            }
        }
        Op::Replace {
            was: Standing::Otherwise { remake: true, .. },
            ..
        } => Exists::OtherHook,
        Op::Replace { .. } => Exists::SameHook,
        _ => Exists::No,
    }
}

/// What a refusal means for the operation: some say that it was done before, some that its link is not
/// there yet or not up.
fn judge(op: &Op, refusal: Refusal) -> Fate {
    match (op, refusal.errno) {
        (
            Op::Delete(_),
            libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::EADDRNOTAVAIL | libc::EINVAL,
        ) => Fate::Done,
        (Op::Create(_) | Op::Replace { .. }, libc::ENODEV | libc::ENXIO | libc::ENETDOWN) => {
            Fate::Waiting
        }
        _ => Fate::Failed(refusal.of(op.to_string())),
    }
}

/// The fate of an operation in a namespace that is not there.
fn absent(op: &Op) -> Fate {
    match op {
        Op::Delete(_) => Fate::Done,
        _ => Fate::Waiting,
    }
}

fn withheld(run: &[Op], cause: &str) -> Vec<Fate> {
    let fate = |op: &Op| {
        Fate::Failed(Error::Withheld {
            operation: op.to_string(),
            cause: cause.to_owned(),
        })
    };
    run.iter().map(fate).collect()
}

/// The first gets the error, the others refer to it.
fn all_failed(run: &[Op], error: Error) -> Vec<Fate> {
    let mut fates = withheld(run, &error.to_string());
    if let Some(first) = fates.first_mut() {
        *first = Fate::Failed(error);
    }
    fates
}
