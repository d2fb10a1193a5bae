//! QoS policies, their rules and what has them, over a real listener.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;

use serde_json::{Value, json};

use cloud::{Answer, Client, TestCloud};
use hextet_server::StoreKind;

const POLICIES: &str = "qos/policies";

async fn policy(client: &Client, more: Value) -> Value {
    client.create(POLICIES, "policy", more).await
}

fn rules(policy: &Value, kind: &str) -> String {
    format!("{POLICIES}/{}/{kind}s", policy["id"].as_str().unwrap())
}

async fn rule(client: &Client, policy: &Value, kind: &str, body: Value) -> Answer {
    client.try_create(&rules(policy, kind), kind, body).await
}

async fn show(client: &Client, policy: &Value) -> Value {
    let id = policy["id"].as_str().unwrap();
    let path = format!("/networking/v2.0/{POLICIES}/{id}");
    client.get(&path).await.ok(200)["policy"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_made_changed_and_deleted() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = &cloud.admin().await;

    let made = policy(admin, json!({"name": "gold", "tags": ["a"]})).await;
    assert_eq!(
        (&made["shared"], &made["is_default"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(made["rules"], json!([]));
    let bandwidth = rule(
        admin,
        &made,
        "bandwidth_limit_rule",
        json!({"max_kbps": "9000"}),
    )
    .await;
    let bandwidth = bandwidth.ok(201)["bandwidth_limit_rule"].clone();
    let id = bandwidth["id"].clone();
    let expected = json!({
        "id": id, "max_kbps": 9000, "max_burst_kbps": 0, "direction": "egress",
    });
    assert_eq!(bandwidth, expected);
    let ingress = json!({"max_kbps": 1, "direction": "ingress"});
    rule(admin, &made, "bandwidth_limit_rule", ingress)
        .await
        .ok(201);
    let words = rule(admin, &made, "bandwidth_limit_rule", json!({"max_kbps": 1}))
        .await
        .refused(409, "QoSRulesConflict");
    assert!(
        words.starts_with("Rule bandwidth_limit conflicts with rule "),
        "{words}"
    );
    rule(
        admin,
        &made,
        "packet_rate_limit_rule",
        json!({"max_kpps": 2}),
    )
    .await
    .ok(201);
    rule(admin, &made, "dscp_marking_rule", json!({"dscp_mark": 46}))
        .await
        .ok(201);
    let shown = show(admin, &made).await;
    assert_eq!(shown["rules"].as_array().unwrap().len(), 4);
    assert_eq!(shown["rules"][0]["type"], "bandwidth_limit");
    assert_eq!(shown["rules"][0]["qos_policy_id"], made["id"]);
    assert_eq!(shown["revision_number"], 5);

    change(admin, &made, &id).await;
}

/// What is changed of a rule, and what is not.
async fn change(admin: &Client, made: &Value, id: &Value) {
    let path = rules(made, "bandwidth_limit_rule");
    let change = json!({"max_burst_kbps": 100});
    let changed = admin
        .update(&path, "bandwidth_limit_rule", id, change)
        .await
        .ok(200);
    let changed = &changed["bandwidth_limit_rule"];
    assert_eq!(
        (&changed["max_kbps"], &changed["max_burst_kbps"]),
        (&json!(9000), &json!(100))
    );
    admin
        .update(
            &path,
            "bandwidth_limit_rule",
            id,
            json!({"direction": "ingress"}),
        )
        .await
        .refused(409, "QoSRulesConflict");
    let listed = admin
        .get(&format!("/networking/v2.0/{path}?direction=egress"))
        .await
        .ok(200);
    assert_eq!(listed["bandwidth_limit_rules"].as_array().unwrap().len(), 1);
    by_identifier(admin, id).await;
    let gone = format!("/networking/v2.0/{path}/{}", id.as_str().unwrap());
    let words = admin.get(&gone).await.refused(404, "QosRuleNotFound");
    assert!(words.contains(" for policy "), "{words}");
    admin.delete(POLICIES, &made["id"]).await.ok(204);
}

/// Without the policy's identifier.
async fn by_identifier(admin: &Client, id: &Value) {
    let (path, name) = (
        "qos/alias_bandwidth_limit_rules",
        "alias_bandwidth_limit_rule",
    );
    let changed = admin
        .update(path, name, id, json!({"max_kbps": 5}))
        .await
        .ok(200);
    assert_eq!(changed[name]["max_kbps"], 5);
    let one = format!("/networking/v2.0/{path}/{}", id.as_str().unwrap());
    assert_eq!(admin.get(&one).await.ok(200)[name]["max_burst_kbps"], 100);
    let other = one.replace("bandwidth_limit", "dscp_marking");
    admin.get(&other).await.refused(404, "QosRuleNotFound");
    admin.delete(path, id).await.ok(204);
    admin.get(&one).await.refused(404, "QosRuleNotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = &cloud.admin().await;
    let (user, _) = cloud.project("alpha", "member").await;
    let made = policy(admin, json!({"name": "gold", "shared": true})).await;
    let table = [
        ("bandwidth_limit_rule", json!({})),
        ("bandwidth_limit_rule", json!({"max_kbps": -1})),
        (
            "bandwidth_limit_rule",
            json!({"max_kbps": 2_147_483_648_u32}),
        ),
        (
            "bandwidth_limit_rule",
            json!({"max_kbps": 1, "direction": "both"}),
        ),
        ("packet_rate_limit_rule", json!({"max_kbps": 1})),
        ("dscp_marking_rule", json!({"dscp_mark": 7})),
        ("dscp_marking_rule", json!({"dscp_mark": 58})),
    ];
    for (kind, body) in table {
        rule(admin, &made, kind, body)
            .await
            .refused(400, "HTTPBadRequest");
    }
    let known = admin.get("/networking/v2.0/qos/policies/x/minimum_bandwidth_rules");
    known.await.refused(404, "HTTPNotFound");
    user.try_create(POLICIES, "policy", json!({"name": "mine"}))
        .await
        .refused(403, "PolicyNotAuthorized");
    user.update(POLICIES, "policy", &made["id"], json!({"name": "mine"}))
        .await
        .refused(403, "PolicyNotAuthorized");
    rule(&user, &made, "bandwidth_limit_rule", json!({"max_kbps": 1}))
        .await
        .refused(403, "PolicyNotAuthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_in_use_stays() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = &cloud.admin().await;
    let (user, _) = cloud.project("alpha", "member").await;
    let shared = policy(admin, json!({"name": "gold", "shared": true})).await;
    let hidden = policy(admin, json!({"name": "iron"})).await;
    let body = json!({"name": "n", "qos_policy_id": shared["id"]});
    let network = user.create("networks", "network", body).await;
    let port = user.port(&network, json!({})).await;
    assert_eq!(port["qos_policy_id"], Value::Null);
    assert_eq!(port["qos_network_policy_id"], shared["id"]);
    let words = admin.delete(POLICIES, &shared["id"]).await;
    let words = words.refused(409, "QosPolicyInUse");
    assert!(words.contains(" is used by network "), "{words}");
    let wish = json!({"qos_policy_id": hidden["id"]});
    user.update("ports", "port", &port["id"], wish.clone())
        .await
        .refused(404, "QosPolicyNotFound");
    let changed = admin.update("ports", "port", &port["id"], wish).await;
    assert_eq!(changed.ok(200)["port"]["qos_policy_id"], hidden["id"]);
    user.update("ports", "port", &port["id"], json!({"qos_policy_id": null}))
        .await
        .refused(403, "PolicyRemoveAuthorizationError");
    let unshared = admin.update(POLICIES, "policy", &shared["id"], json!({"shared": false}));
    unshared.await.refused(409, "QosPolicyInUse");
    user.delete("ports", &port["id"]).await.ok(204);
    admin.delete(POLICIES, &hidden["id"]).await.ok(204);
    user.update(
        "networks",
        "network",
        &network["id"],
        json!({"qos_policy_id": null}),
    )
    .await
    .ok(200);
    let unshared = admin.update(POLICIES, "policy", &shared["id"], json!({"shared": false}));
    assert_eq!(unshared.await.ok(200)["policy"]["shared"], false);
    let gone = user
        .get(&format!("/networking/v2.0/{POLICIES}"))
        .await
        .ok(200);
    assert_eq!(gone["policies"], json!([]));
    admin.delete(POLICIES, &shared["id"]).await.ok(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_has_one_default_policy() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = &cloud.admin().await;
    let (user, project) = cloud.project("alpha", "member").await;
    let body = json!({"name": "d", "project_id": project, "is_default": true});
    let made = policy(admin, body.clone()).await;
    admin
        .try_create(POLICIES, "policy", body)
        .await
        .refused(409, "QoSPolicyDefaultAlreadyExists");
    let network = user
        .create("networks", "network", json!({"name": "n"}))
        .await;
    assert_eq!(network["qos_policy_id"], made["id"]);
    let none = json!({"name": "m", "qos_policy_id": null});
    let other = user.create("networks", "network", none).await;
    assert_eq!(other["qos_policy_id"], Value::Null);
    user.delete("networks", &network["id"]).await.ok(204);
    admin.delete(POLICIES, &made["id"]).await.ok(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_shared_with_single_projects() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = &cloud.admin().await;
    let (user, project) = cloud.project("alpha", "member").await;
    let made = policy(admin, json!({"name": "gold"})).await;
    let body = json!({
        "object_type": "qos_policy", "object_id": made["id"],
        "action": "access_as_shared", "target_tenant": project,
    });
    let grant = admin.create("rbac-policies", "rbac_policy", body).await;
    assert_eq!(show(&user, &made).await["shared"], true);
    let body = json!({"name": "n", "qos_policy_id": made["id"]});
    let network = user.create("networks", "network", body).await;
    admin
        .delete("rbac-policies", &grant["id"])
        .await
        .refused(409, "RbacPolicyInUse");
    user.delete("networks", &network["id"]).await.ok(204);
    admin.delete("rbac-policies", &grant["id"]).await.ok(204);
    let id = made["id"].as_str().unwrap();
    let hidden = user.get(&format!("/networking/v2.0/{POLICIES}/{id}")).await;
    hidden.refused(404, "QosPolicyNotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_and_floating_ips_have_policies() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = &cloud.admin().await;

    let gold = policy(admin, json!({"name": "gold"})).await;
    let iron = policy(admin, json!({"name": "iron"})).await;
    let body = json!({"name": "ext", "router:external": true});
    let ext = admin.create("networks", "network", body).await;
    let body = json!({"network_id": ext["id"], "ip_version": 4, "cidr": "203.0.113.0/24"});
    admin.create("subnets", "subnet", body).await;
    let info = json!({"network_id": ext["id"], "qos_policy_id": gold["id"]});
    let body = json!({"name": "r", "external_gateway_info": info});
    let router = admin.create("routers", "router", body).await;
    assert_eq!(router["external_gateway_info"]["qos_policy_id"], gold["id"]);
    let put = async |info: Value| {
        let body = json!({"external_gateway_info": info});
        let changed = admin.update("routers", "router", &router["id"], body).await;
        changed.ok(200)["router"]["external_gateway_info"]["qos_policy_id"].clone()
    };
    assert_eq!(
        put(json!({"network_id": ext["id"], "enable_snat": true})).await,
        gold["id"]
    );
    let words = admin.delete(POLICIES, &gold["id"]).await;
    assert!(
        words
            .refused(409, "QosPolicyInUse")
            .contains(" is used by router ")
    );
    let other = json!({"network_id": ext["id"], "qos_policy_id": iron["id"]});
    assert_eq!(put(other).await, iron["id"]);
    admin.delete(POLICIES, &gold["id"]).await.ok(204);
    let body = json!({"floating_network_id": ext["id"], "qos_policy_id": iron["id"]});
    let fip = admin.create("floatingips", "floatingip", body).await;
    assert_eq!(fip["qos_policy_id"], iron["id"]);
    assert_eq!(put(Value::Null).await, Value::Null);
    let words = admin.delete(POLICIES, &iron["id"]).await;
    assert!(
        words
            .refused(409, "QosPolicyInUse")
            .contains(" is used by floatingip ")
    );
    admin.delete("floatingips", &fip["id"]).await.ok(204);
    admin.delete(POLICIES, &iron["id"]).await.ok(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_types_of_rules_are_told() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = &cloud.admin().await;
    let (user, _) = cloud.project("alpha", "member").await;
    let path = "/networking/v2.0/qos/rule-types";
    let types = json!([
        {"type": "bandwidth_limit"}, {"type": "dscp_marking"}, {"type": "packet_rate_limit"},
    ]);
    for query in ["", "?all_supported=True", "?all_rules=True"] {
        let listed = user.get(&format!("{path}{query}")).await.ok(200);
        assert_eq!(listed["rule_types"], types, "{query}");
    }
    let one = format!("{path}/bandwidth_limit");
    user.get(&one).await.refused(403, "PolicyNotAuthorized");
    let shown = admin.get(&one).await.ok(200)["rule_type"].clone();
    let parameter = &shown["drivers"][0]["supported_parameters"][0];
    assert_eq!(parameter["parameter_name"], "max_kbps");
    assert_eq!(
        parameter["parameter_values"],
        json!({"start": 0, "end": 2_147_483_647})
    );
    admin
        .get(&format!("{path}/minimum_bandwidth"))
        .await
        .refused(404, "QosRuleTypeNotFound");
}
