//! Several speakers on one virtual clock.

#![allow(clippy::cast_possible_truncation, reason = "small numbers of tests")]

mod properties;
mod restarts;
mod sessions;
mod sim;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use hextet_types::{Asn, Family, Prefix};

use super::*;
use crate::{
    config::{FamilyConfig, RemoteAs},
    packet::{Community, NextHop},
    policy::{Change, Policy, PrefixMatch, Rule, Verdict},
};
use sim::{Sim, address, link_local, open_peer};

const V6: &str = "2001:db8:1::5/128";
const V4: &str = "203.0.113.5/32";

fn p(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn key(node: usize) -> PeerKey {
    PeerKey::Address(address(node))
}

#[test]
fn two_external_peers_exchange_both_families_over_one_session() {
    let mut sim = Sim::new(&[64512, 64513], 1);
    sim.peer(0, 1, |_, _| ());
    sim.announce(0, &[V4, V6]);
    sim.run(10);
    assert_eq!(sim.fib(1), [V4, V6]);
    // IPv4 over an IPv6 next hop (RFC 8950).
    assert_eq!(sim.hops(1, V4), ["2001:db8::1"]);
    assert_eq!(sim.hops(1, V6), ["2001:db8::1"]);
    let route = sim.speaker(1).route(p(V6)).unwrap();
    assert_eq!(route.paths[0].as_path, "64512");
    assert_eq!(sim.speaker(1).established(), 1);
    sim.announce(0, &[V4]);
    sim.run(1);
    assert_eq!(sim.fib(1), [V4]);
    // Nothing comes back to where it is from.
    assert_eq!(sim.fib(0), [] as [&str; 0]);
    assert_eq!(sim.speaker(1).advertised(&key(0)), []);
}

#[test]
fn policies_decide_what_is_taken_and_told() {
    let mut sim = Sim::new(&[64512, 64513, 64514], 2);
    sim.peer(0, 1, |node, config| {
        if node == 1 {
            config.import = Policy::default_only().into();
        }
    });
    let host_routes = PrefixMatch::range(p("::/0"), 128, 128).unwrap();
    let export = Policy::new(
        vec![
            Rule::prefixes(vec![host_routes], Verdict::Reject),
            Rule {
                changes: vec![Change::Med(Some(7)), Change::Prepend(2)],
                ..Rule::prefixes(vec![], Verdict::Accept)
            },
        ],
        false,
    );
    let export = Arc::new(export.unwrap());
    sim.peer(0, 2, |node, config| {
        if node == 0 {
            config.export = Arc::clone(&export);
        }
    });
    sim.announce(0, &["::/0", "0.0.0.0/0", V4, V6]);
    sim.run(10);
    assert_eq!(sim.fib(1), ["0.0.0.0/0", "::/0"]);
    assert_eq!(sim.fib(2), ["0.0.0.0/0", V4, "::/0"]);
    let route = sim.speaker(2).route(p(V4)).unwrap();
    assert_eq!(route.paths[0].as_path, "64512 64512 64512");
    assert_eq!(route.paths[0].med, Some(7));
}

#[test]
fn a_changed_import_policy_asks_for_the_routes_again() {
    let mut sim = Sim::new(&[64512, 64513], 3);
    sim.peer(0, 1, |_, _| ());
    sim.announce(0, &["::/0", V6]);
    sim.run(10);
    let mut config = open_peer(0, RemoteAs::External);
    config.import = Policy::default_only().into();
    sim.configure(1, config.clone());
    sim.run(1);
    assert_eq!(sim.fib(1), ["::/0"]);
    config.import = Policy::accept_all().into();
    sim.configure(1, config);
    sim.run(1);
    assert_eq!(sim.fib(1), ["::/0", V6]);
    assert_eq!((sim.nodes[1].ups, sim.nodes[1].downs.len()), (1, 0));
}

#[test]
fn a_changed_export_policy_withdraws_and_announces() {
    let mut sim = Sim::new(&[64512, 64513], 4);
    sim.peer(0, 1, |_, _| ());
    sim.announce(0, &["::/0", V6]);
    sim.run(10);
    let mut config = open_peer(1, RemoteAs::External);
    config.export = Policy::default_only().into();
    sim.configure(0, config.clone());
    sim.run(1);
    assert_eq!(sim.fib(1), ["::/0"]);
    config.export = Policy::accept_all().into();
    sim.configure(0, config);
    sim.run(1);
    assert_eq!(sim.fib(1), ["::/0", V6]);
    assert_eq!(sim.nodes[0].downs.len(), 0);
}

#[test]
fn what_nobody_may_announce_is_ignored() {
    let mut sim = Sim::new(&[64512, 64513], 17);
    sim.peer(0, 1, |_, _| ());
    let martians = [
        "224.0.0.0/4",
        "239.1.0.0/16",
        "127.0.0.0/8",
        "ff00::/8",
        "::1/128",
        "fe80::/64",
    ];
    sim.announce(0, &martians);
    sim.run(10);
    assert_eq!(sim.fib(1), [] as [&str; 0]);
    let fine = ["0.0.0.0/0", "10.0.0.0/8", "::/0", "fc00::/7"];
    sim.announce(0, &[&fine[..], &martians[..]].concat());
    sim.run(1);
    assert_eq!(sim.fib(1), fine);
}

#[test]
fn well_known_communities_are_honoured() {
    // 0 tells 1 (external), which has 2 (internal) and 3 (external).
    let mut sim = Sim::new(&[64512, 64513, 64513, 64514], 5);
    for (a, b) in [(0, 1), (1, 2), (1, 3)] {
        sim.peer(a, b, |_, _| ());
    }
    let route = |community| LocalRoute {
        communities: vec![community],
        ..LocalRoute::default()
    };
    let routes = [
        (p("10.1.0.0/16"), route(Community::BLACKHOLE)),
        (p("10.2.0.0/16"), route(Community::new(64512, 1))),
    ];
    sim.handle(0, Event::Announce(routes.into()));
    let add = |community, prefix| Rule {
        changes: vec![Change::AddCommunity(community)],
        ..Rule::prefixes(vec![PrefixMatch::exact(p(prefix))], Verdict::Continue)
    };
    let rules = vec![
        add(Community::NO_EXPORT, "10.2.0.0/16"),
        add(Community::NO_ADVERTISE, "10.3.0.0/16"),
    ];
    let mut config = open_peer(0, RemoteAs::External);
    config.import = Policy::new(rules, true).unwrap().into();
    sim.configure(1, config);
    sim.run(10);
    assert_eq!(sim.fib(1), ["10.1.0.0/16", "10.2.0.0/16"]);
    assert_eq!(sim.fib(2), ["10.1.0.0/16", "10.2.0.0/16"]);
    assert_eq!(sim.fib(3), ["10.1.0.0/16"]);
    let blackhole = sim.speaker(3).route(p("10.1.0.0/16")).unwrap();
    assert_eq!(blackhole.paths[0].communities, [Community::BLACKHOLE]);
    let mut routes: BTreeMap<_, _> = [(p("10.3.0.0/16"), LocalRoute::default())].into();
    routes.insert(p("10.1.0.0/16"), LocalRoute::default());
    sim.handle(0, Event::Announce(routes));
    sim.run(1);
    assert_eq!(sim.fib(1), ["10.1.0.0/16", "10.3.0.0/16"]);
    assert_eq!(sim.fib(2), ["10.1.0.0/16"]);
}

/// Hosts 2, 3 and 4 are clients of the reflectors 0 and 1.
fn fabric(seed: u64) -> Sim {
    let mut sim = Sim::new(&[64512; 5], seed);
    for reflector in [0, 1] {
        for host in [2, 3, 4] {
            sim.peer(reflector, host, |node, config| {
                config.reflector_client = node == reflector;
            });
        }
    }
    sim
}

#[test]
fn reflectors_pass_on_what_clients_say_with_the_next_hop_as_it_was() {
    let mut sim = fabric(6);
    sim.peer(0, 1, |_, _| ());
    sim.announce(2, &[V4, V6]);
    sim.run(15);
    for host in [3, 4] {
        assert_eq!(sim.fib(host), [V4, V6]);
        // Both reflectors say the same: one next hop.
        assert_eq!(sim.hops(host, V6), ["2001:db8::3"]);
        assert_eq!(sim.speaker(host).route(p(V6)).unwrap().paths.len(), 2);
    }
    // Each says whose it is, and that it was through its hands (RFC 4456 §8).
    let router_id = |node: usize| sim.nodes[node].config.router_id;
    let table = sim.speaker(3).tables.get(Family::V6);
    let paths = table.paths(table.find(p(V6)).unwrap()).iter();
    let mut said: Vec<_> = paths
        .map(|path| {
            let rare = path.attributes.rare();
            (rare.originator_id, rare.cluster_list.clone())
        })
        .collect();
    said.sort();
    let by = |reflector| (Some(router_id(2)), vec![router_id(reflector)]);
    assert_eq!(said, [by(0), by(1)]);
    // The host's own route does not come back (ORIGINATOR_ID), nor around (CLUSTER_LIST).
    assert_eq!(sim.speaker(2).route(p(V6)).unwrap().paths.len(), 1);
    sim.announce(2, &[]);
    sim.run(1);
    assert!((0..5).all(|n| sim.fib(n).is_empty()));
}

#[test]
fn equal_paths_share_load_up_to_the_limit() {
    let mut sim = Sim::new(&[64512, 64513, 64514, 64515], 7);
    for (max_paths, relax, expected) in [(1, true, 1), (2, true, 2), (8, true, 3), (8, false, 1)] {
        for node in 0..4 {
            sim.kill(node);
            sim.nodes[node].fib.clear();
            sim.start(node, |config| {
                config.max_paths = max_paths;
                config.multipath_relax = relax;
            });
        }
        for peer in 1..4 {
            sim.peer(0, peer, |_, _| ());
            sim.announce(peer, &[V6]);
        }
        sim.run(20);
        assert_eq!(sim.hops(0, V6).len(), expected, "{max_paths} {relax}");
    }
}

#[test]
fn an_unnumbered_peer_is_found_by_its_interface() {
    let mut sim = Sim::new(&[64512, 64513], 8);
    sim.link("eth0", link_local(0), 0);
    sim.link("eth0", link_local(1), 1);
    let interface: IfName = "eth0".parse().unwrap();
    let unnumbered = || {
        let key = PeerKey::Interface("eth0".parse().unwrap());
        let mut config = open_peer(0, RemoteAs::External);
        config.peer = key;
        config
    };
    sim.configure(0, unnumbered());
    sim.configure(1, unnumbered());
    sim.announce(0, &[V4, V6]);
    sim.run(30);
    assert_eq!(sim.nodes[0].ups, 0, "nobody knows an address yet");
    // One side hears of the other; the other finds out by being called.
    sim.handle(
        0,
        Event::Neighbour {
            interface,
            address: Some(link_local(1)),
        },
    );
    sim.run(10);
    assert_eq!(sim.hops(1, V4), ["fe80::1%eth0"]);
    assert_eq!(sim.hops(1, V6), ["fe80::1%eth0"]);
    let status = sim.speaker(1).status();
    assert_eq!(status.peers[0].address, Some(link_local(0).into()));
    assert_eq!(
        serde_json::to_value(&status).unwrap()["peers"][0]["peer"],
        "%eth0"
    );
}

#[test]
fn local_routes_win_and_are_not_the_kernels_business() {
    let mut sim = Sim::new(&[64512, 64513], 9);
    sim.peer(0, 1, |_, _| ());
    sim.announce(0, &[V6]);
    sim.run(10);
    assert_eq!(sim.fib(1), [V6]);
    sim.announce(1, &[V6]);
    sim.run(1);
    assert_eq!(sim.fib(1), [] as [&str; 0]);
    sim.announce(1, &[]);
    sim.run(1);
    assert_eq!(sim.fib(1), [V6]);
}

#[test]
fn an_aggregate_stands_for_the_host_s_routes() {
    let mut sim = Sim::new(&[64512, 64513], 10);
    sim.start(0, |c| c.aggregates = vec![p("2001:db8:1::/64")]);
    sim.peer(0, 1, |_, _| ());
    sim.announce(0, &["2001:db8:1::5/128", "2001:db8:1::6/128", V4]);
    sim.run(10);
    assert_eq!(sim.fib(1), [V4, "2001:db8:1::/64"]);
    sim.announce(0, &["2001:db8:1::6/128"]);
    sim.run(1);
    assert_eq!(sim.fib(1), ["2001:db8:1::/64"]);
    sim.announce(0, &[]);
    sim.run(1);
    assert_eq!(sim.fib(1), [] as [&str; 0]);
}

#[test]
fn a_slow_peer_bounds_what_waits_for_it_and_hears_only_the_last_word() {
    let mut sim = Sim::new(&[64512, 64513], 11);
    sim.peer(0, 1, |_, _| ());
    sim.run(10);
    sim.hold(0);
    let many = |numbers: std::ops::Range<u32>| -> Event {
        let route = |n: u32| LocalRoute {
            med: Some(n % 5000),
            ..LocalRoute::default()
        };
        let host = |n: u32| Prefix::host(Ipv4Addr::from(0x0a00_0000 + n).into());
        Event::Announce(numbers.map(|n| (host(n), route(n))).collect())
    };
    sim.handle(0, many(0..60_000));
    for _ in 0..20 {
        sim.handle(0, Event::Timer);
    }
    let held = sim.held(0);
    let limit = sim.nodes[0].config.write_limit;
    // One batch over the limit at most: 4,096 prefixes with attributes of their own.
    assert!((limit..limit + 4096 * 80).contains(&held), "{held}");
    // All of those go, others take their places; what was said of them has to be taken back.
    sim.handle(0, many(0..10));
    sim.handle(0, many(100_000..130_000));
    sim.handle(0, Event::Timer);
    assert_eq!(sim.held(0), held);
    sim.release(0);
    sim.run(30);
    assert_eq!(sim.fib(1).len(), 30_000);
    let first = Prefix::host(Ipv4Addr::from(0x0a00_0000 + 100_000).into());
    assert_eq!(sim.nodes[1].fib.keys().next(), Some(&first));
    assert_eq!(sim.speaker(0).status().ipv4_prefixes, 30_000);
    assert_eq!(sim.nodes[0].downs, []);
}

#[test]
fn too_many_prefixes_end_the_session_until_it_has_rested() {
    let mut sim = Sim::new(&[64512, 64513], 12);
    sim.peer(0, 1, |node, config| {
        if node == 1 {
            config.families = vec![FamilyConfig {
                family: Family::V6,
                max_prefixes: Some(2),
            }];
            config.max_prefixes_rest = Some(Duration::from_secs(60));
        }
    });
    sim.announce(0, &["2001:db8:1::/48", "2001:db8:2::/48", V4]);
    sim.run(10);
    assert_eq!(sim.fib(1).len(), 2, "at the limit, and IPv4 is not carried");
    sim.announce(
        0,
        &["2001:db8:1::/48", "2001:db8:2::/48", "2001:db8:3::/48"],
    );
    sim.run(1);
    assert_eq!(sim.fib(1), [] as [&str; 0]);
    let (_, reason, kept) = sim.nodes[1].downs[0].clone();
    assert_eq!(
        reason,
        "sent: hard reset: maximum number of prefixes reached"
    );
    assert!(!kept);
    assert_eq!(
        sim.nodes[0].downs[0].1,
        "received: hard reset: maximum number of prefixes reached"
    );
    sim.announce(0, &["2001:db8:1::/48"]);
    sim.run(50);
    assert_eq!(sim.nodes[1].ups, 1);
    sim.run(150);
    assert_eq!(sim.fib(1), ["2001:db8:1::/48"]);
}

#[test]
fn attributes_too_long_for_a_session_are_not_told() {
    let mut sim = Sim::new(&[64512, 64513], 13);
    sim.peer(0, 1, |_, config| config.extended_messages = false);
    let route = |count| LocalRoute {
        communities: (0..count).map(Community).collect(),
        ..LocalRoute::default()
    };
    sim.handle(0, Event::Announce([(p(V6), route(10))].into()));
    sim.run(10);
    assert_eq!(sim.fib(1), [V6]);
    sim.handle(0, Event::Announce([(p(V6), route(1100))].into()));
    sim.run(1);
    assert_eq!(sim.fib(1), [] as [&str; 0]);
    assert_eq!(sim.nodes[0].downs.len(), 0);
}

#[test]
fn the_table_of_peers_is_bounded() {
    let config = SpeakerConfig::new(Asn(64512), Ipv4Addr::new(10, 0, 0, 1), 1);
    let mut speaker = Speaker::new(config, Time::ZERO);
    let peer = |n: u16| {
        let addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, n);
        Box::new(PeerConfig::new(
            PeerKey::Address(addr.into()),
            RemoteAs::External,
        ))
    };
    for n in 0..MAX_PEERS as u16 {
        speaker.handle(Event::Configure(peer(n)), Time::ZERO);
    }
    let actions = speaker.handle(Event::Configure(peer(MAX_PEERS as u16)), Time::ZERO);
    assert!(matches!(
        actions[..],
        [Action::Refused(ConfigError::TooMany(_))]
    ));
    speaker.handle(Event::Remove(peer(7).peer), Time::ZERO);
    let actions = speaker.handle(Event::Configure(peer(MAX_PEERS as u16)), Time::ZERO);
    assert!(matches!(actions[..], [Action::Connect { .. }]));
}

/// RFC 4271 §5.1.3, §9.1.2; RFC 4456 §8.
#[test]
fn what_comes_back_to_us_is_not_used() {
    type Edit = fn(&mut PathAttributes, &Speaker);
    let cases: [(&str, Edit, bool); 5] = [
        ("somebody else's", |_, _| (), true),
        (
            "next hop",
            |a, _| a.next_hop = NextHop::from_addr(address(1)),
            false,
        ),
        (
            "AS_PATH",
            |a, s| a.as_path = a.as_path.prepended(s.config.asn, 1),
            false,
        ),
        (
            "ORIGINATOR_ID",
            |a, s| a.edit_rare(|r| r.originator_id = Some(s.config.router_id)),
            false,
        ),
        (
            "CLUSTER_LIST",
            |a, s| a.edit_rare(|r| r.cluster_list = vec![s.config.cluster()]),
            false,
        ),
    ];
    for (what, edit, taken) in cases {
        let mut sim = Sim::new(&[64512; 2], 14);
        sim.peer(0, 1, |_, _| ());
        sim.run(10);
        let speaker = sim.nodes[1].speaker.as_mut().unwrap();
        let mut attributes = PathAttributes::new(NextHop::from_addr(address(0)));
        attributes.local_pref = Some(100);
        edit(&mut attributes, speaker);
        let mut octets = Vec::new();
        let encoding = crate::packet::Encoding {
            four_octet_as: true,
            extended: false,
        };
        let prefixes = [p(V6)];
        crate::packet::encode_reach(&mut octets, encoding, Family::V6, &attributes, &prefixes)
            .unwrap();
        let conn = *speaker.connections.keys().next().unwrap();
        let octets = Bytes::from(octets);
        speaker.handle(Event::Received { conn, octets }, sim.now);
        assert_eq!(speaker.route(p(V6)).is_some(), taken, "{what}");
    }
}

/// RFC 4271 §6.3: who announces as somebody else is not believed, unless told to, as for route servers.
#[test]
fn an_external_peer_comes_first_in_its_paths() {
    for (enforced, taken) in [(true, false), (false, true)] {
        let mut sim = Sim::new(&[64512, 64513], 22);
        sim.peer(0, 1, |_, config| config.enforce_first_as = enforced);
        sim.run(10);
        let mut attributes = PathAttributes::new(NextHop::from_addr(address(0)));
        attributes.as_path = attributes.as_path.prepended(Asn(64999), 1);
        let mut octets = Vec::new();
        let encoding = crate::packet::Encoding {
            four_octet_as: true,
            extended: false,
        };
        let prefixes = [p(V6)];
        crate::packet::encode_reach(&mut octets, encoding, Family::V6, &attributes, &prefixes)
            .unwrap();
        let conn = sim.end(1, 0);
        let octets = Bytes::from(octets);
        sim.handle(1, Event::Received { conn, octets });
        assert_eq!(sim.fib(1) == [V6], taken);
    }
}
