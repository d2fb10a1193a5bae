//! Compares, operations, revisions, ranges.

use std::sync::Arc;

use hextet_store::{
    Check, Compare, KeyRange, KeyValue, Op, OpResponse, Relation, Store, StoreError, Txn,
};

use crate::on_each_back_end;

on_each_back_end! {
    a_key_knows_its_history,
    every_check_of_a_compare,
    compares_of_ranges,
    one_of_two_branches_is_done,
    a_transaction_reads_what_was_before_it,
    what_changes_nothing_makes_no_revision,
    ranges_are_in_order_and_limited,
    writing_a_key_twice_is_refused,
    of_concurrent_creations_one_wins,
    a_refused_transaction_leaves_the_others_alone,
    a_scan_is_of_one_revision,
}

type Shared = Arc<dyn Store>;

async fn keys(store: &Shared, range: KeyRange) -> Vec<String> {
    let kvs = store.range(range, None).await.unwrap().kvs;
    kvs.iter()
        .map(|kv| String::from_utf8_lossy(&kv.key).into_owned())
        .collect()
}

async fn a_key_knows_its_history(store: Shared) {
    assert_eq!(store.revision().await.unwrap(), 0);
    assert_eq!(store.put("a".into(), "1".into()).await.unwrap(), 1);
    assert_eq!(store.put("b".into(), "1".into()).await.unwrap(), 2);
    assert_eq!(store.put("a".into(), "2".into()).await.unwrap(), 3);
    let a = KeyValue {
        key: "a".into(),
        value: "2".into(),
        create_revision: 1,
        mod_revision: 3,
        version: 2,
        lease: None,
    };
    assert_eq!(store.get("a".into()).await.unwrap(), Some(a));
    assert_eq!(store.delete("a".into()).await.unwrap(), 4);
    assert_eq!(store.get("a".into()).await.unwrap(), None);
    store.put("a".into(), "3".into()).await.unwrap();
    let a = store.get("a".into()).await.unwrap().unwrap();
    assert_eq!((a.create_revision, a.mod_revision, a.version), (5, 5, 1));
    assert_eq!(store.revision().await.unwrap(), 5);
}

async fn every_check_of_a_compare(store: Shared) {
    use Relation::{Equal, Greater, Less, NotEqual};
    store.put("x".into(), "-".into()).await.unwrap();
    store.put("k".into(), "m".into()).await.unwrap();
    store.put("k".into(), "m".into()).await.unwrap();
    // k: made by 2, written by 3, version 2. Beside each check: of k, of a key that is not there.
    let cases = [
        (Check::Exists, true, false),
        (Check::Absent, false, true),
        (Check::ModRevision(Equal, 3), true, false),
        (Check::ModRevision(NotEqual, 3), false, true),
        (Check::ModRevision(Less, 3), false, true),
        (Check::ModRevision(Less, 4), true, true),
        (Check::ModRevision(Greater, 2), true, false),
        (Check::ModRevision(Equal, 0), false, true),
        (Check::CreateRevision(Equal, 2), true, false),
        (Check::CreateRevision(Greater, 2), false, false),
        (Check::Version(Equal, 2), true, false),
        (Check::Version(Less, 1), false, true),
        (Check::Value(Equal, "m".into()), true, false),
        (Check::Value(NotEqual, "m".into()), false, false),
        (Check::Value(NotEqual, "n".into()), true, false),
        (Check::Value(Less, "n".into()), true, false),
        (Check::Value(Greater, "ma".into()), false, false),
    ];
    for (check, of_k, of_none) in cases {
        for (key, expected) in [("k", of_k), ("none", of_none)] {
            let range = KeyRange::key(key);
            let txn = Txn::default().when(Compare {
                range,
                check: check.clone(),
            });
            let result = store.txn(txn).await.unwrap();
            assert_eq!(result.succeeded, expected, "{check:?} of {key}");
        }
    }
}

async fn compares_of_ranges(store: Shared) {
    store
        .txn(Txn::of([Op::put("p/1", ""), Op::put("p/2", "")]))
        .await
        .unwrap();
    store.put("p/2".into(), "".into()).await.unwrap();
    let cases = [
        ("p/", Check::Exists, true),
        ("p/", Check::Absent, false),
        ("q/", Check::Absent, true),
        ("q/", Check::Exists, false),
        ("p/", Check::ModRevision(Relation::Less, 3), true),
        ("p/", Check::ModRevision(Relation::Less, 2), false),
        ("q/", Check::ModRevision(Relation::Less, 1), true),
    ];
    for (prefix, check, expected) in cases {
        let txn = Txn::default().when(Compare {
            range: KeyRange::prefix(prefix),
            check,
        });
        assert_eq!(
            store.txn(txn.clone()).await.unwrap().succeeded,
            expected,
            "{txn:?}"
        );
    }
}

async fn one_of_two_branches_is_done(store: Shared) {
    let txn = || {
        Txn::of([Op::put("k", "first"), Op::put("l", "")])
            .when(Compare::absent("k"))
            .or_else([Op::get("k"), Op::delete("l"), Op::put("n", "")])
    };
    let result = store.txn(txn()).await.unwrap();
    assert!(result.succeeded);
    assert_eq!(result.responses, [OpResponse::Put, OpResponse::Put]);
    let result = store.txn(txn()).await.unwrap();
    assert!(!result.succeeded);
    assert_eq!(result.revision, 2);
    assert!(matches!(&result.responses[0], OpResponse::Get { kvs, more: false } if kvs.len() == 1));
    assert_eq!(
        result.responses[1..],
        [OpResponse::Delete { deleted: 1 }, OpResponse::Put]
    );
    assert_eq!(keys(&store, KeyRange::all()).await, ["k", "n"]);
    let unchanged = Compare::unchanged("n", 2);
    let txn = Txn::of([Op::put("n", "new")])
        .when(unchanged)
        .when(Compare::exists("n"));
    assert!(store.txn(txn.clone()).await.unwrap().succeeded);
    assert!(!store.txn(txn).await.unwrap().succeeded);
}

async fn a_transaction_reads_what_was_before_it(store: Shared) {
    store.put("a".into(), "old".into()).await.unwrap();
    let ops = [Op::put("a", "new"), Op::put("b", "new"), Op::get_prefix("")];
    let result = store.txn(Txn::of(ops)).await.unwrap();
    let OpResponse::Get { kvs, .. } = &result.responses[2] else {
        panic!("{result:?}")
    };
    assert_eq!(kvs.len(), 1);
    assert_eq!(kvs[0].value, "old");
}

async fn what_changes_nothing_makes_no_revision(store: Shared) {
    store.put("a".into(), "".into()).await.unwrap();
    for txn in [
        Txn::default(),
        Txn::of([Op::get("a")]),
        Txn::of([Op::delete("none"), Op::delete_prefix("none/")]),
        Txn::of([Op::put("a", "")]).when(Compare::absent("a")),
    ] {
        assert_eq!(store.txn(txn).await.unwrap().revision, 1);
    }
    assert_eq!(
        store.put("a".into(), "".into()).await.unwrap(),
        2,
        "a put always is a change"
    );
}

async fn ranges_are_in_order_and_limited(store: Shared) {
    let names = ["a", "b/1", "b/10", "b/2", "b0", "c"];
    store
        .txn(Txn::of(names.iter().rev().map(|&name| Op::put(name, ""))))
        .await
        .unwrap();
    for (range, expected) in [
        (KeyRange::all(), &names[..]),
        (KeyRange::prefix("b/"), &names[1..4]),
        (KeyRange::between("b", "c"), &names[1..5]),
        (KeyRange::between("c", "b"), &[]),
        (KeyRange::between("b", "b"), &[]),
        (KeyRange::from("b0"), &names[4..]),
        (KeyRange::key("b/1"), &names[1..2]),
    ] {
        assert_eq!(keys(&store, range.clone()).await, expected, "{range:?}");
    }
    for (limit, count, more) in [(0, 0, true), (2, 2, true), (3, 3, false), (4, 3, false)] {
        let result = store
            .range(KeyRange::prefix("b/"), Some(limit))
            .await
            .unwrap();
        assert_eq!(
            (result.kvs.len(), result.more, result.revision),
            (count, more, 1)
        );
    }
    let ops = [
        Op::delete_prefix("b/"),
        Op::Delete {
            range: KeyRange::between("b", "c"),
        },
    ];
    let result = store.txn(Txn::of(ops)).await.unwrap();
    let deleted = [
        OpResponse::Delete { deleted: 3 },
        OpResponse::Delete { deleted: 1 },
    ];
    assert_eq!(
        result.responses, deleted,
        "what two ranges share is deleted once"
    );
    assert_eq!(keys(&store, KeyRange::all()).await, ["a", "c"]);
}

async fn writing_a_key_twice_is_refused(store: Shared) {
    for ops in [
        vec![Op::put("a", ""), Op::put("a", "")],
        vec![Op::put("p/a", ""), Op::delete_prefix("p/")],
        vec![Op::delete("a"), Op::put("a", "")],
    ] {
        let txn = Txn::of(ops.clone());
        let error = store.txn(txn).await.unwrap_err();
        assert!(
            matches!(error, StoreError::DuplicateKey { .. }),
            "{ops:?}: {error}"
        );
        let unused = Txn::default().or_else(ops);
        assert!(
            store.txn(unused).await.is_err(),
            "also in a branch that is not done"
        );
    }
    assert_eq!(store.revision().await.unwrap(), 0);
}

async fn of_concurrent_creations_one_wins(store: Shared) {
    let mut tasks = Vec::new();
    for n in 0..64 {
        let store = Arc::clone(&store);
        let txn = Txn::of([Op::put("address", n.to_string())]).when(Compare::absent("address"));
        tasks.push(tokio::spawn(async move {
            store.txn(txn).await.unwrap().succeeded
        }));
    }
    let mut winners = 0;
    for task in tasks {
        winners += u32::from(task.await.unwrap());
    }
    assert_eq!(winners, 1);
    assert_eq!(store.revision().await.unwrap(), 1);
}

async fn a_refused_transaction_leaves_the_others_alone(store: Shared) {
    let no_lease = hextet_store::LeaseId::new(77).unwrap();
    let mut tasks = Vec::new();
    for n in 0..60 {
        let store = Arc::clone(&store);
        let (first, second) = (format!("{n}/1"), format!("{n}/2"));
        let txn = Txn::of(if n % 3 == 0 {
            [Op::put(first, ""), Op::put_leased(second, "", no_lease)]
        } else {
            [Op::put(first, ""), Op::put(second, "")]
        });
        tasks.push(tokio::spawn(async move { store.txn(txn).await }));
    }
    let mut refused = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => {}
            Err(StoreError::LeaseNotFound(id)) if id == no_lease => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(refused, 20);
    assert_eq!(store.revision().await.unwrap(), 40);
    assert_eq!(keys(&store, KeyRange::all()).await.len(), 80);
}

async fn a_scan_is_of_one_revision(store: Shared) {
    for part in 0..2 {
        let ops = (0..1500).map(|n| Op::put(format!("{part}/{n:04}"), "old"));
        store.txn(Txn::of(ops)).await.unwrap();
    }
    let mut scan = store.scan(KeyRange::prefix("1/")).await.unwrap();
    store.txn(Txn::of([Op::delete_prefix("1/")])).await.unwrap();
    assert_eq!(scan.revision(), 2);
    let mut seen = Vec::new();
    loop {
        let kvs = scan.next().await.unwrap();
        if kvs.is_empty() {
            break;
        }
        seen.extend(kvs);
    }
    let expected: Vec<_> = (0..1500).map(|n| format!("1/{n:04}")).collect();
    assert!(seen.iter().map(|kv| &kv.key).eq(&expected));
    assert_eq!(scan.next().await.unwrap(), []);
}
