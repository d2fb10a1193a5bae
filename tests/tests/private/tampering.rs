//! Somebody else's hand in a private network's namespace: what it takes away comes back soon.

use hextet_types::Family;

use super::{
    host::wait_for,
    world::{Guest, World},
};

/// Does that to the host, and waits until nothing is left to be mended and packets pass.
fn mended(world: &World, what: &str, guests: &[Guest; 2]) {
    let before = world.agents[0].status().kernel.writes;
    world.hosts[0].run(what);
    wait_for(&format!("'{what}' is noticed"), || {
        world.agents[0].status().kernel.writes > before
    });
    passes_again(world, what, guests);
}

fn passes_again(world: &World, what: &str, guests: &[Guest; 2]) {
    world.agents[0].settles();
    for addr in &guests[1].addrs {
        wait_for(&format!("{addr} answers after '{what}'"), || {
            world.pings(&guests[0], *addr, "")
        });
    }
}

#[test]
fn what_others_take_away_comes_back() {
    let mut world = World::new(2, Family::V6);
    let group = world.open_group();
    let network = world.network();
    let guests = [
        world.guest(0, network, 11, group),
        world.guest(1, network, 12, group),
    ];
    world.tell();
    let name = world.hosts[0].networks().remove(0);
    let tap = world.cloud.intent.ports[&guests[0].port].if_name();
    let outer = hextet_model::plan::outer_end(guests[0].port).unwrap();
    let inside = |what: &str| format!("ip netns exec {name} {what}");
    for what in [
        inside("ip -6 route del fd00::c"),
        inside("ip route del 10.0.0.11"),
        inside("nft flush ruleset"),
        inside(&format!("ip link set {tap} down")),
        inside("ip link set vxlan down"),
        inside("ip link del vxlan"),
        inside("sysctl -qw net.ipv6.conf.all.forwarding=0"),
        inside(&format!("ip link set {tap} mtu 1300")),
        format!("ip link del {outer}"),
        format!("ip link set {outer} down"),
        format!("ip link set {tap} down"),
        format!("ip netns del {name}"),
    ] {
        mended(&world, &what, &guests);
    }
    // Where the programs run by TCX already, tc's are not missed.
    for what in [
        inside(&format!("tc qdisc del dev {tap} clsact")),
        format!("tc qdisc del dev {outer} clsact"),
    ] {
        world.hosts[0].run(&what);
        passes_again(&world, &what, &guests);
    }
    assert_eq!(world.hosts[0].networks(), [name]);
}
