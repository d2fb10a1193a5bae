//! Metering labels and their rules, over a real listener.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;
mod layer3;

use hextet_model::intent::Intent;
use hextet_server::StoreKind;
use serde_json::{Value, json};

use cloud::{Answer, Client, TestCloud, host::Host};
use layer3::{World, add, host, port_on, router_id};

const LABELS: &str = "metering/metering-labels";
const RULES: &str = "metering/metering-label-rules";

async fn label(client: &Client, body: Value) -> Value {
    client.create(LABELS, "metering_label", body).await
}

async fn rule(client: &Client, label: &Value, body: Value) -> Answer {
    let mut body = body;
    body["metering_label_id"] = label["id"].clone();
    client.try_create(RULES, "metering_label_rule", body).await
}

async fn count(client: &Client, path: &str, what: &str) -> usize {
    let listed = client
        .get(&format!("/networking/v2.0/{path}"))
        .await
        .ok(200);
    listed[what].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_rules_are_made_and_deleted() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = &cloud.admin().await;
    let made = label(admin, json!({"name": "all", "description": "d"})).await;
    let expected = json!({
        "id": made["id"], "name": "all", "description": "d", "shared": false,
        "project_id": made["project_id"], "tenant_id": made["project_id"],
    });
    assert_eq!(made, expected);
    let body = json!({"direction": "ingress", "remote_ip_prefix": "10.0.0.5"});
    let answer = rule(admin, &made, body).await.ok(201);
    let shown = &answer["metering_label_rule"];
    let expected = json!({
        "id": shown["id"], "metering_label_id": made["id"], "direction": "ingress",
        "excluded": false, "remote_ip_prefix": "10.0.0.5/32",
        "source_ip_prefix": null, "destination_ip_prefix": null,
        "project_id": made["project_id"], "tenant_id": made["project_id"],
    });
    assert_eq!(*shown, expected);
    let both = json!({
        "direction": "egress", "excluded": "true",
        "source_ip_prefix": "fd00::/8", "destination_ip_prefix": "2001:db8::/32",
    });
    rule(admin, &made, both).await.ok(201);
    assert_eq!(count(admin, RULES, "metering_label_rules").await, 2);
    let of = format!("{RULES}?direction=egress&excluded=true");
    assert_eq!(count(admin, &of, "metering_label_rules").await, 1);
    let one = format!("/networking/v2.0/{RULES}/{}", shown["id"].as_str().unwrap());
    let answer = admin
        .send(
            "PUT",
            &one,
            Some(json!({"metering_label_rule": {"excluded": true}})),
        )
        .await;
    assert_eq!(answer.status, 405);
    admin.delete(RULES, &shown["id"]).await.ok(204);
    admin
        .get(&one)
        .await
        .refused(404, "MeteringLabelRuleNotFound");
    admin.delete(LABELS, &made["id"]).await.ok(204);
    admin
        .delete(LABELS, &made["id"])
        .await
        .refused(404, "MeteringLabelNotFound");
    assert_eq!(count(admin, RULES, "metering_label_rules").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = &cloud.admin().await;
    let made = label(admin, json!({})).await;
    let other = label(admin, json!({})).await;
    let table = [
        (json!({"direction": "egress"}), "Invalid", "at least one of"),
        (
            json!({"direction": "egress", "remote_ip_prefix": "10.0.0.0/8", "source_ip_prefix": "10.0.0.0/8"}),
            "Invalid",
            "in conjunction",
        ),
        (
            json!({"direction": "egress", "source_ip_prefix": "10.0.0.0/8", "destination_ip_prefix": "::/0"}),
            "Invalid",
            "two families",
        ),
        (
            json!({"direction": "both", "remote_ip_prefix": "::/0"}),
            "HTTPBadRequest",
            "direction",
        ),
        (
            json!({"direction": "egress", "remote_ip_prefix": "10.0.0.0/33"}),
            "InvalidCIDR",
            "10.0.0.0/33",
        ),
        (
            json!({"remote_ip_prefix": "::/0"}),
            "HTTPBadRequest",
            "direction",
        ),
    ];
    for (body, kind, words) in table {
        let answer = rule(admin, &made, body.clone()).await;
        let said = answer.refused(400, kind);
        assert!(said.contains(words), "{body}: {said}");
    }
    let prefix = |text: &str, excluded| json!({"direction": "egress", "remote_ip_prefix": text, "excluded": excluded});
    rule(admin, &made, prefix("10.0.0.0/8", false))
        .await
        .ok(201);
    let words = rule(admin, &made, prefix("10.1.0.0/16", false)).await;
    let words = words.refused(409, "MeteringLabelRuleOverlaps");
    assert!(words.contains("'10.1.0.0/16' overlaps another"), "{words}");
    rule(admin, &made, prefix("10.1.0.0/16", true))
        .await
        .ok(201);
    rule(admin, &made, prefix("fd00::/8", false)).await.ok(201);
    rule(admin, &other, prefix("10.1.0.0/16", false))
        .await
        .ok(201);
    // Two in one request, of which the second overlaps the first: neither is there.
    let twice: Vec<Value> = ["172.16.0.0/12", "172.16.0.1"]
        .map(|text| {
            let mut body = prefix(text, false);
            body["metering_label_id"] = other["id"].clone();
            body
        })
        .to_vec();
    let path = format!("/networking/v2.0/{RULES}");
    let bulk = admin
        .post(&path, json!({"metering_label_rules": twice}))
        .await;
    bulk.refused(409, "MeteringLabelRuleOverlaps");
    assert_eq!(count(admin, RULES, "metering_label_rules").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_an_administrators_and_a_project_sees_its_own() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = &cloud.admin().await;
    let (user, project) = cloud.project("alpha", "member").await;
    let (stranger, _) = cloud.project("beta", "member").await;
    let made = label(admin, json!({"name": "theirs", "project_id": project})).await;
    let shared = label(admin, json!({"name": "everybody's", "shared": true})).await;
    let body = json!({"direction": "egress", "source_ip_prefix": "::/0"});
    rule(admin, &made, body.clone()).await.ok(201);
    for (client, seen) in [(&user, 1), (&stranger, 0), (admin, 2)] {
        assert_eq!(count(client, LABELS, "metering_labels").await, seen);
    }
    assert_eq!(count(&user, RULES, "metering_label_rules").await, 1);
    assert_eq!(count(&stranger, RULES, "metering_label_rules").await, 0);
    let path = |id: &Value| format!("/networking/v2.0/{LABELS}/{}", id.as_str().unwrap());
    user.get(&path(&shared["id"]))
        .await
        .refused(404, "MeteringLabelNotFound");
    user.get(&path(&made["id"])).await.ok(200);
    assert_eq!(
        user.try_create(LABELS, "metering_label", json!({}))
            .await
            .status,
        403
    );
    assert_eq!(rule(&user, &made, body).await.status, 403);
    assert_eq!(user.delete(LABELS, &made["id"]).await.status, 403);
    stranger
        .delete(LABELS, &made["id"])
        .await
        .refused(404, "MeteringLabelNotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_bound_them() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = &cloud.admin().await;
    let made = label(admin, json!({})).await;
    let project = made["project_id"].as_str().unwrap();
    let path = format!("/networking/v2.0/quotas/{project}");
    let limits = json!({"quota": {"metering_label": 1, "metering_label_rule": 1}});
    admin.send("PUT", &path, Some(limits)).await.ok(200);
    let words = admin.try_create(LABELS, "metering_label", json!({})).await;
    assert!(words.refused(409, "OverQuota").contains("metering_label"));
    let body = |text: &str| json!({"direction": "egress", "source_ip_prefix": text});
    rule(admin, &made, body("10.0.0.0/8")).await.ok(201);
    rule(admin, &made, body("::/0"))
        .await
        .refused(409, "OverQuota");
}

const SUMS: &str = "/networking/v2.0/metering/metering-label-sums";

fn reading(label: &Value, router: &Value, more: Value) -> Value {
    let mut reading = json!({
        "label": label["id"], "router": router["id"], "direction": "egress",
        "epoch": {"boot": "00000000-0000-4000-8000-000000000001", "counter": [1, 2, 3]},
        "at_ns": 1000, "packets": 5, "octets": 500,
    });
    for (key, value) in more.as_object().unwrap() {
        reading[key] = value.clone();
    }
    reading
}

async fn tell(host: &Host, readings: &[Value]) -> u16 {
    let report = json!({"readings": readings});
    host.post("/v1/metered", &report).await.0
}

/// Of each host and direction: packets and octets.
async fn sums(client: &Client, query: &str) -> Vec<(String, String, u64, u64)> {
    let listed = client.get(&format!("{SUMS}{query}")).await.ok(200);
    let rows = listed["metering_label_sums"].as_array().unwrap();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    rows.iter()
        .map(|row| {
            let (packets, octets) = (
                row["packets"].as_u64().unwrap(),
                row["octets"].as_u64().unwrap(),
            );
            (text(row, "host"), text(row, "direction"), packets, octets)
        })
        .collect()
}

fn row(host: &str, direction: &str, packets: u64) -> (String, String, u64, u64) {
    (
        host.to_owned(),
        direction.to_owned(),
        packets,
        packets * 100,
    )
}

const BOOT: &str = "00000000-0000-4000-8000-000000000001";

/// Two hosts that have counted for a label of a project: the first 10 packets out, by two counters one after the other,
/// and 5 in; the second 5 out.
struct Counted {
    cloud: TestCloud,
    admin: Client,
    user: Client,
    label: Value,
    router: Value,
    first: Host,
}

impl Counted {
    async fn start() -> Counted {
        let cloud = TestCloud::start(StoreKind::Redb).await;
        let admin = cloud.admin().await;
        let (user, project) = cloud.project("alpha", "member").await;
        let made = label(&admin, json!({"name": "theirs", "project_id": project})).await;
        let router = user.create("routers", "router", json!({"name": "r"})).await;
        let first = Host::joined(&cloud, "h1").await;
        let second = Host::joined(&cloud, "h2").await;
        let read = |more| reading(&made, &router, more);
        let one = read(json!({}));
        let more = read(json!({"packets": 8, "octets": 800, "at_ns": 2000}));
        let in_too = read(json!({"direction": "ingress"}));
        assert_eq!(tell(&first, &[one.clone(), in_too]).await, 204);
        assert_eq!(tell(&first, std::slice::from_ref(&more)).await, 204);
        assert_eq!(tell(&first, &[one.clone(), more]).await, 204, "told again");
        // Of a counter before, and of the one in its place, in one report.
        let anew = json!({"boot": BOOT, "counter": [1, 2, 4]});
        let last = read(json!({"packets": 9, "octets": 900, "at_ns": 3000}));
        let next = read(json!({"packets": 1, "octets": 100, "at_ns": 4000, "epoch": anew}));
        assert_eq!(tell(&first, &[last, next]).await, 204);
        assert_eq!(tell(&second, &[one]).await, 204);
        Counted {
            cloud,
            admin,
            user,
            label: made,
            router,
            first,
        }
    }

    fn read(&self, more: Value) -> Value {
        reading(&self.label, &self.router, more)
    }

    async fn sums(&self) -> Vec<(String, String, u64, u64)> {
        let mut sums = sums(&self.admin, "").await;
        sums.sort();
        sums
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hosts_count_adds_up() {
    let c = Counted::start().await;
    // A label of another project, and a router that nobody knows, count nothing.
    let own = label(&c.admin, json!({"name": "the administrator's"})).await;
    let foreign = reading(&own, &c.router, json!({}));
    let nobody = json!({"id": "00000000-0000-4000-8000-0000000000aa"});
    let unknown = reading(&c.label, &nobody, json!({}));
    assert_eq!(tell(&c.first, &[foreign, unknown]).await, 204);
    let expected = [
        row("h1", "egress", 10),
        row("h1", "ingress", 5),
        row("h2", "egress", 5),
    ];
    assert_eq!(c.sums().await, expected);
    let many = vec![c.read(json!({})); 1_001];
    assert_eq!(tell(&c.first, &many).await, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_are_read_by_api_socket_and_metrics() {
    let c = Counted::start().await;
    let ingress = sums(&c.admin, "?direction=ingress").await;
    assert_eq!(ingress, [row("h1", "ingress", 5)]);
    let theirs = sums(&c.user, "").await;
    assert_eq!(theirs.len(), 3);
    assert!(
        theirs.iter().all(|(host, ..)| host.is_empty()),
        "hosts are the administrator's"
    );
    let (stranger, _) = c.cloud.project("beta", "member").await;
    assert_eq!(sums(&stranger, "").await, []);
    let asked = hextet_server::admin::metered(&c.cloud.config)
        .await
        .unwrap();
    assert_eq!(asked.iter().map(|m| m.packets).sum::<u64>(), 20);
    assert!(asked.iter().all(|m| m.is_of("theirs") && !m.is_of("other")));
    let metrics = Client {
        address: c.cloud.server.addresses.metrics,
        token: None,
    };
    let text = metrics.get("/metrics").await.body;
    let line = format!(
        "hextet_server_metered_octets_total{{label=\"{}\",direction=\"egress\"}} 1500",
        c.label["id"].as_str().unwrap()
    );
    assert!(text.as_str().unwrap().contains(&line), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_outlast_the_server_the_host_s_start_and_the_router() {
    let mut c = Counted::start().await;
    c.cloud.server.stop().await.unwrap();
    c.cloud.server = hextet_server::Server::start(c.cloud.config.clone())
        .await
        .unwrap();
    c.first.address = c.cloud.server.addresses.agents;
    c.admin = c.cloud.admin().await;
    let read = |more| reading(&c.label, &c.router, more);
    let same = json!({"boot": BOOT, "counter": [1, 2, 4]});
    let next = read(json!({"packets": 3, "octets": 300, "at_ns": 5000, "epoch": same}));
    assert_eq!(tell(&c.first, &[next]).await, 204);
    assert_eq!(c.sums().await[0], row("h1", "egress", 12));
    // The last of a router that is gone counts, too.
    let gone = c.admin.delete("routers", &c.router["id"]).await;
    gone.ok(204);
    let started = json!({"boot": "00000000-0000-4000-8000-000000000002", "counter": [1, 1, 1]});
    let next = read(json!({"packets": 2, "octets": 200, "epoch": started}));
    assert_eq!(tell(&c.first, &[next]).await, 204);
    assert_eq!(c.sums().await[0], row("h1", "egress", 14));
    // Also of one of which nothing was told while it was there.
    let short = c.user.clone();
    let short = Client {
        address: c.admin.address,
        ..short
    };
    let brief = short.create("routers", "router", json!({})).await;
    short.delete("routers", &brief["id"]).await.ok(204);
    let only = reading(&c.label, &brief, json!({"packets": 1, "octets": 100}));
    assert_eq!(tell(&c.first, &[only]).await, 204);
    let query = format!("?router_id={}", brief["id"].as_str().unwrap());
    assert_eq!(sums(&c.admin, &query).await, [row("h1", "egress", 1)]);
    c.admin.delete(LABELS, &c.label["id"]).await.ok(204);
    assert_eq!(sums(&c.admin, "").await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_told_of_their_routers_labels() {
    let world = World::start().await;
    let admin = &world.admin;
    let (_h1, mut stream) = host(&world.cloud, "h1", "2001:db8::1").await;
    let (network, subnets) = world.inside(&["10.0.0.0/24"]).await;
    port_on(&world, &network, "h1").await;
    let edge = world.router().await;
    add(&world.user, &edge, &subnets[0]).await.ok(200);
    let meters = |intent: &Intent| {
        let told = intent.routers.get(&router_id(&edge));
        told.map(|r| {
            r.meters
                .values()
                .map(std::collections::BTreeSet::len)
                .collect::<Vec<_>>()
        })
    };
    stream
        .until("the router", |i| meters(i) == Some(vec![]))
        .await;
    let own = label(admin, json!({"project_id": world.project})).await;
    let shared = label(admin, json!({"shared": true})).await;
    let foreign = label(admin, json!({})).await;
    let remote = json!({"direction": "ingress", "remote_ip_prefix": "10.0.0.0/24"});
    for made in [&own, &shared, &foreign] {
        rule(admin, made, remote.clone()).await.ok(201);
    }
    stream
        .until("two labels", |i| meters(i) == Some(vec![1, 1]))
        .await;
    let told = &stream.intent.routers[&router_id(&edge)].meters;
    let first = told.values().next().unwrap().first().unwrap();
    let prefix = "10.0.0.0/24".parse().unwrap();
    assert_eq!((first.source, first.destination), (None, Some(prefix)));
    let egress = json!({"direction": "egress", "remote_ip_prefix": "10.0.0.0/24"});
    rule(admin, &own, egress).await.ok(201);
    let three = |i: &Intent| meters(i).is_some_and(|m| m.iter().sum::<usize>() == 3);
    stream.until("another rule", three).await;
    let own_id = own["id"].as_str().unwrap().parse().unwrap();
    let told = &stream.intent.routers[&router_id(&edge)].meters[&own_id];
    assert!(
        told.iter()
            .any(|r| r.source == Some(prefix) && r.destination.is_none())
    );
    admin.delete(LABELS, &shared["id"]).await.ok(204);
    stream
        .until("one label", |i| meters(i) == Some(vec![2]))
        .await;
    admin.delete(LABELS, &own["id"]).await.ok(204);
    stream.until("none", |i| meters(i) == Some(vec![])).await;
}
