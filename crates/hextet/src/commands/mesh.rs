//! `hextet registry …` and `hextet mesh …`.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use hextet_mesh::key::SigningKey;
use hextet_registry::{
    Registry,
    authority::random,
    client::{self, About, Joined},
    clock::now,
    config::Config,
    message::{Blob, Named, Network, Nodes, ParametersShown, TokenAnswer, TokenRequest},
    restore,
    rules::RulesShown,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{block_on, check_exists, told_to_end};
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

/// `hextet mesh …`.
pub fn mesh(mesh: Mesh) -> Result<ExitCode> {
    match mesh {
        Mesh::Join(join) => return block_on(self::join(join)),
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
    let directory = &join.directory;
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let key = own_key(&directory.join("key"))?;
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
    keep(&directory.join("network.json"), &joined)?;
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

/// Drawn once, and on the disk before anybody hears of it.
fn own_key(path: &Path) -> Result<SigningKey> {
    let what = || format!("keep this node's key in {}", path.display());
    if !path.exists() {
        let seed: [u8; 32] = random()?;
        write_private(path, &serde_json::to_vec(&Blob(seed.to_vec()))?).with_context(what)?;
    }
    let text = fs::read(path).with_context(what)?;
    let seed: Blob = serde_json::from_slice(&text).with_context(what)?;
    let Ok(seed) = <[u8; 32]>::try_from(seed.0.as_slice()) else {
        bail!(
            "{} holds no key: remove it, and ask for another token",
            path.display()
        );
    };
    SigningKey::from_seed(&seed).with_context(what)
}

fn keep(path: &Path, joined: &Joined) -> Result<()> {
    let network = Network {
        root: Blob(joined.trust.root().0.to_vec()),
        parameters: Blob::of(joined.trust.parameters()),
        revocations: joined.trust.revocations().map(Blob::of).collect(),
        certificate: joined.certificate.as_ref().map(Blob::of),
    };
    let text = serde_json::to_vec_pretty(&network)?;
    write_private(path, &text).with_context(|| format!("write {}", path.display()))
}

/// As a whole or not at all.
fn write_private(path: &Path, octets: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(octets)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}
