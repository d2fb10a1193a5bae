//! What keeps tunnels there: random links, the way in and back, draining.

use std::time::Duration;

use hextet_types::Time;

use super::{
    Action, Config, Kind, Message, Node, Reach, Reason, Stage, Topology, candidate::Candidate,
    linking::Wish, tunnel::Tunnel,
};

/// Nodes that are asked at once by a node without tunnels.
const MAX_ENTRIES: usize = 3;

/// From one attempt to get back to nodes without routes to the next.
pub(super) const REJOIN: Duration = Duration::from_secs(5);

impl Topology {
    /// All that is due.
    pub(super) fn wake(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.woken = now;
        self.expire(now, actions);
        self.enter_or_rejoin(now, actions);
        self.walk_for_links(now, actions);
        self.settle(now, actions);
        self.rounds(now, actions);
    }

    pub(super) fn random_links(&self) -> usize {
        let links = self.tunnels.values();
        links
            .filter(|t| t.is_random() && t.stage != Stage::Draining)
            .count()
    }

    pub(super) fn granted_links(&self) -> usize {
        let links = self.tunnels.values();
        links
            .filter(|tunnel| tunnel.is_random() && !tunnel.ours)
            .count()
    }

    fn public_links(&self) -> usize {
        let links = self.tunnels.values();
        links
            .filter(|t| t.is_random() && t.reach == Reach::Public)
            .count()
    }

    /// Whether random links are missing. Half of them are our own wishes, whoever else wants one with us; others' wishes are waited for a while.
    pub(super) fn lacks_random(&self, now: Time) -> bool {
        let random = self.random_links();
        let own = random.saturating_sub(self.granted_links());
        random < self.config.max_random
            && (own < self.config.asked || random < self.wanted_random(now))
    }

    /// Random links that there shall be: more where there are few tunnels for latency.
    fn wanted_random(&self, now: Time) -> usize {
        let wanted = self.config.random;
        if now.saturating_since(self.born) < self.config.new {
            return wanted;
        }
        let chosen = self
            .tunnels
            .values()
            .filter(|tunnel| tunnel.is_chosen())
            .count();
        let lacking = self.config.least.saturating_sub(chosen);
        wanted.max(lacking).min(self.config.max_random)
    }

    fn walk_for_links(&mut self, now: Time, actions: &mut Vec<Action>) {
        let under_way = self
            .wishes
            .values()
            .filter(|wish| wish.to.is_none())
            .count();
        let random = self.random_links();
        let own = random.saturating_sub(self.granted_links());
        let short = own >= self.config.asked && random < self.wanted_random(now);
        self.short = short.then(|| self.short.unwrap_or(now));
        let waited = |since: Time| now.saturating_since(since) >= self.config.granting;
        let beyond = usize::from(self.short.is_some_and(waited));
        let missing = self.config.asked.saturating_sub(own).max(beyond);
        let missing = missing.min(self.config.max_random.saturating_sub(random));
        let mut public = match self.reach {
            Reach::Public => 0,
            Reach::Punchable | Reach::Closed => {
                self.config.public.saturating_sub(self.public_links())
            }
        };
        for _ in under_way..missing {
            self.walk(public > 0, now, actions);
            self.short = None;
            public = public.saturating_sub(1);
        }
    }

    fn expire(&mut self, now: Time, actions: &mut Vec<Action>) {
        let open = self.config.open;
        let mut silent = Vec::new();
        self.wishes.retain(|_, wish| {
            let stays = now.saturating_since(wish.since) < open;
            if !stays {
                silent.extend(wish.to);
            }
            stays
        });
        let late: Vec<Node> = self
            .tunnels
            .iter()
            .filter(|(_, t)| t.stage == Stage::Opening && now.saturating_since(t.since) >= open)
            .map(|(node, _)| *node)
            .collect();
        for node in late {
            self.tunnels.remove(&node);
            let reason = Reason::TimedOut;
            actions.push(Action::Close { node, reason });
            silent.push(node);
        }
        for node in silent {
            if let Some(known) = self.candidates.get_mut(node) {
                known.failed(now);
            }
        }
    }

    /// Without any tunnel some nodes are asked at once; else nodes without a route one by one, since the mesh may be in pieces.
    fn enter_or_rejoin(&mut self, now: Time, actions: &mut Vec<Action>) {
        let under_way = self
            .wishes
            .values()
            .filter(|w| w.kind == Kind::Entry)
            .count();
        if self
            .tunnels
            .values()
            .all(|tunnel| tunnel.stage == Stage::Opening)
        {
            let mut known: Vec<Node> = self.enterable(now).map(|(node, _)| node).collect();
            self.random.shuffle(&mut known);
            for node in known
                .into_iter()
                .take(MAX_ENTRIES.saturating_sub(under_way))
            {
                self.enter_by(node, Reason::Entry, now, actions);
            }
            return;
        }
        let due = self
            .last_rejoin
            .is_none_or(|last| now.saturating_since(last) >= REJOIN);
        if due
            && under_way == 0
            && let Some(node) = self.lost_candidate(now)
        {
            self.last_rejoin = Some(now);
            self.enter_by(node, Reason::Rejoin, now, actions);
        }
    }

    fn enter_by(&mut self, node: Node, reason: Reason, now: Time, actions: &mut Vec<Action>) {
        let wish = Wish {
            kind: Kind::Entry,
            to: Some(node),
            since: now,
            reason,
            replaces: None,
        };
        self.ask(node, wish, actions);
    }

    /// A node to which no route leads and that might answer.
    fn lost_candidate(&mut self, now: Time) -> Option<Node> {
        let lost: Vec<Node> = self
            .enterable(now)
            .filter(|(_, known)| !known.routed)
            .map(|(node, _)| node)
            .collect();
        self.random.pick(&lost)
    }

    /// Who can be asked without a way through the mesh: only a public node hears it.
    fn enterable(&self, now: Time) -> impl Iterator<Item = (Node, &Candidate)> {
        self.candidates.iter().filter(move |(node, known)| {
            known.reach == Reach::Public && known.may_be_tried(now) && !self.is_linked(*node)
        })
    }

    pub(super) fn up(&mut self, node: Node, now: Time, actions: &mut Vec<Action>) {
        let Some(tunnel) = self.tunnels.get_mut(&node) else {
            return;
        };
        if tunnel.stage != Stage::Opening {
            return;
        }
        tunnel.enter(Stage::Up, now);
        tunnel.settled = now;
        let replaced = tunnel.replaces.take();
        if let Some(known) = self.candidates.get_mut(node) {
            tunnel.round_trips = known.round_trips.clone();
            tunnel.distances = known.distances.take().unwrap_or_default();
            known.answered();
            (known.gainful, known.nearer, known.hinted) = (None, None, false);
        }
        actions.push(Action::Measure { node });
        if !tunnel.ours {
            // Where both granted each other one, the first time was perhaps lost, and nobody would have asked for it.
            let (nonce, reach) = (tunnel.nonce, self.reach);
            let message = Message::Grant { nonce, reach };
            actions.push(Action::Send { to: node, message });
        }
        if let Some(old) = replaced
            && self
                .tunnels
                .get(&old)
                .is_some_and(|old| old.ours && old.is_chosen() && old.is_up())
        {
            self.drain(old, Reason::Replaced { by: node }, now, actions);
        }
        self.leave_beside(node, now, actions);
        self.walk_for_links(now, actions);
    }

    /// [`Event::Beside`](super::Event::Beside).
    pub(super) fn reached(
        &mut self,
        node: Node,
        is_beside: bool,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        if is_beside {
            self.beside.insert(node);
            self.leave_beside(node, now, actions);
        } else if self.beside.remove(&node) {
            self.enter_or_rejoin(now, actions);
        }
    }

    /// Our tunnel with who is reached without.
    pub(super) fn leave_beside(&mut self, node: Node, now: Time, actions: &mut Vec<Action>) {
        let tunnel = self.tunnels.get(&node);
        let is_needless = tunnel.is_some_and(|tunnel| tunnel.ours && tunnel.is_up());
        if is_needless && self.beside.contains(&node) {
            self.drain(node, Reason::Beside, now, actions);
        }
    }

    pub(super) fn down(&mut self, node: Node, now: Time, actions: &mut Vec<Action>) {
        let Some(tunnel) = self.tunnels.remove(&node) else {
            return;
        };
        if tunnel.stage == Stage::Opening
            && let Some(known) = self.candidates.get_mut(node)
        {
            known.failed(now);
        }
        self.enter_or_rejoin(now, actions);
        self.walk_for_links(now, actions);
    }

    fn drain(&mut self, node: Node, reason: Reason, now: Time, actions: &mut Vec<Action>) {
        let Some(tunnel) = self.tunnels.get_mut(&node) else {
            return;
        };
        tunnel.enter(Stage::Draining, now);
        tunnel.reason = reason;
        actions.push(Action::Drain { node, reason });
        actions.push(Action::Send {
            to: node,
            message: Message::Draining,
        });
    }

    /// [`Event::Routes`].
    pub(super) fn routes(&mut self, node: Node, count: usize, actions: &mut Vec<Action>) {
        let Some(tunnel) = self.tunnels.get_mut(&node) else {
            return;
        };
        tunnel.routes = Some(count);
        if tunnel.stage == Stage::Draining && tunnel.ours && count == 0 {
            self.tunnels.remove(&node);
            let reason = Reason::Drained;
            actions.push(Action::Close { node, reason });
        }
    }

    pub(super) fn peer_drains(&mut self, from: Node, now: Time, actions: &mut Vec<Action>) {
        if let Some(tunnel) = self.tunnels.get_mut(&from)
            && tunnel.is_up()
            && !tunnel.ours
        {
            tunnel.enter(Stage::Draining, now);
            tunnel.reason = Reason::PeerDrains;
            let (node, reason) = (from, tunnel.reason);
            actions.push(Action::Drain { node, reason });
        }
    }

    pub(super) fn peer_resumes(&mut self, from: Node, now: Time, actions: &mut Vec<Action>) {
        if let Some(tunnel) = self.tunnels.get_mut(&from)
            && tunnel.stage == Stage::Draining
            && !tunnel.ours
        {
            self.resume(from, Reason::PeerResumes, now, actions);
        }
    }

    fn resume(&mut self, node: Node, reason: Reason, now: Time, actions: &mut Vec<Action>) {
        if let Some(tunnel) = self.tunnels.get_mut(&node) {
            tunnel.enter(Stage::Up, now);
            (tunnel.settled, tunnel.reason) = (now, reason);
            actions.push(Action::Resume { node, reason });
        }
    }

    /// Tunnels that routes do not leave stay; entries go when there are links enough.
    fn settle(&mut self, now: Time, actions: &mut Vec<Action>) {
        let stuck: Vec<(Node, usize, bool)> = self
            .tunnels
            .iter()
            .filter(|(_, tunnel)| tunnel.stage == Stage::Draining)
            .filter(|(_, tunnel)| now.saturating_since(tunnel.since) >= self.patience(tunnel))
            .map(|(node, tunnel)| (*node, tunnel.routes.unwrap_or(0), tunnel.ours))
            .collect();
        for (node, routes, ours) in stuck {
            self.resume(node, Reason::Needed { routes }, now, actions);
            if ours {
                let message = Message::Resumed;
                actions.push(Action::Send { to: node, message });
            }
        }
        self.settle_beside(now, actions);
        let have = self.random_links();
        if have < self.config.random || self.config.random == 0 {
            return;
        }
        let entries: Vec<Node> = self
            .tunnels
            .iter()
            .filter(|(_, t)| t.is_entry() && t.ours && t.is_up())
            .filter(|(_, t)| now.saturating_since(t.settled) >= self.config.min_life)
            .map(|(node, _)| *node)
            .collect();
        for node in entries {
            self.drain(node, Reason::Settled { have }, now, actions);
        }
    }

    /// Tunnels with who is reached without are needless, also those of which each end thinks that the other one asked for it.
    fn settle_beside(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Config { open, min_life, .. } = self.config;
        let mut needless = Vec::new();
        for node in &self.beside {
            let Some(tunnel) = self.tunnels.get_mut(node) else {
                continue;
            };
            let age = now.saturating_since(tunnel.settled);
            let is_granted = matches!(tunnel.reason, Reason::Granted { .. });
            let is_nobodys = is_granted && !tunnel.ours && tunnel.is_up() && age >= open * 2;
            tunnel.ours |= is_nobodys;
            if is_nobodys || age >= min_life {
                needless.push(*node);
            }
        }
        for node in needless {
            self.leave_beside(node, now, actions);
        }
    }

    /// How long a tunnel may drain; the side that closes it decides first.
    fn patience(&self, tunnel: &Tunnel) -> Duration {
        if tunnel.ours {
            self.config.drain
        } else {
            self.config.drain * 2
        }
    }
}
