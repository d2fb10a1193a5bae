//! Subnet pools, address scopes, service types and RBAC policies by the client's commands.

use serde_json::{Value, json};

use super::Session;

pub fn pools(os: &mut Session) {
    let pool = os.json(
        "subnet pool create public --pool-prefix 2a00:1450:4000::/48 --min-prefix-length 56 \
         --default-prefix-length 64 --max-prefix-length 64 --default-quota 20 --share --default \
         --description public --tag blue",
    );
    assert_eq!(
        (
            &pool["ip_version"],
            &pool["default_prefixlen"],
            &pool["shared"]
        ),
        (&json!(6), &json!(64), &json!(true))
    );
    os.quiet(
        "subnet pool set public --pool-prefix 2a00:1450:4001::/48 --default-quota 30 --tag green",
    );
    let shown = os.json("subnet pool show public");
    assert_eq!(shown["prefixes"], json!(["2a00:1450:4000::/47"]));
    assert_eq!(
        (&shown["default_quota"], &shown["tags"]),
        (&json!(30), &json!(["blue", "green"]))
    );
    os.quiet("subnet pool unset public --tag blue");
    assert_eq!(
        os.list(
            "subnet pool list --default --share --tags green --long",
            |_| true
        ),
        1
    );
    subnets(os, &pool["id"]);
    for words in [
        "network delete pooled",
        "subnet pool set public --no-default",
        "subnet pool delete public",
    ] {
        os.quiet(words);
    }
    assert_eq!(os.json("subnet pool list"), json!([]));
}

fn subnets(os: &mut Session, pool: &Value) {
    os.json("network create pooled");
    let subnet = os.json(
        "subnet create first --network pooled --subnet-pool public --ip-version 6 \
         --ipv6-ra-mode slaac --ipv6-address-mode slaac",
    );
    assert_eq!(
        (&subnet["cidr"], &subnet["subnetpool_id"]),
        (&json!("2a00:1450:4000::/64"), pool)
    );
    let second = os.json(
        "subnet create second --network pooled --use-default-subnet-pool --ip-version 6 \
         --prefix-length 60",
    );
    assert_eq!(second["cidr"], "2a00:1450:4000:10::/60");
    let chosen = os.json(
        "subnet create third --network pooled --subnet-pool public --ip-version 6 \
         --subnet-range 2a00:1450:4000:ff::/64 --service-type compute:nova",
    );
    assert_eq!(
        (&chosen["cidr"], &chosen["service_types"]),
        (&json!("2a00:1450:4000:ff::/64"), &json!(["compute:nova"]))
    );
    os.quiet("subnet set third --service-type network:dhcp");
    os.quiet("subnet unset third --service-type compute:nova");
    assert_eq!(
        os.json("subnet show third")["service_types"],
        json!(["network:dhcp"])
    );
    assert_eq!(os.list("subnet list --subnet-pool public", |_| true), 3);
    let words = os.fails("subnet create fourth --network pooled --subnet-pool public --ip-version 6 --prefix-length 48");
    assert!(words.contains("minimum allowed prefix is 56"), "{words}");
    let words = os.fails("subnet pool delete public");
    assert!(words.contains("existing allocations"), "{words}");
}

pub fn scopes(os: &mut Session) {
    let scope = os.json("address scope create inside --ip-version 6 --share");
    assert_eq!(
        (&scope["ip_version"], &scope["shared"]),
        (&json!(6), &json!(true))
    );
    os.quiet("address scope set inside --name everywhere");
    assert_eq!(os.json("address scope show everywhere")["id"], scope["id"]);
    assert_eq!(
        os.list("address scope list --share --ip-version 6", |s| s["Name"]
            == "everywhere"),
        1
    );
    let pool = os
        .json("subnet pool create p --pool-prefix 2a00:1450:4000::/48 --address-scope everywhere");
    assert_eq!(pool["address_scope_id"], scope["id"]);
    os.json("network create scoped");
    os.json("subnet create s --network scoped --subnet-pool p --ip-version 6");
    let network = os.json("network show scoped");
    assert_eq!(network["ipv6_address_scope"], scope["id"]);
    let words = os.fails("address scope delete everywhere");
    assert!(words.contains("subnet pools in use"), "{words}");
    os.quiet("network delete scoped");
    os.quiet("subnet pool set p --no-address-scope");
    os.quiet("address scope delete everywhere");
    os.quiet("subnet pool delete p");
}

pub fn sharing(os: &mut Session) {
    let project = os.json("project create gamma")["id"].clone();
    os.json("network create given");
    let policy = os.json(
        "network rbac create given --type network --action access_as_shared --target-project gamma",
    );
    assert_eq!(policy["target_project_id"], project);
    let id = policy["id"].as_str().unwrap();
    os.quiet("project create delta");
    os.quiet(&format!("network rbac set {id} --target-project delta"));
    let shown = os.json(&format!("network rbac show {id}"));
    assert_ne!(shown["target_project_id"], project);
    assert_eq!(
        os.list(
            "network rbac list --type network --action access_as_shared",
            |_| true
        ),
        1
    );
    let all = os.json(
        "network rbac create given --type network --action access_as_external --target-all-projects",
    );
    assert_eq!(
        os.json("network show given")["router:external"],
        json!(true)
    );
    os.quiet(&format!(
        "network rbac delete {id} {}",
        all["id"].as_str().unwrap()
    ));
    assert_eq!(
        os.json("network show given")["router:external"],
        json!(false)
    );
    os.json("subnet pool create given --pool-prefix 10.0.0.0/8");
    os.json("address scope create given");
    os.json("security group create given");
    for kind in ["subnetpool", "address_scope", "security_group"] {
        os.json(&format!(
            "network rbac create given --type {kind} --action access_as_shared --target-project gamma"
        ));
    }
    assert_eq!(os.list("network rbac list", |_| true), 3);
    os.quiet("quota set gamma --subnetpools 5 --rbac-policies 6");
    let limit = |q: &Value| {
        let limits = [("subnet_pools", 5), ("rbac_policies", 6)];
        limits
            .iter()
            .any(|(name, limit)| q["Resource"] == *name && q["Limit"] == json!(limit))
    };
    let quota = os.json("quota show gamma --network");
    let set = quota.as_array().unwrap().iter().filter(|q| limit(q));
    assert_eq!(set.count(), 2, "{quota}");
    for words in [
        "subnet pool delete given",
        "address scope delete given",
        "security group delete given",
        "network delete given",
        "project delete gamma delta",
    ] {
        os.quiet(words);
    }
    assert_eq!(os.json("network rbac list"), json!([]));
}

pub fn groups(os: &mut Session) {
    let made = os.json("address group create offices --address 10.0.0.7 --address 2001:db8::/64");
    assert_eq!(made["addresses"], json!(["10.0.0.7/32", "2001:db8::/64"]));
    os.quiet("address group set offices --address 192.0.2.0/24 --description d --name homes");
    os.quiet("address group unset homes --address 10.0.0.7");
    let shown = os.json("address group show homes");
    assert_eq!(shown["addresses"], json!(["192.0.2.0/24", "2001:db8::/64"]));
    os.json("security group create named");
    let rule = os.json("security group rule create named --remote-address-group homes");
    assert_eq!(rule["remote_address_group_id"], made["id"]);
    let words = os.fails("address group delete homes");
    assert!(
        words.contains("in use on one or more security group rules"),
        "{words}"
    );
    os.quiet("security group delete named");
    os.quiet("address group delete homes");
    assert_eq!(os.json("address group list"), json!([]));
}
