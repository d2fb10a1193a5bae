//! Patches: which links of the main namespace are joined with which ports, and the program that joins them.
//!
//! The program hangs on both links by tc, in a block that all share, before the map says anything about them: it
//! closes links that the map does not have. In time it hangs there by TCX as well, as ports' programs do.

use std::collections::{BTreeMap, BTreeSet};

use hextet_model::state::{Key, Netns, Object, Patch};
use hextet_types::IfName;

use super::{
    Kernel, Op, Standing,
    apply::{Fate, judge},
    programs::OnLinks,
};
use crate::{
    bpf::Program,
    error::Error,
    netlink::Batch,
    patch::{self, PROGRAM, Patches, To},
    route::{
        Indexes,
        link::{self, Kind},
    },
    tc,
    tcx::{self, Has},
};

impl Kernel {
    pub(super) fn dump_patches(
        &mut self,
        links: &Indexes,
        on_links: &OnLinks,
        found: &mut BTreeMap<Key, Standing>,
    ) -> Result<(), Error> {
        self.stale_patches.clear();
        self.moving_patches.clear();
        let hung = |index: u32| on_links.clsact.get(&index) == Some(&tc::Hung::Patched);
        if !links.all().any(|(_, index)| hung(index)) && self.patches.is_none() {
            return Ok(());
        }
        let stand = self.know_patches()?;
        let Some(patches) = &self.patches else {
            return Ok(());
        };
        let entries = patches.read()?;
        let far = far_ends(found);
        let (right, wanted) = (patches.right(), self.wanted_by_tcx());
        let by_tcx = |link: &u32| {
            let ids = on_links
                .tcx
                .get(link)
                .map_or(&[][..], |[ingress, _]| ingress);
            let right = |program: &Program| Some(program.id()) == right;
            tcx::judge_one(ids, &on_links.ours, PROGRAM, right)
        };
        for (link, to) in &entries {
            let Some(tap) = links.name(*link) else {
                self.stale_patches.push(*link);
                continue;
            };
            // What leads out of a pair's near end is told with what leads into it.
            let To::FarEndOf(near) = to else {
                continue;
            };
            let outer = links.at(*near).filter(|is| is.kind == Kind::Veth);
            let tcx = [by_tcx(link), by_tcx(near)];
            let both = hung(*link)
                && hung(*near)
                && !tcx.contains(&Has::Other)
                && entries.get(near) == Some(&To::Link(*link));
            let netns = outer.and_then(|outer| far.get(&outer.name).cloned());
            let standing = match (outer, netns) {
                (Some(outer), Some(netns)) if both && stand => {
                    if tcx != [wanted; 2] {
                        self.moving_patches.insert(tap.clone());
                    }
                    Object::Patch(Patch {
                        netns,
                        tap: tap.clone(),
                        outer: outer.name.clone(),
                    })
                    .into()
                }
                _ => Standing::otherwise("joined in part"),
            };
            found.insert(Key::Patch(tap.clone()), standing);
        }
        Ok(())
    }

    /// What a patched link is to have by TCX in time.
    fn wanted_by_tcx(&self) -> Has {
        match self.to_tcx {
            true => Has::Right,
            false => Has::None,
        }
    }

    /// Has the program of one patch run by TCX on both its links, or no longer.
    pub(super) fn move_patch(&mut self) -> Result<(), Error> {
        let Some(tap) = self.moving_patches.pop_first() else {
            return Ok(());
        };
        let Some(Standing::As(Object::Patch(patch))) = self.known.get(&Key::Patch(tap)) else {
            return Ok(());
        };
        let names = [patch.tap.clone(), patch.outer.clone()];
        let to_tcx = self.to_tcx;
        let mut links = Vec::new();
        if let Some(main) = self.namespace(&Netns::Main)? {
            for name in &names {
                links.extend(main.link(name.as_str())?.map(|is| is.index));
            }
        }
        self.by_tcx(|patches| {
            links.iter().try_for_each(|link| match to_tcx {
                true => patches.hang_by_tcx(*link),
                false => patch::take_away(*link),
            })
        })
    }

    /// Changes what hangs by TCX in the main namespace.
    fn by_tcx(
        &self,
        change: impl FnOnce(&Patches) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let (true, Some(patches), Some(main)) = (
            self.has_tcx,
            &self.patches,
            self.namespaces.get(&Netns::Main),
        ) else {
            return Ok(());
        };
        main.handle.run(|| change(patches))?
    }

    /// Has the program loaded and knows which map to go by; whether the right program is in the block.
    fn know_patches(&mut self) -> Result<bool, Error> {
        let mut patches = match self.patches.take() {
            Some(patches) => patches,
            None => Patches::load()?,
        };
        let mut filters = Vec::new();
        if let Some(main) = self.namespace(&Netns::Main)? {
            filters = tc::patch_filters(&mut main.route)?;
        }
        patches.choose(&filters)?;
        let stand = patches.stand(&filters);
        self.patches = Some(patches);
        Ok(stand)
    }

    /// Takes over what a look saw.
    pub(super) fn learn_stale_patches(&mut self, links: Vec<u32>) {
        self.stale_patches.extend(links);
    }

    /// Closes those that were gone, since their indexes might be given to others, unless they are there by now.
    pub(super) fn remove_stale_patches(&mut self) {
        let stale = std::mem::take(&mut self.stale_patches);
        if let Err(e) = self.close_absent(&stale) {
            tracing::warn!(error = %e, "patches of links that are gone stay");
        }
    }

    fn close_absent(&mut self, links: &[u32]) -> Result<(), Error> {
        if links.is_empty() {
            return Ok(());
        }
        let mut request = Batch::default();
        links
            .iter()
            .for_each(|index| link::request_index(&mut request, *index));
        let mut there = BTreeSet::new();
        if let Some(main) = self.namespace(&Netns::Main)? {
            main.route.query(&mut request, |_, answer| {
                there.extend(link::read(answer).map(|is| is.index));
            })?;
        }
        if self.patches.is_none() {
            self.know_patches()?;
        }
        let Some(patches) = &mut self.patches else {
            return Ok(());
        };
        let mut gone = links.iter().filter(|index| !there.contains(index));
        gone.try_for_each(|index| patches.remove(*index))
    }

    pub(super) fn apply_patches(&mut self, run: &[Op], links: &Indexes) -> Vec<Fate> {
        let mut stand = None;
        run.iter()
            .map(|op| {
                let outcome = self.apply_patch(op, links, &mut stand);
                outcome.unwrap_or_else(Fate::Failed)
            })
            .collect()
    }

    fn apply_patch(
        &mut self,
        op: &Op,
        links: &Indexes,
        stand: &mut Option<bool>,
    ) -> Result<Fate, Error> {
        let Some(Object::Patch(patch)) = op.object() else {
            return self.part_patch(op, links);
        };
        let (tap, outer) = (links.index(&patch.tap), links.index(&patch.outer));
        if stand.is_none() {
            *stand = Some(self.know_patches()?);
        }
        // The near end is closed as long as it leads nowhere.
        for index in [outer, tap].into_iter().flatten() {
            if let Some(fate) = self.join_patched(op, index)? {
                return Ok(fate);
            }
            if *stand != Some(true) {
                self.hang_patch()?;
                *stand = Some(true);
            }
        }
        let (Some(patches), Some(tap), Some(outer)) = (&mut self.patches, tap, outer) else {
            return Ok(Fate::Waiting);
        };
        patches.put(outer, To::Link(tap))?;
        patches.put(tap, To::FarEndOf(outer))?;
        self.by_tcx(|patches| {
            let mut links = [outer, tap].into_iter();
            links.try_for_each(|link| patches.renew(link).map(drop))
        })?;
        if self.to_tcx {
            self.moving_patches.insert(patch.tap.clone());
        }
        Ok(Fate::Done)
    }

    fn hang_patch(&mut self) -> Result<(), Error> {
        let Some(mut patches) = self.patches.take() else {
            return Ok(());
        };
        let outcome = match self.namespace(&Netns::Main)? {
            Some(main) => patches.hang(&mut main.route),
            None => Ok(()),
        };
        self.patches = Some(patches);
        outcome
    }

    /// Joins a link to the block; a `clsact` of somebody else makes way.
    fn join_patched(&mut self, op: &Op, index: u32) -> Result<Option<Fate>, Error> {
        for _ in 0..2 {
            let Some(main) = self.namespace(&Netns::Main)? else {
                return Ok(Some(Fate::Waiting));
            };
            let mut batch = Batch::default();
            tc::join_patched(&mut batch, index);
            let refused = main.route.request(&mut batch)?.into_iter().next();
            let Some((_, refusal)) = refused else {
                return Ok(None);
            };
            if refusal.errno != libc::EEXIST {
                return Ok(Some(judge(op, refusal)));
            }
            let mut request = Batch::default();
            tc::request_clsact(&mut request, index);
            let mut hung = None;
            main.route.query(&mut request, |_, answer| {
                hung = tc::read_qdisc(answer).or(hung);
            })?;
            if hung == Some((index, tc::Hung::Patched)) {
                return Ok(None);
            }
            let mut batch = Batch::default();
            tc::part(&mut batch, index);
            main.route.request(&mut batch)?;
        }
        Err(Error::unfit(
            op.to_string(),
            "somebody else keeps hanging a qdisc on the link",
        ))
    }

    /// Takes the program off both links, and closes them in the map.
    fn part_patch(&mut self, op: &Op, links: &Indexes) -> Result<Fate, Error> {
        self.know_patches()?;
        let key = op.key();
        let Some(tap) = key.link().and_then(|(_, tap)| links.index(tap)) else {
            return Ok(Fate::Done);
        };
        let mut ends = BTreeSet::from([tap]);
        if let Some(patches) = &mut self.patches {
            let entries = patches.read()?;
            if let Some(To::FarEndOf(near)) = entries.get(&tap)
                && entries.get(near) == Some(&To::Link(tap))
            {
                ends.insert(*near);
            }
            for index in &ends {
                patches.remove(*index)?;
            }
        }
        self.by_tcx(|_| ends.iter().try_for_each(|index| patch::take_away(*index)))?;
        let mut batch = Batch::default();
        ends.iter().for_each(|index| tc::part(&mut batch, *index));
        if let Some(main) = self.namespace(&Netns::Main)? {
            main.route.request(&mut batch)?;
        }
        Ok(Fate::Done)
    }
}

/// Where the far ends of pairs are, by the names of their near ones in the main namespace.
fn far_ends(found: &BTreeMap<Key, Standing>) -> BTreeMap<IfName, Netns> {
    let made = |(key, _): &(&Key, &Standing)| {
        matches!(key, Key::Namespace(_) | Key::Vxlan(..) | Key::Veth(..))
    };
    let pairs = found.iter().take_while(made);
    let near = pairs.filter_map(|(_, standing)| match standing {
        Standing::As(Object::Veth(veth)) => match (&veth.netns, &veth.peer_netns) {
            (Netns::Main, Netns::Named(_)) => Some((veth.name.clone(), veth.peer_netns.clone())),
            (Netns::Named(_), Netns::Main) => Some((veth.peer.clone(), veth.netns.clone())),
            _ => None,
        },
        _ => None,
    });
    near.collect()
}
