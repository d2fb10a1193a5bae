//! Commands about this host: its agent, its ports, its kernel.

use std::{
    io::{self, Read},
    net::IpAddr,
    path::Path,
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hextet_agent::{
    bgp::Drain,
    config::AgentConfig,
    report::{ExplainRequest, Explained, PlannedWrite, PortStatus, Status},
};
use hextet_kernel::workload;
use hextet_single::workload::veth;
use hextet_types::{IfName, PortId};

use super::{block_on, check_exists};
use crate::{
    ask,
    cli::{Agent, AgentCommand, AgentConfigFile, AgentSocket, Explain, Port, Question},
    show,
};

/// How long `hextet port attach` waits for the agent to get the port going.
const ATTACH_PATIENCE: Duration = Duration::from_secs(20);
/// How long it waits to hear of the port at all.
const BINDING_PATIENCE: Duration = Duration::from_secs(3);
/// How long a withdrawal may take to be told to all peers.
const WITHDRAWING_PATIENCE: Duration = Duration::from_secs(10);
/// No question has a body.
const NOTHING: Option<&()> = None;

/// `hextet agent …`.
pub fn agent(agent: Agent) -> Result<ExitCode> {
    match agent.command {
        None => block_on(hextet_agent::run(load(&agent.config)?))?,
        Some(AgentCommand::Join { token, config }) => {
            let file = config.config.display().to_string();
            let config = load(&config)?;
            let token = read_token(token)?;
            block_on(hextet_agent::join(&config, token.trim())).with_context(|| {
                format!(
                    "cannot join {} to the server's listener for agents at {} (`server` in {file})",
                    config.host_id(),
                    config.server
                )
            })?;
            println!("{} has joined {}.", config.host_id(), config.server);
        }
        Some(AgentCommand::Drain { wait, agent }) => drain(&agent, Duration::from_secs(wait))?,
        Some(AgentCommand::Resume { agent }) => {
            set_drain(&agent, Drain::No)?;
            println!("This host is in service.");
        }
        Some(AgentCommand::Leave { config }) => {
            let config = load(&config)?;
            let writes = hextet_agent::leave(&config)?;
            block_on(async {
                hextet_agent::withdraw(&config).await;
                Ok(())
            })?;
            println!("{writes} objects removed or restored.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn load(file: &AgentConfigFile) -> Result<AgentConfig> {
    let way_out =
        "make one: the least is `server = \"HOST:9697\"` and, under [host], `host` and `uplinks`";
    check_exists(&file.config, way_out)?;
    AgentConfig::load(&file.config)
}

/// First the last choice, then nothing; says which peers may not have heard of it.
fn drain(agent: &AgentSocket, wait: Duration) -> Result<()> {
    set_drain(agent, Drain::Leaving)?;
    println!(
        "This host's routes are the last choice; they are withdrawn in {} s.",
        wait.as_secs()
    );
    sleep(wait);
    set_drain(agent, Drain::Drained)?;
    let begun = Instant::now();
    let (told, deaf) = loop {
        let status: Status = block_on(ask::agent(&agent.path, "/status", NOTHING))?;
        let (up, deaf): (Vec<_>, Vec<_>) = status
            .peers
            .into_iter()
            .partition(|peer| peer.state == "Established");
        let routes: usize = up.iter().flat_map(|peer| peer.sent.values()).sum();
        if routes == 0 {
            break (up.len(), deaf);
        }
        if begun.elapsed() > WITHDRAWING_PATIENCE {
            bail!("peers still have {routes} routes of this host: see 'hextet status'");
        }
        sleep(Duration::from_millis(200));
    };
    println!("This host is drained. Peers without a route to it: {told}.");
    for peer in deaf {
        println!(
            "{} is {}: it may keep routes to this host until it hears of this, or their time is over.",
            peer.name, peer.state
        );
    }
    Ok(())
}

fn set_drain(agent: &AgentSocket, state: Drain) -> Result<()> {
    block_on(ask::agent::<Drain>(&agent.path, "/drain", Some(&state))).map(drop)
}

fn read_token(token: String) -> Result<String> {
    if token != "-" {
        return Ok(token);
    }
    let mut text = String::new();
    io::stdin()
        .take(4096)
        .read_to_string(&mut text)
        .context("read the token")?;
    Ok(text)
}

/// `hextet status`.
pub fn status(question: &Question) -> Result<ExitCode> {
    let status: Status = block_on(ask::agent(&question.agent.path, "/status", NOTHING))?;
    if question.output.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", show::status(&status));
    }
    Ok(ExitCode::SUCCESS)
}

/// `hextet plan`: 2 when something is left to write.
pub fn plan(question: &Question) -> Result<ExitCode> {
    let writes: Vec<PlannedWrite> = block_on(ask::agent(&question.agent.path, "/plan", NOTHING))?;
    if question.output.json {
        println!("{}", serde_json::to_string(&writes)?);
    } else {
        print!("{}", show::plan(&writes));
    }
    let pending = !writes.is_empty() && !question.output.json;
    Ok(if pending {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    })
}

/// `hextet explain`: 2 when the packet does not arrive.
pub fn explain(explain: &Explain) -> Result<ExitCode> {
    let request = ExplainRequest {
        from: explain.from.clone(),
        to: explain.to,
        via: explain.via,
        protocol: protocol(explain)?,
        port: explain.tcp.or(explain.udp),
        icmp_type: explain.icmp,
    };
    let question = &explain.question;
    let explained: Explained =
        block_on(ask::agent(&question.agent.path, "/explain", Some(&request)))?;
    if question.output.json {
        println!("{}", serde_json::to_string_pretty(&explained)?);
    } else {
        explained.steps.iter().for_each(|step| println!("{step}"));
        println!("{}", explained.verdict);
    }
    Ok(if explained.delivered {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    })
}

fn protocol(explain: &Explain) -> Result<u8> {
    if let Some(protocol) = explain.protocol {
        return Ok(protocol);
    }
    match (explain.tcp, explain.udp, explain.icmp, explain.to) {
        (Some(_), ..) => Ok(6),
        (_, Some(_), ..) => Ok(17),
        (_, _, Some(_), IpAddr::V4(_)) => Ok(1),
        (_, _, Some(_), IpAddr::V6(_)) => Ok(58),
        _ => bail!(
            "what kind of packet? Add --tcp PORT, --udp PORT, --icmp TYPE or --protocol NUMBER"
        ),
    }
}

/// `hextet port …`.
pub fn port(port: Port) -> Result<ExitCode> {
    match port {
        Port::List(question) => {
            let status: Status = block_on(ask::agent(&question.agent.path, "/status", NOTHING))?;
            if question.output.json {
                println!("{}", serde_json::to_string_pretty(&status.ports)?);
            } else {
                println!("{}", show::ports(&status.ports));
            }
        }
        Port::Attach {
            port,
            netns,
            ifname,
            agent,
        } => {
            let status = await_port(&agent.path, &port)?;
            workload::attach(&veth(&status, &netns, &ifname))?;
            wait_until_active(&agent.path, status.id)
                .with_context(|| format!("port {port} is plugged into {netns} as {ifname}, but"))?;
        }
        Port::Detach { port, agent } => {
            let id = match port.parse() {
                Ok(id) => id,
                Err(_) => find_port(&agent.path, &port)?.id,
            };
            workload::detach(&IfName::for_port(id))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A port of this host, by its identifier or its name.
fn find_port(socket: &Path, port: &str) -> Result<PortStatus> {
    let status: Status = block_on(ask::agent(socket, "/status", NOTHING))?;
    let host = status.host;
    let id: Option<PortId> = port.parse().ok();
    let is_meant = |p: &PortStatus| id.map_or(p.name == port, |id| p.id == id);
    let mut found: Vec<PortStatus> = status.ports.into_iter().filter(is_meant).collect();
    if found.len() > 1 {
        bail!("several ports of {host} are called {port}: name one by its identifier");
    }
    found.pop().with_context(|| {
        format!(
            "port {port} is not bound to {host}; bind it: openstack port set --host {host} {port}"
        )
    })
}

/// A port that was bound a moment ago may not have come to the agent yet.
pub fn await_port(socket: &Path, port: &str) -> Result<PortStatus> {
    let end = Instant::now() + BINDING_PATIENCE;
    loop {
        match find_port(socket, port) {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            found => return found,
        }
    }
}

/// Until the kernel passes its packets.
pub fn wait_until_active(socket: &Path, port: PortId) -> Result<()> {
    let end = Instant::now() + ATTACH_PATIENCE;
    loop {
        match find_port(socket, &port.to_string())?.down {
            None => return Ok(()),
            Some(why) if Instant::now() > end => {
                bail!(
                    "it is still down after {} s: {why}",
                    ATTACH_PATIENCE.as_secs()
                )
            }
            Some(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
