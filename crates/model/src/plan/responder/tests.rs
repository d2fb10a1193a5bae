use hextet_autoconf::config::Ipv6Mode as Told;
use hextet_types::{HostId, NetworkId, ProjectId, SubnetId};
use jiff::Timestamp;
use uuid::Uuid;

use super::*;
use crate::{
    intent::Change,
    neutron::{
        Binding, DhcpOption, FixedIp, HostRoute as Route, Network, NetworkType, Standard, Status,
    },
    plan::{HostConfig, Planner},
};

fn standard() -> Standard {
    Standard {
        project_id: ProjectId(String::new()),
        name: String::new(),
        description: String::new(),
        tags: Vec::new(),
        revision_number: 0,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

fn network() -> Network {
    Network {
        id: NetworkId(Uuid::nil()),
        standard: standard(),
        admin_state_up: true,
        status: Status::Active,
        shared: false,
        external: false,
        is_default: false,
        mtu: 1400,
        port_security_enabled: true,
        network_type: NetworkType::Routed,
        physical_network: None,
        segmentation_id: None,
        dns_domain: "cloud.example.".to_owned(),
        availability_zone_hints: Vec::new(),
        single_homed: false,
        qos_policy_id: None,
    }
}

fn subnet(n: u128, cidr: &str, gateway: Option<&str>) -> Subnet {
    Subnet {
        id: SubnetId(Uuid::from_u128(n)),
        standard: standard(),
        network_id: NetworkId(Uuid::nil()),
        cidr: cidr.parse().unwrap(),
        gateway_ip: gateway.map(|g| g.parse().unwrap()),
        allocation_pools: Vec::new(),
        enable_dhcp: true,
        dns_nameservers: vec![
            "192.0.2.53".parse().unwrap(),
            "2001:db8::53".parse().unwrap(),
        ],
        host_routes: Vec::new(),
        ipv6_ra_mode: None,
        ipv6_address_mode: None,
        subnetpool_id: None,
        service_types: Vec::new(),
        nat44: None,
        delegation: None,
    }
}

fn port(addresses: &[(u128, &str)]) -> Port {
    Port {
        id: PortId(Uuid::nil()),
        standard: standard(),
        network_id: NetworkId(Uuid::nil()),
        mac_address: "fa:16:3e:00:00:01".parse().unwrap(),
        fixed_ips: addresses
            .iter()
            .map(|(n, addr)| FixedIp {
                subnet_id: SubnetId(Uuid::from_u128(*n)),
                ip_address: addr.parse().unwrap(),
            })
            .collect(),
        device_id: String::new(),
        device_owner: String::new(),
        admin_state_up: true,
        status: Status::Down,
        security_groups: Vec::new(),
        port_security_enabled: true,
        allowed_address_pairs: Vec::new(),
        extra_dhcp_opts: Vec::new(),
        dns_name: "web-1".to_owned(),
        metadata: None,
        exposed: Vec::new(),
        delegated_prefixes: Vec::new(),
        qos_policy_id: None,
        binding: Binding::default(),
    }
}

fn told(port: Port, subnets: impl IntoIterator<Item = Subnet>) -> PortConfig {
    responder(port, subnets).config
}

fn responder(port: Port, subnets: impl IntoIterator<Item = Subnet>) -> Responder {
    let host: HostId = "compute-1".parse().unwrap();
    let mut planner = Planner::new(HostConfig::new(host));
    planner.apply(Change::PutNetwork(Box::new(network())));
    planner.apply_all(subnets.into_iter().map(|s| Change::PutSubnet(Box::new(s))));
    planner.apply(Change::PutPort(Box::new(port)));
    let responders = &planner.state().responders;
    let responder = responders.values().next().unwrap().clone();
    assert_eq!(responder.config.check(), Ok(()));
    responder
}

/// Whatever comes first.
#[test]
fn nova_tells_servers_and_nobody_else() {
    let server = "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d";
    let cases = [
        ("compute:nova", server, true),
        ("compute:zone-2", server, true),
        ("compute:nova", "no server", false),
        ("", server, false),
        ("network:dhcp", server, false),
    ];
    for (owner, device, is_server) in cases {
        let port = Port {
            device_owner: owner.to_owned(),
            device_id: device.to_owned(),
            ..port(&[])
        };
        let host: HostId = "compute-1".parse().unwrap();
        let mut planner = Planner::new(HostConfig::new(host));
        planner.apply(Change::PutNetwork(Box::new(network())));
        planner.apply(Change::SetNovaMetadata(true));
        planner.apply(Change::PutPort(Box::new(port.clone())));
        let by_nova = |planner: &Planner| planner.state().responders[&port.id].facts.by_nova;
        assert_eq!(by_nova(&planner), is_server, "{owner} {device}");
        planner.apply(Change::SetNovaMetadata(false));
        assert!(!by_nova(&planner));
        planner.apply(Change::SetNovaMetadata(true));
        assert_eq!(by_nova(&planner), is_server, "{owner} {device}");
    }
}

#[test]
fn modes_say_how_addresses_come() {
    use Ipv6Mode::{Dhcpv6Stateful, Dhcpv6Stateless, Slaac};
    let cases = [
        ("2001:db8::/64", None, None, None),
        ("2001:db8::/64", None, Some(Slaac), None),
        ("2001:db8::/64", Some(Slaac), Some(Slaac), Some(Told::Slaac)),
        (
            "2001:db8::/64",
            Some(Dhcpv6Stateless),
            Some(Dhcpv6Stateless),
            Some(Told::Dhcpv6Stateless),
        ),
        (
            "2001:db8::/64",
            Some(Dhcpv6Stateful),
            Some(Dhcpv6Stateful),
            Some(Told::Dhcpv6Stateful),
        ),
        (
            "2001:db8::/80",
            Some(Dhcpv6Stateful),
            Some(Dhcpv6Stateful),
            Some(Told::Dhcpv6Stateful),
        ),
        ("2001:db8::/80", Some(Slaac), Some(Slaac), None),
    ];
    for (cidr, ra, address, expected) in cases {
        let subnet = Subnet {
            ipv6_ra_mode: ra,
            ipv6_address_mode: address,
            ..subnet(6, cidr, Some("fe80::1"))
        };
        let config = told(port(&[(6, "2001:db8::a")]), [subnet.clone()]);
        let modes: Vec<_> = config.ipv6.iter().map(|s| s.mode).collect();
        assert_eq!(
            modes,
            expected.into_iter().collect::<Vec<_>>(),
            "{cidr} {ra:?} {address:?}"
        );
        let advertised = config.advertise.map(|a| a.default_router);
        assert_eq!(
            advertised,
            expected.map(|_| true),
            "{cidr} {ra:?} {address:?}"
        );
        assert!(config.ipv6.iter().all(|s| !s.on_link));
        let without_dhcp = Subnet {
            enable_dhcp: false,
            ..subnet
        };
        assert!(
            told(port(&[(6, "2001:db8::a")]), [without_dhcp])
                .ipv6
                .is_empty()
        );
    }
}

#[test]
fn a_subnet_without_a_gateway_makes_no_default_router() {
    let subnet = Subnet {
        ipv6_ra_mode: Some(Ipv6Mode::Slaac),
        ..subnet(6, "2001:db8::/64", None)
    };
    let config = told(port(&[(6, "2001:db8::a")]), [subnet]);
    assert_eq!(config.advertise.map(|a| a.default_router), Some(false));
}

#[test]
fn a_port_is_told_of_its_network_and_subnets() {
    let v4 = Subnet {
        host_routes: vec![Route {
            destination: "10.9.0.0/16".parse().unwrap(),
            nexthop: "10.1.0.7".parse().unwrap(),
        }],
        ..subnet(4, "10.1.0.0/24", Some("10.1.0.1"))
    };
    let mut port = port(&[(4, "10.1.0.10")]);
    let option = |name: &str, value: &str| DhcpOption {
        opt_name: name.to_owned(),
        opt_value: value.to_owned(),
        ip_version: 4,
    };
    port.extra_dhcp_opts = vec![
        option("bootfile-name", "pxe.0"),
        option("bootfile-name", "again"),
        option("no-such-option", "1"),
    ];
    let config = told(port, [v4]);
    assert_eq!(config.host_mac.to_string(), "02:68:78:00:00:01");
    assert_eq!(config.mtu, 1400);
    assert_eq!(config.hostname.unwrap().as_str(), "web-1");
    assert_eq!(config.dns_domain.unwrap().as_str(), "cloud.example");
    assert_eq!(config.advertise, None);
    assert_eq!(config.extra_dhcp_opts.len(), 1);
    let [subnet] = config.ipv4.as_slice() else {
        panic!("{:?}", config.ipv4)
    };
    assert_eq!(subnet.address.to_string(), "10.1.0.10");
    assert_eq!(subnet.gateway.unwrap().to_string(), "10.1.0.1");
    assert_eq!(subnet.dns_servers, [Ipv4Addr::new(192, 0, 2, 53)]);
    assert_eq!(subnet.host_routes.len(), 1);
}

#[test]
fn dhcpv6_hands_out_every_address_and_slaac_forms_one() {
    let addresses = port(&[(6, "2001:db8::a"), (6, "2001:db8::b")]);
    for (mode, count) in [(Ipv6Mode::Slaac, 1), (Ipv6Mode::Dhcpv6Stateful, 2)] {
        let subnet = Subnet {
            ipv6_ra_mode: Some(mode),
            ..subnet(6, "2001:db8::/64", Some("fe80::1"))
        };
        assert_eq!(told(addresses.clone(), [subnet]).ipv6.len(), count);
    }
}

#[test]
fn what_the_responder_could_not_hold_is_cut() {
    let many = |n: u128| subnet(n, &format!("10.{n}.0.0/24"), None);
    let mut subnets: Vec<_> = (0..40).map(many).collect();
    subnets[0].dns_nameservers = vec!["192.0.2.53".parse().unwrap(); 20];
    let addresses: Vec<_> = (0..40).map(|n| (n, format!("10.{n}.0.5"))).collect();
    let addresses: Vec<_> = addresses.iter().map(|(n, a)| (*n, a.as_str())).collect();
    let config = told(port(&addresses), subnets);
    assert_eq!(config.ipv4.len(), MAX_SUBNETS);
    assert_eq!(config.ipv4[0].dns_servers.len(), MAX_DNS_SERVERS);
}

#[test]
fn facts_follow_from_the_port_and_from_what_it_was_given() {
    use hextet_metadata::document::Source;
    let slaac = Subnet {
        ipv6_ra_mode: Some(Ipv6Mode::Slaac),
        ipv6_address_mode: Some(Ipv6Mode::Slaac),
        ..subnet(6, "2001:db8::/64", Some("2001:db8::1"))
    };
    let by_hand = Subnet {
        enable_dhcp: false,
        ..subnet(5, "198.51.100.0/24", Some("198.51.100.1"))
    };
    let subnets = || {
        let dhcp = subnet(4, "192.0.2.0/24", Some("192.0.2.1"));
        [dhcp, by_hand.clone(), slaac.clone()]
    };
    let addresses = [(6, "2001:db8::7"), (4, "192.0.2.7"), (5, "198.51.100.7")];
    let plain = responder(port(&addresses), subnets()).facts;
    assert_eq!(plain.hostname, "web-1.cloud.example");
    assert_eq!(plain.instance_id, Uuid::nil().to_string());
    assert_eq!((plain.user_data, plain.public_keys.len()), (None, 0));
    let had: Vec<_> = plain
        .link
        .addresses
        .iter()
        .map(|a| (a.address.to_string(), a.source))
        .collect();
    let expected = [
        ("2001:db8::7", Source::Slaac),
        ("192.0.2.7", Source::Dhcp),
        ("198.51.100.7", Source::Static),
    ];
    assert_eq!(had, expected.map(|(a, s)| (a.to_owned(), s)));
    assert_eq!(plain.link.dns_servers.len(), 2, "each once");
    assert_eq!(plain.link.mtu, 1400);

    let nameless = Port {
        dns_name: String::new(),
        ..port(&addresses)
    };
    let facts = responder(nameless, subnets()).facts;
    assert_eq!(facts.hostname, "host-192-0-2-7.cloud.example");

    let metadata = crate::neutron::PortMetadata {
        hostname: "db.example.org".to_owned(),
        public_keys: [("a".to_owned(), "ssh-ed25519 AAAA".to_owned())].into(),
        user_data: Some("aGV4dGV0".to_owned()),
        meta: [("role".to_owned(), "db".to_owned())].into(),
    };
    let given = Port {
        device_id: "instance".to_owned(),
        metadata: Some(Box::new(metadata.clone())),
        ..port(&addresses)
    };
    let facts = responder(given, subnets()).facts;
    assert_eq!(facts.instance_id, "instance");
    assert_eq!(facts.hostname, "db.example.org");
    assert_eq!(facts.public_keys, metadata.public_keys);
    assert_eq!(facts.meta, metadata.meta);
    assert_eq!(facts.user_data.as_deref(), Some(&b"hextet"[..]));
}
