//! A port stands by on a host while its workload is on another, and then the workload is there: what comes to the former
//! host meanwhile follows it. Real packets on three hosts, both families.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    net::{IpAddr, UdpSocket},
    time::{Duration, Instant},
};

use hextet_kernel::netns::Handle;
use hextet_model::{
    intent::{Change, TunnelEndpoint},
    state::{Key, Netns},
};
use hextet_types::HostId;
use support::{
    private::Guest,
    run,
    tenant::{ANYWHERE, Compute, Machine, Station, addrs, group, network, network_id},
};

const SENDER: Station = Station {
    network: 1,
    n: 10,
    group: 0,
};
const MOVER: Station = Station {
    network: 1,
    n: 11,
    group: 0,
};
const ENDPOINTS: [&str; 3] = ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:2::3"];
const PORT: u16 = 7;
const SOON: Duration = Duration::from_secs(10);

fn host(n: usize) -> HostId {
    format!("h{}", n + 1).parse().expect("a name")
}

fn inside<T: Send>(guest: &Guest, work: impl FnOnce() -> T + Send) -> T {
    let handle = Handle::open(&Netns::Named(guest.0.clone())).expect("a namespace");
    handle.run(work).expect("inside")
}

/// Three hosts in a row, which know each other's endpoints and the network.
fn three_hosts() -> [Machine; 3] {
    let machines = ["h1", "h2", "h3"].map(Machine::start);
    machines[0].join(&machines[1], ["2001:db8:1::1/64", "2001:db8:1::2/64"]);
    let far = machines[2].thread();
    machines[1].run(move |_| {
        run(&format!(
            "ip link add up1 type veth peer name up0 netns {far}"
        ));
        run("ip link set up1 up && ip addr add 2001:db8:2::2/64 dev up1 nodad");
    });
    machines[2].run(|_| {
        run("ip link set up0 up && ip addr add 2001:db8:2::3/64 dev up0 nodad");
        run("ip route add 2001:db8:1::/64 via 2001:db8:2::2");
    });
    for machine in &machines {
        machine.run(|compute| {
            compute.apply(network(1, 1300));
            compute.apply([group(0, &ANYWHERE)]);
            for (n, address) in ENDPOINTS.into_iter().enumerate() {
                let endpoint = TunnelEndpoint {
                    number: n as u32 + 1,
                    address: address.parse().expect("an address"),
                };
                compute.apply([Change::PutHost(host(n), endpoint)]);
            }
        });
    }
    machines
}

/// A station's addresses are on that host.
fn at(station: Station, n: usize) -> Change {
    let places = addrs(1, station.n).map(|addr| (addr, host(n)));
    Change::PutRemotes(network_id(1), BTreeMap::from(places))
}

/// A station's addresses are on no other host.
fn here(station: Station) -> Change {
    Change::RemoveRemotes(network_id(1), BTreeSet::from(addrs(1, station.n)))
}

/// Waits until what the sender sends to an address comes to the mover on that host.
fn comes_to(machines: &[Machine; 3], n: usize, addr: IpAddr) {
    let listener = machines[n].run(move |compute| {
        inside(&compute.guests[0], || {
            let listener = UdpSocket::bind((addr, PORT)).expect("it has the address");
            let limit = Some(Duration::from_millis(50));
            listener.set_read_timeout(limit).expect("a limit");
            listener
        })
    });
    let end = Instant::now() + SOON;
    loop {
        machines[0].run(move |compute| {
            inside(&compute.guests[0], || {
                let any = if addr.is_ipv4() {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                let socket = UdpSocket::bind(any).expect("a socket");
                socket.send_to(b"x", (addr, PORT)).expect("sent");
            });
        });
        match listener.recv(&mut [0; 8]) {
            Ok(_) => return,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => panic!("{addr}: {e}"),
        }
        assert!(Instant::now() < end, "{addr} on h{}", n + 1);
    }
}

/// Whether these are ways alone: routes, what is local, how hosts are known; nothing of a port's link or rules.
fn are_ways(changed: &BTreeSet<Key>) -> bool {
    let is_way = |key: &Key| match key {
        Key::Route(_) => true,
        Key::Element(_, set, _) => set.0.starts_with("locals"),
        Key::Neighbour(_, link, _) | Key::Fdb(_, link, _) => link.as_str() == "vxlan",
        _ => false,
    };
    !changed.is_empty() && changed.iter().all(is_way)
}

fn apply(machine: &Machine, changes: Vec<Change>) -> BTreeSet<Key> {
    machine.run(move |compute: &mut Compute| compute.apply(changes))
}

#[test]
fn who_has_left_is_followed_from_where_it_was() {
    let machines = three_hosts();
    machines[0].run(|compute| {
        compute.apply([at(MOVER, 1)]);
        compute.plug(&[SENDER]);
    });
    machines[1].run(|compute| {
        compute.apply([at(SENDER, 0)]);
        compute.plug(&[MOVER]);
    });
    machines[2].run(|compute| {
        compute.apply([at(SENDER, 0), at(MOVER, 1)]);
        compute.guests.push(MOVER.plug());
        compute.apply([MOVER.port(), Change::PutStandby(MOVER.id())]);
    });
    let mover = addrs(1, MOVER.n);
    for addr in mover {
        comes_to(&machines, 1, addr);
    }
    // Links, neighbours and rules stand already.
    let changed = apply(
        &machines[2],
        vec![Change::RemoveStandby(MOVER.id()), here(MOVER)],
    );
    assert!(are_ways(&changed), "{changed:?}");
    // The former host knows, the sender does not yet.
    let changed = apply(
        &machines[1],
        vec![at(MOVER, 2), Change::PutStandby(MOVER.id())],
    );
    assert!(are_ways(&changed), "{changed:?}");
    for addr in mover {
        comes_to(&machines, 2, addr);
    }
    let changed = apply(&machines[0], vec![at(MOVER, 2)]);
    assert!(are_ways(&changed), "{changed:?}");
    // And back, since the workload goes on where it was.
    apply(
        &machines[1],
        vec![Change::RemoveStandby(MOVER.id()), here(MOVER)],
    );
    apply(
        &machines[2],
        vec![at(MOVER, 1), Change::PutStandby(MOVER.id())],
    );
    apply(&machines[0], vec![at(MOVER, 1)]);
    for addr in mover {
        comes_to(&machines, 1, addr);
    }
}
