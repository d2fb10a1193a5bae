use super::*;
use crate::samples::facts;

fn text(facts: &Facts, path: &str) -> Option<String> {
    let document = Tree(facts).get(path)?;
    Some(String::from_utf8_lossy(&document.body).into_owned())
}

fn value(facts: &Facts, path: &str) -> Value {
    serde_json::from_str(&text(facts, path).unwrap()).unwrap()
}

#[test]
fn ec2s_tree_is_there() {
    let facts = facts();
    let cases = [
        ("/latest", "meta-data/\nuser-data"),
        ("/2009-04-04/meta-data/instance-id", "5b1a"),
        ("/latest/meta-data/hostname", "web-1.example.net"),
        ("/latest//meta-data/local-ipv4/", "10.0.0.7"),
        ("/latest/meta-data/ipv6", "2001:db8::7"),
        ("/latest/meta-data/mac", "02:00:00:00:00:07"),
        ("/latest/meta-data/placement/", "availability-zone"),
        ("/latest/meta-data/placement/availability-zone", "nova"),
        ("/latest/meta-data/public-keys/", "0=alice\n1=bob"),
        ("/latest/meta-data/public-keys/1", "openssh-key"),
        (
            "/latest/meta-data/public-keys/1/openssh-key",
            "ssh-rsa BBBB bob",
        ),
        ("/latest/user-data", "#!/bin/sh\n\u{fffd}"),
    ];
    for (path, expected) in cases {
        assert_eq!(text(&facts, path).as_deref(), Some(expected), "{path}");
    }
    let listed = text(&facts, "/latest/meta-data/").unwrap();
    assert!(listed.lines().any(|line| line == "placement/"), "{listed}");
    for name in listed.lines() {
        let path = format!("/latest/meta-data/{name}");
        assert!(text(&facts, &path).is_some(), "{path} is listed");
    }
}

#[test]
fn what_is_not_there_is_not_there() {
    let mut facts = facts();
    for path in [
        "/1999-01-01/meta-data",
        "/openstack/1999-01-01",
        "/openstack/latest/password",
        "/openstack/latest/meta_data.json/x",
        "/latest/api/token",
        "/latest/meta-data/public-keys/2",
        "/latest/meta-data/hostname/x",
        "/..",
    ] {
        assert_eq!(text(&facts, path), None, "{path}");
    }
    facts.user_data = None;
    facts.public_keys.clear();
    for path in [
        "/latest/user-data",
        "/openstack/latest/user_data",
        "/latest/meta-data/public-keys",
    ] {
        assert_eq!(text(&facts, path), None, "{path}");
    }
    let listed = text(&facts, "/openstack/latest").unwrap();
    assert!(!listed.contains("user_data"), "{listed}");
    assert_eq!(
        value(&facts, "/openstack/latest/meta_data.json").get("public_keys"),
        None
    );
}

#[test]
fn openstacks_tree_is_there() {
    let facts = facts();
    let versions = text(&facts, "/openstack").unwrap();
    for version in versions.lines() {
        let listed = text(&facts, &format!("/openstack/{version}")).unwrap();
        for name in listed.lines() {
            let path = format!("/openstack/{version}/{name}");
            assert!(text(&facts, &path).is_some(), "{path} is listed");
        }
    }
    let meta = value(&facts, "/openstack/2018-08-27/meta_data.json");
    assert_eq!(meta["uuid"], "5b1a");
    assert_eq!(meta["hostname"], "web-1.example.net");
    assert_eq!(meta["name"], "web-1");
    assert_eq!(meta["meta"], json!({"role": "web"}));
    assert_eq!(meta["public_keys"]["alice"], "ssh-ed25519 AAAA alice");
    assert_eq!(
        meta["keys"][1],
        json!({"name": "bob", "type": "ssh", "data": "ssh-rsa BBBB bob"})
    );
}

#[test]
fn networks_are_described_as_nova_does() {
    let facts = facts();
    let data = value(&facts, "/openstack/latest/network_data.json");
    let link = json!({
        "id": "tapc0de", "vif_id": "c0de", "type": "phy", "mtu": 1430,
        "ethernet_mac_address": "02:00:00:00:00:07",
    });
    assert_eq!(data["links"], json!([link]));
    let of_a_network = |n: usize, network_type: &str| {
        json!({
            "id": format!("network{n}"), "type": network_type, "link": "tapc0de",
            "network_id": "feed",
        })
    };
    assert_eq!(data["networks"][0], of_a_network(0, "ipv4_dhcp"));
    assert_eq!(data["networks"][1], of_a_network(1, "ipv6_slaac"));
    let default = json!({"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "192.0.2.1"});
    let mut by_hand = of_a_network(2, "ipv4");
    by_hand["ip_address"] = json!("192.0.2.7");
    by_hand["netmask"] = json!("255.255.255.192");
    by_hand["routes"] = json!([default]);
    assert_eq!(data["networks"][2], by_hand);
    assert_eq!(
        data["services"],
        json!([{"type": "dns", "address": "2001:db8::53"}])
    );
}

#[test]
fn masks_go_from_none_to_all() {
    for (prefix, mask) in [
        ("0.0.0.0/0", "0.0.0.0"),
        ("10.0.0.0/9", "255.128.0.0"),
        ("10.0.0.1/32", "255.255.255.255"),
        ("::/0", "::"),
        ("2001:db8::/33", "ffff:ffff:8000::"),
        ("::1/128", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ] {
        let prefix: Prefix = prefix.parse().unwrap();
        assert_eq!(netmask(prefix), mask.parse::<IpAddr>().unwrap(), "{prefix}");
    }
}
