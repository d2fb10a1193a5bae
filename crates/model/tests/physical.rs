//! Networks that a host is on by links of its own: what it answers for there, by which ways it sends, and what ports are told.

#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use std::net::IpAddr;

use hextet_autoconf::{
    config::Ipv6Mode,
    nd::Preference,
    upstream::{OnLink, Upstream},
};
use hextet_model::{
    intent::Change,
    neutron::{
        DelegatedPrefix, Delegation, Exposure, ForwardedProtocol, Network, NetworkType, Port,
        Subnet,
    },
    plan::Planner,
    state::{
        Cut, CutEnd, CutPorts, Element, Key, Netns, NextHop, Object, RouteKey, RouteKind, Value,
    },
};
use hextet_types::IfName;
use world::{
    config, fixed, ip, network, network_id, port, port_id, prefix, standard, subnet, subnet_id,
};

const ON: &str = "net0";
const WORKLOAD: &str = "2001:db8:1::a";

fn link() -> IfName {
    "up1".parse().unwrap()
}

fn flat() -> Network {
    Network {
        network_type: NetworkType::Flat,
        physical_network: Some(ON.to_owned()),
        ..network(0)
    }
}

/// Whose router speaks for itself.
fn of_router() -> Subnet {
    Subnet {
        gateway_ip: Some(ip("2001:db8:1::1")),
        ipv6_ra_mode: None,
        ..subnet(0)
    }
}

fn planner() -> Planner {
    let mut planner = Planner::new(config());
    let port = port(1, vec![fixed(0, WORKLOAD), fixed(1, "10.1.0.10")], &[]);
    planner.apply_all([
        Change::PutNetwork(Box::new(flat())),
        Change::PutSubnet(Box::new(of_router())),
        Change::PutSubnet(Box::new(subnet(1))),
        Change::PutPort(Box::new(port)),
    ]);
    planner
}

fn says(routers: &[&str]) -> Change {
    let said = Upstream {
        routers: routers.iter().map(|r| r.parse().unwrap()).collect(),
        preference: Preference::High,
        managed: false,
        other: true,
        mtu: Some(1_400),
        prefixes: vec![OnLink {
            prefix: prefix("2001:db8:1::/64"),
            on_link: true,
            autonomous: true,
            prefer_delegation: false,
            valid_lifetime_secs: 7_200,
            preferred_lifetime_secs: 0,
        }],
        dns_servers: vec!["2001:db8::53".parse().unwrap()],
        ..Upstream::default()
    };
    Change::PutUpstream(ON.to_owned(), Box::new(said))
}

fn has(planner: &Planner, key: &Key) -> bool {
    planner.state().objects.contains_key(key)
}

/// By which router what has a source of the prefix leaves.
fn way_out(planner: &Planner) -> Option<IpAddr> {
    let key = Key::Route(RouteKey {
        netns: Netns::Main,
        table: 254,
        prefix: prefix("::/0"),
        source: Some(prefix("2001:db8:1::/64")),
        metric: 500,
    });
    match planner.state().objects.get(&key)? {
        Object::Route(route) => match &route.kind {
            RouteKind::Unicast(hops) => match hops.as_slice() {
                [NextHop { via, link: by }] if *by == link() => *via,
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn a_host_answers_for_its_ports_and_announces_none() {
    let planner = planner();
    assert!(has(&planner, &Key::UplinkProgram(link())));
    for addr in [WORKLOAD, "10.1.0.10"] {
        assert!(has(&planner, &Key::Answer(link(), ip(addr))), "{addr}");
    }
    assert!(has(&planner, &Key::Proxy(link(), ip(WORKLOAD))));
    assert!(
        !has(&planner, &Key::Proxy(link(), ip("10.1.0.10"))),
        "ARP has no groups"
    );
    assert!(planner.state().announce.is_empty());
    for prefix in ["2001:db8:1::/64", "10.1.0.0/24"] {
        let on_link = Key::Route(RouteKey {
            netns: Netns::Main,
            table: 254,
            prefix: world::prefix(prefix),
            source: None,
            metric: 5_000,
        });
        assert!(has(&planner, &on_link), "{prefix}");
    }
}

#[test]
fn it_answers_for_sources_of_nat44_and_stops_when_they_go() {
    let mut planner = planner();
    let pool = Subnet {
        network_id: network_id(0),
        ..subnet(2)
    };
    let sources =
        |all: &[&str]| Change::SetNat44Sources(subnet_id(1), all.iter().map(|a| ip(a)).collect());
    planner.apply_all([Change::PutSubnet(Box::new(pool)), sources(&["192.0.2.8"])]);
    let answer = Key::Answer(link(), ip("192.0.2.8"));
    assert!(has(&planner, &answer));
    assert!(planner.state().announce.is_empty());
    planner.apply(sources(&[]));
    assert!(!has(&planner, &answer));
}

#[test]
fn what_leaves_goes_by_the_network_s_own_router() {
    let mut planner = planner();
    assert_eq!(
        way_out(&planner),
        Some(ip("2001:db8:1::1")),
        "as the subnet says"
    );
    planner.apply(says(&["fe80::b", "fe80::a"]));
    assert_eq!(
        way_out(&planner),
        Some(ip("fe80::b")),
        "the best of those that are heard"
    );
    planner.apply(says(&[]));
    assert_eq!(way_out(&planner), Some(ip("2001:db8:1::1")));
    planner.apply(Change::PutUpstream("net9".to_owned(), Box::default()));
    assert_eq!(way_out(&planner), Some(ip("2001:db8:1::1")));
}

#[test]
fn ports_are_told_what_the_network_s_routers_say() {
    let mut planner = planner();
    let told = |planner: &Planner| planner.state().responders[&port_id(1)].config.clone();
    assert_eq!(told(&planner).advertise, None, "nobody has said anything");
    planner.apply(says(&["fe80::b"]));
    let config = told(&planner);
    let advertise = config.advertise.clone().unwrap();
    assert!(advertise.default_router && advertise.preference == Preference::High);
    assert_eq!(config.mtu, 1_400);
    let [subnet] = config.ipv6.as_slice() else {
        panic!("{config:?}");
    };
    assert_eq!(subnet.mode, Ipv6Mode::Dhcpv6Stateless);
    assert!(!subnet.on_link, "nothing is on a point-to-point link");
    assert_eq!(
        (subnet.valid_lifetime_secs, subnet.preferred_lifetime_secs),
        (7_200, 0)
    );
    assert_eq!(
        subnet.dns_servers,
        ["2001:db8::53".parse::<std::net::Ipv6Addr>().unwrap()]
    );
    // A subnet that says itself what to advertise is not repeated.
    planner.apply(Change::PutSubnet(Box::new(subnet_of_ours())));
    let config = told(&planner);
    assert_eq!(config.ipv6[0].mode, Ipv6Mode::Slaac);
    assert_eq!(config.advertise.unwrap().preference, Preference::Medium);
}

fn subnet_of_ours() -> Subnet {
    Subnet {
        gateway_ip: Some(ip("2001:db8:1::1")),
        standard: standard(),
        ..subnet(0)
    }
}

#[test]
fn a_host_that_is_not_on_it_does_nothing() {
    let mut planner = planner();
    let elsewhere = Network {
        physical_network: Some("net7".to_owned()),
        ..flat()
    };
    planner.apply(Change::PutNetwork(Box::new(elsewhere)));
    let answers = |key: &Key| {
        matches!(
            key,
            Key::Answer(..) | Key::Proxy(..) | Key::UplinkProgram(_)
        )
    };
    assert!(!planner.state().objects.keys().any(answers));
    assert_eq!(way_out(&planner), None);
    // Down, nothing passes, so nobody is told that it would.
    let mut planner = self::planner();
    let down = Network {
        admin_state_up: false,
        ..flat()
    };
    planner.apply(Change::PutNetwork(Box::new(down)));
    assert!(!planner.state().objects.keys().any(answers));
}

/// Where TCP ports of the host lead.
fn exposed(planner: &Planner) -> Vec<(Vec<Value>, Vec<Value>)> {
    let objects = planner.state().objects.values();
    let of_map = objects.filter_map(|object| match object {
        Object::Element(Netns::Main, Element { set, key, data, .. }) => {
            (set.0 == "exposed-6").then(|| (key.clone(), data.clone()))
        }
        _ => None,
    });
    of_map.collect()
}

fn exposing(n: u8, address: &str, external: &[u16]) -> Port {
    let exposed = external.iter().map(|external_port| Exposure {
        protocol: ForwardedProtocol::Tcp,
        external_port: *external_port,
        internal_port: 8_000,
    });
    Port {
        exposed: exposed.collect(),
        ..port(n, vec![fixed(1, address)], &[])
    }
}

#[test]
fn ports_of_the_host_lead_to_workloads_and_connections_end_with_that() {
    let mut planner = planner();
    let to = |port, addr| {
        let to = vec![Value::Addr(ip(addr)), Value::Port(8_000)];
        (vec![Value::Port(port)], to)
    };
    let chain = Key::Chain(Netns::Main, "exposed".into());
    assert!(!has(&planner, &chain));
    let put = |port| Change::PutPort(Box::new(port));
    planner.apply(put(exposing(2, "10.1.0.20", &[80, 443])));
    assert!(has(&planner, &chain));
    assert_eq!(
        exposed(&planner),
        [to(80, "10.1.0.20"), to(443, "10.1.0.20")]
    );
    let changed = planner.apply(put(exposing(2, "10.1.0.20", &[443])));
    let cut = |addr: &str, port| Cut {
        netns: Netns::Main,
        end: CutEnd::Inside(addr.parse().unwrap()),
        ports: Some(CutPorts {
            protocol: 6,
            range: (port, port),
        }),
    };
    assert_eq!(changed.cut, [cut("10.1.0.20", 80)].into());
    // Of several the first has it; when it goes, the next.
    planner.apply(put(exposing(3, "10.1.0.30", &[443])));
    assert_eq!(exposed(&planner), [to(443, "10.1.0.20")]);
    let changed = planner.apply(put(exposing(2, "10.1.0.21", &[443])));
    assert_eq!(changed.cut, [cut("10.1.0.20", 443)].into());
    assert_eq!(exposed(&planner), [to(443, "10.1.0.21")]);
    planner.apply(Change::RemovePort(port_id(2)));
    assert_eq!(exposed(&planner), [to(443, "10.1.0.30")]);
    let down = Port {
        admin_state_up: false,
        ..exposing(3, "10.1.0.30", &[443])
    };
    planner.apply(put(down));
    assert_eq!(exposed(&planner), []);
    planner.apply(Change::RemovePort(port_id(3)));
    assert!(!has(&planner, &chain));
}

/// Out of which ports get prefixes.
fn for_delegation() -> Subnet {
    Subnet {
        cidr: prefix("2001:db8:100::/56"),
        ipv6_ra_mode: None,
        ipv6_address_mode: None,
        delegation: Some(Delegation {
            prefixlen: 64,
            preferred: true,
        }),
        ..subnet(3)
    }
}

/// The kind of the main namespace's route to that.
fn way(planner: &Planner, to: &str, metric: u32) -> Option<RouteKind> {
    let key = Key::Route(RouteKey {
        netns: Netns::Main,
        table: 254,
        prefix: prefix(to),
        source: None,
        metric,
    });
    match planner.state().objects.get(&key)? {
        Object::Route(route) => Some(route.kind.clone()),
        _ => None,
    }
}

#[test]
fn a_delegated_prefix_leads_to_its_port_and_the_rest_nowhere() {
    let mut planner = planner();
    planner.apply(Change::PutSubnet(Box::new(subnet(0))));
    let told = |planner: &Planner| {
        let config = &planner.state().responders[&port_id(1)].config;
        let delegated = config
            .delegated
            .iter()
            .map(|d| d.prefix)
            .collect::<Vec<_>>();
        (delegated, config.ipv6[0].prefer_delegation)
    };
    assert_eq!(told(&planner), (vec![], false));
    let delegated = prefix("2001:db8:100:5::/64");
    let mut with = port(1, vec![fixed(0, WORKLOAD)], &[]);
    with.delegated_prefixes.push(DelegatedPrefix {
        subnet_id: subnet_id(3),
        prefix: delegated,
    });
    let name = with.if_name();
    let hop = NextHop {
        via: Some(IpAddr::V6(with.mac_address.link_local())),
        link: name,
    };
    planner.apply_all([
        Change::PutSubnet(Box::new(Subnet {
            network_id: network_id(0),
            ..for_delegation()
        })),
        Change::PutPort(Box::new(with)),
    ]);
    let to_port = way(&planner, "2001:db8:100:5::/64", 100);
    assert_eq!(to_port, Some(RouteKind::Unicast(vec![hop])));
    let rest = way(&planner, "2001:db8:100::/56", 1_000_000);
    assert_eq!(rest, Some(RouteKind::Blackhole));
    assert_eq!(
        way(&planner, "2001:db8:100::/56", 5_000),
        None,
        "nobody has it on the link"
    );
    assert!(planner.state().announce.contains_key(&delegated));
    assert_eq!(told(&planner), (vec![delegated], true));
    // What the workload hands on may come from it.
    let masked = |key: &Key| format!("{key:?}").contains("2001:db8:100:5::");
    assert!(planner.state().objects.keys().any(masked));
    planner.apply(Change::PutStandby(port_id(1)));
    assert_eq!(way(&planner, "2001:db8:100:5::/64", 100), None);
}
