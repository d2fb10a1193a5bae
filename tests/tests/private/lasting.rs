//! What outlives an agent: all of it, until the host leaves.

use std::{process::Stdio, thread, time::Duration};

use hextet_types::Family;

use super::{
    host::wait_for,
    world::{Guest, World},
};

/// Pings an address fifty times a second, from before something is done until after it; gives what the program says.
fn pinging(world: &mut World, from: &Guest, options: &str, act: impl FnOnce(&mut World)) -> String {
    let line = format!(
        "exec ip netns exec {} ping -n -i 0.02 -w 60 {options}",
        from.name
    );
    let ping = world.hosts[from.host]
        .command("sh")
        .args(["-c", &line])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    act(world);
    let pid = nix::unistd::Pid::from_raw(ping.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = ping.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Killed at some moment while it works, an agent loses no packet; the next one finds all as it has to be.
#[test]
fn a_killed_agent_loses_no_packet() {
    let mut world = World::new(2, Family::V6);
    let group = world.open_group();
    let network = world.network();
    let guests = [
        world.guest(0, network, 11, group),
        world.guest(0, network, 12, group),
        world.guest(1, network, 13, group),
    ];
    world.tell();
    for (to, nth) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
        let to = guests[to].addrs[nth].to_string();
        let said = pinging(&mut world, &guests[0], &to, |world| {
            for pause in [0, 40, 200] {
                world.restart(0);
                thread::sleep(Duration::from_millis(pause));
            }
            world.restart(1);
            world.agents.iter().for_each(super::agent::Agent::settles);
        });
        assert!(said.contains(" 0% packet loss"), "{to}: {said}");
    }
    for agent in &world.agents {
        assert_eq!(agent.status().kernel.writes, 0, "{}", agent.log());
    }
}

/// Killed while it makes networks, or takes them away, it leaves nothing that the next one does not know of.
#[test]
fn killed_in_the_middle_it_leaves_nothing_behind() {
    let mut world = World::new(1, Family::V6);
    let group = world.open_group();
    let networks: Vec<_> = (0..6).map(|_| world.network()).collect();
    let guests: Vec<_> = networks
        .iter()
        .map(|network| world.guest(0, *network, 11, group))
        .collect();
    let whole = world.intent_of(0);
    let mut fewer = whole.clone();
    for guest in &guests[1..] {
        fewer.ports.remove(&guest.port);
    }
    fewer.networks.retain(|id, _| *id == networks[0]);
    for (round, millis) in [2, 5, 10, 20, 40, 80].into_iter().enumerate() {
        let intent = if round % 2 == 0 { &whole } else { &fewer };
        let agent = &mut world.agents[0];
        agent.tell(round as u64 + 1, intent);
        thread::sleep(Duration::from_millis(millis));
        world.restart(0);
    }
    world.agents[0].tell(10, &whole);
    world.agents[0].settles();
    assert_eq!(world.hosts[0].networks().len(), 6);
    world.agents[0].tell(11, &fewer);
    world.agents[0].settles();
    assert_eq!(world.hosts[0].networks().len(), 1);
    let pairs = world.hosts[0].run("ip -o link show | grep -c hxp");
    assert_eq!(pairs.trim(), "1");
}

#[test]
fn who_leaves_leaves_nothing_behind() {
    let mut world = World::new(1, Family::V6);
    let group = world.open_group();
    for _ in 0..3 {
        let network = world.network();
        world.guest(0, network, 11, group);
    }
    world.tell();
    assert_eq!(world.hosts[0].networks().len(), 3);
    world.agents.remove(0).kill();
    world.homes[0].leave(&world.hosts[0]);
    let host = &world.hosts[0];
    assert_eq!(host.networks(), [""; 0]);
    assert_eq!(host.run("nft list ruleset"), "");
    assert!(!host.tries("ip -o link show | grep hxp"));
    let hung = host.run("tc qdisc show");
    assert!(!hung.contains("clsact"), "{hung}");
    let forwards = host.run("sysctl -n net.ipv6.conf.all.forwarding");
    assert_eq!(forwards, "0\n", "as it was before");
}

/// A port passes packets as long as its guest has a link, and says so.
#[test]
fn a_port_s_status_is_that_of_its_link() {
    let mut world = World::new(1, Family::V6);
    let group = world.open_group();
    let network = world.network();
    let guests = [11, 12].map(|n| world.guest(0, network, n, group));
    world.tell();
    let down = |world: &World| {
        let status = world.agents[0].status();
        let port = status.ports.iter().find(|port| port.id == guests[0].port);
        port.unwrap().down.clone()
    };
    assert_eq!(down(&world), None);
    world.hosts[0].run(&format!("ip netns del {}", guests[0].name));
    wait_for("the port is down", || down(&world).is_some());
    world.plug(&guests[0]);
    wait_for("the port is up", || down(&world).is_none());
    world.run_in(&guests[0], "ip addr add 10.0.0.11/24 dev eth0");
    assert!(world.pings(&guests[0], guests[1].addrs[0], ""));
}
