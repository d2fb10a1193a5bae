//! `cargo xtask bench`: measurements against peers in the same run, by the `hextet-bench` program.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    packages,
    workspace::{Workspace, exit_code},
};

/// `cargo xtask bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// What to measure.
    name: String,
    /// Print a line of JSON for each row, and nothing else to standard output.
    #[arg(long)]
    json: bool,
}

impl Bench {
    /// Installs, builds with optimisation, and hands over.
    pub fn run(&self, workspace: &Workspace) -> Result<ExitCode> {
        packages::ensure(&[packages::BUILD, packages::LAB])?;
        let status = workspace
            .cargo()
            .args([
                "run",
                "--quiet",
                "--release",
                "-p",
                "hextet-bench",
                "--",
                &self.name,
            ])
            .args(self.json.then_some("--json"))
            .status()
            .context("run cargo")?;
        Ok(exit_code(status))
    }
}
