use hextet_model::neutron::{ForwardedProtocol, PortRange, RouterGateway, Standard};
use hextet_store::{Event, KeyValue};
use jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::keys;

fn id(n: u8) -> Uuid {
    Uuid::from_bytes([n, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
}

fn standard(project: u8) -> Standard {
    Standard {
        project_id: ProjectId(project.to_string()),
        name: String::new(),
        description: String::new(),
        tags: Vec::new(),
        revision_number: 1,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

/// What is put or deleted: a thing of a kind, with what it refers to.
#[derive(Clone, Copy, Debug)]
enum Step {
    Router(u8, u8),
    FloatingIp(u8, Option<u8>, u8),
    Forwarding(u8, u8, u8),
    Proxy(u8, u8, u8),
    Gone(u8, u8),
}

fn put(key: bytes::Bytes, value: &impl serde::Serialize) -> Event {
    Event::Put(KeyValue {
        key,
        value: serde_json::to_vec(value).unwrap().into(),
        create_revision: 1,
        mod_revision: 1,
        version: 1,
        lease: None,
    })
}

fn router(n: u8, network: u8) -> Event {
    let gateway = RouterGateway {
        network_id: NetworkId(id(network)),
        port_id: PortId(id(9)),
        qos_policy_id: None,
    };
    let router = Router {
        id: RouterId(id(n)),
        standard: standard(network),
        admin_state_up: true,
        gateways: vec![gateway],
        enable_snat: true,
        routes: Vec::new(),
        enable_ndp_proxy: false,
        enable_default_route_ecmp: false,
        enable_default_route_bfd: false,
        availability_zone_hints: Vec::new(),
    };
    put(keys::router(router.id), &router)
}

fn floating_ip(n: u8, port: Option<u8>, router: u8) -> Event {
    let fip = FloatingIp {
        id: FloatingIpId(id(n)),
        standard: standard(router),
        floating_network_id: NetworkId(id(1)),
        floating_ip_address: [203, 0, 113, n].into(),
        floating_port_id: PortId(id(9)),
        qos_policy_id: None,
        port_id: port.map(|p| PortId(id(p))),
        fixed_ip_address: port.map(|p| [10, 0, 0, p].into()),
        router_id: port.map(|_| RouterId(id(router))),
    };
    put(keys::floating_ip(fip.id), &fip)
}

fn forwarding(n: u8, fip: u8, port: u8) -> Event {
    let forwarding = PortForwarding {
        id: PortForwardingId(id(n)),
        project_id: ProjectId("p".into()),
        description: String::new(),
        floatingip_id: FloatingIpId(id(fip)),
        protocol: ForwardedProtocol::Tcp,
        external_port_range: PortRange::new(80, 80).unwrap(),
        internal_port_id: PortId(id(port)),
        internal_ip_address: [10, 0, 0, port].into(),
        internal_port_range: PortRange::new(80, 80).unwrap(),
        revision_number: 1,
    };
    // A forwarding stays its floating IP's, so its key never changes.
    put(
        keys::port_forwarding(FloatingIpId(id(0)), forwarding.id),
        &forwarding,
    )
}

fn proxy(n: u8, router: u8, port: u8) -> Event {
    let proxy = NdpProxy {
        id: NdpProxyId(id(n)),
        standard: standard(router),
        router_id: RouterId(id(router)),
        port_id: PortId(id(port)),
        ip_address: std::net::Ipv6Addr::LOCALHOST,
    };
    put(keys::ndp_proxy(proxy.id), &proxy)
}

fn event(step: Step) -> Event {
    match step {
        Step::Router(n, network) => router(n, network),
        Step::FloatingIp(n, port, router) => floating_ip(n, port, router),
        Step::Forwarding(n, fip, port) => forwarding(n, fip, port),
        Step::Proxy(n, router, port) => proxy(n, router, port),
        Step::Gone(kind, n) => Event::Delete {
            key: match kind {
                0 => keys::router(RouterId(id(n))),
                1 => keys::floating_ip(FloatingIpId(id(n))),
                2 => keys::port_forwarding(FloatingIpId(id(0)), PortForwardingId(id(n))),
                _ => keys::ndp_proxy(NdpProxyId(id(n))),
            },
        },
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let few = || 0..4u8;
    prop::collection::vec(
        prop_oneof![
            (few(), few()).prop_map(|(n, a)| Step::Router(n, a)),
            (few(), prop::option::of(few()), few()).prop_map(|(n, p, r)| Step::FloatingIp(n, p, r)),
            (few(), few(), few()).prop_map(|(n, f, p)| Step::Forwarding(n, f, p)),
            (few(), few(), few()).prop_map(|(n, r, p)| Step::Proxy(n, r, p)),
            (few(), few()).prop_map(|(kind, n)| Step::Gone(kind, n)),
        ],
        0..40,
    )
}

/// Every index by its definition.
fn check(layer3: &Layer3) {
    for key in 0..4 {
        let (port, router) = (PortId(id(key)), RouterId(id(key)));
        let network = NetworkId(id(key));
        let leads = |r: &Router| r.gateways.iter().any(|g| g.network_id == network);
        let routers = layer3.routers.values().filter(|r| leads(r)).map(|r| r.id);
        assert!(routers.eq(layer3.routers_by_network.get(&network).copied()));
        let fips = |of: &dyn Fn(&FloatingIp) -> bool| -> Vec<FloatingIpId> {
            let all = layer3.floating_ips.values();
            all.filter(|f| of(f)).map(|f| f.id).collect()
        };
        let by_port = fips(&|f| f.port_id == Some(port));
        assert!(layer3.floating_ips_of(port).map(|r| r.value.id).eq(by_port));
        let by_router = fips(&|f| f.router_id == Some(router));
        assert!(
            layer3
                .floating_ips_through(router)
                .map(|f| f.id)
                .eq(by_router)
        );
        let project = ProjectId(key.to_string());
        let own = fips(&|f| f.standard.project_id == project);
        assert!(
            layer3
                .floating_ips_by_project
                .get(&project)
                .copied()
                .eq(own)
        );
        let forwardings = |of: &dyn Fn(&PortForwarding) -> bool| -> Vec<PortForwardingId> {
            let all = layer3.forwardings.values();
            all.filter(|f| of(f)).map(|f| f.id).collect()
        };
        let to = forwardings(&|f| f.internal_port_id == port);
        assert!(layer3.forwardings_to(port).map(|f| f.id).eq(to));
        let fip = FloatingIpId(id(key));
        let of = forwardings(&|f| f.floatingip_id == fip);
        assert!(layer3.forwardings_of(fip).map(|f| f.id).eq(of));
        let proxies = |of: &dyn Fn(&NdpProxy) -> bool| -> Vec<NdpProxyId> {
            let all = layer3.proxies.values();
            all.filter(|p| of(p)).map(|p| p.id).collect()
        };
        let by_port = proxies(&|p| p.port_id == port);
        assert!(layer3.proxies_of(port).map(|r| r.value.id).eq(by_port));
        let by_router = proxies(&|p| p.router_id == router);
        assert!(layer3.proxies_through(router).map(|p| p.id).eq(by_router));
    }
}

proptest! {
    #[test]
    fn indexes_are_what_the_tables_say_after_every_step(steps in steps()) {
        let mut state = State::default();
        for step in steps {
            state.apply(&event(step)).unwrap();
            check(&state.layer3);
            for (name, there) in [
                ("router", state.layer3.routers.len()),
                ("floatingip", state.layer3.floating_ips.len()),
            ] {
                let used: i64 = (0..4).map(|p: u8| state.used(&ProjectId(p.to_string()), name)).sum();
                prop_assert_eq!(used, i64::try_from(there).unwrap());
            }
        }
    }
}
