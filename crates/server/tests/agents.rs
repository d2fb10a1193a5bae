//! The agents' listener: joining, intent, status, NAT44 sources, and what deleting an agent does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;

use std::collections::BTreeMap;

use cloud::{
    PATIENCE, TestCloud,
    host::{Host, Stream, shown_authority, signing_request, token},
    slaac,
};
use hextet_api::agent::{FORMER_INTENTS, INTENT, JoinResponse, PortState, StatusReport};
use hextet_model::intent::Intent;
use hextet_server::{StoreKind, admin};
use hextet_types::PortId;
use http_body_util::BodyExt;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::time::timeout;

fn id(value: &Value) -> PortId {
    value["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_joins_once_by_a_token() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let mut host = Host::new(&cloud).await;
    assert_eq!(
        host.send("GET", INTENT, Vec::new()).await.status().as_u16(),
        401
    );
    assert_eq!(host.join("nothing", "h1").await, 401);
    assert_eq!(host.join("a.b", "h1").await, 401);
    let one = token(&cloud, None).await;
    let (name, _) = one.split_once('.').unwrap();
    assert_eq!(host.join(&format!("{name}.guess"), "h1").await, 401);
    assert_eq!(host.join(&one, "h1").await, 200);
    assert_eq!(
        Host::new(&cloud).await.join(&one, "h2").await,
        401,
        "a token counts once"
    );
    // A token for anybody does not take a name that somebody has; one for that host does.
    let any = token(&cloud, None).await;
    assert_eq!(Host::new(&cloud).await.join(&any, "h1").await, 401);
    let own = token(&cloud, Some("h1")).await;
    assert_eq!(Host::new(&cloud).await.join(&own, "h9").await, 401);
    let mut stream = host.intent().await;
    stream.until("an intent", |_| true).await;
    let mut again = Host::new(&cloud).await;
    assert_eq!(again.join(&own, "h1").await, 200);
    again.intent().await.until("an intent", |_| true).await;
    // The former certificate has lost its power, and its stream ends.
    assert_eq!(
        host.send("GET", INTENT, Vec::new()).await.status().as_u16(),
        403
    );
    while stream.next().await.is_some() {}
    let (csr_pem, _) = signing_request("somebody-else");
    let (status, body) = again.post("/v1/renew", &json!({"csr_pem": csr_pem})).await;
    assert_eq!(status, 200);
    let renewed: JoinResponse = serde_json::from_slice(&body).unwrap();
    let der = CertificateDer::from_pem_slice(renewed.certificate_pem.as_bytes()).unwrap();
    let (_, parsed) =
        <x509_parser::prelude::X509Certificate<'_> as x509_parser::prelude::FromDer<_>>::from_der(
            &der,
        )
        .unwrap();
    let subject = parsed
        .subject()
        .iter_common_name()
        .next()
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(subject, "h1", "whatever the request says");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_does_not_get_in() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let mut host = Host::new(&cloud).await;
    let key = KeyPair::generate().unwrap();
    let forged = CertificateParams::new(["h1".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    host.identity = Some((forged.der().clone(), key.serialize_der()));
    let tried = tokio::spawn(async move { host.send("GET", INTENT, Vec::new()).await });
    assert!(tried.await.is_err(), "the handshake fails");
}

/// An agent that does not know of what it would be told is told so, in words for its log.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_too_old_is_told_so() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let host = Host::joined(&cloud, "h1").await;
    for former in FORMER_INTENTS {
        let answer = host.send("GET", former, Vec::new()).await;
        assert_eq!(answer.status().as_u16(), 426);
        let words = answer.into_body().collect().await.unwrap().to_bytes();
        let words = String::from_utf8_lossy(&words);
        assert!(words.contains("h1 is too old"), "{words}");
    }
    host.intent().await.until("an intent", |_| true).await;
}

/// A cloud with a network, and a port bound to h1, which has joined and listens.
async fn with_a_host() -> (TestCloud, Host, Stream, Value, Value) {
    let cloud = TestCloud::start(StoreKind::Redb).await;
    let admin = cloud.admin().await;
    let network = admin.network(json!({"name": "n", "shared": true})).await;
    admin.subnet(&network, "10.0.0.0/24", json!({})).await;
    admin.subnet(&network, "2001:db8::/64", slaac()).await;
    let port = admin.port(&network, json!({"binding:host_id": "h1"})).await;
    let host = Host::joined(&cloud, "h1").await;
    let mut stream = host.intent().await;
    let there = |i: &Intent| i.ports.contains_key(&id(&port));
    stream.until("the port bound before", there).await;
    (cloud, host, stream, network, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_told_of_its_own_and_of_others_the_bare_addresses() {
    let (cloud, _host, mut stream, network, port) = with_a_host().await;
    let admin = cloud.admin().await;
    assert_eq!(
        (stream.intent.networks.len(), stream.intent.subnets.len()),
        (1, 2)
    );
    assert_eq!(stream.intent.groups.len(), 1);
    let members = |i: &Intent| i.members.values().next().map_or(0, |m| m.len());
    assert_eq!(
        members(&stream.intent),
        2,
        "the default group's members: its own addresses"
    );
    let other = admin.port(&network, json!({"binding:host_id": "h2"})).await;
    stream
        .until("the other's addresses", |i| members(i) == 4)
        .await;
    assert!(!stream.intent.ports.contains_key(&id(&other)));
    admin.delete("ports", &other["id"]).await.ok(204);
    stream.until("they go", |i| members(i) == 2).await;
    let away = json!({"binding:host_id": ""});
    admin
        .update("ports", "port", &port["id"], away)
        .await
        .ok(200);
    let nothing = |i: &Intent| i.ports.is_empty() && i.networks.is_empty();
    stream.until("nothing is left here", nothing).await;
    assert!(stream.intent.members.is_empty() && stream.intent.groups.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_reports_is_shown() {
    let (cloud, host, _stream, network, port) = with_a_host().await;
    let admin = cloud.admin().await;
    let other = admin.port(&network, json!({"binding:host_id": "h2"})).await;
    let report = |state: PortState| StatusReport {
        version: "test".into(),
        ports: BTreeMap::from([(id(&port), state.clone()), (id(&other), state)]),
        complete: true,
        applied_revision: 1,
        ..StatusReport::default()
    };
    let status = async |wanted: &str| {
        let shown = async {
            while admin.show("ports", &port["id"]).await.ok(200)["port"]["status"] != wanted {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, shown)
            .await
            .unwrap_or_else(|_| panic!("never {wanted}"));
    };
    assert_eq!(
        host.post("/v1/status", &report(PortState::Active)).await.0,
        204
    );
    status("ACTIVE").await;
    let foreign = admin.show("ports", &other["id"]).await.ok(200);
    assert_eq!(
        foreign["port"]["status"], "DOWN",
        "a host speaks for its own ports alone"
    );
    let reason = "the link is away".into();
    assert_eq!(
        host.post("/v1/status", &report(PortState::Down { reason }))
            .await
            .0,
        204
    );
    status("DOWN").await;
    let agents = admin.get("/networking/v2.0/agents").await.ok(200);
    let agent = &agents["agents"][0];
    assert_eq!(
        (&agent["host"], &agent["alive"]),
        (&json!("h1"), &json!(true))
    );
    assert_eq!(agent["configurations"]["version"], "test");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_port_tells_its_host_s_own_address() {
    let (cloud, host, _stream, network, port) = with_a_host().await;
    let admin = cloud.admin().await;
    let shown = async |port: &Value| {
        let shown = admin.show("ports", &port["id"]).await.ok(200);
        shown["port"]["binding:vif_details"]["mac_address"].clone()
    };
    assert_eq!(shown(&port).await, "02:68:78:00:00:01", "nobody has told");
    let own = StatusReport {
        gateway_mac: "02:00:00:00:00:fe".parse().ok(),
        ..StatusReport::default()
    };
    assert_eq!(host.post("/v1/status", &own).await.0, 204);
    assert_eq!(shown(&port).await, "02:00:00:00:00:fe");
    let silent = host.post("/v1/status", &StatusReport::default()).await;
    assert_eq!(silent.0, 204);
    assert_eq!(shown(&port).await, "02:00:00:00:00:fe", "it is remembered");
    let unbound = admin.port(&network, json!({})).await;
    assert_eq!(unbound["binding:vif_details"], json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_deleted_does_not_get_in_any_more() {
    let (cloud, host, mut stream, _, port) = with_a_host().await;
    let admin = cloud.admin().await;
    let agents = admin.get("/networking/v2.0/agents").await.ok(200);
    let agent = &agents["agents"][0];
    admin
        .delete("agents", &agent["id"])
        .await
        .refused(409, "AgentInUse");
    admin.delete("ports", &port["id"]).await.ok(204);
    admin.delete("agents", &agent["id"]).await.ok(204);
    while stream.next().await.is_some() {}
    assert_eq!(
        host.post("/v1/status", &StatusReport::default()).await.0,
        403
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_get_sources_for_nat44_and_lose_them() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let dual = admin.network(json!({"name": "dualStack"})).await;
    let pool = admin.subnet(&dual, "198.51.100.0/28", json!({})).await;
    admin.subnet(&dual, "2001:db8::/64", slaac()).await;
    let network = admin.network(json!({"name": "IPv6"})).await;
    let nat = json!({"hextet:nat44": {"pool_subnet_id": pool["id"], "addresses_per_host": 2}});
    let private = admin.subnet(&network, "10.0.0.0/16", nat).await;
    let mut streams = Vec::new();
    for name in ["h1", "h2"] {
        streams.push(Host::joined(&cloud, name).await.intent().await);
    }
    let mut all = std::collections::BTreeSet::new();
    for stream in &mut streams {
        let sources = |i: &Intent| {
            i.nat44_sources
                .values()
                .flatten()
                .copied()
                .collect::<Vec<_>>()
        };
        stream.until("two sources", |i| sources(i).len() == 2).await;
        all.extend(sources(&stream.intent));
        assert!(stream.intent.ports.is_empty(), "sources are no workloads");
    }
    assert_eq!(all.len(), 4, "no two hosts share one: {all:?}");
    let listed = admin
        .get("/networking/v2.0/ports?device_owner=network:nat44")
        .await
        .ok(200);
    let ports = listed["ports"].as_array().unwrap();
    assert_eq!(ports.len(), 2);
    admin
        .delete("ports", &ports[0]["id"])
        .await
        .refused(409, "ServicePortInUse");
    let one = json!({"hextet:nat44": {"pool_subnet_id": pool["id"], "addresses_per_host": 1}});
    admin
        .update("subnets", "subnet", &private["id"], one)
        .await
        .ok(200);
    for stream in &mut streams {
        stream
            .until("one source", |i| {
                i.nat44_sources.values().map(|s| s.len()).sum::<usize>() == 1
            })
            .await;
    }
    admin
        .update(
            "subnets",
            "subnet",
            &private["id"],
            json!({"hextet:nat44": null}),
        )
        .await
        .ok(200);
    for stream in &mut streams {
        stream
            .until("no source", |i| i.nat44_sources.is_empty())
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_of_the_running_server_loads_into_another() {
    let cloud = TestCloud::start(StoreKind::Redb).await;
    let admin = cloud.admin().await;
    let network = admin.network(json!({"name": "kept"})).await;
    let mut text = Vec::new();
    admin::dump(&cloud.config, &mut text).await.unwrap();
    assert!(String::from_utf8_lossy(&text).contains("\"kept\""));
    let directory = tempfile::TempDir::new().unwrap();
    let config = cloud::config(&directory, StoreKind::Redb);
    std::fs::create_dir_all(&config.data_dir).unwrap();
    admin::load(&config, &mut text.as_slice(), false)
        .await
        .unwrap();
    assert!(
        admin::load(&config, &mut text.as_slice(), false)
            .await
            .is_err(),
        "it holds something"
    );
    let server = hextet_server::Server::start(config.clone()).await.unwrap();
    // The same users, tokens and networks; the same authority, too.
    let again = cloud::Client {
        address: server.addresses.clients,
        ..admin
    };
    again.show("networks", &network["id"]).await.ok(200);
    let (_, here) = shown_authority(server.addresses.agents).await;
    let (_, there) = shown_authority(cloud.server.addresses.agents).await;
    assert_eq!(here, there);
    assert!(
        !config.clouds_file().exists(),
        "no second first administrator"
    );
    server.stop().await.unwrap();
}
