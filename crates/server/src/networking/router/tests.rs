//! Two requests that are decided on one state, of which only the first may be committed: a router,
//! and what depends on it, never part.

use std::sync::Arc;

use hextet_api::request::{Caller, Input, parse_create, parse_update};
use hextet_model::neutron::{
    AddressGroup, FloatingIp, NdpProxy, Network, NetworkType, Port, SecurityGroup,
    SecurityGroupRule, Subnet,
};
use hextet_store::{MemoryStore, Store};
use hextet_types::Family;

use super::{interfaces::Named, *};
use crate::{
    cloud::{Cloud, now},
    config::NetworkPolicy,
    networking::floating_ip::forwarding,
    nova::Notifier,
    state::HostRecord,
};

/// A request as it is decided.
type Op = Box<dyn Fn(&mut Write<'_>) -> Result<()>>;

fn caller() -> Caller {
    Caller {
        project: ProjectId("p".into()),
        admin: true,
        member: true,
    }
}

/// A router between an external network and one of its own, and what may depend on it.
struct World {
    cloud: Arc<Cloud>,
    store: Arc<dyn Store>,
    external: Arc<Network>,
    subnets: [Arc<Subnet>; 3],
    router: Arc<Router>,
    ports: [Arc<Port>; 2],
    floating_ips: [Arc<FloatingIp>; 2],
    group: Arc<SecurityGroup>,
    addresses: Arc<AddressGroup>,
}

fn policy() -> NetworkPolicy {
    NetworkPolicy {
        physical_networks: Default::default(),
        member_prefixes: Vec::new(),
        tenant_network_types: vec![NetworkType::Routed],
        vni_ranges: vec!["1:1000".to_owned().try_into().unwrap()],
        global_physnet_mtu: 1500,
        overlay: Family::V6,
    }
}

fn inputs<E: Entity>(body: Value) -> Vec<Input> {
    let body = json!({E::RESOURCE.name: body}).to_string();
    parse_create(E::RESOURCE, body.as_bytes(), &caller())
        .unwrap()
        .0
}

async fn make<E: Entity>(cloud: &Cloud, body: Value) -> Arc<E> {
    let inputs = inputs::<E>(body);
    cloud
        .write(&caller(), |write| E::create(write, &inputs[0]))
        .await
        .unwrap()
}

impl World {
    async fn start() -> World {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let cloud = Cloud::open(Arc::clone(&store), policy(), Notifier::default());
        let cloud = cloud.await.unwrap();
        let follower = Arc::clone(&cloud);
        tokio::spawn(async move { follower.follow().await });
        let subnet = |network: &Network, cidr: &str| {
            let version = if cidr.contains(':') { 6 } else { 4 };
            json!({"network_id": network.id, "ip_version": version, "cidr": cidr})
        };
        let external = json!({"router:external": true});
        let external: Arc<Network> = make(&cloud, external).await;
        for cidr in ["203.0.113.0/24", "2a00:1450::/64"] {
            make::<Subnet>(&cloud, subnet(&external, cidr)).await;
        }
        let private = json!({"provider:network_type": "vxlan"});
        let inside: Arc<Network> = make(&cloud, private).await;
        let mut subnets = Vec::new();
        for cidr in ["10.0.0.0/24", "fd00::/64", "10.0.1.0/24"] {
            subnets.push(make::<Subnet>(&cloud, subnet(&inside, cidr)).await);
        }
        let subnets: [Arc<Subnet>; 3] = subnets.try_into().unwrap();
        let gateway = json!({"external_gateway_info": {"network_id": external.id}});
        let router: Arc<Router> = make(&cloud, gateway).await;
        let fixed = [&subnets[0], &subnets[1]].map(|s| json!({"subnet_id": s.id}));
        let port = json!({"network_id": inside.id, "fixed_ips": fixed});
        let floating = json!({"floating_network_id": external.id});
        let world = World {
            router,
            ports: [make(&cloud, port.clone()).await, make(&cloud, port).await],
            floating_ips: [
                make(&cloud, floating.clone()).await,
                make(&cloud, floating).await,
            ],
            group: make(&cloud, json!({"name": "g"})).await,
            addresses: make(&cloud, json!({"name": "a"})).await,
            cloud,
            store,
            external,
            subnets,
        };
        for at in [0, 1] {
            world.apply(&world.attach(at)).await;
        }
        world.apply(&world.enable_proxies()).await;
        world.apply(&joined()).await;
        world
    }

    async fn apply(&self, op: &Op) {
        self.cloud
            .write(&caller(), |write| op(write))
            .await
            .unwrap();
    }

    fn update<E: Entity>(&self, entity: &E, body: &Value) -> Op {
        let body = json!({E::RESOURCE.name: body}).to_string();
        let input = parse_update(E::RESOURCE, body.as_bytes(), &caller()).unwrap();
        let id = entity.id().to_string();
        Box::new(move |write| {
            let row = E::find(write.state, &id).unwrap();
            E::update(write, row, &input).map(drop)
        })
    }

    fn delete<E: Entity>(&self, entity: &E) -> Op {
        let id = entity.id().to_string();
        Box::new(move |write| {
            let row = E::find(write.state, &id).unwrap();
            E::delete(write, row)
        })
    }

    fn create<E: Entity>(&self, body: Value) -> Op {
        let inputs = inputs::<E>(body);
        Box::new(move |write| E::create(write, &inputs[0]).map(drop))
    }

    fn named(&self, at: usize) -> Named {
        Named {
            subnet: self.subnets.get(at).map(|s| s.id),
            port: None,
        }
    }

    fn attach(&self, at: usize) -> Op {
        let (id, named) = (self.router.id, self.named(at));
        Box::new(move |write| {
            let row = write.state.layer3.routers.row(&id).unwrap();
            interfaces::add(write, row, named).map(drop)
        })
    }

    fn detach(&self, at: usize) -> Op {
        let (id, named) = (self.router.id, self.named(at));
        Box::new(move |write| {
            let row = write.state.layer3.routers.row(&id).unwrap();
            interfaces::remove(write, row, named).map(drop)
        })
    }

    fn associate(&self, fip: usize) -> Op {
        let body = json!({"port_id": self.ports[0].id});
        self.update(self.floating_ips[fip].as_ref(), &body)
    }

    fn forward(&self, fip: usize, port: usize, from: u16) -> Op {
        let body = json!({"port_forwarding": {"protocol": "tcp", "external_port": from,
            "internal_port": 80, "internal_port_id": self.ports[port].id}});
        let resource = &resources::PORT_FORWARDING;
        let (inputs, _) = parse_create(resource, body.to_string().as_bytes(), &caller()).unwrap();
        let id = self.floating_ips[fip].id;
        Box::new(move |write| {
            let row = write.state.layer3.floating_ips.row(&id).unwrap();
            forwarding::create(write, row, &inputs).map(drop)
        })
    }

    /// As if the external network were in an address scope.
    fn enable_proxies(&self) -> Op {
        let id = self.router.id;
        Box::new(move |write| {
            let row = write.state.layer3.routers.row(&id).unwrap();
            let mut router = row.value.as_ref().clone();
            router.enable_ndp_proxy = true;
            write.replace(router.key(), row.mod_revision, &router)
        })
    }

    fn proxy(&self) -> Op {
        let body = json!({"router_id": self.router.id, "port_id": self.ports[0].id});
        self.create::<NdpProxy>(body)
    }

    fn no_gateway(&self) -> Op {
        let body = json!({"external_gateway_info": null, "enable_ndp_proxy": false});
        self.update(self.router.as_ref(), &body)
    }

    /// On a host that has joined.
    fn translate(&self) -> Op {
        let (id, host) = (self.router.id, host());
        Box::new(move |write| {
            let row = write.state.layer3.routers.row(&id).unwrap();
            gateway::set(write, row, Some(&host))
        })
    }

    /// Loses its IPv4 address, or its IPv6 address.
    fn lose_address(&self, keeps: usize) -> Op {
        let keeps = json!({"subnet_id": self.subnets[keeps].id});
        let body = json!({"fixed_ips": [keeps]});
        self.update(self.ports[0].as_ref(), &body)
    }

    /// Decides both on one state; only the first is committed.
    async fn race(&self, name: &str, first: &Op, second: &Op) {
        let txns = {
            let state = self.cloud.state();
            [first, second].map(|op| {
                let (who, policy) = (caller(), policy());
                let mut write = Write::new(&state, &who, &policy, now());
                if let Err(e) = op(&mut write) {
                    panic!("{name}: {e}");
                }
                write.into_txn().unwrap().unwrap()
            })
        };
        let [first, second] = txns;
        assert!(self.store.txn(first).await.unwrap().succeeded, "{name}");
        let both = self.store.txn(second).await.unwrap().succeeded;
        assert!(!both, "{name}: both are committed");
    }
}

fn host() -> HostId {
    "h1".parse().unwrap()
}

/// A host comes into the cloud.
fn joined() -> Op {
    Box::new(|write| {
        let record = HostRecord {
            id: Uuid::nil(),
            host: host(),
            created_at: write.now,
            description: String::new(),
            admin_state_up: true,
            gateway_mac: None,
            physical_networks: Default::default(),
            gateway: true,
        };
        write.create(keys::host(&host()), &record)
    })
}

type Pair = (&'static str, fn(&World) -> [Op; 2]);

const PAIRS: &[Pair] = &[
    ("associate, detach", |w| [w.associate(0), w.detach(0)]),
    ("associate, no gateway", |w| {
        [w.associate(0), w.no_gateway()]
    }),
    ("associate twice", |w| [w.associate(0), w.associate(1)]),
    ("associate, delete the port", |w| {
        [w.associate(0), w.delete(w.ports[0].as_ref())]
    }),
    ("associate, lose the address", |w| {
        [w.associate(0), w.lose_address(1)]
    }),
    ("associate, forward to the port", |w| {
        [w.associate(0), w.forward(1, 0, 80)]
    }),
    ("associate, forward from the floating IP", |w| {
        [w.associate(0), w.forward(0, 1, 80)]
    }),
    ("associate, delete", |w| {
        [w.associate(0), w.delete(w.floating_ips[0].as_ref())]
    }),
    ("forward, detach", |w| [w.forward(0, 0, 80), w.detach(0)]),
    ("forward, no gateway", |w| {
        [w.forward(0, 0, 80), w.no_gateway()]
    }),
    ("forward from one port twice", |w| {
        [w.forward(0, 0, 80), w.forward(0, 1, 80)]
    }),
    ("forward to one port twice", |w| {
        [w.forward(0, 0, 80), w.forward(1, 0, 81)]
    }),
    ("forward, delete the port", |w| {
        [w.forward(0, 0, 80), w.delete(w.ports[0].as_ref())]
    }),
    ("forward, lose the address", |w| {
        [w.forward(0, 0, 80), w.lose_address(1)]
    }),
    ("proxy, detach", |w| [w.proxy(), w.detach(1)]),
    ("proxy, no gateway", |w| [w.proxy(), w.no_gateway()]),
    ("translate, no gateway", |w| [w.translate(), w.no_gateway()]),
    ("translate twice", |w| [w.translate(), w.translate()]),
    ("proxy twice", |w| [w.proxy(), w.proxy()]),
    ("proxy, delete the port", |w| {
        [w.proxy(), w.delete(w.ports[0].as_ref())]
    }),
    ("proxy, lose the address", |w| {
        [w.proxy(), w.lose_address(0)]
    }),
    ("attach twice", |w| [w.attach(2), w.attach(2)]),
    ("attach, another gateway address", |w| {
        let body = json!({"gateway_ip": null});
        [w.attach(2), w.update(w.subnets[2].as_ref(), &body)]
    }),
    ("attach, delete the subnet", |w| {
        [w.attach(2), w.delete(w.subnets[2].as_ref())]
    }),
    ("a rule, its address group goes", |w| {
        let body = json!({"security_group_id": w.group.id, "direction": "ingress",
            "remote_address_group_id": w.addresses.id});
        [
            w.create::<SecurityGroupRule>(body),
            w.delete(w.addresses.as_ref()),
        ]
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn of_two_requests_that_contradict_each_other_one_is_committed() {
    for (name, pair) in PAIRS {
        for turn in [false, true] {
            let world = World::start().await;
            let [a, b] = pair(&world);
            let (first, second) = if turn { (&b, &a) } else { (&a, &b) };
            let name = format!("{name}{}", if turn { ", turned" } else { "" });
            world.race(&name, first, second).await;
        }
    }
}

/// What keeps a network external, and a router there.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_comes_or_its_network_closes() {
    let pairs: [fn(&World) -> [Op; 2]; 2] = [
        |w| {
            let gateway = json!({"external_gateway_info": {"network_id": w.external.id}});
            let closed = json!({"router:external": false});
            [
                w.create::<Router>(gateway),
                w.update(w.external.as_ref(), &closed),
            ]
        },
        |w| {
            let floating = json!({"floating_network_id": w.external.id});
            let closed = json!({"router:external": false});
            [
                w.create::<FloatingIp>(floating),
                w.update(w.external.as_ref(), &closed),
            ]
        },
    ];
    for pair in pairs {
        for turn in [false, true] {
            let world = World::start().await;
            world.apply(&world.no_interfaces()).await;
            let [a, b] = pair(&world);
            let (first, second) = if turn { (&b, &a) } else { (&a, &b) };
            world.race("close", first, second).await;
        }
    }
}

impl World {
    /// Nothing is on the external network any more.
    fn no_interfaces(&self) -> Op {
        let fips: Vec<Op> = self
            .floating_ips
            .iter()
            .map(|fip| self.delete(fip.as_ref()))
            .collect();
        let gateway = self.no_gateway();
        Box::new(move |write| {
            fips.iter().try_for_each(|delete| delete(write))?;
            gateway(write)
        })
    }
}
