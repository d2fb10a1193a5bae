//! Prefixes that ports get for their workloads to hand on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;

use std::collections::BTreeSet;

use cloud::{TestCloud, addresses, slaac};
use hextet_server::StoreKind;
use serde_json::{Value, json};

fn prefixes(port: &Value) -> Vec<String> {
    let all = port["hextet:delegated_prefixes"].as_array().unwrap();
    all.iter()
        .map(|d| d["prefix"].as_str().unwrap().to_owned())
        .collect()
}

fn delegation() -> Value {
    json!({"hextet:delegation": {}})
}

#[tokio::test(flavor = "multi_thread")]
async fn each_port_gets_a_prefix_of_its_own() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let network = admin.network(json!({"name": "routed"})).await;
    admin.subnet(&network, "2001:db8:100::/64", slaac()).await;
    let before = admin.port(&network, json!({})).await;
    assert_eq!(prefixes(&before), Vec::<String>::new());
    // It covers the network's own subnet, which nobody else gets.
    let pool = admin
        .subnet(&network, "2001:db8:100::/62", delegation())
        .await;
    assert_eq!(
        pool["hextet:delegation"],
        json!({"prefixlen": 64, "preferred": false})
    );
    assert_eq!(
        (&pool["gateway_ip"], &pool["allocation_pools"]),
        (&Value::Null, &json!([]))
    );
    let before = admin.show("ports", &before["id"]).await.ok(200)["port"].clone();
    let mut all: BTreeSet<String> = prefixes(&before).into_iter().collect();
    assert_eq!(all.len(), 1, "ports that were there get theirs");
    assert_eq!(addresses(&before).len(), 1, "and no address of it");
    let second = admin.port(&network, json!({})).await;
    all.extend(prefixes(&second));
    let third = admin.port(&network, json!({})).await;
    all.extend(prefixes(&third));
    let expected = [
        "2001:db8:100:1::/64",
        "2001:db8:100:2::/64",
        "2001:db8:100:3::/64",
    ];
    assert_eq!(all.into_iter().collect::<Vec<_>>(), expected);
    // None is left; what is given back is had by the next.
    let fourth = admin.port(&network, json!({})).await;
    assert_eq!(prefixes(&fourth), Vec::<String>::new());
    admin.delete("ports", &second["id"]).await.ok(204);
    let fifth = admin.port(&network, json!({})).await;
    assert_eq!(prefixes(&fifth), prefixes(&second));
    // A subnet of addresses there, where a port has its prefix, can't be; and all go with the subnet.
    let there = json!({"network_id": network["id"], "ip_version": 6, "cidr": prefixes(&third)[0]});
    let there = admin.try_create("subnets", "subnet", there).await;
    there.refused(400, "InvalidInput");
    admin.delete("subnets", &pool["id"]).await.ok(204);
    let third = admin.show("ports", &third["id"]).await.ok(200)["port"].clone();
    assert_eq!(prefixes(&third), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_can_be_cut_out_of_is_refused() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let network = admin.network(json!({"name": "routed"})).await;
    let of = |network: &Value, cidr: &str, more: Value| {
        let version = if cidr.contains(':') { 6 } else { 4 };
        let mut all = json!({"network_id": network["id"], "ip_version": version, "cidr": cidr,
            "hextet:delegation": {"prefixlen": 64}});
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all
    };
    for (cidr, more) in [
        ("10.1.0.0/16", json!({})),
        ("2001:db8:100::/80", json!({})),
        (
            "2001:db8:100::/56",
            json!({"hextet:delegation": {"prefixlen": 48}}),
        ),
        (
            "2001:db8:100::/56",
            json!({"gateway_ip": "2001:db8:100::1"}),
        ),
        ("2001:db8:100::/56", json!({"enable_dhcp": false})),
        ("2001:db8:100::/64", slaac()),
    ] {
        let answer = admin
            .try_create("subnets", "subnet", of(&network, cidr, more))
            .await;
        let said = answer.refused(400, "InvalidInput");
        assert!(said.contains("hextet:delegation"), "{cidr}: {said}");
    }
    for wrong in [
        json!({"prefixlen": 65}),
        json!({"preferred": 1}),
        json!({"len": 64}),
    ] {
        let wrong = json!({"hextet:delegation": wrong});
        let answer = admin
            .try_create(
                "subnets",
                "subnet",
                of(&network, "2001:db8:100::/56", wrong),
            )
            .await;
        answer.refused(400, "HTTPBadRequest");
    }
    let private = json!({"name": "p", "provider:network_type": "vxlan"});
    let private = admin.network(private).await;
    let answer = admin
        .try_create(
            "subnets",
            "subnet",
            of(&private, "2001:db8:100::/56", json!({})),
        )
        .await;
    answer.refused(400, "InvalidInput");
    // Another network has it.
    admin
        .subnet(&network, "2001:db8:100::/56", delegation())
        .await;
    let other = admin.network(json!({"name": "other"})).await;
    let answer = admin
        .try_create(
            "subnets",
            "subnet",
            of(&other, "2001:db8:100:80::/60", json!({})),
        )
        .await;
    answer.refused(400, "InvalidInput");
}
