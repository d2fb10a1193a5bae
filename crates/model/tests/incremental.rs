//! What a planner holds after any changes is what planning from scratch gives.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use std::collections::BTreeSet;

use hextet_model::{
    intent::{Change, Intent},
    plan::{Planner, plan},
    state::{Changed, HostState, Netns, table_text},
};
use proptest::{collection::vec, prelude::*};
use world::{any_config, some_change};

fn differing<K: Ord + Clone, V: PartialEq>(
    a: &std::collections::BTreeMap<K, V>,
    b: &std::collections::BTreeMap<K, V>,
) -> BTreeSet<K> {
    let keys = a.keys().chain(b.keys()).cloned();
    keys.filter(|key| a.get(key) != b.get(key)).collect()
}

fn assert_changed(before: &HostState, after: &HostState, changed: &Changed) {
    assert_eq!(changed.objects, differing(&before.objects, &after.objects));
    assert_eq!(
        changed.announce,
        differing(&before.announce, &after.announce)
    );
    assert_eq!(
        changed.responders,
        differing(&before.responders, &after.responders)
    );
}

/// Rules lead to chains and look into sets that are there; else the kernel refuses the whole.
fn assert_whole(state: &HostState) {
    let objects = || state.objects.values();
    let places: BTreeSet<Netns> = objects().map(|o| o.key().netns().clone()).collect();
    for netns in places {
        let text = table_text(objects(), &netns);
        let words: Vec<&str> = text.split_whitespace().collect();
        let after = |of: &[&str]| -> BTreeSet<&str> {
            let pairs = words.windows(2).filter(|pair| of.contains(&pair[0]));
            pairs.map(|pair| pair[1].trim_end_matches(',')).collect()
        };
        let chains = after(&["chain"]);
        let sets = after(&["set", "map"]);
        let looked_into = words.iter().filter_map(|word| word.strip_prefix('@'));
        assert!(after(&["goto", "jump"]).is_subset(&chains), "{text}");
        assert!(
            looked_into.collect::<BTreeSet<_>>().is_subset(&sets),
            "{text}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn incremental_equals_recomputed_after_every_step(
        config in any_config(),
        changes in vec(some_change(), 100),
    ) {
        let mut planner = Planner::new(config.clone());
        let mut intent = Intent::default();
        let mut before = planner.state().clone();
        for change in changes {
            intent.apply(change.clone());
            let changed = planner.apply(change.clone());
            let fresh = plan(&intent, &config);
            prop_assert!(
                planner.state() == &fresh,
                "{:?} after {change:?}",
                differing(&planner.state().objects, &fresh.objects)
            );
            assert_changed(&before, &fresh, &changed);
            before = fresh;
        }
        assert_whole(&before);
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn steps_taken_as_one_lead_to_the_same(
        config in any_config(),
        groups in vec(vec(some_change(), 0..12), 1..8),
    ) {
        let mut planner = Planner::new(config.clone());
        let mut intent = Intent::default();
        for changes in groups {
            let before = planner.state().clone();
            changes.iter().cloned().for_each(|change| intent.apply(change));
            let changed = planner.apply_all(changes);
            assert_changed(&before, planner.state(), &changed);
            prop_assert!(planner.state() == &plan(&intent, &config));
        }
    }

    #[test]
    fn one_intent_leads_to_another(
        config in any_config(),
        first in vec(some_change(), 0..30),
        second in vec(some_change(), 0..30),
    ) {
        let [first, second] = [first, second].map(|changes| {
            let mut intent = Intent::default();
            changes.into_iter().for_each(|change| intent.apply(change));
            intent
        });
        let mut planner = Planner::new(config.clone());
        planner.replace(&first);
        planner.replace(&second);
        prop_assert_eq!(planner.intent(), &second);
        prop_assert!(planner.state() == &plan(&second, &config));
        prop_assert_eq!(planner.replace(&second), Changed::default());
        prop_assert_eq!(second.changes_to(&second), Vec::<Change>::new());
    }
}
