//! What people see: tables on a terminal, plain text in a pipe.

use std::{io::IsTerminal, net::IpAddr};

use comfy_table::{ContentArrangement, Table, presets};
use hextet_agent::{
    bgp::Drain,
    report::{MeshStatus, PeerStatus, PlannedWrite, PortStatus, RouterStatus, Status},
};
use hextet_model::neutron::Direction;
use hextet_server::admin::Metered;
use hextet_single::{expose::Exposed, sites};

/// A table with these headings; with lines around its cells only on a terminal.
pub fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    let terminal = std::io::stdout().is_terminal();
    table.load_style(if terminal {
        presets::UTF8_FULL_CONDENSED
    } else {
        presets::NOTHING
    });
    table.set_content_arrangement(if terminal {
        ContentArrangement::Dynamic
    } else {
        ContentArrangement::Disabled
    });
    table.set_header(headings.iter().copied());
    table
}

/// `hextet status`.
pub fn status(status: &Status) -> String {
    let server = match status.server_silent_secs {
        Some(secs) if secs <= 30 => "connected".to_owned(),
        Some(secs) => format!("silent for {secs} s; what runs goes on"),
        None => "not heard of since the start; what runs goes on".to_owned(),
    };
    let kernel = &status.kernel;
    let mut text = format!(
        "host      {} (hextet {})\nserver    {server}, intent at revision {}\n\
         kernel    {} objects, {} writes, {} of them mended what others changed\n",
        status.host, status.version, status.revision, kernel.objects, kernel.writes, kernel.mended,
    );
    match status.drain {
        Drain::No => {}
        Drain::Leaving => text.push_str("draining  its routes are the last choice\n"),
        Drain::Drained => text.push_str("drained   it announces nothing: hextet agent resume\n"),
    }
    for failure in &kernel.failed {
        text.push_str(&format!("failed    {failure}\n"));
    }
    if let Some(mesh) = &status.mesh {
        text.push_str(&format!("mesh      {}\n", self::mesh(mesh)));
    }
    if !status.peers.is_empty() {
        text.push_str(&format!("\n{}\n", peers(&status.peers)));
    }
    if !status.ports.is_empty() {
        text.push_str(&format!("\n{}\n", ports(&status.ports)));
    }
    if !status.routers.is_empty() {
        text.push_str(&format!("\n{}\n", routers(&status.routers)));
    }
    text
}

fn mesh(mesh: &MeshStatus) -> String {
    let home = mesh
        .home
        .map(|home| format!("{home}, "))
        .unwrap_or_default();
    match (&mesh.away, mesh.is_connected) {
        (Some(why), _) => format!("{home}the node is away: {why}; what runs goes on"),
        (None, true) => format!("{home}connected"),
        (None, false) => format!("{home}no other node is heard"),
    }
}

fn peers(peers: &[PeerStatus]) -> Table {
    let mut table = table(&[
        "peer", "address", "AS", "state", "for", "received", "sent", "BFD",
    ]);
    for peer in peers {
        let address = match &peer.interface {
            Some(interface) => format!("{}%{interface}", peer.address),
            None => peer.address.to_string(),
        };
        let counts = |by_family: &std::collections::BTreeMap<String, usize>| {
            by_family.values().sum::<usize>().to_string()
        };
        let state = match &peer.last_error {
            Some(error) if peer.state != "Established" => format!("{} ({error})", peer.state),
            _ => peer.state.clone(),
        };
        table.add_row([
            peer.name.clone(),
            address,
            peer.asn.to_string(),
            state,
            format!("{} s", peer.for_secs),
            counts(&peer.received),
            counts(&peer.sent),
            peer.bfd.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table
}

/// `hextet server meters`.
pub fn meters(metered: &[Metered]) -> Table {
    let mut table = table(&[
        "label",
        "name",
        "router",
        "host",
        "direction",
        "packets",
        "octets",
    ]);
    for row in metered {
        let direction = match row.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        table.add_row([
            row.metering_label_id.to_string(),
            row.metering_label_name.clone(),
            row.router_id.to_string(),
            row.host.to_string(),
            direction.to_owned(),
            row.packets.to_string(),
            row.octets.to_string(),
        ]);
    }
    table
}

/// `hextet expose`.
pub fn exposed(ports: &[Exposed], sites: &sites::All) -> String {
    let mut table = table(&["workload", "protocol", "port", "workload's port"]);
    for row in ports {
        let exposure = &row.exposure;
        table.add_row([
            row.name.clone(),
            exposure.protocol.clone(),
            exposure.external_port.to_string(),
            exposure.internal_port.to_string(),
        ]);
    }
    let mut text = format!("{table}\n");
    if !sites.is_empty() {
        let mut table = self::table(&["site", "workload", "its ports for 80 and 443"]);
        for (name, site) in sites {
            let ports = format!("{} {}", site.http, site.https);
            table.add_row([name.to_string(), site.workload.clone(), ports]);
        }
        text.push_str(&format!("\n{table}\n"));
    }
    text
}

/// `hextet port list`.
pub fn ports(ports: &[PortStatus]) -> Table {
    let mut table = table(&["port", "name", "network", "link", "addresses", "state"]);
    for port in ports {
        let mut addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
        addresses.extend(port.delegated.iter().map(ToString::to_string));
        table.add_row([
            port.id.to_string(),
            port.name.clone(),
            port.network_name.clone(),
            port.link.to_string(),
            addresses.join(" "),
            state(port.down.as_deref()),
        ]);
    }
    table
}

fn routers(routers: &[RouterStatus]) -> Table {
    let mut table = table(&[
        "router",
        "name",
        "namespace",
        "networks",
        "addresses",
        "outside",
        "gateway host",
        "state",
    ]);
    let words = |addresses: &[IpAddr]| {
        let words: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        words.join(" ")
    };
    for router in routers {
        let host = router.gateway_host.as_ref();
        table.add_row([
            router.id.to_string(),
            router.name.clone(),
            router.netns.clone(),
            router.networks.join(" "),
            words(&router.addresses),
            words(&router.external),
            host.map_or_else(|| "-".to_owned(), ToString::to_string),
            state(router.down.as_deref()),
        ]);
    }
    table
}

fn state(down: Option<&str>) -> String {
    down.map_or_else(|| "ACTIVE".to_owned(), |why| format!("DOWN: {why}"))
}

/// `hextet plan`.
pub fn plan(writes: &[PlannedWrite]) -> String {
    if writes.is_empty() {
        return "The kernel is what it has to be: nothing to write.\n".to_owned();
    }
    let colour = std::io::stdout().is_terminal();
    let mut text = String::new();
    for write in writes {
        let (sign, shade) = match write.operation.as_str() {
            "create" => ('+', 32),
            "delete" => ('-', 31),
            _ => ('~', 33),
        };
        if colour {
            text.push_str(&format!("\x1b[{shade}m{sign} {}\x1b[0m\n", write.object));
        } else {
            text.push_str(&format!("{sign} {}\n", write.object));
        }
    }
    text.push_str(&format!("{} writes\n", writes.len()));
    text
}
