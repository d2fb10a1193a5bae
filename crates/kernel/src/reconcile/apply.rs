//! Doing what the diff says: rtnetlink requests many at a time, the nftables part of a namespace in one
//! transaction, and a fate for every operation.

use std::collections::{BTreeMap, BTreeSet};

use hextet_model::state::{
    Address, Answer, EdgeProgram, Fdb, Hop, Key, Link, Neighbour, Netns, Object, Patch, Proxy,
    Receiver, Route, RouteKind, Source, Speaker, UplinkProgram,
};
use hextet_types::IfName;

use super::{
    Kernel, Namespace, Op, Report,
    op::Phase,
    requests::{apply_requests, apply_rule, apply_xfrm_policy},
    table::apply_table,
};
use crate::{
    error::{Error, Refusal},
    netlink::Batch,
    route::{Indexes, link},
    sysctl,
};

/// Above so many links to look up, asking for all of them is cheaper.
pub(super) const LOOK_UPS: usize = 256;

/// What became of an operation.
#[derive(Debug)]
pub(super) enum Fate {
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
        self.remove_stale_sources();
        self.remove_stale_patches();
        self.remove_stale_audiences();
        self.remove_stale_answers();
        let leaving: BTreeSet<Netns> = ops.iter().filter_map(leaves).collect();
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
                _ if phase.goes_with_namespace() && leaving.contains(&netns) => {
                    run.iter().map(|_| Fate::Done).collect()
                }
                _ => {
                    let place = match phase {
                        Phase::Patch | Phase::PatchEnds => Netns::Main,
                        _ => netns.clone(),
                    };
                    let links = links.entry(place).or_default();
                    self.apply_run(phase, &netns, &run, links)
                }
            };
            if phase.changes_links() {
                links.clear();
            }
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
        for namespace in self.namespaces.values_mut() {
            report.disturbed |= std::mem::take(&mut namespace.disturbed);
        }
        report
    }

    fn settle(&mut self, op: Op, fate: Fate, report: &mut Report) {
        if self.written.is_some() {
            self.outdate(&op.key());
        }
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
        if phase.is_sysctl() {
            return run.iter().map(|op| self.apply_sysctl(op)).collect();
        }
        if matches!(phase, Phase::Namespace | Phase::NamespaceEnds) {
            return run.iter().map(|op| self.apply_namespace(op)).collect();
        }
        if matches!(phase, Phase::Made | Phase::MadeEnds) {
            return run.iter().map(|op| self.apply_made(op)).collect();
        }
        if matches!(phase, Phase::Audience | Phase::AudienceEnds) {
            return self.apply_audiences(netns, run);
        }
        if phase == Phase::CounterEnds {
            return self.end_counters(netns, run);
        }
        let netns = match phase {
            Phase::Patch | Phase::PatchEnds => &Netns::Main,
            _ => netns,
        };
        let namespace = match self.namespace(netns) {
            Ok(Some(namespace)) => namespace,
            Ok(None) => return run.iter().map(absent).collect(),
            Err(e) => return all_failed(run, e),
        };
        match phase {
            Phase::Table | Phase::TableEnds => apply_table(namespace, run),
            Phase::Rule | Phase::RuleEnds => run
                .iter()
                .map(|op| apply_rule(namespace, op).into())
                .collect(),
            Phase::XfrmPolicy | Phase::XfrmPolicyEnds => run
                .iter()
                .map(|op| apply_xfrm_policy(namespace, op).into())
                .collect(),
            _ => {
                if let Err(e) = links.look_up(namespace, run) {
                    return all_failed(run, e);
                }
                match phase {
                    Phase::Patch | Phase::PatchEnds => self.apply_patches(run, &links.known),
                    Phase::Program => self.apply_programs(netns, run, &links.known),
                    Phase::ProgramEnds => self.remove_programs(netns, run, &links.known),
                    Phase::Source | Phase::SourceEnds => {
                        self.apply_sources(netns, run, &links.known)
                    }
                    Phase::Uplink | Phase::UplinkEnds => self.apply_uplinks(run, &links.known),
                    Phase::Answer | Phase::AnswerEnds => self.apply_answers(run, &links.known),
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
        match self.namespace(op.netns()) {
            Ok(Some(_)) => {}
            Ok(None) => return absent(op),
            Err(e) => return Fate::Failed(e),
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
                self.known.insert(found);
            }
        } else if !wanted.is_empty() {
            wanted
                .iter()
                .for_each(|name| link::request_one(&mut request, name));
            let known = &mut self.known;
            namespace.route.query(&mut request, |_, answer| {
                if let Some(found) = link::read(answer) {
                    known.insert(found);
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
            | Object::Source(Source { link, .. })
            | Object::Hop(Hop { link, .. })
            | Object::Speaker(Speaker { link, .. })
            | Object::Address(Address { link, .. })
            | Object::Neighbour(Neighbour { link, .. })
            | Object::UplinkProgram(UplinkProgram { link })
            | Object::Answer(Answer { link, .. })
            | Object::Proxy(Proxy { link, .. })
            | Object::Fdb(Fdb { link, .. }) => vec![link],
            Object::Receiver(Receiver { link, to, .. }) => vec![link, to],
            Object::Patch(Patch { tap, outer, .. }) => vec![tap, outer],
            Object::Route(Route {
                kind: RouteKind::Unicast(hops),
                ..
            }) => hops.iter().map(|hop| &hop.link).collect(),
            _ => Vec::new(),
        },
        Op::Delete(key) => key.link().map(|(_, link)| link).into_iter().collect(),
    }
}

/// What a refusal means for the operation: some say that it was done before, some that its link is not
/// there yet or not up.
pub(super) fn judge(op: &Op, refusal: Refusal) -> Fate {
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

/// The namespace that ends by an operation.
fn leaves(op: &Op) -> Option<Netns> {
    match op {
        Op::Delete(Key::Namespace(name)) => Some(Netns::Named(name.clone())),
        _ => None,
    }
}

/// The fate of an operation in a namespace that is not there.
fn absent(op: &Op) -> Fate {
    match op {
        Op::Delete(_) => Fate::Done,
        _ => Fate::Waiting,
    }
}

pub(super) fn withheld(run: &[Op], cause: &str) -> Vec<Fate> {
    let fate = |op: &Op| {
        Fate::Failed(Error::Withheld {
            operation: op.to_string(),
            cause: cause.to_owned(),
        })
    };
    run.iter().map(fate).collect()
}

/// The first gets the error, the others refer to it.
pub(super) fn all_failed(run: &[Op], error: Error) -> Vec<Fate> {
    let mut fates = withheld(run, &error.to_string());
    if let Some(first) = fates.first_mut() {
        *first = Fate::Failed(error);
    }
    fates
}
