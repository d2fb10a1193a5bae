use bytes::Bytes;
use hextet_model::neutron::{RouterGateway, Standard};
use hextet_store::{Event, KeyValue};
use hextet_types::{NetworkId, PortId, ProjectId};
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::*;
use crate::{
    config::ServerConfig,
    state::{HostRecord, tunnels::TunnelRecord},
};

/// A state, and the revision that it is of.
struct World {
    state: State,
    revision: u64,
    silent: BTreeSet<HostId>,
}

fn host(n: u32) -> HostId {
    format!("h{n}").parse().unwrap()
}

fn router(n: u32) -> RouterId {
    RouterId(Uuid::from_u128(n.into()))
}

impl World {
    fn put(&mut self, key: Bytes, thing: &impl Serialize) {
        self.revision += 1;
        let event = Event::Put(KeyValue {
            key,
            value: serde_json::to_vec(thing).unwrap().into(),
            create_revision: self.revision,
            mod_revision: self.revision,
            version: 1,
            lease: None,
        });
        self.state.apply(&event).unwrap();
    }

    fn host(&mut self, n: u32, willing: bool, tunnel: bool) {
        let record = HostRecord {
            id: Uuid::from_u128(n.into()),
            host: host(n),
            created_at: Timestamp::UNIX_EPOCH,
            description: String::new(),
            admin_state_up: true,
            gateway_mac: None,
            physical_networks: BTreeSet::new(),
            gateway: willing,
        };
        self.put(keys::host(&host(n)), &record);
        let address = format!("2001:db8::{n}").parse().unwrap();
        let record = TunnelRecord {
            number: n,
            address: tunnel.then_some(address),
        };
        self.put(keys::tunnel(&host(n)), &record);
    }

    fn router(&mut self, n: u32, gateway: bool) {
        let gateway = gateway.then_some(RouterGateway {
            network_id: NetworkId(Uuid::nil()),
            port_id: PortId(Uuid::nil()),
            qos_policy_id: None,
        });
        let record = Router {
            id: router(n),
            standard: Standard {
                project_id: ProjectId("p".into()),
                name: String::new(),
                description: String::new(),
                tags: Vec::new(),
                revision_number: 1,
                created_at: Timestamp::UNIX_EPOCH,
                updated_at: Timestamp::UNIX_EPOCH,
            },
            admin_state_up: true,
            gateways: gateway.into_iter().collect(),
            enable_snat: true,
            routes: Vec::new(),
            enable_ndp_proxy: false,
            enable_default_route_ecmp: false,
            enable_default_route_bfd: false,
            availability_zone_hints: Vec::new(),
        };
        self.put(keys::router(router(n)), &record);
    }

    fn at(&mut self, n: u32, host: Option<HostId>) {
        let record = GatewayRecord {
            host,
            segment: 1000 + n,
            generation: 1,
        };
        self.put(keys::gateway(router(n)), &record);
    }

    /// Decides, and what it has decided becomes so; answers what is chosen.
    fn settle(&mut self, alive: impl Fn(&HostId) -> bool) -> Vec<(RouterId, HostId)> {
        let due = due(&self.state, &self.silent);
        let mut policy = ServerConfig::default().network_policy();
        policy.vni_ranges = vec!["1:100".to_owned().try_into().unwrap()];
        let caller = server();
        let mut write = Write::new(&self.state, &caller, &policy, Timestamp::UNIX_EPOCH);
        let chosen = settle(&mut write, &due, &self.silent, &alive).unwrap();
        let puts: Vec<(RouterId, Option<GatewayRecord>)> = due
            .iter()
            .map(|id| (*id, write.pending(&keys::gateway(*id))))
            .collect();
        let released: Vec<_> = due
            .iter()
            .map(|id| write.has_released(&keys::gateway(*id)))
            .collect();
        for ((id, record), released) in puts.into_iter().zip(released) {
            match record {
                Some(record) => self.put(keys::gateway(id), &record),
                None if released => {
                    let key = keys::gateway(id);
                    self.state.apply(&Event::Delete { key }).unwrap();
                }
                None => {}
            }
        }
        chosen
    }

    fn counts(&self) -> Vec<usize> {
        let count = |n| self.state.layer3.gateways_by_host.count(&host(n));
        (1..=4).map(count).collect()
    }
}

fn world() -> World {
    World {
        state: State::default(),
        revision: 0,
        silent: BTreeSet::new(),
    }
}

#[test]
fn routers_are_spread_over_hosts_that_are_fit() {
    let mut world = world();
    world.host(1, true, true);
    world.host(2, true, true);
    world.host(3, false, true);
    world.host(4, true, false);
    (0..10).for_each(|n| world.router(n, n != 9));
    world.at(0, Some(host(1)));
    world.at(1, Some(host(1)));
    world.at(2, Some(host(1)));
    let chosen = world.settle(|_| true);
    assert_eq!(chosen.len(), 6);
    assert_eq!(world.counts(), [5, 4, 0, 0], "those that are there stay");
    let segments: BTreeSet<u32> = (0..9)
        .map(|n| world.state.layer3.gateways.get(&router(n)).unwrap().segment)
        .collect();
    assert_eq!(segments.len(), 9);
    assert!(due(&world.state, &world.silent).is_empty());
}

/// An agent that is away takes no new ones, and keeps those that it has.
#[test]
fn only_what_is_fit_no_longer_is_left() {
    let mut world = world();
    for n in 1..=3 {
        world.host(n, true, true);
    }
    (0..4).for_each(|n| world.router(n, true));
    world.settle(|h| *h == host(1));
    assert_eq!(world.counts(), [4, 0, 0, 0]);
    assert!(
        due(&world.state, &world.silent).is_empty(),
        "whoever is away"
    );
    world.host(1, false, true);
    assert_eq!(world.settle(|_| false), [], "there is nobody");
    assert_eq!(world.counts(), [0, 0, 0, 0]);
    assert_eq!(due(&world.state, &world.silent).len(), 4);
    world.settle(|h| *h != host(1));
    assert_eq!(world.counts(), [0, 2, 2, 0]);
    let generations: BTreeSet<u64> = (0..4)
        .map(|n| {
            world
                .state
                .layer3
                .gateways
                .get(&router(n))
                .unwrap()
                .generation
        })
        .collect();
    assert_eq!(
        generations,
        [3].into(),
        "each move counts, also that to nowhere"
    );
    let key = keys::host(&host(2));
    let mut down = world.state.hosts.get(&host(2)).unwrap().as_ref().clone();
    down.admin_state_up = false;
    world.put(key.clone(), &down);
    world.settle(|h| *h != host(1));
    assert_eq!(world.counts(), [0, 0, 4, 0], "an administrator says so");
    down.admin_state_up = true;
    world.put(key, &down);
    // Without an end of tunnels nobody gets there; and a gateway that goes needs no host.
    world.host(3, true, false);
    world.settle(|_| true);
    assert_eq!(world.counts(), [0, 4, 0, 0]);
    world.router(0, false);
    let key = keys::router(router(1));
    world.state.apply(&Event::Delete { key }).unwrap();
    assert_eq!(world.settle(|_| true), []);
    assert_eq!(world.counts(), [0, 2, 0, 0]);
    assert!(due(&world.state, &world.silent).is_empty());
}

/// Whoever has a segment already moves; who needs one waits.
#[test]
fn without_a_segment_left_no_router_comes_and_those_that_are_there_move() {
    let mut world = world();
    world.host(1, true, true);
    world.host(2, false, true);
    (0..3).for_each(|n| world.router(n, true));
    world.at(2, Some(host(2)));
    (1..=100).for_each(|vni| world.state.segments.insert(vni));
    let chosen = world.settle(|_| true);
    assert_eq!(chosen, [(router(2), host(1))]);
    assert_eq!(world.counts(), [1, 0, 0, 0]);
    assert_eq!(due(&world.state, &world.silent).len(), 2);
}

/// Those of a silent host go where another takes them, stay if none does, and do not come back by themselves.
#[test]
fn a_silent_host_loses_its_routers_to_one_that_answers() {
    let mut world = world();
    for n in 1..=3 {
        world.host(n, true, true);
    }
    (0..4).for_each(|n| world.router(n, true));
    world.settle(|h| *h == host(1));
    world.silent = [host(1), host(2)].into();
    assert_eq!(world.settle(|h| *h != host(3)), [], "nobody takes them");
    assert_eq!(world.counts(), [4, 0, 0, 0]);
    assert_eq!(world.settle(|_| true).len(), 4);
    assert_eq!(world.counts(), [0, 0, 4, 0]);
    world.silent.clear();
    assert_eq!(world.settle(|_| true), []);
    assert_eq!(world.counts(), [0, 0, 4, 0]);
    let record = world.state.layer3.gateways.get(&router(0)).unwrap();
    assert_eq!(record.generation, 2);
}
