//! Where on a host a part of the cloud lives: routed networks in the host's own namespace, and each private
//! network, and each router, in one of its own.
//!
//! All places are planned alike, each with an index and units of its own, as if it were the only one; what they
//! make is put into the place's namespace afterwards ([`Object::put_into`]). So no two places share an object,
//! and their addresses may overlap.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hextet_types::{IfName, NetworkId, PortId, RouterId};

use super::{
    index::{Index, Name, has_interface},
    router::{self, Routers},
    unit::Ports,
};
use crate::{
    intent::{Intent, RoutingDomain},
    neutron::{Network, NetworkType},
    state::{Namespace, Netns, Object},
};

/// A place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The host's own namespace.
    Main,
    /// A private network's.
    Network(NetworkId),
    /// A router's.
    Router(RouterId),
}

impl Place {
    /// Where a network's ports live; one that is not known (yet) passes no packets, wherever it is.
    pub fn of(network: Option<&Network>) -> Place {
        match network {
            Some(n) if n.network_type == NetworkType::Vxlan => Place::Network(n.id),
            _ => Place::Main,
        }
    }

    /// Which of a remote group's members count here.
    pub fn domain(self) -> RoutingDomain {
        match self {
            // No port lives in a router's place.
            Place::Main | Place::Router(_) => RoutingDomain::Routed,
            Place::Network(id) => RoutingDomain::Network(id),
        }
    }

    /// Its namespace.
    pub fn netns(self) -> Netns {
        match self {
            Place::Main => Netns::Main,
            Place::Network(id) => Netns::Named(namespace(id)),
            Place::Router(id) => Netns::Named(router::namespace(id)),
        }
    }
}

/// A private network's namespace: the last ten hex digits of its identifier tell it from others'.
pub fn namespace(id: NetworkId) -> String {
    let hex = id.0.simple().to_string();
    format!("{}{}", Namespace::PREFIXES[0], &hex[22..])
}

/// The index of each place that stands, whose the interfaces are, and where the routers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    indexes: BTreeMap<Place, Index>,
    interfaces: Interfaces,
    routers: Routers,
}

/// The ports that have an interface; two whose identifiers begin alike would share it, wherever they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces(BTreeMap<IfName, BTreeSet<PortId>>);

impl Interfaces {
    /// Whose it is: of those that would have it, the first.
    pub fn owner(&self, name: &IfName) -> Option<PortId> {
        self.0.get(name)?.first().copied()
    }

    /// A port has an interface or has none; gives whom that concerns.
    pub fn set(&mut self, port: PortId, has: bool) -> BTreeSet<PortId> {
        let name = IfName::for_port(port);
        let sharing = self.0.entry(name.clone()).or_default();
        let changed = match has {
            true => sharing.insert(port),
            false => sharing.remove(&port),
        };
        let concerned = match changed {
            true => sharing.clone(),
            false => BTreeSet::new(),
        };
        if sharing.is_empty() {
            self.0.remove(&name);
        }
        concerned
    }
}

impl Default for Places {
    fn default() -> Self {
        Places {
            indexes: [(Place::Main, Index::default())].into(),
            interfaces: Interfaces::default(),
            routers: Routers::default(),
        }
    }
}

impl Places {
    /// Those of a whole intent.
    pub fn of(intent: &Intent) -> Places {
        let mut places = Places::default();
        for network in intent.networks.values() {
            places.make(Place::of(Some(network)));
        }
        for (id, router) in &intent.routers {
            places.make(Place::Router(*id));
            places.routers.set(*id, None, Some(router));
        }
        for port in intent.ports.values() {
            places.interfaces.set(port.id, has_interface(port));
        }
        for (place, index) in &mut places.indexes {
            *index = Index::of(intent, *place);
        }
        places.claim(intent);
        places
    }

    /// Who answers for which address outside.
    fn claim(&mut self, intent: &Intent) {
        let claims = self.routers.claims_mut();
        let floating = intent.floating_ips.values();
        floating.for_each(|ip| claims.set_floating(None, Some(ip)));
        let forwardings = intent.port_forwardings.values();
        forwardings.for_each(|f| claims.set_forwarding(None, Some(f)));
        for (place, index) in &self.indexes {
            let Place::Network(network) = *place else {
                continue;
            };
            let ports = Ports {
                place: *place,
                intent,
                index,
                interfaces: &self.interfaces,
            };
            for name in index.names() {
                if let Name::Address(addr) | Name::Paired(addr) = name {
                    let lives = ports.with(*addr).is_some();
                    self.routers.claims_mut().set_port(network, *addr, lives);
                }
            }
        }
    }

    /// Whether an address of a private network leads to a port here, which may be new; gives whether it is.
    pub fn look_for_port(&mut self, intent: &Intent, network: NetworkId, addr: IpAddr) -> bool {
        let place = Place::Network(network);
        let lives = self.indexes.get(&place).is_some_and(|index| {
            let ports = Ports {
                place,
                intent,
                index,
                interfaces: &self.interfaces,
            };
            ports.with(addr).is_some()
        });
        self.routers.claims_mut().set_port(network, addr, lives)
    }

    /// A place that stands.
    pub fn get(&self, place: Place) -> Option<&Index> {
        self.indexes.get(&place)
    }

    /// A place that stands.
    pub fn get_mut(&mut self, place: Place) -> Option<&mut Index> {
        self.indexes.get_mut(&place)
    }

    /// A place, which stands from now on.
    pub fn make(&mut self, place: Place) -> &mut Index {
        self.indexes.entry(place).or_default()
    }

    /// Whose the interfaces are.
    pub fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// Whose the interfaces are.
    pub fn interfaces_mut(&mut self) -> &mut Interfaces {
        &mut self.interfaces
    }

    /// Where the routers are.
    pub fn routers(&self) -> &Routers {
        &self.routers
    }

    /// Where the routers are.
    pub fn routers_mut(&mut self) -> &mut Routers {
        &mut self.routers
    }

    /// A place that is empty stands no longer.
    pub fn remove(&mut self, place: Place) {
        self.indexes.remove(&place);
    }

    /// All that stand.
    pub fn all(&self) -> impl Iterator<Item = (Place, &Index)> {
        self.indexes.iter().map(|(place, index)| (*place, index))
    }
}

/// How the names of those ends begin ([`outer_end`]), and of no other links.
pub const OUTER_ENDS: &str = "hxp";

/// The end in the main namespace of a port's pair, when the port is elsewhere.
pub fn outer_end(port: PortId) -> Option<IfName> {
    let text = port.to_string();
    format!("{OUTER_ENDS}{}", text.get(..11)?).parse().ok()
}

/// Likewise, of the port with that interface.
pub fn outer_end_of(link: &IfName) -> Option<IfName> {
    let of_port = link.as_str().strip_prefix(IfName::OF_PORTS)?;
    format!("{OUTER_ENDS}{of_port}").parse().ok()
}

/// Puts what was planned as if for the main namespace into the place's.
pub fn put_into(objects: &mut [Object], place: Place) {
    if place != Place::Main {
        let netns = place.netns();
        objects
            .iter_mut()
            .for_each(|object| object.put_into(&netns));
    }
}
