//! `hextet-mesh-sim`: the figures of `docs/mesh-topology.md`.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use hextet_mesh_sim::{
    experiments::{self, Scale},
    plot, report,
};

/// A thousand nodes on a synthetic map, each deciding by itself which tunnels to make. Needs no
/// rights and no network; the same options give the same figures on any machine.
#[derive(Debug, Parser)]
#[command(
    max_term_width = 100,
    after_help = "Examples:\n  hextet-mesh-sim\n  hextet-mesh-sim --nodes 200 --minutes 20 --seed 7\n  \
    hextet-mesh-sim --write docs"
)]
struct Cli {
    /// Nodes, 20 to 5,000.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=5000))]
    nodes: u32,
    /// Of the map, the nodes and all else.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Simulated minutes until the mesh is measured.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: u32,
    /// Draws of nodes that die, without repair.
    #[arg(long, default_value_t = 10_000)]
    draws: usize,
    /// Draws of nodes that die, with repair, of each kind.
    #[arg(long, default_value_t = 50)]
    repairs: usize,
    /// Print all figures as JSON.
    #[arg(long)]
    json: bool,
    /// Write the tables into mesh-topology.md of this directory, and the plot beside it.
    #[arg(long, value_name = "DIRECTORY")]
    write: Option<PathBuf>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let figures = experiments::run(Scale {
        nodes: cli.nodes as usize,
        seed: cli.seed,
        minutes: cli.minutes.into(),
        draws: cli.draws,
        repairs: cli.repairs,
    })?;
    let tables = report::markdown(&figures);
    if cli.json {
        let json = serde_json::to_string(&figures).context("write the figures as JSON")?;
        println!("{json}");
    } else {
        print!("{tables}");
    }
    if let Some(directory) = &cli.write {
        let path = directory.join("mesh-topology.md");
        let page = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let page = report::placed(&page, &tables)
            .with_context(|| format!("find the marks of the figures in {}", path.display()))?;
        fs::write(&path, page).with_context(|| format!("write {}", path.display()))?;
        let path = directory.join("mesh-topology.svg");
        fs::write(&path, plot::svg(&figures))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
