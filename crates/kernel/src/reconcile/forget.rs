//! Forgetting what stood on links, and in namespaces, that are no longer what they were.

use std::collections::BTreeSet;

use hextet_model::state::{Key, Netns, Object, RouteKind, Veth};
use hextet_types::IfName;

use super::{Kernel, Standing};

impl Kernel {
    /// Forgets what stood on these links, since they are other ones now or were down meanwhile. The keys
    /// are for [`Kernel::reconcile_keys`]. Looks at all that is known, once, or once more where pairs into other
    /// namespaces went with them.
    pub fn forget_links(&mut self, netns: &Netns, links: &BTreeSet<IfName>) -> BTreeSet<Key> {
        if links.is_empty() {
            return BTreeSet::new();
        }
        let mut gone = BTreeSet::new();
        let mut far = BTreeSet::new();
        for (key, standing) in &self.known {
            if let Standing::As(Object::Veth(veth)) = standing {
                far.extend(other_end(veth, netns, links));
            }
            if is_on(key, standing, netns, links) {
                gone.insert(key.clone());
            }
        }
        let mut stale = BTreeSet::new();
        if !far.is_empty() {
            stale = self.stale_among(far.iter().map(|(netns, _)| netns.clone()).collect());
            let is_far =
                |netns: &Netns, name: &IfName| far.contains(&(netns.clone(), name.clone()));
            for (key, standing) in &self.known {
                if is_in(key, &stale) || stands_on(key, standing, is_far) {
                    gone.insert(key.clone());
                }
            }
        }
        self.forget(&gone);
        let maybe = gone.iter().filter(|key| !is_in(key, &stale));
        self.doubtful.extend(maybe.cloned());
        gone
    }

    /// Forgets what stood in those of these namespaces that are no longer there, and what joined them with others.
    /// The keys are for [`Kernel::reconcile_keys`]. Looks at all that is known, once.
    pub fn forget_namespaces(&mut self, namespaces: BTreeSet<Netns>) -> BTreeSet<Key> {
        let stale = self.stale_among(namespaces);
        if stale.is_empty() {
            return BTreeSet::new();
        }
        let mut gone = BTreeSet::new();
        for (key, standing) in &self.known {
            let joins = match standing {
                Standing::As(Object::Veth(veth)) => stale.contains(&veth.peer_netns),
                Standing::As(Object::Patch(patch)) => stale.contains(&patch.netns),
                _ => false,
            };
            if joins || is_in(key, &stale) {
                gone.insert(key.clone());
            }
        }
        self.forget(&gone);
        gone
    }

    fn forget(&mut self, gone: &BTreeSet<Key>) {
        for key in gone {
            self.known.remove(key);
            self.outdate(key);
        }
        self.forget_sources(gone);
        self.forget_audiences(gone);
    }

    /// Those of these namespaces that are no longer there.
    fn stale_among(&mut self, mut namespaces: BTreeSet<Netns>) -> BTreeSet<Netns> {
        self.drop_stale_namespaces();
        namespaces
            .retain(|netns| *netns != Netns::Main && matches!(self.namespace(netns), Ok(None)));
        namespaces
    }
}

fn is_in(key: &Key, namespaces: &BTreeSet<Netns>) -> bool {
    match key {
        Key::Namespace(name) => namespaces.contains(&Netns::Named(name.clone())),
        key => namespaces.contains(key.netns()),
    }
}

/// The other end of a pair that has one of these as an end, where that is in another namespace.
fn other_end(veth: &Veth, netns: &Netns, links: &BTreeSet<IfName>) -> Option<(Netns, IfName)> {
    let ends = [(&veth.netns, &veth.name), (&veth.peer_netns, &veth.peer)];
    let [first, second] = ends;
    let is_one = |(of, name): (&Netns, &IfName)| of == netns && links.contains(name);
    let (_, (of, name)) = [(first, second), (second, first)]
        .into_iter()
        .find(|(one, _)| is_one(*one))?;
    (of != netns).then(|| (of.clone(), name.clone()))
}

fn is_on(key: &Key, standing: &Standing, netns: &Netns, links: &BTreeSet<IfName>) -> bool {
    let patched = matches!(standing, Standing::As(Object::Patch(patch))
        if *netns == Netns::Main && links.contains(&patch.outer));
    let paired = matches!(standing, Standing::As(Object::Veth(Veth { peer_netns, peer, .. }))
        if peer_netns == netns && links.contains(peer));
    patched || paired || stands_on(key, standing, |n, link| n == netns && links.contains(link))
}

fn stands_on(key: &Key, standing: &Standing, is: impl Fn(&Netns, &IfName) -> bool) -> bool {
    if key.link().is_some_and(|(netns, link)| is(netns, link)) {
        return true;
    }
    match standing {
        Standing::As(Object::Route(route)) => match &route.kind {
            RouteKind::Unicast(hops) => hops.iter().any(|hop| is(&route.key.netns, &hop.link)),
            RouteKind::Blackhole | RouteKind::Throw => false,
        },
        Standing::As(Object::Receiver(receiver)) => is(&receiver.netns, &receiver.to),
        _ => false,
    }
}
