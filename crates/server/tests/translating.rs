//! Which host is told of a floating IP, and which of port forwardings, over real listeners.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;
mod layer3;

use std::collections::BTreeMap;

use cloud::addresses;
use hextet_api::agent::{Pulse, StatusReport};
use hextet_model::intent::{Intent, PortForwarding};
use hextet_types::HostId;
use serde_json::{Value, json};

use layer3::{World, host, host_id, network_id, router_id, set};

fn floating(intent: &Intent) -> Vec<String> {
    let ips = intent.floating_ips.values();
    let each = ips.map(|ip| format!("{} {}", ip.floating_ip_address, ip.fixed_ip_address));
    each.collect()
}

async fn bind(world: &World, port: &Value, host: &str) {
    let bound = json!({"binding:host_id": host});
    let answer = world.admin.update("ports", "port", &port["id"], bound);
    answer.await.ok(200);
}

fn stands_for(fip: &Value, address: &str) -> [String; 1] {
    let outside = fip["floating_ip_address"].as_str().unwrap();
    [format!("{outside} {address}")]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floating_ip_is_told_where_its_port_is() {
    let world = World::start().await;
    let (_h1, mut first) = host(&world.cloud, "h1", "2001:db8::1").await;
    let (_h2, mut second) = host(&world.cloud, "h2", "2001:db8::2").await;
    let (edge, _, port) = world.behind("10.0.0.0/24").await;
    let fip = world.floating(json!({"port_id": port["id"]})).await;
    let inner = addresses(&port)[0].clone();
    let here = stands_for(&fip, &inner);
    bind(&world, &port, "h1").await;
    first
        .until("the floating IP", |i| floating(i) == here)
        .await;
    let told = first.intent.floating_ips.values().next().unwrap();
    assert_eq!(told.router_id, router_id(&edge));
    assert!(first.intent.routers.contains_key(&told.router_id));
    assert!(first.intent.networks.contains_key(&told.network_id));
    // It moves with its port.
    bind(&world, &port, "h2").await;
    second
        .until("the floating IP", |i| floating(i) == here)
        .await;
    first.until("none", |i| floating(i).is_empty()).await;
    // To another port, and to none.
    let network = json!({"id": port["network_id"]});
    let other = world.user.port(&network, json!({})).await;
    bind(&world, &other, "h1").await;
    let to = |port: &Value| {
        let body = json!({"port_id": port});
        world
            .user
            .update("floatingips", "floatingip", &fip["id"], body)
    };
    to(&other["id"]).await.ok(200);
    let there = stands_for(&fip, &addresses(&other)[0]);
    first
        .until("the floating IP", |i| floating(i) == there)
        .await;
    second.until("none", |i| floating(i).is_empty()).await;
    to(&Value::Null).await.ok(200);
    first.until("none", |i| floating(i).is_empty()).await;
}

/// As with VRRP: the address is a port's that nobody plugs, and others may use it.
#[tokio::test(flavor = "multi_thread")]
async fn a_floating_ip_of_a_shared_address_is_told_to_who_has_that() {
    let world = World::start().await;
    let (_h1, mut first) = host(&world.cloud, "h1", "2001:db8::1").await;
    let (_h2, mut second) = host(&world.cloud, "h2", "2001:db8::2").await;
    let (_, _, shared) = world.behind("10.0.0.0/24").await;
    let network = json!({"id": shared["network_id"]});
    let inner = addresses(&shared)[0].clone();
    let fip = world.floating(json!({"port_id": shared["id"]})).await;
    let here = stands_for(&fip, &inner);
    let pairs = json!({"allowed_address_pairs": [{"ip_address": inner}]});
    let mut members = [
        world.user.port(&network, pairs.clone()).await,
        world.user.port(&network, pairs).await,
    ];
    members.sort_by_key(|port| port["id"].as_str().unwrap().to_owned());
    bind(&world, &members[1], "h2").await;
    second
        .until("the floating IP", |i| floating(i) == here)
        .await;
    bind(&world, &members[0], "h1").await;
    first
        .until("the floating IP", |i| floating(i) == here)
        .await;
    second.until("none", |i| floating(i).is_empty()).await;
    world.user.delete("ports", &members[0]["id"]).await.ok(204);
    second.until("it is back", |i| floating(i) == here).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn port_forwardings_are_told_to_the_gateway_host() {
    let world = World::start().await;
    let (_h1, mut first) = host(&world.cloud, "h1", "2001:db8::1").await;
    let (edge, _, port) = world.behind("10.0.0.0/24").await;
    let gateway = |i: &Intent| -> Option<HostId> {
        let router = i.routers.get(&router_id(&edge))?;
        Some(router.gateway_host.as_ref()?.host.clone())
    };
    first.until("the router", |i| gateway(i).is_some()).await;
    let (_h2, mut second) = host(&world.cloud, "h2", "2001:db8::2").await;
    bind(&world, &port, "h2").await;
    let fip = world.floating(json!({})).await;
    let path = format!(
        "floatingips/{}/port_forwardings",
        fip["id"].as_str().unwrap()
    );
    let web = json!({
        "protocol": "tcp", "external_port": 80, "internal_port": 8080, "internal_port_id": port["id"],
    });
    let web = world.user.try_create(&path, "port_forwarding", web).await;
    web.ok(201);
    let one = |i: &Intent| i.port_forwardings.len() == 1;
    first.until("the forwarding", one).await;
    let told: &PortForwarding = first.intent.port_forwardings.values().next().unwrap();
    let seen = (
        told.router_id,
        told.network_id,
        told.floating_ip_address.to_string(),
        told.internal_ip_address.to_string(),
        told.external_port_range.single(),
        told.internal_port_range.single(),
    );
    let network = json!({"id": port["network_id"]});
    let wanted = (
        router_id(&edge),
        network_id(&network),
        fip["floating_ip_address"].as_str().unwrap().to_owned(),
        addresses(&port)[0].clone(),
        Some(80),
        Some(8080),
    );
    assert_eq!(seen, wanted);
    assert!(first.intent.networks.contains_key(&told.network_id));
    assert!(
        first.intent.floating_ips.is_empty(),
        "it stands for no address"
    );
    let to = json!({"hextet:gateway_host": "h2"});
    set(&world.admin, &edge, to).await.ok(200);
    second.until("the forwarding", one).await;
    assert_eq!(gateway(&second.intent), Some(host_id("h2")));
    first.until("none", |i| i.port_forwardings.is_empty()).await;
    world.user.delete("ports", &port["id"]).await.ok(204);
    second
        .until("none", |i| i.port_forwardings.is_empty())
        .await;
}

fn pulses(answer: &[&str], silent: &[&str]) -> BTreeMap<HostId, Pulse> {
    let answer = answer.iter().map(|h| (host_id(h), Pulse::Answers));
    let silent = silent.iter().map(|h| (host_id(h), Pulse::Silent));
    answer.chain(silent).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_host_whose_kernel_is_silent_loses_its_routers() {
    let world = World::start().await;
    let (h1, mut first) = host(&world.cloud, "h1", "2001:db8::1").await;
    let (edge, _, port) = world.behind("10.0.0.0/24").await;
    let record = |i: &Intent| {
        let router = i.routers.get(&router_id(&edge))?;
        let gateway = router.gateway_host.as_ref()?;
        Some((gateway.host.to_string(), gateway.generation))
    };
    let (h2, mut second) = host(&world.cloud, "h2", "2001:db8::2").await;
    let (h3, mut third) = host(&world.cloud, "h3", "2001:db8::3").await;
    bind(&world, &port, "h2").await;
    let on = |name: &'static str| move |i: &Intent| record(i).is_some_and(|(host, _)| host == name);
    second.until("h1 translates", on("h1")).await;
    let watches = |others: [&str; 2]| {
        let others: Vec<HostId> = others.iter().map(|h| host_id(h)).collect();
        move |i: &Intent| i.watched.keys().eq(&others)
    };
    first.until("whom to watch", watches(["h2", "h3"])).await;
    second.until("whom to watch", watches(["h1", "h3"])).await;
    third.until("whom to watch", watches(["h1", "h2"])).await;
    assert_eq!(
        third.intent.watched[&host_id("h1")].to_string(),
        "2001:db8::1"
    );

    let tell = async |host: &cloud::host::Host, watched| {
        let report = StatusReport {
            watched,
            ..StatusReport::default()
        };
        assert_eq!(host.post("/v1/status", &report).await.0, 204);
    };
    // One alone moves nothing, nor does who is cut off; the store shows no move when the majority comes.
    tell(&h2, pulses(&["h3"], &["h1"])).await;
    tell(&h3, pulses(&["h1", "h2"], &[])).await;
    tell(&h1, pulses(&[], &["h2", "h3"])).await;
    let shown = world.admin.show("routers", &edge["id"]).await.ok(200)["router"].clone();
    assert_eq!(shown["hextet:gateway_host"], "h1");
    tell(&h3, pulses(&["h2"], &["h1"])).await;
    second.until("it moves", |i| !on("h1")(i)).await;
    assert_eq!(
        record(&second.intent).map(|(_, generation)| generation),
        Some(2)
    );
    // It does not come back by itself.
    tell(&h2, pulses(&["h1", "h3"], &[])).await;
    tell(&h3, pulses(&["h1", "h2"], &[])).await;
    let (new, _) = record(&second.intent).unwrap();
    let shown = world.admin.show("routers", &edge["id"]).await.ok(200)["router"].clone();
    assert_eq!(shown["hextet:gateway_host"], json!(new));
}
