//! RBAC policies over a real listener: who sees and uses what of others, and for how long.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;

use cloud::{Answer, Client, TestCloud};
use hextet_server::StoreKind;
use serde_json::{Value, json};

const SHARED: &str = "access_as_shared";

async fn pool(client: &Client, prefixes: &[&str], mut more: Value) -> Value {
    more["prefixes"] = json!(prefixes);
    more["name"] = json!("pool");
    client.create("subnetpools", "subnetpool", more).await
}

async fn try_pool(client: &Client, prefixes: &[&str], mut more: Value) -> Answer {
    more["prefixes"] = json!(prefixes);
    more["name"] = json!("pool");
    client.try_create("subnetpools", "subnetpool", more).await
}

async fn try_subnet(client: &Client, network: &Value, version: u8, mut more: Value) -> Answer {
    more["network_id"] = network["id"].clone();
    more["ip_version"] = json!(version);
    client.try_create("subnets", "subnet", more).await
}

async fn policy(client: &Client, kind: &str, object: &Value, how: &str, target: &str) -> Answer {
    let body = json!({"object_type": kind, "object_id": object["id"], "action": how,
                      "target_tenant": target});
    client
        .try_create("rbac-policies", "rbac_policy", body)
        .await
}

/// The policies of an object that the caller sees.
async fn policies_of(client: &Client, object: &Value) -> Vec<Value> {
    let id = object["id"].as_str().unwrap();
    let path = format!("/networking/v2.0/rbac-policies?object_id={id}");
    let listed = client.get(&path).await.ok(200);
    listed["rbac_policies"].as_array().unwrap().clone()
}

async fn retarget(client: &Client, policy: &Value, target: &str) -> Answer {
    let more = json!({"target_tenant": target});
    client
        .update("rbac-policies", "rbac_policy", &policy["id"], more)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_refused_that_make_no_sense_or_are_not_the_caller_s() {
    let cloud = TestCloud::start(StoreKind::Redb).await;
    let admin = cloud.admin().await;
    let (alpha, a) = cloud.project("alpha", "member").await;
    let (beta, b) = cloud.project("beta", "member").await;
    let network = alpha.network(json!({"name": "mine"})).await;
    admin.subnet(&network, "10.1.0.0/24", json!({})).await;
    policy(&beta, "network", &network, SHARED, &b)
        .await
        .refused(404, "NetworkNotFound");
    policy(&alpha, "network", &network, SHARED, "*")
        .await
        .refused(403, "PolicyNotAuthorized");
    policy(&alpha, "router", &network, SHARED, &b)
        .await
        .refused(400, "InvalidInput");
    policy(&alpha, "network", &network, "steal", &b)
        .await
        .refused(400, "InvalidActionForType");
    policy(&alpha, "network", &network, SHARED, "nobody")
        .await
        .refused(400, "InvalidInput");
    let made = policy(&alpha, "network", &network, SHARED, &b)
        .await
        .ok(201)["rbac_policy"]
        .clone();
    assert_eq!(
        (
            &made["target_tenant"],
            &made["project_id"],
            &made["object_type"]
        ),
        (&json!(b), &json!(a), &json!("network"))
    );
    policy(&alpha, "network", &network, SHARED, &b)
        .await
        .refused(409, "DuplicateRbacPolicy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_network_says_so_to_whom_it_is_shared_with() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let (alpha, _) = cloud.project("alpha", "member").await;
    let (beta, b) = cloud.project("beta", "member").await;
    let network = alpha.network(json!({"name": "mine"})).await;
    admin.subnet(&network, "10.1.0.0/24", json!({})).await;
    policy(&alpha, "network", &network, SHARED, &b)
        .await
        .ok(201);
    let says = |client: Client| {
        let id = network["id"].clone();
        async move { client.show("networks", &id).await.ok(200)["network"]["shared"].clone() }
    };
    assert_eq!(
        (says(beta.clone()).await, says(alpha.clone()).await),
        (json!(true), json!(false))
    );
    let listed = |shared: bool| {
        let beta = beta.clone();
        async move {
            let path = format!("/networking/v2.0/networks?shared={shared}");
            beta.get(&path).await.ok(200)["networks"].clone()
        }
    };
    assert_eq!(listed(true).await.as_array().unwrap().len(), 1);
    assert_eq!(listed(false).await, json!([]));
    policy(&beta, "network", &network, SHARED, &b)
        .await
        .refused(400, "InvalidInput");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_stays_while_a_port_depends_on_it() {
    let cloud = TestCloud::start(StoreKind::Redb).await;
    let admin = cloud.admin().await;
    let (alpha, a) = cloud.project("alpha", "member").await;
    let (beta, b) = cloud.project("beta", "member").await;
    let network = alpha.network(json!({"name": "mine"})).await;
    admin.subnet(&network, "10.1.0.0/24", json!({})).await;
    let made = policy(&alpha, "network", &network, SHARED, &b)
        .await
        .ok(201)["rbac_policy"]
        .clone();
    let port = beta.port(&network, json!({})).await;
    alpha
        .delete("rbac-policies", &made["id"])
        .await
        .refused(409, "RbacPolicyInUse");
    retarget(&alpha, &made, &a)
        .await
        .refused(409, "RbacPolicyInUse");
    retarget(&alpha, &made, "*")
        .await
        .refused(403, "PolicyNotAuthorized");
    beta.show("rbac-policies", &made["id"])
        .await
        .refused(404, "RbacPolicyNotFound");
    // Everybody's policy is the attribute, and the other way round.
    let all = policy(&admin, "network", &network, SHARED, "*")
        .await
        .ok(201)["rbac_policy"]
        .clone();
    let seen = alpha.show("networks", &network["id"]).await.ok(200);
    assert_eq!(seen["network"]["shared"], json!(true));
    alpha.delete("rbac-policies", &made["id"]).await.ok(204);
    admin
        .delete("rbac-policies", &all["id"])
        .await
        .refused(409, "RbacPolicyInUse");
    let unshare = json!({"shared": false});
    let set = |more: Value| admin.update("networks", "network", &network["id"], more);
    set(unshare.clone())
        .await
        .refused(409, "InvalidSharedSetting");
    let again = policy(&alpha, "network", &network, SHARED, &b)
        .await
        .ok(201)["rbac_policy"]
        .clone();
    set(unshare).await.ok(200);
    admin
        .show("rbac-policies", &all["id"])
        .await
        .refused(404, "RbacPolicyNotFound");
    let seen = beta.show("networks", &network["id"]).await.ok(200);
    assert_eq!(seen["network"]["shared"], json!(true));
    beta.delete("ports", &port["id"]).await.ok(204);
    let moved = retarget(&alpha, &again, &a).await;
    assert_eq!(moved.ok(200)["rbac_policy"]["target_tenant"], json!(a));
    beta.show("networks", &network["id"])
        .await
        .refused(404, "NetworkNotFound");
    set(json!({"shared": true})).await.ok(200);
    assert_eq!(policies_of(&admin, &network).await.len(), 2);
    admin.delete("networks", &network["id"]).await.ok(204);
    assert!(policies_of(&admin, &network).await.is_empty());
    cloud.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_external_for_whom_policies_say() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let (alpha, a) = cloud.project("alpha", "member").await;
    let (beta, _) = cloud.project("beta", "member").await;
    let external = "access_as_external";
    let all = admin.network(json!({"router:external": true})).await;
    alpha.show("networks", &all["id"]).await.ok(200);
    alpha
        .try_port(&all, json!({}))
        .await
        .refused(404, "NetworkNotFound");
    let some = admin.network(json!({})).await;
    let made = policy(&admin, "network", &some, external, &a).await.ok(201)["rbac_policy"].clone();
    let shown = alpha.show("networks", &some["id"]).await.ok(200)["network"].clone();
    assert_eq!(
        (&shown["router:external"], &shown["shared"]),
        (&json!(true), &json!(false))
    );
    beta.show("networks", &some["id"])
        .await
        .refused(404, "NetworkNotFound");
    admin.delete("rbac-policies", &made["id"]).await.ok(204);
    let shown = admin.show("networks", &some["id"]).await.ok(200);
    assert_eq!(shown["network"]["router:external"], json!(false));
    let default = admin
        .network(json!({"router:external": true, "is_default": true}))
        .await;
    let everybody = policies_of(&admin, &default).await[0].clone();
    admin
        .delete("rbac-policies", &everybody["id"])
        .await
        .refused(409, "RbacPolicyInUse");
    admin
        .update(
            "networks",
            "network",
            &all["id"],
            json!({"router:external": false}),
        )
        .await
        .ok(200);
    alpha
        .show("networks", &all["id"])
        .await
        .refused(404, "NetworkNotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_may_have_a_group_that_is_shared_with_its_project() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (alpha, _) = cloud.project("alpha", "member").await;
    let (beta, b) = cloud.project("beta", "member").await;
    // A security group: beta's ports may have it, and it stays while one does.
    let group = alpha
        .create("security-groups", "security_group", json!({"name": "web"}))
        .await;
    let network = beta.network(json!({})).await;
    let with_it = json!({"security_groups": [group["id"]]});
    beta.try_port(&network, with_it.clone())
        .await
        .refused(404, "SecurityGroupNotFound");
    let made = policy(&alpha, "security_group", &group, SHARED, &b)
        .await
        .ok(201)["rbac_policy"]
        .clone();
    let seen = beta.show("security-groups", &group["id"]).await.ok(200);
    assert_eq!(seen["security_group"]["shared"], json!(true));
    let listed = beta
        .get("/networking/v2.0/security-groups?shared=true")
        .await
        .ok(200);
    assert_eq!(listed["security_groups"].as_array().unwrap().len(), 1);
    let port = beta.port(&network, with_it).await;
    alpha
        .delete("rbac-policies", &made["id"])
        .await
        .refused(409, "RbacPolicyInUse");
    beta.delete("ports", &port["id"]).await.ok(204);
    alpha.delete("rbac-policies", &made["id"]).await.ok(204);
    beta.show("security-groups", &group["id"])
        .await
        .refused(404, "SecurityGroupNotFound");
    policy(&alpha, "security_group", &group, "access_as_external", &b)
        .await
        .refused(400, "InvalidActionForType");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_pool_has_its_scope() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let (alpha, _) = cloud.project("alpha", "member").await;
    let (beta, b) = cloud.project("beta", "member").await;
    let network = beta.network(json!({})).await;
    let scope = admin
        .create("address-scopes", "address_scope", json!({"ip_version": 6}))
        .await;
    let in_scope = json!({"address_scope_id": scope["id"]});
    try_pool(
        &admin,
        &["2a00:1450:4000::/48"],
        json!({"address_scope_id": scope["id"], "shared": true}),
    )
    .await
    .refused(409, "RbacPolicyInitError");
    let p = pool(&admin, &["2a00:1450:4000::/48"], in_scope).await;
    policy(&admin, "subnetpool", &p, SHARED, &b)
        .await
        .refused(409, "RbacPolicyInitError");
    let of_scope = policy(&admin, "address_scope", &scope, SHARED, &b)
        .await
        .ok(201)["rbac_policy"]
        .clone();
    let of_pool = policy(&admin, "subnetpool", &p, SHARED, &b).await.ok(201)["rbac_policy"].clone();
    alpha
        .show("subnetpools", &p["id"])
        .await
        .refused(404, "SubnetPoolNotFound");
    beta.show("address-scopes", &scope["id"]).await.ok(200);
    let subnet = try_subnet(&beta, &network, 6, json!({"subnetpool_id": p["id"]}))
        .await
        .ok(201);
    let shown = beta.show("networks", &network["id"]).await.ok(200);
    assert_eq!(shown["network"]["ipv6_address_scope"], scope["id"]);
    admin
        .delete("rbac-policies", &of_pool["id"])
        .await
        .refused(409, "RbacPolicyInUse");
    beta.delete("subnets", &subnet["subnet"]["id"])
        .await
        .ok(204);
    admin.delete("rbac-policies", &of_pool["id"]).await.ok(204);
    let mine = json!({"address_scope_id": scope["id"]});
    let theirs = pool(&beta, &["2a00:1450:5000::/48"], mine).await;
    admin
        .delete("rbac-policies", &of_scope["id"])
        .await
        .refused(409, "RbacPolicyInUse");
    beta.update(
        "subnetpools",
        "subnetpool",
        &theirs["id"],
        json!({"name": "x"}),
    )
    .await
    .refused(400, "IllegalSubnetPoolUpdate");
    beta.delete("subnetpools", &theirs["id"]).await.ok(204);
    admin.delete("rbac-policies", &of_scope["id"]).await.ok(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_policies_in_one_request_count_together() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let (alpha, a) = cloud.project("alpha", "member").await;
    let (_, b) = cloud.project("beta", "member").await;
    let group = alpha
        .create("security-groups", "security_group", json!({"name": "web"}))
        .await;
    let quotas = format!("/networking/v2.0/quotas/{a}");
    let two = json!({"quota": {"rbac_policy": 2, "subnetpool": 1}});
    admin.send("PUT", &quotas, Some(two)).await.ok(200);
    let item = |target: &str| json!({"object_type": "security_group", "object_id": group["id"], "action": SHARED, "target_tenant": target});
    let (x, y) = (
        "0c0a1f1e8f2e4b2a9d5c0a6f0a2b3c4d",
        "0c0a1f1e8f2e4b2a9d5c0a6f0a2b3c4e",
    );
    let bulk = |targets: &[&str]| json!({"rbac_policies": targets.iter().map(|t| item(t)).collect::<Vec<_>>()});
    let path = "/networking/v2.0/rbac-policies";
    alpha
        .post(path, bulk(&[x, y, &b]))
        .await
        .refused(409, "OverQuota");
    alpha
        .post(path, bulk(&[x, x]))
        .await
        .refused(409, "DuplicateRbacPolicy");
    alpha.post(path, bulk(&[x, y])).await.ok(201);
    admin.post(path, bulk(&["*", &b])).await.ok(201);
    let seen = alpha.show("security-groups", &group["id"]).await.ok(200);
    assert_eq!(
        seen["security_group"]["shared"],
        json!(true),
        "all of the request counts"
    );
    pool(&alpha, &["10.0.0.0/8"], json!({})).await;
    try_pool(&alpha, &["10.0.0.0/8"], json!({}))
        .await
        .refused(409, "OverQuota");
}

/// A policy that goes while a port comes: one of the two is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_goes_or_a_port_comes_but_not_both() {
    for store in [StoreKind::Memory, StoreKind::Redb] {
        let cloud = TestCloud::start(store).await;
        let (alpha, _) = cloud.project("alpha", "member").await;
        let (beta, b) = cloud.project("beta", "member").await;
        for _ in 0..8 {
            let network = alpha.network(json!({})).await;
            let made = policy(&alpha, "network", &network, SHARED, &b)
                .await
                .ok(201)["rbac_policy"]
                .clone();
            let (gone, come) = tokio::join!(
                alpha.delete("rbac-policies", &made["id"]),
                beta.try_port(&network, json!({})),
            );
            match (gone.status, come.status) {
                (204, 404) | (409, 201) => {}
                both => panic!("{both:?}: {} {}", gone.body, come.body),
            }
        }
        cloud.server.stop().await.unwrap();
    }
}
