//! Two sessions on one virtual clock, over a link that delays, reorders, loses and cuts.
//!
//! Every run comes from a seed, and every failure prints it. The first end is active, the second
//! passive.

use std::{collections::BTreeMap, ops::Range};

use super::*;
use crate::random::Random;

const ENDS: [usize; 2] = [0, 1];

struct Link {
    /// Of a thousand packets.
    loss: u64,
    /// Microseconds; packets overtake each other when it is wide.
    delay: Range<u64>,
    /// Whether what an end sends is lost.
    cut: [bool; 2],
    /// By time of arrival and order of sending: to which end, and the bytes.
    in_flight: BTreeMap<(Time, u64), (usize, Vec<u8>)>,
}

struct Pair {
    seed: u64,
    random: Random,
    now: Time,
    link: Link,
    ends: [Session; 2],
    changes: Vec<(usize, Change)>,
    sent: [Vec<(Time, Packet)>; 2],
}

impl Pair {
    fn new(seed: u64, configs: [Config; 2]) -> Self {
        let [active, passive] = configs;
        let passive = Config {
            role: Role::Passive,
            ..passive
        };
        let mut random = Random::new(seed);
        let link = Link {
            loss: 0,
            delay: 100..900,
            cut: [false; 2],
            in_flight: BTreeMap::new(),
        };
        let ends = [(active, OURS), (passive, PEERS)].map(|(config, discriminator)| {
            Session::new(config, discriminator, random.next_u64(), Time::ZERO)
        });
        let sent = [vec![], vec![]];
        Pair {
            seed,
            random,
            now: Time::ZERO,
            link,
            ends,
            changes: vec![],
            sent,
        }
    }

    /// A pair that is Up with what was negotiated, its past forgotten.
    fn settled(seed: u64, configs: [Config; 2]) -> Self {
        let mut pair = Pair::new(seed, configs);
        pair.settle(SECOND * 4);
        pair
    }

    fn settle(&mut self, limit: Duration) {
        self.run_until(limit, "both are Up and have agreed", |pair| {
            pair.ends
                .iter()
                .all(|end| end.state == State::Up && !end.timing.is_polling())
        });
        self.run_for(SECOND / 2);
        self.changes.clear();
        self.sent = [vec![], vec![]];
    }

    fn chance(&mut self, range: Range<u64>) -> u64 {
        range.start + self.random.next_u64() % (range.end - range.start)
    }

    fn give(&mut self, to: usize, event: Event) {
        let actions = self.ends[to].handle(event, self.now);
        for action in actions {
            match action {
                Action::Changed(change) => self.changes.push((to, change)),
                Action::Send(packet) => {
                    self.sent[to].push((self.now, packet));
                    let lost = self.link.cut[to] || self.chance(0..1000) < self.link.loss;
                    let delay = Duration::from_micros(self.chance(self.link.delay.clone()));
                    if !lost {
                        let order = self.random.next_u64();
                        self.link
                            .in_flight
                            .insert((self.now + delay, order), (1 - to, packet.encode()));
                    }
                }
            }
        }
    }

    /// The next thing that happens, if it does before `end`: all arrivals of a moment, then timers.
    fn step(&mut self, end: Time) -> bool {
        let arrival = self.link.in_flight.keys().next().map(|(at, _)| *at);
        let wakeups = self.ends.iter().filter_map(Session::next_wakeup);
        let next = wakeups.chain(arrival).min().unwrap_or(end).max(self.now);
        if next >= end {
            self.now = end;
            return false;
        }
        self.now = next;
        while let Some(entry) = self.link.in_flight.first_entry()
            && entry.key().0 <= self.now
        {
            let (to, bytes) = entry.remove();
            let packet = Packet::decode(&bytes).expect("our own packets decode");
            let expected = packet.your_discriminator;
            if expected.is_none_or(|yours| yours == self.ends[to].discriminator) {
                self.give(to, Event::Received(packet));
            }
        }
        for end in ENDS {
            if self.ends[end]
                .next_wakeup()
                .is_some_and(|at| at <= self.now)
            {
                self.give(end, Event::Timer);
                let next = self.ends[end].next_wakeup();
                self.check(next.is_none_or(|at| at > self.now), "timers move on");
            }
        }
        true
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
    }

    #[track_caller]
    fn run_until(&mut self, limit: Duration, what: &str, done: impl Fn(&Pair) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            let going_on = self.step(end);
            self.check(going_on, &format!("within {limit:?}: {what}"));
        }
    }

    #[track_caller]
    fn check(&self, holds: bool, what: &str) {
        let states = self.ends.each_ref().map(|end| end.state);
        assert!(
            holds,
            "seed {}, at {}, {states:?}: {what}",
            self.seed, self.now
        );
    }

    /// When and why an end went from Up to Down; it did so exactly once.
    #[track_caller]
    fn only_loss(&self, end: usize) -> Change {
        let losses: Vec<Change> = self
            .changes
            .iter()
            .filter(|(of, change)| *of == end && change.from == State::Up)
            .map(|(_, change)| *change)
            .collect();
        self.check(
            losses.len() == 1,
            &format!("end {end} was lost once: {losses:?}"),
        );
        losses[0]
    }
}

/// Intervals of 10 ms to 300 ms, one to five misses.
fn some_config(random: &mut Random) -> Config {
    let mut below = |n: u64| random.next_u64() % n;
    Config {
        desired_min_tx: millis(10 + below(290)),
        required_min_rx: millis(10 + below(290)),
        detect_mult: mult(1 + below(5) as u8),
        ..Config::default()
    }
}

fn some_configs(seed: u64) -> [Config; 2] {
    let mut random = Random::new(!seed);
    ENDS.map(|_| some_config(&mut random))
}

#[test]
fn they_come_up_with_the_slower_of_what_each_wants() {
    for seed in 0..100 {
        let configs = some_configs(seed);
        let mut pair = Pair::new(seed, configs);
        pair.run_for(Duration::ZERO);
        pair.give(0, Event::Timer);
        pair.check(pair.sent[1].is_empty(), "the passive end waits");
        pair.run_until(SECOND * 2, "both are Up", |pair| {
            pair.ends.iter().all(|end| end.state == State::Up)
        });
        pair.settle(SECOND * 2);
        for end in ENDS {
            let (ours, peers) = (configs[end], configs[1 - end]);
            let status = pair.ends[end].status();
            let agreed = ours
                .desired_min_tx
                .max(peers.required_min_rx)
                .micros()
                .as_duration();
            pair.check(
                status.transmit_interval == agreed,
                "the interval is the slower one",
            );
            let peers_time = pair.ends[1 - end].status().detection_time;
            let expected = agreed * u32::from(ours.detect_mult.get());
            pair.check(
                peers_time == Some(expected),
                "the peer waits for so many of them",
            );
            pair.check(
                pair.ends[end].remote_detection_time() == peers_time,
                "and we know how long it waits",
            );
        }
    }
}

#[test]
fn a_cut_is_detected_in_time_and_mended() {
    for seed in 0..200 {
        let mut pair = Pair::settled(seed, some_configs(seed));
        for _ in 0..3 {
            let wait = pair.chance(0..500_000);
            pair.run_for(Duration::from_micros(wait));
            pair.check(pair.changes.is_empty(), "nothing was lost before the cut");
            let limits = ENDS.map(|end| pair.ends[end].status().detection_time.unwrap());
            let cut = pair.now;
            pair.link.cut = [true; 2];
            pair.run_for(SECOND * 5);
            for end in ENDS {
                let loss = pair.only_loss(end);
                let expired = loss.reason == Reason::DetectionTimeExpired;
                pair.check(expired, "a cut is seen by silence");
                let longest = limits[end] + Duration::from_micros(900);
                pair.check(loss.at - cut <= longest, "within the detection time");
                pair.check(
                    pair.ends[end].status().remote.is_none(),
                    "the peer is forgotten",
                );
            }
            pair.link.cut = [false; 2];
            pair.settle(SECOND * 4);
        }
    }
}

/// The end that hears nothing tells the other; unless it is the passive one, which must fall silent
/// with the discriminator it forgets (RFC 5880 §6.8.1, §6.8.7), and so is missed itself.
#[test]
fn a_cut_of_one_direction_ends_the_session_at_both_ends() {
    for seed in 0..100 {
        let mut pair = Pair::settled(seed, some_configs(seed));
        let [deaf, heard] = if seed % 2 == 0 { [0, 1] } else { [1, 0] };
        let limits = ENDS.map(|end| pair.ends[end].status().detection_time.unwrap());
        let delay = Duration::from_micros(900);
        let cut = pair.now;
        pair.link.cut[heard] = true;
        pair.run_for(SECOND * 10);
        let first = pair.only_loss(deaf);
        pair.check(
            first.reason == Reason::DetectionTimeExpired,
            "the deaf end hears nothing",
        );
        pair.check(first.at - cut <= limits[deaf] + delay, "in time");
        let second = pair.only_loss(heard);
        if deaf == 0 {
            let expired = Diagnostic::CONTROL_DETECTION_TIME_EXPIRED;
            pair.check(
                second.reason == Reason::NeighborDown(expired),
                "the other is told",
            );
            pair.check(second.at - first.at <= delay, "at once");
        } else {
            pair.check(
                second.reason == Reason::DetectionTimeExpired,
                "the other misses it",
            );
            pair.check(second.at - first.at <= limits[heard] + delay, "in time");
        }
        pair.check(
            pair.ends.iter().all(|end| end.state != State::Up),
            "half a path is no path",
        );
        pair.link.cut[heard] = false;
        pair.settle(SECOND * 4);
    }
}

#[test]
fn reordering_and_delay_below_the_detection_time_do_no_harm() {
    for seed in 0..20 {
        let config = Config {
            desired_min_tx: millis(100),
            required_min_rx: millis(100),
            ..Config::default()
        };
        let mut pair = Pair::settled(seed, [config; 2]);
        pair.link.delay = 0..190_000;
        pair.run_for(SECOND * 60);
        pair.check(pair.changes.is_empty(), "nothing was lost");
    }
}

#[test]
fn after_any_storm_they_come_up_again() {
    for seed in 0..50 {
        let mut pair = Pair::new(seed, some_configs(seed));
        pair.link.delay = 0..400_000;
        pair.link.loss = 400;
        for _ in 0..30 {
            pair.run_for(SECOND);
            match pair.chance(0..4) {
                0 => pair.link.cut = [true; 2],
                1 => pair.link.cut = [true, false],
                2 => pair.link.cut = [false, true],
                _ => pair.link.cut = [false; 2],
            }
        }
        pair.link = Link {
            loss: 0,
            delay: 100..900,
            cut: [false; 2],
            ..pair.link
        };
        pair.settle(SECOND * 8);
        pair.run_for(SECOND * 5);
        pair.check(pair.changes.is_empty(), "and stay so");
    }
}

/// The Poll Sequence's purpose: no end sends less often than the other expects, or expects more
/// than the other sends, even if the packet that says so is lost.
#[test]
fn retuning_loses_nothing_even_when_packets_are_lost() {
    for seed in 0..40 {
        let robust = |config| Config {
            detect_mult: mult(8),
            ..config
        };
        let mut pair = Pair::settled(seed, some_configs(seed).map(robust));
        pair.link.loss = 100;
        for _ in 0..30 {
            let end = pair.chance(0..2) as usize;
            let role = pair.ends[end].config.role;
            let config = Config {
                role,
                ..robust(some_config(&mut pair.random))
            };
            pair.give(end, Event::Configure(config));
            let wait = pair.chance(1_000..1_500_000);
            pair.run_for(Duration::from_micros(wait));
            pair.check(pair.changes.is_empty(), "nothing was lost");
        }
        pair.link.loss = 0;
        pair.settle(SECOND);
        for end in ENDS {
            let stated = pair.ends[end].timing.stated();
            pair.check(
                pair.ends[end].timing.in_use() == stated,
                "all came into use",
            );
        }
    }
}

#[test]
fn an_end_that_restarts_is_noticed_by_its_first_packet() {
    for seed in 0..50 {
        let configs = some_configs(seed);
        let mut pair = Pair::settled(seed, configs);
        let fresh = Discriminator::new(0x3333_3333).unwrap();
        pair.ends[0] = Session::new(configs[0], fresh, seed, pair.now);
        pair.give(0, Event::Timer);
        pair.run_for(SECOND / 1000);
        let loss = pair.only_loss(1);
        pair.check(
            loss.reason == Reason::NeighborDown(Diagnostic::NONE),
            "it says Down",
        );
        pair.check(
            loss.verdict() == Some(Verdict::Undecided),
            "its kernel may forward",
        );
        pair.settle(SECOND * 4);
        pair.check(
            pair.ends[1]
                .remote
                .is_some_and(|remote| remote.discriminator == fresh),
            "its new number is learned",
        );
    }
}

#[test]
fn switching_off_is_no_loss_of_the_path() {
    for seed in 0..50 {
        let configs = some_configs(seed);
        let mut pair = Pair::settled(seed, configs);
        pair.give(
            0,
            Event::Configure(Config {
                enabled: false,
                ..configs[0]
            }),
        );
        pair.run_for(SECOND * 10);
        pair.check(
            pair.only_loss(0).verdict() == Some(Verdict::Withdrawn),
            "here",
        );
        pair.check(
            pair.only_loss(1).verdict() == Some(Verdict::Withdrawn),
            "and there",
        );
        pair.check(
            pair.only_loss(1).reason == Reason::NeighborAdminDown,
            "as it was told",
        );
        let states = pair.ends.each_ref().map(|end| end.state);
        pair.check(states == [State::AdminDown, State::Down], "it lasts");
        pair.give(0, Event::Configure(configs[0]));
        pair.settle(SECOND * 4);
    }
}

#[test]
fn periodic_packets_keep_their_jitter() {
    for (detect_mult, most) in [(1, 90), (3, 100)] {
        let config = Config {
            detect_mult: mult(detect_mult),
            ..Config::default()
        };
        let mut pair = Pair::settled(u64::from(detect_mult), [config; 2]);
        pair.run_for(SECOND * 60);
        for end in ENDS {
            let times: Vec<Time> = pair.sent[end].iter().map(|(at, _)| *at).collect();
            let gaps: Vec<u128> = times
                .windows(2)
                .map(|pair| (pair[1] - pair[0]).as_millis() / 2)
                .collect();
            let (least, longest) = (gaps.iter().min(), gaps.iter().max());
            pair.check(gaps.len() > 300, "they are sent");
            pair.check(
                least.is_some_and(|gap| (75..78).contains(gap)),
                "75 % is the least",
            );
            let near = most - 3..most;
            pair.check(
                longest.is_some_and(|gap| near.contains(gap)),
                "and this the most",
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut pair = Pair::new(seed, some_configs(1));
        pair.link.loss = 300;
        pair.run_for(SECOND * 20);
        (pair.changes, pair.sent)
    };
    assert_eq!(run(4), run(4));
    assert_ne!(run(4).1, run(5).1);
}
