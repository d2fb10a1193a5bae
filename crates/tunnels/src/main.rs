//! `hextet-tunnels serve SOCKET`: userspace tunnels, which stand while whoever asked for them comes and goes.
//! `hextet-tunnels ask SOCKET`: hands on requests, a line each, and prints the answers.
//! `hextet-tunnels kernel`: the same, where the kernel's own WireGuard makes the tunnels.

use std::{env, io, path::Path};

use anyhow::{Context as _, Result, bail};
use hextet_tunnels::{
    control::Controller,
    kernel::{Kernel, Tunnels},
    process,
};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", socket] => process::serve(Path::new(socket)),
        ["ask", socket] => ask(&mut controller(Path::new(socket))?),
        ["kernel"] => ask(&mut Kernel::open()?),
        _ => bail!("usage: hextet-tunnels serve|ask SOCKET, or hextet-tunnels kernel"),
    }
}

fn controller(socket: &Path) -> Result<Controller> {
    Controller::connect(socket)
        .with_context(|| format!("control the tunnels at {}", socket.display()))
}

fn ask(tunnels: &mut impl Tunnels) -> Result<()> {
    for line in io::stdin().lines() {
        let request = serde_json::from_str(&line?).context("read a request")?;
        let answer = tunnels.ask(&request).context("wait for the answer")?;
        println!("{}", serde_json::to_string(&answer)?);
    }
    Ok(())
}
