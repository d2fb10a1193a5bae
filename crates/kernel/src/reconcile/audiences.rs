//! Who has joined groups, as entries of the map that ports' programs look into. A network's namespace is there by the number
//! in its name.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use hextet_model::state::{Audience, Key, Netns, Object};

pub(super) use crate::audiences::Place;

use super::{Kernel, Op, Standing, apply::Fate};
use crate::error::Error;

impl Kernel {
    pub(super) fn dump_audiences<'a>(
        &mut self,
        netnses: impl Iterator<Item = &'a Netns>,
        found: &mut BTreeMap<Key, Standing>,
    ) -> Result<(), Error> {
        let numbered = netnses.filter_map(|netns| Some((netns.number()?, netns)));
        let numbered: BTreeMap<u64, &Netns> = numbered.collect();
        self.stale_audiences.clear();
        let Some(programs) = &self.programs else {
            return Ok(());
        };
        for (place, listeners) in programs.audiences().read()? {
            let Some(netns) = numbered.get(&place.network) else {
                self.stale_audiences.push(place);
                continue;
            };
            let audience = Object::Audience(Audience {
                netns: (*netns).clone(),
                group: place.group,
                listeners,
            });
            found.insert(audience.key(), audience.into());
        }
        Ok(())
    }

    /// Those of networks that were gone: their numbers might be others' one day.
    pub(super) fn remove_stale_audiences(&mut self) {
        let stale = mem::take(&mut self.stale_audiences);
        self.remove_audiences(stale);
    }

    /// What is forgotten of networks that are gone.
    pub(super) fn forget_audiences(&mut self, gone: &BTreeSet<Key>) {
        let places: Vec<Place> = gone.iter().filter_map(place).collect();
        self.remove_audiences(places);
    }

    fn remove_audiences(&mut self, places: Vec<Place>) {
        let Some(programs) = &mut self.programs else {
            return;
        };
        for place in places {
            if let Err(e) = programs.audiences_mut().remove(place) {
                tracing::warn!(error = %e, "who had joined a group of a network that is gone stays");
            }
        }
    }

    pub(super) fn apply_audiences(&mut self, netns: &Netns, run: &[Op]) -> Vec<Fate> {
        if let Err(e) = self.know_programs() {
            return super::apply::all_failed(run, e);
        }
        let Some(programs) = &mut self.programs else {
            return run.iter().map(|_| Fate::Done).collect();
        };
        let map = programs.audiences_mut();
        let apply = |op: &Op| match (place(&op.key()), op.object()) {
            (Some(place), Some(Object::Audience(audience))) => {
                map.put(place, &audience.listeners).into()
            }
            (Some(place), _) => map.remove(place).into(),
            (None, _) => Fate::Failed(Error::unfit(
                op.to_string(),
                format!("{netns} is no private network's namespace"),
            )),
        };
        run.iter().map(apply).collect()
    }
}

fn place(key: &Key) -> Option<Place> {
    match key {
        Key::Audience(netns, group) => Some(Place {
            network: netns.number()?,
            group: *group,
        }),
        _ => None,
    }
}
