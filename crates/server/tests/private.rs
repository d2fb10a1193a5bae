//! Private networks: how they are made, what they may have, where their ports live, and what hosts are told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use cloud::{
    Answer, Client, TestCloud, addresses,
    host::{Host, Stream, token},
    slaac,
};
use hextet_api::agent::StatusReport;
use hextet_model::{
    intent::{Intent, RoutingDomain},
    neutron::NetworkType,
};
use hextet_server::{Server, ServerConfig, StoreKind};
use hextet_types::{HostId, NetworkId};
use serde_json::{Value, json};
use tokio::task::JoinSet;

fn vxlan() -> Value {
    json!({"provider:network_type": "vxlan"})
}

fn tenants_get_vxlan(config: &mut ServerConfig) {
    config.tenant_network_types = vec![NetworkType::Vxlan];
}

fn ranges(texts: &[&str]) -> Vec<hextet_server::VniRange> {
    let all = texts.iter().map(|text| (*text).to_owned().try_into());
    all.collect::<Result<_, String>>().unwrap()
}

async fn try_network(client: &Client, attributes: Value) -> Answer {
    client.try_create("networks", "network", attributes).await
}

fn host_id(name: &str) -> HostId {
    name.parse().unwrap()
}

fn network_id(network: &Value) -> NetworkId {
    network["id"].as_str().unwrap().parse().unwrap()
}

fn hello(tunnel: Option<&str>) -> StatusReport {
    StatusReport {
        complete: true,
        tunnel_address: tunnel.map(|a| a.parse().unwrap()),
        ..StatusReport::default()
    }
}

async fn number(host: &Host, name: &str) -> u32 {
    let mut told = host.intent().await;
    told.until("its own endpoint", |i| !i.hosts.is_empty())
        .await;
    told.intent.hosts[&host_id(name)].number
}

/// A host that has joined and said its end of tunnels.
async fn host(cloud: &TestCloud, name: &str, tunnel: Option<&str>) -> Host {
    let host = Host::joined(cloud, name).await;
    assert_eq!(host.post("/v1/status", &hello(tunnel)).await.0, 204);
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_gets_what_the_operator_says() {
    let routed = TestCloud::start(StoreKind::Memory).await;
    let network = routed.admin().await.network(json!({})).await;
    assert_eq!(network["provider:network_type"], "routed");
    assert_eq!(network["mtu"], 1500);

    for (version, mtu) in [(6, 1430), (4, 1450)] {
        let cloud = TestCloud::start_with(StoreKind::Memory, |config| {
            tenants_get_vxlan(config);
            config.vni_ranges = ranges(&["500:509", "700:700"]);
            config.overlay_ip_version = version;
        })
        .await;
        let (member, _) = cloud.project("alpha", "member").await;
        let admin = cloud.admin().await;
        let network = member.network(json!({})).await;
        assert_eq!(network["mtu"], mtu, "what tunnels leave of 1500");
        let provider = |n: &Value| {
            let all = n.as_object().unwrap().keys();
            all.filter(|k| k.starts_with("provider:")).count()
        };
        assert_eq!(provider(&network), 0, "{network}");
        let seen = admin.show("networks", &network["id"]).await.ok(200);
        assert_eq!(seen["network"]["provider:network_type"], "vxlan");
        let vni = seen["network"]["provider:segmentation_id"]
            .as_u64()
            .unwrap();
        assert!((500..510).contains(&vni) || vni == 700, "{vni}");
        for asked in [vxlan(), json!({"provider:segmentation_id": 600})] {
            try_network(&member, asked)
                .await
                .refused(403, "PolicyNotAuthorized");
        }
        let routed = admin
            .network(json!({"provider:network_type": "routed"}))
            .await;
        assert_eq!(routed["mtu"], 1500);
        // Nobody says what it is of afterwards.
        let other = json!({"provider:network_type": "routed"});
        let answer = admin
            .update("networks", "network", &network["id"], other)
            .await;
        assert_eq!(answer.status, 400, "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_is_one_network_s_until_it_is_deleted() {
    let cloud = TestCloud::start_with(StoreKind::Redb, |config| {
        config.vni_ranges = ranges(&["10:12"]);
    })
    .await;
    let admin = cloud.admin().await;
    let segment = |n: &Value| n["provider:segmentation_id"].as_u64().unwrap();
    let wanted = json!({"provider:network_type": "vxlan", "provider:segmentation_id": 11});
    let eleven = admin.network(wanted.clone()).await;
    let words = try_network(&admin, wanted.clone())
        .await
        .refused(409, "TunnelIdInUse");
    assert!(words.contains("11"), "{words}");
    let rest = [admin.network(vxlan()).await, admin.network(vxlan()).await];
    let got: BTreeSet<_> = rest.iter().map(segment).collect();
    assert_eq!(got, [10, 12].into());
    try_network(&admin, vxlan())
        .await
        .refused(503, "NoNetworkAvailable");
    // Outside of the ranges an administrator may choose; within a request nothing is given twice.
    let far = json!({"provider:network_type": "vxlan", "provider:segmentation_id": 16_777_215});
    admin.network(far.clone()).await;
    let twice = json!({"networks": [vxlan(), vxlan()]});
    admin.delete("networks", &eleven["id"]).await.ok(204);
    let path = "/networking/v2.0/networks";
    admin
        .post(path, twice.clone())
        .await
        .refused(503, "NoNetworkAvailable");
    admin.delete("networks", &rest[0]["id"]).await.ok(204);
    let both = admin.post(path, twice).await.ok(201);
    let both: BTreeSet<_> = both["networks"]
        .as_array()
        .unwrap()
        .iter()
        .map(segment)
        .collect();
    assert_eq!(both.len(), 2);
    try_network(&admin, far).await.refused(409, "TunnelIdInUse");
    // Also after a restart.
    cloud.server.stop().await.unwrap();
    let again = Server::start(cloud.config.clone()).await.unwrap();
    let client = Client {
        address: again.addresses.clients,
        token: admin.token.clone(),
    };
    try_network(&client, vxlan())
        .await
        .refused(503, "NoNetworkAvailable");
    try_network(&client, wanted)
        .await
        .refused(409, "TunnelIdInUse");
    again.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_want_the_last_segments() {
    for store in [StoreKind::Memory, StoreKind::Redb] {
        let cloud = TestCloud::start_with(store, |config| {
            tenants_get_vxlan(config);
            config.vni_ranges = ranges(&["100:104", "300:304"]);
        })
        .await;
        let admin = cloud.admin().await;
        let mut tasks = JoinSet::new();
        for _ in 0..16 {
            let client = admin.clone();
            tasks.spawn(async move { try_network(&client, json!({})).await });
        }
        let answers = tasks.join_all().await;
        let made = answers.iter().filter(|a| a.status == 201);
        let segments = made.map(|a| a.body["network"]["provider:segmentation_id"].as_u64());
        let segments: Vec<_> = segments.collect();
        assert_eq!(segments.len(), 10);
        assert_eq!(segments.iter().collect::<BTreeSet<_>>().len(), 10);
        for refused in answers.into_iter().filter(|a| a.status != 201) {
            refused.refused(503, "NoNetworkAvailable");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let with = |more: Value| {
        let mut all = vxlan();
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all
    };
    for (attributes, words) in [
        (
            json!({"provider:segmentation_id": 5}),
            "network_type required",
        ),
        (
            json!({"provider:physical_network": "x"}),
            "network_type required",
        ),
        (
            with(json!({"provider:physical_network": "x"})),
            "physical_network",
        ),
        (
            json!({"provider:network_type": "routed", "provider:segmentation_id": 5}),
            "routed",
        ),
        (
            json!({"provider:network_type": "routed", "provider:physical_network": "x"}),
            "routed",
        ),
        (
            with(json!({"provider:segmentation_id": 0})),
            "provider:segmentation_id",
        ),
        (
            with(json!({"provider:segmentation_id": 16_777_216})),
            "provider:segmentation_id",
        ),
        (
            json!({"provider:network_type": "vlan"}),
            "provider:network_type",
        ),
        (with(json!({"mtu": 1431})), "maximum is 1430"),
        (with(json!({"router:external": true})), "router:external"),
        (with(json!({"hextet:single_homed": true})), "single_homed"),
    ] {
        let answer = try_network(&admin, attributes.clone()).await;
        assert_eq!(answer.status, 400, "{attributes}: {}", answer.body);
        let said = answer.body.to_string();
        assert!(said.contains(words), "{attributes}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_routed_networks_refuses_private_ones() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let network = admin.network(vxlan()).await;
    for (change, words) in [
        (json!({"mtu": 1431}), "maximum is 1430"),
        (json!({"router:external": true}), "router:external"),
        (json!({"hextet:single_homed": true}), "single_homed"),
    ] {
        let answer = admin
            .update("networks", "network", &network["id"], change)
            .await;
        let said = answer.refused(400, "InvalidInput");
        assert!(said.contains(words), "{said}");
    }
    let policy = json!({"object_type": "network", "object_id": network["id"],
        "action": "access_as_external", "target_tenant": "*"});
    let answer = admin
        .try_create("rbac-policies", "rbac_policy", policy)
        .await;
    answer.refused(400, "InvalidInput");

    // NAT44 by hosts is for routed networks.
    let routed = admin.network(json!({})).await;
    let pool = admin.subnet(&routed, "192.0.2.0/24", json!({})).await;
    let private = admin.subnet(&network, "10.9.0.0/24", json!({})).await;
    for (network, pool) in [(&network, &pool), (&routed, &private)] {
        let subnet = json!({"network_id": network["id"], "ip_version": 4, "cidr": "10.8.0.0/24",
            "hextet:nat44": {"pool_subnet_id": pool["id"], "addresses_per_host": 1}});
        let answer = admin.try_create("subnets", "subnet", subnet).await;
        let said = answer.refused(400, "InvalidInput");
        assert!(said.contains("hextet:nat44"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subnets_overlap_those_of_other_networks_but_not_their_own() {
    let cloud = TestCloud::start_with(StoreKind::Memory, |config| {
        tenants_get_vxlan(config);
        config.member_prefixes = Vec::new();
    })
    .await;
    let admin = cloud.admin().await;
    let (alpha, _) = cloud.project("alpha", "member").await;
    let (beta, _) = cloud.project("beta", "member").await;
    let routed = admin
        .network(json!({"provider:network_type": "routed"}))
        .await;
    admin.subnet(&routed, "10.0.0.0/16", json!({})).await;
    admin.subnet(&routed, "2001:db8::/64", json!({})).await;
    for member in [&alpha, &beta, &alpha] {
        let network = member.network(json!({})).await;
        // Whatever they choose, and whatever is routed: nobody else hears of it.
        member.subnet(&network, "10.0.0.0/24", json!({})).await;
        member.subnet(&network, "198.51.100.0/24", json!({})).await;
        member.subnet(&network, "2001:db8::/64", slaac()).await;
        let same = json!({"network_id": network["id"], "ip_version": 4, "cidr": "10.0.0.128/25"});
        let answer = member.try_create("subnets", "subnet", same).await;
        assert!(answer.refused(400, "InvalidInput").contains("overlaps"));
        // Without port security, and with pairs of any kind: it is their own network.
        let port = member
            .port(&network, json!({"fixed_ips": [{"ip_address": "10.0.0.9"}]}))
            .await;
        assert_eq!(addresses(&port)[0], "10.0.0.9");
        member
            .port(
                &network,
                json!({"allowed_address_pairs": [{"ip_address": "172.16.0.0/12"}]}),
            )
            .await;
        let open = json!({"port_security_enabled": false, "security_groups": []});
        member.port(&network, open).await;
    }
    // And the other way round: what is private takes no room from what is routed.
    admin.subnet(&routed, "198.51.100.0/24", json!({})).await;
    let same = json!({"network_id": routed["id"], "ip_version": 4, "cidr": "10.0.1.0/24"});
    let answer = admin.try_create("subnets", "subnet", same).await;
    assert!(answer.refused(400, "InvalidInput").contains("overlaps"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_gives_private_networks_what_no_routed_one_has() {
    let cloud = TestCloud::start_with(StoreKind::Memory, tenants_get_vxlan).await;
    let admin = cloud.admin().await;
    let pool = json!({"name": "p", "prefixes": ["2001:db8:8::/62"], "default_prefixlen": 64, "shared": true});
    let pool = admin.create("subnetpools", "subnetpool", pool).await;
    let routed = admin
        .network(json!({"provider:network_type": "routed"}))
        .await;
    admin.subnet(&routed, "2001:db8:8::/64", json!({})).await;
    let (member, _) = cloud.project("alpha", "member").await;
    let mut got = BTreeSet::new();
    for _ in 0..3 {
        let network = member.network(json!({})).await;
        let subnet =
            json!({"network_id": network["id"], "ip_version": 6, "subnetpool_id": pool["id"]});
        let subnet = member.create("subnets", "subnet", subnet).await;
        got.insert(subnet["cidr"].as_str().unwrap().to_owned());
    }
    let rest = [
        "2001:db8:8:1::/64",
        "2001:db8:8:2::/64",
        "2001:db8:8:3::/64",
    ];
    assert_eq!(got, rest.map(str::to_owned).into());
    let network = member.network(json!({})).await;
    let subnet = json!({"network_id": network["id"], "ip_version": 6, "subnetpool_id": pool["id"]});
    let answer = member.try_create("subnets", "subnet", subnet).await;
    answer.refused(409, "SubnetAllocationError");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_tunnels_takes_no_ports_of_private_networks() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let network = admin.network(vxlan()).await;
    admin.subnet(&network, "10.0.0.0/24", json!({})).await;
    let plugged = async |port: &Value| {
        let port = admin.show("ports", &port["id"]).await.ok(200)["port"].clone();
        (
            port["binding:vif_type"].clone(),
            port["binding:vif_details"] == json!({}),
        )
    };
    let failed = (json!("binding_failed"), true);
    let lost = admin
        .port(&network, json!({"binding:host_id": "nowhere"}))
        .await;
    assert_eq!(plugged(&lost).await, failed);
    let h1 = host(&cloud, "h1", None).await;
    let mut told = h1.intent().await;
    let port = admin.port(&network, json!({"binding:host_id": "h1"})).await;
    assert_eq!(plugged(&port).await, failed);
    told.until("nothing", |i| i.ports.is_empty()).await;
    assert_eq!(
        h1.post("/v1/status", &hello(Some("2001:db8::1"))).await.0,
        204
    );
    told.until("the port", |i| i.ports.len() == 1 && i.hosts.len() == 1)
        .await;
    assert_eq!(plugged(&port).await, (json!("tap"), false));
    let agents = admin.get("/networking/v2.0/agents?host=h1").await.ok(200);
    let shown = &agents["agents"][0]["configurations"];
    assert_eq!(shown["tunneling_ip"], "2001:db8::1");
    assert_eq!(shown["tunnel_types"], json!(["vxlan"]));
    // What is not complete says nothing of it.
    let part = StatusReport::default();
    assert_eq!(h1.post("/v1/status", &part).await.0, 204);
    assert_eq!(plugged(&port).await, (json!("tap"), false));
    assert_eq!(h1.post("/v1/status", &hello(None)).await.0, 204);
    told.until("nothing again", |i| *i == Intent::default())
        .await;
    assert_eq!(plugged(&port).await, failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_s_end_of_tunnels_is_its_own_and_of_the_cloud_s_family() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let _h1 = host(&cloud, "h1", Some("2001:db8::1")).await;
    let h2 = host(&cloud, "h2", Some("2001:db8::2")).await;
    // A second family, and another host's address, are refused; the rest of the report counts.
    for (address, words) in [
        ("192.0.2.1", "overlay_ip_version"),
        ("2001:db8::1", "host h1"),
    ] {
        let mut report = hello(Some(address));
        report.version = "said".to_owned();
        let (status, said) = h2.post("/v1/status", &report).await;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(status, 409, "{said}");
        assert!(
            said.contains(words) && said.contains("tunnel_address"),
            "{said}"
        );
        let agents = admin.get("/networking/v2.0/agents?host=h2").await.ok(200);
        let shown = &agents["agents"][0]["configurations"];
        assert_eq!(
            (&shown["version"], &shown["tunneling_ip"]),
            (&json!("said"), &json!("2001:db8::2"))
        );
    }
    for nobody in ["ff02::1", "fe80::1", "::"] {
        assert_eq!(
            h2.post("/v1/status", &hello(Some(nobody))).await.0,
            400,
            "{nobody}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_has_a_number_of_its_own_for_ever() {
    let cloud = TestCloud::start_with(StoreKind::Redb, tenants_get_vxlan).await;
    let admin = cloud.admin().await;
    let h1 = host(&cloud, "h1", Some("2001:db8::1")).await;
    let h2 = host(&cloud, "h2", Some("2001:db8::2")).await;
    let (first, second) = (number(&h1, "h1").await, number(&h2, "h2").await);
    assert!(first != second && first != 0 && second != 0);
    // Another address, the agent deleted and joined again, another server: the number stays.
    assert_eq!(
        h1.post("/v1/status", &hello(Some("2001:db8::11"))).await.0,
        204
    );
    assert_eq!(number(&h1, "h1").await, first);
    assert_eq!(
        h2.post("/v1/status", &hello(Some("2001:db8::1"))).await.0,
        204,
        "it is free"
    );
    let agents = admin.get("/networking/v2.0/agents?host=h2").await.ok(200);
    let id = agents["agents"][0]["id"].clone();
    admin.delete("agents", &id).await.ok(204);
    let h3 = host(&cloud, "h3", Some("2001:db8::1")).await;
    let third = number(&h3, "h3").await;
    assert!(third != first && third != second);
    let mut h2 = Host::new(&cloud).await;
    assert_eq!(h2.join(&token(&cloud, Some("h2")).await, "h2").await, 200);
    assert_eq!(
        h2.post("/v1/status", &hello(Some("2001:db8::2"))).await.0,
        204
    );
    assert_eq!(number(&h2, "h2").await, second);
    cloud.server.stop().await.unwrap();
    let mut config = cloud.config.clone();
    config.overlay_ip_version = 4;
    let again = Server::start(config).await.unwrap();
    h2.address = again.addresses.agents;
    // What was said in the other family does not count any more.
    assert_eq!(
        h2.post("/v1/status", &hello(Some("2001:db8::2"))).await.0,
        409
    );
    let mut told = h2.intent().await;
    told.until("an intent", |i| i.hosts.is_empty()).await;
    assert_eq!(
        h2.post("/v1/status", &hello(Some("192.0.2.2"))).await.0,
        204
    );
    assert_eq!(number(&h2, "h2").await, second);
    again.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_come_at_once_share_neither_number_nor_address() {
    let cloud = TestCloud::start(StoreKind::Redb).await;
    let names: Vec<_> = (1..=8).map(|n| format!("h{n}")).collect();
    let mut hosts = Vec::new();
    for name in &names {
        hosts.push(Arc::new(Host::joined(&cloud, name).await));
    }
    let at_once = async |address: &dyn Fn(usize) -> String| {
        let mut tasks = JoinSet::new();
        for (n, host) in hosts.iter().enumerate() {
            let (host, report) = (Arc::clone(host), hello(Some(&address(n))));
            tasks.spawn(async move { host.post("/v1/status", &report).await.0 });
        }
        let mut all = tasks.join_all().await;
        all.sort_unstable();
        all
    };
    let all_want = at_once(&|_| "2001:db8::99".to_owned()).await;
    assert_eq!(all_want, [204, 409, 409, 409, 409, 409, 409, 409]);
    assert_eq!(at_once(&|n| format!("2001:db8::{n}:1")).await, [204; 8]);
    let mut numbers = BTreeSet::new();
    for (name, host) in names.iter().zip(&hosts) {
        numbers.insert(number(host, name).await);
    }
    assert_eq!(numbers.len(), hosts.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_keeps_its_mtu_when_tunnels_carry_less() {
    let cloud =
        TestCloud::start_with(StoreKind::Redb, |config| config.overlay_ip_version = 4).await;
    let admin = cloud.admin().await;
    let network = admin.network(vxlan()).await;
    cloud.server.stop().await.unwrap();
    let mut config = cloud.config.clone();
    config.overlay_ip_version = 6;
    let again = Server::start(config).await.unwrap();
    let client = Client {
        address: again.addresses.clients,
        token: admin.token.clone(),
    };
    let set = async |attributes: Value| {
        let answer = client.update("networks", "network", &network["id"], attributes);
        answer.await
    };
    let renamed = set(json!({"name": "n"})).await.ok(200);
    assert_eq!(renamed["network"]["mtu"], 1450);
    set(json!({"mtu": 1440})).await.refused(400, "InvalidInput");
    set(json!({"mtu": 1430})).await.ok(200);
    again.stop().await.unwrap();
}

/// Two networks with the same addresses, and three hosts.
struct World {
    cloud: TestCloud,
    admin: Client,
    networks: [Value; 2],
    told: Vec<Stream>,
    group: Value,
}

impl World {
    async fn new() -> World {
        let cloud = TestCloud::start(StoreKind::Memory).await;
        let admin = cloud.admin().await;
        let networks = [admin.network(vxlan()).await, admin.network(vxlan()).await];
        for network in &networks {
            admin.subnet(network, "10.0.0.0/24", json!({})).await;
            admin.subnet(network, "2001:db8::/64", slaac()).await;
        }
        let mut told = Vec::new();
        for n in 1..=3 {
            let host = host(&cloud, &format!("h{n}"), Some(&format!("2001:db8:f::{n}"))).await;
            told.push(host.intent().await);
        }
        let group = admin
            .create("security-groups", "security_group", json!({"name": "g"}))
            .await;
        let rule = json!({"security_group_id": group["id"], "direction": "ingress",
            "remote_group_id": group["id"]});
        admin
            .create("security-group-rules", "security_group_rule", rule)
            .await;
        World {
            cloud,
            admin,
            networks,
            told,
            group,
        }
    }

    async fn port(&self, network: usize, host: &str, address: &str) -> Value {
        let port = json!({"binding:host_id": host, "security_groups": [self.group["id"]],
            "fixed_ips": [{"ip_address": address}]});
        self.admin.port(&self.networks[network], port).await
    }
}

fn all(port: &Value) -> BTreeSet<IpAddr> {
    addresses(port).iter().map(|a| a.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_told_of_the_networks_of_their_ports_and_of_nothing_else() {
    let mut world = World::new().await;
    let ids = [0, 1].map(|n| network_id(&world.networks[n]));
    let a1 = world.port(0, "h1", "10.0.0.5").await;
    let b1 = world.port(1, "h1", "10.0.0.5").await;
    let a2 = world.port(0, "h2", "10.0.0.6").await;
    let [h1, h2, h3] = world.told.as_mut_slice() else {
        panic!("three hosts")
    };
    let at_h2 = |i: &Intent| {
        i.remotes
            .values()
            .map(std::collections::BTreeMap::len)
            .sum::<usize>()
    };
    h1.until("what is on h2", |i| i.ports.len() == 2 && at_h2(i) == 2)
        .await;
    let intent = &h1.intent;
    assert_eq!((intent.networks.len(), intent.subnets.len()), (2, 4));
    let of_a2: BTreeSet<_> = intent.remotes[&ids[0]].keys().copied().collect();
    assert_eq!(of_a2, all(&a2));
    assert_eq!(intent.hosts.len(), 2);
    assert_eq!(
        intent.hosts[&host_id("h2")].address,
        "2001:db8:f::2".parse::<IpAddr>().unwrap()
    );
    // Who is a member in one network is nobody in the other.
    let group = world.group["id"].as_str().unwrap().parse().unwrap();
    let members = |n: usize| intent.members[&(group, RoutingDomain::Network(ids[n]))].clone();
    assert_eq!(members(0), &all(&a1) | &all(&a2));
    assert_eq!(members(1), all(&b1));

    h2.until("what is on h1", |i| i.ports.len() == 1 && at_h2(i) == 2)
        .await;
    assert_eq!((h2.intent.networks.len(), h2.intent.subnets.len()), (1, 2));
    assert!(
        !h2.intent
            .members
            .contains_key(&(group, RoutingDomain::Network(ids[1])))
    );
    h3.until("an intent", |i| !i.hosts.is_empty()).await;
    assert_eq!(
        (
            h3.intent.networks.len(),
            h3.intent.subnets.len(),
            h3.intent.hosts.len()
        ),
        (0, 0, 1)
    );
    world.cloud.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_moves_is_told_to_all_hosts_of_its_network() {
    let mut world = World::new().await;
    let id = network_id(&world.networks[0]);
    world.port(0, "h1", "10.0.0.5").await;
    let a2 = world.port(0, "h2", "10.0.0.6").await;
    let [h1, h2, h3] = world.told.as_mut_slice() else {
        panic!("three hosts")
    };
    let elsewhere = |i: &Intent| i.remotes.get(&id).map_or(0, |all| all.len());
    h1.until("what is on h2", |i| elsewhere(i) == 2).await;
    h2.until("what is on h1", |i| elsewhere(i) == 2).await;
    // The third host is told all of the network; the second is told nothing more of it.
    let there = json!({"binding:host_id": "h3"});
    world
        .admin
        .update("ports", "port", &a2["id"], there)
        .await
        .ok(200);
    h1.until("it is on h3", |i| {
        i.remotes
            .get(&id)
            .is_some_and(|all| all.values().all(|h| *h == host_id("h3")))
    })
    .await;
    assert!(!h1.intent.hosts.contains_key(&host_id("h2")));
    h3.until("what is on h1", |i| i.ports.len() == 1 && elsewhere(i) == 2)
        .await;
    h2.until("nothing", |i| i.networks.is_empty()).await;
    assert!(
        h2.intent.subnets.is_empty() && h2.intent.remotes.is_empty() && h2.intent.hosts.len() == 1
    );
    world.admin.delete("ports", &a2["id"]).await.ok(204);
    h1.until("nothing is elsewhere", |i| {
        i.remotes.is_empty() && i.hosts.len() == 1
    })
    .await;
    world.cloud.server.stop().await.unwrap();
}

/// What is there already comes to have both families, whichever is added later, and its host is told.
#[tokio::test(flavor = "multi_thread")]
async fn later_subnets_give_addresses_to_ports_that_lack_the_family() {
    let cloud = TestCloud::start_with(StoreKind::Redb, tenants_get_vxlan).await;
    let (member, _) = cloud.project("alpha", "member").await;
    let admin = cloud.admin().await;
    let agent = host(&cloud, "h1", Some("2001:db8::1")).await;
    let mut told = agent.intent().await;
    let network = member.network(json!({})).await;
    member.subnet(&network, "fd00:1::/64", slaac()).await;
    let port = member.port(&network, json!({})).await;
    let bound = json!({"binding:host_id": "h1"});
    admin
        .update("ports", "port", &port["id"], bound)
        .await
        .ok(200);
    let others = [
        member.port(&network, json!({})).await,
        member.port(&network, json!({})).await,
    ];
    let first = member.subnet(&network, "10.0.0.0/29", json!({})).await;
    let show = async |port: &Value| -> Value {
        let shown = member.show("ports", &port["id"]).await.ok(200);
        shown["port"].clone()
    };
    let seen = show(&port).await;
    assert_eq!(addresses(&seen).len(), 2, "{seen}");
    assert_eq!(seen["revision_number"], json!(3));
    for other in &others {
        assert_eq!(addresses(&show(other).await).len(), 2);
    }
    let wanted = all(&seen);
    let knows = |i: &Intent| {
        let mut ports = i.ports.values();
        ports.any(|p| {
            p.fixed_ips
                .iter()
                .map(|f| f.ip_address)
                .collect::<BTreeSet<_>>()
                == wanted
        })
    };
    told.until("both families", knows).await;
    // A second IPv4 subnet, or one that is for others, is for those who ask.
    member.subnet(&network, "10.0.1.0/24", json!({})).await;
    assert_eq!(addresses(&show(&port).await).len(), 2);
    member
        .delete("subnets", &first["id"])
        .await
        .refused(409, "SubnetInUse");
    // The other way round, by SLAAC.
    let network = member.network(json!({})).await;
    member.subnet(&network, "10.0.0.0/29", json!({})).await;
    let port = member.port(&network, json!({})).await;
    member.subnet(&network, "fd00:2::/64", slaac()).await;
    assert_eq!(addresses(&show(&port).await).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_subnet_gives_what_it_has() {
    let cloud = TestCloud::start_with(StoreKind::Memory, tenants_get_vxlan).await;
    let (member, _) = cloud.project("alpha", "member").await;
    let network = member.network(json!({})).await;
    member.subnet(&network, "fd00:1::/64", slaac()).await;
    for _ in 0..3 {
        member.port(&network, json!({})).await;
    }
    // Two are free besides the router's.
    let subnet = json!({"allocation_pools": [{"start": "10.0.0.2", "end": "10.0.0.3"}]});
    member.subnet(&network, "10.0.0.0/29", subnet).await;
    let ports = member.get("/networking/v2.0/ports").await.ok(200);
    let ports = ports["ports"].as_array().unwrap().clone();
    let mut counts: Vec<_> = ports.iter().map(|p| addresses(p).len()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2, 2]);
}
