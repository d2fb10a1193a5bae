//! What a change touches of routers, and of the networks that they are on.

use hextet_types::{NetworkId, RouterId};

use super::Step;
use crate::{
    intent::Router,
    plan::{place::Place, router, unit::Unit},
};

impl Step<'_> {
    pub(super) fn router(&mut self, id: RouterId, new: Option<&Router>) {
        let old = self.intent.routers.get(&id);
        if old == new {
            return;
        }
        // Another one may have the namespace before, and another afterwards.
        let sharing: Vec<RouterId> = self.places.routers().sharing(id).collect();
        self.places.routers_mut().set(id, old, new);
        match new {
            Some(_) => drop(self.places.make(Place::Router(id))),
            None => self.places.remove(Place::Router(id)),
        }
        let others = sharing.into_iter().filter(|other| *other != id);
        let others: Vec<(RouterId, &Router)> = others
            .filter_map(|other| Some((other, self.intent.routers.get(&other)?)))
            .collect();
        let itself = [old, new].into_iter().flatten().map(|r| (id, r));
        for (id, router) in itself.chain(others) {
            self.touch_router(id, router);
        }
        if old.is_none() && new.is_none() {
            return;
        }
        self.touched
            .units_of(Place::Router(id))
            .insert(Unit::Router);
    }

    /// All that a router makes, in its place and in those of its networks.
    fn touch_router(&mut self, id: RouterId, router: &Router) {
        self.touched
            .units_of(Place::Router(id))
            .insert(Unit::Router);
        for network in router::networks(router) {
            self.touch_network(network);
        }
    }

    /// What a network's place holds for its routers.
    pub(super) fn touch_network(&mut self, id: NetworkId) {
        let place = self.home(id);
        if place != Place::Main {
            self.touched.units_of(place).insert(Unit::Routers);
        }
    }

    /// All that the routers on a network make, wherever.
    pub(super) fn touch_routers_on(&mut self, network: NetworkId) {
        let routers: Vec<RouterId> = self.places.routers().on(network).collect();
        for id in routers {
            if let Some(router) = self.intent.routers.get(&id) {
                self.touch_router(id, router);
            }
        }
    }
}
