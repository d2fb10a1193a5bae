//! `cargo xtask mesh-sim`: a thousand simulated nodes that choose their tunnels, by `hextet-mesh-sim`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    packages,
    workspace::{Workspace, exit_code},
};

/// `cargo xtask mesh-sim`.
#[derive(Debug, Args)]
pub struct MeshSim {
    /// Options for the simulator; `cargo xtask mesh-sim -- --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl MeshSim {
    /// Builds, and hands over.
    pub fn run(&self, workspace: &Workspace) -> Result<ExitCode> {
        packages::ensure(&[packages::BUILD])?;
        let status = workspace
            .cargo()
            .args(["run", "--release", "--quiet", "-p", "hextet-mesh-sim", "--"])
            .args(&self.options)
            .status()
            .context("run cargo run -p hextet-mesh-sim")?;
        Ok(exit_code(status))
    }
}
