//! What a workload may try against its neighbours, its host and the cloud. Each case is tried against a
//! host as the planner makes it, where it must fail, and against one without the defence that is meant to
//! stop it, where it must succeed.
//!
//! Each case is a test of its own, with the usual arguments (a filter, `--list`, `--test-threads`).
//! `ATTACKS=table` prints them all in a table instead.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "all of this is a test"
)]

mod amplification;
mod case;
mod disguise;
mod errors;
mod ethernet;
mod floods;
mod frames;
mod groups;
mod lifecycle;
mod neighbours;
mod offload;
mod options;
mod projects;
mod reassembly;
mod reflection;
mod responders;
mod rogue;
mod services;
mod sharing;
mod spoofing;
mod translation;
mod world;

use std::{
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use comfy_table::Table;
use hextet_tests::hypervisor::in_own_namespace;
use hextet_types::Family;
use libtest_mimic::{Arguments, Failed, Trial};

use case::{Attack, Outcome};
use world::{Setting, World};

/// Cases at a time: they wait for the kernel more than they compute.
const THREADS: usize = 6;
/// The fewest cases that this suite may have.
const FEWEST: usize = 100;

fn attacks() -> Vec<Attack> {
    let all = [
        spoofing::attacks(),
        neighbours::attacks(),
        rogue::attacks(),
        ethernet::attacks(),
        services::attacks(),
        options::attacks(),
        errors::attacks(),
        groups::attacks(),
        lifecycle::attacks(),
        lifecycle::from_outside(),
        amplification::attacks(),
        floods::attacks(),
        translation::attacks(),
        responders::attacks(),
        offload::attacks(),
        reflection::attacks(),
        frames::attacks(),
        sharing::attacks(),
        reassembly::attacks(),
        projects::attacks(),
    ];
    all.into_iter().flatten().collect()
}

fn main() -> ExitCode {
    let attacks = attacks();
    if std::env::var_os("ATTACKS").is_some_and(|value| value == "table") {
        println!("{}", table(&attacks));
        return ExitCode::SUCCESS;
    }
    let names: std::collections::BTreeSet<_> = attacks.iter().map(Attack::full_name).collect();
    let (count, distinct) = (attacks.len(), names.len());
    let mut trials: Vec<Trial> = attacks.into_iter().map(trial).collect();
    trials.push(Trial::test(
        "suite: at least a hundred cases, each with its own name",
        move || {
            let enough = distinct >= FEWEST && distinct == count;
            enough
                .then_some(())
                .ok_or_else(|| format!("{count}, {distinct} distinct").into())
        },
    ));
    trials.extend(Family::BOTH.map(control));
    trials.extend(Family::BOTH.map(|family| {
        let name = format!("flood: unanswered connections make room for others ({family})");
        let run = floods::unanswered_connections_make_room;
        Trial::test(name, move || run(family).map_err(Failed::from))
    }));
    trials.extend(Family::BOTH.map(|family| {
        let name = format!("ICMP error: the host's come from the gateway ({family})");
        Trial::test(name, move || {
            errors::errors_of_the_host(family).map_err(Failed::from)
        })
    }));
    trials.extend(Family::BOTH.map(|family| {
        let name = format!("flood: whole datagrams in fragments get through ({family})");
        Trial::test(name, move || {
            floods::whole_datagrams_get_through(family).map_err(Failed::from)
        })
    }));
    trials.extend(Family::BOTH.map(|family| {
        let name = format!("ICMP error: those of an end of a flow arrive ({family})");
        Trial::test(name, move || {
            errors::honest_errors_arrive(family).map_err(Failed::from)
        })
    }));
    trials.extend(Family::BOTH.map(|family| {
        let name = format!("virtio: checksums that go to their place are completed ({family})");
        Trial::test(name, move || {
            offload::honest_checksums_are_completed(family).map_err(Failed::from)
        })
    }));
    trials.extend(Family::BOTH.into_iter().flat_map(between_projects));
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(attack: Attack) -> Trial {
    let name = attack.full_name();
    let run = move || attack.run().judge(&attack).map_err(Failed::from);
    Trial::test(name, run)
}

/// An attack that fails proves nothing where an honest packet fails, too.
fn control(family: Family) -> Trial {
    Trial::test(
        format!("suite: honest packets get through ({family})"),
        move || {
            let works = in_own_namespace(|| World::new(Setting::new(), &[]).works(family));
            works.then_some(()).ok_or_else(|| "they do not".into())
        },
    )
}

/// Likewise between projects.
fn between_projects(family: Family) -> [Trial; 2] {
    Family::BOTH.map(|underlay| {
        let name =
            format!("suite: projects' honest packets get through, over {underlay} ({family})");
        Trial::test(name, move || {
            projects::honest_packets_get_through(family, underlay).map_err(Failed::from)
        })
    })
}

fn table(attacks: &[Attack]) -> Table {
    let mut table = Table::new();
    table.set_header(["attack", "family", "defended", "undefended", "without"]);
    for (attack, outcome) in attacks.iter().zip(outcomes(attacks)) {
        let says = |succeeded| if succeeded { "succeeds" } else { "fails" };
        table.add_row([
            format!("{}: {}", attack.group, attack.name),
            attack
                .family
                .map_or_else(|| "–".to_owned(), |family| family.to_string()),
            says(outcome.defended).to_owned(),
            says(outcome.undefended).to_owned(),
            attack.lacks(),
        ]);
    }
    table
}

/// Of each attack, in their order.
fn outcomes(attacks: &[Attack]) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((n, attack)) = pick(&next, attacks) {
            done.push((n, attack.run()));
        }
        done
    };
    let mut all: Vec<(usize, Outcome)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("no attack panics"))
            .collect()
    });
    all.sort_by_key(|(n, _)| *n);
    all.into_iter().map(|(_, outcome)| outcome).collect()
}

fn pick<'a>(next: &AtomicUsize, attacks: &'a [Attack]) -> Option<(usize, &'a Attack)> {
    let n = next.fetch_add(1, Ordering::Relaxed);
    attacks.get(n).map(|attack| (n, attack))
}
