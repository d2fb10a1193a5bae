//! `hextet mesh status|peers|routes`: how this machine's node stands.

use anyhow::Result;
use hextet_node::{
    control,
    status::{Beside, Direct, Route, Status, Tunnel},
};

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
