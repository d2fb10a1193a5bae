//! Hearing that something changed in a namespace, or in all to which it has given numbers. Who hears it looks
//! again; only a link's settings are told with it, so that echoes of one's own changes can be told from others'.
//!
//! One set of sockets hears of any number of namespaces (`NETLINK_LISTEN_ALL_NSID`), and holds none of them. That
//! a name of ours under `/run/netns` has gone is heard, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use hextet_model::state::{Namespace, TABLE};
use hextet_types::{Family, IfName, Mac};
use netlink_sys::SocketAddr;
use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use socket2::{SockFilter, SockRef};

use super::{
    Answer, Attrs,
    numbered::receive,
    socket::{answers, receive_buffer},
    text,
};
use crate::{
    error::Error,
    netns::{self, Handle},
    route::{entry, link, neighbour},
    tc, xfrm,
};

const RECEIVE_BUFFER: usize = 8 << 20;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
/// `NFNLGRP_NFTABLES`.
const NFT_GROUP: u32 = 7;
/// `XFRMNLGRP_POLICY`.
const XFRM_GROUP: u32 = 4;
/// `RTNLGRP_*`: links, neighbours, tc, addresses, routes, rules and settings of both families.
const ROUTE_GROUPS: [u32; 11] = [1, 3, 4, 5, 7, 8, 9, 11, 19, 24, 25];
/// `NETCONFA_IFINDEX_ALL` and `NETCONFA_IFINDEX_DEFAULT`, as the kernel writes them.
const ALL_LINKS: [u32; 2] = [u32::MAX, u32::MAX - 1];
/// Sockets that a monitor can ignore.
pub const MAX_IGNORED: usize = 64;
/// Where the cause's address stands in `struct nlmsghdr`.
const PORT_OFFSET: u32 = 12;
/// Where the kind stands there.
const KIND_OFFSET: u32 = 4;
/// Where a message about settings names the link: in its first attribute.
const NETCONF_LINK_OFFSET: u32 = 24;
const RTM_NEWNETCONF: u16 = 80;
const BPF_LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const BPF_LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const BPF_JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const BPF_RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// Messages read in one go, so that a flood cannot hold its reader.
const READS: usize = 4096;

/// What may have changed, as coarse as is cheap to tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// This link went, or was turned on or off: what stood on it may be lost.
    Link(IfName),
    /// This link came. If it takes the place of another, that one has gone before, and that was told.
    NewLink(IfName),
    /// This link was given other settings, or its carrier came or went; also by ourselves, since the kernel
    /// does not tell who did it. Of several at once, the last.
    LinkSettings(LinkSettings),
    /// The tc programs of the link with this index, or of a block where it is `u32::MAX`.
    Program(u32),
    /// Some address.
    Addresses,
    /// A neighbour of ours.
    Neighbours,
    /// A route of ours.
    Routes(Family),
    /// Some policy rule.
    Rules(Family),
    /// A setting of all links, or of those to come.
    Settings,
    /// An XFRM policy of ours.
    XfrmPolicies,
    /// Our nftables table.
    Table,
    /// A namespace of that name has lost it.
    Namespace(String),
    /// Too much at once: anything may have changed.
    Resync,
}

/// What was heard; each thing once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// In the namespace that is listened in.
    pub here: BTreeSet<Wake>,
    /// In others, by the numbers that it has for them ([`crate::Kernel::numbered`]).
    pub elsewhere: BTreeSet<(i32, Wake)>,
}

impl Heard {
    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        self.here.is_empty() && self.elsewhere.is_empty()
    }

    fn add(&mut self, number: Option<i32>, wake: Wake) {
        match number {
            None => drop(self.here.insert(wake)),
            Some(number) => drop(self.elsewhere.insert((number, wake))),
        }
    }
}

/// A link's settings, as they are now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkSettings {
    /// Its name.
    pub name: IfName,
    /// Its Ethernet address, where it is an Ethernet link.
    pub mac: Option<Mac>,
    /// In octets.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// With a carrier: of a TAP, that somebody has opened it.
    pub running: bool,
}

/// Listens in one namespace.
#[derive(Debug)]
pub struct Monitor {
    sockets: [Arc<netlink_sys::Socket>; 3],
    names: Inotify,
    buf: Vec<u8>,
}

impl Monitor {
    /// Opens one in that namespace. What `ignored` sockets cause is not reported, as far as the kernel
    /// tells (see [`crate::Kernel::socket_ports`]); of these, at most [`MAX_IGNORED`].
    pub fn open(netns: &Handle, ignored: &[u32]) -> Result<Self, Error> {
        let operation = || format!("listen for changes in namespace {}", netns.name());
        let sockets = netns.run(|| {
            let route = listen(libc::NETLINK_ROUTE as isize, &ROUTE_GROUPS, ignored)?;
            let nft = listen(libc::NETLINK_NETFILTER as isize, &[NFT_GROUP], ignored)?;
            let xfrm = listen(libc::NETLINK_XFRM as isize, &[XFRM_GROUP], ignored)?;
            Ok([route, nft, xfrm].map(Arc::new))
        })?;
        let sockets = sockets.map_err(|e: io::Error| Error::system(operation(), e))?;
        Ok(Monitor {
            sockets,
            names: watch_names().map_err(|e| Error::system(operation(), e))?,
            buf: vec![0; 64 << 10],
        })
    }

    /// For [`crate::Kernel::hear_everywhere`].
    pub fn everywhere(&self) -> Everywhere {
        Everywhere(self.sockets.clone())
    }

    /// For [`crate::Kernel::hush`].
    pub fn table_hearing(&self) -> TableHearing {
        let [_, nft, _] = &self.sockets;
        TableHearing(nft.clone())
    }

    /// They become readable when something changed; none blocks.
    pub fn fds(&self) -> [BorrowedFd<'_>; 4] {
        let [route, nft, xfrm] = self.sockets.each_ref().map(AsFd::as_fd);
        [route, nft, xfrm, self.names.as_fd()]
    }

    /// What was heard since the last time. Bounded: there may be more to read.
    pub fn read(&mut self) -> Result<Heard, Error> {
        let mut heard = Heard::default();
        let mut settings = BTreeMap::new();
        let wakes_of = [route_wake, table_wake, xfrm_wake];
        for (socket, wake) in self.sockets.iter().zip(wakes_of) {
            for _ in 0..READS {
                match receive(socket, &mut self.buf) {
                    Ok((len, number)) => {
                        for answer in answers(self.buf.get(..len).unwrap_or_default()) {
                            match wake(&answer) {
                                Some(Wake::LinkSettings(is)) => {
                                    settings.insert((number, is.name.clone()), is);
                                }
                                Some(other) => heard.add(number, other),
                                None => {}
                            }
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                        heard.add(None, Wake::Resync);
                    }
                    Err(e) => return Err(Error::system("listen for changes", e)),
                }
            }
        }
        for ((number, _), is) in settings {
            heard.add(number, Wake::LinkSettings(is));
        }
        self.read_names(&mut heard)?;
        Ok(heard)
    }

    fn read_names(&self, heard: &mut Heard) -> Result<(), Error> {
        let events = match self.names.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(e) => return Err(Error::system("listen for namespaces that go", e)),
        };
        for event in events {
            let name = event.name.and_then(|name| name.into_string().ok());
            match name {
                Some(name) if Namespace::may_be_ours(&name) => {
                    heard.add(None, Wake::Namespace(name));
                }
                Some(_) => {}
                None => heard.add(None, Wake::Resync),
            }
        }
        Ok(())
    }
}

fn watch_names() -> io::Result<Inotify> {
    fs::create_dir_all(netns::DIRECTORY)?;
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let gone = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM;
    inotify.add_watch(netns::DIRECTORY, gone)?;
    Ok(inotify)
}

/// A monitor's sockets, to have them hear of all namespaces that have numbers.
#[derive(Clone, Debug)]
pub struct Everywhere([Arc<netlink_sys::Socket>; 3]);

impl Everywhere {
    /// From now on they do.
    pub(crate) fn open(&self) -> Result<(), Error> {
        self.0.iter().try_for_each(|socket| {
            let done = socket.set_listen_all_namespaces(true);
            done.map_err(|e| Error::system("listen for changes in all namespaces", e))
        })
    }
}

/// Whether a monitor hears of changes in tables.
#[derive(Clone, Debug)]
pub struct TableHearing(Arc<netlink_sys::Socket>);

impl TableHearing {
    /// While nobody hears of them the kernel writes no notifications, each of which costs it 8 KiB.
    pub(crate) fn set(&self, on: bool) -> Result<(), Error> {
        let done = match on {
            true => self.0.add_membership(NFT_GROUP),
            false => self.0.drop_membership(NFT_GROUP),
        };
        done.map_err(|e| Error::system("listen for changes in tables", e))
    }
}

fn listen(protocol: isize, groups: &[u32], ignored: &[u32]) -> io::Result<netlink_sys::Socket> {
    let mut socket = netlink_sys::Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    receive_buffer(&socket, RECEIVE_BUFFER);
    SockRef::from(&socket).attach_filter(&filter(protocol, ignored))?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    Ok(socket)
}

/// A filter that drops, before it is queued, what these sockets caused: the messages of one datagram
/// have one cause, which the header of the first names. The settings of single links, which change by
/// thousands when those of all do, it drops too.
fn filter(protocol: isize, ignored: &[u32]) -> Vec<SockFilter> {
    let ignored = ignored.get(..MAX_IGNORED).unwrap_or(ignored);
    let load = |code, offset| SockFilter::new(code, 0, 0, offset);
    let skip_if = |value: u32, skip| SockFilter::new(BPF_JUMP_EQUAL, skip, 0, value);
    let verdict = |octets| SockFilter::new(BPF_RETURN, 0, 0, octets);
    let [keep, drop] = [verdict(u32::MAX), verdict(0)];
    let mut program = vec![load(BPF_LOAD_WORD, PORT_OFFSET)];
    for port in ignored {
        program.push(SockFilter::new(BPF_JUMP_EQUAL, 0, 1, port.to_be()));
        program.push(verdict(0));
    }
    if protocol == libc::NETLINK_ROUTE as isize {
        program.push(load(BPF_LOAD_HALF, KIND_OFFSET));
        program.push(skip_if(u32::from(RTM_NEWNETCONF.to_be()), 1));
        program.push(verdict(u32::MAX));
        program.push(load(BPF_LOAD_WORD, NETCONF_LINK_OFFSET));
        program.extend([
            skip_if(ALL_LINKS[0].to_be(), 2),
            skip_if(ALL_LINKS[1].to_be(), 1),
        ]);
        program.push(drop);
    }
    program.push(keep);
    program
}

/// What a monitor makes of a notification.
#[cfg(feature = "fuzzing")]
pub fn hear(answer: &Answer<'_>) {
    for wake in [route_wake, table_wake, xfrm_wake] {
        let _ = wake(answer);
    }
}

fn route_wake(answer: &Answer<'_>) -> Option<Wake> {
    let family = match answer.payload.first() {
        Some(2) => Family::V4,
        _ => Family::V6,
    };
    Some(match answer.kind {
        16 | 17 => link_wake(answer)?,
        20 | 21 => Wake::Addresses,
        24 | 25 if entry::is_ours(answer) => Wake::Routes(family),
        28 | 29 => neighbour::read(answer).map(|_| Wake::Neighbours)?,
        32 | 33 => Wake::Rules(family),
        36 | 37 | 44 | 45 => Wake::Program(tc::link_index(answer)?),
        RTM_NEWNETCONF => Wake::Settings,
        _ => return None,
    })
}

fn link_wake(answer: &Answer<'_>) -> Option<Wake> {
    Some(match link::read(answer) {
        Some(is) if !link::turned(answer) => Wake::LinkSettings(LinkSettings {
            name: is.name,
            mac: is.mac,
            mtu: is.mtu,
            up: is.up,
            running: is.running,
        }),
        Some(is) if link::came(answer) => Wake::NewLink(is.name),
        _ => Wake::Link(link::name(answer)?),
    })
}

fn table_wake(answer: &Answer<'_>) -> Option<Wake> {
    let table = Attrs::after(answer.payload, 4).get(1).and_then(text);
    let ours = answer.kind >> 8 == NFNL_SUBSYS_NFTABLES && table == Some(TABLE);
    ours.then_some(Wake::Table)
}

fn xfrm_wake(answer: &Answer<'_>) -> Option<Wake> {
    xfrm::concerns_us(answer).then_some(Wake::XfrmPolicies)
}
