//! Planned routers in real kernels: packets between private networks, on one host and between two.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use hextet_kernel::{Scope, netns::Handle};
use hextet_model::{
    intent::{Change, Intent, TunnelEndpoint},
    state::{Key, Netns},
};
use hextet_types::HostId;
use support::{
    private::Guest,
    run,
    tenant::{
        A, ANYWHERE, B, Compute, Machine, Station, addrs, group, network, network_id, one_host,
        router, router_id,
    },
    try_run,
};

/// The hop limit with which an answer arrives.
fn ttl_of(guest: &Guest, addr: IpAddr) -> Option<u32> {
    let command = format!("ip netns exec {} ping -n -c 1 -W 2 {addr}", guest.0);
    let text = try_run(&command).ok()?;
    let rest = text.split_once("ttl=")?.1;
    rest.split_once(' ')?.0.parse().ok()
}

#[test]
fn a_router_on_one_host_forwards_and_answers() {
    one_host().run(|host| {
        for addr in addrs(2, 11) {
            assert!(
                !host.guests[0].reaches(&addr, 56),
                "{addr} without a router"
            );
        }
        host.apply([router(1, &[1, 2], &[])]);
        let [a, b] = &host.guests[..] else {
            panic!("two")
        };
        for (there, back) in addrs(2, 11).into_iter().zip(addrs(1, 10)) {
            assert!(a.reaches(&there, 1300), "{there}");
            assert!(b.reaches(&back, 1300), "{back}");
            // Three namespaces forward, and each is a hop.
            assert_eq!(ttl_of(a, there), Some(61), "{there}");
        }
        // Past the first of them, the router reports by its own address.
        for (there, gateway) in addrs(2, 11).into_iter().zip(addrs(1, 1)) {
            let ping = format!("ip netns exec {} ping -n -c 1 -W 2 -t 2 {there}", a.0);
            let text = run(&format!("{ping} || true"));
            assert!(text.contains(&format!("From {gateway} ")), "{text}");
        }
        for addr in addrs(1, 1).into_iter().chain(addrs(2, 1)) {
            assert!(a.reaches(&addr, 56), "the router's {addr}");
        }
        for addr in addrs(2, 99) {
            assert_eq!(ttl_of(a, addr), None, "an address of nobody");
        }
    });
}

#[test]
fn a_router_that_is_down_or_gone_forwards_nothing() {
    one_host().run(|host| {
        let change = router(1, &[1, 2], &[]);
        host.apply([change.clone()]);
        let Change::PutRouter(mut down) = change.clone() else {
            panic!("a router")
        };
        down.router.admin_state_up = false;
        host.apply([Change::PutRouter(down)]);
        for addr in [addrs(2, 11), addrs(1, 1)].concat() {
            assert!(
                !host.guests[0].reaches(&addr, 56),
                "{addr} by a router that is down"
            );
        }
        host.apply([change]);
        for addr in addrs(2, 11) {
            assert!(host.guests[0].reaches(&addr, 56), "{addr}");
        }
        host.apply([Change::RemoveRouter(router_id(1))]);
        for addr in addrs(2, 11) {
            assert!(
                !host.guests[0].reaches(&addr, 56),
                "{addr} without a router"
            );
        }
        assert!(!run("ip netns list").contains("hr-"));
    });
}

#[test]
fn attaching_a_router_interrupts_nobody() {
    one_host().run(|host| {
        let neighbour = Station {
            network: 1,
            n: 12,
            group: 0,
        };
        host.plug(&[neighbour]);
        let guest = host.guests[0].0.clone();
        let pinging: Vec<_> = addrs(1, 12)
            .into_iter()
            .map(|addr| {
                Command::new("ip")
                    .args([
                        "netns", "exec", &guest, "ping", "-n", "-q", "-i", "0.002", "-c", "400",
                    ])
                    .arg(addr.to_string())
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("ping starts")
            })
            .collect();
        for networks in [&[1, 2][..], &[2], &[1], &[1, 2]] {
            host.apply([router(1, networks, &[])]);
        }
        host.apply([Change::RemoveRouter(router_id(1))]);
        for ping in pinging {
            let output = ping.wait_with_output().expect("ping ends");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains(" 0% packet loss"), "{text}");
        }
    });
}

#[test]
fn groups_judge_what_comes_by_a_router() {
    one_host().run(|host| {
        let closed = Station {
            network: 2,
            n: 12,
            group: 1,
        };
        let to_a = Station {
            network: 2,
            n: 13,
            group: 2,
        };
        host.apply([group(1, &[]), group(2, &["10.0.1.10/32", "fd00:1::10/128"])]);
        host.plug(&[closed, to_a]);
        host.apply([router(1, &[1, 2], &[])]);
        for (closed, open) in addrs(2, 12).into_iter().zip(addrs(2, 13)) {
            assert!(!host.guests[0].reaches(&closed, 56), "{closed}");
            assert!(host.guests[0].reaches(&open, 56), "{open}");
            assert!(!host.guests[1].reaches(&open, 56), "{open} from elsewhere");
        }
        // What it opens itself is answered.
        for addr in addrs(1, 10) {
            assert!(host.guests[2].reaches(&addr, 56), "{addr}");
        }
    });
}

#[test]
fn a_smaller_network_behind_a_router_is_told_of() {
    one_host().run(|host| {
        host.apply(network(3, 1280));
        let small = Station {
            network: 3,
            n: 14,
            group: 0,
        };
        host.plug(&[small]);
        host.apply([router(1, &[1, 2, 3], &[])]);
        for addr in addrs(3, 14) {
            // The first one is answered by the router with what fits.
            let ping = format!("ping -n -M do -c 1 -W 2 -s 1370 {addr}");
            let _ = try_run(&format!("ip netns exec {} {ping}", host.guests[0].0));
            let route = host.guests[0].run(&format!("ip route get {addr}"));
            assert!(route.contains("mtu 1280"), "{addr}: {route}");
        }
    });
}

#[test]
fn a_router_sends_to_a_guest_what_its_extra_routes_say() {
    one_host().run(|host| {
        let Change::PutPort(mut appliance) = (Station {
            network: 2,
            n: 20,
            group: 0,
        })
        .port() else {
            panic!("a port")
        };
        appliance.port_security_enabled = false;
        let guest = (Station {
            network: 2,
            n: 20,
            group: 0,
        })
        .plug();
        let beyond = ["192.0.2.1/32", "2001:db8:9::1/128"];
        for addr in beyond {
            guest.run(&format!("ip addr add {addr} dev lo"));
        }
        host.guests.push(guest);
        let by = addrs(2, 20);
        // Also some by several next hops, on one network and on two.
        let mut routes = vec![("192.0.2.0/24", by[0]), ("2001:db8:9::/48", by[1])];
        for (network, station) in [(2, 20), (2, 11), (1, 10)] {
            let [v4, v6] = addrs(network, station);
            routes.extend([("198.51.100.0/24", v4), ("2001:db8:a::/48", v6)]);
        }
        host.apply([Change::PutPort(appliance), router(1, &[1, 2], &routes)]);
        for addr in beyond {
            let addr = addr
                .split_once('/')
                .expect("a prefix")
                .0
                .parse()
                .expect("an address");
            assert!(
                host.guests[0].reaches(&addr, 56),
                "{addr} from another network"
            );
            assert!(host.guests[1].reaches(&addr, 56), "{addr} from its own");
        }
        // Others are still reached, and the address of nobody is not.
        assert!(host.guests[0].reaches(&addrs(2, 11)[0], 56));
        assert!(!host.guests[0].reaches(&"192.0.2.2".parse().expect("an address"), 56));
        // Somebody takes a rule away, and a table's routes.
        let Some(hx) = host
            .planner
            .state()
            .objects
            .keys()
            .find_map(|key| match key {
                Key::Rule(netns, ..) => Some(netns.to_string()),
                _ => None,
            })
        else {
            panic!("a rule")
        };
        run(&format!("ip netns exec {hx} ip rule del pref 1000"));
        let dump = host.kernel.todo(&host.planner.state().objects);
        assert_eq!(dump.len(), 1, "{dump:?}");
        let objects = host.planner.state().objects.clone();
        host.kernel.reconcile(&objects);
        host.apply([router(1, &[1, 2], &[])]);
        assert!(!run(&format!("ip netns exec {hx} ip rule")).contains("1000:"));
    });
}

#[test]
fn routers_on_one_network_send_by_each_other() {
    one_host().run(|host| {
        host.apply(network(3, 1430));
        let far = Station {
            network: 3,
            n: 12,
            group: 0,
        };
        host.plug(&[far]);
        let by = |station| addrs(2, station);
        let first = [("10.0.3.0/24", by(2)[0]), ("fd00:3::/64", by(2)[1])];
        let second = [("10.0.1.0/24", by(1)[0]), ("fd00:1::/64", by(1)[1])];
        let Change::PutRouter(mut other) = router(2, &[2, 3], &second) else {
            panic!("a router")
        };
        let interfaces = other.interfaces.values_mut();
        for interface in interfaces.filter(|i| i.network_id == network_id(2)) {
            for (fixed, addr) in interface.fixed_ips.iter_mut().zip(by(2)) {
                fixed.ip_address = addr;
            }
        }
        host.apply([router(1, &[1, 2], &first), Change::PutRouter(other)]);
        let [a, b, c] = &host.guests[..] else {
            panic!("three")
        };
        for (there, back) in addrs(3, 12).into_iter().zip(addrs(1, 10)) {
            assert_eq!(ttl_of(a, there), Some(59), "{there}: five namespaces");
            assert!(c.reaches(&back, 1300), "{back}");
            // Its gateway is the first router, which sends it back to the second.
            assert!(b.reaches(&there, 56), "{there}");
        }
        for addr in addrs(2, 11) {
            assert!(a.reaches(&addr, 56) && c.reaches(&addr, 56), "{addr}");
        }
    });
}

/// What both hosts know, and what each has.
fn clouds(addrs_of_hosts: [&'static str; 2]) -> [Machine; 2] {
    let machines = [Machine::start("h1"), Machine::start("h2")];
    let [first, second] = &machines;
    first.join(second, addrs_of_hosts);
    let at = move |n: usize| -> Change {
        let address = addrs_of_hosts[n].split_once('/').expect("a prefix").0;
        let name: HostId = ["h1", "h2"][n].parse().expect("a name");
        let endpoint = TunnelEndpoint {
            number: n as u32 + 1,
            address: address.parse().expect("an address"),
        };
        Change::PutHost(name, endpoint)
    };
    for (machine, (own, other, at_other)) in machines.iter().zip([(A, B, "h2"), (B, A, "h1")]) {
        machine.run(move |host| {
            host.apply(network(1, 1400).into_iter().chain(network(2, 1400)));
            host.apply([group(0, &ANYWHERE), at(0), at(1)]);
            let name: HostId = at_other.parse().expect("a name");
            let remotes = addrs(other.network, other.n).map(|addr| (addr, name.clone()));
            host.apply([Change::PutRemotes(
                network_id(other.network),
                remotes.into(),
            )]);
            host.plug(&[own]);
            host.apply([router(1, &[1, 2], &[])]);
        });
    }
    machines
}

/// So much goes over a connection.
const OCTETS: usize = 4 << 20;

fn inside<T: Send>(guest: &Guest, work: impl FnOnce() -> T + Send) -> T {
    let handle = Handle::open(&Netns::Named(guest.0.clone())).expect("a namespace");
    handle.run(work).expect("inside")
}

/// Whether all of a long stream arrives, of which each host's part of the target network sees one direction.
fn stream(from: &Machine, to: &Machine, addr: IpAddr) {
    let received = to.run(move |host| {
        let listen = || TcpListener::bind((addr, 7)).expect("a listener");
        let listener = inside(&host.guests[0], listen);
        thread::spawn(move || {
            let (mut connection, _) = listener.accept().expect("a connection");
            let mut octets = Vec::new();
            connection.read_to_end(&mut octets).expect("a stream");
            octets.len()
        })
    });
    from.run(move |host| {
        let connect = || TcpStream::connect((addr, 7)).expect("connected");
        let mut sender = inside(&host.guests[0], connect);
        sender.write_all(&vec![0x68; OCTETS]).expect("sent");
    });
    assert_eq!(received.join().expect("received"), OCTETS, "to {addr}");
}

fn between_hosts(addrs_of_hosts: [&'static str; 2]) {
    let [first, second] = clouds(addrs_of_hosts);
    first.run(|host| {
        for addr in addrs(2, 11) {
            assert!(host.guests[0].reaches(&addr, 1300), "{addr}");
            // One hop more: the other host's part of the network.
            assert_eq!(ttl_of(&host.guests[0], addr), Some(60), "{addr}");
        }
    });
    second.run(|host| {
        for addr in addrs(1, 10) {
            assert!(host.guests[0].reaches(&addr, 1300), "{addr}");
        }
    });
    for addr in addrs(2, 11) {
        stream(&first, &second, addr);
    }
}

#[test]
fn routed_between_hosts_over_ipv4() {
    between_hosts(["192.0.2.1/24", "192.0.2.2/24"]);
}

#[test]
fn routed_between_hosts_over_ipv6() {
    between_hosts(["2001:db8::1/64", "2001:db8::2/64"]);
}

#[test]
fn what_a_host_was_told_is_there_again_after_a_restart() {
    one_host().run(|host| {
        host.apply([router(1, &[1, 2], &[])]);
        let intent: Intent = host.planner.intent().clone();
        let mut again = Compute::open("h1");
        again.planner.replace(&intent);
        let todo = again.kernel.todo(&again.planner.state().objects);
        assert_eq!(todo, Vec::<String>::new());
    });
}

#[test]
fn a_router_that_somebody_takes_away_is_made_again() {
    one_host().run(|host| {
        let routes = [("192.0.2.0/24", addrs(2, 11)[0])];
        host.apply([router(1, &[1, 2], &routes)]);
        let reaches = |host: &Compute| {
            let mut all = addrs(2, 11).into_iter().chain(addrs(2, 1));
            all.all(|addr| host.guests[0].reaches(&addr, 56))
        };
        assert!(reaches(host));
        let names = run("ip netns list");
        let hr = names.lines().find(|line| line.starts_with("hr-"));
        let hr = hr.and_then(|line| line.split(' ').next()).expect("one");
        run(&format!("ip netns del {hr}"));
        // We hold it until we look, and then its end, and that of its links, takes its time.
        let objects = host.planner.state().objects.clone();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let report = host.kernel.kernel.reconcile(&Scope::of(&objects));
            report.expect("a dump");
            if host.kernel.todo(&objects).is_empty() && reaches(host) {
                break;
            }
            assert!(Instant::now() < deadline, "it is not made again");
        }
    });
}

/// Packets a second through a router, and within a network; `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_a_router_costs() {
    one_host().run(|host| {
        let neighbour = Station {
            network: 1,
            n: 12,
            group: 0,
        };
        host.plug(&[neighbour]);
        host.apply([router(1, &[1, 2], &[])]);
        for (what, to) in [("within", addrs(1, 12)), ("routed", addrs(2, 11))] {
            for addr in to {
                let begin = Instant::now();
                host.guests[0].run(&format!("ping -n -q -f -c 20000 {addr}"));
                let each = begin.elapsed() / 20_000;
                println!("{what} {addr}: {} ns there and back", each.as_nanos());
                assert!(each > Duration::ZERO);
            }
        }
    });
}
