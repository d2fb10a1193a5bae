//! Rounds: some candidates are measured and asked for their distances, and tunnels are judged by what they say.

use std::collections::BTreeSet;

use hextet_types::Time;

use super::{
    Action, Config, Gain, Kind, Node, Reason, Topology,
    candidate::SAMPLES,
    gain::{self, Distances},
    linking::Wish,
    random::Random,
};

/// Candidates of the last round that are looked at once more, since they may be worth a tunnel.
const PROMISING: usize = 4;

/// Candidates that near nodes have named.
const HINTED: usize = 4;

/// The nearest that are known, which may have become nearer.
const NEAREST: usize = 2;

/// Nothing is nearer by less.
const NEARER: std::time::Duration = std::time::Duration::from_millis(1);

#[derive(Clone, Debug)]
pub(super) struct Round {
    tried: BTreeSet<Node>,
    /// By number.
    destinations: Vec<(Node, f64)>,
    next: Time,
    /// When answers are judged, in a round.
    judged: Option<Time>,
}

impl Round {
    /// At a time by chance, so that nodes that start together don't measure together.
    pub(super) fn first(config: &Config, random: &mut Random, now: Time) -> Self {
        let millis = usize::try_from(config.round.as_millis()).unwrap_or(0);
        let wait = random.below(millis) as u64;
        Round {
            tried: BTreeSet::new(),
            destinations: Vec::new(),
            next: now + std::time::Duration::from_millis(wait),
            judged: None,
        }
    }

    pub(super) fn due(&self) -> Time {
        self.judged.unwrap_or(self.next)
    }

    /// Destinations by which tunnels are judged in this round.
    pub(super) fn asks_for(&self, node: Node) -> bool {
        let found = self
            .destinations
            .binary_search_by_key(&node, |(node, _)| *node);
        found.is_ok()
    }

    pub(super) fn has(&self, node: Node) -> bool {
        self.tried.contains(&node)
    }
}

impl Topology {
    pub(super) fn rounds(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.round.judged.is_some_and(|judged| judged <= now) {
            self.round.judged = None;
            self.judge(now, actions);
        }
        if self.round.judged.is_none() && self.round.next <= now {
            self.begin_round(now, actions);
        }
    }

    fn begin_round(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.round.next = now + self.config.round;
        self.round.judged = Some(now + self.config.patience.min(self.config.round));
        let mut known: Vec<Node> = self
            .candidates
            .iter()
            .filter(|(_, known)| known.routed)
            .map(|(node, _)| node)
            .collect();
        known.extend(
            self.tunnels
                .keys()
                .filter(|node| self.candidates.get(**node).is_none()),
        );
        self.sample
            .renew(&known, self.config.sample, &mut self.random);
        self.round.destinations = self.sample.destinations(self.config.sample);
        for node in &self.round.tried {
            if let Some(known) = self.candidates.get_mut(*node) {
                known.distances = None;
            }
        }
        self.round.tried = self.choose(now);
        let destinations = self.questions();
        for node in &self.round.tried {
            if let Some(known) = self.candidates.get_mut(*node) {
                (known.fresh, known.distances, known.hinted) = (0, None, false);
            }
            actions.push(Action::Measure { node: *node });
        }
        for (node, _) in self.tunnels.iter().filter(|(_, tunnel)| tunnel.is_up()) {
            actions.push(Action::Measure { node: *node });
            actions.push(Action::Question {
                node: *node,
                destinations: destinations.clone(),
            });
        }
    }

    fn questions(&self) -> Vec<Node> {
        self.round
            .destinations
            .iter()
            .map(|(node, _)| *node)
            .collect()
    }

    /// Who is measured: promising ones, those that near nodes named, the nearest, others by chance.
    fn choose(&mut self, now: Time) -> BTreeSet<Node> {
        let mut others: Vec<(Node, bool, bool, Option<std::time::Duration>)> = self
            .candidates
            .iter()
            .filter(|(node, known)| {
                known.routed
                    && known.may_be_tried(now)
                    && self.reach.meets(known.reach)
                    && !self.is_linked(*node)
            })
            .map(|(node, known)| {
                let promising = known.gainful.is_some() || known.nearer.is_some();
                (node, promising, known.hinted, known.round_trips.least())
            })
            .collect();
        self.random.shuffle(&mut others);
        let mut chosen = BTreeSet::new();
        chosen.extend(others.iter().filter(|o| o.1).take(PROMISING).map(|o| o.0));
        chosen.extend(others.iter().filter(|o| o.2).take(HINTED).map(|o| o.0));
        let mut nearest: Vec<_> = others.iter().filter_map(|o| Some((o.3?, o.0))).collect();
        nearest.sort_unstable();
        chosen.extend(nearest.iter().take(NEAREST).map(|(_, node)| *node));
        for (node, ..) in others {
            if chosen.len() >= self.config.tried {
                break;
            }
            chosen.insert(node);
        }
        chosen
    }

    /// A candidate of the round has answered a probe.
    pub(super) fn measured_in_round(&mut self, node: Node, actions: &mut Vec<Action>) {
        if !self.round.has(node) || self.tunnels.contains_key(&node) {
            return;
        }
        let Some(known) = self.candidates.get_mut(node) else {
            return;
        };
        known.fresh += 1;
        if known.fresh < SAMPLES {
            actions.push(Action::Measure { node });
        } else if known.fresh == SAMPLES {
            let destinations = self.questions();
            actions.push(Action::Question { node, destinations });
        }
    }

    /// What the round has shown: which candidates are worth a tunnel, and whether one is asked.
    fn judge(&mut self, now: Time, actions: &mut Vec<Action>) {
        for node in &self.round.tried {
            if let Some(known) = self.candidates.get_mut(*node)
                && known.fresh == 0
            {
                known.failed(now);
            }
        }
        self.near = self.nearest();
        let near = self.judge_near(now);
        let gain = self.judge_gain(now);
        let swapped = |last: Time| now.saturating_since(last) < self.config.swap;
        if self.last_swap.is_some_and(swapped) {
            return;
        }
        if let Some((node, wish)) = near.or(gain) {
            self.last_swap = Some(now);
            self.ask(node, wish, actions);
        }
    }

    /// Own tunnels of a kind, and whether the oldest may be replaced.
    fn own(&self, kind: Kind, now: Time) -> (usize, Vec<Node>) {
        let own = self
            .tunnels
            .iter()
            .filter(|(_, t)| t.ours && t.kind == kind);
        let wished = self
            .wishes
            .values()
            .filter(|wish| wish.kind == kind)
            .count();
        let old = own
            .clone()
            .filter(|(_, t)| t.is_up())
            .filter(|(_, t)| now.saturating_since(t.settled) >= self.config.min_life)
            .map(|(node, _)| *node)
            .collect();
        (own.count() + wished, old)
    }

    fn judge_near(&mut self, now: Time) -> Option<(Node, Wish)> {
        if !self.config.near {
            return None;
        }
        let (count, old) = self.own(Kind::Near, now);
        let ups = self.tunnels.values().filter(|tunnel| tunnel.is_up());
        let before = ups.filter_map(|tunnel| tunnel.round_trips.least()).min();
        let mut best = None;
        for node in &self.round.tried {
            if self.tunnels.contains_key(node) {
                continue;
            }
            let Some(known) = self.candidates.get_mut(*node) else {
                continue;
            };
            let Some(round_trip) = known.round_trips.least().filter(|_| known.fresh >= SAMPLES)
            else {
                continue;
            };
            let nearer = before.is_none_or(|before| {
                before > round_trip + NEARER
                    && round_trip.as_secs_f64() < before.as_secs_f64() * (1.0 - self.config.nearer)
            });
            known.nearer = nearer.then(|| known.nearer.unwrap_or(now));
            let lasting = known
                .nearer
                .is_some_and(|since| now.saturating_since(since) >= self.config.sustained);
            if lasting && best.is_none_or(|(least, _)| round_trip < least) {
                best = Some((round_trip, *node));
            }
        }
        let (round_trip, to) = best?;
        let replaces = match (count, old.first()) {
            (0, _) => None,
            (_, Some(old)) => Some(*old),
            (_, None) => return None,
        };
        let reason = Reason::Near { round_trip, before };
        Some((to, wish(Kind::Near, to, now, reason, replaces)))
    }

    fn judge_gain(&mut self, now: Time) -> Option<(Node, Wish)> {
        let destinations = std::mem::take(&mut self.round.destinations);
        let distances = self.distances(None, &destinations);
        let (count, old) = self.own(Kind::Gain, now);
        let weakest = old
            .into_iter()
            .map(|node| {
                let without = self.distances(Some(node), &destinations);
                (node, gain::lost(&distances, &without, &destinations))
            })
            .min_by(|(_, one), (_, other)| one.share.total_cmp(&other.share));
        let instead = (count >= self.config.gain).then_some(weakest).flatten();
        let blocked = count >= self.config.gain && instead.is_none();
        let config = &self.config;
        let (threshold, share, saved) = match instead {
            None => (Gain::default(), config.free_share, config.free_saved),
            Some((_, loss)) => (loss, config.swap_share, config.swap_saved),
        };
        let mut best: Option<(Gain, Node)> = None;
        for node in &self.round.tried {
            let taken = self.tunnels.contains_key(node);
            let Some(known) = self.candidates.get_mut(*node).filter(|_| !taken) else {
                continue;
            };
            let (Some(round_trip), Some(told)) = (known.round_trips.least(), &known.distances)
            else {
                known.gainful = None;
                continue;
            };
            let gain = gain::of(*node, round_trip, told, &distances, &destinations);
            let worth = gain.is_worth(threshold, share, saved);
            known.gainful = worth.then(|| known.gainful.unwrap_or(now));
            let lasting = known
                .gainful
                .is_some_and(|since| now.saturating_since(since) >= self.config.sustained);
            if lasting && best.is_none_or(|(most, _)| gain.share > most.share) {
                best = Some((gain, *node));
            }
        }
        self.round.destinations = destinations;
        let (gain, to) = best.filter(|_| !blocked)?;
        let reason = Reason::Gain { gain, instead };
        let replaces = instead.map(|(node, _)| node);
        Some((to, wish(Kind::Gain, to, now, reason, replaces)))
    }

    /// Distances from here by the tunnels that there are, but for one.
    fn distances(&self, without: Option<Node>, destinations: &[(Node, f64)]) -> Distances {
        let ways = self
            .tunnels
            .iter()
            .filter(|(node, tunnel)| tunnel.is_up() && Some(**node) != without)
            .filter_map(|(node, t)| Some((*node, t.round_trips.least()?, &t.distances)));
        gain::nearest(ways, destinations)
    }
}

fn wish(kind: Kind, to: Node, now: Time, reason: Reason, replaces: Option<Node>) -> Wish {
    Wish {
        kind,
        to: Some(to),
        since: now,
        reason,
        replaces,
    }
}
