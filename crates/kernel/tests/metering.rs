//! What metering labels count in real kernels: each packet that passes a router's way outside, once, on the host where it
//! does.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::mpsc,
};

use hextet_kernel::{Counted, Keeper};
use hextet_model::{
    intent::{Change, MeterRule},
    neutron::Direction,
    plan::metered,
    state::Netns,
};
use hextet_types::MeteringLabelId;
use support::{
    internet::{C, FLOATING, edge, far, name_of, two},
    run,
    tenant::{Compute, Machine, Outside, floating_ip, id, outside, router_id},
};

/// Octets of an IP header and of ICMP's, with what `ping` sends besides.
const ECHO: [u64; 2] = [20 + 8 + 56, 40 + 8 + 56];

fn label(n: u16) -> MeteringLabelId {
    id(8, n).parse().expect("an id")
}

fn meter(direction: Direction, excluded: bool, source: &str, destination: &str) -> MeterRule {
    let prefix = |text: &str| (!text.is_empty()).then(|| text.parse().expect("a prefix"));
    MeterRule {
        direction,
        excluded,
        source: prefix(source),
        destination: prefix(destination),
    }
}

/// Label 1 counts all; label 2 what goes from A's network to IPv4, but for A's own address.
fn way() -> Outside {
    let (egress, ingress) = (Direction::Egress, Direction::Ingress);
    let all = BTreeSet::from([
        meter(egress, false, "0.0.0.0/0", ""),
        meter(egress, false, "::/0", ""),
        meter(ingress, false, "", "10.0.0.0/8"),
        meter(ingress, false, "", "fd00::/16"),
    ]);
    let some = BTreeSet::from([
        meter(egress, false, "10.0.0.0/8", "192.0.2.0/24"),
        meter(egress, true, "10.0.1.10/32", ""),
    ]);
    Outside {
        host: Some("h1".to_owned()),
        published: vec!["fd00:1::/64".to_owned()],
        meters: BTreeMap::from([(label(1), all), (label(2), some)]),
        ..edge(1, &[1, 2])
    }
}

fn router_netns() -> Netns {
    let id = router_id(1).0.simple().to_string();
    Netns::Named(format!("hr-{}", &id[22..]))
}

fn counted(host: &mut Compute) -> BTreeMap<(MeteringLabelId, Direction), (u64, u64)> {
    by_label(
        host.kernel
            .kernel
            .counted(&router_netns())
            .expect("counters"),
    )
}

fn by_label(counted: Vec<Counted>) -> BTreeMap<(MeteringLabelId, Direction), (u64, u64)> {
    let read = counted.into_iter().filter_map(|count| {
        let (label, router, direction) = metered(&count.name)?;
        assert_eq!(router, router_id(1));
        Some(((label, direction), (count.packets, count.octets)))
    });
    read.collect()
}

fn echoes(machine: &Machine, guest: usize, to: IpAddr, count: u64) {
    let name = name_of(machine, guest);
    machine.run(move |_| {
        run(&format!(
            "ip netns exec {name} ping -n -c {count} -i 0.02 -W 5 {to}"
        ));
    });
}

#[test]
fn what_passes_outside_is_counted_once_where_it_passes() {
    let ([first, second], net) = two(&way());
    second.run(|host| {
        host.apply([floating_ip(1, 1, FLOATING[0], C)]);
    });
    net.learn(&second, 2);
    let [v4, v6] = far();
    echoes(&first, 0, v4, 5);
    echoes(&first, 0, v6, 3);
    // B on the second host has no public address: the first one translates for it. C has a floating IP.
    echoes(&second, 0, v4, 4);
    echoes(&second, 1, v4, 7);
    let all = |packets: [u64; 2]| {
        let octets = packets[0] * ECHO[0] + packets[1] * ECHO[1];
        (packets[0] + packets[1], octets)
    };
    let (egress, ingress) = (Direction::Egress, Direction::Ingress);
    let on_first = first.run(counted);
    let expected = BTreeMap::from([
        ((label(1), egress), all([5 + 4, 3])),
        ((label(1), ingress), all([5 + 4, 3])),
        ((label(2), egress), all([4, 0])),
    ]);
    assert_eq!(on_first, expected);
    let on_second = second.run(counted);
    let expected = BTreeMap::from([
        ((label(1), egress), all([7, 0])),
        ((label(1), ingress), all([7, 0])),
        ((label(2), egress), all([7, 0])),
    ]);
    assert_eq!(on_second, expected);
    // What stays inside counts nowhere.
    let inside = support::tenant::addrs(2, 11)[0];
    echoes(&first, 0, inside, 3);
    assert_eq!(first.run(counted), on_first);
    assert_eq!(second.run(counted), on_second);
}

#[test]
fn counters_outlast_changes_of_rules_and_are_read_before_they_go() {
    let ([first, _second], _net) = two(&way());
    let (kept, last) = mpsc::channel();
    first.run(move |host| {
        let keeper = Keeper::new(move |counted| kept.send(counted).expect("a test"));
        host.kernel.kernel.keep_counts(keeper);
    });
    let [v4, _] = far();
    echoes(&first, 0, v4, 5);
    let egress = (label(1), Direction::Egress);
    // A label goes, another one comes, and one has another rule.
    let others = |n: u16| {
        let mut way = way();
        way.meters.remove(&label(2));
        let all = way.meters[&label(1)].clone();
        way.meters.insert(label(n), all);
        let own = way.meters.get_mut(&label(1)).expect("a label");
        own.insert(meter(Direction::Egress, true, "10.9.0.0/16", ""));
        outside(&way)
    };
    let change = others(3);
    first.run(move |host| drop(host.apply([change])));
    let gone = by_label(last.try_iter().flatten().collect());
    let nothing = BTreeMap::from([((label(2), Direction::Egress), (0, 0))]);
    assert_eq!(gone, nothing, "A's own address does not count for it");
    echoes(&first, 0, v4, 2);
    let now = first.run(counted);
    assert_eq!(now[&egress].0, 7);
    assert_eq!(now[&(label(3), Direction::Egress)].0, 2);
    // With the router all goes, and nothing of it is lost.
    first.run(|host| drop(host.apply([Change::RemoveRouter(router_id(1))])));
    assert_eq!(by_label(last.try_iter().flatten().collect()), now);
    assert_eq!(first.run(counted), BTreeMap::new());
}
