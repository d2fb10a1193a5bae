//! What each command does.

mod cloud;
mod doctor;
mod host;
mod labs;
mod mesh;
mod node;
mod single;

use std::{fs, future::Future, io, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::CommandFactory;
use tokio::signal::unix::{SignalKind, signal};

pub use cloud::server;
pub use doctor::doctor;
pub use host::{agent, explain, plan, port, status};
pub use labs::lab;
pub use mesh::{mesh, registry};
pub use single::{down, expose, proxy, run, up};

use crate::cli::Cli;

/// Runs a future to its end, on all cores.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("make a runtime")?
        .block_on(work)
}

/// Ends when SIGTERM or SIGINT comes.
fn told_to_end() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The configuration has to be there: who starts has none yet.
fn check_exists(path: &Path, way_out: &str) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    bail!(
        "there is no configuration {}: {way_out}, or name another by --config",
        path.display()
    )
}

/// `hextet completions`.
pub fn completions(shell: clap_complete::Shell) -> Result<ExitCode> {
    clap_complete::generate(shell, &mut Cli::command(), "hextet", &mut io::stdout());
    Ok(ExitCode::SUCCESS)
}

/// `hextet man`.
pub fn man(directory: &Path) -> Result<ExitCode> {
    fs::metadata(directory).with_context(|| format!("look at {}", directory.display()))?;
    clap_mangen::generate_to(Cli::command(), directory)
        .with_context(|| format!("write manual pages into {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}
