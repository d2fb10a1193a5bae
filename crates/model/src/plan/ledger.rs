//! The union of all units' outputs, and what changes in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hextet_types::{PortId, Prefix};

use super::{
    place::Place,
    unit::{Output, Unit},
};
use crate::state::{Changed, HostState, Key};

/// A unit, and where it stands.
pub type Part = (Place, Unit);

/// The state, and which unit made which part of it.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    state: HostState,
    held: HashMap<Part, Held>,
}

/// What a unit has in the state.
#[derive(Clone, Debug, Default)]
struct Held {
    objects: Vec<Key>,
    announce: Vec<Prefix>,
    responders: Vec<PortId>,
}

impl Held {
    fn of(output: &Output) -> Held {
        Held {
            objects: output.objects.iter().map(|object| object.key()).collect(),
            announce: output.announce.iter().map(|(prefix, _)| *prefix).collect(),
            responders: output.responders.iter().map(|(port, _)| *port).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.announce.is_empty() && self.responders.is_empty()
    }
}

impl Ledger {
    /// The union.
    pub fn state(&self) -> &HostState {
        &self.state
    }

    /// These units make this now. All of their old outputs go before any of the new come, so that a
    /// key may pass from one unit to another.
    pub fn replace(&mut self, outputs: Vec<(Part, Output)>) -> Changed {
        let mut old = HostState::default();
        for (part, _) in &outputs {
            self.retract(part, &mut old);
        }
        let mut changed = Changed::default();
        for (part, output) in outputs {
            self.add(part, output, &mut old, &mut changed);
        }
        changed.objects.extend(old.objects.into_keys());
        changed.announce.extend(old.announce.into_keys());
        changed.responders.extend(old.responders.into_keys());
        changed
    }

    fn retract(&mut self, part: &Part, old: &mut HostState) {
        let held = self.held.remove(part).unwrap_or_default();
        take(&mut self.state.objects, held.objects, &mut old.objects);
        take(&mut self.state.announce, held.announce, &mut old.announce);
        take(
            &mut self.state.responders,
            held.responders,
            &mut old.responders,
        );
    }

    fn add(&mut self, part: Part, output: Output, old: &mut HostState, changed: &mut Changed) {
        let held = Held::of(&output);
        if held.is_empty() {
            return;
        }
        let objects = held.objects.iter().cloned().zip(output.objects);
        let state = &mut self.state;
        put(
            &mut state.objects,
            objects,
            &mut old.objects,
            &mut changed.objects,
        );
        put(
            &mut state.announce,
            output.announce,
            &mut old.announce,
            &mut changed.announce,
        );
        put(
            &mut state.responders,
            output.responders,
            &mut old.responders,
            &mut changed.responders,
        );
        self.held.insert(part, held);
    }
}

fn take<K: Ord, V>(from: &mut BTreeMap<K, V>, keys: Vec<K>, to: &mut BTreeMap<K, V>) {
    for key in keys {
        if let Some((key, value)) = from.remove_entry(&key) {
            to.insert(key, value);
        }
    }
}

/// What was there before and is equal did not change.
fn put<K: Ord + Clone + std::fmt::Debug, V: PartialEq>(
    to: &mut BTreeMap<K, V>,
    items: impl IntoIterator<Item = (K, V)>,
    old: &mut BTreeMap<K, V>,
    changed: &mut BTreeSet<K>,
) {
    for (key, value) in items {
        if old.remove(&key).is_none_or(|before| before != value) {
            changed.insert(key.clone());
        }
        debug_assert!(!to.contains_key(&key), "two units make {key:?}");
        to.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Netns, Object, Sysctl};

    const HOST: Part = (Place::Main, Unit::Host);
    const TRANSLATION: Part = (Place::Main, Unit::Translation);

    fn sysctl(path: &str, value: &str) -> Output {
        let sysctl = Sysctl {
            netns: Netns::Main,
            path: path.to_owned(),
            value: value.to_owned(),
        };
        vec![Object::Sysctl(sysctl)].into()
    }

    #[test]
    fn only_what_differs_has_changed() {
        let mut ledger = Ledger::default();
        let first = ledger.replace(vec![(HOST, sysctl("a", "1"))]);
        assert_eq!(first.objects.len(), 1);
        let same = ledger.replace(vec![(HOST, sysctl("a", "1"))]);
        assert_eq!(same, Changed::default());
        let other = ledger.replace(vec![(HOST, sysctl("a", "2"))]);
        assert_eq!(other, first);
        let gone = ledger.replace(vec![(HOST, Output::default())]);
        assert_eq!(gone, first);
        assert_eq!(ledger.state(), &HostState::default());
        assert!(ledger.held.is_empty());
    }

    #[test]
    fn a_key_may_pass_from_one_unit_to_another() {
        let mut ledger = Ledger::default();
        ledger.replace(vec![(TRANSLATION, sysctl("a", "1"))]);
        let moved = ledger.replace(vec![
            (HOST, sysctl("a", "1")),
            (TRANSLATION, Output::default()),
        ]);
        assert_eq!(moved, Changed::default());
        assert_eq!(ledger.state().objects.len(), 1);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "two units make")]
    fn two_units_never_make_one_thing() {
        let mut ledger = Ledger::default();
        ledger.replace(vec![
            (HOST, sysctl("a", "1")),
            (TRANSLATION, sysctl("a", "2")),
        ]);
    }
}
