//! Real virtual machines on a node, with Debian's kernel: with fixed addresses, and by SLAAC and DHCPv4
//! from somebody else's server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{io::Read, net::TcpStream, path::Path, process::Command, time::Duration};

use hextet_lab::{
    Lab, LabFile, LabGuard,
    guest::{Guest, GuestNetwork, GuestSpec, Kernel, PORT},
    wait_until,
};
use hextet_types::Family;

/// Emulated on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(120);

fn host(name: &str) -> LabGuard {
    let text = "name = \"guest\"\n[node.host]\n";
    let name = format!("{name}-{}", std::process::id());
    let file = LabFile::parse(text, Path::new("guest.toml"))
        .unwrap()
        .named(&name)
        .unwrap();
    Lab::up(file).unwrap().guard()
}

fn spec() -> GuestSpec {
    GuestSpec::new(
        "vm",
        "tap0".parse().unwrap(),
        "02:00:00:00:00:02".parse().unwrap(),
    )
}

fn boot(lab: &Lab, spec: &GuestSpec) -> Guest {
    let guest = lab
        .boot("host", &Kernel::find_or_fetch().unwrap(), spec)
        .unwrap();
    let host = lab.node("host").unwrap();
    // QEMU opens its console before it makes the TAP.
    let up = || host.run(&["ip", "link", "set", "tap0", "up"]).is_ok();
    assert!(wait_until(LIMIT, up), "QEMU made no tap0");
    for address in ["fe80::1/64", "2001:db8::1/64", "192.0.2.1/24"] {
        let nodad: &[&str] = if address.contains(':') {
            &["nodad"]
        } else {
            &[]
        };
        host.run(&[&["ip", "addr", "add", address, "dev", "tap0"], nodad].concat())
            .unwrap();
    }
    guest
}

#[test]
fn a_guest_boots_is_reached_and_runs_commands() {
    let lab = host("fixed");
    let mut spec = spec();
    spec.network = GuestNetwork::Fixed {
        addresses: vec![
            "2001:db8::2/64".parse().unwrap(),
            "192.0.2.2/24".parse().unwrap(),
        ],
        gateways: vec!["fe80::1".parse().unwrap(), "192.0.2.1".parse().unwrap()],
    };
    let guest = boot(&lab, &spec);
    let host = lab.node("host").unwrap();
    guest.wait_ready(LIMIT).unwrap();
    for (family, address) in Family::BOTH.into_iter().zip(["192.0.2.2", "2001:db8::2"]) {
        assert_eq!(guest.address(family).unwrap().to_string(), address);
        assert!(host.ping(address).unwrap(), "{address}");
        let answer = host.enter(|| {
            let mut stream = TcpStream::connect((address, PORT)).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        });
        assert_eq!(answer.unwrap().unwrap().trim(), "vm");
    }
    let (status, said) = guest
        .run(
            "ping -c 1 -w 5 192.0.2.1 && cat /proc/sys/kernel/hostname",
            LIMIT,
        )
        .unwrap();
    assert!(status == 0 && said.ends_with("vm"), "{status} {said}");
    let (status, said) = guest.run("echo 'one  two'; exit 3", LIMIT).unwrap();
    assert_eq!((status, said.as_str()), (3, "one  two"));
    assert!(guest.process().kill());
    assert!(
        guest.wait_ready(Duration::ZERO).is_ok(),
        "what it said stays"
    );
}

#[test]
fn a_guest_configures_itself() {
    let lab = host("auto");
    let guest = boot(&lab, &spec());
    // A /32 with a gateway outside of it, as clouds hand out; the routes replace the router.
    let mut dnsmasq = Command::new("dnsmasq");
    dnsmasq.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--no-ping",
        "--log-dhcp",
    ]);
    dnsmasq.args([
        "--interface=tap0",
        "--user=root",
        "--pid-file",
        "--dhcp-leasefile=leases",
    ]);
    dnsmasq.args(["--enable-ra", "--dhcp-range=2001:db8::,ra-only,64"]);
    dnsmasq.args([
        "--dhcp-range=192.0.2.50,192.0.2.50,255.255.255.0",
        "--log-facility=-",
    ]);
    dnsmasq.args(["--dhcp-option=1,255.255.255.255", "--dhcp-option=26,1300"]);
    dnsmasq.arg("--dhcp-option=121,0.0.0.0/0,169.254.1.1,198.51.100.0/24,169.254.1.1");
    let dnsmasq = lab
        .spawn(&lab.node("host").unwrap(), "dnsmasq", &mut dnsmasq)
        .unwrap();
    guest
        .wait_ready(LIMIT)
        .unwrap_or_else(|error| panic!("{error}\n{}", dnsmasq.log()));
    assert_eq!(guest.address(Family::V4).unwrap().to_string(), "192.0.2.50");
    assert_eq!(
        guest.address(Family::V6).unwrap().to_string(),
        "2001:db8::ff:fe00:2"
    );
    let (_, shown) = guest
        .run("ip addr show eth0; ip route; ip -6 route", LIMIT)
        .unwrap();
    for part in [
        "192.0.2.50/32",
        "mtu 1300",
        "default via 169.254.1.1",
        "198.51.100.0/24 via 169.254.1.1",
        "default via fe80::1",
    ] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
}

#[test]
fn a_running_guest_goes_to_another_node() {
    let text = "name = \"guests\"\n[node.host]\n[node.other]\n";
    let name = format!("migrates-{}", std::process::id());
    let file = LabFile::parse(text, Path::new("guests.toml"));
    let lab = Lab::up(file.unwrap().named(&name).unwrap())
        .unwrap()
        .guard();
    let kernel = Kernel::find_or_fetch().unwrap();
    let mut spec = spec();
    spec.network = GuestNetwork::Fixed {
        addresses: vec!["192.0.2.2/24".parse().unwrap()],
        gateways: Vec::new(),
    };
    let guest = lab.boot("host", &kernel, &spec).unwrap();
    guest.wait_ready(LIMIT).unwrap();
    let (status, _) = guest.run("echo here > /kept", LIMIT).unwrap();
    assert_eq!(status, 0);
    let arrived = lab.receive("other", &kernel, &spec).unwrap();
    let migration = guest.migrate(&arrived, LIMIT).unwrap();
    assert!(migration.downtime <= migration.took, "{migration:?}");
    assert!(!migration.paused.is_zero(), "{migration:?}");
    assert!(!guest.process().runs() || wait_until(LIMIT, || !guest.process().runs()));
    let (status, said) = arrived.run("cat /kept", LIMIT).unwrap();
    assert_eq!((status, said.as_str()), (0, "here"));
}
