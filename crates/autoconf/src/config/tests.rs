use super::*;
use crate::samples;

fn port() -> PortConfig {
    samples::port(Ipv6Mode::Slaac)
}

#[test]
fn is_kept_as_json_without_loss() {
    let config = port();
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<PortConfig>(&text).unwrap(), config);
}

#[test]
fn little_is_needed_and_nothing_unknown_is_taken() {
    let little = r#"{"host_mac": "02:00:00:00:00:01", "guest_mac": "fa:16:3e:00:00:01", "mtu": 1500,
        "ipv4": [{"address": "192.0.2.9", "prefix": "192.0.2.0/24"}],
        "ipv6": [{"prefix": "2001:db8::/64", "mode": "dhcpv6-stateless"}]}"#;
    let config: PortConfig = serde_json::from_str(little).unwrap();
    assert_eq!(config.link_local, LINK_LOCAL);
    assert_eq!(config.ipv4[0].lease_secs, 86_400);
    assert_eq!(config.ipv6[0].preferred_lifetime_secs, 604_800);
    assert_eq!(config.check(), Ok(()));
    let unknown = little.replace("\"mtu\"", "\"nto\": 1, \"mtu\"");
    assert!(serde_json::from_str::<PortConfig>(&unknown).is_err());
}

#[test]
fn what_cannot_be_used_is_refused_with_its_reason() {
    type Change = fn(&mut PortConfig);
    let cases: [(Change, &str); 17] = [
        (|c| c.guest_mac = Mac::BROADCAST, "address of a group"),
        (|c| c.host_mac = Mac::BROADCAST, "address of a group"),
        (|c| c.link_local = Ipv6Addr::LOCALHOST, "no link-local"),
        (|c| c.mtu = 1_279, "IPv6 needs 1280"),
        (
            |c| c.ipv6[0].prefix = "2001:db8::/63".parse().unwrap(),
            "SLAAC needs 64",
        ),
        (
            |c| c.ipv6[0].prefix = "10.0.0.0/8".parse().unwrap(),
            "has to be IPv6",
        ),
        (
            |c| c.ipv6[0].address = Some(Ipv6Addr::LOCALHOST),
            "not in its subnet",
        ),
        (|c| c.ipv6[0].valid_lifetime_secs = 1, "preferred lifetime"),
        (
            |c| c.ipv4[0].prefix = "2001:db8::/64".parse().unwrap(),
            "has to be IPv4",
        ),
        (
            |c| c.ipv4[0].address = Ipv4Addr::LOCALHOST,
            "not in its subnet",
        ),
        (|c| c.ipv4[0].lease_secs = 59, "60 seconds"),
        (
            |c| c.ipv4[0].host_routes[0].destination = "::/0".parse().unwrap(),
            "has to be IPv4",
        ),
        (
            |c| c.delegated[0].prefix = "10.0.0.0/8".parse().unwrap(),
            "has to be IPv6",
        ),
        (
            |c| c.delegated[0].valid_lifetime_secs = 1,
            "preferred lifetime",
        ),
        (
            |c| c.advertise.as_mut().unwrap().pref64 = Some("64:ff9b::/95".parse().unwrap()),
            "96, 64, 56",
        ),
        (
            |c| c.advertise.as_mut().unwrap().routes = vec!["10.0.0.0/8".parse().unwrap()],
            "has to be IPv6",
        ),
        (
            |c| c.extra_dhcp_opts = vec![ExtraOption::parse("66", "a", 4).unwrap(); 2],
            "option 66 for IPv4 is given twice",
        ),
    ];
    for (change, reason) in cases {
        let mut config = port();
        change(&mut config);
        let error = config.check().unwrap_err().to_string();
        assert!(
            error.contains(reason),
            "'{error}' says nothing of '{reason}'"
        );
    }
    assert_eq!(port().check(), Ok(()));
}

#[test]
fn every_list_has_a_bound() {
    /// So many of the first.
    fn fill<T: Clone>(list: &mut Vec<T>, len: usize) {
        let item = list[0].clone();
        list.resize(len, item);
    }
    type Fill = fn(&mut PortConfig, usize);
    let cases: [(&str, usize, Fill); 9] = [
        ("IPv4 subnets", MAX_SUBNETS, |c, n| fill(&mut c.ipv4, n)),
        ("IPv6 subnets", MAX_SUBNETS, |c, n| fill(&mut c.ipv6, n)),
        ("DNS servers", MAX_DNS_SERVERS, |c, n| {
            fill(&mut c.ipv4[0].dns_servers, n)
        }),
        ("DNS servers", MAX_DNS_SERVERS, |c, n| {
            fill(&mut c.ipv6[0].dns_servers, n)
        }),
        ("host routes", MAX_ROUTES, |c, n| {
            fill(&mut c.ipv4[0].host_routes, n)
        }),
        ("search domains", MAX_SEARCH_DOMAINS, |c, n| {
            fill(&mut c.dns_search, n)
        }),
        ("NTP servers", MAX_NTP_SERVERS, |c, n| {
            fill(&mut c.ntp_servers, n)
        }),
        ("delegated prefixes", MAX_DELEGATIONS, |c, n| {
            fill(&mut c.delegated, n)
        }),
        ("advertised routes", MAX_ROUTES, |c, n| {
            fill(&mut c.advertise.as_mut().unwrap().routes, n);
        }),
    ];
    for (what, most, fill) in cases {
        let mut config = port();
        fill(&mut config, most);
        assert_eq!(config.check(), Ok(()), "{what}");
        fill(&mut config, most + 1);
        let given = most + 1;
        assert_eq!(
            config.check(),
            Err(ConfigError::TooMany { what, given, most })
        );
    }
    let mut config = port();
    config.extra_dhcp_opts = (100..=100 + MAX_EXTRA_OPTIONS)
        .map(|code| ExtraOption::parse(&format!("{}", code + 1_000), "x", 6).unwrap())
        .collect();
    assert!(matches!(config.check(), Err(ConfigError::TooMany { .. })));
    config.extra_dhcp_opts.pop();
    assert_eq!(config.check(), Ok(()));
}

#[test]
fn dns_servers_and_domains_are_told_once_and_in_order() {
    let mut config = port();
    config.ipv6 = ["2001:db8:1::/64", "2001:db8:2::/64", "2001:db8:3::/64"]
        .map(|prefix| Ipv6Subnet::new(prefix.parse().unwrap(), Ipv6Mode::Slaac, None))
        .to_vec();
    let addr = |text: &str| text.parse::<Ipv6Addr>().unwrap();
    config.ipv6[0].dns_servers = vec![addr("::2"), addr("::1")];
    config.ipv6[1].dns_servers = vec![addr("::1"), addr("::3")];
    config.ipv6[2].dns_servers = vec![addr("::4")];
    config.ipv6[2].mode = Ipv6Mode::None;
    let told: Vec<_> = config.dns_servers_v6().collect();
    assert_eq!(told, [addr("::2"), addr("::1"), addr("::3")]);
    config.dns_search.push("cloud.example".parse().unwrap());
    let list = config.search_list();
    let list: Vec<&str> = list.iter().map(DomainName::as_str).collect();
    assert_eq!(list, ["cloud.example", "example.org"]);
}
