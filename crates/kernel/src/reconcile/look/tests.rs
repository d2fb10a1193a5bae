//! Looks, own writes and foreign changes in any order, against a kernel that is a map.

use hextet_model::state::Sysctl;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::reconcile::{Op, diff_keys};

/// Keys in play; few, so that everything meets.
const KEYS: u8 = 12;

#[derive(Clone, Debug)]
enum Step {
    /// The look sees so many keys more; what is there now.
    See(u8),
    /// So many keys more of what was seen are compared.
    Compare(u8),
    /// We come to desire another value, or none, and write it.
    Write(u8, Option<u8>),
    /// As [`Step::Write`], but the kernel refuses.
    Fail(u8, Option<u8>),
    /// Somebody else sets another value, or none.
    Tamper(u8, Option<u8>),
}

fn some_step(tampers: bool) -> impl Strategy<Value = Step> {
    let value = || proptest::option::of(0..3_u8);
    let tamper = if tampers { 2 } else { 0 };
    prop_oneof![
        4 => (1..5_u8).prop_map(Step::See),
        4 => (1..5_u8).prop_map(Step::Compare),
        3 => (0..KEYS, value()).prop_map(|(key, value)| Step::Write(key, value)),
        1 => (0..KEYS, value()).prop_map(|(key, value)| Step::Fail(key, value)),
        tamper => (0..KEYS, value()).prop_map(|(key, value)| Step::Tamper(key, value)),
    ]
}

fn key(n: u8) -> Key {
    Key::Sysctl(Netns::Main, format!("{n:02}"))
}

fn object(n: u8, value: u8) -> Object {
    Object::Sysctl(Sysctl {
        netns: Netns::Main,
        path: format!("{n:02}"),
        value: value.to_string(),
    })
}

/// Where the look is.
#[derive(Debug)]
enum Stage {
    Seeing(u8, Standings),
    Comparing(Look),
}

/// Our side, and the kernel's.
#[derive(Debug, Default)]
struct World {
    kernel: Standings,
    known: Standings,
    desired: BTreeMap<Key, Object>,
    written: BTreeSet<Key>,
    stage: Option<Stage>,
    /// Written by a comparison's end.
    mended: usize,
    /// Of that, what was as desired.
    undue: BTreeSet<Key>,
    refused: BTreeSet<Key>,
    tampered: BTreeSet<Key>,
}

impl World {
    fn take(&mut self, step: Step) {
        match step {
            Step::See(many) => self.see(many),
            Step::Compare(many) => self.compare(many),
            Step::Write(n, value) => {
                self.desire(n, value);
                self.write(&[key(n)].into());
            }
            Step::Fail(n, value) => {
                self.desire(n, value);
                self.written.insert(key(n));
                self.refused.insert(key(n));
            }
            Step::Tamper(n, value) => {
                self.tampered.insert(key(n));
                put(&mut self.kernel, n, value.map(|v| object(n, v).into()));
            }
        }
    }

    fn desire(&mut self, n: u8, value: Option<u8>) {
        put(&mut self.desired, n, value.map(|v| object(n, v)));
    }

    /// As [`Kernel::reconcile_keys`] does; gives how much was written.
    fn write(&mut self, keys: &BTreeSet<Key>) -> usize {
        let ops = diff_keys(keys, &self.desired, &self.known);
        for op in &ops {
            let key = op.key();
            self.written.insert(key.clone());
            self.refused.remove(&key);
            self.tampered.remove(&key);
            for map in [&mut self.kernel, &mut self.known] {
                match op {
                    Op::Create(object) | Op::Replace { new: object, .. } => {
                        map.insert(key.clone(), object.clone().into());
                    }
                    Op::Delete(_) => drop(map.remove(&key)),
                }
            }
        }
        ops.len()
    }

    fn see(&mut self, many: u8) {
        let (from, mut seen) = match self.stage.take() {
            None => {
                self.written.clear();
                (0, Standings::new())
            }
            Some(Stage::Seeing(from, seen)) => (from, seen),
            comparing => {
                self.stage = comparing;
                return;
            }
        };
        let to = (from + many).min(KEYS);
        for n in from..to {
            if let Some(standing) = self.kernel.get(&key(n)) {
                seen.insert(key(n), standing.clone());
            }
        }
        self.stage = Some(match to {
            KEYS => Stage::Comparing(Look {
                seen,
                after: None,
                differing: BTreeSet::new(),
            }),
            _ => Stage::Seeing(to, seen),
        });
    }

    fn compare(&mut self, many: u8) {
        let Some(Stage::Comparing(look)) = &mut self.stage else {
            return;
        };
        let over = look.compare(
            &mut self.known,
            &self.desired,
            &self.written,
            usize::from(many),
        );
        if over {
            let differing = std::mem::take(&mut look.differing);
            self.stage = None;
            let due = |key: &Key| self.refused.contains(key) || self.tampered.contains(key);
            let ops = diff_keys(&differing, &self.desired, &self.known);
            let undue = ops.iter().map(Op::key).filter(|key| !due(key));
            self.undue.extend(undue);
            self.mended += self.write(&differing);
        }
    }

    /// A look from beginning to end, that nobody disturbs.
    fn look(&mut self) {
        self.stage = None;
        self.see(KEYS);
        while self.stage.is_some() {
            self.compare(1);
        }
    }

    fn is_right(&self) -> bool {
        let wanted = self.desired.iter();
        self.kernel == wanted.map(|(k, o)| (k.clone(), o.clone().into())).collect()
            && self.known == self.kernel
    }
}

fn put<T>(map: &mut BTreeMap<Key, T>, n: u8, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(key(n), value)),
        None => drop(map.remove(&key(n))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn our_own_writes_are_no_tampering(steps in vec(some_step(false), 1..60)) {
        let mut world = World::default();
        for step in steps {
            world.take(step);
            prop_assert!(world.undue.is_empty(), "{:?}", world.undue);
            for n in 0..KEYS {
                let key = key(n);
                if !world.refused.contains(&key) {
                    let wanted = world.desired.get(&key).cloned().map(Standing::As);
                    prop_assert_eq!(world.kernel.get(&key), wanted.as_ref());
                    prop_assert_eq!(world.known.get(&key), wanted.as_ref());
                }
            }
        }
        world.look();
        prop_assert!(world.is_right(), "{world:?}");
    }

    #[test]
    fn tampering_is_mended_and_nothing_is_written_twice(steps in vec(some_step(true), 1..60)) {
        let mut world = World::default();
        for step in steps {
            world.take(step);
            prop_assert!(world.undue.is_empty(), "{:?}", world.undue);
            // What nobody touched since we last wrote it stands as desired.
            for n in 0..KEYS {
                let key = key(n);
                if !world.refused.contains(&key) && !world.tampered.contains(&key) {
                    let wanted = world.desired.get(&key).cloned().map(Standing::As);
                    prop_assert_eq!(world.kernel.get(&key), wanted.as_ref());
                }
            }
        }
        world.look();
        prop_assert!(world.is_right(), "{world:?}");
        let before = world.mended;
        world.look();
        prop_assert_eq!(world.mended, before);
    }
}

#[test]
fn a_slice_is_as_long_as_was_asked_for() {
    let mut look = Look {
        seen: (0..10).map(|n| (key(n), object(n, 0).into())).collect(),
        after: None,
        differing: BTreeSet::new(),
    };
    let mut known = Standings::new();
    let none = (BTreeMap::new(), BTreeSet::new());
    assert!(!look.compare(&mut known, &none.0, &none.1, 4));
    assert_eq!((known.len(), look.seen.len()), (4, 6));
    assert!(!look.compare(&mut known, &none.0, &none.1, 4));
    assert!(look.compare(&mut known, &none.0, &none.1, 4));
    assert_eq!((known.len(), look.differing.len()), (10, 10));
}
