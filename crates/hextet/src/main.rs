//! `hextet`: one program for server, agent and everything that people ask of them.
//!
//! Here are the command line and what is shown; the work is done in the crates.

mod ask;
mod cli;
mod commands;
mod show;

use std::process::ExitCode;

use clap::Parser;
use hextet_kernel::allocator::LargeApart;
use mimalloc::MiMalloc;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command};

/// An agent keeps several small pieces of memory for each object of its plan, and with glibc's allocator a
/// restart with 10,000 ports takes it half as much CPU again. Without huge pages: zeroing those costs more
/// than they bring. What a server takes to hash a password goes back at once.
#[global_allocator]
static ALLOCATOR: LargeApart<MiMalloc> = LargeApart(MiMalloc);

fn main() -> ExitCode {
    let cli = Cli::parse();
    set_up_log(cli.verbose);
    let done = match cli.command {
        Command::Server(server) => commands::server(server),
        Command::Agent(agent) => commands::agent(agent),
        Command::Up(up) => commands::up(&up),
        Command::Down(down) => commands::down(&down),
        Command::Run(run) => commands::run(&run),
        Command::Expose(expose) => commands::expose(&expose),
        Command::Proxy(proxy) => commands::proxy(&proxy),
        Command::Status(question) => commands::status(&question),
        Command::Plan(question) => commands::plan(&question),
        Command::Explain(explain) => commands::explain(&explain),
        Command::Doctor(doctor) => commands::doctor(&doctor),
        Command::Port(port) => commands::port(port),
        Command::Registry(registry) => commands::registry(registry),
        Command::Mesh(mesh) => commands::mesh(mesh),
        Command::Lab(lab) => commands::lab(lab),
        Command::Completions { shell } => commands::completions(shell),
        Command::Man { directory } => commands::man(&directory),
    };
    done.unwrap_or_else(|error| {
        eprintln!("hextet: {}", words(&error));
        ExitCode::FAILURE
    })
}

/// An error with its causes, each once: many of our errors name theirs.
fn words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let said = cause.to_string();
        let said = said.trim_end();
        if text.contains(said) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(said);
    }
    text
}

/// To standard error; `RUST_LOG` has the last word.
fn set_up_log(verbose: u8) {
    let level = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new(format!(
            "warn,hextet={level},hextet_agent={level},hextet_server={level},hextet_kernel={level},hextet_registry={level},hextet_node={level},hextet_single={level},hextet_proxy={level}"
        ))
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
