//! `docs/bgp.md` names a test for each capability: they exist.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{collections::BTreeSet, fs, path::Path};

/// The names of functions in the sources below a directory.
fn functions(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.split("fn ").skip(1);
            found.extend(names.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn every_capability_names_tests_that_exist() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut existing = BTreeSet::new();
    for name in ["agent", "bfd", "bgp", "model"] {
        functions(&crates.join(name), &mut existing);
    }
    let page = fs::read_to_string(crates.parent().unwrap().join("docs/bgp.md")).unwrap();
    let (_, proofs) = page.split_once("how that is proven").unwrap();
    let rows = proofs.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut count = 0;
    for row in rows {
        let columns: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [capability, _standard, tests @ ..] = columns.as_slice() else {
            panic!("{row}");
        };
        let tests = tests.concat();
        let is_name = |text: &&str| text.contains('_');
        let names: Vec<&str> = tests
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(is_name)
            .collect();
        let refers = tests.trim_end().ends_with("the same");
        assert!(!names.is_empty() || refers, "no test for{capability}");
        for name in names {
            assert!(existing.contains(name), "{name}, for{capability}");
            count += 1;
        }
    }
    assert!(count > 60, "the table was not found");
}
