use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::resources::{NETWORK, PORT};

#[derive(Clone, Debug, PartialEq)]
struct Row(BTreeMap<&'static str, Value>);

impl Record for Row {
    fn value(&self, attribute: &str) -> Value {
        self.0.get(attribute).cloned().unwrap_or(Value::Null)
    }
}

fn row(id: &str, name: &str, more: &[(&'static str, Value)]) -> Row {
    let mut map = BTreeMap::from([
        ("id", json!(id)),
        ("name", json!(name)),
        ("tags", json!([])),
    ]);
    map.extend(more.iter().cloned());
    Row(map)
}

fn query(resource: &'static Resource, text: &str) -> Result<Query> {
    let parameters = text
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    Query::parse(resource, parameters)
}

fn ids(rows: &[Row]) -> Vec<String> {
    rows.iter()
        .map(|r| r.value("id").as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn repeated_filters_are_alternatives_and_different_ones_all_hold() {
    let q = query(&NETWORK, "name=a&name=b&admin_state_up=True").unwrap();
    let up = ("admin_state_up", json!(true));
    for (name, up, matches) in [
        ("a", true, true),
        ("b", true, true),
        ("c", true, false),
        ("a", false, false),
    ]
    .map(|(n, u, m)| (n, if u { vec![up.clone()] } else { vec![] }, m))
    {
        assert_eq!(q.matches(&row("1", name, &up)), matches, "{name}");
    }
    assert_eq!(q.wanted("name"), Some(&[json!("a"), json!("b")][..]));
}

#[test]
fn an_empty_text_is_a_filter() {
    let q = query(&NETWORK, "description=").unwrap();
    assert!(q.matches(&row("1", "a", &[("description", json!(""))])));
    assert!(!q.matches(&row("1", "a", &[("description", json!("x"))])));
}

#[test]
fn unknown_filters_sort_keys_and_limits_are_refused() {
    for (text, words) in [
        (
            "colour=red",
            "['colour'] is invalid attribute for filtering",
        ),
        (
            "sort_key=colour",
            "['colour'] is invalid attribute for sort_keys",
        ),
        (
            "sort_key=name&sort_dir=up",
            "['up'] is invalid value for sort_dirs, valid value is 'asc' and 'desc'",
        ),
        (
            "sort_key=name&sort_dir=asc&sort_dir=asc",
            "The number of sort_keys and sort_dirs must be same",
        ),
        (
            "admin_state_up=maybe",
            "Invalid input for operation: 'maybe' cannot be converted to boolean.",
        ),
        (
            "mtu=x",
            "Invalid input for mtu. Reason: 'x' is not an integer.",
        ),
        (
            "limit=-1",
            "Bad limit request: Limit must be an integer 0 or greater and not '-1'.",
        ),
    ] {
        let error = query(&NETWORK, text).unwrap_err();
        assert_eq!(
            (error.status, error.message.as_str()),
            (400, words),
            "{text}"
        );
    }
}

#[test]
fn ports_are_found_by_address_subnet_and_a_part_of_an_address() {
    let ips = json!([{"subnet_id": "s1", "ip_address": "10.0.0.5"},
                     {"subnet_id": "s2", "ip_address": "2001:db8::5"}]);
    let port = row("1", "p", &[("fixed_ips", ips)]);
    for (text, matches) in [
        ("fixed_ips=ip_address=10.0.0.5", true),
        ("fixed_ips=ip_address=2001:DB8:0::5", true),
        ("fixed_ips=ip_address=10.0.0.6", false),
        ("fixed_ips=ip_address_substr=0.0.", true),
        ("fixed_ips=subnet_id=s2", true),
        ("fixed_ips=subnet_id=s1&fixed_ips=ip_address=10.0.0.5", true),
        (
            "fixed_ips=subnet_id=s2&fixed_ips=ip_address=10.0.0.5",
            false,
        ),
        ("fixed_ips=subnet_id=s3&fixed_ips=subnet_id=s1", true),
    ] {
        assert_eq!(
            query(&PORT, text).unwrap().matches(&port),
            matches,
            "{text}"
        );
    }
    assert!(query(&PORT, "fixed_ips=10.0.0.5").is_err());
}

#[test]
fn tags_filter_by_all_any_and_none() {
    let tagged = row("1", "a", &[("tags", json!(["blue", "red"]))]);
    for (text, matches) in [
        ("tags=red", true),
        ("tags=red,blue", true),
        ("tags=red,green", false),
        ("tags-any=green,red", true),
        ("tags-any=green", false),
        ("not-tags=red,blue", false),
        ("not-tags=red,green", true),
        ("not-tags-any=green,red", false),
        ("not-tags-any=green", true),
        ("tags=red&tags=blue", true),
        ("tags=red&tags=green", false),
        ("tags-any=green&tags-any=red", true),
        ("not-tags=red&not-tags=green", true),
        ("not-tags=red&not-tags=blue", false),
    ] {
        assert_eq!(
            query(&NETWORK, text).unwrap().matches(&tagged),
            matches,
            "{text}"
        );
    }
}

#[test]
fn pages_join_up_forwards_and_backwards() {
    let rows: Vec<_> = ["e", "a", "d", "b", "c"]
        .map(|id| row(id, "same", &[]))
        .to_vec();
    let page = |text: &str| {
        let q = query(&NETWORK, text).unwrap();
        let marker = q
            .marker
            .as_ref()
            .and_then(|m| rows.iter().find(|r| r.value("id") == json!(m)));
        let (page, next, previous) = q.page(&NETWORK, rows.clone(), marker).unwrap();
        (ids(&page).concat(), next, previous)
    };
    assert_eq!(page("limit=2"), ("ab".into(), true, true));
    assert_eq!(page("limit=2&marker=b"), ("cd".into(), true, true));
    assert_eq!(page("limit=2&marker=d"), ("e".into(), false, true));
    assert_eq!(
        page("limit=2&marker=d&page_reverse=True"),
        ("bc".into(), true, true)
    );
    assert_eq!(
        page("limit=2&marker=b&page_reverse=True"),
        ("a".into(), true, false)
    );
    assert_eq!(page("limit=2&page_reverse=True"), ("de".into(), true, true));
    assert_eq!(
        page("sort_key=id&sort_dir=desc&limit=2&marker=d"),
        ("cb".into(), true, true)
    );
    assert_eq!(page(""), ("abcde".into(), false, false));
    let missing = query(&NETWORK, "limit=2&marker=z")
        .unwrap()
        .page(&NETWORK, rows.clone(), None);
    assert_eq!(missing.unwrap_err().status, 404);
}

#[test]
fn links_keep_the_query_and_encode_it() {
    let q = query(&NETWORK, "name=a b&limit=2&marker=x").unwrap();
    assert_eq!(q.link(Some("y"), false), "?name=a%20b&limit=2&marker=y");
    assert_eq!(q.link(None, true), "?name=a%20b&limit=2&page_reverse=True");
}

#[test]
fn a_moment_without_a_zone_is_taken() {
    let changed = row("1", "a", &[("updated_at", json!("2026-01-02T00:00:00Z"))]);
    for (text, matches) in [
        ("2026-01-01T00:00:00", true),
        ("2026-01-02 00:00:01", false),
    ] {
        let q = query(&NETWORK, &format!("changed_since={text}")).unwrap();
        assert_eq!(q.matches(&changed), matches, "{text}");
    }
    assert!(query(&NETWORK, "changed_since=yesterday").is_err());
}
