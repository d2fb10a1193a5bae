//! `cargo xtask bench`: what hextet costs, beside its peers, by the programs of `hextet-bench`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::{
    packages,
    workspace::{Workspace, exit_code},
};

/// `cargo xtask bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// What to measure.
    #[arg(value_enum)]
    what: What,
    /// Options for the bench itself; `-- --help` lists them.
    #[arg(last = true)]
    options: Vec<String>,
    /// Print a line of JSON for each figure.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Forwarding, beside plain routing and Calico's iptables layout.
    Datapath,
    /// Private networks and routers, beside VXLAN and routing without policy.
    Tenant,
    /// From intent to kernel, with 10,000 ports on one host.
    Apply,
    /// The server, with 10,000 ports.
    Api,
    /// A million routes, beside BIRD.
    Bgp,
    /// A userspace tunnel, beside wireguard-go and OpenVPN.
    Mesh,
    /// Neighbour solicitations on an uplink, beside the kernel's proxy_ndp and ndppd.
    Ndp,
    /// A mesh of five nodes: from cold to all pairs, a loss, a return.
    MeshConvergence,
}

impl What {
    fn program(self) -> &'static str {
        match self {
            What::Datapath => "hextet-bench-datapath",
            What::Tenant => "hextet-bench-tenant",
            What::Apply => "hextet-bench-apply",
            What::Api => "hextet-bench-api",
            What::Bgp => "hextet-bench-bgp",
            What::Mesh => "hextet-bench-mesh",
            What::Ndp => "hextet-bench-ndp",
            What::MeshConvergence => "hextet-bench-mesh-convergence",
        }
    }
}

impl Bench {
    /// Installs, builds, and hands over.
    pub fn run(&self, workspace: &Workspace) -> Result<ExitCode> {
        packages::ensure(&[
            packages::BUILD,
            packages::LAB,
            packages::INTEROP,
            packages::PEERS,
        ])?;
        let program = self.what.program();
        let built = workspace
            .cargo()
            .args(["build", "--release", "-p", "hextet"])
            .args(["-p", "hextet-bench", "--bin", "hextet", "--bin", program])
            .args(["-p", "hextet-tunnels", "--bin", "hextet-tunnels"])
            .status()
            .context("run cargo build")?;
        if !built.success() {
            return Ok(exit_code(built));
        }
        let release = workspace.target.join("release");
        let mut bench = std::process::Command::new(release.join(program));
        bench
            .current_dir(&workspace.root)
            .env("HEXTET_BIN", release.join("hextet"))
            .env("HEXTET_TUNNELS_BIN", release.join("hextet-tunnels"))
            .args(self.json.then_some("--json"))
            .args(&self.options);
        let status = bench.status().with_context(|| format!("run {program}"))?;
        Ok(exit_code(status))
    }
}
