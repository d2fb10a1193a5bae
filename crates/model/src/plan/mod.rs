//! From intent to state, at once or change by change.
//!
//! The state is made of units ([`unit`]), each a pure function of the intent, no two of which make the
//! same thing. [`plan`] computes them all; a [`Planner`] keeps the union and computes again only what a
//! change touches, which never depends on how many ports, members or rules there are besides.
//!
//! Nothing here knows what stands in the kernel: that is the reconciler's business.

mod address;
pub(crate) mod base;
mod config;
mod delegation;
mod expose;
mod flood;
mod group;
pub(crate) mod index;
mod ledger;
mod meter;
mod multicast;
pub(crate) mod names;
mod nat;
pub(crate) mod nft;
mod physical;
mod place;
mod port;
mod profile;
mod qos;
mod report;
mod responder;
mod router;
pub(crate) mod rules;
mod source;
mod step;
mod tunnel;
mod underlay;
mod unit;
mod vrrp;
pub(crate) mod why;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    intent::{Change, Intent, Router, RoutingDomain},
    neutron::{Port, Subnet},
    state::{Changed, HostState, Netns},
};
use hextet_types::{NetworkId, Prefix, RouterId};

pub use address::{
    BLACKHOLE_METRIC, DEFAULT_METRIC, EXTRA_METRIC, GATEWAY_METRIC, OUTSIDE_METRIC, PORT_METRIC,
    REMOTE_METRIC, SOURCE_METRIC,
};
pub use config::{Aggregate, HostConfig};
pub use names::{meter, metered};
pub use place::{namespace, outer_end, outer_end_of};
pub use router::outside::link as outside_link;
pub use rules::{Extent, port_blocks};
pub use tunnel::device as tunnel_device;

use ledger::{Ledger, Part};
use place::{Place, Places};
use step::Touched;
use unit::{Output, Unit, View};

/// Everything that the intent asks of a host with that configuration.
pub fn plan(intent: &Intent, config: &HostConfig) -> HostState {
    let places = Places::of(intent);
    let configs = Configs::of(config);
    let mut ledger = Ledger::default();
    for (place, index) in places.all() {
        let view = View {
            config: configs.of_place(place),
            place,
            intent,
            index,
            interfaces: places.interfaces(),
            routers: places.routers(),
        };
        ledger.replace(compute(view, view.all_units()));
    }
    ledger.state().clone()
}

fn compute(view: View<'_>, units: impl IntoIterator<Item = Unit>) -> Vec<(Part, Output)> {
    let with_output = |unit: Unit| {
        let output = unit.compute(view);
        ((view.place, unit), output)
    };
    units.into_iter().map(with_output).collect()
}

/// The host's configuration, as each kind of place sees it.
#[derive(Clone, Debug)]
struct Configs {
    main: HostConfig,
    inside: HostConfig,
}

impl Configs {
    fn of(config: &HostConfig) -> Configs {
        Configs {
            main: config.clone(),
            inside: config.inside(),
        }
    }

    fn of_place(&self, place: Place) -> &HostConfig {
        match place {
            Place::Main => &self.main,
            Place::Network(_) | Place::Router(_) => &self.inside,
        }
    }
}

/// What is planned for one namespace.
#[derive(Clone, Copy)]
pub struct Realm<'a>(View<'a>);

impl<'a> Realm<'a> {
    /// The port that an address leads to there.
    pub fn port_with(self, addr: IpAddr) -> Option<&'a Port> {
        self.0.port_with(addr)
    }

    /// Among whom an address is its own there.
    pub fn domain(self) -> RoutingDomain {
        self.0.place.domain()
    }

    /// The router whose namespace it is.
    pub fn router(self) -> Option<&'a Router> {
        match self.0.place {
            Place::Router(id) => self.0.intent.routers.get(&id),
            Place::Main | Place::Network(_) => None,
        }
    }

    /// The host's configuration, as it holds there.
    pub fn config(self) -> &'a HostConfig {
        self.0.config
    }
}

/// A host's state, kept equal to what [`plan`] makes of its intent.
#[derive(Clone, Debug)]
pub struct Planner {
    configs: Configs,
    intent: Intent,
    places: Places,
    ledger: Ledger,
    units_computed: u64,
}

impl Planner {
    /// A host that has been told nothing yet: what stands on every host.
    pub fn new(config: HostConfig) -> Planner {
        let mut planner = Planner {
            configs: Configs::of(&config),
            intent: Intent::default(),
            places: Places::default(),
            ledger: Ledger::default(),
            units_computed: 0,
        };
        let always = Unit::always(Place::Main).iter().cloned().collect();
        planner.compute([(Place::Main, always)].into());
        planner
    }

    /// Takes one step.
    pub fn apply(&mut self, change: Change) -> Changed {
        self.apply_all([change])
    }

    /// Takes several steps as one: what they touch is computed once, at the end.
    pub fn apply_all(&mut self, changes: impl IntoIterator<Item = Change>) -> Changed {
        let mut touched = Touched::default();
        for change in changes {
            step::step(&mut self.intent, &mut self.places, change, &mut touched);
        }
        step::settle(&self.intent, &mut self.places, &mut touched);
        let mut changed = self.compute(touched.units);
        changed.cut = touched.cut;
        let recheck = touched.recheck.into_iter();
        changed.recheck = recheck.map(|(place, addr)| (place.netns(), addr)).collect();
        changed
    }

    /// Goes to another intent altogether, by the changes that lead there.
    pub fn replace(&mut self, intent: &Intent) -> Changed {
        let changes = self.intent.changes_to(intent);
        self.apply_all(changes)
    }

    /// As [`Planner::replace`], of an intent that nobody else needs. From none, each part is moved.
    pub fn replace_with(&mut self, intent: Intent) -> Changed {
        if self.intent == Intent::default() {
            return self.apply_all(intent.into_changes());
        }
        self.replace(&intent)
    }

    /// What the intent asks of this host.
    pub fn state(&self) -> &HostState {
        self.ledger.state()
    }

    /// The intent.
    pub fn intent(&self) -> &Intent {
        &self.intent
    }

    /// The prefixes that the cloud routes: those of subnets that are no private network's.
    pub fn inside(&self) -> BTreeSet<Prefix> {
        let networks = &self.intent.networks;
        let is_main = |subnet: &&Subnet| {
            let network = networks.get(&subnet.network_id);
            Place::of(network) == Place::Main
        };
        let subnets = self.intent.subnets.values().filter(is_main);
        subnets.map(|subnet| subnet.cidr).collect()
    }

    /// The configuration.
    pub fn config(&self) -> &HostConfig {
        &self.configs.main
    }

    /// The port that an address leads to, in this host's main namespace.
    pub fn port_with(&self, addr: IpAddr) -> Option<&Port> {
        self.view(Place::Main)?.port_with(addr)
    }

    /// Where a network's ports live.
    pub fn netns_of(&self, network: NetworkId) -> Netns {
        Place::of(self.intent.networks.get(&network)).netns()
    }

    /// Where a router lives; of two that would share a namespace, it is one's: see [`Realm::router`].
    pub fn netns_of_router(&self, router: RouterId) -> Netns {
        Place::Router(router).netns()
    }

    /// What is planned for a namespace; none where nothing is.
    pub fn realm(&self, netns: &Netns) -> Option<Realm<'_>> {
        let mut places = self.places.all().map(|(place, _)| place);
        let place = match netns {
            Netns::Main => Place::Main,
            Netns::Named(_) => places.find(|place| place.netns() == *netns)?,
        };
        self.view(place).map(Realm)
    }

    /// How many units have been computed so far: the work done.
    pub fn units_computed(&self) -> u64 {
        self.units_computed
    }

    fn view(&self, place: Place) -> Option<View<'_>> {
        Some(View {
            config: self.configs.of_place(place),
            place,
            intent: &self.intent,
            index: self.places.get(place)?,
            interfaces: self.places.interfaces(),
            routers: self.places.routers(),
        })
    }

    fn compute(&mut self, units: BTreeMap<Place, BTreeSet<Unit>>) -> Changed {
        let mut outputs = Vec::new();
        for (place, units) in units {
            match self.view(place) {
                Some(view) => outputs.extend(compute(view, units)),
                None => {
                    let nothing = units
                        .into_iter()
                        .map(|unit| ((place, unit), Output::default()));
                    outputs.extend(nothing);
                }
            }
        }
        self.units_computed += outputs.len() as u64;
        self.ledger.replace(outputs)
    }
}
