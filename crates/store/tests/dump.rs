//! Dumps: there and back, and every way to be wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use hextet_store::{
    DumpError, Image, KeyRange, KeyValue, Lease, LeaseId, MemoryStore, Op, RedbOptions, RedbStore,
    Store, StoreError, Txn, dump, limits, load, read_image,
};
use proptest::{collection::vec, prelude::*};
use std::time::Duration;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn value() -> impl Strategy<Value = Bytes> {
    let fixed = [
        "null",
        "\"\"",
        "1.50",
        " {}",
        "{\n}",
        "{\"b\":1, \"a\":[1e9]}",
        "\u{7f}\r",
        "é",
        "\"\\u00e9\"",
    ];
    prop_oneof![
        prop::sample::select(fixed.to_vec()).prop_map(Bytes::from),
        vec(any::<u8>(), 0..20).prop_map(Bytes::from),
        any::<String>().prop_map(Bytes::from),
        any::<String>().prop_map(|text| serde_json::to_vec(&text).unwrap().into()),
    ]
}

fn key() -> impl Strategy<Value = Bytes> {
    let octets = vec(any::<u8>(), 1..20).prop_map(Bytes::from);
    prop_oneof![octets, "[a-z]/\\PC{0,5}".prop_map(Bytes::from)]
}

fn image() -> impl Strategy<Value = Image> {
    let entry = (key(), value(), any::<[u16; 3]>(), 0..3u64);
    (vec(entry, 0..8), any::<u16>()).prop_map(|(entries, later)| {
        let mut image = Image::default();
        for id in 1..3 {
            let (id, ttl) = (LeaseId::new(id).unwrap(), Duration::from_secs(id + 9));
            image.leases.push(Lease { id, ttl, keys: 0 });
        }
        let mut kvs = std::collections::BTreeMap::new();
        for (key, value, [created, lived, version], lease) in entries {
            let create_revision = u64::from(created) + 1;
            let mod_revision = create_revision + u64::from(lived);
            let version = u64::from(version.min(lived)) + 1;
            image.revision = image.revision.max(mod_revision + u64::from(later));
            let lease = LeaseId::new(lease);
            let kv = KeyValue {
                key,
                value,
                create_revision,
                mod_revision,
                version,
                lease,
            };
            kvs.insert(kv.key.clone(), kv);
        }
        image.kvs = kvs.into_values().collect();
        image
    })
}

proptest! {
    #[test]
    fn what_is_dumped_is_loaded(image in image()) {
        block_on(async {
            let (first, second) = (MemoryStore::default(), MemoryStore::default());
            first.restore(image.clone(), false).await.unwrap();
            let mut text = Vec::new();
            let written = dump(&first, &mut text).await.unwrap();
            prop_assert_eq!(&read_image(text.as_slice()).unwrap(), &image);
            let loaded = load(&second, text.as_slice(), false).await.unwrap();
            prop_assert_eq!(loaded, written);
            let mut again = Vec::new();
            dump(&second, &mut again).await.unwrap();
            prop_assert_eq!(again, text);
            Ok(())
        })?;
    }

    #[test]
    fn a_dump_that_was_cut_off_is_refused(image in image(), cut in 1usize..400) {
        block_on(async {
            let store = MemoryStore::default();
            store.restore(image, false).await.unwrap();
            let mut text = Vec::new();
            dump(&store, &mut text).await.unwrap();
            // The last line end alone may be missing.
            text.truncate(text.len().saturating_sub(cut + 1));
            prop_assert!(read_image(text.as_slice()).is_err());
            Ok(())
        })?;
    }

    #[test]
    fn no_octets_make_it_panic(text in vec(any::<u8>(), 0..200)) {
        prop_assert!(read_image(text.as_slice()).is_err());
    }
}

const HEAD: &str = r#"{"format":"hextet-store","version":1,"revision":9}"#;
const KEY: &str = r#"{"key":"k","json":{},"create_revision":1,"mod_revision":2,"version":1}"#;

#[test]
fn it_reads_well() {
    let store = MemoryStore::default();
    let text = block_on(async {
        let lease = store.lease_grant(Duration::from_secs(30)).await.unwrap();
        let ops = [
            Op::put("ports/1", r#"{"name": "a"}"#),
            Op::put_leased("hosts/a", "up", lease),
            Op::put(&b"\x00\xff"[..], &b"\xff"[..]),
            Op::put("none", "null"),
        ];
        store.txn(Txn::of(ops)).await.unwrap();
        let mut text = Vec::new();
        dump(&store, &mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    });
    let rest = r#""create_revision":1,"mod_revision":1,"version":1"#;
    let expected = [
        r#"{"format":"hextet-store","version":1,"revision":1}"#.to_owned(),
        r#"{"lease":1,"ttl_secs":30}"#.to_owned(),
        format!(r#"{{"key_base64":"AP8=","base64":"/w==",{rest}}}"#),
        format!(r#"{{"key":"hosts/a","text":"up",{rest},"lease":1}}"#),
        format!(r#"{{"key":"none","json":null,{rest}}}"#),
        format!(r#"{{"key":"ports/1","json":{{"name": "a"}},{rest}}}"#),
        r#"{"end":true,"leases":1,"keys":4}"#.to_owned(),
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

fn refused(lines: &[&str], line: u64, says: &str) {
    let error = read_image(lines.join("\n").as_bytes()).unwrap_err();
    let shown = error.to_string();
    let DumpError::Line { line: told, .. } = error else {
        panic!("{shown}")
    };
    assert!(
        told == line && shown.contains(says),
        "'{says}' in line {line}? {shown}"
    );
}

/// A part of the good line, what stands in its place, and what is said of it.
const WRONG_KEYS: &[(&str, &str, &str)] = &[
    ("{}", "{", "line 1 column"),
    ("\"k\"", "\"\"", "at least one octet"),
    ("\"json\"", "\"jsn\"", "unknown field"),
    ("\"json\":{},", "", "give one of json"),
    ("{}", "{},\"text\":\"\"", "give one of json"),
    ("\"json\":{}", "\"base64\":\"*\"", "base64: "),
    ("\"key\":\"k\"", "\"key_base64\":\"*\"", "key_base64: "),
    ("\"k\"", "\"k\",\"key_base64\":\"aw==\"", "give one of key"),
    (",\"version\":1", "", "version is missing"),
    ("\"version\":1", "\"version\":0", "version is not"),
    ("\"version\":1", "\"version\":3", "version is not"),
    ("\"mod_revision\":2", "\"mod_revision\":10", "≤ 9"),
    ("\"create_revision\":1", "\"create_revision\":3", "≤ 9"),
    ("\"create_revision\":1", "\"create_revision\":0", "1 ≤"),
    ("{}", "{},\"lease\":1", "no line above"),
];

#[test]
fn every_mistake_in_a_key_is_told_with_its_line() {
    for (from, to, says) in WRONG_KEYS {
        refused(&[HEAD, &KEY.replace(from, to)], 2, says);
    }
    let long = format!("\"{}\"", "k".repeat(1025));
    refused(&[HEAD, &KEY.replace("\"k\"", &long)], 2, "1025 octets");
}

#[test]
fn every_other_mistake_is_told_with_its_line() {
    let end = |keys| format!(r#"{{"end":true,"leases":0,"keys":{keys}}}"#);
    let newer = HEAD.replace("\"version\":1", "\"version\":2");
    let long = " ".repeat(8 * limits::VALUE_BYTES + 1);
    let lease = r#"{"lease":1,"ttl_secs":1}"#;
    let cases: [(u64, &[&str], &str); 14] = [
        (1, &[], "cut off"),
        (1, &["{}"], "no dump"),
        (1, &[KEY], "no dump"),
        (1, &["hello"], "expected value"),
        (1, &[&newer], "use a newer hextet"),
        (2, &[HEAD], "cut off"),
        (3, &[HEAD, KEY], "cut off"),
        (3, &[HEAD, KEY, KEY], "in line 2 already"),
        (2, &[HEAD, r#"{"lease":0,"ttl_secs":1}"#], "number 0"),
        (2, &[HEAD, r#"{"lease":1,"ttl_secs":0}"#], "between 1 and"),
        (3, &[HEAD, lease, lease], "there already"),
        (3, &[HEAD, KEY, &end(2)], "1 keys"),
        (3, &[HEAD, &end(0), KEY], "remove it"),
        (2, &[HEAD, &long], "longer than"),
    ];
    for (line, lines, says) in cases {
        refused(lines, line, says);
    }
}

#[test]
fn a_full_value_fits_in_a_line() {
    let store = MemoryStore::default();
    block_on(async {
        store
            .put("k".into(), vec![1; limits::VALUE_BYTES].into())
            .await
            .unwrap();
        let mut text = Vec::new();
        dump(&store, &mut text).await.unwrap();
        assert_eq!(read_image(text.as_slice()).unwrap().kvs.len(), 1);
    });
}

#[test]
fn a_load_is_all_or_nothing_and_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let end = r#"{"end":true,"leases":0,"keys":1}"#;
    let good = format!("{HEAD}\n{KEY}\n{end}\n");
    block_on(async {
        let store = RedbStore::open(&path, &RedbOptions::default()).unwrap();
        store.put("old".into(), "".into()).await.unwrap();
        let bad = format!("{HEAD}\n{KEY}\n{KEY}\n{end}\n");
        assert!(load(&store, bad.as_bytes(), true).await.is_err());
        let error = load(&store, good.as_bytes(), false).await.unwrap_err();
        let DumpError::Store(StoreError::NotEmpty { keys: 1, leases: 0 }) = error else {
            panic!("{error}")
        };
        assert_eq!(store.revision().await.unwrap(), 1);
        assert_eq!(
            load(&store, good.as_bytes(), true).await.unwrap().revision,
            9
        );
        drop(store);
        let store = RedbStore::open(&path, &RedbOptions::default()).unwrap();
        let all = store.range(KeyRange::all(), None).await.unwrap();
        assert_eq!((all.revision, all.kvs.len()), (9, 1));
        assert_eq!(all.kvs[0].mod_revision, 2);
        assert_eq!(store.put("new".into(), "".into()).await.unwrap(), 10);
    });
}
