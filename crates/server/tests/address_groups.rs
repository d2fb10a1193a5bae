//! Address groups, and the rules that name them, over a real listener.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;

use serde_json::{Value, json};

use cloud::{Answer, Client, TestCloud};
use hextet_server::StoreKind;

async fn group(client: &Client, addresses: Value) -> Value {
    let body = json!({"name": "offices", "addresses": addresses});
    client.create("address-groups", "address_group", body).await
}

async fn act(client: &Client, group: &Value, what: &str, addresses: Value) -> Answer {
    let id = group["id"].as_str().unwrap();
    let path = format!("/networking/v2.0/address-groups/{id}/{what}");
    let body = json!({"addresses": addresses});
    client.send("PUT", &path, Some(body)).await
}

async fn try_rule(client: &Client, mut more: Value) -> Answer {
    let groups = client.get("/networking/v2.0/security-groups").await.ok(200);
    more["security_group_id"] = groups["security_groups"][0]["id"].clone();
    more["direction"] = json!("ingress");
    client
        .try_create("security-group-rules", "security_group_rule", more)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_come_and_go() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (user, _) = cloud.project("alpha", "member").await;
    let made = group(&user, json!(["2001:db8::/64", "10.0.0.7/24"])).await;
    assert_eq!(made["addresses"], json!(["10.0.0.0/24", "2001:db8::/64"]));
    assert_eq!(made["revision_number"], json!(1));
    let added = act(&user, &made, "add_addresses", json!(["192.0.2.7/32"])).await;
    assert_eq!(
        added.ok(200)["address_group"]["addresses"],
        json!(["10.0.0.0/24", "192.0.2.7/32", "2001:db8::/64"])
    );
    let words = act(
        &user,
        &made,
        "add_addresses",
        json!(["10.0.0.0/24", "10.9.0.0/16"]),
    )
    .await
    .refused(400, "AddressesAlreadyExist");
    assert!(
        words.contains("10.0.0.0/24") && !words.contains("10.9"),
        "{words}"
    );
    act(&user, &made, "remove_addresses", json!(["10.9.0.0/16"]))
        .await
        .refused(404, "AddressesNotFound");
    let left = act(&user, &made, "remove_addresses", json!(["10.0.0.0/24"])).await;
    assert_eq!(
        left.ok(200)["address_group"]["addresses"],
        json!(["192.0.2.7/32", "2001:db8::/64"])
    );
    for wrong in [json!(["x"]), json!(["10.0.0.1"]), json!("x"), json!(7)] {
        act(&user, &made, "add_addresses", wrong)
            .await
            .refused(400, "HTTPBadRequest");
    }
    for wrong in [json!({"shared": true}), json!({"addresses": [7]})] {
        user.try_create("address-groups", "address_group", wrong)
            .await
            .refused(400, "HTTPBadRequest");
    }
    let renamed = json!({"name": "homes", "description": "d"});
    let renamed = user.update("address-groups", "address_group", &made["id"], renamed);
    assert_eq!(renamed.await.ok(200)["address_group"]["name"], "homes");
    let (other, _) = cloud.project("beta", "member").await;
    act(&other, &made, "add_addresses", json!(["10.1.0.0/16"]))
        .await
        .refused(404, "AddressGroupNotFound");
    user.delete("address-groups", &made["id"]).await.ok(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_has_at_most_1000_prefixes() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (user, _) = cloud.project("alpha", "member").await;
    let made = group(&user, json!([])).await;
    let some = |n: u8| -> Value {
        (0..200u8)
            .map(|m| json!(format!("10.{n}.{m}.0/24")))
            .collect()
    };
    for n in 0..5 {
        act(&user, &made, "add_addresses", some(n)).await.ok(200);
    }
    act(&user, &made, "add_addresses", json!(["192.0.2.0/24"]))
        .await
        .refused(409, "OverQuota");
}

/// Neither by rules nor by prefixes, and whichever comes first.
#[tokio::test(flavor = "multi_thread")]
async fn what_rules_open_by_address_groups_is_bounded() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (user, _) = cloud.project("alpha", "member").await;
    let hosts = |from: u32, count: u32| -> Value {
        let all = from..from + count;
        json!(
            all.map(|n| format!("2001:db8::{n:x}/128"))
                .collect::<Vec<_>>()
        )
    };
    let many = group(&user, hosts(0, 200)).await;
    act(&user, &many, "add_addresses", hosts(200, 133))
        .await
        .ok(200);
    // Thirty blocks of ports, the most there can be.
    let named = |group: &Value, range: (u16, u16)| {
        json!({
            "remote_address_group_id": group["id"], "ethertype": "IPv6", "protocol": "tcp",
            "port_range_min": range.0, "port_range_max": range.1,
        })
    };
    let wide = (1, 65_534);
    try_rule(&user, named(&many, wide)).await.ok(201);
    let words = act(&user, &many, "add_addresses", hosts(1_000, 1)).await;
    let words = words.refused(409, "OverQuota");
    assert!(words.contains("fewer or wider prefixes"), "{words}");
    // The other family is no part of the rule.
    act(&user, &many, "add_addresses", json!(["192.0.2.1/32"]))
        .await
        .ok(200);
    let few = group(&user, hosts(0, 11)).await;
    try_rule(&user, named(&few, (80, 80)))
        .await
        .refused(409, "OverQuota");
    let ten = group(&user, hosts(0, 10)).await;
    try_rule(&user, named(&ten, (80, 80))).await.ok(201);
    // Of fifteen sizes of blocks each is looked at with each length.
    let lengths = |count: u8| -> Value {
        let all = (0..count).map(|n| format!("2001:db8:{n:x}::/{}", 48 + n));
        json!(all.collect::<Vec<_>>())
    };
    let (user, _) = cloud.project("beta", "member").await;
    let various = group(&user, lengths(18)).await;
    try_rule(&user, named(&various, wide))
        .await
        .refused(409, "OverQuota");
    try_rule(&user, named(&various, (443, 443))).await.ok(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_name_groups_and_keep_them() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (user, _) = cloud.project("alpha", "member").await;
    let made = group(&user, json!(["10.0.0.0/24"])).await;
    let named = json!({"remote_address_group_id": made["id"]});
    let rule = try_rule(&user, named.clone()).await.ok(201)["security_group_rule"].clone();
    assert_eq!(
        (&rule["remote_address_group_id"], &rule["remote_ip_prefix"]),
        (&made["id"], &Value::Null)
    );
    try_rule(&user, named.clone())
        .await
        .refused(409, "SecurityGroupRuleExists");
    let mut both = named.clone();
    both["remote_ip_prefix"] = json!("10.0.0.0/8");
    try_rule(&user, both)
        .await
        .refused(400, "SecurityGroupMultipleRemoteEntites");
    let nobody = json!({"remote_address_group_id": "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d"});
    try_rule(&user, nobody)
        .await
        .refused(404, "AddressGroupNotFound");
    user.delete("address-groups", &made["id"])
        .await
        .refused(409, "AddressGroupInUse");
    user.delete("security-group-rules", &rule["id"])
        .await
        .ok(204);
    user.delete("address-groups", &made["id"]).await.ok(204);
    try_rule(&user, named)
        .await
        .refused(404, "AddressGroupNotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_group_stays_shared_while_others_name_it() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (owner, _) = cloud.project("alpha", "member").await;
    let (other, id) = cloud.project("beta", "member").await;
    let made = group(&owner, json!(["10.0.0.0/24"])).await;
    let named = json!({"remote_address_group_id": made["id"]});
    try_rule(&other, named.clone())
        .await
        .refused(404, "AddressGroupNotFound");
    let policy = json!({"object_type": "address_group", "object_id": made["id"],
        "action": "access_as_shared", "target_tenant": id});
    let policy = owner.create("rbac-policies", "rbac_policy", policy).await;
    let rule = try_rule(&other, named).await.ok(201)["security_group_rule"].clone();
    act(&other, &made, "add_addresses", json!(["10.1.0.0/16"]))
        .await
        .refused(403, "PolicyNotAuthorized");
    owner
        .delete("rbac-policies", &policy["id"])
        .await
        .refused(409, "RbacPolicyInUse");
    other
        .delete("security-group-rules", &rule["id"])
        .await
        .ok(204);
    owner.delete("rbac-policies", &policy["id"]).await.ok(204);
    owner.delete("address-groups", &made["id"]).await.ok(204);
}
