//! Multicast groups that ports join: who is told of it, and how many there is room for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;

use std::{collections::BTreeSet, net::IpAddr, ops::Range};

use cloud::{
    Client, TestCloud, addresses,
    host::{Host, Stream},
    slaac,
};
use hextet_api::agent::{IntentMessage, Memberships, StatusReport};
use hextet_model::intent::{Change, Intent};
use hextet_server::StoreKind;
use serde_json::{Value, json};

/// A host that has joined and said its end of tunnels.
async fn host(cloud: &TestCloud, name: &str, tunnel: &str) -> Host {
    let host = Host::joined(cloud, name).await;
    let hello = StatusReport {
        complete: true,
        tunnel_address: Some(tunnel.parse().unwrap()),
        ..StatusReport::default()
    };
    assert_eq!(host.post("/v1/status", &hello).await.0, 204);
    host
}

/// Private networks, with a subnet of each family.
struct World {
    cloud: TestCloud,
    admin: Client,
    networks: Vec<Value>,
}

impl World {
    async fn new(ipv6: Value) -> World {
        let cloud = TestCloud::start(StoreKind::Memory).await;
        let admin = cloud.admin().await;
        let mut networks = Vec::new();
        for _ in 0..3 {
            let vxlan = json!({"provider:network_type": "vxlan"});
            let network = admin.network(vxlan).await;
            admin.subnet(&network, "10.0.0.0/24", json!({})).await;
            admin.subnet(&network, "2001:db8::/64", ipv6.clone()).await;
            networks.push(network);
        }
        World {
            cloud,
            admin,
            networks,
        }
    }

    async fn port(&self, network: usize, host: &str, addresses: &[&str]) -> Value {
        self.port_of(None, network, host, addresses).await
    }

    /// Of a project, or of who owns the networks.
    async fn port_of(
        &self,
        project: Option<&str>,
        network: usize,
        host: &str,
        addresses: &[&str],
    ) -> Value {
        let fixed = addresses.iter().map(|a| json!({"ip_address": a}));
        let mut port = json!({"binding:host_id": host, "fixed_ips": fixed.collect::<Vec<_>>()});
        if let Some(project) = project {
            port["project_id"] = json!(project);
        }
        self.admin.port(&self.networks[network], port).await
    }

    async fn ports(&self, project: Option<&str>, network: usize, last: Range<u8>) -> Vec<Value> {
        let mut ports = Vec::new();
        for n in last {
            let address = format!("10.0.0.{n}");
            ports.push(self.port_of(project, network, "x1", &[&address]).await);
        }
        ports
    }
}

fn all(port: &Value) -> BTreeSet<IpAddr> {
    addresses(port).iter().map(|a| a.parse().unwrap()).collect()
}

fn memberships(port: &Value, groups: &[&str]) -> Memberships {
    together([(port, groups)])
}

fn together<'a, 'b>(all: impl IntoIterator<Item = (&'a Value, &'b [&'b str])>) -> Memberships {
    let groups = |all: &[&str]| all.iter().map(|group| group.parse().unwrap()).collect();
    let id = |port: &Value| port["id"].as_str().unwrap().parse().unwrap();
    let all = all.into_iter();
    Memberships {
        ports: all.map(|(port, all)| (id(port), groups(all))).collect(),
    }
}

/// Each port's own 32 groups.
fn own_groups(ports: &[Value], first: u8) -> Memberships {
    let groups = |n: u8| -> BTreeSet<IpAddr> {
        let all = 0..Memberships::MAX_GROUPS as u8;
        all.map(|g| [239, 0, n, g].into()).collect()
    };
    let id = |port: &Value| port["id"].as_str().unwrap().parse().unwrap();
    let all = ports.iter().zip(first..);
    Memberships {
        ports: all.map(|(port, n)| (id(port), groups(n))).collect(),
    }
}

async fn says(host: &Host, all: &Memberships) {
    assert_eq!(host.post("/v1/joined", all).await.0, 204);
}

/// Who hears a group, as a host is told: their addresses.
fn listeners(intent: &Intent, group: &str) -> BTreeSet<IpAddr> {
    let group: IpAddr = group.parse().unwrap();
    let all = intent.audiences.iter().filter(|((_, of), _)| *of == group);
    all.flat_map(|(_, all)| all.values().map(|joined| joined.addr))
        .collect()
}

/// Waits until the host has been told what was done before.
async fn settled(told: &mut Stream, host: &Host, port: &Value) {
    for groups in [&["239.255.255.255"][..], &[]] {
        says(host, &memberships(port, groups)).await;
        let joined = |i: &Intent| listeners(i, "239.255.255.255").len() == groups.len();
        told.until("the mark", joined).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_joined_a_group_is_told_to_the_hosts_of_its_network() {
    let world = World::new(slaac()).await;
    let (cloud, admin) = (&world.cloud, &world.admin);
    let hosts = [
        host(cloud, "x1", "2001:db8:f::11").await,
        host(cloud, "x2", "2001:db8:f::12").await,
        host(cloud, "x3", "2001:db8:f::13").await,
    ];
    let one = world.port(0, "x1", &["10.0.0.5"]).await;
    let other = world.port(0, "x2", &["10.0.0.6"]).await;
    world.port(1, "x3", &["10.0.0.5"]).await;
    let [mut first, mut third] = [hosts[0].intent().await, hosts[2].intent().await];
    let says = async |n: usize, port: &Value, groups: &[&str]| {
        let all = memberships(port, groups);
        hosts[n].post("/v1/joined", &all).await.0
    };
    let v4 =
        |all: &[&str]| -> BTreeSet<IpAddr> { all.iter().map(|a| a.parse().unwrap()).collect() };
    let groups = [
        "239.1.2.3",
        "ff02::fb",
        "224.0.0.1",
        "ff02::1:ff00:5",
        "10.0.0.9",
    ];
    assert_eq!(says(1, &other, &groups).await, 204);
    let both = |i: &Intent| i.audiences.len() == 2;
    first.until("what the other has joined", both).await;
    assert_eq!(listeners(&first.intent, "239.1.2.3"), v4(&["10.0.0.6"]));
    let own: Vec<IpAddr> = all(&other).into_iter().filter(IpAddr::is_ipv6).collect();
    assert_eq!(
        listeners(&first.intent, "ff02::fb"),
        own.into_iter().collect()
    );
    assert_eq!(says(0, &one, &["239.1.2.3"]).await, 204);
    let heard = v4(&["10.0.0.5", "10.0.0.6"]);
    let both = |i: &Intent| listeners(i, "239.1.2.3") == heard;
    first.until("both", both).await;
    // Of a port on another host nobody says anything.
    assert_eq!(says(0, &other, &[]).await, 204);
    assert_eq!(says(2, &other, &[]).await, 204);
    // What is left is told, and what goes with a port.
    assert_eq!(says(1, &other, &["239.1.2.3"]).await, 204);
    first.until("one less", |i| i.audiences.len() == 1).await;
    assert!(both(&first.intent));
    admin.delete("ports", &other["id"]).await.ok(204);
    let alone = |i: &Intent| listeners(i, "239.1.2.3") == v4(&["10.0.0.5"]);
    first.until("alone", alone).await;
    third.until("its own", |i| !i.ports.is_empty()).await;
    assert!(third.intent.audiences.is_empty(), "another network");
    assert_eq!(says(0, &one, &[]).await, 204);
    first.until("nobody", |i| i.audiences.is_empty()).await;
    let many: Vec<String> = (0..33).map(|n| format!("239.0.0.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(says(0, &one, &many).await, 400);
}

/// Nine ports have 32 groups each, in one report; who comes too late is let in when there is room, and it says so again.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_s_groups_are_bounded_exactly_and_room_is_for_who_asks_again() {
    let world = World::new(slaac()).await;
    let host = host(&world.cloud, "x1", "2001:db8:f::11").await;
    let mut told = host.intent().await;
    let ports = world.ports(None, 0, 5..14).await;
    says(&host, &own_groups(&ports, 0)).await;
    let marks = world.port(1, "x1", &["10.0.0.5"]).await;
    settled(&mut told, &host, &marks).await;
    assert_eq!(told.intent.audiences.len(), 256);
    // What is there may be joined by all.
    let full = told.intent.audiences.keys().next().unwrap().1.to_string();
    let late = world.port(0, "x1", &["10.0.0.99"]).await;
    let more = memberships(&late, &[&full, "239.9.9.9"]);
    says(&host, &more).await;
    told.until("one more", |i| listeners(i, &full).len() == 2)
        .await;
    assert_eq!(listeners(&told.intent, "239.9.9.9").len(), 0);
    for port in &ports[..2] {
        world.admin.delete("ports", &port["id"]).await.ok(204);
    }
    says(&host, &more).await;
    let heard = |i: &Intent| listeners(i, "239.9.9.9").len() == 1;
    told.until("there is room", heard).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_address_of_a_group_s_family_takes_no_place() {
    let world = World::new(json!({})).await;
    let host = host(&world.cloud, "x1", "2001:db8:f::11").await;
    let mut told = host.intent().await;
    let ports = world.ports(None, 0, 5..69).await;
    says(
        &host,
        &together(ports.iter().map(|port| (port, &["ff02::fb"][..]))),
    )
    .await;
    let both = world.port(0, "x1", &["10.0.0.99", "2001:db8::99"]).await;
    says(&host, &memberships(&both, &["ff02::fb"])).await;
    let heard = |i: &Intent| listeners(i, "ff02::fb").len() == 1;
    told.until("who can hear it", heard).await;
    // With an address it hears it, too, once it is said again.
    let addresses =
        json!({"fixed_ips": [{"ip_address": "10.0.0.5"}, {"ip_address": "2001:db8::5"}]});
    let id = &ports[0]["id"];
    let answer = world.admin.update("ports", "port", id, addresses).await;
    answer.ok(200);
    says(&host, &memberships(&ports[0], &["ff02::fb"])).await;
    let heard = |i: &Intent| listeners(i, "ff02::fb").len() == 2;
    told.until("one more", heard).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_project_takes_what_is_for_others() {
    let world = World::new(slaac()).await;
    let host = host(&world.cloud, "x1", "2001:db8:f::11").await;
    let mut told = host.intent().await;
    let marks = world.port_of(Some("marks"), 2, "x1", &["10.0.0.5"]).await;
    // On a network of others, a quarter of it.
    let strangers = world.ports(Some("stranger"), 0, 5..8).await;
    says(&host, &own_groups(&strangers[..2], 0)).await;
    says(&host, &own_groups(&strangers[2..], 2)).await;
    settled(&mut told, &host, &marks).await;
    assert_eq!(told.intent.audiences.len(), 64);
    let other = world.port_of(Some("other"), 0, "x1", &["10.0.0.20"]).await;
    says(&host, &own_groups(&[other], 10)).await;
    settled(&mut told, &host, &marks).await;
    assert_eq!(told.intent.audiences.len(), 96);
    // It is its share also if others have joined it before; what a port gives up is room for the next report.
    let shared = memberships(&strangers[0], &["239.0.10.1"]);
    for count in [1, 2] {
        says(&host, &shared).await;
        settled(&mut told, &host, &marks).await;
        assert_eq!(listeners(&told.intent, "239.0.10.1").len(), count);
    }
    // The owner has more, but on all networks together no more than what hosts have room for.
    for (network, first) in [(0, 30), (1, 60), (2, 90)] {
        let ports = world.ports(None, network, first..first + 9).await;
        says(&host, &own_groups(&ports, first)).await;
    }
    settled(&mut told, &host, &marks).await;
    let ids: Vec<_> = world.networks.iter().map(|n| n["id"].as_str()).collect();
    let count = |n: usize| {
        let all = told.intent.audiences.keys();
        all.filter(|(id, _)| Some(id.to_string().as_str()) == ids[n])
            .count()
    };
    let own: BTreeSet<_> = own_of(&told.intent, 30);
    assert_eq!(own.len(), 512);
    assert_eq!(count(1), 256);
    assert!(count(0) <= 256);
}

/// Groups of the numbers from there on.
fn own_of(intent: &Intent, first: u8) -> BTreeSet<(String, IpAddr)> {
    let all = intent.audiences.keys();
    let own = all.filter(|(_, group)| match group {
        IpAddr::V4(group) => group.octets()[2] >= first,
        IpAddr::V6(_) => false,
    });
    own.map(|(id, group)| (id.to_string(), *group)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_too_often_is_left_as_it_is_and_nobody_else() {
    let world = World::new(slaac()).await;
    let host = host(&world.cloud, "x1", "2001:db8:f::11").await;
    let mut told = host.intent().await;
    let flaps = world.port(0, "x1", &["10.0.0.5"]).await;
    let other = world.port(0, "x1", &["10.0.0.6"]).await;
    for n in 0..100 {
        let groups: &[&str] = if n % 2 == 0 { &["239.0.0.1"] } else { &[] };
        says(&host, &memberships(&flaps, groups)).await;
    }
    let groups = [&["239.0.0.1"][..], &["239.0.0.2"][..]];
    says(&host, &together([&flaps, &other].into_iter().zip(groups))).await;
    let mut changes = 0;
    loop {
        let message = told.next().await.unwrap();
        let IntentMessage::Change(
            Change::PutAudience(_, group, _) | Change::RemoveAudience(_, group),
        ) = message
        else {
            continue;
        };
        match group.to_string().as_str() {
            "239.0.0.1" => changes += 1,
            "239.0.0.2" => break,
            _ => panic!("{group}"),
        }
    }
    assert!((10..100).contains(&changes), "{changes}");
}
