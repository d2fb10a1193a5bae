//! `hextet registry …` and `hextet mesh …`.

use std::{
    fs,
    io::{self, BufReader, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, Result};
use hextet_mesh::token::RegistryUrl;
use hextet_node::memory::Memory;
use hextet_registry::{
    Registry,
    client::{self, About},
    clock::now,
    config::Config,
    message::{Named, Nodes, ParametersShown, TokenAnswer, TokenRequest},
    restore,
    rules::RulesShown,
    told::{Registries, Removal, Removed},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{block_on, check_exists, node, told_to_end};
use crate::{
    cli::{self, Mesh, RegistryCommand, RegistryConfigFile, RegistrySocket},
    show,
};

/// No question has a body.
const NOTHING: Option<&()> = None;

/// `hextet registry …`.
pub fn registry(registry: cli::Registry) -> Result<ExitCode> {
    match registry.command {
        None => {
            let config = load(&registry.config)?;
            block_on(async {
                let told = told_to_end()?;
                Registry::open(&config).await?.run(told).await;
                Ok(())
            })?;
        }
        Some(RegistryCommand::Backup { registry }) => {
            let all = block_on(async {
                Ok(client::ask_admin(&registry.path, "/backup", NOTHING).await?)
            })?;
            io::stdout().write_all(&all).context("write the backup")?;
        }
        Some(RegistryCommand::Restore { overwrite, config }) => {
            let config = load(&config)?;
            let from = BufReader::new(io::stdin());
            let keys = block_on(async { Ok(restore(&config, from, overwrite).await?) })?;
            println!("{keys} keys restored.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn load(file: &RegistryConfigFile) -> Result<Config> {
    let way_out = "make one: the least is `url = \"https://HOST:8443\"`, where nodes reach it";
    check_exists(&file.config, way_out)?;
    Ok(Config::load(&file.config)?)
}

/// Nothing in it is necessary, nor the file itself where it is looked for first.
fn node_config(path: &Path) -> Result<hextet_node::config::Config> {
    match path.exists() || path != Path::new("/etc/hextet/mesh.toml") {
        true => hextet_node::config::Config::load(path),
        false => Ok(hextet_node::config::Config::default()),
    }
}

/// `hextet mesh …`.
pub fn mesh(mesh: Mesh) -> Result<ExitCode> {
    match mesh {
        Mesh::Join(join) => return block_on(self::join(join)),
        Mesh::Run { config } => {
            let config = node_config(&config)?;
            block_on(async { hextet_node::run(config, told_to_end()?).await })?;
        }
        Mesh::Tunnels { socket } => hextet_tunnels::process::serve(&socket)?,
        Mesh::Status(question) => node::status(&question)?,
        Mesh::Peers(question) => node::peers(&question)?,
        Mesh::Routes(question) => node::routes(&question)?,
        Mesh::Trace { to, question } => node::trace(&to, &question)?,
        Mesh::Topology(question) => node::topology(&question)?,
        Mesh::Map { socket } => node::map(&socket)?,
        Mesh::Token(token) => {
            let request = TokenRequest {
                class: token.class.to_string(),
                groups: token.group.iter().map(ToString::to_string).collect(),
                minutes: token.minutes,
                email: token.email,
            };
            let answer: TokenAnswer = ask(&token.registry, "/token", Some(&request))?;
            println!("{}", answer.invitation);
        }
        Mesh::Door { registry } => {
            let answer: TokenAnswer = ask(&registry, "/door", NOTHING)?;
            println!("{}", answer.invitation);
        }
        Mesh::Nodes { output, registry } => {
            let nodes: Nodes = ask(&registry, "/nodes", NOTHING)?;
            match output.json {
                true => println!("{}", serde_json::to_string_pretty(&nodes)?),
                false => print!("{}", show_nodes(&nodes)),
            }
        }
        Mesh::Approve { key, registry } => {
            let node: Named = ask(&registry, "/approve", Some(&Named { name: key }))?;
            println!("Node {} is in.", node.name);
        }
        Mesh::Refuse { key, registry } => {
            ask::<()>(&registry, "/refuse", Some(&Named { name: key }))?;
        }
        Mesh::Revoke { node, registry } => {
            let name = node.to_string();
            ask::<()>(&registry, "/revoke", Some(&Named { name }))?;
        }
        Mesh::Registries { output, registry } => {
            let all: Registries = ask(&registry, "/registries", NOTHING)?;
            match output.json {
                true => println!("{}", serde_json::to_string_pretty(&all)?),
                false => println!("{}", show_registries(&all)),
            }
        }
        Mesh::RegistryRemove {
            url,
            distrust,
            registry,
        } => remove_registry(&url, distrust, &registry)?,
        Mesh::Params(params) => self::params(&params)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn ask<A: DeserializeOwned>(
    registry: &RegistrySocket,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<A> {
    let answer = block_on(async { Ok(client::ask_admin(&registry.path, path, body).await?) })?;
    serde_json::from_slice(&answer).context("understand the registry's answer")
}

fn params(params: &cli::Params) -> Result<()> {
    let rules = params.rules.as_deref().map(read_rules).transpose()?;
    let change = ParametersShown {
        rules,
        lifetime_secs: params.lifetime_secs,
        grace_secs: params.grace_secs,
        hello_secs: params.hello_secs,
        random: params.random,
        nearest: params.nearest,
        gain: params.gain,
        most: params.most,
        ..ParametersShown::default()
    };
    let shown: ParametersShown = ask(&params.registry, "/parameters", Some(&change))?;
    let json = serde_json::to_value(&shown)?;
    if params.output.json {
        println!("{}", serde_json::to_string_pretty(&json)?);
        return Ok(());
    }
    let mut table = show::table(&["parameter", "value"]);
    for (name, value) in json.as_object().into_iter().flatten() {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        table.add_row([name.clone(), value]);
    }
    println!("{table}");
    Ok(())
}

fn read_rules(path: &Path) -> Result<RulesShown> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let rules = RulesShown::parse(&text);
    rules.with_context(|| format!("understand {}", path.display()))
}

fn show_registries(all: &Registries) -> String {
    let mut table = show::table(&["registry", "root key", "heard"]);
    for registry in &all.registries {
        let heard = match (registry.is_this, registry.heard, &registry.away) {
            (true, ..) => "this one".to_owned(),
            (_, None, None) => "not yet".to_owned(),
            (_, Some(at), None) => ago(at),
            (_, None, Some(why)) => format!("never: {why}"),
            (_, Some(at), Some(why)) => format!("{}: {why}", ago(at)),
        };
        let root = match registry.holds_root {
            Some(true) => "here",
            Some(false) => "not here",
            None => "",
        };
        table.add_row([registry.url.clone(), root.to_owned(), heard]);
    }
    table.to_string()
}

fn ago(at: u64) -> String {
    format!("{} s ago", now().0.saturating_sub(at))
}

fn remove_registry(url: &RegistryUrl, distrust: bool, registry: &RegistrySocket) -> Result<()> {
    let removal = Removal {
        url: url.to_string(),
        distrust,
    };
    let removed: Removed = ask(registry, "/registries/remove", Some(&removal))?;
    match removed.is_closed {
        true => println!("{url} is no registry of this network any more."),
        false => println!(
            "Nodes ask {url} no more. The root key is not here, so that its key counts on: restore a backup of the registry that had it, and take {url} out there, too."
        ),
    }
    Ok(())
}

fn show_nodes(nodes: &Nodes) -> String {
    let mut table = show::table(&["node", "name", "class", "prefixes", "groups", "serial", ""]);
    for node in &nodes.nodes {
        table.add_row([
            node.node.clone(),
            node.name.clone().unwrap_or_default(),
            node.class.clone(),
            node.prefixes.join(" "),
            node.groups.join(" "),
            node.serial.to_string(),
            if node.revoked { "revoked" } else { "" }.to_owned(),
        ]);
    }
    let mut text = format!("{table}\n");
    if !nodes.waiting.is_empty() {
        let mut table = show::table(&["waits for an approval", "name"]);
        for waiting in &nodes.waiting {
            table.add_row([
                waiting.key.clone(),
                waiting.name.clone().unwrap_or_default(),
            ]);
        }
        text.push_str(&format!("\n{table}\n"));
    }
    text
}

/// 2 while an administrator has to approve.
async fn join(join: cli::Join) -> Result<ExitCode> {
    let memory = Memory::open(&join.directory)?;
    let key = memory.key()?;
    let about = About {
        name: join.name,
        communities: join.community,
        client: join.client,
    };
    let joined = client::join(&join.invitation, &key, about, now()).await?;
    let Some(certificate) = &joined.certificate else {
        println!(
            "Key {} waits for an approval (hextet mesh approve). Then ask again.",
            key.public()
        );
        return Ok(ExitCode::from(2));
    };
    let body = &certificate.body;
    memory.keep_identity(&joined.trust, certificate)?;
    let prefixes: Vec<String> = body
        .prefixes
        .iter()
        .chain(&body.ipv4)
        .map(ToString::to_string)
        .collect();
    println!(
        "Node {} of network {}: {}.",
        body.node,
        body.network,
        prefixes.join(", ")
    );
    Ok(ExitCode::SUCCESS)
}
