//! Routers over a real listener: interfaces, gateways, routes, and what keeps them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;
mod layer3;

use hextet_server::StoreKind;
use serde_json::{Value, json};

use cloud::{Client, TestCloud, addresses, slaac};
use layer3::{World, act, add, remove, router, set};

async fn ports_of(client: &Client, router: &Value) -> Vec<Value> {
    let id = router["id"].as_str().unwrap();
    let path = format!("/networking/v2.0/ports?device_id={id}");
    let body = client.get(&path).await.ok(200);
    body["ports"].as_array().unwrap().clone()
}

async fn show(client: &Client, router: &Value) -> Value {
    client.show("routers", &router["id"]).await.ok(200)["router"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_is_made_shown_listed_changed_and_deleted() {
    let world = World::start().await;
    let (user, external) = (&world.user, &world.external);
    let gateway = json!({"network_id": external["id"]});
    let more = json!({"name": "r", "external_gateway_info": gateway, "tags": ["blue"]});
    let made = router(user, more).await;
    assert_eq!(
        (&made["status"], &made["admin_state_up"], &made["routes"]),
        (&json!("ACTIVE"), &json!(true), &json!([]))
    );
    let info = &made["external_gateway_info"];
    assert_eq!(
        (&info["network_id"], &info["enable_snat"]),
        (&external["id"], &json!(true))
    );
    let fixed = info["external_fixed_ips"].as_array().unwrap();
    assert_eq!(fixed.len(), 2, "one of each family: {fixed:?}");
    assert_eq!(made["external_gateways"], json!([info]));
    // Its port is the cloud's: the owner of the network sees it, the tenant does not.
    let ports = ports_of(&world.admin, &made).await;
    assert_eq!(ports.len(), 1);
    assert_eq!(
        (&ports[0]["device_owner"], &ports[0]["project_id"]),
        (&json!("network:router_gateway"), &json!(""))
    );
    assert_eq!(ports_of(user, &made).await, Vec::<Value>::new());
    let changed = set(user, &made, json!({"name": "s", "admin_state_up": false})).await;
    let changed = changed.ok(200)["router"].clone();
    assert_eq!(
        (&changed["name"], &changed["revision_number"]),
        (&json!("s"), &json!(2))
    );
    let listed = user
        .get("/networking/v2.0/routers?name=s&admin_state_up=false&tags=blue")
        .await
        .ok(200);
    assert_eq!(listed["routers"].as_array().unwrap().len(), 1);
    for (unknown, status) in [
        (json!({"distributed": true}), 400),
        (json!({"ha": true}), 400),
    ] {
        let answer = world.admin.try_create("routers", "router", unknown).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    user.delete("routers", &made["id"]).await.ok(204);
    user.show("routers", &made["id"])
        .await
        .refused(404, "RouterNotFound");
    assert_eq!(ports_of(&world.admin, &made).await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_do_what_with_a_router() {
    let world = World::start().await;
    let (user, admin) = (&world.user, &world.admin);
    let made = router(user, json!({})).await;
    let reader = world
        .cloud
        .user(admin, "rita", &world.project, "alpha", "reader")
        .await;
    let (other, _) = world.cloud.project("beta", "member").await;
    assert_eq!(show(&reader, &made).await["id"], made["id"]);
    set(&reader, &made, json!({"name": "x"}))
        .await
        .refused(403, "PolicyNotAuthorized");
    reader
        .try_create("routers", "router", json!({}))
        .await
        .refused(403, "PolicyNotAuthorized");
    let (_, subnets) = world.inside(&["10.0.0.0/24"]).await;
    add(&reader, &made, &subnets[0])
        .await
        .refused(403, "PolicyNotAuthorized");
    set(&other, &made, json!({"name": "x"}))
        .await
        .refused(404, "RouterNotFound");
    add(&other, &made, &subnets[0])
        .await
        .refused(404, "RouterNotFound");
    let own = router(&other, json!({})).await;
    add(&other, &own, &subnets[0])
        .await
        .refused(404, "SubnetNotFound");
    for more in [
        json!({"enable_snat": false}),
        json!({"external_fixed_ips": [{"ip_address": "203.0.113.9"}]}),
    ] {
        let mut gateway = more;
        gateway["network_id"] = world.external["id"].clone();
        let info = json!({"external_gateway_info": gateway});
        set(user, &made, info.clone())
            .await
            .refused(403, "PolicyNotAuthorized");
        set(admin, &made, info).await.ok(200);
    }
    let info = show(user, &made).await["external_gateway_info"].clone();
    assert_eq!(addresses_of(&info), ["203.0.113.9"]);
    set(user, &made, json!({"enable_default_route_ecmp": true}))
        .await
        .refused(403, "PolicyNotAuthorized");
    let both = json!({"enable_default_route_ecmp": true, "enable_default_route_bfd": true});
    let changed = set(admin, &made, both).await.ok(200);
    assert_eq!(changed["router"]["enable_default_route_bfd"], json!(true));
}

fn addresses_of(info: &Value) -> Vec<&str> {
    let fixed = info["external_fixed_ips"].as_array().unwrap();
    let mut all: Vec<_> = fixed
        .iter()
        .map(|f| f["ip_address"].as_str().unwrap())
        .collect();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn interfaces_come_and_go_by_subnet() {
    let world = World::start().await;
    let user = &world.user;
    let made = router(user, json!({})).await;
    let (network, subnets) = world
        .inside(&["10.0.0.0/24", "fd00:1::/64", "fd00:2::/64"])
        .await;
    let first = add(user, &made, &subnets[0]).await.ok(200);
    assert_eq!(
        (&first["id"], &first["subnet_ids"], &first["network_id"]),
        (&made["id"], &json!([subnets[0]["id"]]), &network["id"])
    );
    let port = user.show("ports", &first["port_id"]).await.ok(200)["port"].clone();
    assert_eq!(
        (&port["device_owner"], &port["device_id"]),
        (&json!("network:router_interface"), &made["id"])
    );
    assert_eq!(
        addresses(&port),
        [subnets[0]["gateway_ip"].as_str().unwrap()]
    );
    add(user, &made, &subnets[0])
        .await
        .refused(400, "BadRequest");
    // IPv6 subnets of one network share a port.
    let second = add(user, &made, &subnets[1]).await.ok(200);
    let third = add(user, &made, &subnets[2]).await.ok(200);
    assert_ne!(first["port_id"], second["port_id"]);
    assert_eq!(second["port_id"], third["port_id"]);
    assert_eq!(ports_of(user, &made).await.len(), 2);
    let words = user
        .delete("routers", &made["id"])
        .await
        .refused(409, "RouterInUse");
    assert!(
        words.contains(first["port_id"].as_str().unwrap()),
        "{words}"
    );
    let gone = remove(user, &made, &subnets[1]).await.ok(200);
    assert_eq!(gone["subnet_ids"], json!([subnets[1]["id"]]));
    let left = user.show("ports", &third["port_id"]).await.ok(200);
    assert_eq!(
        addresses(&left["port"]),
        [subnets[2]["gateway_ip"].as_str().unwrap()]
    );
    let by_port = json!({"port_id": third["port_id"], "subnet_id": subnets[1]["id"]});
    act(user, &made, "remove_router_interface", by_port)
        .await
        .refused(409, "SubnetMismatchForPort");
    let by_port = json!({"port_id": third["port_id"]});
    act(user, &made, "remove_router_interface", by_port.clone())
        .await
        .ok(200);
    act(user, &made, "remove_router_interface", by_port)
        .await
        .refused(404, "RouterInterfaceNotFound");
    remove(user, &made, &subnets[0]).await.ok(200);
    remove(user, &made, &subnets[0])
        .await
        .refused(404, "RouterInterfaceNotFoundForSubnet");
    assert_eq!(ports_of(user, &made).await, Vec::<Value>::new());
    user.delete("networks", &network["id"]).await.ok(204);
    user.delete("routers", &made["id"]).await.ok(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_router_is_on_stays() {
    let world = World::start().await;
    let user = &world.user;
    let made = router(user, json!({})).await;
    let (network, subnets) = world.inside(&["10.0.0.0/24", "fd00:1::/64"]).await;
    let first = add(user, &made, &subnets[0]).await.ok(200);
    add(user, &made, &subnets[1]).await.ok(200);
    for (verb, path) in [
        ("DELETE", None),
        ("PUT", Some(json!({"port": {"device_id": ""}}))),
    ] {
        let id = first["port_id"].as_str().unwrap();
        let path_of = format!("/networking/v2.0/ports/{id}");
        user.send(verb, &path_of, path)
            .await
            .refused(409, "ServicePortInUse");
    }
    user.update("ports", "port", &first["port_id"], json!({"name": "gw"}))
        .await
        .ok(200);
    user.delete("subnets", &subnets[1]["id"])
        .await
        .refused(409, "SubnetInUse");
    user.delete("networks", &network["id"])
        .await
        .refused(409, "NetworkInUse");
    user.update(
        "subnets",
        "subnet",
        &subnets[0]["id"],
        json!({"gateway_ip": null}),
    )
    .await
    .refused(409, "GatewayIpInUse");
    user.update(
        "subnets",
        "subnet",
        &subnets[0]["id"],
        json!({"name": "still"}),
    )
    .await
    .ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_takes_a_port_as_it_is() {
    let world = World::start().await;
    let user = &world.user;
    let made = router(user, json!({})).await;
    let (network, subnets) = world.inside(&["10.0.0.0/24", "fd00:1::/64"]).await;
    let fixed = |cidrs: &[usize]| {
        let all: Vec<_> = cidrs
            .iter()
            .map(|i| json!({"subnet_id": subnets[*i]["id"]}))
            .collect();
        json!({"fixed_ips": all})
    };
    let by = |port: &Value| {
        let body = json!({"port_id": port["id"]});
        act(user, &made, "add_router_interface", body)
    };
    let port = user.port(&network, fixed(&[0, 1])).await;
    let added = by(&port).await.ok(200);
    assert_eq!(added["port_id"], port["id"]);
    assert_eq!(
        added["subnet_ids"],
        json!([subnets[0]["id"], subnets[1]["id"]])
    );
    assert_eq!(added["subnet_id"], subnets[1]["id"]);
    let again = by(&port).await.refused(409, "PortInUse");
    assert!(again.contains(made["id"].as_str().unwrap()), "{again}");
    let bare = user.port(&network, json!({"fixed_ips": []})).await;
    by(&bare).await.refused(400, "BadRequest");
    let second = user.port(&network, fixed(&[1])).await;
    let words = by(&second).await.refused(400, "BadRequest");
    assert!(words.contains("Only one IPv6 port"), "{words}");
    let used = json!({"device_id": "vm-1"});
    let used = user.port(&network, used).await;
    by(&used).await.refused(409, "PortInUse");
    let (many, more) = world.inside(&["10.0.8.0/24", "10.0.9.0/24"]).await;
    let both = json!({"fixed_ips": [{"subnet_id": more[0]["id"]}, {"subnet_id": more[1]["id"]}]});
    let several = user.port(&many, both).await;
    let words = by(&several).await.refused(400, "BadRequest");
    assert!(words.contains("multiple IPv4"), "{words}");
    let body = json!({"port_id": port["id"]});
    act(user, &made, "remove_router_interface", body)
        .await
        .ok(200);
    user.show("ports", &port["id"])
        .await
        .refused(404, "PortNotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_may_have_another_address_of_its_subnet() {
    let world = World::start().await;
    let user = &world.user;
    let made = router(user, json!({})).await;
    let (_, subnets) = world.inside(&["10.0.0.0/24", "10.0.1.0/24"]).await;
    let added = add(user, &made, &subnets[0]).await.ok(200);
    let route = json!({"destination": "192.0.2.0/24", "nexthop": "10.0.0.7"});
    set(user, &made, json!({"routes": [route]})).await.ok(200);
    let to = |subnet: &Value, address: &str| {
        let fixed = json!({"subnet_id": subnet["id"], "ip_address": address});
        let body = json!({"fixed_ips": [fixed]});
        user.update("ports", "port", &added["port_id"], body)
    };
    let moved = to(&subnets[0], "10.0.0.9").await.ok(200);
    assert_eq!(addresses(&moved["port"]), ["10.0.0.9"]);
    to(&subnets[0], "10.0.0.7")
        .await
        .refused(400, "InvalidRoutes");
    to(&subnets[1], "10.0.1.9").await.refused(400, "BadRequest");
    let gone = json!({"fixed_ips": []});
    user.update("ports", "port", &added["port_id"], gone)
        .await
        .refused(400, "BadRequest");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_interfaces_that_make_no_sense_are_refused() {
    let world = World::start().await;
    let user = &world.user;
    let made = world.router().await;
    let nobody = "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d";
    let table = [
        (json!({}), 400, "BadRequest"),
        (json!({"subnet_id": "x"}), 400, "BadRequest"),
        (json!({"subnet_id": 7}), 400, "BadRequest"),
        (
            json!({"subnet_id": nobody, "port_id": nobody}),
            400,
            "BadRequest",
        ),
        (json!({"subnet_id": nobody}), 404, "SubnetNotFound"),
        (json!({"port_id": nobody}), 404, "PortNotFound"),
        (json!([]), 400, "HTTPBadRequest"),
    ];
    for (body, status, kind) in table {
        act(user, &made, "add_router_interface", body)
            .await
            .refused(status, kind);
    }
    let network = user.network(json!({})).await;
    let bare = json!({"gateway_ip": null});
    let bare = user.subnet(&network, "10.0.0.0/24", bare).await;
    let words = add(user, &made, &bare).await.refused(400, "BadRequest");
    assert!(words.contains("must have a gateway IP"), "{words}");
    let heard = json!({"ipv6_address_mode": "slaac"});
    let heard = user.subnet(&network, "fd00:9::/64", heard).await;
    let words = add(user, &made, &heard).await.refused(400, "BadRequest");
    assert!(words.contains("RAs from an external router"), "{words}");
    // Neither is one with the external network's addresses.
    let (_, same) = world.inside(&["203.0.113.128/25"]).await;
    let words = add(user, &made, &same[0]).await.refused(400, "BadRequest");
    assert!(words.contains("overlaps"), "{words}");
    let automatic = user.subnet(&network, "fd00:8::/64", slaac()).await;
    add(user, &made, &automatic).await.ok(200);
    user.delete("subnets", &automatic["id"])
        .await
        .refused(409, "SubnetInUse");
    let owner = json!({"device_owner": "network:router_interface", "device_id": made["id"]});
    user.try_port(&network, owner.clone())
        .await
        .refused(403, "PolicyNotAuthorized");
    let port = user.port(&network, json!({"fixed_ips": []})).await;
    user.update("ports", "port", &port["id"], owner)
        .await
        .refused(403, "PolicyNotAuthorized");
    // A port of one's own may be called a gateway, but not this router's.
    let owner = json!({"device_owner": "network:router_gateway", "fixed_ips": []});
    let port = user.port(&network, owner).await;
    user.update(
        "ports",
        "port",
        &port["id"],
        json!({"device_id": made["id"]}),
    )
    .await
    .refused(403, "PolicyNotAuthorized");
    user.delete("ports", &port["id"]).await.ok(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_of_others_needs_a_policy_for_just_this_project() {
    let world = World::start().await;
    let (other, id) = world.cloud.project("beta", "member").await;
    let own = router(&other, json!({})).await;
    let (network, subnets) = world.inside(&["10.0.0.0/24"]).await;
    let shared = json!({"shared": true});
    world
        .admin
        .update("networks", "network", &network["id"], shared)
        .await
        .ok(200);
    let words = add(&other, &own, &subnets[0])
        .await
        .refused(400, "BadRequest");
    assert!(words.contains("not owned by project"), "{words}");
    let policy = json!({"object_type": "network", "object_id": network["id"],
        "action": "access_as_shared", "target_tenant": id});
    let policy = world
        .user
        .create("rbac-policies", "rbac_policy", policy)
        .await;
    add(&other, &own, &subnets[0]).await.ok(200);
    let private = json!({"shared": false});
    world
        .admin
        .update("networks", "network", &network["id"], private)
        .await
        .ok(200);
    world
        .user
        .delete("rbac-policies", &policy["id"])
        .await
        .refused(409, "RbacPolicyInUse");
    remove(&other, &own, &subnets[0]).await.ok(200);
    world
        .user
        .delete("rbac-policies", &policy["id"])
        .await
        .ok(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_are_only_on_networks_external_for_the_project() {
    let world = World::start().await;
    let (user, admin) = (&world.user, &world.admin);
    let made = router(user, json!({})).await;
    let to = |id: &Value| json!({"external_gateway_info": {"network_id": id}});
    let (inside, _) = world.inside(&["10.0.0.0/24"]).await;
    let words = set(user, &made, to(&inside["id"]))
        .await
        .refused(400, "BadRequest");
    assert!(words.contains("is not an external network"), "{words}");
    let closed = json!({"provider:network_type": "routed"});
    let closed = admin.network(closed).await;
    admin.subnet(&closed, "198.51.100.0/24", json!({})).await;
    set(user, &made, to(&closed["id"]))
        .await
        .refused(404, "NetworkNotFound");
    let policy = json!({"object_type": "network", "object_id": closed["id"],
        "action": "access_as_external", "target_tenant": world.project});
    let policy = admin.create("rbac-policies", "rbac_policy", policy).await;
    set(user, &made, to(&closed["id"])).await.ok(200);
    let words = admin
        .delete("rbac-policies", &policy["id"])
        .await
        .refused(409, "RbacPolicyInUse");
    assert!(words.contains("routers attached"), "{words}");
    let (_, other) = world.cloud.project("beta", "member").await;
    let elsewhere = json!({"target_tenant": other});
    admin
        .update("rbac-policies", "rbac_policy", &policy["id"], elsewhere)
        .await
        .refused(409, "RbacPolicyInUse");
    admin
        .update(
            "networks",
            "network",
            &closed["id"],
            json!({"router:external": false}),
        )
        .await
        .refused(409, "ExternalNetworkInUse");
    set(user, &made, json!({"external_gateway_info": {}}))
        .await
        .ok(200);
    assert_eq!(
        show(user, &made).await["external_gateway_info"],
        Value::Null
    );
    admin.delete("rbac-policies", &policy["id"]).await.ok(204);
    // Ports of tenants have no place on a network that is external alone.
    user.try_port(&world.external, json!({}))
        .await
        .refused(404, "NetworkNotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_make_no_sense_are_refused() {
    let world = World::start().await;
    let admin = &world.admin;
    let made = router(admin, json!({})).await;
    let taken = world.outside[0]["gateway_ip"].clone();
    let wrong = json!({"external_gateway_info": {"network_id": world.external["id"],
        "external_fixed_ips": [{"ip_address": taken}]}});
    let words = set(admin, &made, wrong).await.refused(400, "BadRequest");
    assert!(words.contains("same as the gateway IP"), "{words}");
    let table = [
        (json!("x"), "HTTPBadRequest"),
        (json!({"enable_snat": true}), "HTTPBadRequest"),
        (json!({"network_id": "x"}), "HTTPBadRequest"),
        (
            json!({"network_id": world.external["id"], "x": 1}),
            "HTTPBadRequest",
        ),
        (
            json!({"network_id": world.external["id"], "external_fixed_ips": [{"ip_address": "10.9.9.9"}]}),
            "InvalidIpForNetwork",
        ),
    ];
    for (info, kind) in table {
        let info = json!({"external_gateway_info": info});
        set(admin, &made, info).await.refused(400, kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_lead_to_neighbours_and_keep_their_interfaces() {
    let world = World::start().await;
    let user = &world.user;
    let made = router(user, json!({})).await;
    let (_, subnets) = world.inside(&["10.0.0.0/24", "fd00:1::/64"]).await;
    for subnet in &subnets {
        add(user, &made, subnet).await.ok(200);
    }
    let route = |to: &str, via: &str| json!({"destination": to, "nexthop": via});
    let four = route("192.0.2.0/24", "10.0.0.7");
    let six = route("2001:db8:7::/48", "fd00:1::7");
    let changed = set(user, &made, json!({"routes": [four, six]}))
        .await
        .ok(200);
    assert_eq!(changed["router"]["routes"], json!([four, six]));
    let wrong = [
        (route("192.0.2.0/24", "10.9.0.7"), "not connected"),
        (route("192.0.2.0/24", "10.0.0.1"), "used by router"),
        (route("192.0.2.0/24", "fd00:1::7"), "IP version"),
    ];
    for (route, reason) in wrong {
        let words = set(user, &made, json!({"routes": [route]}))
            .await
            .refused(400, "InvalidRoutes");
        assert!(words.contains(reason), "{words}");
    }
    let twice = json!({"routes": [four, four]});
    set(user, &made, twice).await.refused(400, "HTTPBadRequest");
    remove(user, &made, &subnets[0])
        .await
        .refused(409, "RouterInterfaceInUseByRoute");
    // One destination by two neighbours; what is there already is added once.
    let second = route("192.0.2.0/24", "10.0.0.8");
    let body = |routes: Value| json!({"router": {"routes": routes}});
    let added = act(user, &made, "add_extraroutes", body(json!([four, second])))
        .await
        .ok(200);
    assert_eq!(added["router"]["routes"], json!([four, six, second]));
    let absent = route("198.51.100.0/24", "10.0.0.9");
    let left = act(
        user,
        &made,
        "remove_extraroutes",
        body(json!([four, second, absent])),
    )
    .await
    .ok(200);
    assert_eq!(left["router"]["routes"], json!([six]));
    for body in [
        json!({}),
        json!({"router": {}}),
        json!({"router": {"routes": "x"}}),
        json!({"router": {"routes": [], "name": "x"}}),
    ] {
        act(user, &made, "add_extraroutes", body)
            .await
            .refused(400, "HTTPBadRequest");
    }
    let many: Vec<_> = (0..30)
        .map(|n| route(&format!("192.0.2.{}/30", n * 4), "10.0.0.7"))
        .collect();
    set(user, &made, json!({"routes": many})).await.ok(200);
    act(user, &made, "add_extraroutes", body(json!([four])))
        .await
        .refused(409, "OverQuota");
    set(user, &made, json!({"routes": []})).await.ok(200);
    remove(user, &made, &subnets[0]).await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_has_several_gateways() {
    let world = World::start().await;
    let admin = &world.admin;
    let second = admin.network(json!({"router:external": true})).await;
    admin.subnet(&second, "198.51.100.0/24", json!({})).await;
    let made = router(admin, json!({})).await;
    let body = |gateways: Value| json!({"router": {"external_gateways": gateways}});
    let one = json!({"network_id": world.external["id"]});
    let two = json!({"network_id": second["id"]});
    let gateways = |body: &Value| -> Vec<Value> {
        let all = body["router"]["external_gateways"].as_array().unwrap();
        all.iter().map(|g| g["network_id"].clone()).collect()
    };
    let (e, s) = (world.external["id"].clone(), second["id"].clone());
    let none = act(admin, &made, "remove_external_gateways", body(json!([one])));
    none.await.refused(400, "UnableToRemoveGateways");
    let added = act(
        admin,
        &made,
        "add_external_gateways",
        body(json!([one, two])),
    );
    let added = added.await.ok(200);
    assert_eq!(gateways(&added), [e.clone(), s.clone()]);
    assert_eq!(added["router"]["external_gateway_info"]["network_id"], e);
    // A second one on the same network, then only the address tells them apart.
    let added = act(admin, &made, "add_external_gateways", body(json!([two])));
    let added = added.await.ok(200);
    assert_eq!(gateways(&added), [e.clone(), s.clone(), s.clone()]);
    act(admin, &made, "remove_external_gateways", body(json!([two])))
        .await
        .refused(400, "UnableToMatchGateways");
    let third = &added["router"]["external_gateways"][2];
    let address = third["external_fixed_ips"][0]["ip_address"].clone();
    let named = json!({"network_id": s, "external_fixed_ips": [{"ip_address": address}]});
    let left = act(
        admin,
        &made,
        "remove_external_gateways",
        body(json!([named])),
    );
    assert_eq!(gateways(&left.await.ok(200)), [e.clone(), s.clone()]);
    // The order is the request's; what stays keeps its address.
    let before = added["router"]["external_gateways"][1].clone();
    let turned = act(
        admin,
        &made,
        "update_external_gateways",
        body(json!([two, one])),
    );
    let turned = turned.await.ok(200);
    assert_eq!(gateways(&turned), [s.clone(), e.clone()]);
    assert_eq!(
        turned["router"]["external_gateways"][0]["external_fixed_ips"],
        before["external_fixed_ips"]
    );
    // Without the first, the next one is.
    let rest = set(admin, &made, json!({"external_gateway_info": null})).await;
    let rest = rest.ok(200);
    assert_eq!(rest["router"]["external_gateway_info"]["network_id"], e);
    let none = act(admin, &made, "update_external_gateways", body(json!([])));
    assert_eq!(gateways(&none.await.ok(200)), Vec::<Value>::new());
    assert_eq!(ports_of(admin, &made).await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_has_at_most_16_gateways_all_or_nothing() {
    let world = World::start().await;
    let made = router(&world.user, json!({})).await;
    let one = json!({"network_id": world.external["id"]});
    let ask = |count: usize| {
        let body = json!({"router": {"external_gateways": vec![one.clone(); count]}});
        act(&world.user, &made, "add_external_gateways", body)
    };
    let words = ask(17).await.refused(400, "BadRequest");
    assert!(words.contains("at most 16"), "{words}");
    assert_eq!(ports_of(&world.admin, &made).await, Vec::<Value>::new());
    ask(16).await.ok(200);
    ask(1).await.refused(400, "BadRequest");
    assert_eq!(ports_of(&world.admin, &made).await.len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_count_against_a_quota_and_their_ports_do_not() {
    let world = World::start().await;
    let quota = json!({"quota": {"router": 1, "port": 0}});
    let path = format!("/networking/v2.0/quotas/{}", world.project);
    world.admin.send("PUT", &path, Some(quota)).await.ok(200);
    let made = world.router().await;
    let (_, subnets) = world.inside(&["10.0.0.0/24"]).await;
    add(&world.user, &made, &subnets[0]).await.ok(200);
    world
        .user
        .try_create("routers", "router", json!({}))
        .await
        .refused(409, "OverQuota");
    let details = format!("{path}/details");
    let used = world.user.get(&details).await.ok(200);
    assert_eq!(used["quota"]["router"]["used"], json!(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_revision_is_refused_and_tags_are_kept() {
    let world = World::start().await;
    let made = router(&world.user, json!({})).await;
    let id = made["id"].as_str().unwrap();
    let path = format!("/networking/v2.0/routers/{id}");
    let body = || Some(json!({"router": {"name": "x"}}));
    let stale = [("if-match", "revision_number=7")];
    world
        .user
        .request("PUT", &path, &stale, body())
        .await
        .refused(412, "RevisionNumberConstraintFailed");
    let tag = format!("{path}/tags/blue");
    assert_eq!(world.user.send("PUT", &tag, None).await.status, 201);
    let current = [("if-match", "revision_number=2")];
    let changed = world.user.request("PUT", &path, &current, body()).await;
    assert_eq!(changed.ok(200)["router"]["tags"], json!(["blue"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_listed_and_nothing_else() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let body = admin.get("/networking/v2.0/extensions").await.ok(200);
    let listed = body["extensions"].as_array().unwrap();
    for (alias, served) in [
        ("router", true),
        ("l3-ndp-proxy", true),
        ("floating-ip-port-forwarding", true),
        ("address-group", true),
        ("external-gateway-multihoming", true),
        ("enable-default-route-bfd", false),
    ] {
        let found = listed.iter().any(|e| e["alias"] == alias);
        assert_eq!(found, served, "{alias}");
        let path = format!("/networking/v2.0/extensions/{alias}");
        let answer = admin.get(&path).await;
        match served {
            true => drop(answer.ok(200)),
            false => drop(answer.refused(404, "ExtensionsNotFound")),
        }
    }
    let document = cloud
        .anybody()
        .get("/networking/openapi.json")
        .await
        .ok(200);
    for path in [
        "/v2.0/routers/{id}/add_router_interface",
        "/v2.0/floatingips/{floatingip_id}/port_forwardings/{id}",
    ] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
}
