//! Next hops that workloads choose, in real kernels: a workload that routes for its neighbours, here and on another
//! host, and a router that is not the network's default.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::net::IpAddr;

use hextet_model::{
    intent::{Change, RemotePort},
    neutron::Port,
};
use support::{
    private::Guest,
    tenant::{
        A, ANYWHERE, Compute, Machine, Station, UNDERLAY, addrs, group, host, network, network_id,
        router, two_hosts,
    },
};

/// What a workload that routes has behind it.
const BEHIND: [&str; 2] = ["192.0.2.1", "2001:db8:b::1"];
/// The workload that routes.
const R: Station = Station {
    network: 1,
    n: 20,
    group: 0,
};

fn carrier() -> Port {
    let Change::PutPort(port) = R.port() else {
        panic!("a port")
    };
    Port {
        port_security_enabled: false,
        security_groups: Vec::new(),
        ..*port
    }
}

/// Has the addresses behind it for its own.
fn plug_carrier(host: &mut Compute) {
    host.guests.push(R.plug());
    host.apply([Change::PutPort(Box::new(carrier()))]);
    let guest = host.guests.last().expect("it is there");
    guest.run("ip addr add 192.0.2.1/32 dev lo");
    guest.run("ip addr add 2001:db8:b::1/128 dev lo nodad");
}

/// The workload sends by it what is for those behind it.
fn choose(guest: &Guest) {
    let [v4, v6] = addrs(R.network, R.n);
    guest.run(&format!("ip route add 192.0.2.0/24 via {v4}"));
    guest.run(&format!("ip -6 route add 2001:db8:b::/64 via {v6}"));
}

fn behind() -> [IpAddr; 2] {
    BEHIND.map(|addr| addr.parse().expect("an address"))
}

/// Which Ethernet address a workload has for its neighbour.
fn neighbour(guest: &Guest, addr: IpAddr) -> String {
    guest.run(&format!("ip neigh show {addr}"))
}

#[test]
fn a_workload_routes_for_its_neighbour_on_one_host() {
    Machine::start("h1").run(|host| {
        host.apply(network(1, 1430));
        host.apply([group(0, &ANYWHERE)]);
        host.plug(&[A]);
        choose(&host.guests[0]);
        for addr in behind() {
            assert!(!host.guests[0].reaches(&addr, 56), "{addr} by nobody");
        }
        plug_carrier(host);
        // What it had been told of an address without a port it may keep for a while.
        host.guests[0].run("ip neigh flush all");
        for addr in behind() {
            assert!(host.guests[0].reaches(&addr, 1300), "{addr}");
        }
        for addr in addrs(R.network, R.n) {
            assert!(host.guests[0].reaches(&addr, 56), "its own {addr}");
            let known = neighbour(&host.guests[0], addr);
            assert!(known.contains(&R.mac().to_string()), "{known}");
        }
        for addr in addrs(A.network, A.n) {
            assert!(host.guests[1].reaches(&addr, 56), "back to {addr}");
        }
        // As before, once nobody may carry anything any more.
        host.apply([R.port()]);
        host.guests[0].run("ip neigh flush all");
        for addr in behind() {
            assert!(!host.guests[0].reaches(&addr, 56), "{addr} by a plain port");
        }
    });
}

#[test]
fn packets_that_two_send_to_each_other_end() {
    Machine::start("h1").run(|host| {
        host.apply(network(1, 1430));
        host.apply([group(0, &ANYWHERE)]);
        host.plug(&[A]);
        plug_carrier(host);
        choose(&host.guests[0]);
        // It sends back to whom it came from.
        let [v4, v6] = addrs(A.network, A.n);
        let r = &host.guests[1];
        r.run("sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        r.run("ip addr del 192.0.2.1/32 dev lo");
        r.run("ip addr del 2001:db8:b::1/128 dev lo");
        r.run(&format!("ip route add 192.0.2.0/24 via {v4}"));
        r.run(&format!("ip -6 route add 2001:db8:b::/64 via {v6}"));
        host.guests[0].run("sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for addr in behind() {
            assert!(!host.guests[0].reaches(&addr, 56), "{addr}");
        }
        for addr in addrs(R.network, R.n) {
            assert!(host.guests[0].reaches(&addr, 56), "{addr}");
        }
    });
}

fn between_hosts(at: [&'static str; 2]) {
    let machines = two_hosts(at, [&[A], &[R]]);
    machines[1].run(plug_carrier);
    machines[0].run(|compute| {
        compute.plug(&[A]);
        choose(&compute.guests[0]);
        let told = RemotePort::of(&carrier(), &host(2)).expect("it may carry");
        compute.apply([Change::PutRemotePort(Box::new(told))]);
        for addr in behind() {
            assert!(compute.guests[0].reaches(&addr, 1200), "{addr}");
        }
        for addr in addrs(R.network, R.n) {
            assert!(compute.guests[0].reaches(&addr, 56), "its own {addr}");
        }
        // Nothing is left of it once it is gone.
        compute.apply([Change::RemoveRemotePort(R.id())]);
        compute.guests[0].run("ip neigh flush all");
        for addr in behind() {
            assert!(!compute.guests[0].reaches(&addr, 56), "{addr}");
        }
        for addr in addrs(R.network, R.n) {
            assert!(compute.guests[0].reaches(&addr, 56), "its own {addr}");
        }
    });
    machines[1].run(|compute| {
        for addr in addrs(A.network, A.n) {
            assert!(compute.guests[0].reaches(&addr, 56), "back to {addr}");
        }
    });
}

#[test]
fn a_workload_routes_for_one_on_another_host_over_ipv4() {
    between_hosts(["192.0.2.1/24", "192.0.2.2/24"]);
}

#[test]
fn a_workload_routes_for_one_on_another_host_over_ipv6() {
    between_hosts(UNDERLAY);
}

#[test]
fn a_workload_chooses_between_routers() {
    Machine::start("h1").run(|host| {
        for n in [1, 2, 3] {
            host.apply(network(n, 1430));
        }
        host.apply([group(0, &ANYWHERE)]);
        let behind_second = Station {
            network: 3,
            n: 11,
            group: 0,
        };
        host.plug(&[A, behind_second]);
        // The second router's address on the first network is another station's.
        let Change::PutRouter(mut second) = router(2, &[1, 3], &[]) else {
            panic!("a router")
        };
        for interface in second.interfaces.values_mut() {
            if interface.network_id == network_id(1) {
                for (fixed, addr) in interface.fixed_ips.iter_mut().zip(addrs(1, 2)) {
                    fixed.ip_address = addr;
                }
            }
        }
        host.apply([router(1, &[1, 2], &[]), Change::PutRouter(second)]);
        for addr in addrs(3, 11) {
            assert!(!host.guests[0].reaches(&addr, 56), "{addr} by the default");
        }
        let [v4, v6] = addrs(1, 2);
        host.guests[0].run(&format!("ip route add 10.0.3.0/24 via {v4}"));
        host.guests[0].run(&format!("ip -6 route add fd00:3::/64 via {v6}"));
        for addr in addrs(3, 11) {
            assert!(host.guests[0].reaches(&addr, 1300), "{addr}");
        }
        let known = neighbour(&host.guests[0], v4);
        assert!(known.contains("02:01:00:00:02:01"), "{known}");
    });
}
