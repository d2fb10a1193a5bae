//! Fifty worlds in which the kernel does what explanations say.

use hextet_worlds::{
    fault::{FAULTS, project, survivors},
    run,
    suite::{PACKETS, PACKETS_OF_PROJECTS, WORLDS, run_projects, run_worlds},
    tenant,
};

#[test]
fn fifty_worlds_without_a_disagreement() {
    let (coverage, found) = run_worlds(1, WORLDS, PACKETS);
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}", found.join("\n\n"));
    assert_eq!(coverage.worlds, WORLDS);
    let missing = coverage.shortcomings();
    assert!(missing.is_empty(), "met too rarely: {missing:?}");
}

#[test]
fn fifty_worlds_of_projects_without_a_disagreement() {
    let (met, found) = run_projects(1, WORLDS, PACKETS_OF_PROJECTS);
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}", found.join("\n\n"));
    assert_eq!(met.worlds, WORLDS);
    let missing = met.shortcomings();
    assert!(missing.is_empty(), "met too rarely: {missing:?}");
}

#[test]
fn every_planted_fault_is_noticed() {
    assert!(FAULTS.len() >= 20);
    let survivors = survivors::<run::World>(FAULTS, 1, 12, 200);
    assert!(survivors.is_empty(), "nobody notices: {survivors:#?}");
}

/// So many in one test: it is on the kernel's time, not on the processor's.
const AT_ONCE: usize = 14;

fn is_noticed(part: usize) {
    assert!(project::FAULTS.len() >= 20 && project::FAULTS.len() <= 3 * AT_ONCE);
    let faults = project::FAULTS
        .chunks(AT_ONCE)
        .nth(part)
        .unwrap_or_default();
    assert!(!faults.is_empty());
    let survivors = survivors::<tenant::run::World>(faults, 1, 16, 150);
    assert!(survivors.is_empty(), "nobody notices: {survivors:#?}");
}

#[test]
fn every_fault_that_is_planted_in_projects_is_noticed() {
    is_noticed(0);
}

#[test]
fn also_the_second_part_of_faults_in_projects() {
    is_noticed(1);
}

#[test]
fn also_the_third_part_of_faults_in_projects() {
    is_noticed(2);
}
