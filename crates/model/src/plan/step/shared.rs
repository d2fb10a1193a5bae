//! What a change touches of addresses that several may use, of those who may send from more than their own, and of next
//! hops that ports may choose.

use std::{collections::BTreeSet, net::IpAddr};

use hextet_types::{NetworkId, PortId};

use super::Step;
use crate::{
    intent::{Intent, RemotePort},
    plan::{
        index::{Name, Referrer, names_of_remote_port},
        place::{Place, Places},
        unit::Unit,
    },
};

/// The addresses of a network that somebody has besides its own.
pub(super) fn held_on(intent: &Intent, network: NetworkId) -> impl Iterator<Item = IpAddr> + '_ {
    let first = (network, IpAddr::from([0, 0, 0, 0]));
    let held = intent.holders.range(first..);
    let here = held.take_while(move |((of, _), _)| *of == network);
    here.map(|((_, addr), _)| *addr)
}

/// Whether a next hop may be another for one of those that have changed, or one of those may be one; likewise of those
/// who share addresses.
pub(super) fn is_offered(
    places: &Places,
    place: Place,
    id: NetworkId,
    units: &BTreeSet<Unit>,
) -> bool {
    let named = |name: Name| places.get(place).is_some_and(|index| index.is_named(&name));
    let (hops, shares) = (
        named(Name::Carrier) || places.routers().on(id).nth(1).is_some(),
        named(Name::Sharer),
    );
    units.iter().any(|unit| match unit {
        Unit::Port(_) | Unit::Tunnel => hops || shares,
        Unit::Group(_) | Unit::MemberSets(_) | Unit::Member(..) => shares,
        _ => false,
    })
}

impl Step<'_> {
    /// Those that may send from more than their own addresses, of a network that is elsewhere now.
    pub(super) fn move_remote_ports(&mut self, id: NetworkId, from: Place, to: Place) {
        let ports = self.intent.remote_ports.values();
        for port in ports.filter(|p| p.network_id == id) {
            let (none, names) = (BTreeSet::new(), names_of_remote_port(port));
            for (place, names) in [(from, (&names, &none)), (to, (&none, &names))] {
                if place != Place::Main {
                    self.rename(place, Referrer::RemotePort(port.id), names);
                }
            }
        }
    }

    /// A port of a private network on another host.
    pub(super) fn remote_port(&mut self, id: PortId, new: Option<&RemotePort>) {
        let old = self.intent.remote_ports.get(&id);
        if old == new {
            return;
        }
        let mut places = BTreeSet::new();
        for port in [old, new].into_iter().flatten() {
            places.insert(self.home(port.network_id));
        }
        places.remove(&Place::Main);
        for place in places {
            let names = |port: Option<&RemotePort>| {
                let here = port.filter(|p| self.home(p.network_id) == place);
                here.map_or_else(BTreeSet::new, names_of_remote_port)
            };
            let (old, new) = (names(old), names(new));
            self.rename(place, Referrer::RemotePort(id), (&old, &new));
            self.touched.units_of(place).insert(Unit::Routers);
        }
    }

    /// Somebody else says that it has an address that several may use.
    pub(super) fn holder(&mut self, id: NetworkId, addr: IpAddr) {
        let place = self.home(id);
        self.touched.units_of(place).insert(Unit::Address(addr));
    }
}
