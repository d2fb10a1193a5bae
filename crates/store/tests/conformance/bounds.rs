//! What happens at each bound, and above it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hextet_store::{Compare, KeyRange, Op, OpResponse, Store, StoreError, Txn, limits};

use crate::on_each_back_end;

on_each_back_end! {
    keys_and_values,
    operations,
    octets_of_a_transaction,
    changes_by_range,
    answers,
    keys_on_a_lease,
}

type Shared = Arc<dyn Store>;

fn octets(len: usize) -> Bytes {
    vec![b'x'; len].into()
}

async fn keys_and_values(store: Shared) {
    store
        .put(octets(limits::KEY_BYTES), octets(limits::VALUE_BYTES))
        .await
        .unwrap();
    let kv = store.get(octets(limits::KEY_BYTES)).await.unwrap().unwrap();
    assert_eq!(kv.value.len(), limits::VALUE_BYTES);
    let error = store
        .put(octets(limits::KEY_BYTES + 1), Bytes::new())
        .await
        .unwrap_err();
    assert!(
        matches!(error, StoreError::KeyTooLong { len: 1025, .. }),
        "{error}"
    );
    let error = store
        .put("k".into(), octets(limits::VALUE_BYTES + 1))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::ValueTooLong { .. }), "{error}");
    let error = store.put(Bytes::new(), Bytes::new()).await.unwrap_err();
    assert!(matches!(error, StoreError::KeyEmpty), "{error}");
    let too_long = KeyRange::prefix(octets(limits::KEY_BYTES + 1));
    assert!(store.range(too_long.clone(), None).await.is_err());
    assert!(store.scan(too_long.clone()).await.is_err());
    assert!(store.watch(too_long, 0).await.is_err());
    assert_eq!(store.revision().await.unwrap(), 1);
}

async fn operations(store: Shared) {
    let puts = |n| (0..n).map(|n: usize| Op::put(n.to_string(), ""));
    let absent = |n| {
        (0..n)
            .map(|n: usize| Compare::absent(n.to_string()))
            .collect::<Vec<_>>()
    };
    let mut full = Txn::of(puts(limits::TXN_OPS));
    full.compares = absent(limits::TXN_OPS);
    let result = store.txn(full).await.unwrap();
    assert!(result.succeeded);
    assert_eq!(result.responses.len(), limits::TXN_OPS);
    let compares = Txn {
        compares: absent(limits::TXN_OPS + 1),
        ..Txn::default()
    };
    for txn in [
        Txn::of(puts(limits::TXN_OPS + 1)),
        Txn::default().or_else(puts(limits::TXN_OPS + 1)),
        compares,
    ] {
        let error = store.txn(txn).await.unwrap_err();
        assert!(
            matches!(error, StoreError::TooManyOps { count: 4097, .. }),
            "{error}"
        );
    }
}

async fn octets_of(store: &Shared, last: usize) -> hextet_store::Result<u64> {
    let value = octets(limits::VALUE_BYTES);
    let mut ops: Vec<_> = (0..15)
        .map(|n| Op::put(format!("{n:02}"), value.clone()))
        .collect();
    ops.push(Op::put("15", octets(last)));
    store.txn(Txn::of(ops)).await.map(|result| result.revision)
}

async fn octets_of_a_transaction(store: Shared) {
    let keys = 16 * 2;
    assert_eq!(
        octets_of(&store, limits::VALUE_BYTES - keys).await.unwrap(),
        1
    );
    let error = octets_of(&store, limits::VALUE_BYTES - keys + 1)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::TxnTooLarge { bytes } if bytes == limits::TXN_BYTES + 1));
}

async fn changes_by_range(store: Shared) {
    for part in 0..4 {
        let ops = (0..4096).map(|n| Op::put(format!("p/{part}/{n:04}"), ""));
        store.txn(Txn::of(ops)).await.unwrap();
    }
    let delete_all = || Txn::of([Op::delete_prefix("p/")]);
    store.put("p/more".into(), "".into()).await.unwrap();
    let error = store.txn(delete_all()).await.unwrap_err();
    assert!(matches!(error, StoreError::TooManyChanges), "{error}");
    store.delete("p/more".into()).await.unwrap();
    let result = store.txn(delete_all()).await.unwrap();
    assert_eq!(
        result.responses,
        [OpResponse::Delete {
            deleted: limits::TXN_CHANGES as u64
        }]
    );
}

async fn answers(store: Shared) {
    octets_of(&store, limits::VALUE_BYTES - 32).await.unwrap();
    let all = || store.range(KeyRange::all(), None);
    assert_eq!(all().await.unwrap().kvs.len(), 16);
    store.put("16".into(), "".into()).await.unwrap();
    let error = all().await.unwrap_err();
    assert!(
        matches!(error, StoreError::AnswerTooLarge { .. }),
        "{error}"
    );
    assert!(store.txn(Txn::of([Op::get_prefix("")])).await.is_err());
    assert!(store.range(KeyRange::all(), Some(16)).await.unwrap().more);
}

async fn keys_on_a_lease(store: Shared) {
    let lease = store.lease_grant(Duration::from_secs(1)).await.unwrap();
    let fill = (0..limits::LEASE_KEYS).map(|n| Op::put_leased(n.to_string(), "", lease));
    let fill: Vec<_> = fill.collect();
    store.txn(Txn::of(fill.clone())).await.unwrap();
    store.txn(Txn::of(fill)).await.unwrap();
    let error = store
        .txn(Txn::of([Op::put_leased("more", "", lease)]))
        .await
        .unwrap_err();
    assert!(
        matches!(error, StoreError::LeaseFull(id) if id == lease),
        "{error}"
    );
    store.delete("0".into()).await.unwrap();
    store
        .txn(Txn::of([Op::put_leased("more", "", lease)]))
        .await
        .unwrap();
    assert_eq!(store.leases().await.unwrap()[0].keys, limits::LEASE_KEYS);
}
