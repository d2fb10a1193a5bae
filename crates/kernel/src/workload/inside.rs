//! The inside of a workload's namespace: its addresses and routes, and the processes in there.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use hextet_model::state::Netns;
use hextet_types::{Family, IfName};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{index_of, open, refuse};
use crate::{
    error::Error,
    netlink::{Batch, flags},
    netns::{self, Handle},
    route::{address, af},
    sysctl,
};

const RTM_NEWROUTE: u16 = 24;
const RTMSG: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const TABLE_MAIN: u8 = 254;
/// Somebody's configuration (`rtm_protocol`).
const RTPROT_STATIC: u8 = 4;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const NONE: Option<&str> = None;

/// What interfaces that come are to have: they ask for routers at once, and no address waits for duplicate address
/// detection, since the network sees to it that there is no other.
const SETTINGS: [(&str, &str); 2] = [
    ("net/ipv6/conf/default/router_solicitation_delay", "0"),
    ("net/ipv6/conf/default/dad_transmits", "0"),
];

/// An address, and the way out by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// The address, which nothing else on the link is told by.
    pub addr: IpAddr,
    /// The default router, which is on the link whatever its address; without one, router advertisements say who is.
    pub gateway: Option<IpAddr>,
}

/// Makes a namespace for a workload that knows nothing of networks.
///
/// # Errors
///
/// There is one of that name, or the kernel refuses.
pub fn create(netns: &str) -> Result<(), Error> {
    netns::create_with(netns, || {
        SETTINGS
            .iter()
            .try_for_each(|(path, value)| sysctl::write(path, value))
    })
}

/// Gives an interface in there its addresses, and default routes. What stands is left as it is.
///
/// # Errors
///
/// There is no such namespace or interface, or the kernel refuses.
pub fn configure(netns: &str, name: &IfName, own: &[Own]) -> Result<(), Error> {
    let operation = || format!("configure {name} in network namespace {netns}");
    Handle::open(&Netns::Named(netns.to_owned()))?.run(|| {
        let mut socket = open()?;
        let Some(index) = index_of(&mut socket, name)? else {
            return Err(Error::unfit(operation(), "it is not there"));
        };
        for own in own {
            let mut batch = Batch::default();
            let len = Family::of(own.addr).bits();
            address::add_for_good(&mut batch, index, own.addr, len);
            if let Some(gateway) = own.gateway {
                route(&mut batch, index, gateway, len, None);
                let any = Family::of(gateway).unspecified();
                route(&mut batch, index, any, 0, Some(gateway));
            }
            refuse(socket.request(&mut batch)?, operation)?;
        }
        Ok(())
    })?
}

fn route(batch: &mut Batch, index: u32, to: IpAddr, len: u8, gateway: Option<IpAddr>) {
    let scope = match gateway {
        Some(_) => SCOPE_UNIVERSE,
        None => SCOPE_LINK,
    };
    let mut header = [0; RTMSG];
    header[..2].copy_from_slice(&[af(Family::of(to)), len]);
    header[4..8].copy_from_slice(&[TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST]);
    let mut message = batch.message(RTM_NEWROUTE, flags::CREATE | flags::REPLACE, &header);
    message.ne32(RTA_OIF, index);
    if len > 0 {
        message.addr(RTA_DST, to);
    }
    if let Some(gateway) = gateway {
        message.addr(RTA_GATEWAY, gateway);
    }
}

/// Starts a command in there, which sees the namespace's interfaces in `/sys` and, if there is one, its own
/// `/etc/netns/NAME/resolv.conf`, as with `ip netns exec`.
///
/// # Errors
///
/// There is no such namespace, or the program can't be started.
pub fn spawn(netns: &str, command: &mut Command) -> Result<Child, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let operation = || format!("start {program} in network namespace {netns}");
    Handle::open(&Netns::Named(netns.to_owned()))?.run(|| {
        change_view(netns).map_err(|e| Error::system(operation(), e))?;
        let child = command.spawn();
        child.map_err(|e| Error::system(operation(), e))
    })?
}

/// Where a namespace's own files of `/etc` are.
pub fn files(netns: &str) -> PathBuf {
    Path::new("/etc/netns").join(netns)
}

fn change_view(netns: &str) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)?;
    let sysfs = Some("sysfs");
    mount(sysfs, "/sys", sysfs, MsFlags::empty(), NONE)?;
    let resolv = files(netns).join("resolv.conf");
    if resolv.exists() {
        // What the host's leads to may be a link to a file that is not there.
        let to = fs::canonicalize("/etc/resolv.conf");
        let to = to.unwrap_or_else(|_| PathBuf::from("/etc/resolv.conf"));
        mount(Some(&resolv), &to, NONE, MsFlags::MS_BIND, NONE)?;
    }
    Ok(())
}

/// The processes in there.
///
/// # Errors
///
/// There is no such namespace, or processes can't be listed.
pub fn processes(netns: &str) -> Result<Vec<u32>, Error> {
    let operation = || format!("list the processes in network namespace {netns}");
    let failed = |e| Error::system(operation(), e);
    let own = fs::metadata(Path::new(netns::DIRECTORY).join(netns)).map_err(failed)?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").map_err(failed)?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let of = fs::metadata(entry.path().join("ns/net"));
        if of.is_ok_and(|of| (of.dev(), of.ino()) == (own.dev(), own.ino())) {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;
    use crate::workload::{Veth, attach, detach};

    fn said(netns: &str, words: &[&str]) -> String {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdout(Stdio::piped());
        let output = spawn(netns, &mut command).unwrap().wait_with_output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    #[test]
    fn a_workload_has_its_addresses_its_ways_and_its_processes() {
        let (host, inside) = ("hxt-inside-h", "hxt-inside-w");
        for name in [host, inside] {
            create(&format!("{name}-{}", std::process::id())).unwrap();
        }
        let host = &format!("{host}-{}", std::process::id());
        let inside = &format!("{inside}-{}", std::process::id());
        let veth = Veth {
            host_end: "tapinside".parse().unwrap(),
            netns: inside.clone(),
            name: "eth0".parse().unwrap(),
            mac: "fa:16:3e:00:00:07".parse().unwrap(),
            mtu: 1500,
        };
        let handle = Handle::open(&Netns::Named(host.clone())).unwrap();
        handle.run(|| attach(&veth)).unwrap().unwrap();
        let own = [("10.30.0.9", "10.30.0.1"), ("2001:db8::9", "fe80::1")];
        let own = own.map(|(addr, gateway)| Own {
            addr: addr.parse().unwrap(),
            gateway: gateway.parse().ok(),
        });
        for _ in 0..2 {
            configure(inside, &veth.name, &own).unwrap();
        }
        let addresses = said(inside, &["ip", "addr", "show", "dev", "eth0"]);
        assert!(addresses.contains("10.30.0.9/32"), "{addresses}");
        assert!(addresses.contains("2001:db8::9/128"), "{addresses}");
        let routes = said(inside, &["ip", "route"]);
        assert!(routes.contains("default via 10.30.0.1"), "{routes}");
        let routes = said(inside, &["ip", "-6", "route"]);
        assert!(routes.contains("default via fe80::1"), "{routes}");
        let seen = said(inside, &["ls", "/sys/class/net"]);
        assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
        let mut child = spawn(inside, Command::new("sleep").arg("60")).unwrap();
        assert_eq!(processes(inside).unwrap(), [child.id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        handle.run(|| detach(&veth.host_end)).unwrap().unwrap();
        let gone = configure(inside, &veth.name, &own).unwrap_err().to_string();
        assert!(gone.contains("configure eth0 in"), "{gone}");
        for name in [host, inside] {
            netns::delete(name).unwrap();
        }
    }
}
