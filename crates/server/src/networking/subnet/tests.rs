use super::*;

fn pools(cidr: &str, gateway: Option<&str>) -> Vec<String> {
    let gateway = gateway.map(|g| g.parse().unwrap());
    let pools = default_pools(cidr.parse().unwrap(), gateway);
    pools
        .iter()
        .map(|p| format!("{}-{}", p.start, p.end))
        .collect()
}

#[test]
fn pools_leave_out_the_gateway_and_what_no_port_can_have() {
    let cases: &[(&str, Option<&str>, &[&str])] = &[
        ("10.0.0.0/24", Some("10.0.0.1"), &["10.0.0.2-10.0.0.254"]),
        ("10.0.0.0/24", Some("10.0.0.254"), &["10.0.0.1-10.0.0.253"]),
        (
            "10.0.0.0/24",
            Some("10.0.0.9"),
            &["10.0.0.1-10.0.0.8", "10.0.0.10-10.0.0.254"],
        ),
        ("10.0.0.0/24", Some("10.9.9.9"), &["10.0.0.1-10.0.0.254"]),
        ("10.0.0.0/24", None, &["10.0.0.1-10.0.0.254"]),
        ("10.0.0.0/31", None, &["10.0.0.0-10.0.0.1"]),
        ("10.0.0.7/32", None, &["10.0.0.7-10.0.0.7"]),
        (
            "2001:db8::/126",
            Some("2001:db8::1"),
            &["2001:db8::2-2001:db8::3"],
        ),
        (
            "2001:db8::/64",
            Some("2001:db8::"),
            &["2001:db8::1-2001:db8::ffff:ffff:ffff:ffff"],
        ),
        ("2001:db8::5/128", None, &["2001:db8::5-2001:db8::5"]),
    ];
    for (cidr, gateway, expected) in cases {
        assert_eq!(pools(cidr, *gateway), *expected, "{cidr} {gateway:?}");
    }
}

#[test]
fn every_default_pool_passes_its_own_check() {
    for len in 1..=32u8 {
        let cidr = Prefix::new("192.0.2.0".parse().unwrap(), len).unwrap();
        let gateway = (len <= 30).then(|| default_gateway(cidr, false));
        let pools = default_pools(cidr, gateway);
        assert_eq!(
            checked_pools(cidr, gateway, pools.clone()),
            Ok(pools),
            "{cidr}"
        );
    }
}

#[test]
fn pools_that_cannot_be_are_refused_by_their_names() {
    let check = |list: &[(&str, &str)]| {
        let pools = list.iter().map(|(a, b)| AllocationPool {
            start: a.parse().unwrap(),
            end: b.parse().unwrap(),
        });
        let cidr = "10.0.0.0/24".parse().unwrap();
        checked_pools(cidr, Some("10.0.0.1".parse().unwrap()), pools.collect()).map_err(|e| e.kind)
    };
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("10.0.0.9", "10.0.0.8")], "InvalidAllocationPool"),
        (&[("10.0.0.9", "2001:db8::1")], "InvalidAllocationPool"),
        (&[("10.0.0.9", "10.0.1.8")], "OutOfBoundsAllocationPool"),
        (&[("10.0.0.9", "10.0.0.255")], "OutOfBoundsAllocationPool"),
        (
            &[("10.0.0.1", "10.0.0.5")],
            "GatewayConflictWithAllocationPools",
        ),
        (
            &[("10.0.0.9", "10.0.0.20"), ("10.0.0.20", "10.0.0.30")],
            "OverlappingAllocationPools",
        ),
    ];
    for (list, kind) in cases {
        assert_eq!(check(list), Err(*kind), "{list:?}");
    }
    assert!(check(&[("10.0.0.20", "10.0.0.30"), ("10.0.0.2", "10.0.0.19")]).is_ok());
}

#[test]
fn a_port_s_address_is_neither_network_nor_broadcast() {
    let can = |cidr: &str, a: &str| can_have(cidr.parse().unwrap(), a.parse().unwrap());
    assert!(can("10.0.0.0/24", "10.0.0.1") && can("10.0.0.0/24", "10.0.0.254"));
    assert!(!can("10.0.0.0/24", "10.0.0.0") && !can("10.0.0.0/24", "10.0.0.255"));
    assert!(!can("10.0.0.0/24", "10.0.1.1") && !can("10.0.0.0/24", "2001:db8::1"));
    assert!(
        can("2001:db8::/64", "2001:db8::ffff:ffff:ffff:ffff")
            && !can("2001:db8::/64", "2001:db8::")
    );
}
