//! What a member of one project may not do with what belongs to another: see it, change it, name it in requests of its own,
//! or have more of a shared network than its owner gives.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;
mod layer3;

use cloud::Client;
use layer3::{World, add, router};
use serde_json::{Value, json};

/// Something of a project's, and where it is found.
struct Thing {
    path: String,
    kind: &'static str,
    is: Value,
}

impl Thing {
    fn id(&self) -> &Value {
        &self.is["id"]
    }
}

/// One of each thing that members make.
struct Alpha {
    things: Vec<Thing>,
}

impl Alpha {
    async fn new(world: &World) -> Alpha {
        let user = &world.user;
        let (made, subnet, port) = world.behind("10.0.0.0/24").await;
        let floating = world.floating(json!({})).await;
        let forward = json!({"protocol": "udp", "external_port": 53, "internal_port": 53,
            "internal_port_id": port["id"]});
        let forwards = forwards(&floating["id"]);
        let forward = user.create(&forwards, "port_forwarding", forward).await;
        let group = json!({"name": "g"});
        let group = user
            .create("security-groups", "security_group", group)
            .await;
        let rule = json!({"security_group_id": group["id"], "direction": "ingress"});
        let rule = user
            .create("security-group-rules", "security_group_rule", rule)
            .await;
        let addresses = json!({"name": "a", "addresses": ["10.9.0.0/16"]});
        let addresses = user
            .create("address-groups", "address_group", addresses)
            .await;
        let scope = json!({"name": "s", "ip_version": 4});
        let scope = user.create("address-scopes", "address_scope", scope).await;
        let pool = json!({"name": "p", "prefixes": ["10.64.0.0/16"], "default_prefixlen": 24});
        let pool = user.create("subnetpools", "subnetpool", pool).await;
        let network = user.show("networks", &port["network_id"]).await.ok(200);
        let policy = json!({"object_type": "security_group", "object_id": group["id"],
            "action": "access_as_shared", "target_tenant": "0123456789abcdef0123456789abcdef"});
        let policy = user.create("rbac-policies", "rbac_policy", policy).await;
        let all = [
            ("networks", "network", network["network"].clone()),
            ("subnets", "subnet", subnet),
            ("ports", "port", port),
            ("routers", "router", made),
            ("floatingips", "floatingip", floating),
            (forwards.as_str(), "port_forwarding", forward),
            ("security-groups", "security_group", group),
            ("security-group-rules", "security_group_rule", rule),
            ("address-groups", "address_group", addresses),
            ("address-scopes", "address_scope", scope),
            ("subnetpools", "subnetpool", pool),
            ("rbac-policies", "rbac_policy", policy),
        ];
        let things = all.map(|(path, kind, is)| Thing {
            path: path.to_owned(),
            kind,
            is,
        });
        Alpha {
            things: things.into(),
        }
    }

    fn id(&self, kind: &str) -> Value {
        let mut things = self.things.iter();
        things.find(|t| t.kind == kind).unwrap().id().clone()
    }

    /// All of it as its owner sees it.
    async fn seen(&self, user: &Client) -> Vec<Value> {
        let mut all = Vec::new();
        for thing in &self.things {
            all.push(user.show(&thing.path, thing.id()).await.ok(200));
        }
        all
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// That it is refused, and not by a failure of the server.
#[track_caller]
fn refused(answer: &cloud::Answer) {
    let is = (400..500).contains(&answer.status) && answer.status != 401;
    assert!(is, "{}: {} {}", answer.what, answer.status, answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_anothers_is_not_there() {
    let world = World::start().await;
    let alpha = Alpha::new(&world).await;
    let before = alpha.seen(&world.user).await;
    let (beta, project) = world.cloud.project("beta", "member").await;
    for Thing { path, kind, is } in &alpha.things {
        let id = &is["id"];
        for answer in [
            beta.show(path, id).await,
            beta.update(path, kind, id, json!({"name": "mine"})).await,
            beta.update(path, kind, id, json!({"project_id": project}))
                .await,
            beta.delete(path, id).await,
        ] {
            // Rules, policies and scopes know of no name, or of no update at all.
            let known = [400, 404, 405].contains(&answer.status);
            assert!(known, "{}: {} {}", answer.what, answer.status, answer.body);
        }
        let tags = format!("/networking/v2.0/{path}/{}/tags/x", text(id));
        refused(&beta.send("PUT", &tags, None).await);
        let listed = beta
            .get(&format!("/networking/v2.0/{path}?id={}", text(id)))
            .await;
        if listed.status == 200 {
            let lists = listed.body.as_object().unwrap().values();
            let mut lists = lists.filter_map(Value::as_array);
            assert!(lists.all(Vec::is_empty), "{path}: {}", listed.body);
        }
    }
    for path in ["", "/default", "/details"] {
        let quotas = format!("/networking/v2.0/quotas/{}{path}", world.project);
        refused(&beta.get(&quotas).await);
    }
    let quotas = format!("/networking/v2.0/quotas/{}", world.project);
    refused(
        &beta
            .send("PUT", &quotas, Some(json!({"quota": {"port": 0}})))
            .await,
    );
    refused(&beta.send("DELETE", &quotas, None).await);
    assert_eq!(alpha.seen(&world.user).await, before);
}

/// A request to make something, and of what kind.
type Try = (String, &'static str, Value);

fn forwards(floating: &Value) -> String {
    format!("floatingips/{}/port_forwardings", text(floating))
}

/// A project that has some things of its own.
struct Beta {
    client: Client,
    network: Value,
    subnet: Value,
    port: Value,
    router: Value,
    floating: Value,
    group: Value,
}

impl Beta {
    async fn new(world: &World) -> Beta {
        let (client, _) = world.cloud.project("beta", "member").await;
        let network = client.network(json!({})).await;
        let subnet = client.subnet(&network, "10.0.0.0/24", json!({})).await;
        let port = client.port(&network, json!({})).await;
        let gateway = json!({"external_gateway_info": {"network_id": world.external["id"]}});
        let router = router(&client, gateway).await;
        add(&client, &router, &subnet).await.ok(200);
        let floating = world.try_floating(&client, json!({})).await.ok(201);
        let group = json!({"name": "g"});
        let group = client.create("security-groups", "security_group", group);
        Beta {
            group: group.await,
            floating: floating["floatingip"].clone(),
            client,
            network,
            subnet,
            port,
            router,
        }
    }

    /// On networks.
    fn inside(&self, world: &World, alpha: &Alpha) -> Vec<Try> {
        let id = |kind| alpha.id(kind);
        let own = &self.network["id"];
        let (subnet, group) = (id("subnet"), id("security_group"));
        let on = |path: &str, kind, attributes| (path.to_owned(), kind, attributes);
        vec![
            on("networks", "network", json!({"project_id": world.project})),
            on("ports", "port", json!({"network_id": id("network")})),
            on(
                "ports",
                "port",
                json!({"network_id": own, "fixed_ips": [{"subnet_id": subnet}]}),
            ),
            on(
                "ports",
                "port",
                json!({"network_id": own, "security_groups": [group]}),
            ),
            on(
                "subnets",
                "subnet",
                json!({"network_id": id("network"), "ip_version": 4, "cidr": "10.7.0.0/24"}),
            ),
            on(
                "subnets",
                "subnet",
                json!({"network_id": own, "ip_version": 4, "subnetpool_id": id("subnetpool")}),
            ),
            on(
                "subnetpools",
                "subnetpool",
                json!({"name": "p", "prefixes": ["10.65.0.0/16"],
                    "address_scope_id": id("address_scope")}),
            ),
            on(
                "rbac-policies",
                "rbac_policy",
                json!({"object_type": "network", "object_id": id("network"),
                    "action": "access_as_shared", "target_tenant": "*"}),
            ),
        ]
    }

    /// By routers.
    fn outside(&self, world: &World, alpha: &Alpha) -> Vec<Try> {
        let id = |kind| alpha.id(kind);
        let external = &world.external["id"];
        let forward = |port: &Value| {
            json!({"protocol": "udp", "external_port": 54, "internal_port": 54,
                "internal_port_id": port})
        };
        let on = |path: &str, kind, attributes| (path.to_owned(), kind, attributes);
        let proxy = |router: &Value, port: &Value| {
            let proxy = json!({"router_id": router, "port_id": port});
            on("ndp_proxies", "ndp_proxy", proxy)
        };
        let floating = |network: &Value, more: Value| {
            let mut floating = json!({"floating_network_id": network});
            let more = more.as_object().unwrap().clone();
            floating.as_object_mut().unwrap().extend(more);
            on("floatingips", "floatingip", floating)
        };
        let gateway = json!({"external_gateway_info": {"network_id": id("network")}});
        let to = [forwards(&self.floating["id"]), forwards(&id("floatingip"))];
        vec![
            on("routers", "router", gateway),
            floating(external, json!({"port_id": id("port")})),
            floating(&id("network"), json!({})),
            on(&to[0], "port_forwarding", forward(&id("port"))),
            on(&to[1], "port_forwarding", forward(&self.port["id"])),
            proxy(&self.router["id"], &id("port")),
            proxy(&id("router"), &self.port["id"]),
        ]
    }

    /// In rules.
    fn rules(&self, alpha: &Alpha) -> Vec<Try> {
        let (own, group) = (&self.group["id"], alpha.id("security_group"));
        let addresses = alpha.id("address_group");
        let rules = [
            json!({"security_group_id": group}),
            json!({"security_group_id": own, "remote_group_id": group}),
            json!({"security_group_id": own, "remote_address_group_id": addresses}),
        ];
        let path = || "security-group-rules".to_owned();
        let made = rules.map(|mut rule| {
            rule["direction"] = json!("ingress");
            (path(), "security_group_rule", rule)
        });
        made.into()
    }

    /// By changes of what it has.
    async fn changes(&self, alpha: &Alpha) {
        let id = |kind| alpha.id(kind);
        let port = |attributes| ("ports", "port", &self.port, attributes);
        let to_port = json!({"port_id": id("port")});
        let updates = [
            port(json!({"security_groups": [id("security_group")]})),
            port(json!({"fixed_ips": [{"subnet_id": id("subnet")}]})),
            port(json!({"device_owner": "network:router_interface"})),
            ("floatingips", "floatingip", &self.floating, to_port.clone()),
        ];
        let user = &self.client;
        for (path, kind, is, attributes) in updates {
            refused(&user.update(path, kind, &is["id"], attributes).await);
        }
        for body in [json!({"subnet_id": id("subnet")}), to_port] {
            refused(&layer3::act(user, &self.router, "add_router_interface", body).await);
        }
        let theirs = json!({"id": id("router")});
        refused(&add(user, &theirs, &self.subnet).await);
        let route = json!({"destination": "0.0.0.0/0", "nexthop": "10.0.0.7"});
        let routes = json!({"router": {"routes": [route]}});
        refused(&layer3::act(user, &theirs, "add_extraroutes", routes).await);
    }
}

/// In requests for things of its own.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_anothers_is_not_to_be_named() {
    let world = World::start().await;
    let alpha = Alpha::new(&world).await;
    let before = alpha.seen(&world.user).await;
    let beta = Beta::new(&world).await;
    let mut tries = beta.inside(&world, &alpha);
    tries.extend(beta.outside(&world, &alpha));
    tries.extend(beta.rules(&alpha));
    for (path, kind, attributes) in tries {
        refused(&beta.client.try_create(&path, kind, attributes).await);
    }
    beta.changes(&alpha).await;
    assert_eq!(alpha.seen(&world.user).await, before);
}

/// Of a network that is shared with it, a project has ports; of whom they are and what they may send the owner decides.
#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_network_gets_no_more_of_it() {
    let world = World::start().await;
    let alpha = Alpha::new(&world).await;
    let (beta, project) = world.cloud.project("beta", "member").await;
    let policy = json!({"object_type": "network", "object_id": alpha.id("network"),
        "action": "access_as_shared", "target_tenant": project});
    world
        .user
        .create("rbac-policies", "rbac_policy", policy)
        .await;
    let before = alpha.seen(&world.user).await;
    let network = json!({"id": alpha.id("network")});
    let port = beta.port(&network, json!({})).await;
    let asked = [
        json!({"port_security_enabled": false, "security_groups": []}),
        json!({"allowed_address_pairs": [{"ip_address": "10.0.0.0/24"}]}),
        json!({"mac_address": "fa:16:3e:00:00:01"}),
        json!({"fixed_ips": [{"ip_address": "10.0.0.77"}]}),
        json!({"device_owner": "network:dhcp"}),
        json!({"project_id": world.project}),
    ];
    for attributes in asked {
        refused(&beta.try_port(&network, attributes.clone()).await);
        refused(&beta.update("ports", "port", &port["id"], attributes).await);
    }
    for (path, kind) in [
        ("networks", "network"),
        ("subnets", "subnet"),
        ("ports", "port"),
    ] {
        let id = alpha.id(kind);
        refused(&beta.update(path, kind, &id, json!({"name": "mine"})).await);
        refused(&beta.delete(path, &id).await);
    }
    let listed = beta.get("/networking/v2.0/ports").await.ok(200)["ports"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    let subnet = json!({"network_id": network["id"], "ip_version": 4, "cidr": "10.7.0.0/24"});
    refused(&beta.try_create("subnets", "subnet", subnet).await);
    let to_port = json!({"port_id": alpha.id("port")});
    refused(&world.try_floating(&beta, to_port).await);
    assert_eq!(alpha.seen(&world.user).await, before);
}
