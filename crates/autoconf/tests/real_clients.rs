//! Real clients in a network namespace of their own are configured by the responder, which a small
//! driver feeds from a packet socket at the other end of a veth pair.
//!
//! Needs root, and the Debian packages iproute2, isc-dhcp-client, ndisc6, udhcpc.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's own set-up fails by panicking"
)]

mod lab;

use hextet_autoconf::{
    Done, ExtraOption, PortConfig, Reason,
    config::{Advertise, Delegation, HostRoute, Ipv4Subnet, Ipv6Mode, Ipv6Subnet},
    nd::Preference,
};
use hextet_types::Mac;
use lab::{Lab, wait_for};

const GUEST_MAC: Mac = Mac::new([0xfa, 0x16, 0x3e, 0xaa, 0xbb, 0xcc]);
const HOST_MAC: Mac = Mac::new([0x02, 0, 0, 0, 0, 1]);
const EUI64: &str = "2001:db8:1:2:f816:3eff:feaa:bbcc";

fn config(mode: Ipv6Mode) -> PortConfig {
    let prefix = "2001:db8:1:2::/64".parse().unwrap();
    let address = match mode {
        Ipv6Mode::Dhcpv6Stateful => "2001:db8:1:2::77".parse().unwrap(),
        _ => EUI64.parse().unwrap(),
    };
    let mut v6 = Ipv6Subnet::new(prefix, mode, Some(address));
    v6.dns_servers = vec![
        "2001:db8::53".parse().unwrap(),
        "2001:db8::54".parse().unwrap(),
    ];
    let mut v4 = Ipv4Subnet::new(
        "192.0.2.77".parse().unwrap(),
        "192.0.2.0/25".parse().unwrap(),
    );
    v4.gateway = Some("192.0.2.1".parse().unwrap());
    v4.dns_servers = vec!["198.51.100.53".parse().unwrap()];
    v4.host_routes = vec![HostRoute {
        destination: "169.254.169.254/32".parse().unwrap(),
        nexthop: "192.0.2.2".parse().unwrap(),
    }];
    PortConfig {
        host_mac: HOST_MAC,
        guest_mac: GUEST_MAC,
        link_local: "fe80::1".parse().unwrap(),
        mtu: 1_400,
        hostname: Some("web-1".parse().unwrap()),
        dns_domain: Some("cloud.example".parse().unwrap()),
        dns_search: vec!["example.org".parse().unwrap()],
        ntp_servers: vec![
            "2001:db8::123".parse().unwrap(),
            "198.51.100.123".parse().unwrap(),
        ],
        advertise: Some(Advertise {
            default_router: true,
            preference: Preference::High,
            routes: vec!["2001:db8:ff00::/40".parse().unwrap()],
            pref64: Some("64:ff9b::/96".parse().unwrap()),
        }),
        ipv6: vec![v6],
        delegated: Vec::new(),
        ipv4: vec![v4],
        ipv6_only_wait_secs: None,
        extra_dhcp_opts: vec![
            ExtraOption::parse("tftp-server", "boot.example", 4).unwrap(),
            ExtraOption::parse("bootfile-name", "pxelinux.0", 4).unwrap(),
        ],
    }
}

#[test]
fn the_kernel_configures_itself_by_slaac() {
    let lab = Lab::new(config(Ipv6Mode::Slaac));
    lab.guest_sysctl("accept_ra", "2");
    lab.guest_up();
    let addresses = wait_for("a global address", || {
        let shown = lab.guest(&["ip", "-6", "addr", "show", "dev", "eth0", "scope", "global"]);
        shown.contains(EUI64).then_some(shown)
    });
    assert!(
        addresses.contains("valid_lft 2591") || addresses.contains("valid_lft 2592"),
        "{addresses}"
    );
    let routes = lab.guest(&["ip", "-6", "route", "show", "dev", "eth0"]);
    let default = routes
        .lines()
        .find(|l| l.starts_with("default via fe80::1"));
    let default = default.unwrap_or_else(|| panic!("no default route:\n{routes}"));
    assert!(default.contains("pref high"), "{default}");
    assert!(
        default.contains("expires 8999sec") || default.contains("expires 9000sec"),
        "{default}"
    );
    // The prefix is not on the link: everything goes by way of the router.
    assert!(!routes.contains("2001:db8:1:2::/64"), "{routes}");
    assert_eq!(
        lab.guest(&["cat", "/proc/sys/net/ipv6/conf/eth0/mtu"])
            .trim(),
        "1400"
    );
    let counters = lab.stop();
    assert!(counters.done(Done::RouterAdvertisement) >= 1);
}

#[test]
fn the_kernel_loses_what_is_taken_back() {
    let mut lab = Lab::new(config(Ipv6Mode::Slaac));
    lab.guest_sysctl("accept_ra", "2");
    lab.guest_up();
    let global = ["ip", "-6", "addr", "show", "dev", "eth0", "scope", "global"];
    wait_for("a global address", || {
        lab.guest(&global).contains(EUI64).then_some(())
    });
    let mut moved = config(Ipv6Mode::Slaac);
    moved.ipv6[0].prefix = "2001:db8:9:9::/64".parse().unwrap();
    moved.ipv6[0].address = None;
    lab.reconfigure(moved);
    wait_for("the new address, and the old one deprecated", || {
        let shown = lab.guest(&global);
        let old = shown.lines().find(|line| line.contains(EUI64))?;
        let new = shown.contains("2001:db8:9:9:f816:3eff:feaa:bbcc");
        (new && old.contains("deprecated")).then_some(())
    });
    lab.stop();
}

#[test]
fn rdisc6_sees_all_of_an_advertisement() {
    let lab = Lab::new(config(Ipv6Mode::Dhcpv6Stateless));
    lab.guest_up();
    let shown = lab.client("ndisc6", &["rdisc6", "-1", "-w", "5000", "eth0"]);
    let line = |name: &str| -> String {
        let found = shown.lines().find(|l| l.trim_start().starts_with(name));
        let found = found.unwrap_or_else(|| panic!("no '{name}' in:\n{shown}"));
        let value = found.split_once(':').map_or("", |(_, value)| value);
        value.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("Hop limit"), "64 ( 0x40)");
    assert_eq!(line("Stateful address conf."), "No");
    assert_eq!(line("Stateful other conf."), "Yes");
    assert_eq!(line("Router preference"), "high");
    assert_eq!(line("Router lifetime"), "9000 (0x00002328) seconds");
    assert_eq!(line("Source link-layer address"), "02:00:00:00:00:01");
    assert_eq!(line("MTU"), "1400 bytes (valid)");
    assert_eq!(line("Prefix"), "2001:db8:1:2::/64");
    assert_eq!(line("On-link"), "No");
    assert_eq!(line("Autonomous address conf."), "Yes");
    assert_eq!(line("Route "), "2001:db8:ff00::/40");
    assert_eq!(line("Recursive DNS server"), "2001:db8::53");
    assert_eq!(line("DNS search list"), "cloud.example example.org");
    assert!(shown.contains("2001:db8::54"), "{shown}");
    assert!(shown.contains("from fe80::1"), "{shown}");
    lab.stop();
}

#[test]
fn dhclient_gets_its_ipv4_configuration() {
    let lab = Lab::new(config(Ipv6Mode::Slaac));
    lab.guest_up();
    let bound = lab.dhclient(&["-4"], "BOUND");
    for (name, value) in [
        ("new_ip_address", "192.0.2.77"),
        ("new_subnet_mask", "255.255.255.128"),
        ("new_broadcast_address", "192.0.2.127"),
        ("new_routers", "192.0.2.1"),
        ("new_domain_name", "cloud.example"),
        ("new_domain_name_servers", "198.51.100.53"),
        ("new_domain_search", "cloud.example. example.org."),
        ("new_host_name", "web-1"),
        ("new_interface_mtu", "1400"),
        ("new_ntp_servers", "198.51.100.123"),
        ("new_dhcp_server_identifier", "192.0.2.1"),
        ("new_dhcp_lease_time", "86400"),
        ("new_dhcp_renewal_time", "43200"),
        ("new_dhcp_rebinding_time", "75600"),
        ("new_filename", "pxelinux.0"),
        ("new_server_name", "boot.example"),
        (
            "new_rfc3442_classless_static_routes",
            "32 169 254 169 254 192 0 2 2 0 192 0 2 1",
        ),
    ] {
        assert_eq!(
            bound.get(name).map(String::as_str),
            Some(value),
            "{name}: {bound:?}"
        );
    }
    let counters = lab.stop();
    assert_eq!(counters.done(Done::Dhcpv4Offer), 1);
    assert_eq!(counters.done(Done::Dhcpv4Ack), 1);
    assert_eq!(counters.dropped(Reason::Checksum), 0);
}

#[test]
fn dhclient_is_told_that_its_old_address_is_gone() {
    let mut lab = Lab::new(config(Ipv6Mode::Slaac));
    lab.guest_up();
    lab.dhclient(&["-4"], "BOUND");
    let mut moved = config(Ipv6Mode::Slaac);
    moved.ipv4[0].address = "192.0.2.99".parse().unwrap();
    lab.reconfigure(moved);
    // It remembers its lease and asks for the old address (INIT-REBOOT) first.
    let bound = lab.dhclient(&["-4"], "BOUND");
    assert_eq!(
        bound.get("new_ip_address").map(String::as_str),
        Some("192.0.2.99")
    );
    assert_eq!(lab.stop().done(Done::Dhcpv4Nak), 1);
}

#[test]
fn dhclient_gets_its_ipv6_address() {
    let lab = Lab::new(config(Ipv6Mode::Dhcpv6Stateful));
    lab.guest_up();
    let bound = lab.dhclient(&["-6"], "BOUND6");
    for (name, value) in [
        ("new_ip6_address", "2001:db8:1:2::77"),
        ("new_preferred_life", "604800"),
        ("new_max_life", "2592000"),
        ("new_dhcp6_name_servers", "2001:db8::53 2001:db8::54"),
        ("new_dhcp6_domain_search", "cloud.example. example.org."),
        ("new_dhcp6_sntp_servers", "2001:db8::123"),
        ("new_dhcp6_server_id", "0:3:0:1:2:0:0:0:0:1"),
    ] {
        assert_eq!(
            bound.get(name).map(String::as_str),
            Some(value),
            "{name}: {bound:?}"
        );
    }
    let counters = lab.stop();
    assert!(counters.done(Done::Dhcpv6Advertise) >= 1);
    assert!(counters.done(Done::Dhcpv6Reply) >= 1);
    assert_eq!(counters.dropped(Reason::Checksum), 0);
}

#[test]
fn dhclient_gets_a_prefix_to_hand_on() {
    let mut config = config(Ipv6Mode::Slaac);
    let prefix = "2001:db8:77::/56".parse().unwrap();
    config.delegated.push(Delegation {
        prefix,
        valid_lifetime_secs: 7_200,
        preferred_lifetime_secs: 3_600,
    });
    let lab = Lab::new(config);
    lab.guest_up();
    let bound = lab.dhclient(&["-6", "-P"], "BOUND6");
    assert_eq!(
        bound.get("new_ip6_prefix").map(String::as_str),
        Some("2001:db8:77::/56"),
        "{bound:?}"
    );
    lab.stop();
}

#[test]
fn dhclient_gets_the_stateless_rest() {
    let lab = Lab::new(config(Ipv6Mode::Dhcpv6Stateless));
    lab.guest_up();
    let bound = lab.dhclient(&["-6", "-S"], "RENEW6");
    for (name, value) in [
        ("new_dhcp6_name_servers", "2001:db8::53 2001:db8::54"),
        ("new_dhcp6_domain_search", "cloud.example. example.org."),
    ] {
        assert_eq!(
            bound.get(name).map(String::as_str),
            Some(value),
            "{name}: {bound:?}"
        );
    }
    assert!(!bound.contains_key("new_ip6_address"), "{bound:?}");
    lab.stop();
}

#[test]
fn udhcpc_gets_its_ipv4_configuration() {
    let lab = Lab::new(config(Ipv6Mode::Slaac));
    lab.guest_up();
    let bound = lab.udhcpc();
    for (name, value) in [
        ("ip", "192.0.2.77"),
        ("mask", "25"),
        ("router", "192.0.2.1"),
        ("dns", "198.51.100.53"),
        ("domain", "cloud.example"),
        ("search", "cloud.example example.org"),
        ("mtu", "1400"),
        ("lease", "86400"),
        (
            "staticroutes",
            "169.254.169.254/32 192.0.2.2 0.0.0.0/0 192.0.2.1",
        ),
    ] {
        assert_eq!(
            bound.get(name).map(String::as_str),
            Some(value),
            "{name}: {bound:?}"
        );
    }
    lab.stop();
}

#[test]
fn a_port_without_dhcp_leaves_clients_alone() {
    let mut config = config(Ipv6Mode::Slaac);
    config.ipv4.clear();
    let lab = Lab::new(config);
    lab.guest_up();
    let mut client = lab.start_udhcpc();
    wait_for("the client's question", || {
        (lab.counters()?.dropped(Reason::NotOffered) >= 1).then_some(())
    });
    client.end();
    let counters = lab.stop();
    assert_eq!(counters.done(Done::Dhcpv4Offer), 0);
}
