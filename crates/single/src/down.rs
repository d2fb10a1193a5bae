//! Puts everything back: what runs, what was made, what was set.

use std::fs;

use anyhow::{Context, Result};
use hextet_kernel::host;

use crate::{
    delegation::Delegation,
    places::{Places, Settings},
    service, sites, workload,
};

/// What was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downed {
    /// Workloads that were known.
    pub workloads: Vec<String>,
    /// Objects of the kernel removed or restored.
    pub objects: usize,
}

/// Ends workloads and the process, removes all from the kernel, and at last the files, of which networks and addresses are kept
/// where that is wanted.
///
/// # Errors
///
/// hextet is not up, or something does not end; it can be tried again.
pub fn down(places: &Places, keep: bool) -> Result<Downed> {
    let settings = places.settings()?;
    let agent = places.agent()?;
    let workloads = workload::known(places)?;
    for name in &workloads {
        workload::clear(places, name, true).with_context(|| format!("end {name}"))?;
    }
    service::stop(places)?;
    sites::stop(places)?;
    let objects = hextet_agent::leave(&agent)?;
    if settings.asked.delegation() && !keep {
        release(places, &settings)?;
    }
    let path = match keep {
        true => places.workloads(),
        false => places.state.clone(),
    };
    match fs::remove_dir_all(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("remove {}", path.display()));
        }
        _ => {}
    }
    // Others may have theirs in there.
    for socket in [places.agent_socket(), places.run.join("server.sock")] {
        let _ = fs::remove_file(socket);
    }
    let _ = fs::remove_dir(&places.run);
    Ok(Downed { workloads, objects })
}

/// What was delegated goes back, so that the router has it for others.
fn release(places: &Places, settings: &Settings) -> Result<()> {
    let host = host::look()?;
    Delegation::open(places)
        .release(&host, &settings.asked)
        .context("give back what was delegated by DHCPv6")
}
