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
