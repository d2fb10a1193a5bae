use std::cell::Cell;

use proptest::prelude::*;

use super::*;

fn host(n: usize) -> HostId {
    format!("h{n:03}").parse().unwrap()
}

fn address(n: usize) -> IpAddr {
    IpAddr::from([10, 0, (n / 256) as u8, (n % 256) as u8])
}

fn hosts(count: usize) -> BTreeMap<HostId, IpAddr> {
    (0..count).map(|n| (host(n), address(n))).collect()
}

fn millis(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

/// Kernels, each with when it answers and how long that takes.
struct World {
    engine: Engine,
    now: Time,
    /// Answers on their way: when, from where, with what.
    answers: Vec<(Time, IpAddr, u64)>,
    changes: Vec<(Time, HostId, bool)>,
    sent: Vec<(Time, IpAddr, u16)>,
}

impl World {
    fn new(seed: u64, count: usize) -> World {
        let mut engine = Engine::new(seed);
        assert!(
            engine
                .handle(Event::Watch(hosts(count)), Time::ZERO)
                .is_empty()
        );
        World {
            engine,
            now: Time::ZERO,
            answers: Vec::new(),
            changes: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// Lets time go on; a probe that is sent at a time is answered after so long, or never.
    fn until(&mut self, end: Time, delay: impl Fn(IpAddr, Time) -> Option<Duration>) {
        loop {
            let answer = self.answers.iter().map(|(at, ..)| *at).min();
            let next = answer.into_iter().chain(self.engine.next_wakeup()).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            let (come, later) = self.answers.drain(..).partition(|(at, ..)| *at <= next);
            self.answers = later;
            let come: Vec<_> = come;
            for (_, from, token) in come {
                self.handle(Event::Answer { from, token }, &delay);
            }
            self.handle(Event::Timer, &delay);
        }
    }

    fn handle(&mut self, event: Event, delay: &impl Fn(IpAddr, Time) -> Option<Duration>) {
        for action in self.engine.handle(event, self.now) {
            match action {
                Action::Send {
                    to,
                    token,
                    sequence,
                } => {
                    self.sent.push((self.now, to, sequence));
                    if let Some(delay) = delay(to, self.now) {
                        self.answers.push((self.now + delay, to, token));
                    }
                }
                Action::Changed { host, answers } => self.changes.push((self.now, host, answers)),
                Action::Refused(host) => panic!("{host} refused"),
            }
        }
    }
}

#[test]
fn a_kernel_that_stops_answering_is_silent_within_four_intervals() {
    let quick = Some(Duration::from_millis(2));
    for seed in 0..50 {
        let mut world = World::new(seed, 3);
        world.until(millis(2_000), |_, _| quick);
        assert_eq!(world.changes.len(), 3, "seed {seed}: each answers");
        world.changes.clear();
        let dead =
            |to, at| quick.filter(|_| to != address(1) || at < millis(2_000) || at > millis(9_000));
        world.until(millis(9_000), dead);
        let (at, who, answers) = world.changes.remove(0);
        assert!(
            world.changes.is_empty() && !answers && who == host(1),
            "seed {seed}"
        );
        let took = at.saturating_since(millis(2_000));
        let least = INTERVAL * 3 / 4 * u32::from(MISSES);
        let most = INTERVAL * (u32::from(MISSES) + 1);
        assert!(took >= least && took <= most, "seed {seed}: {took:?}");
        world.until(millis(9_500), dead);
        assert_eq!(
            world.changes.remove(0).1,
            host(1),
            "seed {seed}: it is back"
        );
        assert!(world.changes.is_empty());
    }
}

#[test]
fn what_never_answers_is_not_called_silent() {
    let mut world = World::new(7, 1);
    world.until(millis(60_000), |_, _| None);
    assert_eq!(world.changes, []);
    assert_eq!(world.engine.known().count(), 0);
}

#[test]
fn two_lost_probes_in_a_row_are_no_silence_nor_is_a_sleep_of_the_driver() {
    let mut world = World::new(3, 1);
    let sent = Cell::new(0);
    world.until(millis(100_000), |_, _| {
        sent.set(sent.get() + 1);
        (sent.get() % u32::from(MISSES) == 1).then_some(Duration::from_millis(1))
    });
    assert_eq!(world.changes.len(), 1, "it answers: {:?}", world.changes);

    let mut engine = Engine::new(1);
    engine.handle(Event::Watch(hosts(1)), Time::ZERO);
    let mut now = Time::ZERO;
    for _ in 0..20 {
        // The driver wakes ten seconds late each time, and finds the answer to the one probe before.
        now += Duration::from_secs(10);
        let actions = engine.handle(Event::Timer, now);
        let [Action::Send { to, token, .. }] = actions.as_slice() else {
            panic!("{actions:?}");
        };
        engine.handle(
            Event::Answer {
                from: *to,
                token: *token,
            },
            now,
        );
    }
    assert_eq!(
        engine
            .known()
            .map(|(_, answers)| answers)
            .collect::<Vec<_>>(),
        [true]
    );
}

#[test]
fn only_its_own_answer_counts() {
    let mut engine = Engine::new(5);
    engine.handle(Event::Watch(hosts(2)), Time::ZERO);
    let mut tokens = BTreeMap::new();
    for action in engine.handle(Event::Timer, millis(300)) {
        if let Action::Send { to, token, .. } = action {
            tokens.insert(to, token);
        }
    }
    let (first, second) = (address(0), address(1));
    for (from, token) in [
        (first, tokens[&second]),
        (second, tokens[&first]),
        (address(9), tokens[&first]),
        (first, tokens[&first] ^ 1),
    ] {
        assert_eq!(
            engine.handle(Event::Answer { from, token }, millis(301)),
            []
        );
    }
    let event = Event::Answer {
        from: first,
        token: tokens[&first],
    };
    assert_eq!(engine.handle(event, millis(302)).len(), 1);
}

#[test]
fn no_more_are_watched_than_there_is_room_for() {
    let mut engine = Engine::new(5);
    let actions = engine.handle(Event::Watch(hosts(MAX_WATCHED + 2)), Time::ZERO);
    assert_eq!(
        actions,
        [
            Action::Refused(host(MAX_WATCHED)),
            Action::Refused(host(MAX_WATCHED + 1))
        ]
    );
    assert_eq!(engine.handle(Event::Timer, millis(300)).len(), MAX_WATCHED);
    assert_eq!(
        engine.handle(Event::Watch(BTreeMap::new()), millis(300)),
        []
    );
    assert_eq!(engine.next_wakeup(), None);
}

#[test]
fn who_moves_is_watched_anew_and_who_stays_is_not() {
    let mut world = World::new(11, 2);
    world.until(millis(1_000), |_, _| Some(Duration::ZERO));
    let mut moved = hosts(2);
    moved.insert(host(1), address(7));
    world.engine.handle(Event::Watch(moved), world.now);
    assert_eq!(world.engine.known().collect::<Vec<_>>(), [(&host(0), true)]);
}

proptest! {
    #[test]
    fn probes_keep_their_rate_whatever_comes(seed: u64, count in 1usize..6, delays in prop::collection::vec(0u64..900, 1..9)) {
        let mut world = World::new(seed, count);
        world.until(millis(10_000), |to, at| {
            let nth = usize::try_from(at.saturating_since(Time::ZERO).as_millis()).unwrap() + usize::from(to == address(0));
            let delay = delays[nth % delays.len()];
            (delay < 700).then(|| Duration::from_millis(delay))
        });
        for n in 0..count {
            let sent: Vec<_> = world.sent.iter().filter(|(_, to, _)| *to == address(n)).collect();
            prop_assert!((33..=45).contains(&sent.len()), "{}", sent.len());
            for pair in sent.windows(2) {
                prop_assert_eq!(pair[0].2 + 1, pair[1].2);
                let gap = pair[1].0.saturating_since(pair[0].0);
                prop_assert!(gap <= INTERVAL && gap >= INTERVAL * 3 / 4, "{gap:?}");
            }
        }
    }
}
