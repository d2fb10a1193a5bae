//! The kernel's own WireGuard: links with one peer each, to whom everything goes (generic netlink, linux/wireguard.h).
//!
//! A link is ours by its group ([`GROUP`]), and others' links are neither shown nor touched. All that a link is stands in the kernel: whoever
//! made it may go. Its socket hears both families on one port of its own, and stays in the namespace where the link was made.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hextet_types::IfName;

use crate::{
    error::Error,
    netlink::{Batch, Outcome, Socket},
    route::{
        address,
        link::{self, Found, Kind},
        made,
    },
};

mod message;

pub(crate) use message::read;
#[cfg(feature = "fuzzing")]
pub(crate) use message::read_family;

/// The group of our links: "hw".
pub const GROUP: u32 = 0x6877;

/// Packets that wait in a link: what the kernel gives any.
const QUEUE: u32 = 1_000;

/// Octets of a key. Secret ones are the caller's to hide.
pub type Key = [u8; 32];

/// A link that is to be made.
#[derive(Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: IfName,
    /// In octets.
    pub mtu: u16,
    /// Its only address at first, with a length of 64.
    pub link_local: Ipv6Addr,
    /// Ours.
    pub private_key: Key,
    /// UDP, of both families; 0 for any that is free.
    pub port: u16,
    /// Who is at the other end.
    pub peer: Peer,
}

/// The other end of a link.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer {
    /// Public.
    pub key: Key,
    /// A secret that only the two have.
    pub preshared_key: Option<Key>,
    /// Where it is at first.
    pub endpoint: Option<SocketAddr>,
    /// Something is sent that often; 0 for never.
    pub keepalive_secs: u16,
}

/// A link of ours, as the kernel has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub name: IfName,
    /// Its number.
    pub index: u32,
    /// In octets.
    pub mtu: u32,
    /// Its keys, port and peer.
    pub device: Device,
}

/// What WireGuard says of a link. Its private key is not read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// Ours; none, if it has none.
    pub public_key: Option<Key>,
    /// UDP, of both families.
    pub port: u16,
    /// The other end, as it is now, and what was counted of it.
    pub peer: Option<(Peer, Counts)>,
}

/// What was counted of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// When keys were agreed upon last, since 1970.
    pub handshake: Option<Duration>,
    /// Octets of what was its, handshakes and keepalives included.
    pub rx_octets: u64,
    /// Octets of what went to it, likewise.
    pub tx_octets: u64,
}

/// Makes, shows and deletes links in the namespace where it was opened.
#[derive(Debug)]
pub struct WireGuard {
    generic: Socket,
    route: Socket,
    family: u16,
}

/// Whether this kernel has WireGuard, or can load it.
pub fn is_there() -> bool {
    WireGuard::open().is_ok()
}

impl WireGuard {
    /// In the thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::NoWireGuard`] where the kernel has none; no socket.
    pub fn open() -> Result<WireGuard, Error> {
        let mut generic = Socket::open(libc::NETLINK_GENERIC as isize, "generic netlink")?;
        let mut batch = Batch::default();
        message::request_family(&mut batch);
        let mut family = None;
        let outcome = generic.query(&mut batch, |_, answer| {
            family = family.or(message::read_family(answer));
        })?;
        match (family, outcome.into_iter().next()) {
            (Some(family), _) => Ok(WireGuard {
                generic,
                route: Socket::open(libc::NETLINK_ROUTE as isize, "rtnetlink")?,
                family,
            }),
            (None, Some((_, refusal))) if refusal.errno != libc::ENOENT => {
                Err(refusal.of("look for WireGuard"))
            }
            (None, _) => Err(Error::NoWireGuard),
        }
    }

    /// Makes a link and sets it up. Nothing of it is left where that fails.
    ///
    /// # Errors
    ///
    /// There is a link of that name, the port is taken, the key is none, or the right is missing.
    pub fn make(&mut self, wanted: &Wanted) -> Result<(), Error> {
        let name = &wanted.name;
        let operation = format!("make WireGuard link {name}");
        let mut batch = Batch::default();
        made::wireguard(&mut batch, name, GROUP);
        done(self.route.request(&mut batch)?, &operation)?;
        let finished = self.finish(wanted, &operation);
        if finished.is_err() {
            let _ = self.delete(name);
        }
        finished
    }

    fn finish(&mut self, wanted: &Wanted, operation: &str) -> Result<(), Error> {
        let mut batch = Batch::default();
        message::set(&mut batch, self.family, wanted);
        done(self.generic.request(&mut batch)?, operation)?;
        let index = self.ours(&wanted.name)?.index;
        let mut batch = Batch::default();
        link::prepare_tunnel(&mut batch, index, wanted.mtu, QUEUE);
        link::set_up(&mut batch, index, true);
        address::add_for_good(&mut batch, index, wanted.link_local.into(), 64);
        done(self.route.request(&mut batch)?, operation)
    }

    /// Deletes a link of ours; nothing happens where there is none.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn delete(&mut self, name: &IfName) -> Result<(), Error> {
        let Some(found) = self.find(name)? else {
            return Ok(());
        };
        let mut batch = Batch::default();
        link::delete(&mut batch, found.index);
        let operation = format!("delete WireGuard link {name}");
        done(self.route.request(&mut batch)?, &operation)
    }

    /// The peer of a link of ours is elsewhere. Keys that hold go on holding.
    ///
    /// # Errors
    ///
    /// There is no such link, or the kernel can't send there.
    pub fn set_endpoint(
        &mut self,
        name: &IfName,
        peer: &Key,
        endpoint: SocketAddr,
    ) -> Result<(), Error> {
        let index = self.ours(name)?.index;
        let mut batch = Batch::default();
        message::set_endpoint(&mut batch, self.family, index, peer, endpoint);
        let operation = format!("give the peer of WireGuard link {name} the address {endpoint}");
        done(self.generic.request(&mut batch)?, &operation)
    }

    /// Gives a link of ours another MTU, in octets.
    ///
    /// # Errors
    ///
    /// There is no such link, or the kernel refuses.
    pub fn set_mtu(&mut self, name: &IfName, mtu: u16) -> Result<(), Error> {
        let mut batch = Batch::default();
        link::set_mtu(&mut batch, self.ours(name)?.index, mtu);
        let operation = format!("give an MTU to WireGuard link {name}");
        done(self.route.request(&mut batch)?, &operation)
    }

    /// All links of ours, by name.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub fn list(&mut self) -> Result<Vec<Standing>, Error> {
        let mut standing = Vec::new();
        for found in self.links()? {
            // One that is gone since is none of ours any more.
            if let Some(device) = self.device(found.index)? {
                standing.push(Standing {
                    name: found.name,
                    index: found.index,
                    mtu: found.mtu,
                    device,
                });
            }
        }
        standing.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(standing)
    }

    /// One link of ours.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub fn look(&mut self, name: &IfName) -> Result<Option<Standing>, Error> {
        let Some(found) = self.find(name)? else {
            return Ok(None);
        };
        let device = self.device(found.index)?;
        Ok(device.map(|device| Standing {
            name: found.name,
            index: found.index,
            mtu: found.mtu,
            device,
        }))
    }

    fn links(&mut self) -> Result<Vec<Found>, Error> {
        let mut request = Batch::default();
        link::request_all(&mut request, false);
        let mut found = self.route.dump(&mut request, link::read)?;
        found.retain(is_ours);
        Ok(found)
    }

    fn find(&mut self, name: &IfName) -> Result<Option<Found>, Error> {
        let mut batch = Batch::default();
        link::request_one(&mut batch, name);
        let mut found = None;
        let outcome = self.route.query(&mut batch, |_, answer| {
            found = link::read(answer).filter(is_ours);
        })?;
        match outcome.into_iter().next() {
            Some((_, refusal)) if refusal.errno != libc::ENODEV => {
                Err(refusal.of(format!("look for link {name}")))
            }
            _ => Ok(found),
        }
    }

    fn ours(&mut self, name: &IfName) -> Result<Found, Error> {
        self.find(name)?
            .ok_or_else(|| Error::unfit(format!("change WireGuard link {name}"), "there is none"))
    }

    fn device(&mut self, index: u32) -> Result<Option<Device>, Error> {
        let mut request = Batch::default();
        message::request(&mut request, self.family, index);
        let found = self.generic.dump(&mut request, read);
        match found {
            // What is long comes in parts, each with all of the link.
            Ok(parts) => Ok(parts.into_iter().reduce(|first, next| Device {
                peer: first.peer.or(next.peer),
                ..first
            })),
            Err(Error::Refused { refusal, .. }) if refusal.errno == libc::ENODEV => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_ours(found: &Found) -> bool {
    found.group == GROUP && found.kind == Kind::WireGuard
}

fn done(outcome: Outcome, operation: &str) -> Result<(), Error> {
    match outcome.into_iter().next() {
        None => Ok(()),
        Some((_, refusal)) => Err(refusal.of(operation)),
    }
}

/// What everything goes to.
const EVERYWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
];

#[cfg(test)]
mod tests;
