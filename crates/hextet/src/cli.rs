//! The command line: what can be asked of `hextet`, and what each word means.

mod doctor;
mod mesh;
mod single;

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueHint};
use hextet_agent::report::Sender;
use hextet_types::{HostId, IfName};

pub use doctor::Doctor;
pub use mesh::{
    Join, Mesh, Params, Question as MeshQuestion, Registry, RegistryCommand, RegistryConfigFile,
    RegistrySocket,
};
pub use single::{Down, Expose, Proxy, Run, Up};

/// IPv6-first cloud networking: every workload its own reachable IPv6 address, IPv4 as a service beside it.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Examples:\n  hextet up\n  hextet run --name web -- COMMAND\n  \
    hextet server --config /etc/hextet/server.toml\n  hextet agent join --token ID.SECRET.FINGERPRINT\n  hextet status\n  \
    hextet explain --from 3f0c… --to 2001:db8::5 --tcp 443"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say more in the log: once for debugging, twice for everything.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The longest life of a join token: 30 days.
const MAX_TOKEN_MINUTES: i64 = 30 * 24 * 60;

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server: the networking API, identity, and the agents' intent.
    #[command(
        after_help = "Examples:\n  hextet server --config /etc/hextet/server.toml\n  \
        hextet server join-token --host h1\n  hextet server dump > backup.ndjson\n  \
        hextet server load < backup.ndjson"
    )]
    Server(Server),
    /// Run this host's agent, or join it to a cloud.
    #[command(
        after_help = "Examples:\n  hextet agent join --token ID.SECRET.FINGERPRINT\n  \
        hextet agent --config /etc/hextet/agent.toml\n  \
        hextet agent drain && systemctl reboot\n  hextet agent resume"
    )]
    Agent(Agent),
    /// Give this host's containers and processes addresses of their own: all in one process.
    #[command(
        after_help = "It looks at the uplink and goes by what it finds; --dry-run shows what it would do.\n\n\
        Examples:\n  hextet up --dry-run\n  hextet up\n  hextet up --prefix 2001:db8:0:1::c:0/112\n  \
        hextet up --routed 2001:db8:100::/56"
    )]
    Up(Up),
    /// Put everything back that `up` did.
    #[command(
        after_help = "Workloads that 'hextet run' started end.\n\nExamples:\n  hextet down\n  hextet down --keep"
    )]
    Down(Down),
    /// Start a process with addresses of its own.
    #[command(
        after_help = "Examples:\n  hextet run --name web -- python3 -m http.server --bind :: 80\n  \
        hextet run -- ping -c 3 2001:db8::1"
    )]
    Run(Run),
    /// Hand connections on to sites: started when it is needed.
    #[command(hide = true)]
    Proxy(Proxy),
    /// Have a port of this host's IPv4 address lead to a workload, or all who ask for a name.
    #[command(
        after_help = "Examples:\n  hextet expose web 443\n  hextet expose web 8080 --to 80\n  \
        hextet expose web --host shop.example\n  hextet expose web 443 --remove\n  hextet expose --json"
    )]
    Expose(Expose),
    /// Show what this host's agent is doing: server, ports, BGP peers, kernel.
    #[command(
        after_help = "Examples:\n  hextet status\n  hextet status --json | jq .kernel.failed"
    )]
    Status(Question),
    /// Show what the reconciler would change in this host's kernel, without changing it.
    #[command(
        after_help = "An empty plan means that the kernel is what it has to be; the exit status is \
        then 0, and 2 otherwise.\n\nExamples:\n  hextet plan\n  hextet plan --json | jq -r .[].object"
    )]
    Plan(Question),
    /// Show the path of a packet from one of this host's ports, and what decides about it.
    #[command(
        after_help = "Examples:\n  hextet explain --from 3f0c… --to 2001:db8::5 --tcp 443\n  \
        hextet explain --from 3f0c… --to 192.0.2.7 --icmp 8"
    )]
    Explain(Explain),
    /// Say what is wrong on this host and on the links that it is on.
    #[command(
        after_help = "Nothing is changed. The exit status is 0 when nothing is found, and 2 otherwise.\n\n\
        Examples:\n  hextet doctor\n  hextet doctor --link eth0 --ask 2001:db8::5\n  hextet doctor --json | jq -r .[].code"
    )]
    Doctor(Doctor),
    /// Plug ports of this host into network namespaces.
    #[command(
        subcommand,
        after_help = "Examples:\n  hextet port list\n  hextet port attach web --netns web\n  \
        hextet port detach web"
    )]
    Port(Port),
    /// Run a mesh's registry: it lets nodes in and gives them addresses and certificates.
    #[command(
        after_help = "Examples:\n  hextet registry --config /etc/hextet/registry.toml\n  \
        hextet registry backup > registry.ndjson\n  hextet registry restore < registry.ndjson"
    )]
    Registry(Registry),
    /// Join a mesh; look after its nodes.
    #[command(
        subcommand,
        after_help = "Examples:\n  hextet mesh token --group web\n  \
        hextet mesh join 'https://registry.example:8443#TOKEN.HASH'\n  hextet mesh nodes"
    )]
    Mesh(Mesh),
    /// Many hosts on one machine, in network namespaces.
    #[command(
        subcommand,
        after_help = "Examples:\n  hextet lab up labs/fabric.toml\n  hextet lab exec fabric h1 -- hextet status\n  \
        hextet lab down fabric"
    )]
    Lab(Lab),
    /// Write shell completions to standard output.
    #[command(
        after_help = "Examples:\n  hextet completions bash > /etc/bash_completion.d/hextet\n  \
        hextet completions fish > ~/.config/fish/completions/hextet.fish"
    )]
    Completions {
        /// For this shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory.
    #[command(
        after_help = "Example:\n  hextet man /usr/local/share/man/man1 && man hextet-agent-drain"
    )]
    Man {
        /// An existing directory.
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

/// How to answer.
#[derive(Clone, Copy, Debug, Args)]
pub struct Output {
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// Whom to ask.
#[derive(Clone, Debug, Args)]
pub struct AgentSocket {
    /// The agent's control socket.
    #[arg(long = "agent", env = "HEXTET_AGENT", default_value = "/run/hextet/agent.sock",
        value_name = "SOCKET", value_hint = ValueHint::FilePath)]
    pub path: PathBuf,
}

/// A question to the agent.
#[derive(Clone, Debug, Args)]
pub struct Question {
    /// How to answer.
    #[command(flatten)]
    pub output: Output,
    /// Whom to ask.
    #[command(flatten)]
    pub agent: AgentSocket,
}

/// `hextet server`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Server {
    /// Instead of running it.
    #[command(subcommand)]
    pub command: Option<ServerCommand>,
    /// Where it runs.
    #[command(flatten)]
    pub config: ServerConfigFile,
}

/// Where the server's configuration is.
#[derive(Clone, Debug, Args)]
pub struct ServerConfigFile {
    /// The configuration.
    #[arg(long, default_value = "/etc/hextet/server.toml", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
}

/// `hextet server …`.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Make a token with which one host may join once.
    #[command(after_help = "Examples:\n  hextet server join-token --host h1\n  \
        hextet server join-token --host h1 | ssh h1 hextet agent join --token -")]
    JoinToken {
        /// The host's name; without it, any.
        #[arg(long)]
        host: Option<HostId>,
        /// How long it is good for, in minutes.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=MAX_TOKEN_MINUTES))]
        minutes: u32,
        /// The server's configuration.
        #[command(flatten)]
        config: ServerConfigFile,
    },
    /// Show what metering labels have counted, for each router, host and direction.
    #[command(
        after_help = "The numbers never go down; what passed in a time is the difference of two answers.\n\n\
        Examples:\n  hextet server meters\n  hextet server meters --label 3f0c… --json"
    )]
    Meters {
        /// This label alone, by its name or identifier.
        #[arg(long)]
        label: Option<String>,
        /// How to answer.
        #[command(flatten)]
        output: Output,
        /// The server's configuration.
        #[command(flatten)]
        config: ServerConfigFile,
    },
    /// Write the whole store to standard output, a line of JSON each.
    #[command(
        after_help = "It holds secrets (hashes of passwords, the key of the agents' authority): keep it as such.\n\n\
        Example:\n  (umask 077; hextet server dump > backup.ndjson)"
    )]
    Dump {
        /// The server's configuration.
        #[command(flatten)]
        config: ServerConfigFile,
    },
    /// Fill the store from a dump on standard input; the server must not be running.
    #[command(after_help = "Example:\n  hextet server load < backup.ndjson")]
    Load {
        /// Replace what is there.
        #[arg(long)]
        overwrite: bool,
        /// The server's configuration.
        #[command(flatten)]
        config: ServerConfigFile,
    },
}

/// `hextet agent`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Agent {
    /// Instead of running it.
    #[command(subcommand)]
    pub command: Option<AgentCommand>,
    /// Where its configuration is.
    #[command(flatten)]
    pub config: AgentConfigFile,
}

/// Where the agent's configuration is.
#[derive(Clone, Debug, Args)]
pub struct AgentConfigFile {
    /// The configuration.
    #[arg(long, default_value = "/etc/hextet/agent.toml", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
}

/// `hextet agent …`.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Get this host's certificate from the server.
    #[command(
        after_help = "Examples:\n  hextet agent join --token ID.SECRET.FINGERPRINT\n  \
        hextet agent join --token - < token"
    )]
    Join {
        /// As `hextet server join-token` printed it; `-` reads it from standard input.
        #[arg(long, env = "HEXTET_JOIN_TOKEN", hide_env_values = true)]
        token: String,
        /// The agent's configuration.
        #[command(flatten)]
        config: AgentConfigFile,
    },
    /// Take this host out of service: its routes become the last choice, and then they are withdrawn.
    #[command(
        after_help = "The sessions stay up, and ports go on running. The host stays drained until 'hextet agent \
        resume', also when the agent or the host is started anew.\n\nExample:\n  hextet agent drain --wait 30"
    )]
    Drain {
        /// How long traffic has to find its way elsewhere before the routes are withdrawn.
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        wait: u64,
        /// The agent's control socket.
        #[command(flatten)]
        agent: AgentSocket,
    },
    /// Put a drained host back into service.
    #[command(after_help = "Example:\n  hextet agent resume")]
    Resume {
        /// The agent's control socket.
        #[command(flatten)]
        agent: AgentSocket,
    },
    /// Remove everything that agents made in this kernel, and restore the former settings.
    #[command(
        after_help = "The agent must have ended. Its host stays joined; 'openstack network agent delete' takes that \
        back.\n\nExample:\n  systemctl stop hextet-agent && hextet agent leave"
    )]
    Leave {
        /// The agent's configuration.
        #[command(flatten)]
        config: AgentConfigFile,
    },
}

/// `hextet explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The port that the packet comes from, or its interface on this host.
    #[arg(long)]
    pub from: Sender,
    /// Where it goes: an address, not a name.
    #[arg(long)]
    pub to: IpAddr,
    /// To this TCP port.
    #[arg(long, group = "what")]
    pub tcp: Option<u16>,
    /// To this UDP port.
    #[arg(long, group = "what")]
    pub udp: Option<u16>,
    /// With this ICMP or ICMPv6 type.
    #[arg(long, group = "what")]
    pub icmp: Option<u8>,
    /// Of this IP protocol, such as 112 (VRRP).
    #[arg(long, group = "what", value_name = "NUMBER")]
    pub protocol: Option<u8>,
    /// By way of this next hop, as the workload chooses it; without it by its gateway.
    #[arg(long, value_name = "ADDRESS")]
    pub via: Option<IpAddr>,
    /// How to answer.
    #[command(flatten)]
    pub question: Question,
}

/// `hextet port …`.
#[derive(Debug, Subcommand)]
pub enum Port {
    /// List this host's ports.
    #[command(
        after_help = "Examples:\n  hextet port list\n  hextet port list --json | jq -r .[].id"
    )]
    List(Question),
    /// Plug a port into a network namespace by a veth pair, and wait until it is active.
    #[command(after_help = "Example:\n  ip netns add web\n  hextet port attach 3f0c… --netns web")]
    Attach {
        /// The port, by its name or identifier.
        port: String,
        /// A namespace, by its name under /run/netns.
        #[arg(long)]
        netns: String,
        /// The interface's name in there.
        #[arg(long, default_value = "eth0")]
        ifname: IfName,
        /// Whom to ask.
        #[command(flatten)]
        agent: AgentSocket,
    },
    /// Unplug a port that `attach` plugged.
    #[command(after_help = "Example:\n  hextet port detach 3f0c…")]
    Detach {
        /// The port, by its name or identifier.
        port: String,
        /// Whom to ask.
        #[command(flatten)]
        agent: AgentSocket,
    },
}

/// `hextet lab …`.
#[derive(Debug, Subcommand)]
pub enum Lab {
    /// Build a lab and start what runs in it.
    #[command(after_help = "Example:\n  hextet lab up labs/fabric.toml")]
    Up {
        /// The lab's description, as those in `labs/`.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Tear a lab down.
    #[command(after_help = "Example:\n  hextet lab down fabric")]
    Down {
        /// Its name.
        name: String,
    },
    /// List the labs that are up, with their nodes.
    #[command(after_help = "Example:\n  hextet lab list --json")]
    List(Output),
    /// Run a command on a node.
    #[command(after_help = "Example:\n  hextet lab exec fabric h1 -- ip -6 route")]
    Exec {
        /// The lab's name.
        lab: String,
        /// The node's name.
        node: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}
