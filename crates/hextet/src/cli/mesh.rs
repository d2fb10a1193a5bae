//! `hextet registry …` and `hextet mesh …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use hextet_mesh::{
    certificate::{Class, NodeId},
    label::Label,
    token::{Invitation, RegistryUrl},
};

use super::{MAX_TOKEN_MINUTES, Output};

/// `hextet registry`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Registry {
    /// Instead of running it.
    #[command(subcommand)]
    pub command: Option<RegistryCommand>,
    /// Where it runs.
    #[command(flatten)]
    pub config: RegistryConfigFile,
}

/// Where the registry's configuration is.
#[derive(Clone, Debug, Args)]
pub struct RegistryConfigFile {
    /// The configuration.
    #[arg(long, default_value = "/etc/hextet/registry.toml", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
}

/// Whom administrators ask.
#[derive(Clone, Debug, Args)]
pub struct RegistrySocket {
    /// The registry's socket.
    #[arg(long = "registry", env = "HEXTET_REGISTRY", default_value = "/run/hextet/registry.sock",
        value_name = "SOCKET", value_hint = ValueHint::FilePath)]
    pub path: PathBuf,
}

/// `hextet registry …`.
#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// Write everything that the registry knows to standard output, a line of JSON each.
    #[command(
        after_help = "It holds the network's secret keys: keep it as such.\n\n\
        Example:\n  (umask 077; hextet registry backup > registry.ndjson)"
    )]
    Backup {
        /// Whom to ask.
        #[command(flatten)]
        registry: RegistrySocket,
    },
    /// Fill the registry's store from a backup on standard input; the registry must not be running.
    #[command(
        after_help = "Nodes keep their addresses, those that came after the backup, too.\n\n\
        Example:\n  hextet registry restore < registry.ndjson"
    )]
    Restore {
        /// Replace what is there.
        #[arg(long)]
        overwrite: bool,
        /// The registry's configuration.
        #[command(flatten)]
        config: RegistryConfigFile,
    },
}

/// `hextet mesh …`.
#[derive(Debug, Subcommand)]
pub enum Mesh {
    /// Get this machine's certificate and prefix from a registry.
    #[command(
        after_help = "If the answer is lost, the same again brings the same certificate.\n\n\
        Examples:\n  hextet mesh join 'https://registry.example:8443#TOKEN.HASH'\n  \
        hextet mesh join 'https://registry.example:8443#.HASH' --name paris --community fr,europe"
    )]
    Join(Join),
    /// Run this machine's node: tunnels to others on demand, the best way chosen, routes in the kernel.
    #[command(
        after_help = "Its end changes nothing: tunnels and routes stay, and the next run takes them over.\n\n\
        The configuration may have these lines, each with what holds without it:\n  \
        directory = \"/var/lib/hextet/mesh\"   # as of `hextet mesh join`\n  \
        socket = \"/run/hextet/mesh.sock\"     # for `hextet mesh status`\n  \
        tunnels = \"/run/hextet/tunnels.sock\" # of the process that holds tunnels\n  \
        port = 6698                            # of UDP, for others outside of the mesh\n  \
        tls = 443                              # port of TCP for those whose UDP is blocked, if anybody can reach this node; or false\n  \
        kernel = true                          # the kernel's WireGuard carries what it can, where there is one\n  \
        uplinks = []                           # interfaces towards the world, if several are to be used at once\n  \
        reach = \"public\"                     # or punchable, closed; found out without it\n  \
        forward = true                         # packets of others\n  \
        accept = []                            # destinations besides the network's own\n  \
        announce = []                          # prefixes besides the node's own\n  \
        gateway = false                        # others leave the network by this host\n  \
        default = false                        # this host leaves it by others, where it has no other way\n  \
        hide = []                              # interfaces whose addresses nobody is told\n  \
        port_mapping = true                    # the gateway is asked to let others in: PCP, NAT-PMP, UPnP\n  \
        metrics = \"127.0.0.1:9469\"           # where /metrics is scraped and /map seen, by anybody who gets there; nowhere without it\n  \
        lan = {}                               # interfaces on whose networks others are looked for: eth0 = \"tunnels\",\n                                         # or \"bare\", by which packets go to them as they are\n\n\
        Example:\n  hextet mesh run"
    )]
    Run {
        /// The configuration; if it is not there, all holds that holds without it.
        #[arg(long, default_value = "/etc/hextet/mesh.toml", value_hint = ValueHint::FilePath)]
        config: PathBuf,
    },
    /// Hold userspace tunnels for `hextet mesh run`, which starts this by itself where nobody else does.
    #[command(
        after_help = "It carries packets whatever becomes of the node that asked for its tunnels.\n\n\
        Example:\n  hextet mesh tunnels /run/hextet/tunnels.sock"
    )]
    Tunnels {
        /// Where it is controlled.
        #[arg(value_hint = ValueHint::FilePath)]
        socket: PathBuf,
    },
    /// Show how this machine's node stands.
    #[command(
        after_help = "Examples:\n  hextet mesh status\n  hextet mesh status --json | jq .reach"
    )]
    Status(Question),
    /// Show this node's tunnels.
    #[command(
        after_help = "Examples:\n  hextet mesh peers\n  hextet mesh peers --json | jq -r .[].endpoint"
    )]
    Peers(Question),
    /// Show the ways that this node knows.
    #[command(after_help = "Example:\n  hextet mesh routes")]
    Routes(Question),
    /// Show by whom packets go to an address, or to a node.
    #[command(
        after_help = "Each hop is asked three times. As routes follow what is best now, the next trace may be another.\n\n\
        Examples:\n  hextet mesh trace fd2a:748d:f458::1\n  hextet mesh trace 67c0dcc28a50b0a8\n  hextet mesh trace 10.9.0.7 --json"
    )]
    Trace {
        /// An address of either family, or a node's number as `hextet mesh peers` shows it.
        to: String,
        /// The node to ask who is who.
        #[command(flatten)]
        question: Question,
    },
    /// Show who is next to whom in the whole mesh.
    #[command(
        after_help = "This machine's node asks all others, which takes up to three seconds. Who does not answer is named by its neighbours.\n\n\
        Examples:\n  hextet mesh topology\n  hextet mesh topology --json | jq -r '.links[] | select(.round_trip_ms > 100) | .ends | join(\" \")'"
    )]
    Topology(Question),
    /// Draw the whole mesh: an SVG picture.
    #[command(
        after_help = "A page that is always new is at http://ADDRESS/map, where `metrics` in the node's configuration names the address.\n\n\
        Example:\n  hextet mesh map > mesh.svg"
    )]
    Map {
        /// The node's socket.
        #[arg(long, env = "HEXTET_MESH", default_value = "/run/hextet/mesh.sock", value_hint = ValueHint::FilePath)]
        socket: PathBuf,
    },
    /// Make an invitation for one node, or one more registry.
    #[command(
        after_help = "Examples:\n  hextet mesh token --group web\n  hextet mesh token --class registry\n  hextet mesh token --email anna@example.org"
    )]
    Token(Token),
    /// Show where nodes ask to be let in without a token.
    #[command(after_help = "Example:\n  hextet mesh door")]
    Door {
        /// Whom to ask.
        #[command(flatten)]
        registry: RegistrySocket,
    },
    /// List the nodes, and those that wait for an approval.
    #[command(
        after_help = "Examples:\n  hextet mesh nodes\n  hextet mesh nodes --json | jq -r .nodes[].prefixes[]"
    )]
    Nodes {
        /// How to answer.
        #[command(flatten)]
        output: Output,
        /// Whom to ask.
        #[command(flatten)]
        registry: RegistrySocket,
    },
    /// Let a node in that waits.
    #[command(after_help = "Example:\n  hextet mesh approve 3Xk…")]
    Approve {
        /// Its key, as `hextet mesh nodes` shows it.
        #[arg(allow_hyphen_values = true)]
        key: String,
        /// Whom to ask.
        #[command(flatten)]
        registry: RegistrySocket,
    },
    /// Send a node away that waits.
    #[command(after_help = "Example:\n  hextet mesh refuse 3Xk…")]
    Refuse {
        /// Its key, as `hextet mesh nodes` shows it.
        #[arg(allow_hyphen_values = true)]
        key: String,
        /// Whom to ask.
        #[command(flatten)]
        registry: RegistrySocket,
    },
    /// Revoke all certificates of a node.
    #[command(
        after_help = "It comes back with a new token alone; its addresses stay its own until its last certificate \
        would have ended.\n\nExample:\n  hextet mesh revoke 00000000000000ff"
    )]
    Revoke {
        /// Its number, as `hextet mesh nodes` shows it.
        node: NodeId,
        /// Whom to ask.
        #[command(flatten)]
        registry: RegistrySocket,
    },
    /// List the network's registries.
    #[command(
        after_help = "Where there are two, each lets nodes in, renews and revokes, and hears of what the other did within a second; \
        nodes ask the other one when one is lost.\n\n\
        A second one, on another machine; afterwards `hextet registry` starts it as it does the first:\n  \
        hextet mesh token --class registry          # beside the first\n  \
        echo 'url = \"https://second.example:8443\"' > /etc/hextet/registry.toml\n  \
        echo 'join = \"https://first.example:8443#…\"' >> /etc/hextet/registry.toml\n  \
        hextet registry\n\n\
        Examples:\n  hextet mesh registries\n  hextet mesh registries --json | jq -r '.registries[].url'"
    )]
    Registries {
        /// How to answer.
        #[command(flatten)]
        output: Output,
        /// Whom to ask.
        #[command(flatten)]
        registry: RegistrySocket,
    },
    /// Take a registry out of the network, whether it is there or lost for ever.
    #[command(
        after_help = "The one that is left has all addresses that are free, after ten minutes in which it lets nobody new in and hears of nodes \
        that the other let in last.\n\n\
        Beside the registry that holds the root key this ends the other's key, too: what it signs from then on counts no more.\n\n\
        Examples:\n  hextet mesh registry-remove https://second.example:8443\n  \
        hextet mesh registry-remove https://second.example:8443 --distrust"
    )]
    RegistryRemove {
        /// Where nodes reach it, as `hextet mesh registries` shows it.
        #[arg(value_hint = ValueHint::Url)]
        url: RegistryUrl,
        /// Its key is in wrong hands: certificates that it signed count no more, and its nodes come back with new tokens.
        #[arg(long)]
        distrust: bool,
        /// Whom to ask.
        #[command(flatten)]
        registry: RegistrySocket,
    },
    /// Show what holds for the whole network, or change it.
    #[command(
        after_help = "Examples:\n  hextet mesh params\n  hextet mesh params --hello-secs 2 --gain 3\n  \
        hextet mesh params --rules rules.toml\n\n\
        Rules, of which the first that fits decides:\n  \
        default = \"deny\"\n  \
        [[rule]]\n  from = [\"web\"]           # groups; without them, everybody\n  to = [\"db\"]\n  \
        protocol = \"tcp\"        # any, icmp, tcp, udp or a number\n  \
        ports = [\"5432\", \"8000-8010\"]\n  action = \"allow\""
    )]
    Params(Params),
}

/// `hextet mesh status`, `peers`, `routes`.
#[derive(Debug, Args)]
pub struct Question {
    /// The node's socket.
    #[arg(long, env = "HEXTET_MESH", default_value = "/run/hextet/mesh.sock", value_hint = ValueHint::FilePath)]
    pub socket: PathBuf,
    /// How to answer.
    #[command(flatten)]
    pub output: Output,
}

/// `hextet mesh join`.
#[derive(Debug, Args)]
pub struct Join {
    /// As `hextet mesh token` or `hextet mesh door` printed it.
    #[arg(env = "HEXTET_MESH_INVITATION", hide_env_values = true)]
    pub invitation: Invitation,
    /// Where the key is kept, and what the registry answers.
    #[arg(long, default_value = "/var/lib/hextet/mesh", value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,
    /// What administrators see.
    #[arg(long)]
    pub name: Option<Label>,
    /// Where this is, the closest first: a country, a continent, or what the registry knows.
    #[arg(long, value_delimiter = ',')]
    pub community: Vec<Label>,
    /// Forward nothing for others.
    #[arg(long)]
    pub client: bool,
}

/// `hextet mesh token`.
#[derive(Debug, Args)]
pub struct Token {
    /// What its bearer becomes: node, client, registry (one more, for `join` in its configuration) or anonymous.
    #[arg(long, default_value_t = Class::Node)]
    pub class: Class,
    /// A group that its bearer is in; may be given again.
    #[arg(long)]
    pub group: Vec<Label>,
    /// How long it is good for, in minutes.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=MAX_TOKEN_MINUTES))]
    pub minutes: u32,
    /// Send it there, too.
    #[arg(long)]
    pub email: Option<String>,
    /// Whom to ask.
    #[command(flatten)]
    pub registry: RegistrySocket,
}

/// `hextet mesh params`.
#[derive(Debug, Args)]
pub struct Params {
    /// How long a certificate counts.
    #[arg(long, value_name = "SECONDS")]
    pub lifetime_secs: Option<u32>,
    /// How much longer one counts that could not be renewed.
    #[arg(long, value_name = "SECONDS")]
    pub grace_secs: Option<u32>,
    /// Between Hellos to a neighbour.
    #[arg(long, value_name = "SECONDS")]
    pub hello_secs: Option<u16>,
    /// Tunnels by chance.
    #[arg(long)]
    pub random: Option<u8>,
    /// Tunnels to the nearest.
    #[arg(long)]
    pub nearest: Option<u8>,
    /// Tunnels that shorten paths.
    #[arg(long)]
    pub gain: Option<u8>,
    /// Tunnels in all.
    #[arg(long)]
    pub most: Option<u8>,
    /// Who may talk to whom, in place of what holds: a file in TOML.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub rules: Option<PathBuf>,
    /// How to answer.
    #[command(flatten)]
    pub output: Output,
    /// Whom to ask.
    #[command(flatten)]
    pub registry: RegistrySocket,
}
