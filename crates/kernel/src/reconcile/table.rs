//! The nftables part of a namespace, in one transaction.

use hextet_model::state::{Chain, Element, Key, Object, TABLE};

use super::{
    Namespace, Op, Standing,
    apply::{Fate, all_failed, withheld},
};
use crate::{
    error::{Error, Refusal},
    nft::{self, Change, Exists},
};

/// So many changes in a transaction are notified of.
const LOUD: usize = 256;

pub(super) fn apply_table(namespace: &mut Namespace, run: &[Op]) -> Vec<Fate> {
    let changes: Vec<Change<'_>> = run.iter().filter_map(change).collect();
    if let Err(e) = learn_sets(namespace, run) {
        return all_failed(run, e);
    }
    let refused = match transact(namespace, &changes) {
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
    if run.iter().any(|op| {
        matches!(
            op,
            Op::Delete(Key::Limiter(..) | Key::Counter(..) | Key::Set(..) | Key::Chain(..))
        )
    }) {
        let emptied = nft::table_use(&mut namespace.nft);
        if let Ok(Some(0)) = emptied
            && let Err(e) = nft::delete_table(&mut namespace.nft, TABLE)
        {
            tracing::warn!(error = %e, "the empty table stays");
        }
    }
    run.iter().map(|_| Fate::Done).collect()
}

/// Above so many changes nobody is to hear of them, ourselves included; whether somebody else changed
/// tables meanwhile the generation tells.
fn transact(
    namespace: &mut Namespace,
    changes: &[Change<'_>],
) -> Result<Vec<(usize, Refusal)>, Error> {
    let Namespace { nft, sets, .. } = namespace;
    let key_types = |name: &_| sets.get(name).cloned();
    let hearing = match &namespace.hearing {
        Some(hearing) if changes.len() > LOUD => hearing,
        _ => return nft::transact(nft, changes, key_types),
    };
    let before = nft::generation(nft)?;
    hearing.set(false)?;
    let refused = nft::transact(nft, changes, key_types);
    hearing.set(true)?;
    let ours = match &refused {
        Ok(refused) if refused.is_empty() => before.checked_add(1).unwrap_or(1),
        _ => before,
    };
    namespace.disturbed |= nft::generation(nft)? != ours;
    refused
}

/// Asks for the keys of sets whose elements change and that we have not seen.
fn learn_sets(namespace: &mut Namespace, run: &[Op]) -> Result<(), Error> {
    for op in run {
        let set = match op {
            Op::Delete(Key::Element(_, set, _))
            | Op::Create(Object::Element(_, Element { set, .. }))
            | Op::Replace {
                new: Object::Element(_, Element { set, .. }),
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
            Object::Limiter(_, limiter) => Change::Limiter(limiter, replaces),
            Object::Counter(_, name) => Change::Counter(name),
            Object::Set(_, set) => Change::Set(set, replaces),
            Object::Chain(_, chain) => Change::Chain(chain, exists(op, chain)),
            Object::Element(_, element) => Change::Element(element, replaces),
            _ => return None,
        },
        Op::Delete(Key::Limiter(_, name)) => Change::NoLimiter(name),
        Op::Delete(Key::Counter(_, name)) => Change::NoCounter(name),
        Op::Delete(Key::Set(_, name)) => Change::NoSet(name),
        Op::Delete(Key::Chain(_, name)) => Change::NoChain(name),
        Op::Delete(Key::Element(_, set, key)) => Change::NoElement(set, key),
        Op::Delete(_) => return None,
    })
}

fn exists(op: &Op, chain: &Chain) -> Exists {
    match op {
        Op::Replace {
            was: Standing::As(Object::Chain(_, old)),
            ..
        } => {
            let place = |c: &Chain| c.hook.map(|hook| (hook.hook, hook.priority, hook.nat));
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
