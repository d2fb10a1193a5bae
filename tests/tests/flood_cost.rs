//! What a port at its limit of connections costs, and whether others notice. Nothing is asserted about
//! time: `cargo test --release -p hextet-tests --test flood_cost -- --ignored --nocapture` prints it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use hextet_model::{neutron::Direction, plan::HostConfig};
use hextet_tests::{
    cloud::{Allow, Cloud},
    defence::Defence,
    hypervisor::{Hypervisor, in_own_namespace, internet},
    packet::{Ends, Ip, ether_ip, udp},
};
use hextet_types::{Family, PortId};

const FAMILY: Family = Family::V6;
/// More than the limit.
const CONNECTIONS: u32 = 40_000;
/// Packets whose cost is shown together.
const BATCH: u32 = 4_000;

fn host(left_out: &[Defence]) -> (Hypervisor, PortId, PortId) {
    let mut cloud = Cloud::new();
    let network = cloud.network(1500);
    cloud.subnet(network, "2001:db8:1::/64");
    let rules: Vec<Allow> = [Direction::Egress, Direction::Ingress]
        .into_iter()
        .flat_map(Allow::both)
        .collect();
    let group = cloud.group(true, &rules);
    let busy = cloud.port(network, &["2001:db8:1::a"], &[group]);
    let other = cloud.port(network, &["2001:db8:1::b"], &[group]);
    let config = HostConfig::new("compute-1".parse().unwrap());
    let mut host = Hypervisor::new(config, &cloud.with_members(), left_out);
    host.plug(busy);
    host.plug(other);
    host.settle();
    (host, busy, other)
}

/// Opens a connection, and gives the time that it took the host to forward the packet.
fn open(host: &mut Hypervisor, port: PortId, n: u32) -> Duration {
    let ends = Ends::new(host.address(port, FAMILY), internet(FAMILY));
    let ports = [n % 50_000 + 1000, n / 50_000 + 1000].map(|p| u16::try_from(p).unwrap());
    let packet = Ip::default().packet(ends, &udp(ends, ports[0], ports[1], b""));
    let frame = ether_ip(host.to_gateway(port), &packet);
    let start = Instant::now();
    host.send(port, &frame);
    start.elapsed()
}

#[test]
#[ignore = "a measurement"]
fn connections_of_a_port_beyond_its_limit() {
    for left_out in [vec![], vec![Defence::Floods]] {
        println!("without {left_out:?}");
        in_own_namespace(|| {
            let (mut host, busy, other) = host(&left_out);
            let mut waits = Vec::new();
            for first in (0..CONNECTIONS).step_by(usize::try_from(BATCH).unwrap()) {
                let start = Instant::now();
                let (mut spent, mut longest) = (Duration::ZERO, Duration::ZERO);
                for n in first..first + BATCH {
                    let took = open(&mut host, busy, n);
                    spent += took;
                    longest = longest.max(took);
                    if n % 100 == 0 {
                        waits.push(open(&mut host, other, 1));
                    }
                }
                println!(
                    "{:>6} connections: {:>8.2} us each, longest {:>8.2} us, {:?} in all",
                    first + BATCH,
                    spent.as_secs_f64() * 1e6 / f64::from(BATCH),
                    longest.as_secs_f64() * 1e6,
                    start.elapsed()
                );
                host.uplink.clear();
            }
            waits.sort();
            println!(
                "a packet of another port: median {:?}, longest {:?}",
                waits[waits.len() / 2],
                waits.last()
            );
        });
    }
}
