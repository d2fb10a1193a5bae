//! `cargo xtask demo`: a situation end to end, by the `hextet-demo` program.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    packages,
    workspace::{Workspace, exit_code},
};

/// `cargo xtask demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Which situation to show: fabric, flat, single, tenant or mesh.
    #[arg(default_value = "fabric")]
    situation: String,
    /// Leave the lab running afterwards, and say how to look around.
    #[arg(long)]
    keep: bool,
    /// Of the packets between hosts: 4 or 6 (tenant).
    #[arg(long, default_value = "6")]
    underlay: String,
    /// Print a line of JSON for each check, and nothing else to standard output.
    #[arg(long)]
    json: bool,
    /// Make these checks alone; some need others before them.
    #[arg(long, value_name = "CHECK")]
    only: Vec<String>,
}

impl Demo {
    /// Installs, builds, and hands over; the exit status says whether every check held.
    pub fn run(&self, workspace: &Workspace) -> Result<ExitCode> {
        packages::ensure(&[packages::BUILD, packages::LAB])?;
        let built = workspace
            .cargo()
            .args(["build", "--release", "-p", "hextet", "-p", "hextet-demo"])
            .status()
            .context("run cargo build")?;
        if !built.success() {
            return Ok(exit_code(built));
        }
        let release = workspace.target.join("release");
        let mut demo = std::process::Command::new(release.join("hextet-demo"));
        demo.current_dir(&workspace.root)
            .env("HEXTET_BIN", release.join("hextet"))
            .arg(&self.situation)
            .args(["--underlay", &self.underlay])
            .args(self.keep.then_some("--keep"))
            .args(self.json.then_some("--json"))
            .args(self.only.iter().flat_map(|check| ["--only", check]));
        Ok(exit_code(demo.status().context("run hextet-demo")?))
    }
}
