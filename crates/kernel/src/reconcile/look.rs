//! Looking at everything while we go on writing: the kernel is read by an [`Onlooker`], on another thread,
//! and what it saw is compared a few keys at a time.
//!
//! What it saw of a key may be of before we wrote there. So every key that we write, try to write or forget
//! from the beginning of a look to the end of its comparison is left out: what we know of those is younger. What
//! somebody else changes meanwhile is heard of, or found by the next look. Sysctls of
//! the main namespace, which are few, are read when the comparison begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use hextet_model::state::{Key, Netns, Object, SetName};
use hextet_types::{Family, IfName};

use super::{Kernel, Scope, Standing, sources::Places};
use crate::{error::Error, route::entry, sources::Entry, uplink};

type Standings = BTreeMap<Key, Standing>;

/// What a look has to know of what is desired.
#[derive(Debug)]
pub struct Expected(BTreeMap<Key, Object>);

/// What a look saw, the main namespace's sysctls apart.
#[derive(Debug)]
pub struct Seen {
    standings: Standings,
    places: BTreeMap<Netns, Places>,
    stale_sources: Vec<Entry>,
    stale_patches: Vec<u32>,
    stale_answers: Vec<uplink::Place>,
    next_index: u32,
    moving: BTreeMap<Netns, BTreeSet<IfName>>,
    moving_patches: BTreeSet<IfName>,
}

/// The comparison of what was seen with what is desired.
#[derive(Debug)]
pub struct Look {
    seen: Standings,
    after: Option<Key>,
    differing: BTreeSet<Key>,
}

/// Reads the kernel, and never writes.
#[derive(Debug)]
pub struct Onlooker(Kernel);

impl Onlooker {
    /// Does once what every look needs, so that the first one costs no more than the next.
    ///
    /// # Errors
    ///
    /// The ports' programs can't be loaded.
    pub fn prepare(&mut self) -> Result<(), Error> {
        self.0.load_programs().map(drop)
    }

    /// Sees all that is ours, the main namespace's sysctls apart. Holds no other namespace open afterwards.
    ///
    /// # Errors
    ///
    /// Something can't be read, or others keep changing it.
    pub fn look(&mut self, expected: &Expected) -> Result<Seen, Error> {
        let standings = self.0.dump_but_sysctls(&Scope::of(&expected.0));
        self.0.close_named();
        Ok(Seen {
            standings: standings?,
            places: std::mem::take(&mut self.0.places),
            stale_sources: std::mem::take(&mut self.0.stale_sources),
            stale_patches: std::mem::take(&mut self.0.stale_patches),
            stale_answers: std::mem::take(&mut self.0.stale_answers),
            next_index: self.0.next_index,
            moving: std::mem::take(&mut self.0.moving),
            moving_patches: std::mem::take(&mut self.0.moving_patches),
        })
    }
}

impl Kernel {
    /// Eyes on the same kernel, for another thread. `Main` is the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// No sockets can be opened.
    pub fn onlooker(&self) -> Result<Onlooker, Error> {
        let mut kernel = Kernel::open(self.config.clone())?;
        kernel.onlooks = true;
        for namespace in kernel.namespaces.values_mut() {
            namespace.only_undisturbed();
        }
        Ok(Onlooker(kernel))
    }

    /// From now on, what is written counts as younger than what a look sees.
    pub fn begin_look(&mut self, desired: &BTreeMap<Key, Object>) -> Expected {
        self.written = Some(BTreeSet::new());
        let elements = |netns| Key::Element(netns, SetName(String::new()), Vec::new());
        let beyond = Netns::Named(char::MAX.to_string());
        let (before, behind) = (
            desired.range(..elements(Netns::Main)),
            desired.range(elements(beyond)..),
        );
        let looked_at = |(key, _): &(&Key, &Object)| match key {
            Key::Neighbour(..)
            | Key::Source(..)
            | Key::Hop(..)
            | Key::Receiver(..)
            | Key::Speaker(..)
            | Key::Audience(..)
            | Key::Answer(..)
            | Key::Proxy(..)
            | Key::Fdb(..) => false,
            Key::Route(key) => {
                key.prefix.family() == Family::V6
                    && matches!(key.metric, 0 | entry::DEFAULT_METRIC_V6)
            }
            _ => true,
        };
        let copied = |(key, object): (&Key, &Object)| (key.clone(), object.clone());
        Expected(before.chain(behind).filter(looked_at).map(copied).collect())
    }

    /// Begins to compare what was seen.
    ///
    /// # Errors
    ///
    /// The sysctls can't be read; then the look is over.
    pub fn take_look(
        &mut self,
        seen: Seen,
        desired: &BTreeMap<Key, Object>,
    ) -> Result<Look, Error> {
        self.drop_stale_namespaces();
        self.learn_sources(seen.places, seen.stale_sources);
        self.learn_stale_patches(seen.stale_patches);
        self.learn_stale_answers(seen.stale_answers);
        self.next_index = self.next_index.max(seen.next_index);
        for (netns, links) in seen.moving {
            self.moving.entry(netns).or_default().extend(links);
        }
        self.moving_patches.extend(seen.moving_patches);
        let mut seen = seen.standings;
        if let Err(error) = self.dump_sysctls(&Netns::Main, &Scope::of(desired), &mut seen) {
            self.end_look();
            return Err(error);
        }
        Ok(Look {
            seen,
            after: None,
            differing: BTreeSet::new(),
        })
    }

    /// Compares up to so many keys more. At the end it gives those that differ, for
    /// [`Kernel::reconcile_keys`].
    pub fn compare(
        &mut self,
        look: &mut Look,
        desired: &BTreeMap<Key, Object>,
        at_most: usize,
    ) -> Option<BTreeSet<Key>> {
        let none = BTreeSet::new();
        let written = self.written.as_ref().unwrap_or(&none);
        if !look.compare(&mut self.known, desired, written, at_most) {
            return None;
        }
        self.end_look();
        Some(std::mem::take(&mut look.differing))
    }

    /// The look is over; nothing comes of it any more.
    pub fn end_look(&mut self) {
        self.written = None;
    }

    /// What a look under way saw there does not count.
    pub(super) fn outdate(&mut self, key: &Key) {
        if let Some(written) = &mut self.written {
            written.insert(key.clone());
        }
    }
}

impl Look {
    /// Makes known what was seen, for up to so many keys; whether that was all.
    fn compare(
        &mut self,
        known: &mut Standings,
        desired: &BTreeMap<Key, Object>,
        written: &BTreeSet<Key>,
        at_most: usize,
    ) -> bool {
        let from = match self.after.take() {
            Some(key) => Bound::Excluded(key),
            None => Bound::Unbounded,
        };
        let range = (from, Bound::Unbounded);
        let mut standing = known.range(range.clone()).peekable();
        let mut wanted = desired.range(range).peekable();
        let mut news = Vec::new();
        for _ in 0..at_most {
            let heads = [
                self.seen.first_key_value().map(|(key, _)| key),
                standing.peek().map(|(key, _)| *key),
                wanted.peek().map(|(key, _)| *key),
            ];
            let Some(key) = heads.into_iter().flatten().min().cloned() else {
                break;
            };
            let seen = match self.seen.first_entry() {
                Some(entry) if *entry.key() == key => Some(entry.remove()),
                _ => None,
            };
            let was = standing.next_if(|(is, _)| **is == key).map(|(_, was)| was);
            let object = wanted.next_if(|(is, _)| **is == key).map(|(_, o)| o);
            if !written.contains(&key) {
                if !is_as(seen.as_ref(), object) {
                    self.differing.insert(key.clone());
                }
                if seen.as_ref() != was {
                    news.push((key.clone(), seen));
                }
            }
            self.after = Some(key);
        }
        let over = self.seen.is_empty() && standing.peek().is_none() && wanted.peek().is_none();
        for (key, seen) in news {
            match seen {
                Some(standing) => drop(known.insert(key, standing)),
                None => drop(known.remove(&key)),
            }
        }
        over
    }
}

fn is_as(standing: Option<&Standing>, desired: Option<&Object>) -> bool {
    match (standing, desired) {
        (None, None) => true,
        (Some(Standing::As(is)), Some(desired)) => is == desired,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
