//! Many writers at once: nothing is handed out twice, no rule is passed, nothing is lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;

use std::collections::BTreeSet;

use cloud::{Answer, Client, TestCloud, addresses, slaac};
use hextet_server::{Server, StoreKind};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Sends all of it at once.
async fn at_once(client: &Client, requests: Vec<(&'static str, String, Value)>) -> Vec<Answer> {
    let mut tasks = JoinSet::new();
    for (method, path, body) in requests {
        let client = client.clone();
        tasks.spawn(async move { client.send(method, &path, Some(body)).await });
    }
    tasks.join_all().await
}

fn port(network: &Value, more: Value) -> (&'static str, String, Value) {
    let mut port = more;
    port["network_id"] = network["id"].clone();
    (
        "POST",
        "/networking/v2.0/ports".to_owned(),
        json!({"port": port}),
    )
}

fn statuses(answers: &[Answer]) -> (usize, Vec<u16>) {
    let good = answers.iter().filter(|a| a.status == 201).count();
    (
        good,
        answers
            .iter()
            .map(|a| a.status)
            .filter(|s| *s != 201)
            .collect(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn no_address_is_handed_out_twice_when_there_are_more_writers_than_addresses() {
    for store in [StoreKind::Memory, StoreKind::Redb] {
        let cloud = TestCloud::start(store).await;
        let admin = cloud.admin().await;
        let network = admin.network(json!({})).await;
        admin.subnet(&network, "10.0.0.0/26", json!({})).await;
        admin.subnet(&network, "2001:db8::/64", slaac()).await;
        let answers = at_once(&admin, vec![port(&network, json!({})); 80]).await;
        let (good, rest) = statuses(&answers);
        assert_eq!(
            (good, rest),
            (61, vec![409; 19]),
            "62 addresses less the gateway"
        );
        let all: Vec<_> = answers
            .iter()
            .filter(|a| a.status == 201)
            .flat_map(|a| addresses(&a.body["port"]))
            .collect();
        assert_eq!(all.len(), 122);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 122, "each once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_gets_an_address_a_mac_or_an_instance_s_place() {
    let cloud = TestCloud::start(StoreKind::Redb).await;
    let admin = cloud.admin().await;
    let single = |n: &str| json!({"name": n, "hextet:single_homed": true});
    let (a, b) = (
        admin.network(single("a")).await,
        admin.network(single("b")).await,
    );
    admin.subnet(&a, "10.0.0.0/24", json!({})).await;
    for more in [
        json!({"fixed_ips": [{"ip_address": "10.0.0.77"}]}),
        json!({"mac_address": "fa:16:3e:00:00:77"}),
    ] {
        let answers = at_once(&admin, vec![port(&a, more); 12]).await;
        assert_eq!(statuses(&answers), (1, vec![409; 11]));
    }
    let wanted = json!({"device_id": "vm-1"});
    let mut requests = vec![port(&a, wanted.clone()); 6];
    requests.extend(vec![port(&b, wanted); 6]);
    assert_eq!(
        statuses(&at_once(&admin, requests).await),
        (1, vec![409; 11])
    );
    // And by updates: twelve loose ports all want to be the one instance's.
    let loose = at_once(&admin, vec![port(&b, json!({})); 12]).await;
    let updates = loose
        .iter()
        .map(|l| {
            (
                "PUT",
                format!(
                    "/networking/v2.0/ports/{}",
                    l.body["port"]["id"].as_str().unwrap()
                ),
                json!({"port": {"device_id": "vm-2"}}),
            )
        })
        .collect();
    let answers = at_once(&admin, updates).await;
    assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1);
    assert_eq!(answers.iter().filter(|a| a.status == 409).count(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_hold_at_the_bound() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let (user, project) = cloud.project("alpha", "member").await;
    let network = user.network(json!({})).await;
    let path = format!("/networking/v2.0/quotas/{project}");
    admin
        .send("PUT", &path, Some(json!({"quota": {"port": 5}})))
        .await
        .ok(200);
    let answers = at_once(&user, vec![port(&network, json!({})); 20]).await;
    let (good, rest) = statuses(&answers);
    assert!(
        good <= 5 && rest.iter().all(|s| *s == 409),
        "{good} {rest:?}"
    );
    let listed = user.get("/networking/v2.0/ports").await.ok(200);
    assert_eq!(listed["ports"].as_array().unwrap().len(), good);
    let groups = user
        .get("/networking/v2.0/security-groups?name=default")
        .await
        .ok(200);
    assert_eq!(
        groups["security_groups"].as_array().unwrap().len(),
        1,
        "one default group"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_subnets_at_once_become_one() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let mut requests = Vec::new();
    for n in 0..8 {
        let network = admin.network(json!({})).await;
        let subnet = json!({"network_id": network["id"], "ip_version": 4,
                            "cidr": format!("10.{}.0.0/8", n)});
        requests.push((
            "POST",
            "/networking/v2.0/subnets".to_owned(),
            json!({"subnet": subnet}),
        ));
    }
    assert_eq!(
        statuses(&at_once(&admin, requests).await),
        (1, vec![400; 7])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_and_the_slaac_subnet_that_comes_meanwhile_all_meet() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let network = admin.network(json!({})).await;
    let mut requests = vec![port(&network, json!({})); 40];
    let mut subnet = slaac();
    subnet["network_id"] = network["id"].clone();
    subnet["ip_version"] = json!(6);
    subnet["cidr"] = json!("2001:db8::/64");
    requests.insert(
        20,
        (
            "POST",
            "/networking/v2.0/subnets".to_owned(),
            json!({"subnet": subnet}),
        ),
    );
    assert_eq!(statuses(&at_once(&admin, requests).await), (41, vec![]));
    let listed = admin.get("/networking/v2.0/ports").await.ok(200);
    let with: Vec<_> = listed["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(addresses)
        .collect();
    assert!(with.iter().all(|a| a.len() == 1), "{with:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_and_a_group_go_only_without_ports_however_fast_these_come() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    for _ in 0..10 {
        let network = admin.network(json!({})).await;
        let group = admin
            .create("security-groups", "security_group", json!({}))
            .await;
        let (n, g) = (
            network["id"].as_str().unwrap(),
            group["id"].as_str().unwrap(),
        );
        let requests = vec![
            port(&network, json!({"security_groups": [g]})),
            (
                "DELETE",
                format!("/networking/v2.0/networks/{n}"),
                json!({}),
            ),
            (
                "DELETE",
                format!("/networking/v2.0/security-groups/{g}"),
                json!({}),
            ),
        ];
        at_once(&admin, requests).await;
        let listed = admin
            .get(&format!("/networking/v2.0/ports?network_id={n}"))
            .await
            .ok(200);
        let there = !listed["ports"].as_array().unwrap().is_empty();
        if there {
            admin.show("networks", &network["id"]).await.ok(200);
            admin.show("security-groups", &group["id"]).await.ok(200);
            admin
                .delete("ports", &listed["ports"][0]["id"])
                .await
                .ok(204);
            admin.delete("security-groups", &group["id"]).await.ok(204);
        }
    }
}

/// Two servers on one store: neither knows what the other is about to write.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_store_hand_out_no_address_twice() {
    let (cloud, store) = TestCloud::start_shared().await;
    let directory = tempfile::TempDir::new().unwrap();
    let config = cloud::config(&directory, StoreKind::Memory);
    let second = Server::start_on(config, store).await.unwrap();
    let admin = cloud.admin().await;
    let other = Client {
        address: second.addresses.clients,
        ..admin.clone()
    };
    let network = admin.network(json!({})).await;
    admin.subnet(&network, "10.0.0.0/27", json!({})).await;
    let mut tasks = JoinSet::new();
    for client in [&admin, &other] {
        let (client, requests) = (client.clone(), vec![port(&network, json!({})); 20]);
        tasks.spawn(async move { at_once(&client, requests).await });
    }
    let answers: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    let all: Vec<_> = answers
        .iter()
        .filter(|a| a.status == 201)
        .flat_map(|a| addresses(&a.body["port"]))
        .collect();
    assert_eq!(all.len(), 29, "{:?}", statuses(&answers));
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 29);
    second.stop().await.unwrap();
}
