//! Sessions and routes with BIRD: what a fabric does all day.

use crate::{
    bird::{self, Bird},
    fabric::{Fabric, wait_for},
    speaker::{Peer, Speaker, peers},
};

/// Both families over a session between link-local addresses, IPv4 with an IPv6 next hop (RFC 8950), in
/// both directions.
#[test]
fn bird_over_link_local_addresses() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let config = bird::preamble(&fabric, "s1")
        + &bird::routes(&["203.0.113.0/24"], &["2001:db8:100::/40"])
        + &bird::client(&fabric, "s1", "h1");
    let s1 = Bird::start(&fabric, "s1", &config);
    let announce = ["198.51.100.5/32", "2001:db8:1::5/128"];
    let to_s1 = peers([Peer::link_local(&fabric, "s1")]);
    let mut h1 = Speaker::start(&fabric, "h1", &to_s1, &announce);
    h1.wait_route("203.0.113.0/24", &["fe80::2%s1"]);
    h1.wait_route("2001:db8:100::/40", &["fe80::2%s1"]);
    s1.wait_route("198.51.100.5/32", &["via fe80::1 on h1"]);
    s1.wait_route("2001:db8:1::5/128", &["via fe80::1 on h1"]);
    let capabilities = h1.seen(|seen| seen.peer("fe80::2")["capabilities"].clone());
    for capability in [
        "four-octet-as",
        "route-refresh",
        "enhanced-route-refresh",
        "extended-next-hop",
        "graceful-restart",
        "long-lived-graceful-restart",
    ] {
        assert!(
            capabilities
                .as_array()
                .unwrap()
                .iter()
                .any(|c| c == capability),
            "{capabilities}"
        );
    }

    h1.announce(&["2001:db8:1::5/128"]);
    s1.wait_no_route("198.51.100.5/32");
    assert!(s1.route("2001:db8:1::5/128").contains("via fe80::1"));
}

/// A session for each family by addresses that are unique, the hosts in different systems.
#[test]
fn bird_by_external_sessions_over_each_family() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let mut config =
        bird::preamble(&fabric, "s1") + &bird::routes(&["203.0.113.0/24"], &["2001:db8:100::/40"]);
    let mut configured = Vec::new();
    let ours = fabric.addresses("h1", "s1");
    let theirs = fabric.addresses("s1", "h1");
    for (family, (ours, theirs)) in ["ipv4", "ipv6"].iter().zip(ours.iter().zip(&theirs)) {
        config += &format!(
            "protocol bgp by_{family} {{ local {theirs} as 64601; neighbor {ours} as 64512; connect delay time 1; \
             {family} {{ import all; export all; }}; }}\n"
        );
        configured.push(Peer {
            name: (*family).to_owned(),
            address: theirs.clone(),
            interface: "s1".to_owned(),
            more: "asn = 64601\n".to_owned(),
        });
    }
    let s1 = Bird::start(&fabric, "s1", &config);
    let announce = ["198.51.100.5/32", "2001:db8:1::5/128"];
    let h1 = Speaker::start(&fabric, "h1", &peers(configured), &announce);
    h1.wait_route("203.0.113.0/24", &[&theirs[0]]);
    h1.wait_route("2001:db8:100::/40", &[&theirs[1]]);
    s1.wait_route("198.51.100.5/32", &[&format!("via {}", ours[0])]);
    s1.wait_route("2001:db8:1::5/128", &["BGP.as_path: 64512"]);
}

/// A route reflector's clients learn each other's routes.
#[test]
fn bird_reflects_between_two_hosts() {
    let fabric = Fabric::new(&[("h1", "s1"), ("h2", "s1")]);
    let config = bird::preamble(&fabric, "s1")
        + &bird::client(&fabric, "s1", "h1")
        + &bird::client(&fabric, "s1", "h2");
    let _s1 = Bird::start(&fabric, "s1", &config);
    let to_s1 = peers([Peer::link_local(&fabric, "s1")]);
    let h1 = Speaker::start(
        &fabric,
        "h1",
        &to_s1,
        &["198.51.100.1/32", "2001:db8:1::1/128"],
    );
    let h2 = Speaker::start(
        &fabric,
        "h2",
        &to_s1,
        &["198.51.100.2/32", "2001:db8:1::2/128"],
    );
    for (speaker, others) in [
        (&h1, ["198.51.100.2/32", "2001:db8:1::2/128"]),
        (&h2, ["198.51.100.1/32", "2001:db8:1::1/128"]),
    ] {
        for other in others {
            speaker.wait_route(other, &["fe80::2%s1"]);
        }
    }
    // Nobody hears of his own.
    assert!(h1.seen(|seen| seen.hops("198.51.100.1/32").is_empty()));
}

/// Two route reflectors: equal paths are used together, and the loss of one leaves the other.
#[test]
fn two_birds_share_the_load() {
    let fabric = Fabric::new(&[("h1", "s1"), ("h1", "s2")]);
    let config = |spine: &str| {
        bird::preamble(&fabric, spine)
            + &bird::routes(&["0.0.0.0/0"], &["::/0"])
            + &bird::client(&fabric, spine, "h1")
    };
    let s1 = Bird::start(&fabric, "s1", &config("s1"));
    let _s2 = Bird::start(&fabric, "s2", &config("s2"));
    let both = ["s1", "s2"].map(|spine| Peer::link_local(&fabric, spine));
    let h1 = Speaker::start(&fabric, "h1", &peers(both), &[]);
    for default in ["0.0.0.0/0", "::/0"] {
        h1.wait_route(default, &["fe80::2%s1", "fe80::3%s2"]);
    }
    // An end that is meant, with a NOTIFICATION that says so.
    s1.ask("disable h1");
    for default in ["0.0.0.0/0", "::/0"] {
        h1.wait_route(default, &["fe80::3%s2"]);
    }
    s1.ask("enable h1");
    for default in ["0.0.0.0/0", "::/0"] {
        h1.wait_route(default, &["fe80::2%s1", "fe80::3%s2"]);
    }
}

/// A peer with more routes than it may have is left alone for a while; the agent goes on.
#[test]
fn too_many_prefixes_end_the_session() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let config = bird::preamble(&fabric, "s1")
        + &bird::routes(&["203.0.113.0/25", "203.0.113.128/25"], &[])
        + &bird::client(&fabric, "s1", "h1");
    let s1 = Bird::start(&fabric, "s1", &config);
    let peer = Peer::link_local(&fabric, "s1").with("maximum_prefixes = 1");
    let h1 = Speaker::start(&fabric, "h1", &peers([peer]), &[]);
    wait_for("BIRD hears of the limit", || {
        s1.ask("show protocols all h1")
            .contains("Maximum number of prefixes reached")
    });
    h1.wait_until("no route of it is used", |seen| {
        seen.peer("fe80::2")["state"] == "idle" && seen.routes.is_empty()
    });
}

/// A host that wants no more than a way out takes only default routes.
#[test]
fn only_default_routes_are_taken_when_told_to() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let config = bird::preamble(&fabric, "s1")
        + &bird::routes(
            &["0.0.0.0/0", "203.0.113.0/24"],
            &["::/0", "2001:db8:100::/40"],
        )
        + &bird::client(&fabric, "s1", "h1");
    let s1 = Bird::start(&fabric, "s1", &config);
    let peer = Peer::link_local(&fabric, "s1");
    let config = format!("import = 'default-only'\n{}", peers([peer]));
    let h1 = Speaker::start(&fabric, "h1", &config, &[]);
    for default in ["0.0.0.0/0", "::/0"] {
        h1.wait_route(default, &["fe80::2%s1"]);
    }
    wait_for("BIRD has told all", || {
        let all = s1.ask("show protocols all h1");
        all.matches(" 2 exported").count() == 2
    });
    h1.wait_until("BIRD's last word is heard", |seen| {
        let families = seen.peer("fe80::2")["families"].as_array();
        families.is_some_and(|f| f.len() == 2 && f.iter().all(|f| f["complete"] == true))
    });
    assert_eq!(h1.seen(|seen| seen.routes.len()), 2);
}

/// BIRD asks for everything again: it is told where that begins and ends (RFC 7313), and no session ends.
#[test]
fn bird_asks_for_the_routes_again() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let config = bird::preamble(&fabric, "s1") + &bird::client(&fabric, "s1", "h1");
    let s1 = Bird::start(&fabric, "s1", &config);
    let to_s1 = peers([Peer::link_local(&fabric, "s1")]);
    let ours = ["198.51.100.5/32", "2001:db8:1::5/128"];
    let h1 = Speaker::start(&fabric, "h1", &to_s1, &ours);
    for prefix in ours {
        s1.wait_route(prefix, &["via fe80::1 on h1"]);
    }
    s1.ask("debug h1 all");
    s1.ask("reload in h1");
    for what in ["Got BEGIN-OF-RR", "Got END-OF-RR"] {
        wait_for(&format!("{what} for both families"), || {
            s1.log().matches(what).count() == 2
        });
    }
    for prefix in ours {
        s1.wait_route(prefix, &["via fe80::1 on h1"]);
    }
    assert_eq!(h1.seen(|seen| seen.peer("fe80::2")["flaps"].clone()), 0);
}

/// A route whose communities alone are longer than a message of RFC 4271 comes in one of RFC 8654, but
/// only if both have agreed on those.
#[test]
fn a_route_longer_than_a_classic_message() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let communities: String = (0..1100)
        .map(|n| format!("bgp_community.add((64512,{n})); "))
        .collect();
    let export = format!("export filter {{ {communities} accept; }};");
    let config = bird::preamble(&fabric, "s1")
        + &bird::routes(&["0.0.0.0/0"], &["::/0"])
        + &bird::client(&fabric, "s1", "h1").replace("export all;", &export);
    let to_s1 = peers([Peer::link_local(&fabric, "s1")]);
    let classic = Bird::start(&fabric, "s1", &config);
    let h1 = Speaker::start(&fabric, "h1", &to_s1, &[]);
    wait_for("BIRD can't tell it", || {
        classic.log().contains("Attribute list too long")
    });
    assert!(h1.seen(|seen| seen.routes.is_empty()));
    h1.kill();
    classic.kill();
    let extended = config.replace(
        "    rr client;",
        "    rr client;\n    enable extended messages on;",
    );
    let _s1 = Bird::start(&fabric, "s1", &extended);
    let h1 = Speaker::start(&fabric, "h1", &to_s1, &[]);
    for default in ["0.0.0.0/0", "::/0"] {
        h1.wait_route(default, &["fe80::2%s1"]);
    }
}

/// Spines in different systems, one of them of four octets (RFC 6793): their paths are equally long, but
/// equal only by `multipath_relax`.
#[test]
fn paths_through_different_systems_share_load_when_told_to() {
    let fabric = Fabric::new(&[("h1", "s1"), ("h1", "s2")]);
    let mut spines = Vec::new();
    let mut to_spines = Vec::new();
    for (spine, asn) in [("s1", 64_601_u32), ("s2", 4_200_000_002)] {
        let config = bird::preamble(&fabric, spine)
            + &bird::routes(&["0.0.0.0/0"], &["::/0"])
            + &bird::client(&fabric, spine, "h1")
                .replace(
                    &format!("{} as 64512;\n    neighbor", fabric.link_local(spine)),
                    &format!("{} as {asn};\n    neighbor", fabric.link_local(spine)),
                )
                .replace("    rr client;\n", "");
        spines.push(Bird::start(&fabric, spine, &config));
        to_spines.push(Peer {
            more: format!("asn = {asn}\n"),
            ..Peer::link_local(&fabric, spine)
        });
    }
    let to_spines = peers(to_spines);
    let h1 = Speaker::start(&fabric, "h1", &to_spines, &[]);
    h1.wait_until("both spines have told all", |seen| {
        ["fe80::2", "fe80::3"].iter().all(|spine| {
            let families = seen.peer(spine)["families"].as_array();
            families.is_some_and(|f| f.len() == 2 && f.iter().all(|f| f["accepted"] == 1))
        })
    });
    for default in ["0.0.0.0/0", "::/0"] {
        h1.wait_route(default, &["fe80::2%s1"]);
    }
    h1.kill();
    let relaxed = format!("multipath_relax = true\n{to_spines}");
    let h1 = Speaker::start(&fabric, "h1", &relaxed, &[]);
    for default in ["0.0.0.0/0", "::/0"] {
        h1.wait_route(default, &["fe80::2%s1", "fe80::3%s2"]);
    }
}
