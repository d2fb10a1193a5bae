//! `hextet mesh status|peers|routes|trace|topology|map`: how this machine's node stands, and the mesh as it sees it.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use hextet_mesh::node::home_of;
use hextet_node::{
    control,
    map::{self, Map},
    status::{Beside, Direct, Route, Status, Tunnel},
    trace::{self, Hop, Said},
};
use hextet_types::{Family, Prefix};
use serde::Serialize;

use super::block_on;
use crate::{cli::MeshQuestion, show};

fn ask(question: &MeshQuestion) -> Result<Status> {
    block_on(control::ask(&question.socket))
}

/// `hextet mesh status`.
pub fn status(question: &MeshQuestion) -> Result<()> {
    let status = ask(question)?;
    if question.output.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(());
    }
    println!("node        {}", status.node);
    println!("network     {}", status.network);
    let prefixes: Vec<String> = status.prefixes.iter().map(ToString::to_string).collect();
    println!("prefixes    {}", prefixes.join(" "));
    if let Some(home) = status.home {
        println!("address     {home}");
    }
    println!("reach       {}", status.reach);
    for at in &status.candidates {
        println!("            {at}");
    }
    println!("known       {} other nodes", status.contacts);
    println!("parameters  version {}", status.parameters);
    println!("certificate serial {}", status.certificate.serial);
    if status.resuming {
        println!("resuming    routes of an earlier run stand until others have told what is good");
    }
    println!();
    println!("{}", tunnels(&status.tunnels));
    if !status.lan.is_empty() {
        println!(
            "\nWithout a tunnel, on the same network:\n{}",
            beside(&status.lan)
        );
    }
    if !status.direct.is_empty() {
        println!(
            "\nRoutes of this host that go before the mesh's:\n{}",
            direct(&status.direct)
        );
    }
    Ok(())
}

/// `hextet mesh peers`.
pub fn peers(question: &MeshQuestion) -> Result<()> {
    let status = ask(question)?;
    match question.output.json {
        true => println!("{}", serde_json::to_string_pretty(&status.tunnels)?),
        false => println!("{}", tunnels(&status.tunnels)),
    }
    Ok(())
}

/// `hextet mesh routes`.
pub fn routes(question: &MeshQuestion) -> Result<()> {
    let status = ask(question)?;
    match question.output.json {
        true => println!("{}", serde_json::to_string_pretty(&status.routes)?),
        false => println!("{}", ways(&status.routes)),
    }
    Ok(())
}

/// `hextet mesh topology`.
pub fn topology(question: &MeshQuestion) -> Result<()> {
    let map = block_on(control::map(&question.socket))?;
    match question.output.json {
        true => println!("{}", serde_json::to_string_pretty(&map)?),
        false => println!("{}", neighbours(&map)),
    }
    Ok(())
}

/// `hextet mesh map`.
pub fn map(socket: &Path) -> Result<()> {
    let map = block_on(control::map(socket))?;
    print!("{}", map::svg(&map));
    Ok(())
}

fn neighbours(map: &Map) -> String {
    let mut by_node: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for link in &map.links {
        let [one, other] = &link.ends;
        let far = link
            .round_trip_ms
            .map_or_else(String::new, |millis| format!(" ({millis:.1} ms)"));
        let how = if link.beside { " without a tunnel" } else { "" };
        for (node, neighbour) in [(one, other), (other, one)] {
            let shown = by_node.entry(node).or_default();
            shown.push(format!("{neighbour}{far}{how}"));
        }
    }
    let mut table = show::table(&["node", "address", "", "next to"]);
    for spot in &map.nodes {
        let state = match (spot.this, spot.answered) {
            (true, _) => "this one",
            (false, true) => "",
            (false, false) => "no answer",
        };
        let home = spot.home.map(|home| home.to_string());
        let next_to = by_node.get(spot.node.as_str());
        table.add_row([
            spot.node.clone(),
            home.unwrap_or_default(),
            state.to_owned(),
            next_to.map(|all| all.join(", ")).unwrap_or_default(),
        ]);
    }
    table.to_string()
}

/// A hop, and who that is.
#[derive(Serialize)]
struct Named {
    #[serde(flatten)]
    hop: Hop,
    /// The node's number.
    node: Option<String>,
    /// Of the first hop: by what.
    by: Option<String>,
}

/// `hextet mesh trace`.
pub fn trace(to: &str, question: &MeshQuestion) -> Result<()> {
    let status = ask(question)?;
    let address = destination(to, &status)?;
    let json = question.output.json;
    let mut hops = Vec::new();
    trace::trace(address, |hop| {
        let named = named(hop, &status);
        if !json {
            println!("{}", line(&named));
        }
        hops.push(named);
        Ok(())
    })?;
    if json {
        println!("{}", serde_json::to_string_pretty(&hops)?);
        return Ok(());
    }
    match hops.last().map(|last| last.hop.said) {
        Some(Said::Here) => {}
        Some(Said::NoFurther) => {
            println!("From there it goes no further: no route, or it is not let through.")
        }
        _ => println!(
            "Nothing more was heard: no route back, or echo requests are not answered there."
        ),
    }
    Ok(())
}

fn destination(to: &str, status: &Status) -> Result<IpAddr> {
    if let Ok(address) = to.parse() {
        return Ok(address);
    }
    let mut nodes = status.nodes.iter();
    let known = nodes.find(|known| known.node == to);
    let prefix = known.and_then(|known| {
        known
            .prefixes
            .iter()
            .find(|prefix| prefix.family() == Family::V6)
    });
    let home = prefix.and_then(|prefix| home_of(*prefix)).map(IpAddr::V6);
    home.with_context(|| {
        format!("'{to}' is no address, and no node that this one has heard of: `hextet mesh peers` and `hextet mesh routes` show some")
    })
}

fn named(hop: Hop, status: &Status) -> Named {
    let holds = |prefixes: &[Prefix]| {
        let mut prefixes = prefixes.iter();
        hop.address
            .is_some_and(|at| prefixes.any(|prefix| prefix.contains(at)))
    };
    let mut nodes = status.nodes.iter();
    let node = match holds(&status.prefixes) {
        true => Some(status.node.clone()),
        false => nodes
            .find(|known| holds(&known.prefixes))
            .map(|known| known.node.clone()),
    };
    let by = node.as_ref().filter(|_| hop.number == 1).and_then(|node| {
        let mut tunnels = status
            .tunnels
            .iter()
            .filter(|tunnel| tunnel.up && tunnel.node == *node);
        let tunnel = tunnels.next().map(|tunnel| match tunnel.endpoint {
            Some(at) => format!("{} to {at}", tunnel.interface),
            None => tunnel.interface.clone(),
        });
        let beside = status.lan.iter().find(|beside| beside.node == *node);
        let beside = beside.map(|beside| match &beside.interface {
            Some(interface) => format!("{interface}, without a tunnel"),
            None => "without a tunnel".to_owned(),
        });
        beside.or(tunnel)
    });
    Named { hop, node, by }
}

fn line(named: &Named) -> String {
    let Named { hop, node, by } = named;
    let address = hop
        .address
        .map_or_else(|| "*".to_owned(), |at| at.to_string());
    let millis = hop
        .round_trip_ms
        .map_or_else(String::new, |ms| format!("{ms:.1} ms"));
    let node = node.as_deref().unwrap_or_default();
    let by = by.as_deref().unwrap_or_default();
    let line = format!(
        "{:>2}  {address:<39}  {millis:>10}  {node:<16}  {by}",
        hop.number
    );
    line.trim_end().to_owned()
}

fn tunnels(tunnels: &[Tunnel]) -> String {
    let headings = [
        "node",
        "interface",
        "for",
        "stage",
        "endpoint",
        "rtt ms",
        "routes",
        "out",
        "in",
        "why",
    ];
    let mut table = show::table(&headings);
    for tunnel in tunnels {
        table.add_row([
            tunnel.node.clone(),
            tunnel.interface.clone(),
            match tunnel.ours {
                true => tunnel.kind.clone(),
                false => format!("{} (theirs)", tunnel.kind),
            },
            tunnel.stage.clone(),
            tunnel
                .endpoint
                .map_or_else(|| "-".to_owned(), |at| at.to_string()),
            tunnel
                .round_trip_ms
                .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}")),
            tunnel.routes.to_string(),
            tunnel.octets_out.to_string(),
            tunnel.octets_in.to_string(),
            tunnel.reason.clone(),
        ]);
    }
    table.to_string()
}

fn beside(lan: &[Beside]) -> String {
    let mut table = show::table(&["node", "interface", "address", "rtt ms"]);
    for one in lan {
        table.add_row([
            one.node.clone(),
            one.interface.clone().unwrap_or_default(),
            one.address.to_string(),
            one.round_trip_ms
                .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}")),
        ]);
    }
    table.to_string()
}

fn direct(routes: &[Direct]) -> String {
    let mut table = show::table(&["to", "interface", ""]);
    for route in routes {
        table.add_row([
            route.to.to_string(),
            route.interface.clone().unwrap_or_default(),
            match route.good {
                true => "answers",
                false => "has failed: the mesh has taken over",
            }
            .to_owned(),
        ]);
    }
    table.to_string()
}

fn ways(routes: &[Route]) -> String {
    let mut table = show::table(&["to", "from", "for", "by node", "interface", "distance", ""]);
    for route in routes {
        let via = route.via.as_ref();
        table.add_row([
            route.to.to_string(),
            route.from.map(|from| from.to_string()).unwrap_or_default(),
            route.class.clone(),
            match via {
                Some(hop) => hop.node.clone().unwrap_or_else(|| hop.next_hop.to_string()),
                None => "here".to_owned(),
            },
            via.and_then(|hop| hop.interface.clone())
                .unwrap_or_default(),
            match route.metric {
                u16::MAX => "-".to_owned(),
                metric if route.class == "latency" => {
                    format!("{:.1} ms", f64::from(metric) / 10.0)
                }
                metric => metric.to_string(),
            },
            match (route.chosen, route.feasible) {
                (true, _) => "chosen",
                (false, true) => "",
                (false, false) => "not feasible",
            }
            .to_owned(),
        ]);
    }
    table.to_string()
}
