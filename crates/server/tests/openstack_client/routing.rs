//! Routers, floating IPs, port forwardings and NDP proxies by the client's commands.

use serde_json::json;

use super::Session;

fn external(os: &mut Session) {
    os.json("network create ext --external");
    os.json("subnet create ext-v4 --network ext --subnet-range 203.0.113.0/24 --no-dhcp");
    os.json("network create inside --provider-network-type vxlan");
    os.json("subnet create inside-v4 --network inside --subnet-range 10.20.0.0/24");
}

fn tidy(os: &mut Session) {
    for words in ["network delete inside", "network delete ext"] {
        os.quiet(words);
    }
}

pub fn routers(os: &mut Session) {
    external(os);
    let made = os.json("router create r --external-gateway ext --description edge --tag blue");
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!(made["external_gateway_info"]["enable_snat"], json!(true));
    os.quiet("router add subnet r inside-v4");
    os.json("port create extra --network inside");
    let words = os.fails("router add port r extra");
    assert!(words.contains("already has a port on subnet"), "{words}");
    let shown = os.json("router show r");
    assert_eq!(shown["interfaces_info"][0]["ip_address"], "10.20.0.1");
    os.quiet("router set r --name s --disable-snat --external-gateway ext --fixed-ip ip-address=203.0.113.77");
    let info = os.json("router show s")["external_gateway_info"].clone();
    assert_eq!(
        (
            &info["enable_snat"],
            &info["external_fixed_ips"][0]["ip_address"]
        ),
        (&json!(false), &json!("203.0.113.77"))
    );
    os.quiet("router set s --route destination=192.0.2.0/24,gateway=10.20.0.7");
    os.json("router add route s --route destination=192.0.2.0/24,gateway=10.20.0.8");
    assert_eq!(
        os.json("router show s")["routes"].as_array().unwrap().len(),
        2
    );
    let words = os.fails("router remove subnet s inside-v4");
    assert!(words.contains("required by one or more routes"), "{words}");
    os.json("router remove route s --route destination=192.0.2.0/24,gateway=10.20.0.8");
    os.quiet("router unset s --route destination=192.0.2.0/24,gateway=10.20.0.7");
    assert_eq!(os.list("router list --name s --tags blue", |_| true), 1);
    assert_eq!(os.list(&format!("port list --router {id}"), |_| true), 2);
    let words = os.fails("router delete s");
    assert!(words.contains("has ports still attached"), "{words}");
    os.quiet("router unset s --external-gateway");
    assert_eq!(
        os.json("router show s")["external_gateway_info"],
        json!(null)
    );
    // The client says beforehand that no gateway is to go.
    os.quiet("router set s --route destination=192.0.2.0/24,gateway=10.20.0.7");
    os.quiet("router unset s --route destination=192.0.2.0/24,gateway=10.20.0.7");
    for words in [
        "router remove subnet s inside-v4",
        "router add port s extra",
        "router remove port s extra",
        "router delete s",
    ] {
        os.quiet(words);
    }
    assert_eq!(os.json("router list"), json!([]));
    tidy(os);
}

/// The client sends what it says of gateways in requests of their own.
pub fn several_gateways(os: &mut Session) {
    external(os);
    os.json("network create ext2 --external");
    os.json("subnet create ext2-v4 --network ext2 --subnet-range 198.51.100.0/24 --no-dhcp");
    let of = |os: &mut Session| -> Vec<String> {
        let shown = os.json("router show r");
        let all = shown["external_gateways"].as_array().unwrap().clone();
        let address = |g: &serde_json::Value| g["external_fixed_ips"][0]["ip_address"].clone();
        all.iter()
            .map(|g| address(g).as_str().unwrap().to_owned())
            .collect()
    };
    os.json(
        "router create r --external-gateway ext --fixed-ip ip-address=203.0.113.50 \
         --enable-default-route-ecmp",
    );
    assert_eq!(of(os), ["203.0.113.50"]);
    os.json("router add gateway r ext2 --fixed-ip ip-address=198.51.100.50");
    assert_eq!(of(os), ["203.0.113.50", "198.51.100.50"]);
    let shown = os.json("router show r");
    assert_eq!(shown["enable_default_route_ecmp"], json!(true));
    let words = os.fails("router add gateway r ext2 --fixed-ip ip-address=192.0.2.1");
    assert!(words.contains("192.0.2.1"), "{words}");
    os.json("router remove gateway r ext2 --fixed-ip ip-address=198.51.100.50");
    assert_eq!(of(os), ["203.0.113.50"]);
    os.quiet("router set r --disable");
    assert_eq!(os.json("router show r")["admin_state_up"], json!(false));
    for words in ["router delete r", "network delete ext2"] {
        os.quiet(words);
    }
    tidy(os);
}

pub fn floating_ips(os: &mut Session) {
    external(os);
    os.json("router create r --external-gateway ext");
    os.quiet("router add subnet r inside-v4");
    let port = os.json("port create p --network inside");
    let inner = port["fixed_ips"][0]["ip_address"].as_str().unwrap();
    let made = os.json("floating ip create ext --port p --description web --tag blue");
    let address = made["floating_ip_address"].as_str().unwrap().to_owned();
    assert_eq!(made["status"], "ACTIVE");
    assert_eq!(
        os.list(
            "floating ip list --port p --status ACTIVE --router r",
            |_| true
        ),
        1
    );
    let words = os.fails("router remove subnet r inside-v4");
    assert!(
        words.contains("required by one or more floating IPs"),
        "{words}"
    );
    os.quiet(&format!("floating ip unset {address} --port"));
    assert_eq!(
        os.json(&format!("floating ip show {address}"))["port_id"],
        json!(null)
    );
    os.quiet(&format!("floating ip set {address} --port p"));
    os.quiet(&format!("floating ip unset {address} --port"));
    let given = os.json("floating ip create ext --floating-ip-address 203.0.113.88");
    assert_eq!(given["floating_ip_address"], "203.0.113.88");
    let words = os.fails("floating ip create ext --floating-ip-address 203.0.113.88");
    assert!(words.contains("in use"), "{words}");
    forwardings(os, &address, inner);
    os.quiet(&format!("floating ip delete {address} 203.0.113.88"));
    assert_eq!(os.json("floating ip list"), json!([]));
    for words in [
        "port delete p",
        "router remove subnet r inside-v4",
        "router delete r",
    ] {
        os.quiet(words);
    }
    tidy(os);
}

fn forwardings(os: &mut Session, address: &str, inner: &str) {
    let made = os.json(&format!(
        "floating ip port forwarding create {address} --port p --internal-ip-address {inner} --protocol tcp \
         --internal-protocol-port 80 --external-protocol-port 8080 --description web"
    ));
    let id = made["id"].as_str().unwrap();
    os.json(&format!(
        "floating ip port forwarding create {address} --port p --internal-ip-address {inner} --protocol udp \
         --internal-protocol-port 100:109 --external-protocol-port 200:209"
    ));
    os.quiet(&format!(
        "floating ip port forwarding set {address} {id} --external-protocol-port 8081"
    ));
    let shown = os.json(&format!("floating ip port forwarding show {address} {id}"));
    assert_eq!(shown["external_port"], json!(8081));
    let list = format!("floating ip port forwarding list {address}");
    assert_eq!(os.list(&list, |_| true), 2);
    assert_eq!(os.list(&format!("{list} --protocol udp"), |_| true), 1);
    let words = os.fails(&format!("floating ip delete {address}"));
    assert!(words.contains("in use by Port Forwarding"), "{words}");
    let all = os.json(&list);
    let ids: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["ID"].as_str().unwrap())
        .collect();
    os.quiet(&format!(
        "floating ip port forwarding delete {address} {}",
        ids.join(" ")
    ));
}

pub fn ndp_proxies(os: &mut Session) {
    os.json("address scope create s --ip-version 6 --share");
    os.json("subnet pool create p --pool-prefix 2a00:1450:5000::/48 --default-prefix-length 64 --address-scope s");
    for network in [
        "network create ext --external",
        "network create inside --provider-network-type vxlan",
    ] {
        os.json(network);
    }
    for name in ["ext", "inside"] {
        os.json(&format!(
            "subnet create {name} --network {name} --subnet-pool p --ip-version 6"
        ));
    }
    os.json("router create r --external-gateway ext --enable-ndp-proxy");
    os.quiet("router add subnet r inside");
    let port = os.json("port create p --network inside");
    let made = os.json("router ndp proxy create r --port p --name n");
    assert_eq!(made["ip_address"], port["fixed_ips"][0]["ip_address"]);
    os.quiet("router ndp proxy set n --description d");
    assert_eq!(os.json("router ndp proxy show n")["description"], "d");
    assert_eq!(
        os.list("router ndp proxy list --router r --port p", |_| true),
        1
    );
    let words = os.fails("router unset r --external-gateway");
    assert!(words.contains("ndp proxies still in use"), "{words}");
    for words in [
        "router ndp proxy delete n",
        "router set r --disable-ndp-proxy",
        "port delete p",
        "router remove subnet r inside",
        "router delete r",
        "network delete inside ext",
        "subnet pool delete p",
        "address scope delete s",
    ] {
        os.quiet(words);
    }
}
