//! Bindings of ports on several hosts: as Nova makes them, and what hosts are told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;

use std::{net::IpAddr, sync::Arc};

use cloud::{Answer, Client, TestCloud, host::Host};
use hextet_api::agent::{Heard, PortState, StatusReport};
use hextet_model::{intent::Intent, neutron::NetworkType};
use hextet_server::StoreKind;
use hextet_store::Store;
use hextet_types::{HostId, NetworkId, PortId};
use serde_json::{Value, json};

struct Migration {
    cloud: TestCloud,
    admin: Client,
    port: Value,
}

fn host_id(name: &str) -> HostId {
    name.parse().unwrap()
}

fn path(port: &Value, rest: &str) -> String {
    format!(
        "/networking/v2.0/ports/{}/bindings{rest}",
        port["id"].as_str().unwrap()
    )
}

/// A private network with a server's port on h1.
async fn migration() -> Migration {
    let cloud = TestCloud::start_with(StoreKind::Memory, |config| {
        config.tenant_network_types = vec![NetworkType::Vxlan];
    })
    .await;
    let admin = cloud.admin().await;
    let network = admin.network(json!({})).await;
    let subnet = json!({"network_id": network["id"], "ip_version": 4, "cidr": "10.0.0.0/24"});
    admin.create("subnets", "subnet", subnet).await;
    let port = admin
        .create(
            "ports",
            "port",
            json!({"network_id": network["id"], "device_owner": "compute:nova",
                "device_id": "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d"}),
        )
        .await;
    Migration { cloud, admin, port }
}

impl Migration {
    async fn host(&self, n: u8) -> Host {
        let host = Host::joined(&self.cloud, &format!("h{n}")).await;
        let report = StatusReport {
            complete: true,
            tunnel_address: Some(format!("2001:db8:f::{n}").parse().unwrap()),
            ..StatusReport::default()
        };
        assert_eq!(host.post("/v1/status", &report).await.0, 204);
        host
    }

    async fn update(&self, attributes: Value) -> Value {
        let answer = self
            .admin
            .update("ports", "port", &self.port["id"], attributes)
            .await;
        answer.ok(200)["port"].clone()
    }

    async fn show(&self) -> Value {
        self.admin.show("ports", &self.port["id"]).await.ok(200)["port"].clone()
    }

    async fn bind(&self, body: Value) -> Answer {
        let body = json!({"binding": body});
        self.admin.post(&path(&self.port, ""), body).await
    }

    async fn send(&self, method: &str, rest: &str, body: Option<Value>) -> Answer {
        self.admin.send(method, &path(&self.port, rest), body).await
    }

    /// Hosts, each with the status of its binding.
    async fn bindings(&self, query: &str) -> Vec<(String, String)> {
        let all = self.send("GET", query, None).await.ok(200);
        let text = |b: &Value, key: &str| b[key].as_str().unwrap().to_owned();
        let all = all["bindings"].as_array().unwrap().iter();
        all.map(|b| (text(b, "host"), text(b, "status"))).collect()
    }

    async fn until_status(&self, status: &str) {
        let reached = async {
            while self.show().await["status"] != status {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(cloud::PATIENCE, reached).await;
        waited.unwrap_or_else(|_| panic!("never {status}"));
    }
}

fn report(port: &Value, state: PortState) -> StatusReport {
    let id: PortId = port["id"].as_str().unwrap().parse().unwrap();
    StatusReport {
        ports: [(id, state)].into(),
        ..StatusReport::default()
    }
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
    own.collect()
}

/// A server runs on h1, and h2 is prepared for it; the order of requests is that of a real Nova's log.
async fn prepared(h1: &Host, m: &Migration) {
    m.update(json!({"binding:host_id": "h1"})).await;
    h1.post("/v1/status", &report(&m.port, PortState::Active))
        .await;
    m.until_status("ACTIVE").await;

    let asked =
        json!({"host": "h2", "vnic_type": "normal", "profile": {"os_vif_delegation": true}});
    let made = m.bind(asked.clone()).await.ok(201)["binding"].clone();
    assert_eq!(made["status"], "INACTIVE");
    assert_eq!(made["vif_type"], "tap");
    assert_eq!(made["vif_details"]["port_filter"], true);
    assert_eq!(made["profile"], json!({"os_vif_delegation": true}));
    assert_eq!(made["project_id"], m.port["project_id"]);
    m.bind(asked).await.refused(409, "PortBindingAlreadyExists");
    m.bind(json!({"host": "h1"}))
        .await
        .refused(409, "PortBindingAlreadyExists");
    let migrating = json!({"os_vif_delegation": true, "migrating_to": "h2"});
    m.update(json!({"binding:profile": migrating})).await;
    let both = pairs(&[("h1", "ACTIVE"), ("h2", "INACTIVE")]);
    assert_eq!(m.bindings("").await, both);
    assert_eq!(m.bindings("?host=h2").await, both[1..]);
    assert_eq!(m.bindings("?status=ACTIVE").await, both[..1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_moves_as_nova_moves_it() {
    let m = migration().await;
    let (h1, h2) = (m.host(1).await, m.host(2).await);
    let third = m.host(3).await;
    let other = json!({"network_id": m.port["network_id"], "binding:host_id": "h3"});
    m.admin.create("ports", "port", other).await;
    prepared(&h1, &m).await;
    let id: PortId = m.port["id"].as_str().unwrap().parse().unwrap();
    let network: NetworkId = m.port["network_id"].as_str().unwrap().parse().unwrap();
    let address: IpAddr = cloud::addresses(&m.port)[0].parse().unwrap();
    let (mut on_h1, mut on_h2) = (h1.intent().await, h2.intent().await);
    let mut elsewhere = third.intent().await;
    on_h2
        .until("the port stands by", |i| i.standbys.contains(&id))
        .await;
    assert_eq!(on_h2.intent.ports[&id].binding.host_id, Some(host_id("h2")));
    assert_eq!(on_h2.intent.remotes[&network][&address], host_id("h1"));
    elsewhere
        .until("it is on h1", |i| {
            i.remotes[&network][&address] == host_id("h1")
        })
        .await;

    // Its rules stand on h2; that is no news of the port's own status.
    h2.post("/v1/status", &report(&m.port, PortState::Active))
        .await;
    let activated = m.send("PUT", "/h2/activate", None).await.ok(200)["binding"].clone();
    assert_eq!(
        (&activated["host"], &activated["status"]),
        (&json!("h2"), &json!("ACTIVE"))
    );
    let port = m.show().await;
    assert_eq!(port["binding:host_id"], "h2");
    assert_eq!(port["binding:profile"], json!({"os_vif_delegation": true}));
    m.until_status("ACTIVE").await;
    assert_eq!(
        m.bindings("").await,
        pairs(&[("h1", "INACTIVE"), ("h2", "ACTIVE")])
    );
    m.send("PUT", "/h2/activate", None)
        .await
        .refused(409, "PortBindingAlreadyActive");
    elsewhere
        .until("it is on h2", |i| {
            i.remotes[&network][&address] == host_id("h2")
        })
        .await;
    on_h1
        .until("it stands by", |i| i.standbys.contains(&id))
        .await;
    m.send("DELETE", "/h1", None).await.ok(204);
    m.send("DELETE", "/h1", None)
        .await
        .refused(404, "PortBindingNotFound");
    on_h1
        .until("it is gone", |i| {
            i.ports.is_empty() && i.standbys.is_empty()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_bound_is_refused() {
    let m = migration().await;
    m.host(1).await;
    for n in 2..=4 {
        m.host(n).await;
    }
    let words = m.bind(json!({"host": "h9"})).await;
    assert!(words.refused(500, "PortBindingError").contains("h9"));
    for body in [
        json!({}),
        json!({"host": ""}),
        json!({"host": "h1", "vif_type": "tap"}),
    ] {
        assert_eq!(m.bind(body).await.status, 400);
    }
    let many = json!({"bindings": [{"host": "h1"}, {"host": "h2"}]});
    assert_eq!(m.send("POST", "", Some(many)).await.status, 400);
    // Of a port that is bound nowhere the first one is the active one.
    let first = m.bind(json!({"host": "h1", "profile": null})).await.ok(201);
    assert_eq!(first["binding"]["status"], "ACTIVE");
    assert_eq!(m.show().await["binding:host_id"], "h1");
    for n in 2..=4 {
        m.bind(json!({"host": format!("h{n}")})).await.ok(201);
    }
    m.host(5).await;
    m.bind(json!({"host": "h5"}))
        .await
        .refused(409, "PortBindingLimitExceeded");
    let missing = m.send("GET", "/h5", None).await;
    assert_eq!(
        missing.refused(404, "PortBindingNotFound"),
        format!(
            "Binding for port {} for host h5 could not be found.",
            m.port["id"].as_str().unwrap()
        )
    );
    for rest in ["/h5/activate", "/no host/activate"] {
        let rest = rest.replace(' ', "%20");
        m.send("PUT", &rest, None)
            .await
            .refused(404, "PortBindingNotFound");
    }
    let other = json!({"network_id": m.port["network_id"]});
    let other = m.admin.create("ports", "port", other).await;
    let body = json!({"binding": {"host": "h1"}});
    let words = m.admin.post(&path(&other, ""), body.clone()).await;
    assert!(words.refused(400, "BadRequest").contains("compute ports"));

    let (member, project) = m.cloud.project("alpha", "member").await;
    m.admin
        .post(&path(&m.port, ""), body.clone())
        .await
        .refused(409, "PortBindingAlreadyExists");
    member
        .get(&path(&m.port, ""))
        .await
        .refused(404, "PortNotFound");
    let theirs = json!({"network_id": m.port["network_id"], "project_id": project});
    let theirs = m.admin.create("ports", "port", theirs).await;
    for (method, rest) in [
        ("GET", ""),
        ("GET", "/h1"),
        ("PUT", "/h1/activate"),
        ("DELETE", "/h1"),
    ] {
        let answer = member.send(method, &path(&theirs, rest), None).await;
        answer.refused(403, "PolicyNotAuthorized");
    }
    let answer = member.post(&path(&theirs, ""), body).await;
    answer.refused(403, "PolicyNotAuthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_s_own_binding_is_the_active_one() {
    let m = migration().await;
    for n in 1..=3 {
        m.host(n).await;
    }
    m.bind(json!({"host": "h1"})).await.ok(201);
    m.bind(json!({"host": "h2"})).await.ok(201);
    let agents = m.admin.get("/networking/v2.0/agents?host=h2").await.ok(200);
    let agent = agents["agents"][0]["id"].clone();
    m.admin
        .delete("agents", &agent)
        .await
        .refused(409, "AgentInUse");
    let changed = json!({"binding": {"profile": {"a": 1}}});
    let answer = m.send("PUT", "/h2", Some(changed.clone())).await.ok(200);
    assert_eq!(answer["binding"]["profile"], json!({"a": 1}));
    assert_eq!(m.show().await["binding:profile"], json!({}));
    m.send("PUT", "/h1", Some(changed)).await.ok(200);
    assert_eq!(m.show().await["binding:profile"], json!({"a": 1}));
    let host = json!({"binding": {"host": "h3"}});
    assert_eq!(m.send("PUT", "/h2", Some(host)).await.status, 400);
    // A host that was prepared is it no longer once the port is bound there.
    m.update(json!({"binding:host_id": "h2"})).await;
    assert_eq!(m.bindings("").await, pairs(&[("h2", "ACTIVE")]));
    m.bind(json!({"host": "h3"})).await.ok(201);
    m.send("DELETE", "/h2", None).await.ok(204);
    let port = m.show().await;
    assert_eq!(
        (&port["binding:host_id"], &port["binding:vif_type"]),
        (&json!(""), &json!("unbound"))
    );
    assert_eq!(m.bindings("").await, pairs(&[("h3", "INACTIVE")]));
    m.send("PUT", "/h3/activate", None).await.ok(200);
    m.bind(json!({"host": "h1"})).await.ok(201);
    m.admin.delete("ports", &m.port["id"]).await.ok(204);
    let gone = m.send("GET", "", None).await;
    gone.refused(404, "PortNotFound");
    m.admin.delete("agents", &agent).await.ok(204);
}

fn port_id(port: &Value) -> PortId {
    port["id"].as_str().unwrap().parse().unwrap()
}

fn heard(port: &Value, addresses: &[&str]) -> Heard {
    let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
    Heard {
        ports: [(port_id(port), addresses)].into(),
    }
}

/// Its traffic follows the guest before Nova says so; and goes back when the guest does.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_s_addresses_follow_its_workload() {
    let mut m = migration().await;
    m.port = m.update(json!({"binding:host_id": "h1"})).await;
    let (h1, h2, h3) = (m.host(1).await, m.host(2).await, m.host(3).await);
    let other = json!({"network_id": m.port["network_id"], "binding:host_id": "h3"});
    m.admin.create("ports", "port", other).await;
    m.bind(json!({"host": "h2"})).await.ok(201);
    let id = port_id(&m.port);
    let network: NetworkId = m.port["network_id"].as_str().unwrap().parse().unwrap();
    let address: IpAddr = cloud::addresses(&m.port)[0].parse().unwrap();
    let mut on_h2 = h2.intent().await;
    let mut elsewhere = h3.intent().await;
    let at = |host: &'static str| {
        move |i: &Intent| {
            i.remotes.get(&network).and_then(|r| r.get(&address)) == Some(&host_id(host))
        }
    };
    elsewhere.until("on h1", at("h1")).await;

    // Nobody said that it migrates there: what is heard there counts for nothing.
    assert_eq!(h2.post("/v1/heard", &heard(&m.port, &[])).await.0, 204);
    assert_eq!(h3.post("/v1/heard", &heard(&m.port, &[])).await.0, 204);
    m.update(json!({"binding:profile": {"migrating_to": "h2"}}))
        .await;
    let before = m.show().await["revision_number"].clone();
    assert_eq!(h2.post("/v1/heard", &heard(&m.port, &[])).await.0, 204);
    elsewhere.until("on h2", at("h2")).await;
    on_h2
        .until("at home", |i| {
            i.ports.contains_key(&id) && i.standbys.is_empty()
        })
        .await;
    let port = m.show().await;
    assert_eq!(
        (&port["binding:host_id"], &port["revision_number"]),
        (&json!("h1"), &before)
    );
    // The guest goes on where it was.
    assert_eq!(h1.post("/v1/heard", &heard(&m.port, &[])).await.0, 204);
    elsewhere.until("on h1 again", at("h1")).await;
    // There again; and Nova gives up.
    assert_eq!(h2.post("/v1/heard", &heard(&m.port, &[])).await.0, 204);
    elsewhere.until("on h2 again", at("h2")).await;
    m.update(json!({"binding:profile": {}})).await;
    elsewhere.until("on h1 as Nova gave up", at("h1")).await;
    m.update(json!({"binding:profile": {"migrating_to": "h2"}}))
        .await;
    assert_eq!(h2.post("/v1/heard", &heard(&m.port, &[])).await.0, 204);
    elsewhere.until("on h2 for the third time", at("h2")).await;
    m.send("DELETE", "/h2", None).await.ok(204);
    elsewhere.until("on h1 for good", at("h1")).await;
}

const SHARED: &str = "10.0.0.100";
const INSIDE: &str = "2001:db8::100";

/// Ports on three hosts, the first two of which may use addresses besides their own; and one that keeps such a
/// one.
struct Sharing {
    m: Migration,
    store: Arc<dyn Store>,
    hosts: [Host; 3],
    ports: [Value; 3],
    keeper: Value,
    network: NetworkId,
}

impl Sharing {
    async fn new() -> Sharing {
        let (cloud, store) = TestCloud::start_shared().await;
        let admin = cloud.admin().await;
        let network = json!({"provider:network_type": "vxlan"});
        let network = admin.network(network).await;
        for cidr in ["10.0.0.0/24", "2001:db8::/64"] {
            admin.subnet(&network, cidr, json!({})).await;
        }
        let m = Migration {
            cloud,
            admin,
            port: json!({}),
        };
        let hosts = [m.host(1).await, m.host(2).await, m.host(3).await];
        let pairs = json!([{"ip_address": SHARED}, {"ip_address": "2001:db8::100/124"}]);
        let port = async |host: &str, pairs: Value| {
            let attributes = json!({"binding:host_id": host, "allowed_address_pairs": pairs});
            m.admin.port(&network, attributes).await
        };
        let ports = [
            port("h1", pairs.clone()).await,
            port("h2", pairs).await,
            port("h3", json!([])).await,
        ];
        let keep = json!({"fixed_ips": [{"ip_address": SHARED}]});
        let keeper = m.admin.port(&network, keep).await;
        let network = network["id"].as_str().unwrap().parse().unwrap();
        Sharing {
            m,
            store,
            hosts,
            ports,
            keeper,
            network,
        }
    }

    /// Whether an address is on another host.
    fn at(&self, address: &str, host: &str) -> impl Fn(&Intent) -> bool + use<> {
        let (network, host) = (self.network, host_id(host));
        let address: IpAddr = address.parse().unwrap();
        move |i| i.remotes.get(&network).and_then(|r| r.get(&address)) == Some(&host)
    }

    async fn says(&self, n: usize, addresses: &[&str]) {
        let heard = heard(&self.ports[n], addresses);
        assert_eq!(self.hosts[n].post("/v1/heard", &heard).await.0, 204);
    }

    async fn change(&self, port: &Value, attributes: Value) {
        let done = self
            .m
            .admin
            .update("ports", "port", &port["id"], attributes);
        done.await.ok(200);
    }
}

/// What may be said, and what may not.
const SAID: [&str; 6] = [
    SHARED,
    INSIDE,
    "2001:db8::200",
    "fe80::1",
    "ff02::1",
    "10.0.0.1",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_several_goes_to_who_says_that_it_has_it() {
    let s = Sharing::new().await;
    let mut third = s.hosts[2].intent().await;
    let mut first = s.hosts[0].intent().await;
    let network = s.network;
    for (n, host) in [(1, "h2"), (0, "h1"), (1, "h2")] {
        s.says(n, &SAID).await;
        for address in [SHARED, INSIDE] {
            third.until("where it was heard", s.at(address, host)).await;
        }
        let holder = port_id(&s.ports[n]);
        let told = |i: &Intent| {
            let of = |a: &str| i.holders.get(&(network, a.parse().unwrap())).copied();
            (i.holders.len(), of(SHARED), of(INSIDE)) == (2, Some(holder), Some(holder))
        };
        first.until("who has it", told).await;
    }
    assert!(
        third.intent.holders.is_empty(),
        "h3 has no port that may use them"
    );
    // Said again, it costs no write; and from a host where the port is not, it counts for nothing.
    let before = s.store.revision().await.unwrap();
    for host in &s.hosts {
        let said = host.post("/v1/heard", &heard(&s.ports[1], &SAID)).await;
        assert_eq!(said.0, 204);
    }
    assert_eq!(s.store.revision().await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_an_address_has_it_as_long_as_he_may() {
    let s = Sharing::new().await;
    let mut third = s.hosts[2].intent().await;
    let mut first = s.hosts[0].intent().await;
    let network = s.network;
    s.says(1, &SAID).await;
    third.until("heard", s.at(INSIDE, "h2")).await;
    let pairs = json!({"allowed_address_pairs": [{"ip_address": SHARED}]});
    s.change(&s.ports[1], pairs).await;
    let gone = |i: &Intent| !i.remotes[&network].contains_key(&INSIDE.parse().unwrap());
    third.until("nobody has it", gone).await;
    // Who has it moves, and with it the address; who is bound to a host has it himself.
    s.change(&s.ports[1], json!({"binding:host_id": "h3"}))
        .await;
    first.until("it moved", s.at(SHARED, "h3")).await;
    s.m.admin.delete("ports", &s.ports[1]["id"]).await.ok(204);
    third.until("the first who may", s.at(SHARED, "h1")).await;
    s.change(&s.keeper, json!({"binding:host_id": "h2"})).await;
    third.until("its own", s.at(SHARED, "h2")).await;
    s.says(0, &SAID).await;
    first
        .until("not the shared one", |i| i.holders.len() == 1)
        .await;
    assert!(s.at(SHARED, "h2")(&first.intent));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_heard_too_often_is_left_as_it_is() {
    let m = migration().await;
    let hosts = [m.host(1).await, m.host(2).await];
    m.update(json!({"binding:host_id": "h1"})).await;
    m.bind(json!({"host": "h2"})).await.ok(201);
    m.update(json!({"binding:profile": {"migrating_to": "h2"}}))
        .await;
    let mut refused = 0;
    for n in 0..40 {
        let host = &hosts[usize::from(n % 2 == 0)];
        match host.post("/v1/heard", &heard(&m.port, &[])).await.0 {
            204 => {}
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(refused > 0);
    let many: Vec<String> = (0..65).map(|n| format!("10.0.0.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(
        hosts[0].post("/v1/heard", &heard(&m.port, &many)).await.0,
        400
    );
}
