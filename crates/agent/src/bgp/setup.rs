//! From the agent's configuration to the engine's, and the sockets that listen.

use std::{
    collections::BTreeSet, fs, io::Read, net::IpAddr, os::fd::AsFd, os::unix::fs::PermissionsExt,
    path::Path, sync::Arc, time::Duration,
};

use anyhow::{Context, Result, ensure};
use hextet_bfd::{Config as BfdConfig, Interval, Peer as BfdPeer};
use hextet_bgp::{
    config::{
        BfdMode, PeerConfig as EnginePeer, PeerKey, RemoteAs, RestartMode, Secret, SpeakerConfig,
        TtlPolicy,
    },
    policy::Policy,
};
use hextet_kernel::tcp;
use hextet_types::Family;
use rand::Rng;
use tokio::net::TcpListener;

use super::connection;
use crate::config::{BgpConfig, Import, PeerConfig};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// How long a restarted speaker waits for its peers to tell all before it selects routes; until then
/// the kernel forwards by what the run before left.
const DEFERRAL: Duration = Duration::from_secs(30);
/// The first pause between attempts: a host without its spines is cut off, and they are few.
const CONNECT_RETRY: Duration = Duration::from_secs(1);

/// The speaker's configuration.
pub fn speaker(config: &BgpConfig, restarting: bool) -> SpeakerConfig {
    SpeakerConfig {
        max_paths: config.maximum_paths,
        multipath_relax: config.multipath_relax,
        restart_time_secs: config.restart_time_secs,
        restarting,
        deferral: DEFERRAL,
        ..SpeakerConfig::new(config.asn, config.router_id, rand::rng().random())
    }
}

/// The peers, with their passwords.
///
/// # Errors
///
/// A peer is there twice, or a password can't be read, or others could read it.
pub fn peers(config: &BgpConfig) -> Result<Vec<EnginePeer>> {
    let mut keys = BTreeSet::new();
    for peer in &config.peers {
        let key = key(peer);
        ensure!(
            keys.insert(key.clone()),
            "BGP peer {}: {key} is the address of another peer",
            peer.name
        );
    }
    config
        .peers
        .iter()
        .map(|peer| engine_peer(config, peer))
        .collect()
}

fn engine_peer(config: &BgpConfig, peer: &PeerConfig) -> Result<EnginePeer> {
    let remote_as = if peer.asn == config.asn {
        RemoteAs::Internal
    } else {
        RemoteAs::Is(peer.asn)
    };
    let mut engine = EnginePeer::new(key(peer), remote_as);
    for family in &mut engine.families {
        family.max_prefixes = Some(peer.maximum_prefixes);
    }
    engine.hold_time_secs = config.hold_time_secs;
    engine.connect_retry = CONNECT_RETRY;
    engine.import = Arc::new(match config.import {
        Import::All => Policy::accept_all(),
        Import::DefaultOnly => Policy::default_only(),
    });
    engine.export = Arc::new(Policy::accept_all());
    engine.md5 = peer.password_file.as_deref().map(password).transpose()?;
    engine.bfd = if peer.bfd {
        BfdMode::Graceful
    } else {
        BfdMode::Off
    };
    engine.restart = RestartMode::Full;
    engine.long_lived_secs = config.long_lived_stale_secs;
    if peer.gtsm {
        engine.ttl = TtlPolicy::Security(1);
    }
    Ok(engine)
}

/// What the engine calls a peer.
pub fn key(peer: &PeerConfig) -> PeerKey {
    match (peer.address, &peer.interface) {
        (IpAddr::V6(address), Some(interface)) if address.is_unicast_link_local() => {
            PeerKey::LinkLocal {
                interface: interface.clone(),
                address,
            }
        }
        (address, _) => PeerKey::Address(address),
    }
}

fn password(path: &Path) -> Result<Secret> {
    let what = || format!("the BGP password in {}", path.display());
    let mut file = fs::File::open(path).with_context(what)?;
    let mode = file.metadata().with_context(what)?.permissions().mode();
    ensure!(
        mode & 0o077 == 0,
        "{} can be read by others (mode {:o}): chmod 600 it",
        what(),
        mode & 0o777
    );
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(what)?;
    let text = text.trim_end_matches(['\r', '\n']);
    ensure!(
        (1..=tcp::MAX_MD5_KEY).contains(&text.len()),
        "{}: TCP MD5 takes 1 to {} octets",
        what(),
        tcp::MAX_MD5_KEY
    );
    Ok(Secret(text.to_owned()))
}

/// Listens for both families, with the keys of all peers that have one.
///
/// # Errors
///
/// The port is taken: another BGP program runs on this host.
pub fn listen(peers: &[EnginePeer]) -> Result<Vec<TcpListener>> {
    Family::BOTH
        .into_iter()
        .map(|family| listen_for(family, peers))
        .collect()
}

fn listen_for(family: Family, peers: &[EnginePeer]) -> Result<TcpListener> {
    let open = || -> std::io::Result<TcpListener> {
        let socket = connection::listening_socket(family, connection::PORT)?;
        for peer in peers {
            if let (Some(address), Some(secret)) = (peer.peer.address(), &peer.md5)
                && Family::of(address) == family
            {
                tcp::set_md5_key(socket.as_fd(), address, secret.0.as_bytes())?;
            }
        }
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().with_context(|| {
        format!(
            "listen for BGP on {family} TCP port {}; does another BGP program run here?",
            connection::PORT
        )
    })
}

/// What BFD is to watch.
///
/// # Errors
///
/// An interval is out of bounds, or a peer has no interface.
pub fn bfd_sessions(config: &BgpConfig) -> Result<Vec<(BfdPeer, BfdConfig)>> {
    config
        .peers
        .iter()
        .filter(|p| p.bfd)
        .map(bfd_session)
        .collect()
}

fn bfd_session(peer: &PeerConfig) -> Result<(BfdPeer, BfdConfig)> {
    let what = || format!("BGP peer {}", peer.name);
    let interval = Interval::try_from(Duration::from_millis(u64::from(peer.bfd_interval_millis)));
    let interval = interval.with_context(what)?;
    let interface = peer.interface.clone().with_context(|| {
        format!(
            "{}: BFD needs to know the interface; add interface = \"…\"",
            what()
        )
    })?;
    let config = BfdConfig {
        desired_min_tx: interval,
        required_min_rx: interval,
        ..BfdConfig::default()
    };
    Ok((BfdPeer::new(interface, peer.address), config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(peers: &str) -> BgpConfig {
        toml::from_str(&format!("asn = 64512\nrouter_id = '192.0.2.1'\n{peers}")).unwrap()
    }

    fn peer(address: &str, more: &str) -> String {
        format!("[[peers]]\nname = '{address}'\naddress = '{address}'\nasn = 64512\n{more}\n")
    }

    #[test]
    fn a_link_local_address_is_another_peer_on_another_interface() {
        let on = |interface: &str| peer("fe80::1", &format!("interface = '{interface}'"));
        assert_eq!(
            peers(&config(&(on("eth0") + &on("eth1")))).unwrap().len(),
            2
        );
        let error = peers(&config(&(on("eth0") + &on("eth0")))).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("fe80::1%eth0 is the address of another peer"),
            "{error}"
        );
        // Elsewhere the interface is not part of the name.
        let global = |interface: &str| peer("2001:db8::1", &format!("interface = '{interface}'"));
        assert!(peers(&config(&(global("eth0") + &global("eth1")))).is_err());
    }

    #[test]
    fn bfd_takes_the_interface_and_the_interval_of_its_peer() {
        let text = peer(
            "192.0.2.2",
            "bfd = true\nbfd_interval_millis = 300\ninterface = 'eth0'",
        ) + &peer("192.0.2.3", "");
        let sessions = bfd_sessions(&config(&text)).unwrap();
        let [(peer_of_bfd, bfd)] = sessions.as_slice() else {
            panic!("{sessions:?}")
        };
        assert_eq!(peer_of_bfd.to_string(), "192.0.2.2%eth0");
        assert_eq!(
            bfd.desired_min_tx,
            Interval::try_from(Duration::from_millis(300)).unwrap()
        );
        assert_eq!(bfd.required_min_rx, bfd.desired_min_tx);
        assert!(!bfd.control_plane_independent);
        let error = bfd_sessions(&config(&peer("192.0.2.2", "bfd = true"))).unwrap_err();
        assert!(error.to_string().contains("add interface = "), "{error}");
    }
}
