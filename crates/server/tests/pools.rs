//! Subnet pools, address scopes, service types and RBAC policies over a real listener.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;

use std::collections::BTreeSet;

use cloud::{Answer, Client, TestCloud, addresses, slaac};
use hextet_server::{Server, StoreKind};
use hextet_types::Prefix;
use serde_json::{Value, json};
use tokio::task::JoinSet;

async fn pool(client: &Client, prefixes: &[&str], mut more: Value) -> Value {
    more["prefixes"] = json!(prefixes);
    more["name"] = json!("pool");
    client.create("subnetpools", "subnetpool", more).await
}

async fn try_pool(client: &Client, prefixes: &[&str], mut more: Value) -> Answer {
    more["prefixes"] = json!(prefixes);
    more["name"] = json!("pool");
    client.try_create("subnetpools", "subnetpool", more).await
}

async fn try_subnet(client: &Client, network: &Value, version: u8, mut more: Value) -> Answer {
    more["network_id"] = network["id"].clone();
    more["ip_version"] = json!(version);
    client.try_create("subnets", "subnet", more).await
}

async fn action(client: &Client, pool: &Value, what: &str, body: Value) -> Answer {
    let id = pool["id"].as_str().unwrap();
    let path = format!("/networking/v2.0/subnetpools/{id}/{what}");
    client.send("PUT", &path, Some(body)).await
}

async fn change(client: &Client, pool: &Value, more: Value) -> Answer {
    client
        .update("subnetpools", "subnetpool", &pool["id"], more)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_gets_a_64_out_of_a_public_pool_and_cannot_take_just_any() {
    let cloud = TestCloud::start(StoreKind::Redb).await;
    let admin = cloud.admin().await;
    let shared = json!({"shared": true, "is_default": true, "default_prefixlen": 64});
    let made = pool(&admin, &["2a00:1450:4000::/48"], shared).await;
    assert_eq!(
        (
            &made["ip_version"],
            &made["min_prefixlen"],
            &made["max_prefixlen"]
        ),
        (&json!(6), &json!("64"), &json!("128"))
    );
    let (user, _) = cloud.project("alpha", "member").await;
    let seen = user.show("subnetpools", &made["id"]).await.ok(200);
    assert_eq!(seen["subnetpool"]["shared"], json!(true));
    change(&user, &made, json!({"name": "mine"}))
        .await
        .refused(403, "PolicyNotAuthorized");
    let network = user.network(json!({})).await;
    let mut automatic = slaac();
    automatic["subnetpool_id"] = made["id"].clone();
    let subnet = try_subnet(&user, &network, 6, automatic).await.ok(201)["subnet"].clone();
    assert_eq!(subnet["cidr"], "2a00:1450:4000::/64");
    assert_eq!(subnet["gateway_ip"], "2a00:1450:4000::1");
    assert_eq!(subnet["subnetpool_id"], made["id"]);
    assert!(subnet.get("prefixlen").is_none() && subnet.get("use_default_subnetpool").is_none());
    let port = user.port(&network, json!({})).await;
    assert!(addresses(&port)[0].starts_with("2a00:1450:4000:0:"));
    // By hand, only where members may.
    let other = user.network(json!({})).await;
    let by_hand = json!({"cidr": "2a00:1450:4000:7::/64"});
    let words = try_subnet(&user, &other, 6, by_hand.clone())
        .await
        .refused(403, "PolicyNotAuthorized");
    assert!(words.contains("subnet pool"), "{words}");
    // But inside the pool, by the default.
    let mut inside = by_hand;
    inside["use_default_subnetpool"] = json!(true);
    let subnet = try_subnet(&user, &other, 6, inside).await.ok(201);
    assert_eq!(subnet["subnet"]["cidr"], "2a00:1450:4000:7::/64");
    // A pool of one's own gives no right to announce.
    let own = pool(&user, &["2a00:1450:5000::/48"], json!({})).await;
    let third = user.network(json!({})).await;
    try_subnet(&user, &third, 6, json!({"subnetpool_id": own["id"]}))
        .await
        .refused(403, "PolicyNotAuthorized");
    admin
        .delete("subnetpools", &made["id"])
        .await
        .refused(400, "SubnetPoolDeleteError");
    user.delete("ports", &port["id"]).await.ok(204);
    user.delete("networks", &network["id"]).await.ok(204);
    user.delete("networks", &other["id"]).await.ok(204);
    admin.delete("subnetpools", &made["id"]).await.ok(204);
    cloud.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_check_their_prefixes_lengths_and_names() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let v4 = ["10.0.0.0/16"];
    let refused: &[(&[&str], Value, &str)] = &[
        (&[], json!({}), "EmptySubnetPoolPrefixList"),
        (
            &["10.0.0.0/16", "fd00::/48"],
            json!({}),
            "PrefixVersionMismatch",
        ),
        (&["nonsense"], json!({}), "HTTPBadRequest"),
        (
            &v4,
            json!({"min_prefixlen": 25, "max_prefixlen": 24}),
            "IllegalSubnetPoolPrefixBounds",
        ),
        (
            &v4,
            json!({"max_prefixlen": 33}),
            "IllegalSubnetPoolPrefixBounds",
        ),
        (
            &v4,
            json!({"min_prefixlen": 20, "default_prefixlen": 19}),
            "IllegalSubnetPoolPrefixBounds",
        ),
        (
            &v4,
            json!({"max_prefixlen": 20, "default_prefixlen": 21}),
            "IllegalSubnetPoolPrefixBounds",
        ),
        (&v4, json!({"default_quota": -1}), "HTTPBadRequest"),
    ];
    for (prefixes, more, kind) in refused {
        try_pool(&admin, prefixes, more.clone())
            .await
            .refused(400, kind);
    }
    let nameless = json!({"prefixes": v4});
    admin
        .try_create("subnetpools", "subnetpool", nameless)
        .await
        .refused(400, "HTTPBadRequest");
    let merged = pool(
        &admin,
        &["10.0.1.0/24", "10.0.0.0/24", "10.0.0.128/25"],
        json!({}),
    )
    .await;
    assert_eq!(merged["prefixes"], json!(["10.0.0.0/23"]));
    assert_eq!(
        (
            &merged["min_prefixlen"],
            &merged["default_prefixlen"],
            &merged["default_quota"]
        ),
        (&json!("8"), &json!("8"), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_only_grow_by_an_update() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let merged = pool(&admin, &["10.0.0.0/23"], json!({})).await;
    change(&admin, &merged, json!({"prefixes": ["10.0.0.0/24"]}))
        .await
        .refused(400, "IllegalSubnetPoolPrefixUpdate");
    let grown = change(
        &admin,
        &merged,
        json!({"prefixes": ["10.0.0.0/22"], "default_prefixlen": 26}),
    )
    .await
    .ok(200);
    assert_eq!(grown["subnetpool"]["prefixes"], json!(["10.0.0.0/22"]));
    assert_eq!(grown["subnetpool"]["revision_number"], json!(2));
    change(&admin, &merged, json!({"ip_version": 6}))
        .await
        .refused(400, "HTTPBadRequest");
    change(&admin, &merged, json!({"shared": true}))
        .await
        .refused(400, "HTTPBadRequest");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_default_pool_of_each_family_by_administrators() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let default = json!({"default_prefixlen": 26});
    let merged = pool(&admin, &["10.0.0.0/23"], default).await;
    let v4 = ["10.0.0.0/16"];
    change(&admin, &merged, json!({"is_default": true}))
        .await
        .ok(200);
    try_pool(&admin, &["10.9.0.0/16"], json!({"is_default": true}))
        .await
        .refused(400, "InvalidInput");
    pool(&admin, &["fd00::/48"], json!({"is_default": true})).await;
    change(&admin, &merged, json!({"is_default": false}))
        .await
        .ok(200);
    pool(&admin, &["10.9.0.0/16"], json!({"is_default": true})).await;
    let (user, _) = cloud.project("alpha", "member").await;
    for more in [json!({"is_default": true}), json!({"shared": true})] {
        try_pool(&user, &v4, more)
            .await
            .refused(403, "PolicyNotAuthorized");
    }
    let listed = admin
        .get("/networking/v2.0/subnetpools?default_prefixlen=26&ip_version=4")
        .await
        .ok(200);
    assert_eq!(listed["subnetpools"].as_array().unwrap().len(), 1);
    assert_eq!(
        user.get("/networking/v2.0/subnetpools").await.ok(200)["subnetpools"],
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_has_at_most_200_prefixes() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let many: Vec<String> = (0..=200).map(|n| format!("172.16.{n}.0/25")).collect();
    let (first, rest) = many.split_at(150);
    let some: Vec<&str> = first.iter().map(String::as_str).collect();
    let large = pool(&admin, &some, json!({})).await;
    let answer = action(&admin, &large, "add_prefixes", json!({"prefixes": rest})).await;
    assert!(
        answer
            .refused(400, "IllegalSubnetPoolPrefixUpdate")
            .contains("200")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn subnets_out_of_pools_follow_their_rules() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let bounds = json!({"min_prefixlen": 20, "max_prefixlen": 28, "default_prefixlen": 26});
    let p = pool(&admin, &["10.4.0.0/16"], bounds).await;
    let id = &p["id"];
    let network = admin.network(json!({})).await;
    let of = |more: Value| {
        let mut more = more;
        more["subnetpool_id"] = id.clone();
        try_subnet(&admin, &network, 4, more)
    };
    let cidr = |body: Value| body["subnet"]["cidr"].as_str().unwrap().to_owned();
    assert_eq!(cidr(of(json!({})).await.ok(201)), "10.4.0.0/26");
    assert_eq!(
        cidr(of(json!({"prefixlen": 24})).await.ok(201)),
        "10.4.1.0/24"
    );
    assert_eq!(
        cidr(of(json!({"prefixlen": 28})).await.ok(201)),
        "10.4.0.64/28",
        "the smallest gap"
    );
    assert_eq!(
        cidr(of(json!({"cidr": "10.4.7.0/24"})).await.ok(201)),
        "10.4.7.0/24"
    );
    let by_gateway = of(json!({"gateway_ip": "10.4.9.65"})).await.ok(201);
    assert_eq!(by_gateway["subnet"]["cidr"], "10.4.9.64/26");
    let refused = [
        (
            json!({"prefixlen": 29}),
            400,
            "MaxPrefixSubnetAllocationError",
        ),
        (
            json!({"prefixlen": 19}),
            400,
            "MinPrefixSubnetAllocationError",
        ),
        (json!({"cidr": "10.4.7.0/28"}), 409, "SubnetAllocationError"),
        (json!({"cidr": "10.5.0.0/24"}), 409, "SubnetAllocationError"),
        (
            json!({"cidr": "10.4.8.0/24", "prefixlen": 24}),
            400,
            "BadRequest",
        ),
        (json!({"use_default_subnetpool": true}), 400, "BadRequest"),
        (
            json!({"allocation_pools": [{"start": "10.4.0.9", "end": "10.4.0.10"}]}),
            400,
            "BadRequest",
        ),
    ];
    for (more, status, kind) in refused {
        of(more).await.refused(status, kind);
    }
    try_subnet(&admin, &network, 6, json!({"subnetpool_id": id}))
        .await
        .refused(400, "BadRequest");
    try_subnet(&admin, &network, 4, json!({}))
        .await
        .refused(400, "BadRequest");
    try_subnet(&admin, &network, 4, json!({"use_default_subnetpool": true}))
        .await
        .refused(400, "BadRequest");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_of_an_ipv4_pool_counts_addresses() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let p = pool(&admin, &["10.4.0.0/16"], json!({})).await;
    let network = admin.network(json!({})).await;
    let of = |more: Value| {
        let mut more = more;
        more["subnetpool_id"] = p["id"].clone();
        try_subnet(&admin, &network, 4, more)
    };
    of(json!({"prefixlen": 23})).await.ok(201);
    change(&admin, &p, json!({"default_quota": 700}))
        .await
        .ok(200);
    of(json!({"prefixlen": 24}))
        .await
        .refused(409, "SubnetPoolQuotaExceeded");
    of(json!({"prefixlen": 28})).await.ok(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn subnets_of_one_family_on_a_network_are_of_one_pool_or_of_none() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let p = pool(&admin, &["10.4.0.0/16"], json!({"default_prefixlen": 24})).await;
    let network = admin.network(json!({})).await;
    try_subnet(&admin, &network, 4, json!({"subnetpool_id": p["id"]}))
        .await
        .ok(201);
    try_subnet(&admin, &network, 4, json!({"cidr": "10.77.0.0/24"}))
        .await
        .refused(400, "NetworkSubnetPoolAffinityError");
    let another = pool(&admin, &["10.6.0.0/16"], json!({"default_prefixlen": 24})).await;
    try_subnet(&admin, &network, 4, json!({"subnetpool_id": another["id"]}))
        .await
        .refused(400, "NetworkSubnetPoolAffinityError");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_by_hand_in_a_pool_s_prefixes_is_not_free() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let another = pool(&admin, &["10.6.0.0/16"], json!({"default_prefixlen": 24})).await;
    let by_hand = admin.network(json!({})).await;
    admin.subnet(&by_hand, "10.6.0.0/24", json!({})).await;
    admin.subnet(&by_hand, "10.6.1.0/25", json!({})).await;
    let second = admin.network(json!({})).await;
    let items: Vec<_> = (0..3)
        .map(|_| json!({"network_id": second["id"], "ip_version": 4, "subnetpool_id": another["id"]}))
        .collect();
    let bulk = json!({"subnets": items});
    let made = admin.post("/networking/v2.0/subnets", bulk).await.ok(201);
    let made: Vec<_> = made["subnets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["cidr"].clone())
        .collect();
    assert_eq!(made, ["10.6.2.0/24", "10.6.3.0/24", "10.6.4.0/24"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_of_an_ipv6_pool_counts_64s_by_project() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let three =
        json!({"shared": true, "default_quota": 3, "min_prefixlen": 56, "default_prefixlen": 64});
    let p = pool(&admin, &["2a00:1450:4000::/48"], three).await;
    for name in ["alpha", "beta"] {
        let (user, _) = cloud.project(name, "member").await;
        let network = user.network(json!({})).await;
        let of = |length: u8| {
            let more = json!({"subnetpool_id": p["id"], "prefixlen": length});
            try_subnet(&user, &network, 6, more)
        };
        of(56).await.refused(409, "SubnetPoolQuotaExceeded");
        of(63).await.ok(201);
        of(64).await.ok(201);
        of(64).await.refused(409, "SubnetPoolQuotaExceeded");
        of(80).await.refused(409, "SubnetPoolQuotaExceeded");
    }
}

/// All at once, out of less than they want; and again after half have gone.
#[tokio::test(flavor = "multi_thread")]
async fn no_two_subnets_out_of_a_pool_ever_overlap() {
    for store in [StoreKind::Memory, StoreKind::Redb] {
        let cloud = TestCloud::start(store).await;
        let admin = cloud.admin().await;
        let p = pool(&admin, &["10.4.0.0/22"], json!({"default_prefixlen": 27})).await;
        let network = admin.network(json!({})).await;
        let mut tasks = JoinSet::new();
        for n in 0..60usize {
            let (client, network, id) = (admin.clone(), network.clone(), p["id"].clone());
            tasks.spawn(async move {
                let more = match n % 3 {
                    0 => json!({"subnetpool_id": id}),
                    1 => json!({"subnetpool_id": id, "prefixlen": 28}),
                    _ => {
                        json!({"subnetpool_id": id, "cidr": format!("10.4.3.{}/28", 16 * (n % 12))})
                    }
                };
                let answer = try_subnet(&client, &network, 4, more).await;
                if answer.status == 201 && n % 6 == 0 {
                    client
                        .delete("subnets", &answer.body["subnet"]["id"])
                        .await
                        .ok(204);
                    return (409, Value::Null);
                }
                (answer.status, answer.body)
            });
        }
        let answers = tasks.join_all().await;
        assert!(
            answers.iter().all(|(s, _)| [201, 409].contains(s)),
            "{answers:?}"
        );
        let listed = admin.get("/networking/v2.0/subnets").await.ok(200);
        let all: Vec<Prefix> = listed["subnets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["cidr"].as_str().unwrap().parse().unwrap())
            .collect();
        assert_eq!(all.len(), answers.iter().filter(|(s, _)| *s == 201).count());
        for (n, a) in all.iter().enumerate() {
            assert!(all[n + 1..].iter().all(|b| !a.overlaps(*b)), "{a}");
        }
        // What is left is given out to the last prefix, and no further.
        let whole: Prefix = "10.4.0.0/22".parse().unwrap();
        let used: u32 = all.iter().map(|p| 1 << (32 - p.len())).sum();
        assert!(all.iter().all(|p| whole.covers(*p)));
        let mut left = 0;
        let last = loop {
            let more = json!({"subnetpool_id": p["id"], "prefixlen": 28});
            let answer = try_subnet(&admin, &network, 4, more).await;
            if answer.status != 201 {
                break answer;
            }
            left += 16;
        };
        last.refused(409, "SubnetAllocationError");
        assert_eq!(used + left, 1024);
        cloud.server.stop().await.unwrap();
    }
}

/// Two servers on one store know of each other's allocations only by it.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_store_never_give_out_the_same() {
    let (cloud, store) = TestCloud::start_shared().await;
    let directory = tempfile::TempDir::new().unwrap();
    let other = Server::start_on(cloud::config(&directory, StoreKind::Memory), store)
        .await
        .unwrap();
    let admin = cloud.admin().await;
    let there = Client {
        address: other.addresses.clients,
        token: admin.token.clone(),
    };
    let p = pool(
        &admin,
        &["2a00:1450:4000::/58"],
        json!({"min_prefixlen": 64}),
    )
    .await;
    let network = admin.network(json!({})).await;
    let mut tasks = JoinSet::new();
    for n in 0..72 {
        let client = if n % 2 == 0 {
            admin.clone()
        } else {
            there.clone()
        };
        let (network, id) = (network.clone(), p["id"].clone());
        tasks.spawn(async move {
            loop {
                let answer = try_subnet(&client, &network, 6, json!({"subnetpool_id": id})).await;
                // The other server may not have heard of the network yet.
                if ![404, 503].contains(&answer.status) {
                    break answer;
                }
            }
        });
    }
    let answers = tasks.join_all().await;
    let cidrs: BTreeSet<_> = answers
        .iter()
        .filter(|a| a.status == 201)
        .map(|a| a.body["subnet"]["cidr"].to_string())
        .collect();
    assert_eq!(cidrs.len(), 64, "each /64 of the /58 once");
    let full = answers.into_iter().filter(|a| a.status != 201);
    let full: Vec<_> = full
        .map(|a| a.refused(409, "SubnetAllocationError"))
        .collect();
    assert_eq!(full.len(), 8);
    other.stop().await.unwrap();
    cloud.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_come_and_go() {
    let cloud = TestCloud::start(StoreKind::Redb).await;
    let admin = cloud.admin().await;
    let p = pool(&admin, &["10.4.0.0/24"], json!({"default_prefixlen": 26})).await;
    let prefixes = |list: &[&str]| json!({"prefixes": list});
    let added = action(
        &admin,
        &p,
        "add_prefixes",
        prefixes(&["10.4.1.0/24", "10.4.9.0/24"]),
    )
    .await;
    assert_eq!(added.ok(200), prefixes(&["10.4.0.0/23", "10.4.9.0/24"]));
    for body in [
        json!({}),
        json!({"prefixes": []}),
        json!({"prefixes": "10.0.0.0/8"}),
    ] {
        action(&admin, &p, "add_prefixes", body)
            .await
            .refused(400, "HTTPBadRequest");
    }
    action(&admin, &p, "add_prefixes", prefixes(&["fd00::/48"]))
        .await
        .refused(400, "PrefixVersionMismatch");
    let network = admin.network(json!({})).await;
    let subnet = try_subnet(&admin, &network, 4, json!({"subnetpool_id": p["id"]}))
        .await
        .ok(201);
    assert_eq!(
        subnet["subnet"]["cidr"], "10.4.9.0/26",
        "out of the smallest block"
    );
    action(&admin, &p, "remove_prefixes", prefixes(&["10.4.9.0/25"]))
        .await
        .refused(400, "IllegalSubnetPoolPrefixUpdate");
    let removed = action(
        &admin,
        &p,
        "remove_prefixes",
        prefixes(&["10.4.9.128/25", "10.4.0.0/24"]),
    )
    .await;
    assert_eq!(removed.ok(200), prefixes(&["10.4.1.0/24", "10.4.9.0/25"]));
    let nothing = action(&admin, &p, "remove_prefixes", prefixes(&["10.99.0.0/16"])).await;
    assert_eq!(nothing.ok(200), prefixes(&["10.4.1.0/24", "10.4.9.0/25"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn subnets_that_were_there_come_into_a_pool() {
    let cloud = TestCloud::start(StoreKind::Redb).await;
    let admin = cloud.admin().await;
    let p = pool(&admin, &["10.4.1.0/24"], json!({})).await;
    let old = admin.network(json!({})).await;
    let there = admin.subnet(&old, "10.50.0.0/24", json!({})).await;
    let v6 = admin.subnet(&old, "2001:db8:50::/64", json!({})).await;
    let body = json!({"network_id": old["id"]});
    let taken = action(&admin, &p, "onboard_network_subnets", body.clone())
        .await
        .ok(200);
    assert_eq!(taken, json!([{"id": there["id"], "cidr": "10.50.0.0/24"}]));
    let shown = admin.show("subnets", &there["id"]).await.ok(200);
    assert_eq!(shown["subnet"]["subnetpool_id"], p["id"]);
    let other = admin.show("subnets", &v6["id"]).await.ok(200);
    assert_eq!(other["subnet"]["subnetpool_id"], Value::Null);
    let grown = admin.show("subnetpools", &p["id"]).await.ok(200);
    assert_eq!(
        grown["subnetpool"]["prefixes"],
        json!(["10.4.1.0/24", "10.50.0.0/24"])
    );
    action(&admin, &p, "onboard_network_subnets", body.clone())
        .await
        .refused(400, "IllegalSubnetPoolUpdate");
    action(&admin, &p, "onboard_network_subnets", json!({}))
        .await
        .refused(400, "InvalidInput");
    let (user, _) = cloud.project("alpha", "member").await;
    action(&user, &p, "onboard_network_subnets", body)
        .await
        .refused(404, "SubnetPoolNotFound");
    admin.delete("subnets", &there["id"]).await.ok(204);
    let again = json!({"subnetpool_id": p["id"], "cidr": "10.50.0.0/25"});
    let third = admin.network(json!({})).await;
    try_subnet(&admin, &third, 4, again).await.ok(201);
    // A start reads the same space back.
    let password = cloud.password();
    cloud.server.stop().await.unwrap();
    let server = Server::start(cloud.config.clone()).await.unwrap();
    let nobody = Client {
        address: server.addresses.clients,
        token: None,
    };
    let admin = nobody.login("admin", &password, "admin").await;
    let taken = json!({"subnetpool_id": p["id"], "cidr": "10.50.0.0/26"});
    try_subnet(&admin, &third, 4, taken)
        .await
        .refused(409, "SubnetAllocationError");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_s_prefixes_in_an_administrator_s_pool_stay_where_members_may() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let (user, project) = cloud.project("alpha", "member").await;
    // Bring your own IP: the administrator makes the pool, for the customer.
    let theirs = json!({"project_id": project, "default_prefixlen": 26});
    let p = pool(&admin, &["203.0.113.0/24"], theirs).await;
    let network = user.network(json!({})).await;
    try_subnet(&user, &network, 4, json!({"subnetpool_id": p["id"]}))
        .await
        .ok(201);
    let foreign = json!({"prefixes": ["198.51.100.0/24"]});
    action(&user, &p, "add_prefixes", foreign.clone())
        .await
        .refused(403, "PolicyNotAuthorized");
    action(
        &user,
        &p,
        "add_prefixes",
        json!({"prefixes": ["10.8.0.0/16"]}),
    )
    .await
    .ok(200);
    action(&admin, &p, "add_prefixes", foreign).await.ok(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_keep_prefixes_apart() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let scope = |version: u8| {
        admin.create(
            "address-scopes",
            "address_scope",
            json!({"name": "s", "ip_version": version}),
        )
    };
    let (v4, v6) = (scope(4).await, scope(6).await);
    admin
        .try_create("address-scopes", "address_scope", json!({"ip_version": 5}))
        .await
        .refused(400, "HTTPBadRequest");
    assert!(v4.get("revision_number").is_none());
    let in_scope = |s: &Value| json!({"address_scope_id": s["id"], "default_prefixlen": 24});
    pool(&admin, &["10.4.0.0/16"], in_scope(&v4)).await;
    try_pool(&admin, &["10.4.9.0/24"], in_scope(&v4))
        .await
        .refused(409, "AddressScopePrefixConflict");
    let wrong = "IllegalSubnetPoolIpVersionAssociationToAddressScope";
    try_pool(&admin, &["10.5.0.0/16"], in_scope(&v6))
        .await
        .refused(400, wrong);
    let nowhere = json!({"address_scope_id": "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d"});
    try_pool(&admin, &["10.5.0.0/16"], nowhere)
        .await
        .refused(404, "AddressScopeNotFound");
    let b = pool(&admin, &["10.5.0.0/16"], in_scope(&v4)).await;
    action(
        &admin,
        &b,
        "add_prefixes",
        json!({"prefixes": ["10.4.0.0/20"]}),
    )
    .await
    .refused(409, "AddressScopePrefixConflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_in_one_scope() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let scope = || admin.create("address-scopes", "address_scope", json!({"ip_version": 4}));
    let (v4, other) = (scope().await, scope().await);
    let in_scope = |s: &Value| json!({"address_scope_id": s["id"], "default_prefixlen": 24});
    let a = pool(&admin, &["10.4.0.0/16"], in_scope(&v4)).await;
    let b = pool(&admin, &["10.5.0.0/16"], in_scope(&v4)).await;
    let outside = pool(&admin, &["10.6.0.0/16"], json!({"default_prefixlen": 24})).await;
    let network = admin.network(json!({})).await;
    for p in [&a, &b] {
        try_subnet(&admin, &network, 4, json!({"subnetpool_id": p["id"]}))
            .await
            .ok(201);
    }
    let shown = admin.show("networks", &network["id"]).await.ok(200)["network"].clone();
    assert_eq!(
        (&shown["ipv4_address_scope"], &shown["ipv6_address_scope"]),
        (&v4["id"], &Value::Null)
    );
    try_subnet(&admin, &network, 4, json!({"subnetpool_id": outside["id"]}))
        .await
        .refused(400, "NetworkAddressScopeAffinityError");
    change(&admin, &a, json!({"address_scope_id": other["id"]}))
        .await
        .refused(400, "NetworkAddressScopeAffinityError");
    admin
        .delete("address-scopes", &v4["id"])
        .await
        .refused(409, "AddressScopeInUse");
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_scopes_are_seen_and_used_and_stay_shared() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let in_scope = |s: &Value| json!({"address_scope_id": s["id"], "default_prefixlen": 24});
    let other = admin
        .create("address-scopes", "address_scope", json!({"ip_version": 4}))
        .await;
    let update = |s: &Value, more| {
        let id = s["id"].clone();
        let admin = admin.clone();
        async move {
            admin
                .update("address-scopes", "address_scope", &id, more)
                .await
        }
    };
    let (user, _) = cloud.project("alpha", "member").await;
    user.show("address-scopes", &other["id"])
        .await
        .refused(404, "AddressScopeNotFound");
    try_pool(&user, &["10.40.0.0/16"], in_scope(&other))
        .await
        .refused(404, "AddressScopeNotFound");
    update(&other, json!({"shared": true, "name": "all"}))
        .await
        .ok(200);
    let mine = pool(&user, &["10.40.0.0/16"], in_scope(&other)).await;
    change(&user, &mine, json!({"name": "x"}))
        .await
        .refused(400, "IllegalSubnetPoolUpdate");
    update(&other, json!({"shared": false}))
        .await
        .refused(400, "AddressScopeUpdateError");
    user.try_create(
        "address-scopes",
        "address_scope",
        json!({"ip_version": 4, "shared": true}),
    )
    .await
    .refused(403, "PolicyNotAuthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn service_types_choose_subnets_by_owner() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let network = admin.network(json!({})).await;
    let routers =
        json!({"service_types": ["network:router_gateway", "network:floatingip_agent_gateway"]});
    let first = admin.subnet(&network, "10.1.0.0/24", routers).await;
    assert_eq!(first["service_types"][0], "network:router_gateway");
    let owner = |owner: &str| admin.try_port(&network, json!({"device_owner": owner}));
    owner("compute:nova")
        .await
        .refused(409, "IpAddressGenerationFailureNoMatchingSubnet");
    let address = |answer: Answer| addresses(&answer.ok(201)["port"])[0].clone();
    assert!(address(owner("network:router_gateway").await).starts_with("10.1.0."));
    assert!(address(owner("network:dhcp").await).starts_with("10.1.0."));
    let plain = admin.subnet(&network, "10.2.0.0/24", json!({})).await;
    let compute = json!({"service_types": ["compute:nova"]});
    admin.subnet(&network, "10.3.0.0/24", compute).await;
    for _ in 0..4 {
        assert!(
            address(owner("compute:nova").await).starts_with("10.3.0."),
            "its own come first"
        );
        assert!(address(owner("").await).starts_with("10.2.0."));
    }
    let wanted = json!({"fixed_ips": [{"subnet_id": first["id"]}]});
    admin
        .try_port(&network, wanted)
        .await
        .refused(400, "InvalidInput");
    let changed = admin
        .update(
            "subnets",
            "subnet",
            &plain["id"],
            json!({"service_types": ["compute:az2"]}),
        )
        .await
        .ok(200);
    assert_eq!(changed["subnet"]["service_types"], json!(["compute:az2"]));
    owner("")
        .await
        .refused(409, "IpAddressGenerationFailureNoMatchingSubnet");
    for (types, kind) in [
        (json!(["nonsense"]), "InvalidSubnetServiceType"),
        (json!([7]), "InvalidInputSubnetServiceType"),
    ] {
        admin
            .update(
                "subnets",
                "subnet",
                &plain["id"],
                json!({"service_types": types}),
            )
            .await
            .refused(400, kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_subnet_gives_addresses_to_those_that_it_is_for() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let v6 = admin.network(json!({})).await;
    let port = admin
        .port(&v6, json!({"device_owner": "compute:nova"}))
        .await;
    let mut other = slaac();
    other["service_types"] = json!(["network:dhcp"]);
    admin.subnet(&v6, "2001:db8:1::/64", other).await;
    admin.subnet(&v6, "2001:db8:2::/64", slaac()).await;
    let port = admin.show("ports", &port["id"]).await.ok(200);
    let all = addresses(&port["port"]);
    assert!(
        all.len() == 1 && all[0].starts_with("2001:db8:2:"),
        "{all:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_told() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let listed = admin.get("/networking/v2.0/extensions").await.ok(200);
    let aliases: BTreeSet<_> = listed["extensions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["alias"].as_str().unwrap())
        .collect();
    for alias in [
        "subnet_allocation",
        "default-subnetpools",
        "subnetpool-prefix-ops",
        "subnet_onboard",
        "address-scope",
        "subnet-service-types",
        "rbac-policies",
        "rbac-subnetpool",
        "rbac-address-scope",
        "rbac-security-groups",
    ] {
        assert!(aliases.contains(alias), "{alias}");
    }
    let p = pool(&admin, &["10.0.0.0/8"], json!({"tags": ["blue"]})).await;
    let tags = format!(
        "/networking/v2.0/subnetpools/{}/tags/green",
        p["id"].as_str().unwrap()
    );
    admin.send("PUT", &tags, None).await.ok(201);
    let listed = admin
        .get("/networking/v2.0/subnetpools?tags=blue,green")
        .await
        .ok(200);
    assert_eq!(listed["subnetpools"][0]["revision_number"], json!(2));
    let document = admin.get("/networking/openapi.json").await.ok(200);
    assert!(document["paths"]["/v2.0/subnetpools/{id}"]["put"].is_object());
    assert!(
        document["components"]["schemas"]["subnet_create"]["properties"]["prefixlen"].is_object()
    );
    assert!(
        document["components"]["schemas"]["subnet"]["properties"]
            .get("prefixlen")
            .is_none()
    );
}
