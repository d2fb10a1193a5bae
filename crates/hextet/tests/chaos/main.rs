//! `kill -9` at any moment: a real server and a real agent, of which now one and now the other is killed
//! while somebody changes the cloud without a pause. What must hold: workloads that nobody touches lose
//! not one packet, what is closed stays closed, and in the end host and cloud are what a fresh start would
//! have made of them.
//!
//! `CHAOS_SEED` repeats a run, as far as its decisions go; `CHAOS_ROUNDS` makes it longer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../cloud/client.rs"]
mod client;
mod host;
mod kernel;
mod operator;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use hextet_lab::{PingStream, wait_until};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use client::Client;
use host::{Host, Program};
use operator::{Foundation, Operator};

/// How often somebody is killed.
const ROUNDS: usize = 40;
/// No more rounds after that, however slow the machine is.
const LONG_ENOUGH: Duration = Duration::from_secs(75);
/// How long host and cloud may take to agree once nobody disturbs them.
const SETTLING: Duration = Duration::from_secs(60);
/// Between two pings of a flow.
const INTERVAL: Duration = Duration::from_millis(20);

#[test]
fn nothing_is_lost_or_left_over_when_programs_are_killed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("CHAOS_SEED").unwrap_or_else(|| rand::rng().random::<u64>() >> 32);
    let rounds = number("CHAOS_ROUNDS").map_or(ROUNDS, |n| usize::try_from(n).unwrap());
    println!("CHAOS_SEED={seed}");

    let mut host = Host::up();
    let foundation = Foundation::lay(&host.client());
    let flows = Flows::start(&host, &foundation);
    let (killed, changes) = kill_and_change(&mut host, &foundation, seed, rounds);
    println!("{killed} kills, {changes} changes");
    host.plug_the_rest();
    settle(&mut host);
    flows.finish();

    let before = kernel::snapshot(&host);
    host.kill(Program::Agent);
    host.leave();
    let left = kernel::left_over(&host);
    assert_eq!(left, Vec::<String>::new(), "left over, seed {seed}");
    host.start(Program::Agent);
    settle(&mut host);
    let fresh = kernel::snapshot(&host);
    kernel::assert_same(&before, &fresh);
    assert!(killed >= rounds.min(30), "only {killed} kills, seed {seed}");
}

/// Kills and restarts, while another thread changes the cloud; gives how often each.
fn kill_and_change(
    host: &mut Host,
    foundation: &Foundation,
    seed: u64,
    rounds: usize,
) -> (usize, usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    let over = AtomicBool::new(false);
    let operator = Operator::new(host.parts(), foundation, rng.random());
    thread::scope(|scope| {
        let changing = scope.spawn(|| operator.run(&over));
        let over = Over(&over);
        let begin = Instant::now();
        let mut killed = 0;
        while killed < rounds && begin.elapsed() < LONG_ENOUGH {
            // Half of them while it starts, or just has.
            let longest = if rng.random() { 250 } else { 2_500 };
            thread::sleep(Duration::from_millis(rng.random_range(0..longest)));
            let programs: &[Program] = match rng.random_range(0..10) {
                0..6 => &[Program::Agent],
                6..9 => &[Program::Server],
                _ => &[Program::Agent, Program::Server],
            };
            programs.iter().for_each(|program| host.kill(*program));
            programs.iter().for_each(|program| host.start(*program));
            killed += 1;
        }
        drop(over);
        (killed, changing.join().unwrap())
    })
}

/// Ends the changes, also when the one who kills gives up.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until the host has heard all of the cloud, and nothing is left to write.
fn settle(host: &mut Host) {
    let mut last = String::new();
    let settled = wait_until(SETTLING, || match host.agrees() {
        Ok(()) => true,
        Err(why) => {
            last = format!("{why:#}");
            false
        }
    });
    assert!(settled, "after {SETTLING:?}: {last}\n{}", host.last_words());
}

/// Pings that must all be answered, and such that never may be.
struct Flows {
    open: Vec<(String, PingStream)>,
    closed: Vec<(String, PingStream)>,
}

impl Flows {
    fn start(host: &Host, foundation: &Foundation) -> Flows {
        let [a, b, closed] = &foundation.workloads;
        for workload in &foundation.workloads {
            host.plug(workload);
        }
        // Before that, ping ends at once: the kernel tells of carriers in its own time.
        for (from, to) in [(a, b), (b, a)] {
            for address in &to.addresses {
                let node = host.node(from.place);
                let reaches = || {
                    node.ping(&address.to_string())
                        .is_ok_and(|answered| answered)
                };
                let up = wait_until(Duration::from_secs(10), reaches);
                assert!(
                    up,
                    "{} does not reach {address}\n{}",
                    from.place,
                    host.last_words()
                );
            }
        }
        let flow = |from: &operator::Workload, to: &operator::Workload| {
            let streams = to.addresses.iter().map(|address| {
                let address = address.to_string();
                let name = format!("{}-to-{address}", from.place);
                let node = host.node(from.place);
                let stream = host.lab().ping_stream(&node, &name, &address, INTERVAL);
                (name, stream.expect("ping starts"))
            });
            streams.collect::<Vec<_>>()
        };
        let open: Vec<_> = [flow(a, b), flow(b, a)].into_iter().flatten().collect();
        let closed = flow(a, closed);
        Flows { open, closed }
    }

    fn finish(self) {
        for (name, stream) in self.open {
            let report = stream.finish().expect("it ran");
            println!("{name}: {report:?}");
            assert!(report.sent > 100, "{name}: {report:?}");
            assert_eq!(report.lost(), 0, "{name}: {report:?}");
        }
        for (name, stream) in self.closed {
            assert_eq!(stream.received(), 0, "{name} is closed");
            let report = stream.finish().expect("it ran");
            assert!(report.sent > 100, "{name}: {report:?}");
        }
    }
}

/// Used by all that talk with the server.
fn client_of(place: &hextet_lab::Node, clouds_yaml: &std::path::Path) -> anyhow::Result<Client> {
    Client::login(place, clouds_yaml)
}
