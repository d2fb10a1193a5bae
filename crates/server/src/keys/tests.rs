use super::*;

#[test]
fn every_thing_s_key_reads_back() {
    let n: NetworkId = "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d".parse().unwrap();
    let (s, g) = (SubnetId(n.0), SecurityGroupId(n.0));
    let (r, p) = (SecurityGroupRuleId(n.0), ProjectId("p".into()));
    let mac: Mac = "fa:16:3e:00:00:01".parse().unwrap();
    let h: HostId = "h1".parse().unwrap();
    let token = IdentityTable::Token;
    let things = [
        (network(n), Key::Network(n)),
        (subnet(n, s), Key::Subnet(s)),
        (port(n, mac), Key::Port(n, mac)),
        (group(g), Key::Group(g)),
        (rule(g, r), Key::Rule(r)),
        (
            subnet_pool(SubnetPoolId(n.0)),
            Key::SubnetPool(SubnetPoolId(n.0)),
        ),
        (
            address_scope(AddressScopeId(n.0)),
            Key::AddressScope(AddressScopeId(n.0)),
        ),
        (
            address_group(AddressGroupId(n.0)),
            Key::AddressGroup(AddressGroupId(n.0)),
        ),
        (
            rbac_policy(RbacPolicyId(n.0)),
            Key::RbacPolicy(RbacPolicyId(n.0)),
        ),
        (router(RouterId(n.0)), Key::Router(RouterId(n.0))),
        (
            floating_ip(FloatingIpId(n.0)),
            Key::FloatingIp(FloatingIpId(n.0)),
        ),
        (
            port_forwarding(FloatingIpId(s.0), PortForwardingId(n.0)),
            Key::PortForwarding(PortForwardingId(n.0)),
        ),
        (ndp_proxy(NdpProxyId(n.0)), Key::NdpProxy(NdpProxyId(n.0))),
        (
            qos_policy(QosPolicyId(n.0)),
            Key::QosPolicy(QosPolicyId(n.0)),
        ),
        (
            metering_label(MeteringLabelId(n.0)),
            Key::MeteringLabel(MeteringLabelId(n.0)),
        ),
        (
            metering_rule(MeteringLabelId(s.0), MeteringRuleId(n.0)),
            Key::MeteringRule(MeteringRuleId(n.0)),
        ),
        (quota(&p), Key::Quota(p.clone())),
        (host(&h), Key::Host(h.clone())),
        (tunnel(&h), Key::Tunnel(h.clone())),
        (join_token("x"), Key::JoinToken("x".into())),
        (identity(token, "ab"), Key::Identity(token, "ab".into())),
    ];
    for (octets, thing) in things {
        assert_eq!(Key::parse(&octets), Some(thing));
    }
}

#[test]
fn what_belongs_to_ports_reads_back_with_its_whole_key() {
    let n: NetworkId = "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d".parse().unwrap();
    let h: HostId = "h1".parse().unwrap();
    let address = Ipv6Addr::LOCALHOST.into();
    let sum = SumId {
        label: MeteringLabelId(n.0),
        router: RouterId(n.0),
        host: h.clone(),
        direction: Direction::Egress,
    };
    let things = [
        (binding(PortId(n.0), &h), Key::Binding(PortId(n.0), h)),
        (holder(n, address), Key::Holder(n, address)),
        (joined(PortId(n.0)), Key::Joined(PortId(n.0))),
        (metered(&sum), Key::Metered(sum.clone())),
    ];
    for (octets, thing) in things {
        assert_eq!(Key::parse(&octets), Some(thing));
    }
}

#[test]
fn no_claim_is_a_thing() {
    let n: NetworkId = "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d".parse().unwrap();
    let (s, p) = (SubnetId(n.0), ProjectId("p".into()));
    let h: HostId = "h1".parse().unwrap();
    let claims = [
        address(s, [10, 0, 0, 1].into()),
        single_homed(&p, "d"),
        default_group(&p),
        default_qos_policy(&p),
        qos_use(QosPolicyId(n.0), n.0),
        allocation(SubnetPoolId(n.0), s),
        default_subnet_pool(Family::V6),
        rbac_grant(n.0, RbacAction::AccessAsShared, &p),
        association(PortId(n.0), n, [10, 0, 0, 1].into()),
        forwarded(PortId(n.0), PortForwardingId(n.0)),
        proxied(PortId(n.0), Ipv6Addr::LOCALHOST),
        router_use(RouterId(n.0), n.0),
        nat44(s, &h),
        tunnel_number(7),
        tunnel_address([192, 0, 2, 1].into()),
        segment(7),
        namespace(n),
        authority(),
        identity_name(IdentityTable::User, "default", "Ann"),
    ];
    for claim in claims {
        assert_eq!(Key::parse(&claim), None, "{claim:?}");
    }
}

#[test]
fn a_device_s_claim_depends_on_both_its_parts() {
    let claim = |p: &str, d: &str| single_homed(&ProjectId(p.into()), d);
    assert_ne!(claim("ab", "c"), claim("a", "bc"));
}
