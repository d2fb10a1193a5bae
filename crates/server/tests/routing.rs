//! What hosts are told of routers, over real listeners.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;
mod layer3;

use cloud::{Client, TestCloud, host::Host};
use hextet_api::agent::StatusReport;
use hextet_model::intent::Intent;
use hextet_server::{Server, StoreKind};
use hextet_types::HostId;
use serde_json::{Value, json};

use layer3::{
    World, act, add, hello, host, host_id, network_id, port_id, port_on, remove, router, router_id,
    set,
};

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_told_of_a_router_and_of_all_that_it_leads_to() {
    let world = World::start().await;
    let user = &world.user;
    let (_h1, mut first) = host(&world.cloud, "h1", "2001:db8::1").await;
    let (_h2, mut second) = host(&world.cloud, "h2", "2001:db8::2").await;
    let (web, web_subnets) = world.inside(&["10.0.0.0/24", "fd00:1::/64"]).await;
    let (db, db_subnets) = world.inside(&["10.0.1.0/24", "fd00:2::/64"]).await;
    port_on(&world, &web, "h1").await;
    let there = port_on(&world, &db, "h2").await;
    let edge = router(user, json!({})).await;
    let first_of = add(user, &edge, &web_subnets[0]).await.ok(200);
    for subnet in [&web_subnets[1], &db_subnets[0], &db_subnets[1]] {
        add(user, &edge, subnet).await.ok(200);
    }
    let knows = |i: &Intent, interfaces: usize| {
        let told = i.routers.get(&router_id(&edge));
        told.is_some_and(|r| r.interfaces.len() == interfaces)
    };
    first.until("the router", |i| knows(i, 4)).await;
    let intent = &first.intent;
    let port = &intent.routers[&router_id(&edge)].interfaces[&port_id(&first_of["port_id"])];
    assert_eq!(port.network_id, network_id(&web));
    assert_eq!(port.fixed_ips[0].ip_address.to_string(), "10.0.0.1");
    // No port of it is here, but whom it would send to is known.
    let remotes = &intent.remotes[&network_id(&db)];
    assert_eq!(
        remotes.len(),
        2,
        "the guest, and not the router: {remotes:?}"
    );
    for fixed in there["fixed_ips"].as_array().unwrap() {
        let address = fixed["ip_address"].as_str().unwrap().parse().unwrap();
        assert_eq!(remotes.get(&address), Some(&host_id("h2")));
    }
    assert!(intent.hosts.contains_key(&host_id("h2")));
    assert!(intent.networks.contains_key(&network_id(&db)));
    let told = intent.subnets.values();
    let told = told.filter(|s| s.network_id == network_id(&db)).count();
    assert_eq!(told, 2);
    second.until("the router", |i| knows(i, 4)).await;

    for subnet in &web_subnets {
        remove(user, &edge, subnet).await.ok(200);
    }
    first
        .until("nothing of routers", |i| i.routers.is_empty())
        .await;
    let intent = &first.intent;
    assert_eq!(
        intent.networks.keys().collect::<Vec<_>>(),
        [&network_id(&web)]
    );
    assert!(intent.remotes.is_empty(), "{:?}", intent.remotes);
    assert_eq!(intent.hosts.keys().collect::<Vec<_>>(), [&host_id("h1")]);
}

/// An extra route by way of another router: that one, and what is behind it.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_told_of_routers_that_routes_lead_to() {
    let world = World::start().await;
    let user = &world.user;
    let (_h1, mut first) = host(&world.cloud, "h1", "2001:db8::1").await;
    let (_h3, mut third) = host(&world.cloud, "h3", "2001:db8::3").await;
    let (web, web_subnets) = world.inside(&["10.0.0.0/24"]).await;
    let (db, db_subnets) = world.inside(&["10.0.1.0/24"]).await;
    let (far, far_subnets) = world.inside(&["10.0.2.0/24"]).await;
    port_on(&world, &web, "h1").await;
    let edge = router(user, json!({})).await;
    for subnet in [&web_subnets[0], &db_subnets[0]] {
        add(user, &edge, subnet).await.ok(200);
    }
    let next = router(user, json!({})).await;
    let link = user.port(&db, json!({})).await;
    let by = json!({"port_id": link["id"]});
    act(user, &next, "add_router_interface", by).await.ok(200);
    add(user, &next, &far_subnets[0]).await.ok(200);
    let hop = link["fixed_ips"][0]["ip_address"].as_str().unwrap();
    let route = json!({"destination": "10.0.2.0/24", "nexthop": hop});
    set(user, &edge, json!({"routes": [route]})).await.ok(200);
    let both = |i: &Intent| i.routers.len() == 2 && i.networks.contains_key(&network_id(&far));
    first.until("the second router", both).await;
    // Where the way leads from the far side: only to what is on its router.
    port_on(&world, &far, "h3").await;
    third.until("its router", |i| i.networks.len() == 2).await;
    assert_eq!(
        third.intent.routers.keys().collect::<Vec<_>>(),
        [&router_id(&next)]
    );

    set(user, &edge, json!({"routes": [], "admin_state_up": false}))
        .await
        .ok(200);
    let alone = |i: &Intent| i.routers.len() == 1 && !i.networks.contains_key(&network_id(&far));
    first.until("one router", alone).await;
    assert!(
        !first.intent.routers[&router_id(&edge)]
            .router
            .admin_state_up
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn routed_networks_need_no_router() {
    let world = World::start().await;
    let (admin, user) = (&world.admin, &world.user);
    let routed = json!({"provider:network_type": "routed"});
    let network = admin.network(routed).await;
    let subnet = admin.subnet(&network, "198.51.100.0/24", json!({})).await;
    let made = router(user, json!({})).await;
    let words = add(admin, &made, &subnet).await.refused(400, "BadRequest");
    assert!(words.contains("without a router"), "{words}");
    let port = admin.port(&network, json!({})).await;
    let by = json!({"port_id": port["id"]});
    let words = act(admin, &made, "add_router_interface", by).await;
    let words = words.refused(400, "BadRequest");
    assert!(words.contains("without a router"), "{words}");
}

/// What a private network has out of a pool may be reached from everywhere: it is on no routed network, too.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_private_network_has_out_of_a_pool_is_on_no_routed_one() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    for (prefix, length) in [("2001:db8:10::/56", 64), ("203.0.113.0/24", 26)] {
        let pool = json!({"name": "p", "prefixes": [prefix], "default_prefixlen": length});
        let pool = admin.create("subnetpools", "subnetpool", pool).await;
        let private = admin
            .network(json!({"provider:network_type": "vxlan"}))
            .await;
        let routed = admin
            .network(json!({"provider:network_type": "routed"}))
            .await;
        let version = if prefix.contains(':') { 6 } else { 4 };
        let out_of = json!({"network_id": private["id"], "subnetpool_id": pool["id"], "ip_version": version});
        let subnet = admin.create("subnets", "subnet", out_of).await;
        let cidr = subnet["cidr"].as_str().unwrap();
        let by_hand = json!({"network_id": routed["id"], "cidr": cidr, "ip_version": version});
        let words = admin.try_create("subnets", "subnet", by_hand).await;
        let words = words.refused(400, "InvalidInput");
        assert!(words.contains("out of a subnet pool"), "{words}");
        // And the other way round, though it is named.
        admin.delete("subnets", &subnet["id"]).await.ok(204);
        admin.subnet(&routed, cidr, json!({})).await;
        let named = json!({
            "network_id": private["id"], "subnetpool_id": pool["id"], "cidr": cidr, "ip_version": version,
        });
        let words = admin.try_create("subnets", "subnet", named).await;
        words.refused(400, "InvalidInput");
        // Nor is it taken into the pool afterwards, from either side.
        admin.subnet(&private, cidr, json!({})).await;
        for network in [&private, &routed] {
            let id = pool["id"].as_str().unwrap();
            let path = format!("/networking/v2.0/subnetpools/{id}/onboard_network_subnets");
            let body = json!({"network_id": network["id"]});
            let answer = admin.send("PUT", &path, Some(body)).await;
            if network == &private {
                let words = answer.refused(400, "IllegalSubnetPoolUpdate");
                assert!(words.contains("of a routed network"), "{words}");
            } else {
                answer.ok(200);
            }
        }
    }
}

/// What the host is told of where the router translates.
fn gateway_at(intent: &Intent, router: &Value) -> Option<(HostId, u32, u64)> {
    let told = intent.routers.get(&router_id(router))?;
    let gateway = told.gateway_host.as_ref()?;
    Some((gateway.host.clone(), gateway.segment, gateway.generation))
}

async fn shown_host(client: &Client, router: &Value) -> Value {
    let shown = client.show("routers", &router["id"]).await.ok(200);
    shown["router"]["hextet:gateway_host"].clone()
}

async fn report(host: &Host, tunnel: &str, gateway: bool) {
    let hello = StatusReport {
        gateway: Some(gateway),
        ..hello(tunnel)
    };
    assert_eq!(host.post("/v1/status", &hello).await.0, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_with_a_gateway_translates_on_a_host_that_is_fit() {
    let world = World::start().await;
    let user = &world.user;
    let (network, subnets) = world.inside(&["10.0.0.0/24"]).await;
    let inside = network_id(&network);
    // Neither a host without tunnels nor one that does not want to is fit; then one is.
    let edge = world.router().await;
    add(user, &edge, &subnets[0]).await.ok(200);
    let bare = Host::joined(&world.cloud, "h0").await;
    assert_eq!(
        bare.post("/v1/status", &StatusReport::default()).await.0,
        204
    );
    let unwilling = Host::joined(&world.cloud, "h1").await;
    report(&unwilling, "2001:db8::1", false).await;
    port_on(&world, &network, "h1").await;
    let mut first = unwilling.intent().await;
    first.until("the router", |i| !i.routers.is_empty()).await;
    assert_eq!(gateway_at(&first.intent, &edge), None);
    let told = &first.intent.routers[&router_id(&edge)];
    let gateway = told.gateways.values().next().unwrap();
    assert!(
        first.intent.networks.contains_key(&gateway.network_id),
        "the external one"
    );
    let (_second_host, mut second) = host(&world.cloud, "h2", "2001:db8::2").await;
    second
        .until("its router", |i| gateway_at(i, &edge).is_some())
        .await;
    let (at, segment, generation) = gateway_at(&second.intent, &edge).unwrap();
    assert_eq!((at, generation), (host_id("h2"), 1));
    // It is told of all networks of the router, as if it had ports there.
    assert!(second.intent.networks.contains_key(&inside));
    assert_eq!(second.intent.remotes[&inside].len(), 1);
    let vni = second.intent.networks[&inside].segmentation_id;
    assert_ne!(vni, Some(segment));
    let knows = |i: &Intent| gateway_at(i, &edge).is_some() && i.hosts.contains_key(&host_id("h2"));
    first.until("where that is", knows).await;
}

/// Where a router translates follows who is willing, and who is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_host_is_left_when_it_is_fit_no_longer() {
    let world = World::start().await;
    let user = &world.user;
    let edge = world.router().await;
    let (second_host, mut second) = host(&world.cloud, "h2", "2001:db8::2").await;
    second
        .until("its router", |i| gateway_at(i, &edge).is_some())
        .await;
    let (_, segment, _) = gateway_at(&second.intent, &edge).unwrap();
    let (_first, mut first) = host(&world.cloud, "h1", "2001:db8::1").await;
    // A second router goes where there are fewer.
    let other = world.router().await;
    first
        .until("it too", |i| gateway_at(i, &other).is_some())
        .await;
    assert_eq!(shown_host(&world.admin, &other).await, json!("h1"));
    // A host that does not want any more is left; so is one that leaves the cloud.
    report(&second_host, "2001:db8::2", false).await;
    let at_first =
        |i: &Intent| gateway_at(i, &edge).is_some_and(|g| g == (host_id("h1"), segment, 2));
    first.until("it alone", at_first).await;
    second
        .until("nothing", |i| i.routers.is_empty() && i.networks.is_empty())
        .await;
    report(&second_host, "2001:db8::2", true).await;
    user.delete("routers", &other["id"]).await.ok(204);
    let agents = world
        .admin
        .get("/networking/v2.0/agents?host=h1")
        .await
        .ok(200);
    assert_eq!(
        agents["agents"][0]["configurations"]["gateway"],
        json!(true)
    );
    world
        .admin
        .delete("agents", &agents["agents"][0]["id"])
        .await
        .ok(204);
    let back = |i: &Intent| gateway_at(i, &edge).is_some_and(|g| g == (host_id("h2"), segment, 3));
    second.until("it is back", back).await;
    // With the gateway, it goes.
    set(user, &edge, json!({"external_gateway_info": null}))
        .await
        .ok(200);
    second
        .until("nothing", |i| i.routers.is_empty() && i.networks.is_empty())
        .await;
    assert_eq!(shown_host(&world.admin, &edge).await, json!(null));
    let wanted = json!({"provider:network_type": "vxlan", "provider:segmentation_id": segment});
    world.admin.network(wanted).await;
}

/// An agent that is away, and a server that has heard of none yet, move nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_host_outlives_servers_and_agents() {
    let cloud = TestCloud::start(StoreKind::Redb).await;
    let admin = cloud.admin().await;
    let external = admin.network(json!({"router:external": true})).await;
    admin.subnet(&external, "203.0.113.0/24", json!({})).await;
    let gateway = json!({"external_gateway_info": {"network_id": external["id"]}});
    let edge = router(&admin, gateway.clone()).await;
    let (mut agent, mut told) = host(&cloud, "h1", "2001:db8::1").await;
    told.until("the router", |i| gateway_at(i, &edge).is_some())
        .await;
    let before = gateway_at(&told.intent, &edge);
    cloud.server.stop().await.unwrap();
    let again = Server::start(cloud.config.clone()).await.unwrap();
    let admin = Client {
        address: again.addresses.clients,
        ..admin
    };
    agent.address = again.addresses.agents;
    let new = router(&admin, gateway).await;
    let mut told = agent.intent().await;
    told.until("the router", |i| gateway_at(i, &edge) == before)
        .await;
    assert_eq!(
        shown_host(&admin, &new).await,
        json!(null),
        "nobody is alive"
    );
    assert_eq!(agent.post("/v1/status", &hello("2001:db8::1")).await.0, 204);
    told.until("the new one", |i| gateway_at(i, &new).is_some())
        .await;
    assert_eq!(gateway_at(&told.intent, &edge), before);
    again.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_says_where_a_router_translates() {
    let world = World::start().await;
    let (user, admin) = (&world.user, &world.admin);
    let edge = world.router().await;
    let (_first, mut first) = host(&world.cloud, "h1", "2001:db8::1").await;
    first
        .until("the router", |i| gateway_at(i, &edge).is_some())
        .await;
    let (_second, mut second) = host(&world.cloud, "h2", "2001:db8::2").await;
    let unwilling = Host::joined(&world.cloud, "h3").await;
    report(&unwilling, "2001:db8::3", false).await;
    Host::joined(&world.cloud, "h4").await;
    assert_eq!(
        shown_host(user, &edge).await,
        json!(null),
        "nothing for members"
    );
    let to = |host: Value| json!({"hextet:gateway_host": host});
    set(user, &edge, to(json!("h2")))
        .await
        .refused(403, "PolicyNotAuthorized");
    for (host, words) in [
        ("h3", "gateway = false"),
        ("h4", "tunnel_address"),
        ("h9", "no agent"),
        ("no host/s name", ""),
    ] {
        let told = set(admin, &edge, to(json!(host))).await;
        let told = told.refused(400, "InvalidInput");
        assert!(told.contains(words), "{host}: {told}");
    }
    let closed = router(user, json!({})).await;
    let told = set(admin, &closed, to(json!("h2"))).await;
    let told = told.refused(400, "InvalidInput");
    assert!(told.contains("no external gateway"), "{told}");
    let moved = set(admin, &edge, to(json!("h2"))).await.ok(200);
    assert_eq!(moved["router"]["hextet:gateway_host"], json!("h2"));
    second
        .until("the router", |i| gateway_at(i, &edge).is_some())
        .await;
    assert_eq!(gateway_at(&second.intent, &edge).unwrap().2, 2);
    first.until("nothing", |i| i.routers.is_empty()).await;
    set(admin, &edge, to(json!(null))).await.ok(200);
    let chosen = |i: &Intent| gateway_at(i, &edge).is_some_and(|g| g.2 == 4);
    tokio::select! {
        () = first.until("chosen anew", chosen) => {}
        () = second.until("chosen anew", chosen) => {}
    }
}

/// An address scope's addresses need no translation, nor do single ones with an NDP proxy.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_told_what_goes_outside_as_it_is() {
    let world = World::start().await;
    let (user, admin) = (&world.user, &world.admin);
    let scope = json!({"name": "s", "ip_version": 6, "shared": true});
    let scope = admin.create("address-scopes", "address_scope", scope).await;
    let pool = json!({
        "name": "public", "prefixes": ["2001:db8:100::/40"], "default_prefixlen": 64, "shared": true,
        "address_scope_id": scope["id"],
    });
    let pool = admin.create("subnetpools", "subnetpool", pool).await;
    let external = admin.network(json!({"router:external": true})).await;
    let out_of = |network: &Value| {
        json!({
            "network_id": network["id"], "subnetpool_id": pool["id"], "ip_version": 6,
        })
    };
    admin.create("subnets", "subnet", out_of(&external)).await;
    admin.subnet(&external, "198.51.100.0/24", json!({})).await;
    let public = user.network(json!({})).await;
    let subnet = user.create("subnets", "subnet", out_of(&public)).await;
    let by_hand = user.network(json!({})).await;
    let hand = user
        .subnet(&by_hand, "2001:db8:200:1::/64", json!({}))
        .await;
    let inner = user.subnet(&by_hand, "10.0.0.0/24", json!({})).await;
    let gateway = json!({"network_id": external["id"]});
    let edge = router(user, json!({"external_gateway_info": gateway})).await;
    for subnet in [&subnet, &hand, &inner] {
        add(user, &edge, subnet).await.ok(200);
    }
    let (_host, mut told) = host(&world.cloud, "h1", "2001:db8::1").await;
    let published = |i: &Intent| -> Vec<String> {
        let router = i.routers.get(&router_id(&edge));
        let all = router.into_iter().flat_map(|r| &r.published);
        all.map(ToString::to_string).collect()
    };
    let cidr = subnet["cidr"].as_str().unwrap().to_owned();
    told.until("the scope's", |i| published(i) == [cidr.clone()])
        .await;
    // Whoever puts a pool of his own into the scope has nothing announced.
    let own = json!({
        "name": "own", "prefixes": ["2001:4860::/48"], "default_prefixlen": 64,
        "address_scope_id": scope["id"],
    });
    let own = user.create("subnetpools", "subnetpool", own).await;
    let claimed = user.network(json!({})).await;
    let body = json!({"network_id": claimed["id"], "subnetpool_id": own["id"], "ip_version": 6});
    let claimed = user.create("subnets", "subnet", body).await;
    add(user, &edge, &claimed).await.ok(200);
    let four = |i: &Intent| i.routers.values().any(|r| r.interfaces.len() == 4);
    told.until("the interface", four).await;
    assert_eq!(published(&told.intent), std::slice::from_ref(&cidr));
    set(user, &edge, json!({"enable_ndp_proxy": true}))
        .await
        .ok(200);
    let port = user.port(&public, json!({})).await;
    let proxy = json!({"router_id": edge["id"], "port_id": port["id"]});
    user.create("ndp_proxies", "ndp_proxy", proxy).await;
    let address = port["fixed_ips"][0]["ip_address"].as_str().unwrap();
    let single = format!("{address}/128");
    told.until("the port's alone", |i| published(i) == [single.clone()])
        .await;
}
