//! How two nodes come to have a tunnel: walks and wishes, grants and refusals.

use hextet_types::Time;

use super::{
    Action, Kind, MAX_TUNNELS, MAX_WALKS, Message, Node, Reach, Reason, Refusal, Stage, Topology,
    Walk, tunnel::Tunnel,
};

/// Wishes that may be open at once.
const MAX_WISHES: usize = 16;

/// A tunnel that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) kind: Kind,
    /// Nobody in particular, for a walk.
    pub(super) to: Option<Node>,
    pub(super) since: Time,
    pub(super) reason: Reason,
    pub(super) replaces: Option<Node>,
}

impl Topology {
    /// Asks a node for a tunnel.
    pub(super) fn ask(&mut self, to: Node, wish: Wish, actions: &mut Vec<Action>) {
        if self.wishes.len() >= MAX_WISHES || self.wishes_for(to) {
            return;
        }
        let nonce = self.new_nonce();
        let (kind, reach) = (wish.kind, self.reach);
        self.wishes.insert(nonce, wish);
        actions.push(Action::Send {
            to,
            message: Message::Ask { kind, reach, nonce },
        });
    }

    /// Sends somebody off to look for a random link.
    pub(super) fn walk(&mut self, public: bool, now: Time, actions: &mut Vec<Action>) {
        let Some(to) = self.next_step(self.me, self.me) else {
            return;
        };
        if self.wishes.len() >= MAX_WISHES {
            return;
        }
        let nonce = self.new_nonce();
        let reason = Reason::Random {
            have: self.random_links(),
            want: self.config.random,
        };
        self.wishes.insert(
            nonce,
            Wish {
                kind: Kind::Random,
                to: None,
                since: now,
                reason,
                replaces: None,
            },
        );
        let walk = Walk {
            origin: self.me,
            reach: self.reach,
            public,
            nonce,
            hops: self.config.hops,
        };
        actions.push(Action::Send {
            to,
            message: Message::Walk(walk),
        });
    }

    fn new_nonce(&mut self) -> u32 {
        loop {
            let nonce = (self.random.next_u64() >> 32) as u32;
            if !self.wishes.contains_key(&nonce) {
                return nonce;
            }
        }
    }

    pub(super) fn wishes_for(&self, node: Node) -> bool {
        self.wishes.values().any(|wish| wish.to == Some(node))
    }

    /// Any random link but the one it came by: they are nearly as many everywhere, so that all nodes are as likely to be a walk's end.
    fn next_step(&mut self, from: Node, origin: Node) -> Option<Node> {
        let links = |of: &dyn Fn(&Tunnel) -> bool| -> Vec<Node> {
            self.tunnels
                .iter()
                .filter(|(node, link)| {
                    link.is_up() && of(link) && **node != from && **node != origin
                })
                .map(|(node, _)| *node)
                .collect()
        };
        let mut steps = links(&Tunnel::is_random);
        if steps.is_empty() {
            steps = links(&|_| true);
        }
        self.random.pick(&steps)
    }

    /// A walk comes by: it ends here, goes on, or has gone far enough.
    pub(super) fn walked(&mut self, from: Node, walk: Walk, now: Time, actions: &mut Vec<Action>) {
        if walk.origin == self.me || !self.may_walk(now) {
            return;
        }
        // Where it can't go on it has gone far enough: a small mesh has many such places.
        let next = self.next_step(from, walk.origin);
        let hops = next.map_or(0, |_| walk.hops.min(self.config.hops));
        let random = self.random_links();
        let room = match hops {
            0 if walk.public || walk.reach == Reach::Closed => random < self.config.max_needed,
            0 => random < self.config.max_random,
            hops if hops <= self.config.hops / 2 => {
                self.granted_links() + self.config.asked < self.config.random
                    && random < self.config.max_random
            }
            _ => false,
        };
        let meets =
            self.meets(walk.origin, walk.reach) && (!walk.public || self.reach == Reach::Public);
        if room && meets && self.is_free(walk.origin) {
            self.grant(
                walk.origin,
                Kind::Random,
                walk.reach,
                walk.nonce,
                now,
                actions,
            );
        } else if let (Some(hops), Some(to)) = (hops.checked_sub(1), next) {
            let message = Message::Walk(Walk { hops, ..walk });
            actions.push(Action::Send { to, message });
        }
    }

    /// A tunnel that an earlier run of this node made goes on as what it was.
    pub(super) fn adopt(
        &mut self,
        node: Node,
        (kind, ours, reach): (Kind, bool, Reach),
        now: Time,
    ) {
        if !self.is_free(node) || node == self.me {
            return;
        }
        let mut tunnel = Tunnel::new(kind, ours, reach, 0, Reason::Adopted { kind });
        tunnel.enter(Stage::Up, now);
        tunnel.settled = now;
        self.tunnels.insert(node, tunnel);
    }

    fn may_walk(&mut self, now: Time) -> bool {
        let (second, count) = &mut self.walks;
        if second.as_nanos() / 1_000_000_000 != now.as_nanos() / 1_000_000_000 {
            (*second, *count) = (now, 0);
        }
        *count += 1;
        *count <= MAX_WALKS
    }

    fn has_room(&self) -> bool {
        self.tunnels.len() < self.config.most.min(MAX_TUNNELS)
    }

    fn is_free(&self, node: Node) -> bool {
        self.has_room() && !self.is_linked(node) && !self.wishes_for(node)
    }

    /// Whether there is a tunnel with it, or none is needed.
    pub(super) fn is_linked(&self, node: Node) -> bool {
        self.tunnels.contains_key(&node) || self.beside.contains(&node)
    }

    /// Whether a tunnel can come up with who says that of itself: or we know better where it is.
    fn meets(&self, node: Node, reach: Reach) -> bool {
        let known = self.candidates.get(node).map(|known| known.reach);
        self.reach.meets(reach) || known == Some(Reach::Public)
    }

    /// Somebody wants a tunnel with us.
    pub(super) fn asked(
        &mut self,
        from: Node,
        kind: Kind,
        reach: Reach,
        nonce: u32,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        if (self.tunnels.get(&from)).is_some_and(|t| !t.ours && t.nonce == nonce) {
            // Our answer was lost.
            let reach = self.reach;
            let message = Message::Grant { nonce, reach };
            actions.push(Action::Send { to: from, message });
            return;
        }
        let refusal = if self.is_linked(from) {
            Some(Refusal::Already)
        } else if self.wishes_for(from) && self.me < from {
            Some(Refusal::Crossed)
        } else if !self.meets(from, reach) {
            Some(Refusal::Unreachable)
        } else if self.is_full_for(kind) {
            Some(Refusal::Full)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let message = Message::Refuse { nonce, refusal };
            actions.push(Action::Send { to: from, message });
            return;
        }
        self.wishes.retain(|_, wish| wish.to != Some(from));
        self.grant(from, kind, reach, nonce, now, actions);
    }

    fn is_full_for(&self, kind: Kind) -> bool {
        let count = |of: fn(&Tunnel) -> bool| self.tunnels.values().filter(|t| of(t)).count();
        !self.has_room()
            || match kind {
                Kind::Entry => count(Tunnel::is_entry) >= self.config.max_entries,
                Kind::Random => true,
                Kind::Near | Kind::Gain => count(Tunnel::is_chosen) >= self.config.max_chosen,
            }
    }

    fn grant(
        &mut self,
        node: Node,
        kind: Kind,
        reach: Reach,
        nonce: u32,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let message = Message::Grant {
            nonce,
            reach: self.reach,
        };
        actions.push(Action::Send { to: node, message });
        let reason = Reason::Granted { kind };
        let tunnel = Tunnel::new(kind, false, reach, nonce, reason);
        self.open(node, tunnel, now, actions);
    }

    fn open(&mut self, node: Node, mut tunnel: Tunnel, now: Time, actions: &mut Vec<Action>) {
        let (ours, reason) = (tunnel.ours, tunnel.reason);
        tunnel.enter(Stage::Opening, now);
        self.tunnels.insert(node, tunnel);
        actions.push(Action::Open { node, ours, reason });
    }

    /// A wish comes true, unless there is a tunnel by now.
    pub(super) fn granted(
        &mut self,
        from: Node,
        nonce: u32,
        reach: Reach,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let wish = self.wishes.get(&nonce);
        let wish = wish
            .filter(|wish| wish.to.is_none_or(|to| to == from))
            .cloned();
        if wish.is_some() {
            self.wishes.remove(&nonce);
        }
        let crossed = self.tunnels.get_mut(&from);
        let Some(wish) = wish else {
            if crossed.is_none() {
                let refusal = Refusal::Late;
                let message = Message::Refuse { nonce, refusal };
                actions.push(Action::Send { to: from, message });
            }
            return;
        };
        if let Some(tunnel) = crossed {
            if self.me < from && !tunnel.ours && tunnel.stage != Stage::Draining {
                (tunnel.kind, tunnel.ours, tunnel.nonce) = (wish.kind, true, nonce);
                (tunnel.reason, tunnel.replaces) = (wish.reason, wish.replaces);
                self.leave_beside(from, now, actions);
            }
            return;
        }
        if self.has_room() {
            let mut tunnel = Tunnel::new(wish.kind, true, reach, nonce, wish.reason);
            tunnel.replaces = wish.replaces;
            self.open(from, tunnel, now, actions);
        }
    }

    /// A wish does not come true, or who was granted a tunnel has changed its mind.
    pub(super) fn refused(
        &mut self,
        from: Node,
        nonce: u32,
        refusal: Refusal,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        if self
            .wishes
            .get(&nonce)
            .is_some_and(|wish| wish.to == Some(from))
        {
            self.wishes.remove(&nonce);
            if let Some(known) = self.candidates.get_mut(from)
                && refusal != Refusal::Crossed
            {
                known.failed(now);
            }
        }
        let unwanted = self.tunnels.get(&from).is_some_and(|tunnel| {
            tunnel.nonce == nonce && !tunnel.ours && tunnel.stage == Stage::Opening
        });
        if unwanted {
            self.tunnels.remove(&from);
            let reason = Reason::Refused(refusal);
            actions.push(Action::Close { node: from, reason });
        }
    }
}
