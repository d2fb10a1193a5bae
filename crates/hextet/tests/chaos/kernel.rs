//! What stands in the host's kernel that is hextet's, as others' programs show it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::host::Host;

/// The number that our routes carry.
const PROTOCOL: &str = "104";

/// What stands, by where it was found, in an order of its own.
pub type Snapshot = BTreeMap<&'static str, Vec<String>>;

/// All of it.
pub fn snapshot(host: &Host) -> Snapshot {
    let lines = |words: &[&str], ours: fn(&str) -> bool| {
        let text = host.run(words);
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| ours(line))
            .map(|line| line.trim().to_owned())
            .collect();
        lines.sort();
        lines
    };
    let all = |_: &str| true;
    Snapshot::from([
        ("table", table(host)),
        (
            "routes",
            lines(
                &["ip", "route", "show", "table", "all", "proto", PROTOCOL],
                all,
            ),
        ),
        (
            "IPv6 routes",
            lines(
                &[
                    "ip", "-6", "route", "show", "table", "all", "proto", PROTOCOL,
                ],
                all,
            ),
        ),
        (
            "neighbours",
            lines(&["ip", "neighbour", "show", "nud", "permanent"], |line| {
                line.contains(" dev tap")
            }),
        ),
        (
            "queueing disciplines",
            lines(&["tc", "qdisc", "show"], |line| line.contains("clsact")),
        ),
        (
            "policies",
            lines(&["ip", "xfrm", "policy"], |line| line.contains("mark")),
        ),
        (
            "addresses",
            lines(&["ip", "-o", "address", "show", "dev", "lo"], |line| {
                line.contains("169.254.")
            }),
        ),
    ])
}

/// What stands although nothing of ours should.
pub fn left_over(host: &Host) -> Vec<String> {
    let standing = snapshot(host).into_iter();
    let named = standing.flat_map(|(name, lines)| {
        let line = move |line| format!("{name}: {line}");
        lines.into_iter().map(line)
    });
    named.collect()
}

/// The first differences, if there are any.
pub fn assert_same(before: &Snapshot, fresh: &Snapshot) {
    for (name, lines) in before {
        let other = &fresh[name];
        let only = |these: &[String], those: &[String]| {
            let missing = these.iter().filter(|line| !those.contains(line));
            missing.take(10).cloned().collect::<Vec<_>>()
        };
        let (gone, new) = (only(lines, other), only(other, lines));
        assert!(
            lines == other,
            "{name}: after a fresh start there is no {gone:#?}, but {new:#?}"
        );
    }
    assert!(!before["table"].is_empty() && !before["routes"].is_empty());
}

/// The table's objects, without what packets change in them.
fn table(host: &Host) -> Vec<String> {
    let tables = host.run(&["nft", "list", "tables"]);
    if !tables.contains("inet hextet") {
        return Vec::new();
    }
    let text = host.run(&["nft", "-j", "list", "table", "inet", "hextet"]);
    let mut listed: Value = serde_json::from_str(&text).unwrap();
    let objects = listed["nftables"].as_array_mut().unwrap();
    objects.retain(|object| object.get("metainfo").is_none());
    let mut lines: Vec<String> = objects
        .iter_mut()
        .map(|object| {
            settle(object);
            object.to_string()
        })
        .collect();
    lines.sort();
    lines
}

fn settle(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !matches!(name.as_str(), "handle" | "packets" | "bytes"));
            fields.values_mut().for_each(settle);
            let none = Value::Array(Vec::new());
            if let Some(Value::Array(elements)) = fields.get_mut("elem") {
                elements.retain(|element| !is_a_packet_s(element));
                elements.sort_by_key(Value::to_string);
            }
            fields.retain(|name, value| name != "elem" || *value != none);
        }
        Value::Array(values) => values.iter_mut().for_each(settle),
        _ => {}
    }
}

/// Elements that packets have made count or limit something.
fn is_a_packet_s(element: &Value) -> bool {
    ["ct count", "limit"]
        .iter()
        .any(|what| element["elem"].get(what).is_some())
}
