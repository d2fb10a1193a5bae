//! Servers on a private network, plugged as Nova plugs them: a TAP that stays in the host's own namespace, behind it a
//! real machine, which boots, is rebooted and unplugged, with the agent and without it. Both families.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../cloud/mod.rs"]
mod cloud;
mod nova;
mod server;

use cloud::Cloud;
use hextet_lab::{Node, guest::Guest as Machine, wait_until};
use nova::Nova;
use serde_json::{Value, json};
use server::{Container, LIMIT, Network, Server, prepare_stream};
use std::thread;

const PLUGGED: &str = "network-vif-plugged";
const DELETED: &str = "network-vif-deleted";
/// How many pings go out while the agent is killed and started.
const PINGS: u32 = 250;
/// How many streams of a machine may go by before a long segment is seen.
const STREAMS: u32 = 20;

/// A cloud that tells Nova of its ports.
fn with_nova() -> (Cloud, Nova) {
    let mut cloud = Cloud::up();
    let controller = cloud.lab.node("controller").unwrap();
    let directory = cloud.lab.node_directory("controller");
    let clouds_yaml = std::fs::read_to_string(directory.join("clouds.yaml")).unwrap();
    let mut lines = clouds_yaml.lines().map(str::trim);
    let password = lines.find_map(|line| line.strip_prefix("password:"));
    let password_file = directory.join("nova-password");
    std::fs::write(&password_file, password.unwrap().trim().trim_matches('"')).unwrap();
    let nova = Nova::listen(&controller);
    cloud.reconfigure_server(&Nova::configuration(password_file.to_str().unwrap()));
    (cloud, nova)
}

/// Waits until an agent has nothing left to write.
#[track_caller]
fn settles(cloud: &Cloud, host: usize) {
    cloud.until(&format!("h{host} has written everything"), || {
        let plan = cloud.hextet(host, &["plan", "--json"]);
        plan.is_ok_and(|plan| plan.trim() == "[]")
    });
}

/// Waits until all that is to reach the server does.
#[track_caller]
fn is_reached(cloud: &Cloud, what: &str, from: &[&Container], server: &Server) {
    let mut missed = Vec::new();
    let reached = wait_until(LIMIT, || {
        missed = from.iter().flat_map(|one| one.misses(server)).collect();
        missed.is_empty()
    });
    assert!(reached, "{what}: {missed:#?}\n{}", cloud.last_words());
}

/// Whether anything of the port is left beside its TAP.
fn is_collected(host: &Node, server: &Server) -> bool {
    let near = server.near_end();
    let shown = host.output(&["ip", "link", "show", "dev", &near]).unwrap();
    let hung = host
        .output(&[
            "tc",
            "filter",
            "show",
            "dev",
            server.tap.as_str(),
            "ingress",
        ])
        .unwrap();
    !shown.status.success() && !String::from_utf8_lossy(&hung.stdout).contains("hextet")
}

fn ready(machine: &Machine, server: &Server) {
    machine.wait_ready(LIMIT).unwrap();
    for addr in &server.addrs {
        let family = hextet_types::Family::of(*addr);
        assert_eq!(machine.address(family), Some(*addr), "its own address");
    }
}

/// Whatever is left to the host of checksums and segments, both ways.
fn streams_pass(server: &Server, machine: &Machine, host: &Node, ends: [&Container; 2]) {
    prepare_stream(machine);
    for end in ends {
        for family in [0, 1] {
            let long = thread::scope(|scope| {
                let long = scope.spawn(|| server.sends_long(host));
                for _ in 0..STREAMS {
                    end.takes_from(machine, family);
                    if long.is_finished() {
                        break;
                    }
                }
                long.join().unwrap()
            });
            assert!(long, "no long segments in family {family}");
            end.gives_to(machine, family);
        }
    }
}

/// What somebody else may do to the links and rules of a port, here or in its network's namespace.
fn tamper(cloud: &Cloud, server: &Server, ends: [&Container; 2]) {
    let (host, tap, near) = (cloud.host(1), server.tap.as_str(), server.near_end());
    let inside = format!("ip netns exec {}", server.netns);
    let deeds = [
        format!("tc qdisc del dev {tap} clsact"),
        format!("tc qdisc del dev {near} clsact"),
        format!("{inside} tc qdisc del dev {tap} clsact"),
        format!("ip link set {tap} down"),
        format!("ip link set {near} down"),
        format!("{inside} ip link set {tap} down"),
        format!("ip link set {tap} mtu 1300"),
        format!("ip link set {tap} address 02:00:00:00:00:99"),
        format!("ip link del {near}"),
        format!("{inside} nft flush ruleset"),
        format!("ip netns del {}", server.netns),
    ];
    for deed in &deeds {
        host.run(&["sh", "-c", deed]).unwrap();
        is_reached(cloud, deed, &ends, server);
        settles(cloud, 1);
    }
}

/// The machine is ended, its TAP deleted and another one made.
fn hard_reboot(server: &Server, machine: Machine, host: &Node) {
    assert!(machine.process().kill());
    assert!(host.unplug(&server.tap).unwrap());
    server.plug(host);
}

#[test]
fn a_machine_s_life() {
    let (mut cloud, nova) = with_nova();
    let network = Network::make(&cloud);
    let (near, far) = (
        network.container(&cloud, 1, 1),
        network.container(&cloud, 2, 2),
    );
    let ends = [&near, &far];
    let server = network.server(&cloud, 1);
    let host = cloud.host(1);
    // All else stands and waits for it.
    cloud.until("the port's pair stands", || !is_collected(&host, &server));
    assert_eq!(cloud.status(&server.port), "DOWN");
    assert_eq!(nova.so_far(), []);
    // Nova is told before anybody has opened the TAP: it waits for that.
    server.plug(&host);
    nova.hears(PLUGGED, &server.port);
    let machine = server.boot(&cloud, 1, "first");
    ready(&machine, &server);
    is_reached(&cloud, "the machine that has booted", &ends, &server);
    streams_pass(&server, &machine, &host, ends);

    for end in ends {
        let lost = end.pings_while(&server, PINGS, || {
            cloud.kill_agent(1);
            cloud.start_agent(1);
            settles(&cloud, 1);
        });
        assert_eq!(lost, [(0, PINGS); 2], "while the agent was killed");
    }
    tamper(&cloud, &server, ends);
    let told = nova.so_far();
    let plugged = |(name, port): &(String, String)| name == PLUGGED && *port == server.port;
    assert!(told.iter().all(plugged), "{told:?}");

    hard_reboot(&server, machine, &host);
    nova.hears(PLUGGED, &server.port);
    let machine = server.boot(&cloud, 1, "second");
    ready(&machine, &server);
    is_reached(&cloud, "the machine that was rebooted", &ends, &server);

    let machine = reboot_without_agent(&mut cloud, &server, machine);
    nova.hears(PLUGGED, &server.port);
    ready(&machine, &server);
    is_reached(
        &cloud,
        "the machine, now that there is an agent",
        &ends,
        &server,
    );

    // Deleted while the agent is dead.
    cloud.kill_agent(1);
    assert!(machine.process().kill());
    assert!(host.unplug(&server.tap).unwrap());
    for port in [&server.port, &near.port] {
        cloud.admin.delete("port", port).unwrap();
    }
    nova.hears(DELETED, &server.port);
    cloud.start_agent(1);
    cloud.until("nothing is left of it", || {
        let spaces = host.run(&["ip", "netns", "list"]).unwrap();
        is_collected(&host, &server) && !spaces.contains(&server.netns)
    });
    settles(&cloud, 1);
}

/// A hard reboot with the agent dead: nothing gets to the new TAP, nor from it, until the agent is back.
fn reboot_without_agent(cloud: &mut Cloud, server: &Server, machine: Machine) -> Machine {
    let host = cloud.host(1);
    cloud.kill_agent(1);
    hard_reboot(server, machine, &host);
    let machine = server.boot(cloud, 1, "third");
    cloud.until("the machine asks for addresses", || {
        let [from, _] = server.passed(&host);
        from.packets >= 5
    });
    let [_, to] = server.passed(&host);
    assert_eq!(to.packets, 0, "from a host whose agent is dead");
    cloud.start_agent(1);
    machine
}

#[test]
fn who_boots_onto_a_tap_that_was_left_is_told_once_it_is_open() {
    let (cloud, nova) = with_nova();
    let network = Network::make(&cloud);
    let server = network.server(&cloud, 1);
    let host = cloud.host(1);
    let bind = |host: Value| {
        let binding = json!({"binding:host_id": host});
        cloud.admin.update("port", &server.port, &binding).unwrap();
    };
    bind(Value::Null);
    cloud.until("the host gives the port up", || {
        is_collected(&host, &server)
    });
    server.plug(&host);
    bind(json!("h1"));
    // Too early: Nova waits from when it plugs the port until it has heard this, with the machine opened and halted.
    nova.hears(PLUGGED, &server.port);
    settles(&cloud, 1);
    cloud.until("the port is up", || cloud.status(&server.port) == "ACTIVE");
    nova.so_far();
    let machine = server.boot(&cloud, 1, "late");
    nova.hears(PLUGGED, &server.port);
    ready(&machine, &server);
}

#[test]
fn a_tap_that_a_failed_migration_leaves_is_closed_and_taken_again() {
    let (cloud, nova) = with_nova();
    let network = Network::make(&cloud);
    let server = network.server(&cloud, 1);
    let [source, destination] = [1, 2].map(|n| cloud.host(n));
    server.plug(&source);
    nova.hears(PLUGGED, &server.port);
    let port = format!("ports/{}", server.port);
    let bindings = format!("{port}/bindings");
    let profile = |profile: Value| json!({"port": {"binding:profile": profile}});
    let ask = |method: &str, path: &str, body: &Value| {
        cloud.admin.request(method, path, body).unwrap();
    };
    let here = json!({"binding": {"host": "h2", "vnic_type": "normal", "profile": {}}});
    for _ in 0..3 {
        ask("POST", &bindings, &here);
        // The next time it is there already.
        server.plug(&destination);
        nova.hears(PLUGGED, &server.port);
        cloud.until("the other host is prepared", || {
            !is_collected(&destination, &server)
        });
        // By then Nova has plugged it and waits, whatever it was told of an interface that was there already.
        ask("PUT", &port, &profile(json!({"migrating_to": "h2"})));
        nova.hears(PLUGGED, &server.port);
        ask("PUT", &port, &profile(json!({})));
        ask("DELETE", &format!("{bindings}/h2"), &Value::Null);
        cloud.until("the other host gives the port up", || {
            is_collected(&destination, &server)
        });
        settles(&cloud, 2);
    }
    assert!(destination.unplug(&server.tap).unwrap(), "it is Nova's");
    assert_eq!(cloud.status(&server.port), "ACTIVE");

    // Unplugged and plugged while the port stays bound.
    assert!(source.unplug(&server.tap).unwrap());
    cloud.until("the port is down", || cloud.status(&server.port) == "DOWN");
    server.plug(&source);
    nova.hears(PLUGGED, &server.port);
    cloud.until("the port is up", || cloud.status(&server.port) == "ACTIVE");
    cloud.admin.delete("port", &server.port).unwrap();
    nova.hears(DELETED, &server.port);
    cloud.until("nothing is left but the TAP", || {
        is_collected(&source, &server)
    });
    settles(&cloud, 1);
    assert!(source.unplug(&server.tap).unwrap(), "it is Nova's");
}
