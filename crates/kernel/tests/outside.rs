//! Planned routers' way outside in real kernels: what is published, translated, forwarded, and kept in.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use hextet_kernel::{
    conntrack::{Entry, Filter},
    netns::Handle,
};
use hextet_model::{
    intent::Change,
    plan::{HostConfig, Planner},
    state::Netns,
};
use hextet_types::IfName;
use support::{
    internet::{
        C, FAR, FLOATING, GATEWAY, Internet, addr, answer, connect, edge, endpoint, far, mapped,
        name_of, one, seen_as, two,
    },
    private::{Guest, Port},
    run,
    tenant::{
        A, ANYWHERE, B, Compute, Machine, Outside, Station, addrs, external, floating_id,
        floating_ip, forwarding, group, network, outside, router_id,
    },
};

#[test]
fn what_is_published_is_reached_and_reaches_out_untranslated_and_nothing_else() {
    let (machine, net) = one();
    machine.run(|host| {
        let published = ["fd00:1::/64", "10.0.1.0/24"].map(str::to_owned).to_vec();
        host.apply([outside(&Outside {
            published,
            ..edge(1, &[1, 2])
        })]);
    });
    net.learn(&machine, 1);
    for (addr, far) in addrs(1, 10).into_iter().zip(far()) {
        assert!(net.reaches(addr), "{addr} from outside");
        machine.run(move |host| assert!(host.guests[0].reaches(&far, 1300), "{far}"));
    }
    let seen = net.private_packets();
    assert!(seen > 0, "published IPv4 is seen as it is");
    // Not published: told so inside, and never seen outside.
    for (addr, far) in addrs(2, 11).into_iter().zip(far()) {
        machine.run(move |host| {
            let text = answer(&host.guests[1], far);
            let told = text.contains("prohibited") || text.contains("Packet filtered");
            let told = told || text.contains("Net Unreachable");
            assert!(told, "{far}: {text}");
        });
        assert!(!net.reaches(addr), "{addr} from outside");
    }
    // Also when the router's own rules are gone, and when it hands out more than it should.
    machine.run(|host| {
        let id = router_id(1).0.simple().to_string();
        run(&format!("ip netns exec hr-{} nft flush ruleset", &id[22..]));
        for far in far() {
            let text = answer(&host.guests[1], far);
            assert!(text.contains("100% packet loss"), "{far}: {text}");
        }
    });
    assert_eq!(net.private_packets(), seen, "nothing else has got out");
    machine.run(|host| {
        host.apply([Change::RemoveRouter(router_id(1))]);
        assert!(!run("ip netns list").contains("hr-"));
        assert!(!run("ip -br link").contains("hr-"));
        assert!(!run("nft list ruleset").contains("from-routers"));
        assert!(host.planner.state().announce.is_empty());
    });
}

#[test]
fn what_has_no_public_address_leaves_by_the_gateways() {
    let (machine, net) = one();
    let with = |more: Outside| Outside {
        host: Some("h1".to_owned()),
        published: vec!["10.0.1.0/24".to_owned()],
        ..more
    };
    machine.run(move |host| host.apply([outside(&with(edge(1, &[1, 2])))]));
    net.learn(&machine, 1);
    let server = net.listen(7000);
    let gateway: IpAddr = GATEWAY[0].parse().expect("an address");
    assert_eq!(connect(&machine, 0, &server), Some(addrs(1, 10)[0]));
    let seen = net.private_packets();
    assert_eq!(connect(&machine, 1, &server), Some(gateway));
    machine.run(|host| assert!(host.guests[1].reaches(&far()[0], 1400), "an echo"));
    assert!(net.reaches(gateway), "the gateway answers");
    assert_eq!(
        net.private_packets(),
        seen,
        "nothing private is seen outside"
    );
    // IPv6 and what stays inside is not tracked.
    machine.run(|host| {
        let there = addrs(2, 11);
        there
            .iter()
            .for_each(|addr| assert!(host.guests[0].reaches(addr, 56)));
        let id = router_id(1).0.simple().to_string();
        let tracked = run(&format!(
            "ip netns exec hr-{} cat /proc/net/nf_conntrack || true",
            &id[22..]
        ));
        assert!(!tracked.contains("10.0.1.10"), "{tracked}");
        assert!(!tracked.contains("fd00"), "{tracked}");
    });
    // Without SNAT it does not leave, and is told.
    machine.run(move |host| {
        let none = Outside {
            no_snat: true,
            ..with(edge(1, &[1, 2]))
        };
        host.apply([outside(&none)]);
        let text = answer(&host.guests[1], far()[0]);
        assert!(
            text.contains("filtered") || text.contains("prohibited"),
            "{text}"
        );
    });
    assert!(net.reaches(gateway), "the gateway answers all the same");
    machine.run(move |host| {
        host.apply([outside(&with(edge(1, &[1, 2])))]);
    });
    assert_eq!(connect(&machine, 1, &server), Some(gateway));
    // By several gateways, where they share: the last bits of a client's address choose.
    for (ecmp, second) in [(true, "198.51.100.2"), (false, GATEWAY[0])] {
        let gateways = [GATEWAY[0], "198.51.100.2"].map(|addr| vec![addr.to_owned()]);
        let both = Outside {
            gateways: gateways.to_vec(),
            published: Vec::new(),
            ecmp,
            ..with(edge(1, &[1, 2]))
        };
        machine.run(move |host| host.apply([outside(&both)]));
        net.learn(&machine, 1);
        assert_eq!(connect(&machine, 0, &server), Some(gateway));
        assert_eq!(connect(&machine, 1, &server), Some(addr(second)));
    }
    assert_eq!(net.private_packets(), seen);
}

#[test]
fn other_hosts_leave_by_the_gateway_host_but_for_floating_ips() {
    let way = Outside {
        host: Some("h1".to_owned()),
        ..edge(1, &[1, 2])
    };
    let ([first, second], net) = two(&way);
    let server = net.listen(7001);
    let gateway = addr(GATEWAY[0]);
    assert_eq!(connect(&first, 0, &server), Some(gateway));
    assert_eq!(connect(&second, 0, &server), Some(gateway));
    second.run(|host| {
        assert!(host.guests[0].reaches(&far()[0], 1300), "an echo");
        host.apply([floating_ip(1, 1, FLOATING[0], B)]);
    });
    net.learn(&second, 2);
    assert_eq!(connect(&second, 0, &server), Some(addr(FLOATING[0])));
    assert_eq!(connect(&second, 1, &server), Some(gateway), "a neighbour");
    assert!(net.reaches(addr(FLOATING[0])), "from outside");
    // To a floating IP from inside, with a source that is the gateway's, from here and from there.
    for (machine, guest) in [(&first, 0), (&second, 1), (&second, 0)] {
        machine.run(move |host| {
            let guest = &host.guests[guest];
            assert!(guest.reaches(&addr(FLOATING[0]), 56), "{}", guest.0);
        });
    }
    // From one floating IP to another, of the same network.
    second.run(|host| host.apply([floating_ip(2, 1, FLOATING[1], C)]));
    net.learn(&second, 2);
    for (guest, to) in [(0, FLOATING[1]), (1, FLOATING[0]), (1, FLOATING[1])] {
        second.run(move |host| assert!(host.guests[guest].reaches(&addr(to), 56), "{to}"));
    }
    assert_eq!(net.private_packets(), 0);
    second.run(|host| {
        host.apply([Change::RemoveFloatingIp(floating_id(1))]);
        host.apply([Change::RemoveFloatingIp(floating_id(2))]);
        assert!(host.planner.state().announce.is_empty());
    });
    net.learn(&second, 2);
    assert!(!net.reaches(addr(FLOATING[0])));
    assert_eq!(connect(&second, 0, &server), Some(gateway));
    assert_eq!(net.private_packets(), 0);
}

/// A server in a guest, on all its addresses.
fn serve(guest: &Guest, port: u16) -> TcpListener {
    let netns = Handle::open(&Netns::Named(guest.0.clone())).expect("a guest");
    let listener = netns.run(|| TcpListener::bind(("0.0.0.0", port)));
    listener.expect("a namespace").expect("a listener")
}

/// Whether a connection from outside to that port gets to that server.
fn leads_to(net: &Internet, port: u16, server: &TcpListener) -> bool {
    let to = SocketAddr::new(addr(FLOATING[0]), port);
    let patience = Duration::from_secs(2);
    let stream = net
        .0
        .run(move |_| TcpStream::connect_timeout(&to, patience));
    let Ok(stream) = stream else { return false };
    let own = stream.local_addr().expect("an address");
    let (_, peer) = server.accept().expect("a connection");
    peer == own
}

#[test]
fn ports_of_an_address_lead_to_ports_inside() {
    let way = Outside {
        host: Some("h1".to_owned()),
        ..edge(1, &[1, 2])
    };
    let ([first, second], net) = two(&way);
    let forwardings = [
        ("80", A, "8080"),
        ("1000:1009", B, "1000:1009"),
        ("2000:2002", B, "3000:3002"),
        ("5000:5010", B, "22"),
    ];
    let all = forwardings.into_iter().zip(0..);
    let all = all
        .map(|((outside, to, inside), n)| forwarding(n, 1, (FLOATING[0], outside), (to, inside)));
    let all: Vec<Change> = all.collect();
    let told = all.clone();
    first.run(|host| host.apply(told));
    net.learn(&first, 1);
    let serve_at = |machine: &Machine, port| machine.run(move |h| serve(&h.guests[0], port));
    let at_a = serve_at(&first, 8080);
    assert!(leads_to(&net, 80, &at_a));
    for (outside, inside) in [
        (1000, 1000),
        (1009, 1009),
        (2001, 3001),
        (5000, 22),
        (5010, 22),
    ] {
        let server = serve_at(&second, inside);
        assert!(leads_to(&net, outside, &server), "{outside} to {inside}");
    }
    // From inside, also by whom it leads to.
    for machine in [&first, &second] {
        let (name, server) = (name_of(machine, 0), at_a.try_clone().expect("a server"));
        let to = SocketAddr::new(addr(FLOATING[0]), 80);
        let seen = machine.run(move |_| seen_as(&name, &server, to));
        assert_eq!(seen.map(mapped), Some(addr(GATEWAY[0])));
    }
    // Also by one who is published, and would be answered directly.
    for machine in [&first, &second] {
        let published = outside(&Outside {
            host: Some("h1".to_owned()),
            published: vec!["10.0.1.0/24".to_owned()],
            ..edge(1, &[1, 2])
        });
        machine.run(move |host| host.apply([published]));
    }
    net.learn(&first, 1);
    let server = serve_at(&second, 1003);
    let (name, to) = (name_of(&first, 0), SocketAddr::new(addr(FLOATING[0]), 1003));
    let seen = first.run(move |_| seen_as(&name, &server, to));
    assert_eq!(seen.map(mapped), Some(addr(GATEWAY[0])));
    let private = net.private_packets();
    assert!(!leads_to(&net, 81, &at_a));
    assert!(
        !net.reaches(addr(FLOATING[0])),
        "ports are forwarded, and nothing else"
    );
    first.run(move |host| {
        host.apply(all.iter().filter_map(|change| match change {
            Change::PutPortForwarding(f) => Some(Change::RemovePortForwarding(f.id)),
            _ => None,
        }));
        let announced = host.planner.state().announce.len();
        assert_eq!(
            announced, 3,
            "the gateway's addresses, and what is published"
        );
    });
    assert!(!leads_to(&net, 80, &at_a));
    assert_eq!(net.private_packets(), private);
}

#[test]
fn who_sends_too_much_at_once_from_outside_is_told() {
    let way = Outside {
        host: Some("h2".to_owned()),
        published: ["fd00:1::/64", "10.0.1.0/24"].map(str::to_owned).to_vec(),
        ..edge(1, &[1, 2])
    };
    let (machine, net) = one();
    machine.run(move |host| host.apply([outside(&way), floating_ip(1, 1, FLOATING[0], B)]));
    net.learn(&machine, 1);
    let [v4, v6] = addrs(1, 10);
    for (to, from) in [
        (addr(FLOATING[0]), FLOATING[0]),
        (v4, "10.0."),
        (v6, GATEWAY[1]),
    ] {
        let text = net.0.run(move |_| {
            let own = FAR[usize::from(to.is_ipv6())];
            run(&format!(
                "ping -n -M do -s 1440 -c 1 -W 2 -I {own} {to} || true"
            ))
        });
        let told = text.contains("mtu = 1430") || text.contains("mtu=1430");
        assert!(
            told && text.contains(&format!("From {from}")),
            "{to}: {text}"
        );
    }
    // And whom somebody outside tells: the way back leads through the same translation.
    net.0.run(|_| run("ip link set up1 mtu 1300"));
    machine.run(|host| {
        run("ip link set up0 mtu 1300");
        for guest in &host.guests {
            let far = far()[0];
            let ping = format!(
                "ip netns exec {} ping -n -M do -s 1380 -c 1 -W 2 {far} || true",
                guest.0
            );
            let text = run(&ping);
            assert!(text.contains("mtu = 1300"), "{text}");
        }
    });
}

/// The same, of network 3, with the addresses of network 2.
fn alike(change: Change) -> Change {
    let text = serde_json::to_string(&change).expect("JSON");
    let text = text
        .replace("10.0.3.", "10.0.2.")
        .replace("fd00:3:", "fd00:2:");
    serde_json::from_str(&text).expect("a change")
}

#[test]
fn two_projects_with_the_same_addresses_share_a_network_outside() {
    let (machine, net) = one();
    let other = Station { network: 3, ..B };
    let here = |n, networks: &[u16], gateway: &str| Outside {
        host: Some("h1".to_owned()),
        gateways: vec![vec![gateway.to_owned()]],
        ..edge(n, networks)
    };
    let first = outside(&here(1, &[1, 2], GATEWAY[0]));
    let second = alike(outside(&here(2, &[3], "198.51.100.2")));
    machine.run(move |host| {
        host.apply(network(3, 1430).into_iter().map(alike));
        let guest = Guest::plug(&Port {
            tap: IfName::for_port(other.id()).to_string(),
            mac: other.mac(),
            addrs: addrs(2, 11).into(),
        });
        guest.run("ip route add default via 10.0.2.1");
        host.guests.push(guest);
        host.apply([alike(other.port()), first, second]);
    });
    net.learn(&machine, 1);
    let server = net.listen(7002);
    let second = Some(addr("198.51.100.2"));
    assert_eq!(connect(&machine, 1, &server), Some(addr(GATEWAY[0])));
    assert_eq!(connect(&machine, 2, &server), second);
    machine.run(move |host| host.apply([alike(floating_ip(1, 2, FLOATING[0], other))]));
    net.learn(&machine, 1);
    assert_eq!(connect(&machine, 2, &server), Some(addr(FLOATING[0])));
    assert_eq!(connect(&machine, 1, &server), Some(addr(GATEWAY[0])));
    assert_eq!(net.private_packets(), 0);
}

/// Of router 1.
fn router_netns() -> Netns {
    let id = router_id(1).0.simple().to_string();
    Netns::Named(format!("hr-{}", &id[22..]))
}

/// The connections that a router tracks, each by the address that it has outside.
fn tracked(host: &mut Compute) -> Vec<IpAddr> {
    let table = host
        .kernel
        .kernel
        .connections(&router_netns())
        .expect("a table");
    let mut outside = Vec::new();
    let each = |entry: Entry| {
        let leaves = entry.reply.destination != entry.original.source;
        outside.push(match leaves {
            true => entry.reply.destination,
            false => entry.original.destination,
        });
    };
    let table = table.expect("a namespace").walk(&Filter::default(), each);
    table.expect("a walk");
    outside.sort_unstable();
    outside.dedup();
    outside
}

#[test]
fn connections_end_with_what_translated_them() {
    let (machine, net) = one();
    let way = |gateway: &str| {
        outside(&Outside {
            host: Some("h1".to_owned()),
            gateways: vec![vec![gateway.to_owned()]],
            ..edge(1, &[1, 2])
        })
    };
    let first = way(GATEWAY[0]);
    machine.run(move |host| {
        let forwardings = [("80", 0), ("81", 1)];
        let all = forwardings.map(|(port, n)| {
            let ports = (FLOATING[1], port);
            forwarding(n, 1, ports, (A, port))
        });
        host.apply(all);
        host.apply([first, floating_ip(1, 1, FLOATING[0], B)]);
    });
    net.learn(&machine, 1);
    let server = net.listen(7003);
    let mut open = Vec::new();
    for guest in [0, 1] {
        let name = name_of(&machine, guest);
        let to = SocketAddr::new(far()[0], 7003);
        let stream = machine.run(move |_| {
            let netns = Handle::open(&Netns::Named(name)).expect("a guest");
            netns.run(|| TcpStream::connect(to)).expect("a namespace")
        });
        open.push(stream.expect("a connection"));
        drop(server.accept().expect("a connection"));
    }
    for port in [80, 81] {
        let server = machine.run(move |host| serve(&host.guests[0], port));
        let to = SocketAddr::new(addr(FLOATING[1]), port);
        let stream = net.0.run(move |_| TcpStream::connect(to));
        open.push(stream.expect("a connection"));
        open.push(server.accept().expect("a connection").0);
    }
    let expected = [GATEWAY[0], FLOATING[0], FLOATING[1]].map(addr).to_vec();
    assert_eq!(machine.run(tracked), expected);
    machine.run(|host| host.apply([Change::RemoveFloatingIp(floating_id(1))]));
    let expected = [GATEWAY[0], FLOATING[1]].map(addr).to_vec();
    assert_eq!(machine.run(tracked), expected);
    let other = way("198.51.100.2");
    machine.run(move |host| host.apply([other]));
    assert_eq!(machine.run(tracked), vec![addr(FLOATING[1])]);
    machine.run(|host| {
        let ids: Vec<_> = host
            .planner
            .intent()
            .port_forwardings
            .keys()
            .copied()
            .collect();
        host.apply([Change::RemovePortForwarding(ids[0])]);
        assert_eq!(
            tracked(host),
            vec![addr(FLOATING[1])],
            "the other forwarding's stay"
        );
        host.apply([Change::RemovePortForwarding(ids[1])]);
        assert_eq!(tracked(host), Vec::<IpAddr>::new());
    });
}

/// Linux takes away more than it is asked to in some cases; what is planned has to stand after each change all the same.
#[test]
fn whatever_a_router_was_before_it_stands_as_it_is_planned_now() {
    let way = |host: &str, networks: &[u16], published: &[&str]| Outside {
        host: Some(host.to_owned()),
        published: published.iter().map(|text| (*text).to_owned()).collect(),
        ..edge(1, networks)
    };
    let mut down = outside(&way("h1", &[1, 2], &["10.0.1.0/24"]));
    if let Change::PutRouter(router) = &mut down {
        router.router.admin_state_up = false;
    }
    let none = Outside {
        gateways: Vec::new(),
        ..way("h1", &[1], &["10.0.1.0/24"])
    };
    let shared = Outside {
        gateways: [["198.51.100.1"], ["198.51.100.2"]]
            .map(|g| g.map(str::to_owned).to_vec())
            .to_vec(),
        ecmp: true,
        ..way("h1", &[2], &[])
    };
    let all = ["10.0.0.0/16", "fd00:1::/64", "fd00:2::11/128"];
    let variants: Vec<Vec<Change>> = vec![
        vec![outside(&way("h1", &[1, 2], &all))],
        vec![outside(&way("h1", &[1, 2], &[]))],
        vec![
            outside(&way("h2", &[1, 2], &["10.0.1.0/24"])),
            floating_ip(1, 1, FLOATING[0], B),
        ],
        vec![
            outside(&way("h2", &[2], &[])),
            Change::RemoveFloatingIp(floating_id(1)),
        ],
        vec![down],
        vec![outside(&none)],
        vec![outside(&shared)],
        vec![Change::RemoveRouter(router_id(1))],
    ];
    let (machine, _net) = one();
    machine.run(move |host| {
        host.apply([1, 2].into_iter().flat_map(|n: u32| endpoint(n)));
        for (i, first) in variants.iter().enumerate() {
            for second in &variants[i + 1..] {
                host.apply(first.clone());
                host.apply(second.clone());
            }
        }
    });
}

#[test]
fn who_floods_a_floating_ip_does_not_fill_the_routers_table() {
    const MOST: u32 = 4;
    let machine = Machine::start("h1");
    machine.run(|host| {
        let mut config = HostConfig::new("h1".parse().expect("a name"));
        config.max_connections_per_port = MOST;
        host.planner = Planner::new(config);
        host.apply(network(2, 1430));
        host.apply(external(9, 1500));
        host.apply([group(0, &ANYWHERE)]);
        host.plug(&[B]);
        let way = Outside {
            host: Some("h2".to_owned()),
            ..edge(1, &[2])
        };
        host.apply([outside(&way), floating_ip(1, 1, FLOATING[0], B)]);
    });
    let net = Internet::start();
    net.join(&machine, 1);
    net.learn(&machine, 1);
    let server = machine.run(|host| serve(&host.guests[0], 80));
    let to = SocketAddr::new(addr(FLOATING[0]), 80);
    let open = net.0.run(move |_| -> Vec<TcpStream> {
        let patience = Duration::from_millis(300);
        let tries = (0..MOST + 2).map(|_| TcpStream::connect_timeout(&to, patience));
        tries.flatten().collect()
    });
    assert_eq!(open.len(), MOST as usize);
    machine.run(|host| {
        let table = host
            .kernel
            .kernel
            .connections(&router_netns())
            .expect("a table");
        let mut standing = 0;
        let walked = table
            .expect("a namespace")
            .walk(&Filter::default(), |_| standing += 1);
        walked.expect("a walk");
        assert_eq!(standing, MOST);
    });
    drop(server);
}
