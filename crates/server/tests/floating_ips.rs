//! Floating IPs, port forwardings and NDP proxies over a real listener.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;
mod layer3;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use cloud::{Answer, Client, addresses};
use layer3::{World, add, remove, router, set};

async fn change(client: &Client, fip: &Value, attributes: Value) -> Answer {
    client
        .update("floatingips", "floatingip", &fip["id"], attributes)
        .await
}

async fn show(client: &Client, fip: &Value) -> Value {
    client.show("floatingips", &fip["id"]).await.ok(200)["floatingip"].clone()
}

fn path(fip: &Value) -> String {
    format!(
        "floatingips/{}/port_forwardings",
        fip["id"].as_str().unwrap()
    )
}

async fn try_forward(client: &Client, fip: &Value, attributes: Value) -> Answer {
    let path = path(fip);
    client
        .try_create(&path, "port_forwarding", attributes)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floating_ip_stands_for_a_port() {
    let world = World::start().await;
    let user = &world.user;
    let (made, _, port) = world.behind("10.0.0.0/24").await;
    let fip = world
        .floating(json!({"description": "web", "tags": ["blue"]}))
        .await;
    assert_eq!(
        (&fip["status"], &fip["router_id"], &fip["port_details"]),
        (&json!("DOWN"), &Value::Null, &Value::Null)
    );
    assert!(
        fip["floating_ip_address"]
            .as_str()
            .unwrap()
            .starts_with("203.0.113.")
    );
    assert!(fip.get("name").is_none() && fip.get("subnet_id").is_none());
    let on = change(user, &fip, json!({"port_id": port["id"]}))
        .await
        .ok(200);
    let on = &on["floatingip"];
    assert_eq!(
        (&on["status"], &on["router_id"], &on["fixed_ip_address"]),
        (&json!("ACTIVE"), &made["id"], &json!(addresses(&port)[0]))
    );
    assert_eq!(on["port_details"]["mac_address"], port["mac_address"]);
    let queries = [
        ("port_id", &port["id"]),
        ("router_id", &made["id"]),
        ("floating_ip_address", &fip["floating_ip_address"]),
    ];
    for (key, value) in queries {
        let query = format!(
            "/networking/v2.0/floatingips?{key}={}",
            value.as_str().unwrap()
        );
        let listed = user.get(&query).await.ok(200);
        assert_eq!(listed["floatingips"][0]["id"], fip["id"], "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floating_ip_keeps_its_router_moves_and_goes() {
    let world = World::start().await;
    let user = &world.user;
    let (made, subnet, port) = world.behind("10.0.0.0/24").await;
    let fip = world.floating(json!({"port_id": port["id"]})).await;
    remove(user, &made, &subnet)
        .await
        .refused(409, "RouterInterfaceInUseByFloatingIP");
    set(user, &made, json!({"external_gateway_info": null}))
        .await
        .refused(409, "RouterExternalGatewayInUseByFloatingIp");
    user.delete("routers", &made["id"])
        .await
        .refused(409, "RouterInUse");
    // The description alone leaves it where it is.
    let same = change(user, &fip, json!({"description": "x"}))
        .await
        .ok(200);
    assert_eq!(same["floatingip"]["port_id"], port["id"]);
    let network = json!({"id": port["network_id"]});
    let other = user.port(&network, json!({})).await;
    let moved = change(user, &fip, json!({"port_id": other["id"]}))
        .await
        .ok(200);
    assert_eq!(
        moved["floatingip"]["fixed_ip_address"],
        json!(addresses(&other)[0])
    );
    // A port that goes takes it off.
    user.delete("ports", &other["id"]).await.ok(204);
    let off = show(user, &fip).await;
    assert_eq!(
        (&off["port_id"], &off["status"], &off["router_id"]),
        (&Value::Null, &json!("DOWN"), &Value::Null)
    );
    change(user, &fip, json!({"port_id": port["id"]}))
        .await
        .ok(200);
    let off = change(user, &fip, json!({"port_id": null})).await.ok(200);
    assert_eq!(off["floatingip"]["port_id"], Value::Null);
    user.delete("floatingips", &fip["id"]).await.ok(204);
    user.show("floatingips", &fip["id"])
        .await
        .refused(404, "FloatingIPNotFound");
    remove(user, &made, &subnet).await.ok(200);
    user.delete("routers", &made["id"]).await.ok(204);
    world
        .admin
        .delete("networks", &world.external["id"])
        .await
        .ok(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_floating_ip_cannot_be_is_refused() {
    let world = World::start().await;
    let (user, admin) = (&world.user, &world.admin);
    let (inside, _) = world.inside(&["10.1.0.0/24"]).await;
    let of = |id: &Value| json!({"floating_network_id": id});
    let words = user
        .try_create("floatingips", "floatingip", of(&inside["id"]))
        .await
        .refused(400, "BadRequest");
    assert!(words.contains("not a valid external network"), "{words}");
    let six = admin.network(json!({"router:external": true})).await;
    admin.subnet(&six, "2a00:1450:4001::/64", json!({})).await;
    let words = user
        .try_create("floatingips", "floatingip", of(&six["id"]))
        .await
        .refused(400, "BadRequest");
    assert!(
        words.contains("does not contain any IPv4 subnet"),
        "{words}"
    );
    let address = |a: &str| json!({"floating_ip_address": a});
    let table = [
        (
            json!({"subnet_id": world.outside[1]["id"]}),
            400,
            "ExternalIpAddressExhausted",
        ),
        (
            address("2a00:1450:4000::7"),
            400,
            "ExternalIpAddressExhausted",
        ),
        (address("10.9.9.9"), 400, "InvalidIpForNetwork"),
        (address("203.0.113.1"), 409, "IpAddressInUse"),
        (address("x"), 400, "HTTPBadRequest"),
        (json!({"fixed_ip_address": "10.0.0.7"}), 400, "BadRequest"),
        (json!({"port_id": "x"}), 400, "HTTPBadRequest"),
        (json!({"name": "x"}), 400, "HTTPBadRequest"),
        (json!({"router_id": six["id"]}), 400, "HTTPBadRequest"),
        (json!({"dns_name": "x"}), 400, "HTTPBadRequest"),
    ];
    for (more, status, kind) in table {
        world.try_floating(admin, more).await.refused(status, kind);
    }
    let mine = world.try_floating(user, address("203.0.113.7")).await;
    mine.refused(403, "PolicyNotAuthorized");
    let given = world
        .try_floating(admin, address("203.0.113.7"))
        .await
        .ok(201);
    assert_eq!(given["floatingip"]["floating_ip_address"], "203.0.113.7");
    world
        .try_floating(admin, address("203.0.113.7"))
        .await
        .refused(409, "IpAddressInUse");
    let of_subnet = json!({"subnet_id": world.outside[0]["id"]});
    world.try_floating(user, of_subnet).await.ok(201);
    // Nothing of what was refused is left behind.
    let network = world.external["id"].as_str().unwrap();
    let ports = format!("/networking/v2.0/ports?network_id={network}");
    let ports = admin.get(&ports).await;
    assert_eq!(ports.ok(200)["ports"].as_array().unwrap().len(), 2);
    world
        .admin
        .update(
            "networks",
            "network",
            &world.external["id"],
            json!({"router:external": false}),
        )
        .await
        .refused(409, "ExternalNetworkInUse");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_has_to_be_reached_and_its_address_chosen() {
    let world = World::start().await;
    let user = &world.user;
    let fip = world.floating(json!({})).await;
    let to = |port: &Value| change(user, &fip, json!({"port_id": port["id"]}));
    let (network, subnets) = world.inside(&["10.0.0.0/24", "fd00:1::/64"]).await;
    let fixed = |all: &[&str]| {
        let all: Vec<_> = all.iter().map(|a| json!({"ip_address": a})).collect();
        json!({"fixed_ips": all})
    };
    let port = user.port(&network, fixed(&["10.0.0.7", "10.0.0.8"])).await;
    let words = to(&port).await.refused(400, "BadRequest");
    assert!(words.contains("multiple fixed IPv4"), "{words}");
    let chosen = |a: &str| json!({"port_id": port["id"], "fixed_ip_address": a});
    let lost = change(user, &fip, chosen("10.0.0.7")).await;
    lost.refused(404, "ExternalGatewayForFloatingIPNotFound");
    let made = router(user, json!({})).await;
    add(user, &made, &subnets[0]).await.ok(200);
    let lost = change(user, &fip, chosen("10.0.0.7")).await;
    lost.refused(404, "ExternalGatewayForFloatingIPNotFound");
    let gateway = json!({"external_gateway_info": {"network_id": world.external["id"]}});
    set(user, &made, gateway).await.ok(200);
    change(user, &fip, chosen("10.0.0.7")).await.ok(200);
    for wrong in ["10.0.0.99", "fd00:1::7"] {
        change(user, &fip, chosen(wrong))
            .await
            .refused(400, "BadRequest");
    }
    let second = world.floating(json!({})).await;
    let words = change(user, &second, chosen("10.0.0.7"))
        .await
        .refused(409, "FloatingIPPortAlreadyAssociated");
    assert!(words.contains("10.0.0.7"), "{words}");
    change(user, &second, chosen("10.0.0.8")).await.ok(200);
    change(user, &second, chosen("10.0.0.8")).await.ok(200);
    // An address that goes takes its floating IP off, and no other.
    user.update("ports", "port", &port["id"], fixed(&["10.0.0.7"]))
        .await
        .ok(200);
    assert_eq!(show(user, &second).await["port_id"], Value::Null);
    assert_eq!(show(user, &fip).await["port_id"], port["id"]);
    let bare = user.port(&network, fixed(&["fd00:1::7"])).await;
    let words = to(&bare).await.refused(400, "BadRequest");
    assert!(words.contains("no fixed IPv4"), "{words}");
    let (other, _) = world.cloud.project("beta", "member").await;
    let theirs = world.try_floating(&other, json!({})).await.ok(201);
    let body = json!({"port_id": port["id"]});
    change(&other, &theirs["floatingip"], body.clone())
        .await
        .refused(404, "PortNotFound");
    // What an administrator has associated, the port's project does not take off unseen.
    let free = user.port(&network, fixed(&["10.0.0.9"])).await;
    let body = json!({"port_id": free["id"]});
    change(&world.admin, &theirs["floatingip"], body)
        .await
        .ok(200);
    user.delete("ports", &free["id"])
        .await
        .refused(409, "FipAssociated");
    world.admin.delete("ports", &free["id"]).await.ok(204);
    let interfaces = format!(
        "/networking/v2.0/ports?device_id={}",
        made["id"].as_str().unwrap()
    );
    let interface = user.get(&interfaces).await.ok(200)["ports"][0].clone();
    to(&interface).await.refused(400, "BadRequest");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_ask_at_once_and_each_address_is_given_once() {
    let world = World::on("203.0.113.0/28").await;
    let at_once = |client: &Client, bodies: Vec<(String, &'static str, Value)>| {
        let mut tasks = JoinSet::new();
        for (path, method, body) in bodies {
            let client = client.clone();
            tasks.spawn(async move { client.send(method, &path, Some(body)).await });
        }
        tasks.join_all()
    };
    let post = |more: Value| {
        let mut body = more;
        body["floating_network_id"] = world.external["id"].clone();
        let path = "/networking/v2.0/floatingips".to_owned();
        (path, "POST", json!({"floatingip": body}))
    };
    let same = vec![post(json!({"floating_ip_address": "203.0.113.9"})); 6];
    let answers = at_once(&world.admin, same).await;
    let good = answers.iter().filter(|a| a.status == 201).count();
    assert_eq!(good, 1, "the same address");
    assert!(answers.iter().all(|a| [201, 409].contains(&a.status)));
    let (_, _, port) = world.behind("10.0.0.0/24").await;
    // 14 addresses: less the subnet's gateway, the router's and the one above.
    let answers = at_once(&world.user, vec![post(json!({})); 16]).await;
    let good: Vec<_> = answers.iter().filter(|a| a.status == 201).collect();
    let given: BTreeSet<_> = good
        .iter()
        .map(|a| {
            a.body["floatingip"]["floating_ip_address"]
                .as_str()
                .unwrap()
        })
        .collect();
    assert_eq!((good.len(), given.len()), (11, 11));
    for answer in answers.iter().filter(|a| a.status != 201) {
        assert_eq!(
            answer.body["NeutronError"]["type"],
            "IpAddressGenerationFailure"
        );
    }
    let to_port = |fip: &Answer| {
        let id = fip.body["floatingip"]["id"].as_str().unwrap();
        let path = format!("/networking/v2.0/floatingips/{id}");
        (path, "PUT", json!({"floatingip": {"port_id": port["id"]}}))
    };
    let moves = good.iter().map(|a| to_port(a)).collect();
    let answers = at_once(&world.user, moves).await;
    let associated = answers.iter().filter(|a| a.status == 200).count();
    assert_eq!(associated, 1, "one floating IP for one address");
    assert!(answers.iter().all(|a| [200, 409].contains(&a.status)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_and_what_needs_it_never_part() {
    let world = World::start().await;
    for round in 0..8 {
        let (made, subnet, port) = world.behind(&format!("10.0.{round}.0/24")).await;
        let fip = world.floating(json!({})).await;
        let (took, off) = tokio::join!(
            change(&world.user, &fip, json!({"port_id": port["id"]})),
            remove(&world.user, &made, &subnet)
        );
        let outcome = (took.status, off.status);
        assert!([(200, 409), (404, 200)].contains(&outcome), "{outcome:?}");
        let there = show(&world.user, &fip).await["router_id"] == made["id"];
        assert_eq!(there, took.status == 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded() {
    let world = World::start().await;
    let user = &world.user;
    let (made, _, port) = world.behind("10.0.0.0/24").await;
    let fip = world.floating(json!({})).await;
    let inner = addresses(&port)[0].clone();
    let web = json!({"protocol": "tcp", "external_port": 80, "internal_port": "8080",
        "internal_port_id": port["id"], "description": "web"});
    let web = try_forward(user, &fip, web).await.ok(201)["port_forwarding"].clone();
    assert_eq!(
        (
            &web["internal_ip_address"],
            &web["external_port_range"],
            &web["internal_port"]
        ),
        (&json!(inner), &json!("80:80"), &json!(8080))
    );
    assert!(web.get("project_id").is_none());
    let range = json!({"protocol": "udp", "external_port_range": "100:199",
        "internal_port_range": "1100:1199", "internal_port_id": port["id"],
        "internal_ip_address": inner});
    let range = try_forward(user, &fip, range).await.ok(201)["port_forwarding"].clone();
    assert_eq!(
        (&range["external_port"], &range["internal_port_range"]),
        (&Value::Null, &json!("1100:1199"))
    );
    let shown = show(user, &fip).await;
    assert_eq!(
        (&shown["status"], &shown["router_id"], &shown["port_id"]),
        (&json!("ACTIVE"), &made["id"], &Value::Null)
    );
    assert_eq!(shown["port_forwardings"].as_array().unwrap().len(), 2);
    let list = format!(
        "/networking/v2.0/{}?protocol=tcp&sort_key=id&limit=1",
        path(&fip)
    );
    let listed = user.get(&list).await.ok(200);
    assert_eq!(listed["port_forwardings"], json!([web]));
    let link = listed["port_forwardings_links"][0]["href"].as_str();
    assert!(link.is_none_or(|l| l.contains(&path(&fip))), "{link:?}");
    let changed = user
        .update(
            &path(&fip),
            "port_forwarding",
            &web["id"],
            json!({"external_port": 81, "description": ""}),
        )
        .await
        .ok(200);
    assert_eq!(changed["port_forwarding"]["external_port_range"], "81:81");
    assert_eq!(
        user.show(&path(&fip), &web["id"]).await.ok(200),
        json!({"port_forwarding": changed["port_forwarding"]})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn forwardings_keep_their_floating_ip_and_router_and_go_with_their_port() {
    let world = World::start().await;
    let user = &world.user;
    let (made, subnet, port) = world.behind("10.0.0.0/24").await;
    let fip = world.floating(json!({})).await;
    let forward = |n: u16| {
        json!({"protocol": "tcp", "external_port": n, "internal_port": n,
            "internal_port_id": port["id"]})
    };
    let web = try_forward(user, &fip, forward(80)).await.ok(201)["port_forwarding"].clone();
    try_forward(user, &fip, forward(81)).await.ok(201);
    let to_port = json!({"port_id": port["id"]});
    change(user, &fip, to_port.clone())
        .await
        .refused(409, "FipInUseByPortForwarding");
    user.delete("floatingips", &fip["id"])
        .await
        .refused(409, "FipInUseByPortForwarding");
    remove(user, &made, &subnet)
        .await
        .refused(409, "RouterInterfaceInUseByFloatingIP");
    let second = world.floating(json!({})).await;
    change(user, &second, to_port)
        .await
        .refused(400, "PortHasPortForwarding");
    user.delete(&path(&fip), &web["id"]).await.ok(204);
    user.delete(&path(&fip), &web["id"])
        .await
        .refused(404, "PortForwardingNotFound");
    // A port that goes takes its forwardings, and the last of them the router.
    user.delete("ports", &port["id"]).await.ok(204);
    let shown = show(user, &fip).await;
    assert_eq!(
        (
            &shown["status"],
            &shown["router_id"],
            &shown["port_forwardings"]
        ),
        (&json!("DOWN"), &Value::Null, &json!([]))
    );
    user.delete("floatingips", &fip["id"]).await.ok(204);
    remove(user, &made, &subnet).await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn forwardings_that_cannot_stand_beside_others_are_refused() {
    let world = World::start().await;
    let user = &world.user;
    let (_, _, port) = world.behind("10.0.0.0/24").await;
    let fip = world.floating(json!({})).await;
    let with = |more: Value| {
        let mut all = json!({"protocol": "tcp", "internal_port_id": port["id"]});
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all
    };
    let first = with(json!({"external_port_range": "80:90", "internal_port_range": "180:190"}));
    try_forward(user, &fip, first).await.ok(201);
    for (more, status, kind) in senseless() {
        try_forward(user, &fip, with(more))
            .await
            .refused(status, kind);
    }
    // Another protocol, and many ports to one.
    let udp = json!({"external_port_range": "80:90", "internal_port": 180, "protocol": "udp"});
    try_forward(user, &fip, with(udp)).await.ok(201);
}

/// What no floating IP forwards, and none whose TCP ports 80 to 90 lead to 180 to 190.
fn senseless() -> Vec<(Value, u16, &'static str)> {
    let nobody = "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d";
    vec![
        (
            json!({"external_port": 90, "internal_port": 1}),
            400,
            "BadRequest",
        ),
        (
            json!({"external_port": 91, "internal_port": 190}),
            400,
            "BadRequest",
        ),
        (
            json!({"external_port_range": "1:4", "internal_port_range": "1:3"}),
            400,
            "BadRequest",
        ),
        (
            json!({"external_port": 1, "internal_port_range": "1:2"}),
            400,
            "BadRequest",
        ),
        (json!({"external_port": 1}), 400, "BadRequest"),
        (json!({"internal_port": 1}), 400, "BadRequest"),
        (
            json!({"external_port": 1, "external_port_range": "2:3", "internal_port": 1}),
            400,
            "BadRequest",
        ),
        (
            json!({"external_port": 0, "internal_port": 1}),
            400,
            "HTTPBadRequest",
        ),
        (
            json!({"external_port": 65536, "internal_port": 1}),
            400,
            "HTTPBadRequest",
        ),
        (
            json!({"external_port_range": "9:8", "internal_port": 1}),
            400,
            "HTTPBadRequest",
        ),
        (
            json!({"external_port": 1, "internal_port": 1, "protocol": "icmp"}),
            400,
            "HTTPBadRequest",
        ),
        (
            json!({"external_port": 1, "internal_port": 1, "internal_ip_address": "10.0.0.99"}),
            400,
            "BadRequest",
        ),
        (
            json!({"external_port": 1, "internal_port": 1, "internal_port_id": nobody}),
            404,
            "PortNotFound",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_floating_ip_is_forwarded_by_one_router() {
    let world = World::start().await;
    let user = &world.user;
    let (_, _, port) = world.behind("10.0.0.0/24").await;
    let fip = world.floating(json!({})).await;
    let with = |more: Value| {
        let mut all = json!({"protocol": "tcp", "internal_port_id": port["id"]});
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all
    };
    let first = with(json!({"external_port": 80, "internal_port": 80}));
    try_forward(user, &fip, first).await.ok(201);
    let (other, _) = world.cloud.project("beta", "member").await;
    let more = with(json!({"external_port": 1, "internal_port": 1}));
    try_forward(&other, &fip, more.clone())
        .await
        .refused(404, "FloatingIPNotFound");
    // Behind another router than the floating IP's.
    let (network, subnets) = world.inside(&["10.1.0.0/24"]).await;
    let far = user.port(&network, json!({})).await;
    let far = json!({"external_port": 1, "internal_port": 1, "internal_port_id": far["id"]});
    let words = try_forward(user, &fip, with(far.clone()))
        .await
        .refused(400, "BadRequest");
    assert!(words.contains("is not reachable"), "{words}");
    let second = world.router().await;
    add(user, &second, &subnets[0]).await.ok(200);
    let words = try_forward(user, &fip, with(far))
        .await
        .refused(400, "BadRequest");
    assert!(words.contains("had been set on router"), "{words}");
    // A port with a floating IP of its own.
    let here = json!({"id": port["network_id"]});
    let own = user.port(&here, json!({})).await;
    let associated = world.floating(json!({"port_id": own["id"]})).await;
    let more_own =
        with(json!({"external_port": 1, "internal_port": 1, "internal_port_id": own["id"]}));
    try_forward(user, &fip, more_own)
        .await
        .refused(409, "PortHasBindingFloatingIP");
    try_forward(user, &associated, more)
        .await
        .refused(409, "FloatingIPPortAlreadyAssociated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floating_ip_has_at_most_100_forwardings_and_many_come_in_one_request() {
    let world = World::start().await;
    let (_, _, port) = world.behind("10.0.0.0/24").await;
    let fip = world.floating(json!({})).await;
    let many = |numbers: std::ops::Range<u16>| {
        let one = |n: u16| json!({"protocol": "tcp", "external_port": n, "internal_port": n, "internal_port_id": port["id"]});
        json!({"port_forwardings": numbers.map(one).collect::<Vec<_>>()})
    };
    let path = format!("/networking/v2.0/{}", path(&fip));
    let twice = json!({"port_forwardings": [many(1..2)["port_forwardings"][0], many(1..2)["port_forwardings"][0]]});
    world
        .user
        .post(&path, twice)
        .await
        .refused(400, "BadRequest");
    world
        .user
        .post(&path, many(1..102))
        .await
        .refused(409, "OverQuota");
    let made = world.user.post(&path, many(1..101)).await.ok(201);
    assert_eq!(made["port_forwardings"].as_array().unwrap().len(), 100);
    world
        .user
        .post(&path, many(101..102))
        .await
        .refused(409, "OverQuota");
    // Two at once for the same port inside: one of them is.
    let other = world.floating(json!({})).await;
    let third = world.floating(json!({})).await;
    let same = json!({"protocol": "tcp", "external_port": 1, "internal_port": 5000, "internal_port_id": port["id"]});
    let (a, b) = tokio::join!(
        try_forward(&world.user, &other, same.clone()),
        try_forward(&world.user, &third, same)
    );
    let mut both = [a.status, b.status];
    both.sort_unstable();
    assert_eq!(both, [201, 400]);
}

/// A scope with an external network and one of the project's in it; a router between them.
async fn scoped(world: &World) -> (Value, Value, Value) {
    let scope = json!({"name": "s", "ip_version": 6, "shared": true});
    let scope = world
        .admin
        .create("address-scopes", "address_scope", scope)
        .await;
    let pool = json!({"name": "p", "prefixes": ["2a00:1450:5000::/48"], "shared": true,
        "default_prefixlen": 64, "address_scope_id": scope["id"]});
    let pool = world.admin.create("subnetpools", "subnetpool", pool).await;
    let pooled = |network: &Value| json!({"network_id": network["id"], "ip_version": 6, "subnetpool_id": pool["id"]});
    let external = world.admin.network(json!({"router:external": true})).await;
    world
        .admin
        .create("subnets", "subnet", pooled(&external))
        .await;
    let inside = world.user.network(json!({})).await;
    let subnet = world
        .user
        .create("subnets", "subnet", pooled(&inside))
        .await;
    (external, inside, subnet)
}

#[tokio::test(flavor = "multi_thread")]
async fn ndp_proxies_lead_to_single_addresses_within_a_scope() {
    let world = World::start().await;
    let user = &world.user;
    let (external, inside, subnet) = scoped(&world).await;
    let enabled = json!({"enable_ndp_proxy": true});
    // Without a gateway it waits for one, which has to be fit for it.
    let waiting = router(user, enabled.clone()).await;
    assert_eq!(waiting["enable_ndp_proxy"], json!(true));
    let gateways =
        |network: &Value| json!({"router": {"external_gateways": [{"network_id": network["id"]}]}});
    let path = format!(
        "/networking/v2.0/routers/{}/add_external_gateways",
        waiting["id"].as_str().unwrap()
    );
    user.send("PUT", &path, Some(gateways(&world.external)))
        .await
        .refused(409, "RouterGatewayNotValid");
    let ready = user.send("PUT", &path, Some(gateways(&external))).await;
    assert_eq!(ready.ok(200)["router"]["enable_ndp_proxy"], json!(true));
    // The other external network is in no scope.
    let plain = world.router().await;
    set(user, &plain, enabled.clone())
        .await
        .refused(409, "RouterGatewayNotValid");
    let gateway = json!({"external_gateway_info": {"network_id": external["id"]}});
    let made = router(user, gateway).await;
    assert_eq!(made["enable_ndp_proxy"], json!(false));
    let port = user.port(&inside, json!({})).await;
    let of = |port: &Value| json!({"router_id": made["id"], "port_id": port["id"], "name": "n"});
    let ask = |body: Value| user.try_create("ndp_proxies", "ndp_proxy", body);
    ask(of(&port)).await.refused(409, "PortUnreachableRouter");
    add(user, &made, &subnet).await.ok(200);
    ask(of(&port)).await.refused(409, "RouterNDPProxyNotEnable");
    set(user, &made, enabled).await.ok(200);
    let (network, subnets) = world.inside(&["10.0.0.0/24", "fd00:1::/64"]).await;
    for subnet in &subnets {
        add(user, &made, subnet).await.ok(200);
    }
    let four = json!({"fixed_ips": [{"subnet_id": subnets[0]["id"]}]});
    let four = user.port(&network, four).await;
    ask(of(&four)).await.refused(400, "BadRequest");
    let manual = json!({"fixed_ips": [{"subnet_id": subnets[1]["id"]}]});
    let manual = user.port(&network, manual).await;
    ask(of(&manual)).await.refused(409, "AddressScopeConflict");
    let mut foreign = of(&port);
    foreign["ip_address"] = json!("2a00:1450:5000::99");
    ask(foreign).await.refused(400, "InvalidAddress");
    let table = [
        (json!({}), "HTTPBadRequest"),
        (json!({"router_id": made["id"]}), "HTTPBadRequest"),
        (json!({"router_id": "x", "port_id": "y"}), "HTTPBadRequest"),
    ];
    for (body, kind) in table {
        ask(body).await.refused(400, kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ndp_proxy_keeps_its_router_and_goes_with_its_port() {
    let world = World::start().await;
    let user = &world.user;
    let (external, inside, subnet) = scoped(&world).await;
    let gateway = json!({"network_id": external["id"]});
    let enabled = json!({"external_gateway_info": gateway, "enable_ndp_proxy": true});
    let made = router(user, enabled).await;
    add(user, &made, &subnet).await.ok(200);
    let port = user.port(&inside, json!({})).await;
    let of = |port: &Value| json!({"router_id": made["id"], "port_id": port["id"], "name": "n"});
    let ask = |body: Value| user.try_create("ndp_proxies", "ndp_proxy", body);
    let proxy = ask(of(&port)).await.ok(201)["ndp_proxy"].clone();
    assert_eq!(proxy["ip_address"], json!(addresses(&port)[0]));
    ask(of(&port)).await.refused(409, "Conflict");
    let listed = user
        .get(&format!(
            "/networking/v2.0/ndp_proxies?port_id={}",
            port["id"].as_str().unwrap()
        ))
        .await
        .ok(200);
    assert_eq!(listed["ndp_proxies"], json!([proxy]));
    let renamed = json!({"name": "m", "description": "d"});
    let renamed = user
        .update("ndp_proxies", "ndp_proxy", &proxy["id"], renamed)
        .await;
    assert_eq!(renamed.ok(200)["ndp_proxy"]["revision_number"], json!(2));
    remove(user, &made, &subnet)
        .await
        .refused(409, "RouterInterfaceInUseByNDPProxy");
    set(user, &made, json!({"external_gateway_info": null}))
        .await
        .refused(409, "RouterGatewayInUseByNDPProxy");
    user.delete("ports", &port["id"]).await.ok(204);
    user.show("ndp_proxies", &proxy["id"])
        .await
        .refused(404, "NDPProxyNotFound");
    let off = json!({"external_gateway_info": null, "enable_ndp_proxy": true});
    set(user, &made, off)
        .await
        .refused(409, "RouterGatewayNotValid");
    let off = set(user, &made, json!({"external_gateway_info": null})).await;
    assert_eq!(off.ok(200)["router"]["enable_ndp_proxy"], json!(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn floating_ips_count_against_a_quota_and_come_many_at_a_time() {
    let world = World::start().await;
    let path = format!("/networking/v2.0/quotas/{}", world.project);
    let quota = json!({"quota": {"floatingip": 2, "public_ipv4": 0, "port": 0}});
    world.admin.send("PUT", &path, Some(quota)).await.ok(200);
    let one = json!({"floating_network_id": world.external["id"]});
    let many = |n: usize| json!({"floatingips": vec![one.clone(); n]});
    let all = "/networking/v2.0/floatingips";
    world
        .user
        .post(all, many(3))
        .await
        .refused(409, "OverQuota");
    let made = world.user.post(all, many(2)).await.ok(201);
    let given = made["floatingips"].as_array().unwrap();
    assert_ne!(
        given[0]["floating_ip_address"],
        given[1]["floating_ip_address"]
    );
    world
        .try_floating(&world.user, json!({}))
        .await
        .refused(409, "OverQuota");
    let (other, _) = world.cloud.project("beta", "member").await;
    let theirs = other.get(all).await.ok(200);
    assert_eq!(theirs["floatingips"], json!([]));
    for fip in given {
        let fip = &fip["id"];
        other
            .show("floatingips", fip)
            .await
            .refused(404, "FloatingIPNotFound");
        world.user.delete("floatingips", fip).await.ok(204);
    }
}
