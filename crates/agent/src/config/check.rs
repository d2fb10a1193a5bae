//! What a configuration may say although it cannot be. Each refusal names the key, the reason and the way out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use anyhow::{Result, bail, ensure};
use hextet_api::agent::is_tunnel_address;
use hextet_model::plan::HostConfig;
use hextet_types::{Asn, IfName, Prefix};

use super::{AgentConfig, BgpConfig, PeerConfig};

/// What ports' interfaces are named by (`IfName::for_port`).
const PORT_NAMES: &str = "tap";
/// The longest path of a UNIX socket (`sockaddr_un`), in octets.
const MAX_SOCKET_PATH: usize = 107;
/// Of a physical network, in octets.
const MAX_PHYSICAL_NAME: usize = 64;
/// RFC 9494 §3 has 24 bits for it.
const MAX_LONG_LIVED: u32 = (1 << 24) - 1;

/// All of it.
///
/// # Errors
///
/// What cannot be.
pub fn check(config: &AgentConfig) -> Result<()> {
    check_server(&config.server)?;
    check_socket("control_socket", &config.control_socket)?;
    check_host(&config.host)?;
    check_tunnel(config.tunnel_address)?;
    check_socket("mesh_socket", &config.mesh_socket)?;
    ensure!(
        config.uplink.is_none() || config.bgp.is_none(),
        "uplink = \"mesh\" and [bgp]: a host has one uplink; leave one of them out"
    );
    match &config.bgp {
        Some(bgp) => check_bgp(bgp),
        None => Ok(()),
    }
}

fn check_server(server: &str) -> Result<()> {
    let way_out =
        "write the server's listener for agents as ADDRESS:PORT, NAME:PORT or [ADDRESS]:PORT";
    if let Some((scheme, rest)) = server.split_once("://") {
        let rest = rest.trim_end_matches('/');
        bail!(
            "server = \"{server}\" begins with a scheme, and this is no URL: without {scheme}:// it is \"{rest}\""
        );
    }
    let Some((host, port)) = server.rsplit_once(':') else {
        bail!(
            "server = \"{server}\" lacks a port: {way_out} (agents' port is 9697 unless `agents` in the server's configuration says otherwise)"
        );
    };
    ensure!(
        port.parse::<u16>().is_ok_and(|p| p != 0),
        "server = \"{server}\": '{port}' is no port: {way_out}"
    );
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    match bracketed {
        Some(address) => {
            let address = address.split_once('%').map_or(address, |(a, _)| a);
            ensure!(
                address.parse::<std::net::Ipv6Addr>().is_ok(),
                "server = \"{server}\": '{address}' in brackets is no IPv6 address: {way_out}"
            );
        }
        None => {
            ensure!(
                !host.contains(':'),
                "server = \"{server}\": an IPv6 address stands in brackets: \"[{host}]:{port}\""
            );
            let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            ensure!(
                !host.is_empty() && host.chars().all(named),
                "server = \"{server}\": '{host}' is neither an address nor a name: {way_out}"
            );
        }
    }
    Ok(())
}

fn check_socket(key: &str, path: &Path) -> Result<()> {
    let octets = path.as_os_str().len();
    ensure!(
        (1..=MAX_SOCKET_PATH).contains(&octets),
        "{key} = \"{}\": the path of a socket has 1 to {MAX_SOCKET_PATH} octets, not {octets}",
        path.display()
    );
    Ok(())
}

fn check_host(host: &HostConfig) -> Result<()> {
    let mac = host.gateway_mac;
    ensure!(
        !mac.is_multicast() && mac.octets() != [0; 6],
        "gateway_mac = \"{mac}\" is no interface's address: leave it out, or name one as 02:68:78:00:00:01"
    );
    let source = host.link_local_v4;
    ensure!(
        !(source.is_unspecified()
            || source.is_multicast()
            || source.is_broadcast()
            || source.is_loopback()),
        "link_local_v4 = \"{source}\" cannot be a source of ICMP errors: leave it out, or name one as 169.254.0.1"
    );
    ensure!(
        host.max_connections_per_port != 0,
        "max_connections_per_port = 0: no port could have a connection; leave it out for 16384"
    );
    check_physical(host)?;
    check_prefixes(host)?;
    for aggregate in &host.aggregates {
        check_aggregate(aggregate.prefix)?;
    }
    Ok(())
}

/// Other hosts send to it, with no interface besides.
fn check_tunnel(address: Option<IpAddr>) -> Result<()> {
    let Some(address) = address else {
        return Ok(());
    };
    ensure!(
        is_tunnel_address(address),
        "tunnel_address = \"{address}\": other hosts reach nobody there: name an address of this host that they have a route to, or leave it out"
    );
    Ok(())
}

fn check_physical(host: &HostConfig) -> Result<()> {
    let mut links = BTreeMap::new();
    for (physical, link) in &host.physical_networks {
        let length = physical.len();
        ensure!(
            (1..=MAX_PHYSICAL_NAME).contains(&length) && !physical.contains(char::is_control),
            "physical_networks has a name of {length} octets: one to {MAX_PHYSICAL_NAME} printable ones name a \
             physical network as networks do (provider:physical_network)"
        );
        if let Some(other) = links.insert(link, physical) {
            bail!(
                "physical_networks has {link} for {other} and for {physical}: a link is on one physical network; \
                 name another link for one of them"
            );
        }
    }
    Ok(())
}

/// What is named like a port passes nothing until a plan knows it: ports have to be, uplinks must not.
fn check_prefixes(host: &HostConfig) -> Result<()> {
    let begins = |name: &IfName| {
        host.port_prefixes
            .iter()
            .find(|p| name.as_str().starts_with(p.as_str()))
    };
    let ports = PORT_NAMES.parse::<IfName>()?;
    ensure!(
        begins(&ports).is_some(),
        "port_prefixes leaves \"{PORT_NAMES}\" out: ports are named so, and would pass packets before their \
         rules stand; add it"
    );
    let uplinks = host.uplinks.iter().chain(host.physical_networks.values());
    for uplink in uplinks.filter(|uplink| !host.exempt.contains(*uplink)) {
        if let Some(prefix) = begins(uplink) {
            bail!(
                "uplinks or physical_networks has {uplink}, which begins with \"{prefix}\" like a port and would pass nothing: add it to exempt, too"
            );
        }
    }
    Ok(())
}

fn check_aggregate(prefix: Prefix) -> Result<()> {
    let first = prefix.addr();
    let local = match first {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    ensure!(
        !prefix.is_default() && !first.is_multicast() && !first.is_loopback() && !local,
        "aggregates has {prefix}, which no host serves alone: name prefixes of your workloads' subnets"
    );
    Ok(())
}

fn check_bgp(bgp: &BgpConfig) -> Result<()> {
    ensure!(
        !bgp.peers.is_empty(),
        "[bgp] has no peers: add a [[bgp.peers]] section, or leave [bgp] out"
    );
    check_asn("[bgp] asn", bgp.asn)?;
    let id = bgp.router_id;
    ensure!(
        !id.is_unspecified(),
        "router_id = \"{id}\": RFC 6286 allows any but 0.0.0.0; take one of this host's IPv4 addresses, or \
         another number that no other speaker has"
    );
    ensure!(
        !matches!(bgp.hold_time_secs, 1 | 2),
        "hold_time_secs = {}: RFC 4271 allows 0 and 3 or more",
        bgp.hold_time_secs
    );
    ensure!(
        bgp.restart_time_secs <= 4095,
        "restart_time_secs = {}: at most 4095 (RFC 4724)",
        bgp.restart_time_secs
    );
    ensure!(
        bgp.long_lived_stale_secs <= MAX_LONG_LIVED,
        "long_lived_stale_secs = {}: at most {MAX_LONG_LIVED} (RFC 9494)",
        bgp.long_lived_stale_secs
    );
    ensure!(
        bgp.maximum_paths != 0,
        "maximum_paths = 0: no route could be used; 1 is one path at a time"
    );
    let mut names = BTreeSet::new();
    for peer in &bgp.peers {
        check_peer(peer)?;
        ensure!(
            names.insert(&peer.name),
            "two of the [[bgp.peers]] have the name \"{}\": status and logs tell them apart by it",
            peer.name
        );
    }
    Ok(())
}

/// RFC 7607, RFC 7300, RFC 6793: these are nobody's.
fn check_asn(what: &str, asn: Asn) -> Result<()> {
    ensure!(
        !matches!(asn, Asn(0 | 65_535 | u32::MAX) | Asn::TRANS),
        "{what} = {asn} is reserved: private ones are 64512 to 65534 and 4200000000 to 4294967294"
    );
    Ok(())
}

fn check_peer(peer: &PeerConfig) -> Result<()> {
    let name = &peer.name;
    ensure!(
        !name.is_empty() && !name.contains(char::is_control),
        "one of the [[bgp.peers]] has no name: give it one for status and logs"
    );
    check_asn(&format!("peer {name}: asn"), peer.asn)?;
    let address = peer.address;
    let broadcast = matches!(address, IpAddr::V4(a) if a.is_broadcast());
    ensure!(
        !address.is_unspecified() && !address.is_multicast() && !broadcast,
        "peer {name}: {address} is no router's address"
    );
    let link_local = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
    ensure!(
        !link_local || peer.interface.is_some(),
        "peer {name}: {address} is link-local and needs an interface"
    );
    ensure!(
        (10..=60_000).contains(&peer.bfd_interval_millis),
        "peer {name}: bfd_interval_millis must lie between 10 and 60000"
    );
    ensure!(
        peer.maximum_prefixes != 0,
        "peer {name}: maximum_prefixes = 0 would end the session at its first route: leave it out, or say more"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "server = 'controller.example:9697'\n\
        [host]\nhost = 'h1'\nuplinks = ['eth0']\n\
        [bgp]\nasn = 64512\nrouter_id = '10.255.0.1'\n\
        [[bgp.peers]]\nname = 's1'\naddress = 'fe80::1'\ninterface = 'eth0'\nasn = 64512\n";

    fn with(from: &str, to: &str) -> Result<()> {
        assert!(GOOD.contains(from), "{from}");
        check(&toml::from_str(&GOOD.replacen(from, to, 1))?)
    }

    #[test]
    fn servers_are_addresses_or_names_with_a_port() {
        for good in [
            "[2001:db8::1]:9697",
            "192.0.2.1:9697",
            "localhost:1",
            "[fe80::1%eth0]:9697",
        ] {
            let done = with("controller.example:9697", good);
            assert!(done.is_ok(), "{good}: {done:?}");
        }
        for (bad, words) in [
            (
                "https://controller.example:9697/",
                "without https:// it is \"controller.example:9697\"",
            ),
            ("controller.example", "lacks a port"),
            ("controller.example:", "'' is no port"),
            ("controller.example:0", "'0' is no port"),
            ("controller.example:99999", "'99999' is no port"),
            ("2001:db8::1:9697", "\"[2001:db8::1]:9697\""),
            ("[2001:db8::x]:9697", "is no IPv6 address"),
            (":9697", "neither an address nor a name"),
            ("controller.example/x:9697", "neither an address nor a name"),
        ] {
            let error = with("controller.example:9697", bad)
                .unwrap_err()
                .to_string();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_way_out() {
        assert!(with("eth0", "eth0").is_ok());
        let host = |more: &str| with("uplinks = ['eth0']", &format!("uplinks = ['eth0']\n{more}"));
        let bgp = |more: &str| with("asn = 64512", &format!("asn = 64512\n{more}"));
        let peer = |more: &str| with("name = 's1'", &format!("name = 's1'\n{more}"));
        let tunnel = |at: &str| {
            with(
                "server = '",
                &format!("tunnel_address = '{at}'\nserver = '"),
            )
        };
        assert!(tunnel("2001:db8::1").is_ok());
        let long = format!("control_socket = '/{}'\nserver = '", "x".repeat(107));
        for (refused, words) in [
            (with("server = '", &long), "1 to 107 octets"),
            (host("gateway_mac = '01:00:5e:00:00:01'"), "gateway_mac"),
            (host("link_local_v4 = '0.0.0.0'"), "link_local_v4"),
            (tunnel("fe80::1"), "tunnel_address"),
            (tunnel("224.0.0.1"), "tunnel_address"),
            (
                host("max_connections_per_port = 0"),
                "leave it out for 16384",
            ),
            (host("port_prefixes = ['veth']"), "add it"),
            (host("port_prefixes = []"), "add it"),
            (
                host("aggregates = [{ prefix = '::/0' }]"),
                "aggregates has ::/0",
            ),
            (
                host("aggregates = [{ prefix = 'ff00::/8' }]"),
                "aggregates has ff00::/8",
            ),
            (
                with("uplinks = ['eth0']", "uplinks = ['tap0']"),
                "add it to exempt",
            ),
            (with("asn = 64512", "asn = 0"), "[bgp] asn = 0 is reserved"),
            (with("10.255.0.1", "0.0.0.0"), "router_id"),
            (bgp("hold_time_secs = 2"), "RFC 4271"),
            (bgp("restart_time_secs = 4096"), "RFC 4724"),
            (bgp("long_lived_stale_secs = 16777216"), "RFC 9494"),
            (bgp("maximum_paths = 0"), "maximum_paths"),
            (
                with(
                    "interface = 'eth0'\nasn = 64512",
                    "interface = 'eth0'\nasn = 23456",
                ),
                "peer s1: asn = 23456",
            ),
            (with("name = 's1'", "name = ''"), "has no name"),
            (with("fe80::1", "ff02::1"), "is no router's address"),
            (with("interface = 'eth0'\n", ""), "needs an interface"),
            (peer("bfd_interval_millis = 9"), "bfd_interval_millis"),
            (peer("maximum_prefixes = 0"), "maximum_prefixes"),
        ] {
            let error = refused.expect_err(words).to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
        let again = GOOD[GOOD.find("[[bgp.peers]]").unwrap()..].replace("fe80::1", "fe80::2");
        let error = check(&toml::from_str(&format!("{GOOD}{again}")).unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("have the name \"s1\""),
            "{error}"
        );
        let exempt = "uplinks = ['tap0']\nexempt = ['tap0']";
        assert!(with("uplinks = ['eth0']", exempt).is_ok());
    }
}
