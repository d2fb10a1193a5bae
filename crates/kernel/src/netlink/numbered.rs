//! Receiving with the number of the namespace that a notification is about.

#![allow(
    unsafe_code,
    reason = "no safe interface reads this kind of ancillary data"
)]

use std::{
    io,
    mem::zeroed,
    os::fd::AsRawFd as _,
    ptr::{from_mut, read_unaligned},
};

/// Room for ancillary data, in words, so that it is aligned as that has to be.
const ROOM: usize = 8;

/// The next datagram, which is cut off where it is longer than `buf`: (octets in `buf`, the number that the socket's
/// own namespace has for the one in which it was sent; none, where that is its own). `WouldBlock` when there is none.
pub fn receive(socket: &netlink_sys::Socket, buf: &mut [u8]) -> io::Result<(usize, Option<i32>)> {
    let mut control = [0_usize; ROOM];
    let mut part = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    // SAFETY: all fields are integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = from_mut(&mut part);
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: `message` names `part` and `control`, and `part` names `buf`; all of them outlive the call, with as many
    // octets as is said.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Ok((len.min(buf.len()), number(&message)))
}

/// The number in the ancillary data of a message that was received.
fn number(message: &libc::msghdr) -> Option<i32> {
    // SAFETY: the kernel filled in the control buffer, and says in `message` how long it is; it is still there.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: the macros give headers inside the control buffer only, which is aligned.
        let is = unsafe { *header };
        let wanted = (libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID);
        // SAFETY: only the length of the header is computed.
        let least = unsafe { libc::CMSG_LEN(size_of::<i32>() as libc::c_uint) };
        if (is.cmsg_level, is.cmsg_type) == wanted && is.cmsg_len as usize >= least as usize {
            // SAFETY: behind the header there are as many octets as a number has.
            return Some(unsafe { read_unaligned(libc::CMSG_DATA(header).cast()) });
        }
        // SAFETY: as with the first one.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}
