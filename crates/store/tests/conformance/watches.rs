//! Watches: order, gaps, slow consumers, compaction.

use std::{future::Future, pin::pin, sync::Arc, task::Context};

use hextet_store::{
    Event, Image, KeyRange, KeyValue, Op, Store, StoreError, Txn, Watch, WatchItem,
};

use crate::{RETENTION, on_each_back_end};

on_each_back_end! {
    a_watch_tells_a_revision_at_once,
    progress_says_what_is_current,
    a_watch_may_begin_in_the_past_and_in_the_future,
    nothing_is_lost_or_told_twice_under_concurrent_writes,
    a_slow_watcher_reads_the_change_log,
    a_watcher_that_is_too_slow_is_told,
    compaction_by_hand,
    the_log_is_bounded,
    a_dropped_wait_loses_nothing,
    a_restore_ends_every_watch,
    a_closed_store_ends_every_watch,
}

type Shared = Arc<dyn Store>;

async fn put(store: &Shared, key: &str) -> u64 {
    store.put(key.to_owned().into(), "".into()).await.unwrap()
}

async fn watch(store: &Shared, prefix: &'static str, from: u64) -> Watch {
    store.watch(KeyRange::prefix(prefix), from).await.unwrap()
}

/// Revisions with changes, up to the progress at `until`.
async fn revisions(watch: &mut Watch, until: u64) -> Vec<u64> {
    let mut told = Vec::new();
    while told.last() != Some(&until) {
        match watch.next().await.unwrap() {
            WatchItem::Changes { revision, events } => {
                assert!(!events.is_empty());
                told.push(revision);
            }
            WatchItem::Progress { revision } if revision == until => break,
            WatchItem::Progress { .. } => {}
        }
    }
    told
}

fn idle(watch: &mut Watch) -> bool {
    let mut context = Context::from_waker(std::task::Waker::noop());
    pin!(watch.next()).as_mut().poll(&mut context).is_pending()
}

async fn a_watch_tells_a_revision_at_once(store: Shared) {
    let mut watch = watch(&store, "p/", 1).await;
    let ops = [
        Op::put("p/b", "1"),
        Op::put("other", ""),
        Op::put("p/a", "2"),
    ];
    store.txn(Txn::of(ops)).await.unwrap();
    store
        .txn(Txn::of([Op::delete("p/b"), Op::put("p/a", "3")]))
        .await
        .unwrap();
    let kv = |key: &'static str, value: &'static str, create_revision, mod_revision| {
        let version = mod_revision - create_revision + 1;
        let (key, value, lease) = (key.into(), value.into(), None);
        Event::Put(KeyValue {
            key,
            value,
            create_revision,
            mod_revision,
            version,
            lease,
        })
    };
    let events = vec![kv("p/b", "1", 1, 1), kv("p/a", "2", 1, 1)];
    assert_eq!(
        watch.next().await.unwrap(),
        WatchItem::Changes {
            revision: 1,
            events
        }
    );
    let events = vec![Event::Delete { key: "p/b".into() }, kv("p/a", "3", 1, 2)];
    assert_eq!(
        watch.next().await.unwrap(),
        WatchItem::Changes {
            revision: 2,
            events
        }
    );
}

async fn progress_says_what_is_current(store: Shared) {
    put(&store, "a").await;
    let mut watch = watch(&store, "p/", 0).await;
    let progress = |revision| WatchItem::Progress { revision };
    assert_eq!(watch.next().await.unwrap(), progress(1));
    put(&store, "b").await;
    assert_eq!(watch.next().await.unwrap(), progress(2));
    assert!(idle(&mut watch), "it says so once");
    put(&store, "p/").await;
    let item = watch.next().await.unwrap();
    assert!(matches!(item, WatchItem::Changes { revision: 3, .. }));
    assert!(idle(&mut watch), "changes say what is current, too");
    put(&store, "c").await;
    put(&store, "d").await;
    assert_eq!(watch.next().await.unwrap(), progress(5));
}

async fn a_watch_may_begin_in_the_past_and_in_the_future(store: Shared) {
    for _ in 0..5 {
        put(&store, "k").await;
    }
    let mut past = watch(&store, "k", 3).await;
    assert_eq!(revisions(&mut past, 5).await, [3, 4, 5]);
    let mut future = watch(&store, "k", 8).await;
    for _ in 5..9 {
        put(&store, "k").await;
    }
    assert_eq!(revisions(&mut future, 9).await, [8, 9]);
    assert_eq!(revisions(&mut past, 9).await, [6, 7, 8, 9]);
}

async fn nothing_is_lost_or_told_twice_under_concurrent_writes(store: Shared) {
    const WRITERS: usize = 8;
    const EACH: usize = 20;
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        tasks.push(tokio::spawn(async move {
            for n in 0..EACH {
                put(&store, &format!("{}/{writer}/{n}", n % 2)).await;
            }
        }));
    }
    let mut seen = Vec::new();
    let mut watch = watch(&store, "1/", 1).await;
    while seen.len() < WRITERS * EACH / 2 {
        if let WatchItem::Changes { revision, events } = watch.next().await.unwrap() {
            assert_eq!(events.len(), 1);
            seen.push((revision, events[0].key().clone()));
        }
    }
    assert!(seen.is_sorted_by(|a, b| a.0 < b.0));
    for task in tasks {
        task.await.unwrap();
    }
    for (revision, key) in seen {
        let kv = store.get(key.clone()).await.unwrap().unwrap();
        assert_eq!(
            (kv.mod_revision, kv.create_revision),
            (revision, revision),
            "{key:?}"
        );
    }
}

/// Six MiB of changes: more than the memory that watchers share.
async fn flood(store: &Shared) -> u64 {
    let mut revision = 0;
    for n in 0..24u8 {
        let value = vec![n; 256 * 1024];
        revision = store.put("k".into(), value.into()).await.unwrap();
    }
    revision
}

async fn a_slow_watcher_reads_the_change_log(store: Shared) {
    let mut slow = watch(&store, "", 1).await;
    let last = flood(&store).await;
    for revision in 1..=last {
        let item = slow.next().await.unwrap();
        let WatchItem::Changes {
            revision: told,
            events,
        } = item
        else {
            panic!("{item:?}")
        };
        let [Event::Put(kv)] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!((told, kv.version), (revision, revision));
        assert_eq!(kv.value.first().map(|&n| u64::from(n)), Some(revision - 1));
    }
    put(&store, "last").await;
    assert_eq!(slow.next().await.unwrap().revision(), last + 1);
}

async fn a_watcher_that_is_too_slow_is_told(store: Shared) {
    let mut slow = watch(&store, "", 1).await;
    let last = flood(&store).await;
    assert_eq!(slow.next().await.unwrap().revision(), 1);
    store.compact(last - 1).await.unwrap();
    let error = loop {
        match slow.next().await {
            Ok(item) => assert!(item.revision() < last),
            Err(error) => break error,
        }
    };
    let at = last - 1;
    assert!(matches!(error, StoreError::Compacted { compact_revision } if compact_revision == at));
    assert!(slow.next().await.is_err(), "and stays so");
    let mut again = watch(&store, "", last).await;
    assert_eq!(revisions(&mut again, last).await, [last]);
}

async fn compaction_by_hand(store: Shared) {
    for _ in 0..10 {
        put(&store, "k").await;
    }
    let error = store.compact(11).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::FutureRevision {
                asked: 11,
                revision: 10
            }
        ),
        "{error}"
    );
    assert_eq!(store.compact(6).await.unwrap(), 6);
    assert_eq!(store.compact(2).await.unwrap(), 6, "what is gone is gone");
    let error = store.watch(KeyRange::all(), 6).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Compacted {
                compact_revision: 6
            }
        ),
        "{error}"
    );
    let mut rest = watch(&store, "", 7).await;
    assert_eq!(revisions(&mut rest, 10).await, [7, 8, 9, 10]);
    assert_eq!(store.compact(10).await.unwrap(), 10);
    assert_eq!(put(&store, "k").await, 11);
    assert_eq!(store.get("k".into()).await.unwrap().unwrap().version, 11);
}

async fn the_log_is_bounded(store: Shared) {
    let most = RETENTION.revisions + RETENTION.revisions / 8;
    for _ in 0..most {
        put(&store, "k").await;
    }
    assert!(
        store.watch(KeyRange::all(), 1).await.is_ok(),
        "an eighth more may stand"
    );
    let last = put(&store, "k").await;
    let StoreError::Compacted { compact_revision } =
        store.watch(KeyRange::all(), 1).await.unwrap_err()
    else {
        panic!("not compacted")
    };
    assert_eq!(compact_revision, last - RETENTION.revisions);
    let mut watch = watch(&store, "", compact_revision + 1).await;
    assert_eq!(
        revisions(&mut watch, last).await.len() as u64,
        RETENTION.revisions
    );
}

async fn a_dropped_wait_loses_nothing(store: Shared) {
    let mut watch = watch(&store, "", 1).await;
    assert_eq!(
        watch.next().await.unwrap(),
        WatchItem::Progress { revision: 0 }
    );
    let last = flood(&store).await;
    let mut told = Vec::new();
    while told.len() < usize::try_from(last).unwrap() {
        {
            let mut waiting = pin!(watch.next());
            let mut context = Context::from_waker(std::task::Waker::noop());
            if let std::task::Poll::Ready(item) = waiting.as_mut().poll(&mut context) {
                told.push(item.unwrap().revision());
                continue;
            }
        }
        told.push(watch.next().await.unwrap().revision());
    }
    assert!(told.into_iter().eq(1..=last));
}

async fn a_restore_ends_every_watch(store: Shared) {
    put(&store, "k").await;
    let mut watch = watch(&store, "", 0).await;
    assert_eq!(
        watch.next().await.unwrap(),
        WatchItem::Progress { revision: 1 }
    );
    assert_eq!(store.restore(Image::default(), true).await.unwrap(), 2);
    let error = watch.next().await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Compacted {
                compact_revision: 2
            }
        ),
        "{error}"
    );
}

/// `run` keeps a store open beside this: drops the only handle of another.
async fn ended_by_close(test: crate::TestStore) {
    let mut ended = test.store.watch(KeyRange::all(), 0).await.unwrap();
    ended.next().await.unwrap();
    drop(test);
    assert!(matches!(
        ended.next().await.unwrap_err(),
        StoreError::Closed
    ));
}

async fn a_closed_store_ends_every_watch(_: Shared) {
    ended_by_close(crate::memory()).await;
    ended_by_close(crate::redb()).await;
}
