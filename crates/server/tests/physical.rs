//! Physical networks: what they are claimed by, and which hosts take their ports.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;

use cloud::{TestCloud, host::Host, slaac};
use hextet_api::agent::StatusReport;
use hextet_server::StoreKind;
use serde_json::{Value, json};

fn flat(physical: &str) -> Value {
    json!({
        "name": physical,
        "provider:network_type": "flat",
        "provider:physical_network": physical,
    })
}

fn on(physical: &[&str]) -> StatusReport {
    StatusReport {
        complete: true,
        physical_networks: physical.iter().map(|name| (*name).to_owned()).collect(),
        ..StatusReport::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_physical_network_is_one_network() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let first = admin.network(flat("vlan30")).await;
    assert_eq!(first["provider:network_type"], "flat");
    assert_eq!(first["provider:physical_network"], "vlan30");
    assert_eq!(first["provider:segmentation_id"], Value::Null);
    assert_eq!(first["mtu"], 1500);
    let again = admin
        .try_create("networks", "network", flat("vlan30"))
        .await;
    again.refused(409, "FlatNetworkInUse");
    admin.network(flat("vlan20")).await;
    for wrong in [
        json!({"provider:network_type": "flat"}),
        json!({"provider:network_type": "flat", "provider:physical_network": "a", "provider:segmentation_id": 5}),
        json!({"provider:physical_network": "a"}),
        json!({"provider:network_type": "vxlan", "provider:physical_network": "a"}),
    ] {
        let answer = admin.try_create("networks", "network", wrong).await;
        answer.refused(400, "InvalidInput");
    }
    admin.delete("networks", &first["id"]).await.ok(204);
    let external = json!({
        "provider:network_type": "flat",
        "provider:physical_network": "vlan30",
        "router:external": true,
    });
    let freed = admin.network(external).await;
    assert_eq!(freed["router:external"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_hosts_that_are_on_it_take_its_ports() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let network = admin.network(flat("vlan30")).await;
    admin.subnet(&network, "2001:db8::/64", slaac()).await;
    let plugged = async |port: &Value| {
        let port = admin.show("ports", &port["id"]).await.ok(200)["port"].clone();
        port["binding:vif_type"].as_str().unwrap().to_owned()
    };
    let host = Host::joined(&cloud, "h1").await;
    let mut told = host.intent().await;
    let port = admin.port(&network, json!({"binding:host_id": "h1"})).await;
    assert_eq!(plugged(&port).await, "binding_failed");
    told.until("nothing", |i| i.ports.is_empty()).await;
    let other = host.post("/v1/status", &on(&["vlan20"])).await;
    assert_eq!(other.0, 204);
    assert_eq!(plugged(&port).await, "binding_failed");
    assert_eq!(
        host.post("/v1/status", &on(&["vlan20", "vlan30"])).await.0,
        204
    );
    told.until("the port", |i| i.ports.len() == 1 && i.networks.len() == 1)
        .await;
    assert_eq!(plugged(&port).await, "tap");
    let agents = admin.get("/networking/v2.0/agents?host=h1").await.ok(200);
    let shown = &agents["agents"][0]["configurations"]["physical_networks"];
    assert_eq!(*shown, json!(["vlan20", "vlan30"]));
    // What is not complete says nothing of it.
    let part = StatusReport::default();
    assert_eq!(host.post("/v1/status", &part).await.0, 204);
    assert_eq!(plugged(&port).await, "tap");
    assert_eq!(host.post("/v1/status", &on(&[])).await.0, 204);
    told.until("no port", |i| i.ports.is_empty()).await;
    assert_eq!(plugged(&port).await, "binding_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_the_host_leads_to_one_port() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let network = admin.network(flat("vlan30")).await;
    admin.subnet(&network, "10.30.0.0/24", json!({})).await;
    let host = Host::joined(&cloud, "h1").await;
    assert_eq!(host.post("/v1/status", &on(&["vlan30"])).await.0, 204);
    let https = json!([{"protocol": "TCP", "external_port": 443}]);
    let with = |exposed: &Value| json!({"binding:host_id": "h1", "hextet:exposed": exposed});
    let first = admin.port(&network, with(&https)).await;
    let shown = json!([{"protocol": "tcp", "external_port": 443, "internal_port": 443}]);
    assert_eq!(first["hextet:exposed"], shown);
    let again = admin.try_port(&network, with(&https)).await;
    let said = again.refused(409, "ExposedInUse");
    let id = first["id"].as_str().unwrap();
    assert!(
        said.contains("tcp port 443 of host h1") && said.contains(id),
        "{said}"
    );
    // Elsewhere it is another one, and of another protocol.
    let elsewhere = json!({"binding:host_id": "h2", "hextet:exposed": https});
    let elsewhere = admin.port(&network, elsewhere).await;
    let moved = json!({"binding:host_id": "h1"});
    let moved = admin
        .update("ports", "port", &elsewhere["id"], moved.clone())
        .await;
    moved.refused(409, "ExposedInUse");
    let udp = json!([{"protocol": "udp", "external_port": 443, "internal_port": 4433}]);
    admin.port(&network, with(&udp)).await;
    // Who lets go, gives it to the next.
    let none = json!({"hextet:exposed": []});
    let freed = admin.update("ports", "port", &first["id"], none).await;
    assert_eq!(freed.ok(200)["port"]["hextet:exposed"], json!([]));
    let third = admin.port(&network, with(&https)).await;
    admin.delete("ports", &third["id"]).await.ok(204);
    admin.port(&network, with(&https)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_exposed_is_refused() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let network = admin.network(flat("vlan30")).await;
    admin.subnet(&network, "2001:db8::/64", slaac()).await;
    let https = json!([{"protocol": "tcp", "external_port": 443}]);
    let only_v6 = admin
        .try_port(&network, json!({"hextet:exposed": https}))
        .await;
    only_v6.refused(400, "InvalidInput");
    admin.subnet(&network, "10.30.0.0/24", json!({})).await;
    for wrong in [
        json!([{"protocol": "icmp", "external_port": 1}]),
        json!([{"protocol": "tcp", "external_port": 0}]),
        json!([{"protocol": "tcp", "external_port": 65_536}]),
        json!([{"protocol": "tcp"}]),
    ] {
        let answer = admin
            .try_port(&network, json!({"hextet:exposed": wrong}))
            .await;
        answer.refused(400, "HTTPBadRequest");
    }
    let twice = json!([
        {"protocol": "tcp", "external_port": 80, "internal_port": 1},
        {"protocol": "tcp", "external_port": 80, "internal_port": 2},
    ]);
    let answer = admin
        .try_port(&network, json!({"hextet:exposed": twice}))
        .await;
    answer.refused(400, "InvalidInput");
    let private = json!({"name": "p", "provider:network_type": "vxlan"});
    let private = admin.network(private).await;
    admin.subnet(&private, "10.31.0.0/24", json!({})).await;
    let answer = admin
        .try_port(&private, json!({"hextet:exposed": https}))
        .await;
    let said = answer.refused(400, "InvalidInput");
    assert!(said.contains("floating IP"), "{said}");
    let (member, _) = cloud.project("m", "member").await;
    let routed = admin
        .network(json!({"name": "r", "shared": true, "provider:network_type": "routed"}))
        .await;
    let answer = member
        .try_port(&routed, json!({"hextet:exposed": https}))
        .await;
    answer.refused(403, "PolicyNotAuthorized");
}
