//! What a port's owner has its workload told, over a real listener.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "the cloud is other tests' too")]

mod cloud;

use cloud::TestCloud;
use hextet_server::StoreKind;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_port_has_metadata_that_its_owner_changes_and_takes_away() {
    let cloud = TestCloud::start(StoreKind::Redb).await;
    let admin = cloud.admin().await;
    let network = admin.network(json!({"shared": true})).await;
    let (user, _) = cloud.project("alpha", "member").await;
    let first = json!({"public_keys": {"k": "ssh-ed25519 AAAA k"}, "user_data": "aGV4dGV0"});
    let port = user.port(&network, json!({"hextet:metadata": first})).await;
    assert_eq!(port["hextet:metadata"], first);
    for value in [json!({"hostname": "web"}), Value::Null] {
        let change = json!({"hextet:metadata": value});
        let changed = user.update("ports", "port", &port["id"], change).await;
        assert_eq!(changed.ok(200)["port"]["hextet:metadata"], value);
    }
    let wrong = json!({"network_id": network["id"], "hextet:metadata": {"user_data": "%"}});
    let refused = user.try_create("ports", "port", wrong).await;
    let text = refused.refused(400, "HTTPBadRequest");
    assert!(text.contains("Base64"), "{text}");
    cloud.server.stop().await.unwrap();
}
