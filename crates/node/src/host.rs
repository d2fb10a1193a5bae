//! The host below the node: its addresses outside of the mesh, its interfaces, whether it forwards.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::{Context as _, Result};
use hextet_mesh::letter::MAX_CANDIDATES;
use hextet_types::IfName;
use nix::{
    ifaddrs::getifaddrs,
    net::if_::{if_indextoname, if_nametoindex},
};

/// How interfaces of tunnels are called, in front of twelve digits of the other node's number.
pub const TUNNEL: &str = "hxm";

/// Addresses at which the host may be reached at that port, but for those of tunnels, of hidden interfaces and inside of the
/// mesh; by one interface alone, if it is named.
///
/// # Errors
///
/// The kernel does not say.
pub fn addresses(
    port: u16,
    hide: &[IfName],
    only: Option<&IfName>,
    is_inside: impl Fn(IpAddr) -> bool,
) -> Result<Vec<SocketAddr>> {
    let mut found = BTreeSet::new();
    for interface in getifaddrs().context("ask for the host's addresses")? {
        let name = interface.interface_name.as_str();
        if only.is_some_and(|only| only.as_str() != name) {
            continue;
        }
        if name.starts_with(TUNNEL) || hide.iter().any(|hidden| hidden.as_str() == name) {
            continue;
        }
        let Some(storage) = interface.address else {
            continue;
        };
        let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        if let Some(address) = v4.or(v6)
            && is_usable(address)
            && !is_inside(address)
        {
            found.insert(SocketAddr::new(address, port));
        }
    }
    // What the world may reach comes first.
    let (global, local): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|at| hextet_mesh::node::is_global(at.ip()));
    let all = global.into_iter().chain(local);
    Ok(all.take(MAX_CANDIDATES).collect())
}

fn is_usable(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || is_link_local)
}

/// The kernel's number of an interface, if it is there.
pub fn index(name: &IfName) -> Option<u32> {
    if_nametoindex(name.as_str()).ok()
}

/// The name of an interface, if it is there.
pub fn name(index: u32) -> Option<String> {
    if_indextoname(index).ok()?.into_string().ok()
}

/// Lets the host forward both families. Interfaces that take router advertisements go on doing so, which forwarding would end
/// (`accept_ra`, kernel documentation ip-sysctl).
///
/// # Errors
///
/// `/proc/sys` can't be written.
pub fn forward() -> Result<()> {
    let configured = Path::new("/proc/sys/net/ipv6/conf");
    let all = configured.join("all/forwarding");
    if read(&all)? != "1" {
        for interface in fs::read_dir(configured).context("look at IPv6's settings")? {
            let setting = interface?.path().join("accept_ra");
            if read(&setting).is_ok_and(|now| now == "1") {
                write(&setting, "2")?;
            }
        }
        write(&all, "1")?;
    }
    let v4 = Path::new("/proc/sys/net/ipv4/ip_forward");
    if read(v4)? != "1" {
        write(v4, "1")?;
    }
    Ok(())
}

/// Lets the kernel tell flows apart by their ports, where it has several links for them.
///
/// # Errors
///
/// `/proc/sys` can't be written.
pub fn tell_flows_apart() -> Result<()> {
    for family in ["ipv4", "ipv6"] {
        let setting = format!("/proc/sys/net/{family}/fib_multipath_hash_policy");
        write(Path::new(&setting), "1")?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn write(path: &Path, value: &str) -> Result<()> {
    let written: io::Result<()> = fs::write(path, value);
    written.with_context(|| format!("write {value} to {}", path.display()))
}
