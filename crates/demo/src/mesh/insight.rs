//! What a node tells of itself and of the whole mesh.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{MEETING, Mesh, member::Member};
use crate::check::{expect, wait_for};

/// Who is scraped.
const HERE: &str = "n1";
const METRICS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9469);
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Map {
    nodes: Vec<Spot>,
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct Spot {
    node: String,
    answered: bool,
}

#[derive(Deserialize)]
struct Link {
    ends: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Hop {
    node: Option<String>,
    said: String,
}

/// What the configuration of a node says of that.
pub fn config(name: &str) -> String {
    match name {
        HERE => format!("metrics = \"{METRICS}\"\n"),
        _ => String::new(),
    }
}

/// The map has all nodes and all tunnels that they show themselves; a trace names who is on the way; metrics can be scraped.
pub fn shown(m: &Mesh) -> Result<String> {
    let n1 = m.member(HERE)?;
    let links = wait_for(MEETING, || same(m, n1))?;
    let page = get(n1, "/map")?;
    let circles = page.matches("<circle").count();
    expect(
        circles == m.members().len(),
        format!("the page shows {circles} nodes"),
    )?;
    let metrics = get(n1, "/metrics")?;
    let up = metrics
        .lines()
        .filter(|line| line.starts_with("hextet_mesh_tunnel_up{") && line.ends_with(" 1"));
    let up = up.count();
    expect(
        up > 0 && metrics.trim_end().ends_with("# EOF"),
        format!("metrics: {metrics}"),
    )?;
    let way = wait_for(MEETING, || trace(m, "l1", "quiet"))?;
    Ok(format!(
        "the map has {circles} nodes, all of which answer, and {links} links; {HERE}'s metrics {up} strands that carry; l1 to quiet goes by {way}"
    ))
}

/// How many links there are, if the map shows those that the nodes themselves show.
fn same(m: &Mesh, at: &Member) -> Result<usize> {
    let mut tunnels: BTreeSet<BTreeSet<String>> = BTreeSet::new();
    for member in m.members() {
        let status = member.status()?;
        let up = status.tunnels.iter().filter(|tunnel| tunnel.up);
        let others = up.map(|tunnel| &tunnel.node);
        let others = others.chain(status.lan.iter().map(|beside| &beside.node));
        tunnels.extend(others.map(|other| [member.id.clone(), other.clone()].into()));
    }
    let map: Map = serde_json::from_str(&at.ask(&["topology"])?)?;
    let all = map.nodes.iter().all(|spot| {
        let is_member = m.members().iter().any(|member| member.id == spot.node);
        is_member && spot.answered
    });
    expect(
        all && map.nodes.len() == m.members().len(),
        "the map has others, or some don't answer",
    )?;
    let links: BTreeSet<BTreeSet<String>> = map.links.into_iter().map(|link| link.ends).collect();
    expect(
        links == tunnels,
        format!("the map has {links:?}, and nodes show {tunnels:?}"),
    )?;
    Ok(links.len())
}

fn trace(m: &Mesh, from: &str, to: &str) -> Result<String> {
    let (from, to) = (m.member(from)?, m.member(to)?);
    let hops: Vec<Hop> = serde_json::from_str(&from.ask(&["trace", &to.id])?)?;
    let last = hops.last().context("no hop")?;
    expect(
        last.said == "here" && last.node.as_ref() == Some(&to.id),
        format!("the way to {} ends elsewhere", to.name),
    )?;
    let names = hops.iter().map(|hop| match &hop.node {
        Some(node) => Ok(m.name_of(node)),
        None => anyhow::bail!("a hop that is nobody"),
    });
    Ok(names.collect::<Result<Vec<_>>>()?.join(" and "))
}

fn get(at: &Member, path: &str) -> Result<String> {
    let text = at.place.enter(|| -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&METRICS, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })??;
    let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
    expect(head.contains(" 200 "), format!("GET {path}: {head}"))?;
    Ok(body.to_owned())
}
