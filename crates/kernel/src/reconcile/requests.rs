//! Operations on links, addresses, neighbours, routes and rules, as rtnetlink requests.

use hextet_model::state::{Key, Object, RouteKey};
use hextet_types::Family;

use super::{
    Namespace, Op,
    apply::{Fate, all_failed, judge},
    dump::xfrm_policies,
};
use crate::{
    error::{Error, Refusal},
    netlink::{Batch, Outcome},
    route::{Indexes, address, entry, fdb, link, neighbour, rule},
    xfrm,
};

/// Rules of one priority and mark that may have piled up.
const PILED_UP: usize = 16;

/// Operations that are one request each, or up to two for a link.
pub(super) fn apply_requests(namespace: &mut Namespace, run: &[Op], links: &Indexes) -> Vec<Fate> {
    let mut batch = Batch::default();
    let mut owners = Vec::with_capacity(run.len());
    let mut fates: Vec<Option<Fate>> = Vec::with_capacity(run.len());
    for (i, op) in run.iter().enumerate() {
        fates.push(write_request(
            namespace,
            &mut batch,
            op,
            links,
            entry::How::Create,
        ));
        owners.resize(batch.len(), i);
    }
    let outcome = match namespace.route.request(&mut batch) {
        Ok(outcome) => outcome,
        Err(e) => return all_failed(run, e),
    };
    let (exist, outcome) = split_existing_routes(outcome, &owners, run);
    for (request, refusal) in outcome {
        let Some(i) = owners.get(request).copied() else {
            continue;
        };
        if let (Some(op), Some(fate)) = (run.get(i), fates.get_mut(i)) {
            *fate = Some(judge(op, refusal));
        }
    }
    for (i, refusal) in exist {
        if let (Some(op), Some(fate)) = (run.get(i), fates.get_mut(i)) {
            *fate = Some(over_our_own(namespace, op, refusal, links));
        }
    }
    fates
        .into_iter()
        .map(|fate| fate.unwrap_or(Fate::Done))
        .collect()
}

/// Writes an operation's requests; where it needs none, its fate.
fn write_request(
    namespace: &Namespace,
    batch: &mut Batch,
    op: &Op,
    links: &Indexes,
    how: entry::How,
) -> Option<Fate> {
    let how = match op {
        Op::Replace { .. } => entry::How::Replace,
        _ => how,
    };
    let wait = Some(Fate::Waiting);
    match op {
        Op::Create(object) | Op::Replace { new: object, .. } => match object {
            Object::Link(o) => match links.get(&o.name) {
                Some(is) => link::set(batch, is, o, || namespace.set_group(&o.name, o.group)),
                None => return wait,
            },
            Object::Address(o) => match links.index(&o.link) {
                Some(index) => address::add(batch, index, o.addr, o.prefix_len),
                None => return wait,
            },
            Object::Neighbour(o) => match links.index(&o.link) {
                Some(index) => neighbour::set(batch, index, o.addr, o.mac),
                None => return wait,
            },
            Object::Proxy(o) => match links.index(&o.link) {
                Some(index) => neighbour::set_proxy(batch, index, o.addr),
                None => return wait,
            },
            Object::Fdb(o) => match links.index(&o.link) {
                Some(index) => fdb::set(batch, index, o.mac, o.dst),
                None => return wait,
            },
            Object::Route(o) => {
                if entry::put(batch, o, how, links).is_err() {
                    return wait;
                }
            }
            _ => return Some(Fate::Done),
        },
        Op::Delete(Key::Route(key)) => entry::delete(batch, key),
        Op::Delete(key) => {
            let Some(index) = key.link().and_then(|(_, link)| links.index(link)) else {
                return Some(Fate::Done);
            };
            match key {
                Key::Link(..) => link::leave(batch, index),
                Key::Address(_, _, addr, len) => address::delete(batch, index, *addr, *len),
                Key::Neighbour(_, _, addr) => neighbour::delete(batch, index, *addr),
                Key::Proxy(_, addr) => neighbour::delete_proxy(batch, index, *addr),
                Key::Fdb(_, _, mac) => fdb::delete(batch, index, *mac),
                _ => return Some(Fate::Done),
            }
        }
    }
    None
}

/// Takes the routes that could not be created because there is one out of an outcome.
fn split_existing_routes(
    outcome: Outcome,
    owners: &[usize],
    run: &[Op],
) -> (Vec<(usize, Refusal)>, Outcome) {
    let mut exist = Vec::new();
    let mut others = Vec::new();
    for (request, refusal) in outcome {
        let owner = owners.get(request).copied();
        match owner.and_then(|i| Some((i, run.get(i)?))) {
            Some((i, Op::Create(Object::Route(_)))) if refusal.errno == libc::EEXIST => {
                exist.push((i, refusal));
            }
            _ => others.push((request, refusal)),
        }
    }
    (exist, others)
}

/// A route that stands in the way of ours: if it is ours too (we had not seen it), it is replaced.
fn over_our_own(namespace: &mut Namespace, op: &Op, refusal: Refusal, links: &Indexes) -> Fate {
    let Some(Object::Route(wanted)) = op.object() else {
        return judge(op, refusal);
    };
    let mut request = Batch::default();
    entry::request_all(&mut request, wanted.key.prefix.family());
    let metric = match (wanted.key.metric, wanted.key.prefix.family()) {
        (0, Family::V6) => entry::DEFAULT_METRIC_V6,
        (metric, _) => metric,
    };
    let same = |key: &RouteKey| {
        let wanted = &wanted.key;
        (key.table, key.prefix, key.source, key.metric)
            == (wanted.table, wanted.prefix, wanted.source, metric)
    };
    let netns = &wanted.key.netns;
    let ours = namespace.route.dump(&mut request, |answer| {
        entry::read(answer, netns, links).filter(|(key, _)| same(key))
    });
    match ours {
        Ok(ours) if ours.is_empty() => judge(op, refusal),
        Ok(_) => {
            let mut batch = Batch::default();
            if let Some(fate) = write_request(namespace, &mut batch, op, links, entry::How::Replace)
            {
                return fate;
            }
            match namespace.route.request(&mut batch) {
                Ok(outcome) => match outcome.into_iter().next() {
                    Some((_, refusal)) => judge(op, refusal),
                    None => Fate::Done,
                },
                Err(e) => Fate::Failed(e),
            }
        }
        Err(e) => Fate::Failed(e),
    }
}

pub(super) fn apply_rule(namespace: &mut Namespace, op: &Op) -> Result<(), Error> {
    let old = match op {
        Op::Create(_) => None,
        _ => Some(op.key()),
    };
    if let Some(Key::Rule(_, family, priority, fwmark, iif)) = old {
        for _ in 0..PILED_UP {
            let mut batch = Batch::default();
            rule::delete(&mut batch, family, priority, fwmark, iif.as_ref());
            match namespace.route.request(&mut batch)?.into_iter().next() {
                None => {}
                Some((_, refusal)) if refusal.errno == libc::ENOENT => break,
                Some((_, refusal)) => return Err(refusal.of(op.to_string())),
            }
        }
    }
    if let Some(Object::Rule(rule)) = op.object() {
        let mut batch = Batch::default();
        rule::add(&mut batch, rule);
        match namespace.route.request(&mut batch)?.into_iter().next() {
            Some((_, refusal)) if refusal.errno != libc::EEXIST => {
                return Err(refusal.of(op.to_string()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Policies that differ in more than their mark can share it: all of them go.
pub(super) fn apply_xfrm_policy(namespace: &mut Namespace, op: &Op) -> Result<(), Error> {
    let mut batch = Batch::default();
    if let (Key::XfrmPolicy(_, family, mark), false) = (op.key(), matches!(op, Op::Create(_))) {
        let same = |is: &&xfrm::Found| (is.family, is.mark) == (family, mark);
        for is in xfrm_policies(namespace)?.iter().filter(same) {
            xfrm::delete(&mut batch, is);
        }
    }
    if let Some(Object::XfrmPolicy(policy)) = op.object() {
        xfrm::add(&mut batch, policy);
    }
    let refused = namespace.xfrm.request(&mut batch)?.into_iter();
    let mut serious = refused
        .map(|(_, refusal)| refusal)
        .filter(|refusal| !matches!(refusal.errno, libc::EEXIST | libc::ENOENT));
    match serious.next() {
        Some(refusal) => Err(refusal.of(op.to_string())),
        None => Ok(()),
    }
}
