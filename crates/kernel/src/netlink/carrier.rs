//! Hearing at once that a link lost its carrier: for protocols that would else wait for a timeout.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use hextet_types::IfName;
use netlink_sys::SocketAddr;

use super::{
    Answer, ne32,
    socket::{answers, receive_buffer},
};
use crate::{error::Error, route::link};

const RECEIVE_BUFFER: usize = 1 << 20;
/// `RTNLGRP_LINK`.
const LINK_GROUP: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
/// Up, and with a carrier as far as the driver can tell.
const CARRIES: u32 = (libc::IFF_UP | libc::IFF_RUNNING).cast_unsigned();

/// Listens for lost links in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct CarrierMonitor {
    socket: netlink_sys::Socket,
    buf: Vec<u8>,
}

impl CarrierMonitor {
    /// Begins to listen; what is down already is not told.
    pub fn open() -> Result<Self, Error> {
        let open = || -> io::Result<netlink_sys::Socket> {
            let mut socket = netlink_sys::Socket::new(libc::NETLINK_ROUTE as isize)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.set_non_blocking(true)?;
            receive_buffer(&socket, RECEIVE_BUFFER);
            socket.add_membership(LINK_GROUP)?;
            Ok(socket)
        };
        let socket = open().map_err(|e| Error::system("listen for links that go down", e))?;
        Ok(CarrierMonitor {
            socket,
            buf: vec![0; 64 << 10],
        })
    }

    /// The links that the next message says went down, lost their carrier or are gone; may name one
    /// again that was down before. What the kernel had no room to tell is lost, so this is no
    /// substitute for a timeout.
    ///
    /// # Errors
    ///
    /// `WouldBlock` where no message waits.
    pub fn read(&mut self) -> io::Result<Vec<IfName>> {
        match self.socket.recv(&mut &mut self.buf[..], libc::MSG_DONTWAIT) {
            Ok(len) => {
                let octets = self.buf.get(..len).unwrap_or_default();
                Ok(answers(octets)
                    .filter_map(|answer| lost_link(&answer))
                    .collect())
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for CarrierMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// For runtimes that want it so.
impl AsRawFd for CarrierMonitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn lost_link(answer: &Answer<'_>) -> Option<IfName> {
    let flags = ne32(answer.payload.get(8..)?)?;
    let lost = match answer.kind {
        RTM_NEWLINK => flags & CARRIES != CARRIES,
        RTM_DELLINK => true,
        _ => false,
    };
    if lost { link::name(answer) } else { None }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, process::Command};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::netns;

    /// A namespace that goes with it.
    struct Namespace(String);

    impl Drop for Namespace {
        fn drop(&mut self) {
            let _ = netns::delete(&self.0);
        }
    }

    fn ip(netns: &str, arguments: &str) {
        let command = format!("ip -n {netns} {arguments}");
        let status = Command::new("sh").args(["-c", &command]).status().unwrap();
        assert!(status.success(), "{command}");
    }

    /// Reads until that link was told to be lost, and not longer than five seconds for a message.
    fn wait_for(monitor: &mut CarrierMonitor, name: &str) {
        let mut seen = BTreeSet::new();
        loop {
            while let Ok(lost) = monitor.read() {
                seen.extend(lost);
            }
            if seen.iter().any(|link| link.as_str() == name) {
                return;
            }
            let fd = PollFd::new(monitor.as_fd(), PollFlags::POLLIN);
            let ready = poll(&mut [fd], PollTimeout::from(5000u16));
            assert_eq!(ready, Ok(1), "{name} was not told; {seen:?} were");
        }
    }

    #[test]
    fn a_link_set_down_without_carrier_or_deleted_is_told() {
        let name = format!("hxt-carrier-{}", std::process::id());
        netns::create(&name).unwrap();
        let namespace = Namespace(name.clone());
        let handle = netns::Handle::open(&hextet_model::state::Netns::Named(name)).unwrap();
        let mut monitor = handle.run(CarrierMonitor::open).unwrap().unwrap();
        for (a, b, loss) in [
            ("a1", "b1", "link set a1 down"),
            ("a2", "b2", "link set b2 down"),
            ("a3", "b3", "link del a3"),
        ] {
            ip(
                &namespace.0,
                &format!("link add {a} up type veth peer name {b}"),
            );
            ip(&namespace.0, &format!("link set {b} up"));
            ip(&namespace.0, &format!("link show {a} | grep -q LOWER_UP"));
            while monitor.read().is_ok() {}
            ip(&namespace.0, loss);
            wait_for(&mut monitor, a);
        }
    }
}
