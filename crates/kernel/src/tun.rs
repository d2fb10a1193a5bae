//! TUN devices: links whose packets a process of ours reads and writes, each after the ten octets of a `struct virtio_net_hdr`.
//!
//! A device is there for as long as its process holds it; nobody else's is ever taken over. Where the kernel cuts nothing for the device,
//! packets of TCP and UDP are read in pieces of up to 64 KiB.

#![allow(unsafe_code, reason = "devices are made by ioctls of their own")]

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::Ipv6Addr,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::OpenOptionsExt as _,
    },
};

use hextet_types::IfName;
use nix::net::if_::if_nametoindex;

use crate::{
    error::Error,
    netlink::{Batch, Socket},
    route::{address, link},
};

const DEVICE: &str = "/dev/net/tun";

// linux/if_tun.h
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
const IFF_TUN: u16 = 0x0001;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const IFF_TUN_EXCL: u16 = 0x8000;
const CHECKSUM: libc::c_ulong = 0x01;
const TCP: libc::c_ulong = 0x02 | 0x04;
const UDP: libc::c_ulong = 0x20 | 0x40;

/// `struct ifreq` with flags; the kernel copies all of it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// What is not cut by the kernel before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// TCP, and datagrams of UDP that are sent together (Linux 6.2).
    TcpAndUdp,
    /// TCP.
    Tcp,
    /// Nothing, and all checksums are finished.
    Nothing,
}

/// A device that nothing blocks on.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: IfName,
    whole: Whole,
}

impl Tun {
    /// Makes a device in the thread's network namespace, down and without addresses. It leaves as much whole as `most` says and the
    /// kernel can.
    ///
    /// # Errors
    ///
    /// There is a link of that name, or no right to make one.
    pub fn create(name: &IfName, most: Whole) -> Result<Tun, Error> {
        let failed = |e: io::Error| {
            Error::system(format!("make TUN device {name} (needs CAP_NET_ADMIN)"), e)
        };
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(DEVICE)
            .map_err(failed)?;
        let mut request = Request {
            name: [0; 16],
            flags: IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL,
            rest: [0; 22],
        };
        for (to, from) in request.name.iter_mut().zip(name.as_str().bytes()) {
            *to = from;
        }
        // SAFETY: the request is a complete `struct ifreq`, which lives through the call.
        let made = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
        if made < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        let whole = leave_whole(&file, most).map_err(failed)?;
        Ok(Tun {
            file,
            name: name.clone(),
            whole,
        })
    }

    /// Its name.
    pub fn name(&self) -> &IfName {
        &self.name
    }

    /// What it leaves whole.
    pub const fn whole(&self) -> Whole {
        self.whole
    }

    /// The next packet with what the device says of it: octets in `frame`, which has room for 65,600. `WouldBlock` when there is none.
    pub fn recv(&self, frame: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(frame)
    }

    /// Gives the kernel a packet that came by the device. `EIO`: the device is down.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.file).write(frame).map(drop)
    }

    /// Gives it this MTU, a queue of that many packets and this link-local address as its only one, and sets it up. Called in the
    /// namespace where it was made.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn set_up(&self, mtu: u16, queue: u32, link_local: Ipv6Addr) -> Result<(), Error> {
        let index = self.index()?;
        let mut batch = Batch::default();
        link::prepare_tunnel(&mut batch, index, mtu, queue);
        link::set_up(&mut batch, index, true);
        address::add_for_good(&mut batch, index, link_local.into(), 64);
        self.request(&mut batch, "set up")
    }

    /// Gives it another MTU, in octets.
    ///
    /// # Errors
    ///
    /// The kernel refuses: it wants 68 at least, and below 1,280 it takes IPv6 away.
    pub fn set_mtu(&self, mtu: u16) -> Result<(), Error> {
        let mut batch = Batch::default();
        link::set_mtu(&mut batch, self.index()?, mtu);
        self.request(&mut batch, "give an MTU to")
    }

    fn index(&self) -> Result<u32, Error> {
        if_nametoindex(self.name.as_str())
            .map_err(|e| Error::system(format!("find TUN device {}", self.name), e))
    }

    fn request(&self, batch: &mut Batch, what: &str) -> Result<(), Error> {
        let mut socket = Socket::open(libc::NETLINK_ROUTE as isize, "rtnetlink")?;
        match socket.request(batch)?.into_iter().next() {
            None => Ok(()),
            Some((_, refusal)) => Err(Error::Refused {
                operation: format!("{what} TUN device {}", self.name),
                refusal,
            }),
        }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Asks for as much as the kernel grants.
fn leave_whole(file: &File, most: Whole) -> io::Result<Whole> {
    let steps = [
        (Whole::TcpAndUdp, CHECKSUM | TCP | UDP),
        (Whole::Tcp, CHECKSUM | TCP),
        (Whole::Nothing, 0),
    ];
    let mut refused = io::Error::from(io::ErrorKind::Unsupported);
    for (whole, offloads) in steps.into_iter().skip_while(|(whole, _)| *whole != most) {
        // SAFETY: this ioctl takes a number, and touches no memory of ours.
        if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, offloads) } == 0 {
            return Ok(whole);
        }
        refused = io::Error::last_os_error();
    }
    Err(refused)
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv6Addr, process};

    use hextet_model::state::Netns;

    use super::*;
    use crate::netns::{self, Handle};

    const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);

    fn in_a_namespace<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
        let netns = format!("hxt-{}-{name}", process::id());
        netns::create(&netns).unwrap();
        let handle = Handle::open(&Netns::Named(netns.clone())).unwrap();
        let done = handle.run(work);
        netns::delete(&netns).unwrap();
        done.unwrap()
    }

    #[test]
    fn a_device_is_made_set_up_and_gone_with_its_holder() {
        in_a_namespace("tun", || {
            let name: IfName = "hxt-tun0".parse().unwrap();
            let tun = Tun::create(&name, Whole::TcpAndUdp).unwrap();
            assert_eq!(tun.name(), &name);
            let taken = Tun::create(&name, Whole::Tcp).unwrap_err();
            assert!(taken.to_string().contains("make TUN device hxt-tun0"));
            tun.set_up(1_400, 2_000, ADDRESS).unwrap();
            let addresses = nix::ifaddrs::getifaddrs().unwrap();
            let own: Vec<String> = addresses
                .filter(|a| a.interface_name == "hxt-tun0")
                .filter_map(|a| a.address?.as_sockaddr_in6().map(|a| a.ip().to_string()))
                .collect();
            assert_eq!(own, ["fe80::7"]);
            tun.set_mtu(1_280).unwrap();
            assert!(tun.set_mtu(20).unwrap_err().to_string().contains("an MTU"));
            let mut frame = [0; 100];
            let nothing = tun.recv(&mut frame).map_err(|e| e.kind());
            assert!(matches!(nothing, Ok(_) | Err(io::ErrorKind::WouldBlock)));
            drop(tun);
            assert!(if_nametoindex("hxt-tun0").is_err());
        });
    }

    #[test]
    fn it_leaves_whole_no_more_than_was_asked_for() {
        in_a_namespace("whole", || {
            for most in [Whole::Tcp, Whole::Nothing] {
                let tun = Tun::create(&"hxt-tun1".parse().unwrap(), most).unwrap();
                assert_eq!(tun.whole(), most);
            }
        });
    }
}
