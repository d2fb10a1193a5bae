//! The networking API over a real listener.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cloud;

use cloud::{TestCloud, addresses, slaac};
use hextet_server::StoreKind;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_port_gets_an_address_of_each_family_and_shows_it() {
    let cloud = TestCloud::start(StoreKind::Redb).await;
    let admin = cloud.admin().await;
    let network = admin.network(json!({"name": "IPv6", "shared": true})).await;
    assert_eq!(network["provider:network_type"], "routed");
    assert_eq!(network["l2_adjacency"], json!(false));
    admin.subnet(&network, "2001:db8:1::/64", slaac()).await;
    admin
        .subnet(&network, "10.1.0.0/24", json!({"name": "v4"}))
        .await;
    let (user, project) = cloud.project("alpha", "member").await;
    let port = user
        .port(&network, json!({"name": "web", "device_id": "vm-1"}))
        .await;
    assert_eq!(port["project_id"], json!(project));
    assert_eq!(port["status"], "DOWN");
    assert!(
        port["mac_address"]
            .as_str()
            .unwrap()
            .starts_with("fa:16:3e:")
    );
    let [v4, v6] = addresses(&port).try_into().unwrap();
    assert!(v4.starts_with("10.1.0.") && v4 != "10.1.0.1", "{v4}");
    assert!(
        v6.starts_with("2001:db8:1:0:f816:3eff:fe") || v6.starts_with("2001:db8:1::"),
        "{v6}"
    );
    assert_eq!(
        port["security_groups"].as_array().unwrap().len(),
        1,
        "the default group"
    );
    assert!(
        port.get("binding:host_id").is_none(),
        "where it is plugged is the operator's"
    );
    let bound = admin
        .update(
            "ports",
            "port",
            &port["id"],
            json!({"binding:host_id": "h1"}),
        )
        .await;
    let bound = bound.ok(200)["port"].clone();
    assert_eq!(bound["binding:vif_type"], "tap");
    assert_eq!(bound["revision_number"], json!(2));
    admin.delete("ports", &port["id"]).await.ok(204);
    admin
        .show("ports", &port["id"])
        .await
        .refused(404, "PortNotFound");
    cloud.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_do_not_see_each_other() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (alpha, _) = cloud.project("alpha", "member").await;
    let (beta, _) = cloud.project("beta", "member").await;
    let network = alpha.network(json!({"name": "mine"})).await;
    let group = alpha
        .create("security-groups", "security_group", json!({"name": "web"}))
        .await;
    beta.show("networks", &network["id"])
        .await
        .refused(404, "NetworkNotFound");
    beta.delete("networks", &network["id"])
        .await
        .refused(404, "NetworkNotFound");
    beta.update("networks", "network", &network["id"], json!({"name": "x"}))
        .await
        .refused(404, "NetworkNotFound");
    beta.try_port(&network, json!({}))
        .await
        .refused(404, "NetworkNotFound");
    beta.show("security-groups", &group["id"])
        .await
        .refused(404, "SecurityGroupNotFound");
    let listed = beta.get("/networking/v2.0/networks").await.ok(200);
    assert_eq!(listed["networks"], json!([]));
    // What is shared is seen, but not changed.
    let admin = cloud.admin().await;
    admin
        .update(
            "networks",
            "network",
            &network["id"],
            json!({"shared": true}),
        )
        .await
        .ok(200);
    let seen = beta.show("networks", &network["id"]).await.ok(200);
    assert!(seen["network"].get("provider:network_type").is_none());
    beta.update("networks", "network", &network["id"], json!({"name": "x"}))
        .await
        .refused(403, "PolicyNotAuthorized");
    let fixed = json!({"fixed_ips": [{"ip_address": "10.0.0.9"}]});
    beta.try_port(&network, fixed)
        .await
        .refused(403, "PolicyNotAuthorized");
    beta.try_port(&network, json!({"mac_address": "fa:16:3e:00:00:01"}))
        .await
        .refused(403, "PolicyNotAuthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_reads() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (member, project) = cloud.project("alpha", "member").await;
    let admin = cloud.admin().await;
    let reader = cloud
        .user(&admin, "carol", &project, "alpha", "reader")
        .await;
    let network = member.network(json!({"name": "mine"})).await;
    reader.show("networks", &network["id"]).await.ok(200);
    reader
        .try_create("networks", "network", json!({}))
        .await
        .refused(403, "PolicyNotAuthorized");
    reader
        .delete("networks", &network["id"])
        .await
        .refused(403, "PolicyNotAuthorized");
    cloud
        .anybody()
        .get("/networking/v2.0/networks")
        .await
        .refused(401, "HTTPUnauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_uses_only_one_single_homed_network() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let single = |name: &str| json!({"name": name, "shared": true, "hextet:single_homed": true});
    let v6 = admin.network(single("IPv6")).await;
    let dual = admin.network(single("dualStack")).await;
    let other = admin
        .network(json!({"name": "other", "shared": true}))
        .await;
    let (user, _) = cloud.project("alpha", "member").await;
    let first = user.port(&v6, json!({"device_id": "vm-1"})).await;
    for network in [&dual, &v6] {
        let again = user.try_port(network, json!({"device_id": "vm-1"})).await;
        let words = again.refused(409, "SingleHomedNetworksConflict");
        assert!(
            words.contains("uses only one of 'IPv6' and 'dualStack'")
                || words.contains("uses only one of 'dualStack' and 'IPv6'"),
            "{words}"
        );
    }
    user.port(&other, json!({"device_id": "vm-1"})).await;
    user.port(&dual, json!({"device_id": "vm-2"})).await;
    // At update, too: the second port is given to the first one's instance.
    let loose = user.port(&dual, json!({})).await;
    let taken = json!({"device_id": "vm-1", "device_owner": "compute:nova"});
    user.update("ports", "port", &loose["id"], taken.clone())
        .await
        .refused(409, "SingleHomedNetworksConflict");
    user.delete("ports", &first["id"]).await.ok(204);
    user.update("ports", "port", &loose["id"], taken)
        .await
        .ok(200);
    // Another project's instance of the same name is another instance.
    let (beta, _) = cloud.project("beta", "member").await;
    beta.port(&v6, json!({"device_id": "vm-1"})).await;
    admin
        .update(
            "networks",
            "network",
            &v6["id"],
            json!({"hextet:single_homed": false}),
        )
        .await
        .refused(409, "NetworkInUse");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_a_network_goes_to_the_default_one() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let (user, _) = cloud.project("alpha", "member").await;
    user.try_create("ports", "port", json!({}))
        .await
        .refused(400, "HTTPBadRequest");
    let network = json!({"name": "IPv6", "shared": true, "is_default": true});
    let network = admin.network(network).await;
    let port = user.create("ports", "port", json!({})).await;
    assert_eq!(port["network_id"], network["id"]);
    admin
        .try_create("networks", "network", json!({"is_default": true}))
        .await
        .refused(409, "DefaultExternalNetworkExists");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_slaac_subnet_gives_every_port_an_address_and_takes_it_when_it_goes() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let network = admin.network(json!({"name": "n"})).await;
    admin.subnet(&network, "10.0.0.0/24", json!({})).await;
    let port = admin
        .port(&network, json!({"mac_address": "fa:16:3e:aa:bb:cc"}))
        .await;
    assert_eq!(addresses(&port).len(), 1);
    let subnet = admin.subnet(&network, "2001:db8:5::/64", slaac()).await;
    let port = admin.show("ports", &port["id"]).await.ok(200)["port"].clone();
    assert!(
        addresses(&port).contains(&"2001:db8:5:0:f816:3eff:feaa:bbcc".to_owned()),
        "{port}"
    );
    let wrong = json!({"fixed_ips": [{"subnet_id": subnet["id"], "ip_address": "2001:db8:5::9"}]});
    admin
        .try_port(&network, wrong)
        .await
        .refused(400, "AllocationOnAutoAddressSubnet");
    admin.delete("subnets", &subnet["id"]).await.ok(204);
    let port = admin.show("ports", &port["id"]).await.ok(200)["port"].clone();
    assert_eq!(addresses(&port).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn subnets_never_overlap_in_one_routing_domain() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let (a, b) = (
        admin.network(json!({})).await,
        admin.network(json!({})).await,
    );
    admin.subnet(&a, "10.0.0.0/16", json!({})).await;
    for (network, cidr) in [(&a, "10.0.5.0/24"), (&b, "10.0.0.0/8")] {
        let body = json!({"network_id": network["id"], "ip_version": 4, "cidr": cidr});
        let words = admin
            .try_create("subnets", "subnet", body)
            .await
            .refused(400, "InvalidInput");
        assert!(words.contains("overlaps with another subnet"), "{words}");
    }
    let bulk = json!({"subnets": [
        {"network_id": a["id"], "ip_version": 4, "cidr": "10.9.0.0/24"},
        {"network_id": b["id"], "ip_version": 4, "cidr": "10.9.0.0/25"},
    ]});
    admin
        .post("/networking/v2.0/subnets", bulk)
        .await
        .refused(400, "InvalidInput");
    let listed = admin.get("/networking/v2.0/subnets").await.ok(200);
    assert_eq!(
        listed["subnets"].as_array().unwrap().len(),
        1,
        "all or nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_modes_that_work_are_taken_and_others_refused() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let network = admin.network(json!({})).await;
    let modes = ["slaac", "dhcpv6-stateful", "dhcpv6-stateless"];
    let all: Vec<Value> = modes
        .iter()
        .map(|m| json!(m))
        .chain([Value::Null])
        .collect();
    for (i, ra) in all.iter().enumerate() {
        for (j, addresses) in all.iter().enumerate() {
            let body = json!({
                "network_id": network["id"], "ip_version": 6,
                "cidr": format!("2001:db8:{i}:{j}::/64"),
                "ipv6_ra_mode": ra, "ipv6_address_mode": addresses,
            });
            let works = ra == addresses || ra.is_null();
            let answer = admin.try_create("subnets", "subnet", body).await;
            assert_eq!(
                answer.status,
                if works { 201 } else { 400 },
                "{ra} {addresses}"
            );
        }
    }
    let long = json!({"network_id": network["id"], "ip_version": 6, "cidr": "2001:db8:9::/80",
                      "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"});
    admin
        .try_create("subnets", "subnet", long)
        .await
        .refused(400, "InvalidInput");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_groups_begin_with_what_neutron_gives_them() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (user, project) = cloud.project("alpha", "member").await;
    let listed = user.get("/networking/v2.0/security-groups").await.ok(200);
    let groups = listed["security_groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1);
    let default = &groups[0];
    assert_eq!(
        (&default["name"], &default["project_id"]),
        (&json!("default"), &json!(project))
    );
    let rules = |group: &Value| -> Vec<(String, String, bool)> {
        let mut all: Vec<_> = group["security_group_rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| {
                (
                    r["direction"].as_str().unwrap().to_owned(),
                    r["ethertype"].as_str().unwrap().to_owned(),
                    r["remote_group_id"] == group["id"],
                )
            })
            .collect();
        all.sort();
        all
    };
    let rule = |d: &str, e: &str, own| (d.to_owned(), e.to_owned(), own);
    let egress = [rule("egress", "IPv4", false), rule("egress", "IPv6", false)];
    let ingress = [rule("ingress", "IPv4", true), rule("ingress", "IPv6", true)];
    assert_eq!(rules(default), [egress.clone(), ingress].concat());
    let web = user
        .create("security-groups", "security_group", json!({"name": "web"}))
        .await;
    assert_eq!(rules(&web), egress);
    user.delete("security-groups", &default["id"])
        .await
        .refused(409, "SecurityGroupCannotRemoveDefault");
    user.try_create(
        "security-groups",
        "security_group",
        json!({"name": "Default"}),
    )
    .await
    .refused(409, "SecurityGroupDefaultAlreadyExists");
}

/// What a rule says, and the type that it is refused with.
fn impossible_rules(group: &Value) -> Vec<(Value, &'static str)> {
    vec![
        (
            json!({"port_range_min": 80, "port_range_max": 80}),
            "SecurityGroupProtocolRequiredWithPorts",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": 90, "port_range_max": 80}),
            "SecurityGroupInvalidPortRange",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": 0, "port_range_max": 80}),
            "SecurityGroupInvalidPortValue",
        ),
        (
            json!({"protocol": "gre", "port_range_min": 1, "port_range_max": 2}),
            "SecurityGroupInvalidProtocolForPort",
        ),
        (
            json!({"protocol": "icmp", "port_range_min": 256}),
            "SecurityGroupInvalidIcmpValue",
        ),
        (
            json!({"protocol": "icmp", "port_range_max": 1}),
            "SecurityGroupMissingIcmpType",
        ),
        (
            json!({"protocol": "ipv6-icmp"}),
            "SecurityGroupEthertypeConflictWithProtocol",
        ),
        (
            json!({"remote_ip_prefix": "2001:db8::/32"}),
            "SecurityGroupRuleParameterConflict",
        ),
        (json!({"remote_ip_prefix": "x"}), "InvalidCIDR"),
        (
            json!({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": group["id"]}),
            "SecurityGroupMultipleRemoteEntites",
        ),
        (
            json!({"protocol": "nonsense"}),
            "SecurityGroupRuleInvalidProtocol",
        ),
        (
            json!({"ethertype": "IPX"}),
            "SecurityGroupRuleInvalidEtherType",
        ),
        (
            json!({"protocol": "tcp", "port_range_min": -1, "port_range_max": 1}),
            "SecurityGroupInvalidPortValue",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_named_several_times_gives_as_many_addresses() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (user, _) = cloud.project("alpha", "member").await;
    let network = user.network(json!({})).await;
    let subnet = user.subnet(&network, "10.0.0.0/24", json!({})).await;
    let out_of_it = json!({"subnet_id": subnet["id"]});
    let twice = json!({"fixed_ips": [out_of_it, out_of_it]});
    let port = user.port(&network, twice).await;
    let ips = port["fixed_ips"].as_array().unwrap();
    assert_eq!(ips.len(), 2);
    assert_ne!(ips[0]["ip_address"], ips[1]["ip_address"]);
    let many = vec![out_of_it; 33];
    user.try_port(&network, json!({"fixed_ips": many}))
        .await
        .refused(400, "InvalidInput");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_cannot_be_are_refused_by_their_names() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (user, _) = cloud.project("alpha", "member").await;
    let group = user
        .create("security-groups", "security_group", json!({"name": "web"}))
        .await;
    let rule = |mut more: Value| {
        more["security_group_id"] = group["id"].clone();
        more["direction"] = json!("ingress");
        more
    };
    for (more, kind) in impossible_rules(&group) {
        user.try_create("security-group-rules", "security_group_rule", rule(more))
            .await
            .refused(400, kind);
    }
    let http = json!({"protocol": "TCP", "port_range_min": "80", "port_range_max": 80,
                      "remote_ip_prefix": "0.0.0.0/0"});
    let made = user
        .create(
            "security-group-rules",
            "security_group_rule",
            rule(http.clone()),
        )
        .await;
    assert_eq!(
        (&made["protocol"], &made["port_range_min"]),
        (&json!("tcp"), &json!(80))
    );
    user.try_create("security-group-rules", "security_group_rule", rule(http))
        .await
        .refused(409, "SecurityGroupRuleExists");
    let missing = json!({"remote_group_id": "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d"});
    user.try_create("security-group-rules", "security_group_rule", rule(missing))
        .await
        .refused(404, "SecurityGroupNotFound");
}

/// What a rule says, what is shown of it, and another way to say it that is one too many.
fn rules_as_written() -> Vec<(Value, Value, Value)> {
    let v6 = |protocol: &str| json!({"ethertype": "IPv6", "protocol": protocol});
    vec![
        (
            json!({"protocol": 6}),
            json!({"protocol": "6"}),
            json!({"protocol": "tcp"}),
        ),
        (
            json!({"protocol": "udp"}),
            json!({"protocol": "udp"}),
            json!({"protocol": "17"}),
        ),
        (
            json!({"protocol": "ip"}),
            json!({"protocol": "ip"}),
            json!({"protocol": 0}),
        ),
        (
            json!({"protocol": "hopopt"}),
            json!({"protocol": "hopopt"}),
            json!({"protocol": "hopopt"}),
        ),
        (v6("1"), v6("58"), v6("icmpv6")),
        (
            json!({"remote_ip_prefix": "10.1.2.3/24"}),
            json!({"remote_ip_prefix": "10.1.2.3/24", "normalized_cidr": "10.1.2.0/24"}),
            json!({"remote_ip_prefix": "10.1.2.3/255.255.255.0"}),
        ),
        (
            json!({"remote_ip_prefix": "10.1.2.0/24"}),
            json!({"remote_ip_prefix": "10.1.2.0/24", "normalized_cidr": "10.1.2.0/24"}),
            json!({"remote_ip_prefix": "10.1.2.0/24"}),
        ),
        (
            json!({"remote_ip_prefix": "10.1.2.3"}),
            json!({"remote_ip_prefix": "10.1.2.3/32", "normalized_cidr": "10.1.2.3/32"}),
            json!({"remote_ip_prefix": "10.1.2.3/32"}),
        ),
        (
            json!({"remote_ip_prefix": "0.0.0.0/0"}),
            json!({"remote_ip_prefix": "0.0.0.0/0", "normalized_cidr": "0.0.0.0/0"}),
            json!({"protocol": "any"}),
        ),
        (
            json!({"ethertype": "IPv6", "remote_ip_prefix": "2001:DB8::1/64"}),
            json!({"remote_ip_prefix": "2001:db8::1/64", "normalized_cidr": "2001:db8::/64"}),
            json!({"ethertype": "IPv6", "remote_ip_prefix": "2001:db8::1/64"}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_comes_back_in_the_words_of_its_author() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (user, _) = cloud.project("alpha", "member").await;
    let group = json!({"name": "web"});
    let group = user
        .create("security-groups", "security_group", group)
        .await;
    let rule = |mut more: Value| {
        more["security_group_id"] = group["id"].clone();
        more["direction"] = json!("ingress");
        more
    };
    let (path, name) = ("security-group-rules", "security_group_rule");
    for (said, shown, again) in rules_as_written() {
        let made = user.create(path, name, rule(said)).await;
        for (key, value) in shown.as_object().unwrap() {
            assert_eq!(made[key], *value, "{key}");
        }
        user.try_create(path, name, rule(again))
            .await
            .refused(409, "SecurityGroupRuleExists");
    }
    user.try_create(
        path,
        name,
        rule(json!({"protocol": "0", "port_range_min": 1, "port_range_max": 2})),
    )
    .await
    .refused(400, "SecurityGroupInvalidProtocolForPort");
    for (query, count) in [
        ("protocol=6", 1),
        ("protocol=tcp", 0),
        ("remote_ip_prefix=10.1.2.3/24", 1),
        ("remote_ip_prefix=10.1.2.0/24", 1),
    ] {
        let path = format!("/networking/v2.0/security-group-rules?{query}");
        let found = user.get(&path).await.ok(200);
        let found = found["security_group_rules"].as_array().unwrap().len();
        assert_eq!(found, count, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_stays() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (user, _) = cloud.project("alpha", "member").await;
    let network = user.network(json!({})).await;
    let subnet = user.subnet(&network, "10.0.0.0/24", json!({})).await;
    let group = user
        .create("security-groups", "security_group", json!({"name": "web"}))
        .await;
    let port = user
        .port(&network, json!({"security_groups": [group["id"]]}))
        .await;
    user.delete("networks", &network["id"])
        .await
        .refused(409, "NetworkInUse");
    user.delete("subnets", &subnet["id"])
        .await
        .refused(409, "SubnetInUse");
    user.delete("security-groups", &group["id"])
        .await
        .refused(409, "SecurityGroupInUse");
    user.delete("ports", &port["id"]).await.ok(204);
    user.delete("security-groups", &group["id"]).await.ok(204);
    // A network takes its subnets along.
    user.delete("networks", &network["id"]).await.ok(204);
    user.show("subnets", &subnet["id"])
        .await
        .refused(404, "SubnetNotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_take_addresses_and_sources_where_an_administrator_lets_them() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (user, _) = cloud.project("alpha", "member").await;
    let network = user.network(json!({})).await;
    let foreign = |version, cidr| json!({"subnet": {"network_id": network["id"], "ip_version": version, "cidr": cidr}});
    for (version, cidr) in [
        (4, "8.8.8.0/24"),
        (6, "2001:4860:4860::/64"),
        (4, "8.0.0.0/5"),
    ] {
        user.post("/networking/v2.0/subnets", foreign(version, cidr))
            .await
            .refused(403, "PolicyNotAuthorized");
    }
    user.subnet(&network, "10.0.0.0/24", json!({})).await;
    let port = user.port(&network, json!({})).await;
    let pair = |address| json!({"allowed_address_pairs": [{"ip_address": address}]});
    for address in ["0.0.0.0/0", "10.0.1.7", "10.0.0.0/23", "::/0"] {
        user.update("ports", "port", &port["id"], pair(address))
            .await
            .refused(403, "PolicyNotAuthorized");
    }
    user.update("ports", "port", &port["id"], pair("10.0.0.0/25"))
        .await
        .ok(200);
    let bare =
        json!({"port_security_enabled": false, "security_groups": [], "allowed_address_pairs": []});
    user.update("ports", "port", &port["id"], bare.clone())
        .await
        .refused(403, "PolicyNotAuthorized");
    let admin = cloud.admin().await;
    admin
        .update("ports", "port", &port["id"], bare)
        .await
        .ok(200);
    admin
        .post("/networking/v2.0/subnets", foreign(4, "8.8.8.0/24"))
        .await
        .ok(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn port_security_off_goes_with_neither_groups_nor_pairs() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let user = cloud.admin().await;
    let network = user.network(json!({})).await;
    let port = user.port(&network, json!({})).await;
    let off = json!({"port_security_enabled": false});
    user.update("ports", "port", &port["id"], off.clone())
        .await
        .refused(409, "PortSecurityPortHasSecurityGroup");
    let bare = json!({"port_security_enabled": false, "security_groups": []});
    user.update("ports", "port", &port["id"], bare)
        .await
        .ok(200);
    let pair = json!({"allowed_address_pairs": [{"ip_address": "10.0.0.0/24"}]});
    user.update("ports", "port", &port["id"], pair.clone())
        .await
        .refused(409, "AddressPairAndPortSecurityRequired");
    let on = json!({"port_security_enabled": true});
    user.update("ports", "port", &port["id"], on).await.ok(200);
    let paired = user
        .update("ports", "port", &port["id"], pair)
        .await
        .ok(200);
    assert_eq!(
        paired["port"]["allowed_address_pairs"][0]["mac_address"],
        port["mac_address"]
    );
    let eleven: Vec<_> = (0..11)
        .map(|i| json!({"ip_address": format!("10.0.0.{i}")}))
        .collect();
    user.update(
        "ports",
        "port",
        &port["id"],
        json!({"allowed_address_pairs": eleven}),
    )
    .await
    .refused(400, "AllowedAddressPairExhausted");
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_tags_and_lists_work_as_clients_expect() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (user, _) = cloud.project("alpha", "member").await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        ids.push(user.network(json!({"name": name})).await["id"].clone());
    }
    let first = user
        .get("/networking/v2.0/networks?limit=2&sort_key=name&sort_dir=asc")
        .await
        .ok(200);
    let names = |body: &Value| -> Vec<String> {
        let list = body["networks"].as_array().unwrap();
        list.iter()
            .map(|n| n["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&first), ["a", "b"]);
    let next = first["networks_links"][0]["href"].as_str().unwrap();
    let path = &next[next.find("/networking").unwrap()..];
    assert_eq!(names(&user.get(path).await.ok(200)), ["c", "d"]);
    let some = user
        .get("/networking/v2.0/networks?name=a&name=e&fields=name&sort_key=name")
        .await
        .ok(200);
    assert_eq!(some["networks"], json!([{"name": "a"}, {"name": "e"}]));
    user.get("/networking/v2.0/networks?colour=red")
        .await
        .refused(400, "HTTPBadRequest");

    let path = format!("/networking/v2.0/networks/{}", ids[0].as_str().unwrap());
    let body = json!({"network": {"description": "x"}});
    let stale = [("if-match", "revision_number=7")];
    user.request("PUT", &path, &stale, Some(body.clone()))
        .await
        .refused(412, "RevisionNumberConstraintFailed");
    let fresh = [("if-match", "revision_number=1")];
    let done = user.request("PUT", &path, &fresh, Some(body)).await.ok(200);
    assert_eq!(done["network"]["revision_number"], json!(2));

    let tags = format!("{path}/tags");
    user.send("PUT", &tags, Some(json!({"tags": ["red", "blue"]})))
        .await
        .ok(200);
    let more = Some(json!({"tags": ["red", "violet"]}));
    let added = user.send("POST", &tags, more).await.ok(201);
    assert_eq!(added, json!({"tags": ["red", "violet"]}));
    user.send("DELETE", &format!("{tags}/violet"), None)
        .await
        .ok(204);
    user.send("PUT", &format!("{tags}/green"), None)
        .await
        .ok(201);
    user.send("DELETE", &format!("{tags}/red"), None)
        .await
        .ok(204);
    user.send("DELETE", &format!("{tags}/red"), None)
        .await
        .refused(404, "TagNotFound");
    assert_eq!(
        user.get(&tags).await.ok(200),
        json!({"tags": ["blue", "green"]})
    );
    let found = user
        .get("/networking/v2.0/networks?tags=blue,green")
        .await
        .ok(200);
    assert_eq!(names(&found), ["a"]);
    let others = user
        .get("/networking/v2.0/networks?not-tags-any=blue")
        .await
        .ok(200);
    assert_eq!(others["networks"].as_array().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_bound_what_a_project_has() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let (user, project) = cloud.project("alpha", "member").await;
    let admin = cloud.admin().await;
    let path = format!("/networking/v2.0/quotas/{project}");
    let shown = user.get(&path).await.ok(200);
    assert_eq!(shown["quota"]["port"], json!(500));
    let limits = json!({"quota": {"network": 1, "port": 2, "public_ipv4": 1}});
    user.send("PUT", &path, Some(limits.clone()))
        .await
        .refused(403, "AdminRequired");
    admin.send("PUT", &path, Some(limits)).await.ok(200);
    let own = user.network(json!({})).await;
    let words = user
        .try_create("networks", "network", json!({}))
        .await
        .refused(409, "OverQuota");
    assert_eq!(words, "Quota exceeded for resources: ['network'].");
    // Whatever its owner says of itself, a port is a port.
    let service = json!({"device_owner": "network:dhcp"});
    let two = [
        user.port(&own, service.clone()).await,
        user.port(&own, service.clone()).await,
    ];
    let third = user.try_port(&own, service).await;
    third.refused(409, "OverQuota");
    for port in two {
        user.delete("ports", &port["id"]).await.ok(204);
    }
    // Public IPv4 is counted apart from ports.
    let dual = admin.network(json!({"shared": true})).await;
    admin.subnet(&dual, "192.0.2.0/24", json!({})).await;
    let private = admin.network(json!({"shared": true})).await;
    let pool = admin.network(json!({})).await;
    let pool = admin.subnet(&pool, "198.51.100.0/24", json!({})).await;
    let nat = json!({"hextet:nat44": {"pool_subnet_id": pool["id"]}});
    admin.subnet(&private, "10.0.0.0/16", nat).await;
    user.port(&dual, json!({})).await;
    let words = user
        .try_port(&dual, json!({}))
        .await
        .refused(409, "OverQuota");
    assert!(words.contains("'public_ipv4'"), "{words}");
    user.port(&private, json!({})).await;
    let bulk = json!({"ports": [{"network_id": private["id"]}, {"network_id": private["id"]}]});
    user.post("/networking/v2.0/ports", bulk)
        .await
        .refused(409, "OverQuota");
    let details = user.get(&format!("{path}/details.json")).await.ok(200);
    assert_eq!(
        details["quota"]["port"],
        json!({"limit": 2, "used": 2, "reserved": 0})
    );
    assert_eq!(details["quota"]["public_ipv4"]["used"], json!(1));
    let low = json!({"quota": {"port": 1, "check_limit": true}});
    admin
        .send("PUT", &path, Some(low))
        .await
        .refused(409, "InvalidQuotaValue");
    admin.send("DELETE", &path, None).await.ok(204);
    let shown = user.get(&path).await.ok(200);
    assert_eq!(shown["quota"]["network"], json!(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_requests_are_all_or_nothing_up_to_a_thousand() {
    let cloud = TestCloud::start(StoreKind::Redb).await;
    let admin = cloud.admin().await;
    let path = "/networking/v2.0/quotas/".to_owned();
    let projects = admin.get("/identity/v3/projects?name=admin").await.ok(200);
    let project = projects["projects"][0]["id"].as_str().unwrap();
    let unlimited = json!({"quota": {"port": -1}});
    admin
        .send("PUT", &format!("{path}{project}"), Some(unlimited))
        .await
        .ok(200);
    let network = admin.network(json!({"hextet:single_homed": true})).await;
    admin.subnet(&network, "10.0.0.0/16", json!({})).await;
    admin.subnet(&network, "2001:db8::/64", slaac()).await;
    let ports: Vec<_> = (0..1000)
        .map(|n| json!({"network_id": network["id"], "device_id": format!("vm-{n}")}))
        .collect();
    let made = admin
        .post("/networking/v2.0/ports", json!({"ports": ports}))
        .await
        .ok(201);
    let mut all: Vec<_> = made["ports"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(addresses)
        .collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 2000, "every address once");
    let more = vec![json!({"network_id": network["id"]}); 1001];
    let words = admin
        .post("/networking/v2.0/ports", json!({"ports": more}))
        .await
        .refused(400, "HTTPBadRequest");
    assert!(words.contains("at most 1000"), "{words}");
    let mixed = json!({"ports": [
        {"network_id": network["id"], "name": "good"},
        {"network_id": network["id"], "device_id": "vm-5"},
    ]});
    admin
        .post("/networking/v2.0/ports", mixed)
        .await
        .refused(409, "SingleHomedNetworksConflict");
    let listed = admin.get("/networking/v2.0/ports?name=good").await.ok(200);
    assert_eq!(listed["ports"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn requested_addresses_are_checked_and_kept_through_updates() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let network = admin.network(json!({})).await;
    let subnet = admin.subnet(&network, "10.0.0.0/24", json!({})).await;
    let ip = |a: &str| json!({"fixed_ips": [{"ip_address": a}]});
    let port = admin.port(&network, ip("10.0.0.9")).await;
    assert_eq!(
        port["fixed_ips"],
        json!([{"subnet_id": subnet["id"], "ip_address": "10.0.0.9"}])
    );
    admin
        .try_port(&network, ip("10.0.0.9"))
        .await
        .refused(409, "IpAddressInUse");
    admin
        .try_port(&network, ip("10.0.0.1"))
        .await
        .refused(409, "IpAddressInUse");
    admin
        .try_port(&network, ip("10.0.1.9"))
        .await
        .refused(400, "InvalidIpForNetwork");
    let outside = json!({"fixed_ips": [{"subnet_id": subnet["id"], "ip_address": "10.0.1.9"}]});
    admin
        .try_port(&network, outside)
        .await
        .refused(400, "InvalidIpForSubnet");
    let more = json!({"fixed_ips": [{"ip_address": "10.0.0.9"}, {"subnet_id": subnet["id"]}]});
    let port = admin
        .update("ports", "port", &port["id"], more)
        .await
        .ok(200)["port"]
        .clone();
    assert_eq!(addresses(&port).len(), 2);
    let port = admin
        .update("ports", "port", &port["id"], ip("10.0.0.10"))
        .await
        .ok(200)["port"]
        .clone();
    assert_eq!(addresses(&port), ["10.0.0.10"]);
    admin.port(&network, ip("10.0.0.9")).await;
    let mac = json!({"mac_address": "fa:16:3e:01:02:03"});
    admin
        .update("ports", "port", &port["id"], mac.clone())
        .await
        .ok(200);
    admin
        .try_port(&network, mac)
        .await
        .refused(409, "MacAddressInUse");
    let shown = admin.show("ports", &port["id"]).await.ok(200);
    assert_eq!(shown["port"]["mac_address"], "fa:16:3e:01:02:03");
    let found = admin
        .get("/networking/v2.0/ports?fixed_ips=ip_address%3D10.0.0.10")
        .await
        .ok(200);
    assert_eq!(found["ports"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nat44_pool_is_a_public_ipv4_subnet_and_stays_while_used() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let network = admin.network(json!({})).await;
    let pool = admin.subnet(&network, "198.51.100.0/24", json!({})).await;
    let v6 = admin.subnet(&network, "2001:db8::/64", slaac()).await;
    let body = |pool: &Value, cidr: &str| {
        json!({
            "network_id": network["id"], "cidr": cidr, "ip_version": 4,
            "hextet:nat44": {"pool_subnet_id": pool["id"], "addresses_per_host": 2},
        })
    };
    admin
        .try_create("subnets", "subnet", body(&v6, "10.0.0.0/24"))
        .await
        .refused(400, "InvalidInput");
    let private = admin
        .create("subnets", "subnet", body(&pool, "10.0.0.0/24"))
        .await;
    assert_eq!(
        private["hextet:nat44"]["max_connections_per_port"],
        json!(4096)
    );
    admin
        .try_create("subnets", "subnet", body(&private, "10.1.0.0/24"))
        .await
        .refused(400, "InvalidInput");
    admin
        .delete("subnets", &pool["id"])
        .await
        .refused(409, "SubnetInUse");
    admin
        .update(
            "subnets",
            "subnet",
            &private["id"],
            json!({"hextet:nat44": null}),
        )
        .await
        .ok(200);
    admin.delete("subnets", &pool["id"]).await.ok(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_refused_and_not_left_out() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let network = json!({"availability_zone_hints": ["nova"]});
    let network = admin.network(network).await;
    assert_eq!(network["availability_zone_hints"], json!(["nova"]));
    let elsewhere = json!({"availability_zone_hints": ["elsewhere"]});
    let answer = admin.try_create("networks", "network", elsewhere).await;
    answer.refused(404, "AvailabilityZoneNotFound");
    let unknown = json!({"a": 1, "b": 2});
    let answer = admin.try_create("networks", "network", unknown).await;
    let words = answer.refused(400, "HTTPBadRequest");
    assert_eq!(words, "Unrecognized attribute(s) 'a, b'");
    let pool = "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d";
    let of = |cidr: &str| json!({"network_id": network["id"], "ip_version": 4, "cidr": cidr});
    let mut pooled = of("10.0.0.0/24");
    pooled["subnetpool_id"] = json!(pool);
    let answer = admin.try_create("subnets", "subnet", pooled).await;
    answer.refused(404, "SubnetPoolNotFound");
    let link_local = of("169.254.0.0/16");
    let answer = admin.try_create("subnets", "subnet", link_local).await;
    answer.refused(400, "InvalidInput");
    for (name, value, words) in [
        ("no-such", "1", "use its name as in"),
        ("mtu", "wide", "it needs"),
    ] {
        let port = json!({"extra_dhcp_opts": [{"opt_name": name, "opt_value": value}]});
        let answer = admin.try_port(&network, port).await;
        let said = answer.refused(400, "InvalidInput");
        assert!(said.contains(words), "{said}");
    }
    let answer = admin.try_port(&network, json!({"dns_name": "web 1"})).await;
    answer.refused(400, "HTTPBadRequest");
    let port = admin.port(&network, json!({"tags": ["a"]})).await;
    let path = format!("/networking/v2.0/ports/{}", port["id"].as_str().unwrap());
    let twice = Some(json!({"tags": ["b", "b"]}));
    let answer = admin.send("PUT", &format!("{path}/tags"), twice).await;
    answer.refused(400, "InvalidInput");
    let slaac = cloud::slaac();
    admin.subnet(&network, "2001:db8::/64", slaac).await;
    let other = json!({"port": {"fixed_ips": [{"ip_address": "2001:db8::5"}]}});
    let answer = admin.send("PUT", &path, Some(other)).await;
    answer.refused(400, "AllocationOnAutoAddressSubnet");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_tells_about_itself() {
    let cloud = TestCloud::start(StoreKind::Memory).await;
    let admin = cloud.admin().await;
    let anybody = cloud.anybody();
    let versions = anybody.get("/networking/").await.ok(200);
    assert_eq!(versions["versions"][0]["id"], "v2.0");
    let versions = anybody.get("/networking").await.ok(200);
    let href = versions["versions"][0]["links"][0]["href"]
        .as_str()
        .unwrap();
    assert_eq!(
        href,
        format!("http://{}/networking/v2.0/", cloud.server.addresses.clients)
    );
    let document = anybody.get("/networking/openapi.json").await.ok(200);
    assert!(document["paths"]["/v2.0/ports"]["post"].is_object());
    let extensions = admin.get("/networking/v2.0/extensions").await.ok(200);
    assert!(extensions["extensions"].as_array().unwrap().len() > 30);
    admin
        .get("/networking/v2.0/extensions/port-security")
        .await
        .ok(200);
    admin
        .get("/networking/v2.0/extensions/enable-default-route-bfd")
        .await
        .refused(404, "ExtensionsNotFound");
    admin
        .get("/networking/v2.0/trunks")
        .await
        .refused(404, "HTTPNotFound");
    let zones = admin
        .get("/networking/v2.0/availability_zones")
        .await
        .ok(200);
    assert_eq!(zones["availability_zones"].as_array().unwrap().len(), 2);
    let network = admin.network(json!({"name": "n"})).await;
    admin.subnet(&network, "10.0.0.0/29", json!({})).await;
    admin.port(&network, json!({})).await;
    let path = format!(
        "/networking/v2.0/network-ip-availabilities/{}",
        network["id"].as_str().unwrap()
    );
    let shown = admin.get(&path).await.ok(200)["network_ip_availability"].clone();
    assert_eq!(
        (&shown["total_ips"], &shown["used_ips"]),
        (&json!(5), &json!(1))
    );
    let metrics = cloud::Client {
        address: cloud.server.addresses.metrics,
        token: None,
    };
    let text = metrics.get("/metrics").await.ok(200);
    assert!(
        text.as_str()
            .unwrap()
            .contains("hextet_server_things{kind=\"ports\"} 1"),
        "{text}"
    );
}
