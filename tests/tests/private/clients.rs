//! Guests that ask for their addresses, by the programs that real ones use.

use hextet_model::neutron::Ipv6Mode;
use hextet_types::Family;

use super::{
    host::wait_for,
    world::{Guest, World},
};

fn addresses(world: &World, guest: &Guest) -> String {
    world.run_in(guest, "ip -o addr show dev eth0 scope global")
}

/// Where a client keeps its files: the namespace's own name tells them apart.
fn leases(guest: &Guest, what: &str) -> String {
    format!("/tmp/hextet-{}-{}-{what}", std::process::id(), guest.name)
}

/// Asks once, by DHCP of both versions; what the client got is its address from then on. The client goes on in the
/// background, writes down its number, and is ended then.
fn asks(world: &World, guest: &Guest) {
    wait_for("the guest may use its link-local address", || {
        let addresses = world.run_in(guest, "ip -o addr show dev eth0 scope link");
        addresses.contains("fe80::") && !addresses.contains("tentative")
    });
    for (version, family) in [("-4", "inet "), ("-6", "inet6 ")] {
        let file = leases(guest, version);
        world.run_in(
            guest,
            &format!(
                "sh -c 'timeout 30 dhclient {version} -1 -v -sf /bin/true -lf {file}.leases -pf {file}.pid \
                 eth0 2>{file}.log || {{ cat {file}.log >&2; exit 1; }}; \
                 timeout 10 sh -c \"until test -s {file}.pid; do sleep 0.05; done\"; \
                 kill $(cat {file}.pid)'"
            ),
        );
        let lease = std::fs::read_to_string(format!("{file}.leases")).unwrap();
        let nth = usize::from(version == "-6");
        let wanted = guest.addrs[nth].to_string();
        assert!(lease.contains(&wanted), "{family}{wanted}: {lease}");
        for end in ["leases", "pid", "log"] {
            let _ = std::fs::remove_file(format!("{file}.{end}"));
        }
    }
}

#[test]
fn clients_get_their_addresses_and_nobody_else_s() {
    let mut world = World::new(1, Family::V6);
    let group = world.open_group();
    let networks = [world.network(), world.network()];
    // The same addresses in both networks, but one that only one has.
    let guests = [
        world.bare_guest(0, networks[0], 11, group),
        world.bare_guest(0, networks[0], 21, group),
        world.bare_guest(0, networks[1], 11, group),
        world.bare_guest(0, networks[1], 31, group),
    ];
    world.tell();
    for guest in &guests {
        asks(&world, guest);
    }
    // Another client, which sets what it gets.
    let script = "udhcpc -i eth0 -n -q -f -t 5 -T 1 -s /bin/true";
    world.run_in(&guests[1], script);
    world.restart(0);
    asks(&world, &guests[3]);
}

#[test]
fn the_kernel_forms_an_address_out_of_advertisements() {
    let mut world = World::new(1, Family::V6);
    let group = world.open_group();
    let networks = [world.network(), world.network()];
    for subnet in world.cloud.intent.subnets.values_mut() {
        if subnet.cidr.family() == Family::V6 {
            subnet.ipv6_ra_mode = Some(Ipv6Mode::Slaac);
            subnet.ipv6_address_mode = Some(Ipv6Mode::Slaac);
        }
    }
    let guests = networks.map(|network| world.bare_guest(0, network, 11, group));
    for guest in &guests {
        // In SLAAC the address follows from the guest's MAC.
        let port = world.cloud.port_mut(guest.port);
        let [a, b, c, d, e, f] = port.mac_address.octets();
        let interface = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[8..].copy_from_slice(&interface);
        port.fixed_ips[1].ip_address = std::net::IpAddr::from(octets);
    }
    world.tell();
    for guest in &guests {
        let wanted = world.cloud.intent.ports[&guest.port].fixed_ips[1].ip_address;
        wait_for("the kernel has its address", || {
            addresses(&world, guest).contains(&wanted.to_string())
        });
        let link = world.run_in(guest, "cat /proc/sys/net/ipv6/conf/eth0/mtu");
        assert_eq!(link.trim(), super::world::MTU.to_string());
    }
}
