//! A workload that is a network namespace: its veth pair, made and unmade.
//!
//! The host's end has the port's name and is left down: the agent sets it up once its rules stand. Both
//! ends are made in one step, the far one where it belongs, because moving a veth is slow.

pub mod inside;

use std::{fs::File, os::fd::AsRawFd};

use hextet_model::state::Netns;
use hextet_types::{IfName, Mac};

use crate::{
    error::Error,
    netlink::{Batch, Socket, flags},
    netns::Handle,
    route::link,
};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const IFINFOMSG: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

/// A veth pair into a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// The end in the caller's namespace.
    pub host_end: IfName,
    /// The workload's namespace, by its name under `/run/netns`.
    pub netns: String,
    /// The end in there.
    pub name: IfName,
    /// That end's Ethernet address.
    pub mac: Mac,
    /// Of both ends, in octets.
    pub mtu: u16,
}

/// Makes the pair, and sets the workload's end up.
///
/// # Errors
///
/// There is no such namespace, or one of the names is taken: then nothing was made.
pub fn attach(veth: &Veth) -> Result<(), Error> {
    let operation = || {
        format!(
            "plug {} into network namespace {}",
            veth.host_end, veth.netns
        )
    };
    let handle = Handle::open(&Netns::Named(veth.netns.clone()))?;
    let path = format!("/run/netns/{}", veth.netns);
    let netns = File::open(&path).map_err(|e| Error::system(operation(), e))?;
    let mut socket = open()?;
    let mut batch = Batch::default();
    request_pair(&mut batch, veth, &netns);
    refuse(socket.request(&mut batch)?, operation)?;
    handle
        .run(|| set_up(&veth.name, operation))?
        .inspect_err(|_| drop(detach(&veth.host_end)))
}

/// Removes the pair by its host end. What is not there needs no removal.
///
/// # Errors
///
/// The kernel refuses.
pub fn detach(host_end: &IfName) -> Result<(), Error> {
    let mut socket = open()?;
    let Some(index) = index_of(&mut socket, host_end)? else {
        return Ok(());
    };
    let mut batch = Batch::default();
    let mut header = [0; IFINFOMSG];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.message(RTM_DELLINK, 0, &header);
    refuse(socket.request(&mut batch)?, || format!("unplug {host_end}"))
}

fn open() -> Result<Socket, Error> {
    Socket::open(libc::NETLINK_ROUTE as isize, "rtnetlink")
}

fn request_pair(batch: &mut Batch, veth: &Veth, netns: &File) {
    batch
        .message(RTM_NEWLINK, flags::CREATE | flags::EXCL, &[0; IFINFOMSG])
        .text(IFLA_IFNAME, veth.host_end.as_str())
        .ne32(IFLA_MTU, u32::from(veth.mtu))
        .nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth")
                .nest(IFLA_INFO_DATA, |data| {
                    data.nest(VETH_INFO_PEER, |peer| {
                        peer.raw(&[0; IFINFOMSG])
                            .text(IFLA_IFNAME, veth.name.as_str())
                            .attr(IFLA_ADDRESS, &veth.mac.octets())
                            .ne32(IFLA_MTU, u32::from(veth.mtu))
                            .attr(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
                    });
                });
        });
}

fn set_up(name: &IfName, operation: impl Fn() -> String) -> Result<(), Error> {
    let mut socket = open()?;
    let mut batch = Batch::default();
    for name in [&loopback(), &Some(name.clone())].into_iter().flatten() {
        if let Some(index) = index_of(&mut socket, name)? {
            link::set_up(&mut batch, index, true);
        }
    }
    refuse(socket.request(&mut batch)?, operation)
}

fn loopback() -> Option<IfName> {
    "lo".parse().ok()
}

fn index_of(socket: &mut Socket, name: &IfName) -> Result<Option<u32>, Error> {
    let mut batch = Batch::default();
    link::request_one(&mut batch, name);
    let mut found = None;
    socket.query(&mut batch, |_, answer| {
        found = found.or(link::read(answer).map(|l| l.index))
    })?;
    Ok(found)
}

fn refuse(
    outcome: Vec<(usize, crate::error::Refusal)>,
    operation: impl Fn() -> String,
) -> Result<(), Error> {
    match outcome.into_iter().next() {
        None => Ok(()),
        Some((_, refusal)) => Err(Error::Refused {
            operation: operation(),
            refusal,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;
    use crate::{links::Links, netns};

    /// Two namespaces of its own: the host's and the workload's.
    struct World {
        host: String,
        workload: String,
    }

    impl World {
        fn new(name: &str) -> World {
            let world = World {
                host: format!("hxt-{}-{name}-h", process::id()),
                workload: format!("hxt-{}-{name}-w", process::id()),
            };
            netns::create(&world.host).unwrap();
            netns::create(&world.workload).unwrap();
            world
        }

        fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
            Handle::open(&Netns::Named(self.host.clone()))
                .unwrap()
                .run(work)
                .unwrap()
        }

        fn links(&self, netns: &str) -> Vec<crate::links::Found> {
            let mut links = Links::open(&Netns::Named(netns.to_owned())).unwrap();
            links
                .list(false)
                .unwrap()
                .into_iter()
                .filter(|l| l.name.as_str() != "lo")
                .collect()
        }

        fn veth(&self) -> Veth {
            Veth {
                host_end: "tap0a1b2c3d-4e".parse().unwrap(),
                netns: self.workload.clone(),
                name: "eth0".parse().unwrap(),
                mac: "fa:16:3e:00:00:01".parse().unwrap(),
                mtu: 1450,
            }
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            let _ = netns::delete(&self.host);
            let _ = netns::delete(&self.workload);
        }
    }

    #[test]
    fn a_pair_is_made_where_it_belongs_and_unmade() {
        let world = World::new("pair");
        let veth = world.veth();
        world.on_host(|| attach(&veth)).unwrap();
        let far = world.links(&world.workload);
        assert_eq!(far.len(), 1);
        assert_eq!(
            (far[0].name.as_str(), far[0].mac, far[0].mtu, far[0].up),
            ("eth0", Some(veth.mac), 1450, true)
        );
        let near = world.links(&world.host);
        assert_eq!(
            (near[0].name.as_str(), near[0].mtu, near[0].up),
            ("tap0a1b2c3d-4e", 1450, false)
        );
        world.on_host(|| detach(&veth.host_end)).unwrap();
        world.on_host(|| detach(&veth.host_end)).unwrap();
        assert!(world.links(&world.workload).is_empty() && world.links(&world.host).is_empty());
    }

    #[test]
    fn what_is_taken_or_missing_is_named_and_nothing_is_left() {
        let world = World::new("taken");
        let veth = world.veth();
        world.on_host(|| attach(&veth)).unwrap();
        let again = world.on_host(|| attach(&veth)).unwrap_err().to_string();
        assert!(again.contains("plug tap0a1b2c3d-4e into"), "{again}");
        let nowhere = Veth {
            netns: "hxt-nowhere".to_owned(),
            host_end: "tapother".parse().unwrap(),
            ..veth
        };
        let error = world.on_host(|| attach(&nowhere)).unwrap_err().to_string();
        assert!(error.contains("hxt-nowhere"), "{error}");
        assert_eq!(world.links(&world.host).len(), 1);
    }
}
