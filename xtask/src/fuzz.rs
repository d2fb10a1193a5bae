//! `cargo xtask fuzz`: every target for a while, with bounded memory.
//!
//! Targets are the files in `fuzz/fuzz_targets`. They are built on stable Rust with LLVM's coverage pass
//! switched on by hand, which is what `cargo fuzz` does on nightly, without the address sanitizer: what is
//! fuzzed here is safe Rust, where a fault shows as a panic. What was learned stays in the cache directory
//! and is where the next run starts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Mutex,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    packages,
    workspace::{Workspace, exit_code},
};

/// `cargo xtask fuzz`.
#[derive(Debug, Args)]
pub struct Fuzz {
    /// Only the targets whose names contain this.
    target: Option<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
const MEMORY_MIB: u32 = 2048;
const ONE_ALLOCATION_MIB: u32 = 256;
const ONE_INPUT_SECS: u32 = 10;
const LONGEST_INPUT: u32 = 1 << 16;

const COVERAGE: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// What a target's run gave.
#[derive(Clone, Debug)]
struct Report {
    target: String,
    ok: bool,
    seconds: f64,
    statistics: Statistics,
    output: String,
}

/// libFuzzer's figures at the end of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Statistics {
    inputs: u64,
    edges: u64,
    peak_mib: u64,
}

impl Fuzz {
    /// Builds all targets, runs them, prints a table; fails when one found a fault.
    pub fn run(&self, workspace: &Workspace) -> Result<ExitCode> {
        packages::ensure(&[packages::BUILD])?;
        let targets = self.targets(&workspace.root)?;
        let build = workspace.target.join("fuzz");
        let built = workspace
            .cargo()
            .current_dir(workspace.root.join("fuzz"))
            .env("CARGO_TARGET_DIR", &build)
            .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"))
            .args([
                "build",
                "--release",
                "--locked",
                "--bins",
                "--target",
                TRIPLE,
            ])
            .status()
            .context("run cargo build for the fuzz targets")?;
        if !built.success() {
            return Ok(exit_code(built));
        }
        let programs = build.join(TRIPLE).join("release");
        let reports = self.run_all(workspace, &programs, targets)?;
        for report in reports.iter().filter(|report| !report.ok) {
            println!("==> {}\n{}", report.target, report.output);
        }
        print!("{}", table(&reports));
        let failed = reports.iter().filter(|report| !report.ok).count();
        println!("{} passed, {failed} failed", reports.len() - failed);
        Ok(if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn targets(&self, root: &Path) -> Result<Vec<String>> {
        let directory = root.join("fuzz/fuzz_targets");
        let all = targets_in(&directory)?;
        let wanted = self.target.as_deref().unwrap_or_default();
        let targets: Vec<String> = all
            .iter()
            .filter(|name| name.contains(wanted))
            .cloned()
            .collect();
        if targets.is_empty() {
            bail!(
                "no fuzz target contains '{wanted}'; there are: {}",
                all.join(", ")
            );
        }
        Ok(targets)
    }

    /// As many at a time as there are processors.
    fn run_all(
        &self,
        workspace: &Workspace,
        programs: &Path,
        targets: Vec<String>,
    ) -> Result<Vec<Report>> {
        let workers = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(targets.len());
        println!(
            "Running {} targets for {} s each, {workers} at a time",
            targets.len(),
            self.seconds
        );
        let waiting = Mutex::new(targets);
        let results: Vec<Result<Vec<Report>>> = std::thread::scope(|scope| {
            let work = || {
                let mut reports = Vec::new();
                while let Some(target) = waiting.lock().ok().and_then(|mut waiting| waiting.pop()) {
                    reports.push(self.run_one(workspace, programs, &target)?);
                }
                Ok(reports)
            };
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended
                .map(|result| result.unwrap_or_else(|_| bail!("a fuzz worker panicked")))
                .collect()
        });
        let mut reports = Vec::new();
        for result in results {
            reports.extend(result?);
        }
        reports.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(reports)
    }

    fn run_one(&self, workspace: &Workspace, programs: &Path, target: &str) -> Result<Report> {
        let corpus = workspace.cache.join("fuzz/corpus").join(target);
        let artifacts = workspace.root.join("fuzz/artifacts").join(target);
        for directory in [&corpus, &artifacts] {
            fs::create_dir_all(directory)
                .with_context(|| format!("make {}", directory.display()))?;
        }
        let seeds = workspace.root.join("fuzz/seeds").join(target);
        let start = Instant::now();
        let output = Command::new(programs.join(target))
            .arg(&corpus)
            .args(Some(seeds).filter(|seeds| seeds.is_dir()))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg(format!("-max_total_time={}", self.seconds))
            .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
            .arg(format!("-malloc_limit_mb={ONE_ALLOCATION_MIB}"))
            .arg(format!("-timeout={ONE_INPUT_SECS}"))
            .arg(format!("-max_len={LONGEST_INPUT}"))
            .args(["-print_final_stats=1", "-verbosity=1"])
            .output()
            .with_context(|| format!("run the fuzz target {target}"))?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let statistics = Statistics::read(&text);
        // libFuzzer without coverage runs, finds nothing, and looks fine: that is a broken build.
        let ok = output.status.success() && statistics.inputs > 0 && statistics.edges > 0;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Report {
            target: target.to_owned(),
            ok,
            seconds,
            statistics,
            output: text,
        })
    }
}

fn targets_in(directory: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path: PathBuf = entry
            .with_context(|| format!("list {}", directory.display()))?
            .path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
        {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

impl Statistics {
    fn read(output: &str) -> Statistics {
        let number = |text: &str| {
            text.split_whitespace()
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or(0)
        };
        let mut statistics = Statistics::default();
        for line in output.lines() {
            if let Some(rest) = line.strip_prefix("stat::number_of_executed_units:") {
                statistics.inputs = number(rest);
            } else if let Some(rest) = line.strip_prefix("stat::peak_rss_mb:") {
                statistics.peak_mib = number(rest);
            } else if let Some((_, rest)) = line.split_once(" cov: ") {
                statistics.edges = statistics.edges.max(number(rest));
            }
        }
        statistics
    }
}

fn table(reports: &[Report]) -> String {
    let width = reports
        .iter()
        .map(|report| report.target.len())
        .max()
        .unwrap_or(0)
        .max(6);
    let mut text = format!(
        "{:width$}  {:>7}  {:>12}  {:>9}  {:>6}  {:>8}  result\n",
        "target", "seconds", "inputs", "inputs/s", "edges", "peak MiB"
    );
    for Report {
        target,
        ok,
        seconds,
        statistics,
        ..
    } in reports
    {
        let Statistics {
            inputs,
            edges,
            peak_mib,
        } = statistics;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = *inputs as f64 / seconds.max(0.001);
        let result = if *ok { "ok" } else { "FAILED" };
        text += &format!(
            "{target:width$}  {seconds:>7.1}  {inputs:>12}  {rate:>9.0}  {edges:>6}  {peak_mib:>8}  {result}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_run() {
        let output = "#2\tINITED cov: 12 ft: 13 corp: 1/1b\n#90\tNEW    cov: 20 ft: 31 corp: 2/9b\n\
                      stat::number_of_executed_units: 4711\nstat::peak_rss_mb:              88\n";
        assert_eq!(
            Statistics::read(output),
            Statistics {
                inputs: 4711,
                edges: 20,
                peak_mib: 88
            }
        );
        assert_eq!(Statistics::read(""), Statistics::default());
    }

    #[test]
    fn the_table_has_a_row_each() {
        let report = |target: &str, ok| Report {
            target: target.into(),
            ok,
            seconds: 2.0,
            statistics: Statistics {
                inputs: 10,
                edges: 3,
                peak_mib: 40,
            },
            output: String::new(),
        };
        let text = table(&[report("bfd", true), report("bgp_update", false)]);
        assert_eq!(text.lines().count(), 3);
        assert!(
            text.contains("bgp_update      2.0            10          5       3        40  FAILED"),
            "{text}"
        );
    }
}
