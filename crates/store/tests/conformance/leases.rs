//! Leases: grant, keep-alive, revocation, end.

use std::{sync::Arc, time::Duration};

use hextet_store::{Event, KeyRange, Op, Store, StoreError, Txn, WatchItem};
use hextet_types::Time;

use crate::on_each_back_end;

on_each_back_end! {
    a_lease_that_ends_takes_its_keys_in_one_transaction,
    a_lease_that_is_kept_alive_stays,
    revocation_is_an_end,
    a_key_is_on_the_lease_of_its_last_write,
    what_is_asked_of_no_lease_is_refused,
}

type Shared = Arc<dyn Store>;

const TTL: Duration = Duration::from_secs(10);

async fn count(store: &Shared) -> usize {
    store.range(KeyRange::all(), None).await.unwrap().kvs.len()
}

async fn a_lease_that_ends_takes_its_keys_in_one_transaction(store: Shared) {
    let lease = store.lease_grant(TTL).await.unwrap();
    let ops = [
        Op::put_leased("a", "", lease),
        Op::put_leased("b", "", lease),
        Op::put("c", ""),
    ];
    store.txn(Txn::of(ops)).await.unwrap();
    let mut watch = store.watch(KeyRange::all(), 2).await.unwrap();
    assert_eq!(
        watch.next().await.unwrap(),
        WatchItem::Progress { revision: 1 }
    );
    assert_eq!(
        store.tick(Time::from_secs(100)).await.unwrap(),
        [],
        "counts from here"
    );
    assert_eq!(store.tick(Time::from_millis(109_999)).await.unwrap(), []);
    assert_eq!(store.tick(Time::from_secs(110)).await.unwrap(), [lease]);
    let delete = |key: &'static str| Event::Delete { key: key.into() };
    let expected = WatchItem::Changes {
        revision: 2,
        events: vec![delete("a"), delete("b")],
    };
    assert_eq!(watch.next().await.unwrap(), expected);
    assert_eq!(count(&store).await, 1);
    assert_eq!(store.leases().await.unwrap(), []);
    assert_eq!(store.tick(Time::from_secs(200)).await.unwrap(), []);
}

async fn a_lease_that_is_kept_alive_stays(store: Shared) {
    let lease = store.lease_grant(TTL).await.unwrap();
    store
        .txn(Txn::of([Op::put_leased("a", "", lease)]))
        .await
        .unwrap();
    for secs in (0..100).step_by(10) {
        assert_eq!(
            store.tick(Time::from_secs(secs)).await.unwrap(),
            [],
            "at {secs}"
        );
        assert_eq!(store.lease_keep_alive(lease).await.unwrap(), TTL);
    }
    store.tick(Time::from_secs(100)).await.unwrap();
    assert_eq!(store.tick(Time::from_secs(110)).await.unwrap(), [lease]);
    assert_eq!(count(&store).await, 0);
    assert_eq!(store.revision().await.unwrap(), 2);
}

async fn revocation_is_an_end(store: Shared) {
    let lease = store.lease_grant(TTL).await.unwrap();
    let empty = store.lease_grant(TTL).await.unwrap();
    assert_ne!(lease, empty);
    store
        .txn(Txn::of([Op::put_leased("a", "", lease)]))
        .await
        .unwrap();
    assert_eq!(
        store.lease_revoke(empty).await.unwrap(),
        1,
        "no keys, no revision"
    );
    assert_eq!(store.lease_revoke(lease).await.unwrap(), 2);
    assert_eq!(count(&store).await, 0);
    assert_ne!(
        store.lease_grant(TTL).await.unwrap(),
        empty,
        "numbers are not used again"
    );
}

async fn a_key_is_on_the_lease_of_its_last_write(store: Shared) {
    let first = store.lease_grant(TTL).await.unwrap();
    let second = store.lease_grant(TTL).await.unwrap();
    let put = |key: &'static str, lease| Op::put_leased(key, "", lease);
    let ops = ["moved", "freed", "gone", "stays"].map(|key| put(key, first));
    store.txn(Txn::of(ops)).await.unwrap();
    store
        .txn(Txn::of([
            put("moved", second),
            Op::put("freed", ""),
            Op::delete("gone"),
        ]))
        .await
        .unwrap();
    let keys: Vec<_> = store
        .leases()
        .await
        .unwrap()
        .iter()
        .map(|l| (l.id, l.keys))
        .collect();
    assert_eq!(keys, [(first, 1), (second, 1)]);
    store.lease_revoke(first).await.unwrap();
    assert_eq!(count(&store).await, 2);
    store.lease_revoke(second).await.unwrap();
    let left = store.range(KeyRange::all(), None).await.unwrap().kvs;
    assert!(left.len() == 1 && left[0].key == "freed" && left[0].lease.is_none());
}

async fn what_is_asked_of_no_lease_is_refused(store: Shared) {
    let lease = store.lease_grant(TTL).await.unwrap();
    store.lease_revoke(lease).await.unwrap();
    let no_lease = |error| matches!(error, StoreError::LeaseNotFound(id) if id == lease);
    assert!(no_lease(store.lease_keep_alive(lease).await.unwrap_err()));
    assert!(no_lease(store.lease_revoke(lease).await.unwrap_err()));
    let txn = Txn::of([Op::put("a", ""), Op::put_leased("b", "", lease)]);
    assert!(no_lease(store.txn(txn).await.unwrap_err()));
    assert_eq!(count(&store).await, 0);
    assert!(store.lease_grant(Duration::ZERO).await.is_err());
    assert!(
        store
            .lease_grant(Duration::from_secs(86_401))
            .await
            .is_err()
    );
}
