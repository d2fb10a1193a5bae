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
            if let Standing::As(Object::Veth(veth)) = standing
                && veth.peer_netns == *netns
                && links.contains(&veth.peer)
            {
                far.insert((veth.netns.clone(), veth.name.clone()));
            }
            if is_on(key, standing, netns, links) {
                gone.insert(key.clone());
            }
        }
        if !far.is_empty() {
            let stale = self.stale_among(&far);
            let is_far =
                |netns: &Netns, name: &IfName| far.contains(&(netns.clone(), name.clone()));
            for (key, standing) in &self.known {
                let in_stale = match key {
                    Key::Namespace(name) => stale.contains(&Netns::Named(name.clone())),
                    key => stale.contains(key.netns()),
                };
                if in_stale || stands_on(key, standing, is_far) {
                    gone.insert(key.clone());
                }
            }
        }
        for key in &gone {
            self.known.remove(key);
            self.outdate(key);
        }
        self.forget_sources(&gone);
        gone
    }

    /// The namespaces of these links that are no longer there.
    fn stale_among(&mut self, links: &BTreeSet<(Netns, IfName)>) -> BTreeSet<Netns> {
        self.drop_stale_namespaces();
        let namespaces: BTreeSet<&Netns> = links.iter().map(|(netns, _)| netns).collect();
        namespaces
            .into_iter()
            .filter(|netns| matches!(self.namespace(netns), Ok(None)))
            .cloned()
            .collect()
    }
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
        _ => false,
    }
}
