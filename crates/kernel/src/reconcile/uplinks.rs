//! Uplinks: the program that answers on them, and for which addresses.
//!
//! An address is in the map by the index of its link, so what is there for a link that has gone is taken out before
//! another one gets its index.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use hextet_model::state::{Answer, Key, Netns, Object, Proxy, UplinkProgram};
use hextet_types::Family;

use super::{
    Kernel, Namespace, Op, Scope, Standing,
    apply::{Fate, all_failed, judge},
    programs::OnLinks,
};
use crate::{
    bpf::Program,
    error::Error,
    netlink::Batch,
    route::{Indexes, link, neighbour},
    tc,
    tcx::{self, Has},
    uplink::{self, PROGRAM, Place, Uplinks},
};

impl Kernel {
    pub(super) fn dump_uplinks(
        &mut self,
        links: &Indexes,
        on_links: &OnLinks,
        scope: &Scope<'_>,
        found: &mut BTreeMap<Key, Standing>,
    ) -> Result<(), Error> {
        self.stale_answers.clear();
        let on_clsact = self.filters_on_clsact(on_links)?;
        let by_tcx = on_links.ours.values();
        let by_tcx = by_tcx.filter(|program| program.is_named(PROGRAM));
        let mut in_place: Vec<u32> = by_tcx.map(Program::id).collect();
        in_place.extend(on_clsact.values().flatten());
        let expected = |(key, _): (&Key, _)| matches!(key, Key::UplinkProgram(_));
        if self.uplinks.is_none() && in_place.is_empty() && !scope.expected.iter().any(expected) {
            return Ok(());
        }
        self.load_uplinks()?.choose(&in_place)?;
        let (Some(uplinks), to_tcx) = (&self.uplinks, self.to_tcx) else {
            return Ok(());
        };
        let right = |program: &Program| Some(program.id()) == uplinks.right();
        for is in links.found() {
            let ids = on_links.tcx.get(&is.index);
            let ids = ids.map_or(&[][..], |[ingress, _]| ingress);
            let tcx = tcx::judge_one(ids, &on_links.ours, PROGRAM, right);
            let filters = on_clsact.get(&is.index).map_or(&[][..], Vec::as_slice);
            let in_filter = matches!(filters, [one] if Some(*one) == uplinks.right());
            let stands = match (tcx, filters) {
                (Has::None, []) => continue,
                (Has::Right, []) => to_tcx,
                (Has::None, _) => !to_tcx && in_filter,
                _ => false,
            };
            let knows = match is.mac {
                Some(mac) => uplinks.knows(is.index, mac)?,
                None => false,
            };
            let link = is.name.clone();
            let standing = match stands && knows {
                true => Object::UplinkProgram(UplinkProgram { link }).into(),
                false => Standing::otherwise("another program, or Ethernet address"),
            };
            found.insert(Key::UplinkProgram(is.name.clone()), standing);
        }
        for place in uplinks.read()?.into_keys() {
            match links.name(place.link) {
                None => self.stale_answers.push(place),
                Some(_) if place.is_link() => {}
                Some(link) => {
                    let (link, addr) = (link.clone(), place.addr);
                    let answer = Object::Answer(Answer { link, addr });
                    found.insert(answer.key(), answer.into());
                }
            }
        }
        Ok(())
    }

    /// The programs in filters of ours on links that have a `clsact` with neither of our blocks.
    fn filters_on_clsact(&mut self, on_links: &OnLinks) -> Result<BTreeMap<u32, Vec<u32>>, Error> {
        let mut all = BTreeMap::new();
        let Some(main) = self.namespace(&Netns::Main)? else {
            return Ok(all);
        };
        let foreign = on_links
            .clsact
            .iter()
            .filter(|(_, hung)| **hung == tc::Hung::Foreign);
        for (link, _) in foreign {
            let filters = tc::uplink_filters(&mut main.route, *link)?;
            let ours: Vec<u32> = filters
                .iter()
                .filter(|filter| filter.is_ours())
                .map(|filter| filter.program)
                .collect();
            if !ours.is_empty() {
                all.insert(*link, ours);
            }
        }
        Ok(all)
    }

    fn load_uplinks(&mut self) -> Result<&mut Uplinks, Error> {
        let uplinks = match self.uplinks.take() {
            Some(uplinks) => uplinks,
            None => Uplinks::load()?,
        };
        Ok(self.uplinks.insert(uplinks))
    }

    /// Has the program loaded, and knows which map to go by.
    fn know_uplinks(&mut self) -> Result<(), Error> {
        if self.load_uplinks()?.have_looked() {
            return Ok(());
        }
        let Some(main) = self.namespace(&Netns::Main)? else {
            return Ok(());
        };
        let mut request = Batch::default();
        link::request_all(&mut request, false);
        let links = main.route.dump(&mut request, link::read)?;
        let indexes: Vec<u32> = links.iter().map(|link| link.index).collect();
        let on_links = self.look_at_programs(&Netns::Main, &indexes)?;
        let mut in_place: Vec<u32> = on_links.ours.keys().copied().collect();
        let on_clsact = self.filters_on_clsact(&on_links)?;
        in_place.extend(on_clsact.values().flatten());
        self.load_uplinks()?.choose(&in_place)
    }

    pub(super) fn apply_uplinks(&mut self, run: &[Op], links: &Indexes) -> Vec<Fate> {
        let know = self.know_uplinks();
        if let Err(e) = know.and_then(|()| self.load_uplinks()?.take_over()) {
            return all_failed(run, e);
        }
        let apply = |op: &Op| {
            let key = op.key();
            let link = key.link().and_then(|(_, link)| links.get(link));
            match (op.object(), link) {
                (Some(_), Some(is)) => self.hang_uplink(op, is),
                (Some(_), None) => Ok(Fate::Waiting),
                (None, Some(is)) => self.take_uplink(op, is.index),
                (None, None) => Ok(Fate::Done),
            }
        };
        let fates = run.iter().map(apply);
        fates
            .map(|fate| fate.unwrap_or_else(Fate::Failed))
            .collect()
    }

    fn hang_uplink(&mut self, op: &Op, is: &link::Found) -> Result<Fate, Error> {
        let Some(mac) = is.mac else {
            return Ok(Fate::Failed(Error::unfit(
                op.to_string(),
                format!("{} is no Ethernet link", is.name),
            )));
        };
        self.load_uplinks()?.put_link(is.index, mac)?;
        self.namespace(&Netns::Main)?;
        let (to_tcx, has_tcx) = (self.to_tcx, self.has_tcx);
        let (Some(uplinks), Some(main)) = (&self.uplinks, self.namespaces.get_mut(&Netns::Main))
        else {
            return Ok(Fate::Waiting);
        };
        if to_tcx {
            main.handle.run(|| uplinks.hang(is.index))??;
            return part_filter(main, is.index, op);
        }
        let mut batch = Batch::default();
        tc::hang_uplink(&mut batch, is.index, uplinks.fd()?, PROGRAM);
        let refused = main.route.request(&mut batch)?;
        // That there is a `clsact` already is as good.
        let serious = |(request, refusal): &(usize, crate::error::Refusal)| {
            *request > 0 || refusal.errno != libc::EEXIST
        };
        if let Some((_, refusal)) = refused.into_iter().find(serious) {
            return Ok(judge(op, refusal));
        }
        if has_tcx {
            main.handle.run(|| uplink::take_away(is.index))??;
        }
        Ok(Fate::Done)
    }

    fn take_uplink(&mut self, op: &Op, index: u32) -> Result<Fate, Error> {
        self.load_uplinks()?.remove(Place::of_link(index))?;
        let has_tcx = self.has_tcx;
        let Some(main) = self.namespace(&Netns::Main)? else {
            return Ok(Fate::Done);
        };
        if has_tcx {
            main.handle.run(|| uplink::take_away(index))??;
        }
        part_filter(main, index, op)
    }

    pub(super) fn apply_answers(&mut self, run: &[Op], links: &Indexes) -> Vec<Fate> {
        if let Err(e) = self.know_uplinks() {
            return all_failed(run, e);
        }
        let Some(uplinks) = &mut self.uplinks else {
            return run.iter().map(|_| Fate::Waiting).collect();
        };
        let apply = |op: &Op| {
            let key = op.key();
            let Key::Answer(link, addr) = &key else {
                return Fate::Done;
            };
            let place = links.index(link).map(|link| Place { link, addr: *addr });
            match (op.object(), place) {
                (Some(_), Some(place)) => uplinks.put(place).into(),
                (Some(_), None) => Fate::Waiting,
                (None, Some(place)) => uplinks.remove(place).into(),
                (None, None) => Fate::Done,
            }
        };
        run.iter().map(apply).collect()
    }

    /// Takes over what a look saw.
    pub(super) fn learn_stale_answers(&mut self, stale: Vec<Place>) {
        self.stale_answers.extend(stale);
    }

    /// Those whose links were gone, unless these are there by now.
    pub(super) fn remove_stale_answers(&mut self) {
        let stale = mem::take(&mut self.stale_answers);
        if let Err(e) = self.remove_answers_of_absent(&stale) {
            tracing::warn!(error = %e, "answers on links that are gone stay");
        }
    }

    fn remove_answers_of_absent(&mut self, stale: &[Place]) -> Result<(), Error> {
        if stale.is_empty() {
            return Ok(());
        }
        let links: BTreeSet<u32> = stale.iter().map(|place| place.link).collect();
        let mut request = Batch::default();
        for index in &links {
            link::request_index(&mut request, *index);
        }
        let mut there = BTreeSet::new();
        if let Some(main) = self.namespace(&Netns::Main)? {
            main.route.query(&mut request, |_, answer| {
                there.extend(link::read(answer).map(|is| is.index));
            })?;
        }
        self.know_uplinks()?;
        let Some(uplinks) = &mut self.uplinks else {
            return Ok(());
        };
        let mut gone = stale.iter().filter(|place| !there.contains(&place.link));
        gone.try_for_each(|place| uplinks.remove(*place))
    }
}

/// Takes our filter off a link, and its `clsact`, where that holds nothing else.
fn part_filter(main: &mut Namespace, index: u32, op: &Op) -> Result<Fate, Error> {
    let mut request = Batch::default();
    tc::request_clsact(&mut request, index);
    let mut hung = None;
    main.route.query(&mut request, |_, answer| {
        hung = tc::read_qdisc(answer).or(hung);
    })?;
    let is_ours = |main: &mut Namespace| -> Result<bool, Error> {
        let filters = tc::uplink_filters(&mut main.route, index)?;
        Ok(filters.iter().any(tc::Filter::is_ours))
    };
    if hung != Some((index, tc::Hung::Foreign)) || !is_ours(main)? {
        return Ok(Fate::Done);
    }
    let mut batch = Batch::default();
    tc::part_uplink(&mut batch, index);
    if let Some((_, refusal)) = main.route.request(&mut batch)?.into_iter().next() {
        return Ok(judge(op, refusal));
    }
    if tc::is_empty_clsact(&mut main.route, index)? {
        let mut batch = Batch::default();
        tc::part(&mut batch, index);
        main.route.request(&mut batch)?;
    }
    Ok(Fate::Done)
}

/// The proxies that bear our number.
pub(super) fn dump_proxies(
    main: &mut Namespace,
    links: &Indexes,
    found: &mut BTreeMap<Key, Standing>,
) -> Result<(), Error> {
    for family in Family::BOTH {
        let mut request = Batch::default();
        neighbour::request_proxies(&mut request, family);
        for (index, addr) in main.route.dump(&mut request, neighbour::read_proxy)? {
            if let Some(link) = links.name(index) {
                let link = link.clone();
                let proxy = Object::Proxy(Proxy { link, addr });
                found.insert(proxy.key(), proxy.into());
            }
        }
    }
    Ok(())
}
