//! `cargo xtask test`: all that CI runs, in order, with one closing line.
//!
//! Every step runs even when one before it failed, so that one run tells everything. A step's output is
//! shown only when it fails, and then whole. The last line on standard output is `N passed, N failed`;
//! a step that fails without having run a test counts as one failure.

mod tally;

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    packages, tidy,
    workspace::{Workspace, on_path},
};
use tally::Tally;

const DENY_VERSION: &str = "0.20.2";

/// Packages outside `tests/` whose tests bring up labs.
const LAB_PACKAGES: &[&str] = &["hextet-lab", "hextet-demo"];

/// `cargo xtask test`.
#[derive(Debug, Args)]
pub struct Test {
    /// Run only the tests whose names contain this, and none of the checks; labs then use the program
    /// that was built last.
    filter: Option<String>,
}

/// What a step left behind.
struct Outcome {
    ok: bool,
    output: String,
    tally: Tally,
}

impl Test {
    /// Runs every step and prints the sum.
    pub fn run(&self, workspace: &Workspace) -> Result<ExitCode> {
        packages::ensure(&[packages::BUILD, packages::LAB, packages::INTEROP])?;
        let mut total = Tally::default();
        if self.filter.is_none() {
            let checks: [(&str, Step); 4] = [
                ("formatting", &|| formatting(workspace)),
                ("lints", &|| lints(workspace)),
                ("tidy", &|| tidy_step(workspace)),
                ("dependencies", &|| dependencies(workspace)),
            ];
            for (name, check) in checks {
                total += step(name, check)?;
            }
            total += step("the program, as released", &|| cargo(workspace, PROGRAM))?;
        }
        let labs = lab_packages(&workspace.root)?;
        let filter = self.filter.as_deref();
        total += step("unit and property tests", &|| {
            unit_tests(workspace, &labs, filter)
        })?;
        total += step("documentation tests", &|| doc_tests(workspace, filter))?;
        total += step("labs and interoperation", &|| {
            lab_tests(workspace, &labs, filter)
        })?;
        println!("{total}");
        Ok(if total.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

type Step<'a> = &'a dyn Fn() -> Result<Outcome>;

const FORMATTING: &[&str] = &["fmt", "--all", "--check", "--", "--color=never"];
const FUZZ_FORMATTING: &[&str] = &[
    "fmt",
    "--manifest-path",
    FUZZ_MANIFEST,
    "--check",
    "--",
    "--color=never",
];
const LINTS: &[&str] = &[
    "clippy",
    "--workspace",
    "--all-targets",
    "--locked",
    "--",
    "-D",
    "warnings",
];
const FUZZ_MANIFEST: &str = "fuzz/Cargo.toml";
const FUZZ_LINTS: &[&str] = &[
    "clippy",
    "--manifest-path",
    FUZZ_MANIFEST,
    "--bins",
    "--locked",
    "--",
    "-D",
    "warnings",
];
const PROGRAM: &[&str] = &["build", "--release", "--locked", "-p", "hextet"];

fn step(name: &str, run: Step) -> Result<Tally> {
    println!("==> {name}");
    let start = Instant::now();
    let outcome = run()?;
    let seconds = start.elapsed().as_secs_f64();
    let mut tally = outcome.tally;
    if outcome.ok {
        println!("    ok in {seconds:.1} s{}", tally.remark());
    } else {
        tally.failed = tally.failed.max(1);
        println!(
            "{}\n    {name}: FAILED after {seconds:.1} s{}",
            outcome.output,
            tally.remark()
        );
    }
    Ok(tally)
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Result<Outcome> {
    capture(workspace.cargo().args(arguments))
}

fn formatting(workspace: &Workspace) -> Result<Outcome> {
    both(cargo(workspace, FORMATTING)?, || {
        cargo(workspace, FUZZ_FORMATTING)
    })
}

fn lints(workspace: &Workspace) -> Result<Outcome> {
    both(cargo(workspace, LINTS)?, || cargo(workspace, FUZZ_LINTS))
}

/// The same question to the workspace and to the fuzz targets, which stand outside.
fn both(first: Outcome, second: impl Fn() -> Result<Outcome>) -> Result<Outcome> {
    let second = second()?;
    Ok(Outcome {
        ok: first.ok && second.ok,
        output: first.output + &second.output,
        tally: Tally::default(),
    })
}

/// Runs to the end; the output is what both streams said, standard error last.
fn capture(command: &mut Command) -> Result<Outcome> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .env("CARGO_TERM_COLOR", "never")
        .env("NO_COLOR", "1")
        .output()
        .with_context(|| format!("run {program}"))?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(Outcome {
        ok: output.status.success(),
        tally: Tally::read(&text),
        output: text,
    })
}

fn tidy_step(workspace: &Workspace) -> Result<Outcome> {
    let findings = tidy::check(&workspace.root)?;
    let output: String = findings
        .iter()
        .map(|finding| format!("{finding}\n"))
        .collect();
    Ok(Outcome {
        ok: findings.is_empty(),
        output,
        tally: Tally::default(),
    })
}

/// Licences, duplicates and sources always; advisories where their database already is on this machine,
/// since the tests of a commit must not depend on what was published this morning.
fn dependencies(workspace: &Workspace) -> Result<Outcome> {
    let deny = workspace.install_tool("cargo-deny", DENY_VERSION)?;
    let check = |arguments: &[&str]| {
        let mut command = Command::new(&deny);
        command
            .current_dir(&workspace.root)
            .args(["--locked", "--color=never"]);
        capture(command.args(arguments))
    };
    let first = check(&["check", "bans", "licenses", "sources"])?;
    if advisory_database().is_none() {
        return Ok(first);
    }
    both(first, || check(&["--offline", "check", "advisories"]))
}

fn advisory_database() -> Option<std::path::PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(std::path::PathBuf::from)
        .or_else(|| Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let entries = fs::read_dir(home.join("advisory-dbs")).ok()?;
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.find(|path| path.join(".git").exists())
}

/// The packages whose tests bring up labs: `tests`, those under it, and a few of `crates`.
fn lab_packages(root: &Path) -> Result<Vec<String>> {
    let mut packages = Vec::new();
    packages.extend(package_in(&root.join("tests"))?);
    for (directory, only) in [("tests", None), ("crates", Some(LAB_PACKAGES))] {
        for entry in fs::read_dir(root.join(directory)).into_iter().flatten() {
            let path = entry.context("read a directory entry")?.path();
            let name = package_in(&path)?;
            packages
                .extend(name.filter(|name| only.is_none_or(|only| only.contains(&name.as_str()))));
        }
    }
    packages.sort();
    Ok(packages)
}

fn package_in(directory: &Path) -> Result<Option<String>> {
    let manifest = directory.join("Cargo.toml");
    let Ok(text) = fs::read_to_string(&manifest) else {
        return Ok(None);
    };
    tidy::manifest::package_name(&text)
        .map(Some)
        .with_context(|| format!("find the package's name in {}", manifest.display()))
}

fn unit_tests(workspace: &Workspace, labs: &[String], filter: Option<&str>) -> Result<Outcome> {
    let mut command = test_command(workspace);
    command.arg("--workspace");
    for package in labs {
        command.args(["--exclude", package]);
    }
    capture(command.args(filter))
}

/// nextest runs what measures alone (`.config/nextest.toml`); plain cargo can't tell such tests from
/// others, so it runs one at a time.
fn lab_tests(workspace: &Workspace, labs: &[String], filter: Option<&str>) -> Result<Outcome> {
    if labs.is_empty() {
        return Ok(Outcome {
            ok: true,
            output: String::new(),
            tally: Tally::default(),
        });
    }
    let mut command = test_command(workspace);
    for package in labs {
        command.args(["-p", package]);
    }
    command.env("HEXTET_BIN", workspace.target.join("release/hextet"));
    command.args(filter);
    if !has_nextest() {
        command.args(["--", "--test-threads=1"]);
    }
    capture(&mut command)
}

fn doc_tests(workspace: &Workspace, filter: Option<&str>) -> Result<Outcome> {
    capture(
        workspace
            .cargo()
            .args(["test", "--quiet", "--workspace", "--doc"])
            .args(filter),
    )
}

fn has_nextest() -> bool {
    on_path("cargo-nextest").is_some()
}

fn test_command(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo();
    if has_nextest() {
        command.args([
            "nextest",
            "run",
            "--locked",
            "--no-fail-fast",
            "--no-tests=pass",
        ]);
        command.args(["--status-level=fail", "--final-status-level=fail"]);
    } else {
        command.args([
            "test",
            "--locked",
            "--no-fail-fast",
            "--lib",
            "--bins",
            "--tests",
        ]);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lab_packages_are_those_under_tests_and_a_few_more() {
        let root = std::env::temp_dir().join(format!("xtask-labs-{}", std::process::id()));
        for (dir, name) in [
            ("tests", "attacks"),
            ("tests/interop", "interop"),
            ("crates/lab", "hextet-lab"),
            ("crates/bgp", "hextet-bgp"),
        ] {
            fs::create_dir_all(root.join(dir)).unwrap();
            fs::write(
                root.join(dir).join("Cargo.toml"),
                format!("[package]\nname = \"{name}\"\n"),
            )
            .unwrap();
        }
        assert_eq!(
            lab_packages(&root).unwrap(),
            ["attacks", "hextet-lab", "interop"]
        );
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_failed_step_counts_even_without_tests() {
        let failed = || {
            Ok(Outcome {
                ok: false,
                output: String::new(),
                tally: Tally::default(),
            })
        };
        assert_eq!(
            step("x", &failed).unwrap(),
            Tally {
                passed: 0,
                failed: 1
            }
        );
        let fine = || {
            Ok(Outcome {
                ok: true,
                output: String::new(),
                tally: Tally {
                    passed: 3,
                    failed: 0,
                },
            })
        };
        assert_eq!(
            step("x", &fine).unwrap(),
            Tally {
                passed: 3,
                failed: 0
            }
        );
    }
}
