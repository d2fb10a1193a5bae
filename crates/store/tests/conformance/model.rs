//! Random requests, against the plainest thing that could answer them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use hextet_store::{
    Check, Compare, Event, Image, KeyRange, KeyValue, Lease, LeaseId, Op, OpResponse, Relation,
    Store, StoreError, Txn, TxnResult, WatchItem, dump, load, read_image,
};
use hextet_types::Time;
use proptest::{collection::vec, prelude::*};

#[derive(Clone, Debug)]
enum Step {
    Txn(Txn),
    Grant(u64),
    KeepAlive(u64),
    Revoke(u64),
    Tick(u64),
    Compact(u64),
    Reload,
}

/// All keys are short words over three letters, so that requests meet.
fn key() -> impl Strategy<Value = Bytes> {
    "[abc]{1,2}".prop_map(Bytes::from)
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(KeyRange::key),
        2 => "[abc]{0,1}".prop_map(KeyRange::prefix),
        1 => (key(), key()).prop_map(|(start, end)| KeyRange::between(start, end)),
        1 => key().prop_map(KeyRange::from),
    ]
}

fn relation() -> impl Strategy<Value = Relation> {
    use Relation::{Equal, Greater, Less, NotEqual};
    prop::sample::select(vec![Equal, NotEqual, Less, Greater])
}

fn check() -> impl Strategy<Value = Check> {
    prop_oneof![
        Just(Check::Exists),
        Just(Check::Absent),
        (relation(), 0u64..20).prop_map(|(relation, n)| Check::ModRevision(relation, n)),
        (relation(), 0u64..20).prop_map(|(relation, n)| Check::CreateRevision(relation, n)),
        (relation(), 0u64..4).prop_map(|(relation, n)| Check::Version(relation, n)),
        (relation(), "[xy]?").prop_map(|(relation, v)| Check::Value(relation, v.into())),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let lease = prop_oneof![3 => Just(None), 1 => (1u64..5).prop_map(LeaseId::new)];
    let put = (key(), "[xy]?", lease);
    prop_oneof![
        4 => put.prop_map(|(key, value, lease)| Op::Put { key, value: value.into(), lease }),
        2 => range().prop_map(|range| Op::Delete { range }),
        2 => (range(), prop::option::of(0usize..4)).prop_map(|(range, limit)| Op::Get { range, limit }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let compare = (range(), check()).prop_map(|(range, check)| Compare { range, check });
    let txn = (vec(compare, 0..3), vec(op(), 0..4), vec(op(), 0..3));
    prop_oneof![
        12 => txn.prop_map(|(compares, success, failure)| Step::Txn(Txn { compares, success, failure })),
        2 => (0u64..4).prop_map(Step::Grant),
        1 => (1u64..6).prop_map(Step::KeepAlive),
        1 => (1u64..6).prop_map(Step::Revoke),
        2 => (0u64..3).prop_map(Step::Tick),
        1 => (0u64..20).prop_map(Step::Compact),
        1 => Just(Step::Reload),
    ]
}

#[derive(Default)]
struct Model {
    revision: u64,
    compacted: u64,
    kvs: BTreeMap<Bytes, KeyValue>,
    history: Vec<(u64, Vec<Event>)>,
    /// Time to live, and when it ends if the clock has ticked since.
    leases: BTreeMap<LeaseId, (u64, Option<u64>)>,
    granted: u64,
    now: u64,
}

impl Model {
    fn within(&self, range: &KeyRange) -> Vec<KeyValue> {
        self.kvs
            .values()
            .filter(|kv| range.contains(&kv.key))
            .cloned()
            .collect()
    }

    /// `None` where the store must refuse.
    fn txn(&mut self, txn: &Txn) -> Option<TxnResult> {
        txn.check().ok()?;
        let succeeded = txn.compares.iter().all(|compare| {
            let kvs = self.within(&compare.range);
            let none = kvs.is_empty() && compare.check.holds(None);
            none || !kvs.is_empty() && kvs.iter().all(|kv| compare.check.holds(Some(kv)))
        });
        let ops = if succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        let before: Vec<_> = ops.iter().map(|op| self.read(op)).collect();
        let leased = |op: &Op| match op {
            Op::Put {
                lease: Some(id), ..
            } => self.leases.contains_key(id),
            _ => true,
        };
        if !ops.iter().all(leased) {
            return None;
        }
        let mut events = Vec::new();
        let mut responses = Vec::new();
        for (op, read) in ops.iter().zip(before) {
            responses.push(match read {
                Some(read) => read,
                None => self.write(op, &mut events),
            });
        }
        self.record(events);
        Some(TxnResult {
            succeeded,
            revision: self.revision,
            responses,
        })
    }

    fn read(&self, op: &Op) -> Option<OpResponse> {
        let Op::Get { range, limit } = op else {
            return None;
        };
        let mut kvs = self.within(range);
        let more = limit.is_some_and(|limit| kvs.len() > limit);
        kvs.truncate(limit.unwrap_or(usize::MAX));
        Some(OpResponse::Get { kvs, more })
    }

    fn write(&mut self, op: &Op, events: &mut Vec<Event>) -> OpResponse {
        let mod_revision = self.revision + 1;
        match op.clone() {
            Op::Put { key, value, lease } => {
                let (create_revision, version) = match self.kvs.get(&key) {
                    Some(kv) => (kv.create_revision, kv.version + 1),
                    None => (mod_revision, 1),
                };
                let kv = KeyValue {
                    key,
                    value,
                    create_revision,
                    mod_revision,
                    version,
                    lease,
                };
                self.kvs.insert(kv.key.clone(), kv.clone());
                events.push(Event::Put(kv));
                OpResponse::Put
            }
            Op::Delete { range } => {
                let gone = self.within(&range);
                for kv in &gone {
                    self.kvs.remove(&kv.key);
                    events.push(Event::Delete {
                        key: kv.key.clone(),
                    });
                }
                OpResponse::Delete {
                    deleted: gone.len() as u64,
                }
            }
            Op::Get { .. } => unreachable!("reads came before"),
        }
    }

    fn record(&mut self, events: Vec<Event>) {
        if !events.is_empty() {
            self.revision += 1;
            self.history.push((self.revision, events));
        }
    }

    fn end_lease(&mut self, id: LeaseId) -> bool {
        if self.leases.remove(&id).is_none() {
            return false;
        }
        let mut events = Vec::new();
        self.kvs.retain(|key, kv| {
            let stays = kv.lease != Some(id);
            if !stays {
                events.push(Event::Delete { key: key.clone() });
            }
            stays
        });
        self.record(events);
        true
    }

    fn tick(&mut self, secs: u64) -> Vec<LeaseId> {
        self.now += secs;
        let mut over = Vec::new();
        for (&id, (ttl, end)) in &mut self.leases {
            let end = *end.get_or_insert(self.now + *ttl);
            if end <= self.now {
                over.push((end, id));
            }
        }
        over.sort_unstable();
        over.iter().for_each(|(_, id)| assert!(self.end_lease(*id)));
        over.into_iter().map(|(_, id)| id).collect()
    }

    fn leases(&self) -> Vec<Lease> {
        let keys = |id| self.kvs.values().filter(|kv| kv.lease == Some(id)).count();
        let lease = |(&id, &(ttl, _)): (&LeaseId, &(u64, _))| Lease {
            id,
            ttl: Duration::from_secs(ttl),
            keys: u32::try_from(keys(id)).unwrap(),
        };
        self.leases.iter().map(lease).collect()
    }
}

fn id(n: u64) -> LeaseId {
    LeaseId::new(n).unwrap()
}

async fn apply(store: &Arc<dyn Store>, model: &mut Model, step: Step) {
    match step {
        Step::Txn(txn) => {
            let result = store.txn(txn.clone()).await;
            assert_eq!(
                result.as_ref().ok(),
                model.txn(&txn).as_ref(),
                "{txn:?}: {result:?}"
            );
        }
        Step::Grant(ttl) => {
            let granted = store.lease_grant(Duration::from_secs(ttl)).await.ok();
            if ttl > 0 {
                model.granted += 1;
                model.leases.insert(id(model.granted), (ttl, None));
            }
            assert_eq!(granted, (ttl > 0).then(|| id(model.granted)));
        }
        Step::KeepAlive(n) => {
            let ttl = store.lease_keep_alive(id(n)).await.ok();
            let expected = model.leases.get_mut(&id(n)).map(|(ttl, end)| {
                *end = None;
                Duration::from_secs(*ttl)
            });
            assert_eq!(ttl, expected);
        }
        Step::Revoke(n) => {
            let revision = store.lease_revoke(id(n)).await.ok();
            assert_eq!(revision, model.end_lease(id(n)).then_some(model.revision));
        }
        Step::Tick(secs) => {
            let now = Time::from_secs(model.now + secs);
            assert_eq!(store.tick(now).await.unwrap(), model.tick(secs));
        }
        Step::Compact(revision) => {
            let compacted = store.compact(revision).await.ok();
            if revision <= model.revision {
                model.compacted = model.compacted.max(revision);
            }
            assert_eq!(
                compacted,
                (revision <= model.revision).then_some(model.compacted)
            );
        }
        Step::Reload => reload(store, model).await,
    }
}

/// A dump holds what the model holds, and loading it over itself changes only the revision.
async fn reload(store: &Arc<dyn Store>, model: &mut Model) {
    let mut text = Vec::new();
    dump(store.as_ref(), &mut text).await.unwrap();
    let counted = |lease: Lease| Lease { keys: 0, ..lease };
    let expected = Image {
        revision: model.revision,
        leases: model.leases().into_iter().map(counted).collect(),
        kvs: model.kvs.values().cloned().collect(),
    };
    assert_eq!(read_image(text.as_slice()).unwrap(), expected);
    let empty = model.kvs.is_empty() && model.leases.is_empty();
    assert_eq!(
        load(store.as_ref(), text.as_slice(), false).await.is_ok(),
        empty
    );
    if !empty {
        load(store.as_ref(), text.as_slice(), true).await.unwrap();
    }
    model.revision += u64::from(model.revision > 0);
    model.compacted = model.revision;
    model.leases.values_mut().for_each(|(_, end)| *end = None);
}

async fn compare(store: &Arc<dyn Store>, model: &Model) {
    let all = store.range(KeyRange::all(), None).await.unwrap();
    assert_eq!(all.revision, model.revision);
    assert!(all.kvs.iter().eq(model.kvs.values()), "{:?}", all.kvs);
    assert_eq!(store.leases().await.unwrap(), model.leases());
}

async fn compare_watch(store: &Arc<dyn Store>, model: &Model, range: KeyRange, from: u64) {
    let opened = store.watch(range.clone(), from).await;
    if from <= model.compacted {
        assert!(
            matches!(opened, Err(StoreError::Compacted { .. })),
            "from {from}"
        );
        return;
    }
    let mut watch = opened.unwrap();
    for (revision, events) in model
        .history
        .iter()
        .filter(|(revision, _)| *revision >= from)
    {
        let within = |event: &&Event| range.contains(event.key());
        let events: Vec<_> = events.iter().filter(within).cloned().collect();
        if !events.is_empty() {
            let item = WatchItem::Changes {
                revision: *revision,
                events,
            };
            assert_eq!(watch.next().await.unwrap(), item);
        }
    }
}

async fn check_all(store: Arc<dyn Store>, steps: Vec<Step>, watched: KeyRange) {
    let mut model = Model::default();
    for step in steps {
        apply(&store, &mut model, step).await;
        compare(&store, &model).await;
    }
    for from in 1..=model.revision {
        compare_watch(&store, &model, watched.clone(), from).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn memory_answers_as_the_model_does(steps in vec(step(), 1..50), watched in range()) {
        crate::run(crate::memory(), |store| check_all(store, steps, watched));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn redb_answers_as_the_model_does(steps in vec(step(), 1..50), watched in range()) {
        crate::run(crate::redb(), |store| check_all(store, steps, watched));
    }
}
