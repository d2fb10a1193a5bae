//! `cargo xtask worlds`: random clouds, whose packets are compared with what `explain` says of them, by
//! `hextet-worlds`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    packages,
    workspace::{Workspace, exit_code},
};

/// `cargo xtask worlds`.
#[derive(Debug, Args)]
pub struct Worlds {
    /// Worlds.
    #[arg(long, default_value_t = 50)]
    count: u64,
    /// The first world's seed; a disagreement names the one that shows it again.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only worlds of that kind: `routed` or `projects`.
    #[arg(long)]
    only: Option<String>,
    /// Print the coverage as JSON.
    #[arg(long)]
    json: bool,
}

impl Worlds {
    /// Installs, builds, and hands over.
    pub fn run(&self, workspace: &Workspace) -> Result<ExitCode> {
        packages::ensure(&[packages::BUILD, packages::LAB])?;
        let status = workspace
            .cargo()
            .args(["run", "--quiet", "-p", "hextet-worlds", "--"])
            .args(["--count", &self.count.to_string()])
            .args(["--seed", &self.seed.to_string()])
            .args(self.only.iter().flat_map(|kind| ["--only", kind]))
            .args(self.json.then_some("--json"))
            .status()
            .context("run cargo run -p hextet-worlds")?;
        Ok(exit_code(status))
    }
}
