//! The eBPF programs on ports: what hangs there, hanging them there, and running them by TCX.
//!
//! By TCX they cost a packet less. But each time a link gets one or loses one, the kernel waits for all
//! processors with the lock of all links held, 10 ms and more. So links get their programs by tc, thousands at
//! once in no time, and by TCX too, one link after the other, when there is time ([`Kernel::move_program`]).
//!
//! What hangs there by tc stays there: taking a `clsact` off a link that is up loses packets, since the kernel
//! stops its queues meanwhile. No packet runs through both, since TCX comes first and decides; tc is there for
//! when somebody takes that away.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
};

use hextet_model::state::{EdgeProgram, Key, Netns, Object};
use hextet_types::IfName;

use super::{
    Kernel, Namespace, Op, Standing,
    apply::{Fate, LOOK_UPS, all_failed, judge},
    namespaces::named_like_ours,
};
use crate::{
    bpf::{Direction, Program},
    error::{Error, Refusal},
    netlink::Batch,
    route::{Indexes, link},
    tc,
    tcx::{self, Has},
};

/// What was found on the links of a namespace.
#[derive(Debug, Default)]
pub(super) struct OnLinks {
    /// By tc.
    pub(super) clsact: HashMap<u32, tc::Hung>,
    pub(super) tcx: tcx::Found,
    pub(super) ours: tcx::Ours,
    /// What is in the blocks, if anything of ours hangs on any link.
    filters: Option<tc::Filters>,
}

/// What hangs on the links of a namespace.
#[derive(Debug, Default)]
pub(super) struct Hung {
    clsact: HashMap<u32, tc::Hung>,
    /// Whether the right programs hang in the tc blocks.
    blocks: bool,
    tcx: HashMap<u32, [Has; 2]>,
}

impl OnLinks {
    fn in_place(&self) -> Option<(&tc::Filters, &tcx::Ours)> {
        Some((self.filters.as_ref()?, &self.ours))
    }
}

impl Hung {
    /// Whether anything of ours hangs on a link.
    pub(super) fn is_ours(&self, link: u32) -> bool {
        self.has_clsact(link) || self.tcx(link) != [Has::None; 2]
    }

    /// Whether the right programs see to a link, as far as there are any; `expected` says that there should.
    pub(super) fn judge(&self, link: u32, expected: bool) -> Option<Result<(), &'static str>> {
        let by_tc = self.has_clsact(link);
        match self.tcx(link) {
            [Has::Other, _] | [_, Has::Other] => Some(Err("other programs")),
            _ if by_tc => Some(self.blocks.then_some(()).ok_or("other programs")),
            [Has::Right, Has::Right] => Some(Ok(())),
            [Has::None, Has::None] => (expected && self.clsact.contains_key(&link))
                .then_some(Err("a clsact of somebody else")),
            _ => Some(Err("one program of two")),
        }
    }

    /// Whether a link has not got where it shall be.
    fn is_to_move(&self, link: u32, to_tcx: bool) -> bool {
        match to_tcx {
            true => self.tcx(link) != [Has::Right; 2],
            false => self.tcx(link) != [Has::None; 2],
        }
    }

    fn has_clsact(&self, link: u32) -> bool {
        self.clsact.get(&link) == Some(&tc::Hung::Ours)
    }

    fn tcx(&self, link: u32) -> [Has; 2] {
        self.tcx.get(&link).copied().unwrap_or_default()
    }
}

impl Kernel {
    /// How many ports' programs, and patches', are to run by TCX and do not yet, or the other way round.
    pub fn programs_to_move(&self) -> usize {
        self.moving.values().map(BTreeSet::len).sum::<usize>() + self.moving_patches.len()
    }

    /// Has the programs of one port, or of one patch, run by TCX, or no longer. Takes some 10 ms, nearly all of it waiting, in which nobody can change a
    /// link. One that cannot be moved is not tried again before the next [`Kernel::look`].
    pub fn move_program(&mut self) -> Result<(), Error> {
        let next = self
            .moving
            .iter_mut()
            .find_map(|(netns, links)| Some((netns.clone(), links.pop_first()?)));
        let Some((netns, name)) = next else {
            return self.move_patch();
        };
        let key = Key::EdgeProgram(netns.clone(), name.clone());
        if !matches!(self.known.get(&key), Some(Standing::As(_))) {
            return Ok(());
        }
        let Some(namespace) = self.namespace(&netns)? else {
            return Ok(());
        };
        let Some(index) = index_of(namespace, &name)? else {
            return Ok(());
        };
        match self.to_tcx {
            true => self.move_to_tcx(&netns, index),
            false => self.move_to_tc(&netns, index),
        }
    }

    fn move_to_tcx(&mut self, netns: &Netns, index: u32) -> Result<(), Error> {
        self.namespace(netns)?;
        let Some(namespace) = self.namespaces.get(netns) else {
            return Ok(());
        };
        let Some(pair) = self.programs.as_ref().map(tc::Programs::pair) else {
            return Ok(());
        };
        let Some(pair) = pair? else { return Ok(()) };
        match namespace.handle.run(|| pair.hang(index))? {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            outcome => outcome.map_err(|e| failed(index, e)),
        }
    }

    fn move_to_tc(&mut self, netns: &Netns, index: u32) -> Result<(), Error> {
        self.namespace(netns)?;
        let Some(namespace) = self.namespaces.get_mut(netns) else {
            return Ok(());
        };
        join_links(namespace, &[index])?;
        if joined_links(namespace, &[index])?.is_empty() {
            return Ok(());
        }
        self.hang_in_blocks(netns)?;
        match self.namespaces.get(netns) {
            Some(namespace) => namespace
                .handle
                .run(|| tcx::take_away(index))?
                .map_err(|e| failed(index, e)),
            None => Ok(()),
        }
    }

    /// Looks what hangs on these links.
    pub(super) fn look_at_programs(
        &mut self,
        netns: &Netns,
        links: &[u32],
    ) -> Result<OnLinks, Error> {
        let has_tcx = self.has_tcx;
        let Some(namespace) = self.namespace(netns)? else {
            return Ok(OnLinks::default());
        };
        let mut request = Batch::default();
        tc::request_qdiscs(&mut request);
        let clsact = namespace.route.dump(&mut request, tc::read_qdisc)?;
        let clsact: HashMap<u32, tc::Hung> = clsact.into_iter().collect();
        let look = || -> io::Result<_> {
            let found = match has_tcx {
                true => tcx::look(links.iter().copied())?,
                false => tcx::Found::new(),
            };
            let ours = tcx::ours(&found)?;
            Ok((found, ours))
        };
        let (tcx, ours) = namespace
            .handle
            .run(look)?
            .map_err(|e| Error::system("look at the eBPF programs on links", e))?;
        let any = !ours.is_empty() || clsact.values().any(|hung| *hung == tc::Hung::Ours);
        let filters = match any {
            true => Some(tc::Filters::read(&mut namespace.route)?),
            false => None,
        };
        Ok(OnLinks {
            clsact,
            tcx,
            ours,
            filters,
        })
    }

    /// Decides which of our programs to go by, given what was found in all namespaces.
    pub(super) fn choose_programs<'a>(
        &mut self,
        all: impl IntoIterator<Item = &'a OnLinks>,
    ) -> Result<(), Error> {
        let in_place: Vec<_> = all.into_iter().filter_map(OnLinks::in_place).collect();
        match in_place.is_empty() {
            true => Ok(()),
            false => self.load_programs()?.choose(in_place),
        }
    }

    /// What that means for a namespace, by the programs that we go by.
    pub(super) fn judge_programs(&self, found: &OnLinks) -> Result<Hung, Error> {
        let clsact = found.clsact.clone();
        let (Some(filters), Some(programs)) = (&found.filters, &self.programs) else {
            return Ok(Hung {
                clsact,
                ..Hung::default()
            });
        };
        let pair = programs.pair()?;
        let right = |direction: Direction, program: &Program| {
            let has = |pair: &tcx::Pair<'_>| pair.has(direction, program);
            pair.as_ref().is_some_and(has)
        };
        let judge = |(link, on_link): (&u32, _)| (*link, tcx::judge(on_link, &found.ours, right));
        Ok(Hung {
            clsact,
            blocks: programs.stand(filters)?,
            tcx: found.tcx.iter().map(judge).collect(),
        })
    }

    /// What is on its way in a namespace, as it was found.
    pub(super) fn note_moves(&mut self, netns: &Netns, links: &Indexes, hung: &Hung) {
        let to_move =
            |index| hung.judge(index, false) == Some(Ok(())) && hung.is_to_move(index, self.to_tcx);
        let moving: BTreeSet<IfName> = links
            .all()
            .filter(|(_, index)| to_move(*index))
            .map(|(name, _)| name.clone())
            .collect();
        self.moving.insert(netns.clone(), moving);
    }

    /// Has the programs loaded, and knows which to go by.
    pub(super) fn know_programs(&mut self) -> Result<(), Error> {
        if self.load_programs()?.have_looked() {
            return Ok(());
        }
        let mut all = Vec::new();
        let named = named_like_ours()?.into_iter().map(Netns::Named);
        let mut netnses: BTreeSet<Netns> = named.collect();
        netnses.extend(self.namespaces.keys().cloned());
        for netns in netnses {
            let Some(namespace) = self.namespace(&netns)? else {
                continue;
            };
            let mut request = Batch::default();
            link::request_all(&mut request, false);
            let links = namespace.route.dump(&mut request, link::read)?;
            let indexes: Vec<u32> = links.iter().map(|link| link.index).collect();
            all.push(self.look_at_programs(&netns, &indexes)?);
        }
        let in_place = all.iter().filter_map(OnLinks::in_place);
        self.load_programs()?.choose(in_place)
    }

    /// Hangs programs on links: where there are some of another version, in their place, and else by tc.
    pub(super) fn apply_programs(
        &mut self,
        netns: &Netns,
        run: &[Op],
        links: &Indexes,
    ) -> Vec<Fate> {
        let index = |op: &Op| match op.object() {
            Some(Object::EdgeProgram(EdgeProgram { link, .. })) => links.index(link),
            _ => None,
        };
        let indexes: Vec<_> = run.iter().map(index).collect();
        let present: Vec<u32> = indexes.iter().flatten().copied().collect();
        let done = self.renew(netns, &present).and_then(|full| {
            if self.is_any_joined(netns, &full)? {
                self.hang_in_blocks(netns)?;
            }
            let mut rest = present;
            rest.retain(|index| !full.contains(index));
            Ok((self.join_all(netns, &rest)?, full))
        });
        let (mut refused, full) = match done {
            Ok(done) => done,
            Err(e) => return all_failed(run, e),
        };
        let moving = self.moving.entry(netns.clone()).or_default();
        let mut fates = Vec::with_capacity(run.len());
        for (index, op) in indexes.iter().zip(run) {
            let fate = match index {
                None => Fate::Waiting,
                Some(index) => match refused.remove(index) {
                    None => Fate::Done,
                    Some(refusal) => judge(op, refusal),
                },
            };
            let joined = index.is_some_and(|index| !full.contains(&index));
            if let (Fate::Done, Some(Object::EdgeProgram(program)), true) =
                (&fate, op.object(), joined && self.to_tcx)
            {
                moving.insert(program.link.clone());
            }
            fates.push(fate);
        }
        fates
    }

    /// Puts the programs into the place of others of ours that hang on these links by TCX; those that have
    /// both now.
    fn renew(&mut self, netns: &Netns, links: &[u32]) -> Result<BTreeSet<u32>, Error> {
        self.know_programs()?;
        self.namespace(netns)?;
        let programs = self.load_programs()?;
        programs.take_over()?;
        let (Some(programs), true) = (&self.programs, self.has_tcx) else {
            return Ok(BTreeSet::new());
        };
        let Some(pair) = programs.pair()? else {
            return Ok(BTreeSet::new());
        };
        let Some(namespace) = self.namespaces.get(netns) else {
            return Ok(BTreeSet::new());
        };
        let renew = || {
            let mut full = BTreeSet::new();
            for link in links {
                match pair.renew(*link) {
                    Ok(true) => drop(full.insert(*link)),
                    Ok(false) => {}
                    Err(e) if e.raw_os_error() == Some(libc::ENODEV) => {}
                    Err(e) => return Err(failed(*link, e)),
                }
            }
            Ok(full)
        };
        namespace.handle.run(renew)?
    }

    fn is_any_joined(&mut self, netns: &Netns, links: &BTreeSet<u32>) -> Result<bool, Error> {
        match self.namespaces.get_mut(netns) {
            Some(namespace) if !links.is_empty() => {
                let links: Vec<u32> = links.iter().copied().collect();
                Ok(!joined_links(namespace, &links)?.is_empty())
            }
            _ => Ok(false),
        }
    }

    /// Joins links to the tc blocks. Where nothing hangs in these yet it comes last: the kernel gives a link what
    /// hangs in its block only after all processors have taken notice, but gives it to all links at once.
    fn join_all(&mut self, netns: &Netns, links: &[u32]) -> Result<BTreeMap<u32, Refusal>, Error> {
        let (refused, joined) = self.join(netns, links)?;
        if joined > 0 {
            self.hang_in_blocks(netns)?;
        }
        Ok(refused)
    }

    fn hang_in_blocks(&mut self, netns: &Netns) -> Result<(), Error> {
        self.namespace(netns)?;
        let (Some(programs), Some(namespace)) = (&self.programs, self.namespaces.get_mut(netns))
        else {
            return Ok(());
        };
        let filters = tc::Filters::read(&mut namespace.route)?;
        match programs.stand(&filters)? {
            true => Ok(()),
            false => programs.hang(&mut namespace.route),
        }
    }

    /// What was refused, and how many are in. A `clsact` of somebody else stays where there is TCX, by which
    /// the link gets its programs then, and makes way where there is none.
    fn join(
        &mut self,
        netns: &Netns,
        links: &[u32],
    ) -> Result<(BTreeMap<u32, Refusal>, usize), Error> {
        self.namespace(netns)?;
        let (Some(programs), Some(namespace)) = (&self.programs, self.namespaces.get_mut(netns))
        else {
            return Ok((BTreeMap::new(), 0));
        };
        let mut refused = join_links(namespace, links)?;
        let there = |refusal: &Refusal| refusal.errno == libc::EEXIST;
        if !refused.values().any(there) {
            let joined = links.len() - refused.len();
            return Ok((refused, joined));
        }
        let ours = joined_links(namespace, links)?;
        let foreign: Vec<u32> = refused
            .iter()
            .filter(|(index, refusal)| there(refusal) && !ours.contains(index))
            .map(|(index, _)| *index)
            .collect();
        refused.retain(|_, refusal| !there(refusal));
        let mut by_tcx = 0;
        match (programs.pair()?, self.to_tcx) {
            (Some(pair), true) => {
                let hang = || {
                    let one = |link: &u32| pair.hang(*link).map_err(|e| failed(*link, e));
                    foreign.iter().try_for_each(one)
                };
                namespace.handle.run(hang)??;
                by_tcx = foreign.len();
            }
            _ => {
                part_links(namespace, &foreign)?;
                refused.extend(join_links(namespace, &foreign)?);
            }
        }
        let joined = links.len() - refused.len() - by_tcx;
        Ok((refused, joined))
    }

    /// Takes programs off links; others' stay.
    pub(super) fn remove_programs(
        &mut self,
        netns: &Netns,
        run: &[Op],
        links: &Indexes,
    ) -> Vec<Fate> {
        let keys: Vec<Key> = run.iter().map(Op::key).collect();
        let named = keys.iter().filter_map(Key::link).map(|(_, link)| link);
        let present: Vec<u32> = named.filter_map(|link| links.index(link)).collect();
        match self.take_away(netns, &present) {
            Ok(()) => run.iter().map(|_| Fate::Done).collect(),
            Err(e) => all_failed(run, e),
        }
    }

    fn take_away(&mut self, netns: &Netns, links: &[u32]) -> Result<(), Error> {
        self.namespace(netns)?;
        let (false, Some(namespace)) = (links.is_empty(), self.namespaces.get_mut(netns)) else {
            return Ok(());
        };
        let ours = joined_links(namespace, links)?;
        let ours: Vec<u32> = ours.into_iter().collect();
        for (index, refusal) in part_links(namespace, &ours)? {
            let gone = [libc::ENOENT, libc::ENODEV, libc::EINVAL].contains(&refusal.errno);
            if !gone {
                return Err(refusal.of(format!("take the clsact off link {index}")));
            }
        }
        if !self.has_tcx {
            return Ok(());
        }
        let take = || {
            let one = |link: &u32| tcx::take_away(*link).map_err(|e| failed(*link, e));
            links.iter().try_for_each(one)
        };
        namespace.handle.run(take)?
    }
}

fn failed(index: u32, error: io::Error) -> Error {
    Error::system(
        format!("change the eBPF programs on the link with index {index}"),
        error,
    )
}

fn index_of(namespace: &mut Namespace, name: &IfName) -> Result<Option<u32>, Error> {
    let mut request = Batch::default();
    link::request_one(&mut request, name);
    let mut index = None;
    namespace.route.query(&mut request, |_, answer| {
        index = link::read(answer).map(|found| found.index).or(index);
    })?;
    Ok(index)
}

fn join_links(namespace: &mut Namespace, links: &[u32]) -> Result<BTreeMap<u32, Refusal>, Error> {
    change_links(namespace, links, tc::join)
}

fn part_links(namespace: &mut Namespace, links: &[u32]) -> Result<BTreeMap<u32, Refusal>, Error> {
    change_links(namespace, links, tc::part)
}

fn change_links(
    namespace: &mut Namespace,
    links: &[u32],
    change: fn(&mut Batch, u32),
) -> Result<BTreeMap<u32, Refusal>, Error> {
    let mut batch = Batch::default();
    links.iter().for_each(|link| change(&mut batch, *link));
    let outcome = namespace.route.request(&mut batch)?;
    let of_link = |(i, refusal)| links.get(i).map(|link: &u32| (*link, refusal));
    Ok(outcome.into_iter().filter_map(of_link).collect())
}

/// Which of these links are joined to our blocks.
fn joined_links(namespace: &mut Namespace, among: &[u32]) -> Result<BTreeSet<u32>, Error> {
    let mut joined = BTreeSet::new();
    let mut request = Batch::default();
    if among.len() > LOOK_UPS {
        tc::request_qdiscs(&mut request);
        let among: BTreeSet<u32> = among.iter().copied().collect();
        let mut found = namespace.route.dump(&mut request, tc::read_qdisc)?;
        found.retain(|(link, hung)| *hung == tc::Hung::Ours && among.contains(link));
        return Ok(found.into_iter().map(|(link, _)| link).collect());
    }
    among
        .iter()
        .for_each(|link| tc::request_clsact(&mut request, *link));
    namespace.route.query(&mut request, |_, answer| {
        if let Some((link, tc::Hung::Ours)) = tc::read_qdisc(answer) {
            joined.insert(link);
        }
    })?;
    Ok(joined)
}
