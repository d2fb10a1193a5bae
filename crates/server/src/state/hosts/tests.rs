mod steps;
mod tables;
mod things;

use std::{collections::HashMap, net::Ipv6Addr};

use bytes::Bytes;
use hextet_model::{
    intent::{GatewayHost, Intent, Joined, MeterRule, RemotePort, RouterInterface, TunnelEndpoint},
    neutron::{
        self, AddressGroup, AddressPair, Binding, Direction, FixedIp, ForwardedProtocol, HostRoute,
        MeteringLabel, MeteringRule, NdpProxy, NetworkType, PortRange, Router, RouterGateway,
        SecurityGroup, SecurityGroupRule, Standard, Status, SubnetPool,
    },
};
use hextet_store::{Event, KeyValue};
use hextet_types::{
    AddressGroupId, AddressScopeId, Family, Mac, MeteringLabelId, MeteringRuleId, NdpProxyId,
    Prefix, ProjectId, SecurityGroupRuleId, SubnetPoolId,
};
use jiff::Timestamp;
use proptest::prelude::*;
use serde::Serialize;
use uuid::Uuid;

use self::{steps::*, tables::*, things::*};
use super::{members::member_addresses, *};
use crate::{
    keys,
    state::{
        HostRecord, bindings::BindingRecord, holders::HolderRecord, joins::JoinRecord,
        layer3::GatewayRecord,
    },
};

fn whole(state: &State, host: &HostId) -> Intent {
    let mut intent = Intent::default();
    state
        .snapshot(host)
        .iter()
        .for_each(|step| intent.apply(step.to_change()));
    intent
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn what_is_told_by_steps_is_what_would_be_told_at_once(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut state = State::default();
        let mut told: HashMap<HostId, Intent> = HashMap::new();
        for n in 0..3 {
            state.views.listen(host(n));
            told.insert(host(n), Intent::default());
        }
        for (at, step) in first_steps().iter().chain(&steps).enumerate() {
            state.apply(&event(step, at as u64 + 1)).unwrap();
            for (host, steps) in state.views.take() {
                let intent = told.get_mut(&host).unwrap();
                steps.iter().for_each(|step| intent.apply(step.to_change()));
            }
            for (host, intent) in &told {
                prop_assert_eq!(intent, &whole(&state, host), "{:?}", step);
                prop_assert_eq!(intent, &from_tables(&state, host), "{:?}", step);
            }
        }
    }
}

/// So a host never takes such a rule for one that any address passes.
#[test]
fn a_rule_is_told_with_the_address_group_that_it_names() {
    let mut state = State::default();
    let spec = Spec {
        n: 0,
        network: 0,
        address: 1,
        pair: None,
        host: Some(0),
        groups: BTreeSet::from([0]),
        source: false,
        migrating_to: None,
    };
    let steps = [
        Step_::Network(0, false, true),
        Step_::Group(0, true),
        Step_::AddressGroup(0, 0b101, true),
        Step_::Rule(0, 0, Some(GROUPS), true),
        Step_::Port(spec, true),
    ];
    for (at, step) in steps.iter().enumerate() {
        state.apply(&event(step, at as u64 + 1)).unwrap();
    }
    state.views.listen(host(0));
    let told = |steps: Vec<Step>| {
        steps.into_iter().find_map(|step| match step {
            Step::PutGroup(group) => Some(group.addresses.clone()),
            _ => None,
        })
    };
    let named = |prefixes: &[&str]| {
        let prefixes = prefixes.iter().map(|p| p.parse().unwrap()).collect();
        Some(BTreeMap::from([(AddressGroupId(id(5, 0)), prefixes)]))
    };
    let both = named(&["192.0.2.0/24", "2001:db8:9::/48"]);
    assert_eq!(told(state.snapshot(&host(0))), both);
    state
        .apply(&event(&Step_::AddressGroup(0, 0b100, true), 9))
        .unwrap();
    let steps = state.views.take().into_iter().flat_map(|(_, steps)| steps);
    assert_eq!(told(steps.collect()), named(&["2001:db8:9::/48"]));
}

/// One port more on a host costs steps for that host, and for those that need its address.
#[test]
fn a_change_is_told_to_the_hosts_that_it_concerns() {
    let mut state = State::default();
    let mut revision = 0;
    let mut apply = |state: &mut State, step: Step_| {
        revision += 1;
        state.apply(&event(&step, revision)).unwrap();
        state.views.take()
    };
    let spec = |n, host, group| Spec {
        n,
        network: 0,
        address: 1,
        pair: None,
        host: Some(host),
        groups: BTreeSet::from([group]),
        source: false,
        migrating_to: None,
    };
    (0..3).for_each(|n| state.views.listen(host(n)));
    apply(&mut state, Step_::Network(0, false, true));
    apply(&mut state, Step_::Group(0, true));
    apply(&mut state, Step_::Group(1, true));
    apply(&mut state, Step_::Rule(0, 0, Some(1), true));
    apply(&mut state, Step_::Port(spec(0, 0, 0), true));
    let told = apply(&mut state, Step_::Port(spec(1, 1, 1), true));
    let hosts: Vec<_> = told
        .iter()
        .map(|(h, steps)| (h.as_str(), steps.len()))
        .collect();
    assert_eq!(
        hosts,
        [("h0", 1), ("h1", 3)],
        "a member for h0; network, group and port for h1"
    );
    let told = apply(
        &mut state,
        Step_::Port(
            Spec {
                address: 2,
                ..spec(2, 2, 3)
            },
            true,
        ),
    );
    assert_eq!(told.len(), 1, "nobody needs that one's address: {told:?}");
}

/// A cloud of three hosts with tunnels, and a private network with a port on each; all the hosts listen.
fn private_cloud() -> (
    State,
    impl FnMut(&mut State, Step_) -> BTreeMap<HostId, Vec<Change>>,
) {
    let mut revision = 0;
    let mut apply = move |state: &mut State, step: Step_| {
        revision += 1;
        state.apply(&event(&step, revision)).unwrap();
        let told = state.views.take().into_iter();
        let changes = |steps: Vec<Step>| steps.iter().map(Step::to_change).collect();
        told.map(|(host, steps)| (host, changes(steps))).collect()
    };
    let mut state = State::default();
    (0..3).for_each(|n| state.views.listen(host(n)));
    apply(&mut state, Step_::Network(1, true, true));
    apply(&mut state, Step_::Subnet(1, true));
    for n in 0..3 {
        apply(&mut state, Step_::Tunnel(n, 0, true));
        apply(&mut state, Step_::Port(on_private(n, n), true));
    }
    (state, apply)
}

/// A router whose interfaces lead to other networks tells a host of these, step by step in an order in which
/// nothing is missing: a network before the router, and gone after it.
#[test]
fn a_host_is_told_of_all_that_a_router_leads_to() {
    let (mut state, mut apply) = private_cloud();
    apply(&mut state, Step_::Network(0, true, true));
    apply(&mut state, Step_::Subnet(0, true));
    let far = Spec {
        n: 6,
        network: 0,
        groups: BTreeSet::from([1]),
        ..on_private(6, 2)
    };
    apply(&mut state, Step_::Port(far, true));
    let spec = RouterSpec {
        n: 0,
        hops: BTreeSet::new(),
        gateway: false,
    };
    assert!(apply(&mut state, Step_::Router(spec, true)).is_empty());
    let told = apply(&mut state, Step_::Attachment(0, 1, true));
    let counts: Vec<_> = told.iter().map(|(h, c)| (h.as_str(), c.len())).collect();
    assert_eq!(
        counts,
        [("h0", 1), ("h1", 1), ("h2", 1)],
        "the router alone"
    );
    let told = apply(&mut state, Step_::Attachment(0, 0, true));
    let (there, network) = (&told[&host(0)], NetworkId(id(1, 0)));
    assert!(
        matches!(&there[0], Change::PutNetwork(n) if n.id == network),
        "{there:?}"
    );
    let remotes = Change::PutRemotes(network, [(address(6, 0), host(2))].into());
    assert!(there.contains(&remotes), "{there:?}");
    assert!(matches!(there.last(), Some(Change::PutRouter(r)) if r.interfaces.len() == 2));
    let told = apply(&mut state, Step_::Attachment(0, 0, false));
    let there = &told[&host(0)];
    assert!(matches!(&there[0], Change::PutRouter(r) if r.interfaces.len() == 1));
    assert_eq!(there.last(), Some(&Change::RemoveNetwork(network)));
}

/// What is a member behind the router is one here, too; with the router it goes.
#[test]
fn members_count_as_far_as_routers_lead() {
    let (mut state, mut apply) = private_cloud();
    apply(&mut state, Step_::Network(0, true, true));
    apply(&mut state, Step_::Group(0, true));
    apply(&mut state, Step_::Rule(0, 0, Some(1), true));
    let asking = Spec {
        groups: BTreeSet::from([0]),
        ..on_private(0, 0)
    };
    apply(&mut state, Step_::Port(asking, true));
    let member = Spec {
        n: 6,
        network: 0,
        address: 2,
        groups: BTreeSet::from([1]),
        ..on_private(6, 2)
    };
    apply(&mut state, Step_::Port(member, true));
    let members = |state: &State| {
        let intent = whole(state, &host(0));
        let at = (
            SecurityGroupId(id(3, 1)),
            RoutingDomain::Network(NetworkId(id(1, 1))),
        );
        intent.members.get(&at).cloned()
    };
    assert_eq!(members(&state), None);
    let spec = RouterSpec {
        n: 0,
        hops: BTreeSet::new(),
        gateway: false,
    };
    apply(&mut state, Step_::Router(spec, true));
    apply(&mut state, Step_::Attachment(0, 0, true));
    apply(&mut state, Step_::Attachment(0, 1, true));
    assert_eq!(members(&state), Some([address(6, 2)].into()));
    let told = apply(&mut state, Step_::Attachment(0, 1, false));
    assert!(
        matches!(told[&host(0)].last(), Some(Change::RemoveMembers(..))),
        "{told:?}"
    );
    assert_eq!(members(&state), None);
}

fn on_private(n: u8, host: u8) -> Spec {
    Spec {
        n: n + 8,
        network: 1,
        address: 0,
        pair: None,
        host: Some(host),
        groups: BTreeSet::new(),
        source: false,
        migrating_to: None,
    }
}

#[test]
fn an_address_that_moves_is_nobody_s_at_no_time() {
    let (mut state, mut apply) = private_cloud();
    let told = apply(&mut state, Step_::Port(on_private(0, 1), true));
    let network = NetworkId(id(1, 1));
    let moved = address(0, 0);
    let elsewhere = Change::PutRemotes(network, [(moved, host(1))].into());
    // The third host is told in one step; it knows both of them.
    assert_eq!(told[&host(2)][0], elsewhere);
    assert_eq!(told[&host(2)][1..], [Change::RemoveHost(host(0))]);
    // Whose it was: it is elsewhere first, then it is not here any more.
    let at = |host: &HostId, wanted: &dyn Fn(&Change) -> bool| {
        told[host].iter().position(wanted).unwrap()
    };
    let port = PortId(id(5, 8));
    let away = at(&host(0), &|c| *c == elsewhere);
    assert!(away < at(&host(0), &|c| *c == Change::RemovePort(port)));
    // Whose it is: it is here first, then it is not elsewhere any more.
    let here = at(
        &host(1),
        &|c| matches!(c, Change::PutPort(p) if p.id == port),
    );
    let gone = Change::RemoveRemotes(network, [moved].into());
    assert!(here < at(&host(1), &|c| *c == gone));
}

/// Prepared on another host, heard there, activated, and no longer on the former one: in each step the addresses
/// are in one place, and who sends to them is told of it in one step.
#[test]
fn a_port_that_migrates_is_in_one_place_at_each_step() {
    let (mut state, mut apply) = private_cloud();
    let (network, port, moved) = (NetworkId(id(1, 1)), PortId(id(5, 8)), address(0, 0));
    let to_h1 = Change::PutRemotes(network, [(moved, host(1))].into());
    let to_h0 = Change::PutRemotes(network, [(moved, host(0))].into());

    let told = apply(&mut state, Step_::Binding(8, 1, false, true));
    assert_eq!(told.keys().collect::<Vec<_>>(), [&host(1)], "{told:?}");
    assert_eq!(told[&host(1)][0], Change::PutStandby(port));
    assert!(matches!(&told[&host(1)][1], Change::PutPort(p) if p.binding.host_id == Some(host(1))));
    assert_eq!(told[&host(1)].len(), 2);

    let migrating = Spec {
        migrating_to: Some(1),
        ..on_private(0, 0)
    };
    let told = apply(&mut state, Step_::Port(migrating, true));
    assert!(!told.contains_key(&host(2)), "{told:?}");

    let told = apply(&mut state, Step_::Binding(8, 1, true, true));
    assert_eq!(told[&host(2)], [to_h1.clone(), Change::RemoveHost(host(0))]);
    assert!(told[&host(0)].contains(&Change::PutStandby(port)) && told[&host(0)].contains(&to_h1));
    assert!(told[&host(1)].contains(&Change::RemoveStandby(port)));
    // Back, and there again.
    let told = apply(&mut state, Step_::Binding(8, 1, false, true));
    assert!(told[&host(2)].contains(&to_h0), "{told:?}");
    assert!(told[&host(0)].contains(&Change::RemoveStandby(port)));
    apply(&mut state, Step_::Binding(8, 1, true, true));

    // Activated: nobody else learns anything.
    let told = apply(&mut state, Step_::Binding(8, 0, false, true));
    assert!(told.is_empty(), "{told:?}");
    let told = apply(&mut state, Step_::Port(on_private(0, 1), true));
    assert!(!told.contains_key(&host(2)), "{told:?}");
    let told = apply(&mut state, Step_::Binding(8, 1, true, false));
    assert!(told.is_empty(), "{told:?}");
    let told = apply(&mut state, Step_::Binding(8, 0, false, false));
    let gone = [Change::RemovePort(port), Change::RemoveStandby(port)];
    assert_eq!(told[&host(0)][..2], gone, "{told:?}");
    assert!(whole(&state, &host(1)).standbys.is_empty());
}

/// Two ports that share an address, which an unbound one keeps for them, and a floating IP that stands for it.
#[test]
fn an_address_of_several_is_where_it_was_last_heard() {
    let (mut state, mut apply) = private_cloud();
    let (network, shared) = (NetworkId(id(1, 1)), address(7, 0));
    let keeper = Spec {
        host: None,
        ..on_private(7, 0)
    };
    apply(&mut state, Step_::Port(keeper, true));
    let sharing = |n: u8| Spec {
        pair: Some(7),
        ..on_private(n, n)
    };
    for n in 0..2 {
        apply(&mut state, Step_::Port(sharing(n), true));
    }
    let spec = RouterSpec {
        n: 0,
        hops: BTreeSet::new(),
        gateway: false,
    };
    apply(&mut state, Step_::Router(spec, true));
    let floating = FloatingSpec {
        n: 0,
        port: Some(15),
        address: 0,
        router: Some(0),
    };
    apply(&mut state, Step_::FloatingIp(floating, true));
    let place = |state: &State| {
        whole(state, &host(2)).remotes[&network]
            .get(&shared)
            .cloned()
    };
    let outside = |state: &State| -> Vec<u8> {
        let told = |n: &u8| !whole(state, &host(*n)).floating_ips.is_empty();
        (0..3).filter(told).collect()
    };
    assert_eq!((place(&state), outside(&state)), (Some(host(0)), vec![0]));

    let told = apply(&mut state, Step_::Holder((7, 0), 1, 9, true));
    let holder = Change::PutHolder(network, shared, PortId(id(5, 9)));
    assert!(told[&host(0)].contains(&holder) && told[&host(1)].contains(&holder));
    let elsewhere = Change::PutRemotes(network, [(shared, host(1))].into());
    assert_eq!(told[&host(2)], [elsewhere], "in one step, and nothing else");
    assert_eq!((place(&state), outside(&state)), (Some(host(1)), vec![1]));
    // Who has it moves, and with it the address.
    let told = apply(
        &mut state,
        Step_::Port(
            Spec {
                pair: Some(7),
                ..on_private(1, 2)
            },
            true,
        ),
    );
    assert!(told[&host(0)].contains(&Change::PutRemotes(network, [(shared, host(2))].into())));
    assert_eq!(outside(&state), [2]);
    // Who may not use it any more does not have it; and it is not anybody's whose own it is.
    apply(&mut state, Step_::Port(on_private(1, 2), true));
    assert_eq!((place(&state), outside(&state)), (Some(host(0)), vec![0]));
    apply(&mut state, Step_::Port(sharing(1), true));
    assert_eq!(place(&state), Some(host(1)));
    apply(&mut state, Step_::Port(on_private(7, 0), true));
    assert_eq!((place(&state), outside(&state)), (Some(host(0)), vec![0]));
    assert!(whole(&state, &host(0)).holders.is_empty());
}

#[test]
fn a_port_more_costs_each_host_of_its_network_one_step() {
    let (mut state, mut apply) = private_cloud();
    let told = apply(&mut state, Step_::Port(on_private(5, 1), true));
    let counts: Vec<_> = told.iter().map(|(h, c)| (h.as_str(), c.len())).collect();
    assert_eq!(counts, [("h0", 1), ("h1", 1), ("h2", 1)], "{told:?}");
    apply(&mut state, Step_::Network(0, true, true));
    let elsewhere = Spec {
        n: 6,
        network: 0,
        ..on_private(6, 2)
    };
    let told = apply(&mut state, Step_::Port(elsewhere, true));
    let counts: Vec<_> = told.iter().map(|(h, c)| (h.as_str(), c.len())).collect();
    assert_eq!(
        counts,
        [("h2", 2)],
        "a network that others have nothing of: {told:?}"
    );
}

/// Of a network behind a router, too: to hosts that have no port of it.
#[test]
fn a_port_more_behind_a_router_costs_each_host_one_step() {
    let (mut state, mut apply) = private_cloud();
    apply(&mut state, Step_::Network(0, true, true));
    let spec = RouterSpec {
        n: 0,
        hops: BTreeSet::new(),
        gateway: false,
    };
    apply(&mut state, Step_::Router(spec, true));
    apply(&mut state, Step_::Attachment(0, 0, true));
    apply(&mut state, Step_::Attachment(0, 1, true));
    let far = |n| Spec {
        n,
        network: 0,
        ..on_private(n, 2)
    };
    for n in [6, 7] {
        let told = apply(&mut state, Step_::Port(far(n), true));
        let counts: Vec<_> = told.iter().map(|(h, c)| (h.as_str(), c.len())).collect();
        assert_eq!(counts, [("h0", 1), ("h1", 1), ("h2", 1)], "{told:?}");
    }
}

#[test]
fn a_host_s_other_endpoint_is_told_to_those_that_send_to_it() {
    let (mut state, mut apply) = private_cloud();
    apply(&mut state, Step_::Port(on_private(1, 1), false));
    let key = keys::tunnel(&host(0));
    let record = TunnelRecord {
        number: 1,
        address: Some("2001:db8::99".parse().unwrap()),
    };
    state.apply(&put(key, &record, 99)).unwrap();
    let told: Vec<_> = state.views.take();
    let hosts: Vec<_> = told.iter().map(|(h, s)| (h.as_str(), s.len())).collect();
    assert_eq!(hosts, [("h0", 1), ("h2", 1)]);
    // And without one, its ports are nowhere.
    let told = apply(&mut state, Step_::Tunnel(0, 2, true));
    let gone = Change::RemoveRemotes(NetworkId(id(1, 1)), [address(0, 0)].into());
    assert_eq!(told[&host(2)], [gone, Change::RemoveHost(host(0))]);
    assert!(whole(&state, &host(0)).ports.is_empty());
    assert!(!state.is_taken(state.ports.get(&PortId(id(5, 8))).unwrap()));
}
