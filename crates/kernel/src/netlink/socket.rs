//! A request socket: many requests in one sendmsg, each answer brought back to its request.
//!
//! The kernel works off requests within sendmsg, so all answers are there when it returns. Only the last
//! request of a send asks for an acknowledgement: errors come for every request anyway.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use netlink_sys::SocketAddr;
use nix::sys::socket::{setsockopt, sockopt};

use super::{
    Attrs,
    attr::{align, ne16, ne32},
    message::{Batch, flags, header_len},
};
use crate::error::{Error, Refusal};

const RECEIVE_BUFFER: usize = 16 << 20;
const SEND_BUFFER: usize = 1 << 20;
/// Most requests of one send: their errors must fit into the receive buffer.
const SEND_REQUESTS: usize = 2048;
const SEND_OCTETS: usize = 512 << 10;
/// A dump that others keep disturbing is taken as good after so many tries.
const DUMP_TRIES: usize = 16;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A message from the kernel.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Its type.
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// The number of the request that it answers.
    pub seq: u32,
    /// The port of who caused it, in notifications.
    pub port: u32,
    /// All behind the header.
    pub payload: &'a [u8],
}

/// What the kernel refused in a batch: (index of the request, why), ascending. Empty means that all of it
/// was done.
pub type Outcome = Vec<(usize, Refusal)>;

/// Requests `from..to` of a batch whose first has the number `first`; `last` acknowledges.
#[derive(Clone, Copy)]
struct Span {
    first: u32,
    from: usize,
    to: usize,
    last: usize,
}

/// A netlink socket of the namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    port: u32,
    seq: u32,
    buf: Vec<u8>,
    send_buffer: usize,
    only_undisturbed: bool,
    what: &'static str,
}

impl Socket {
    /// Opens one in the thread's network namespace; `protocol` as in netlink(7).
    pub fn open(protocol: isize, what: &'static str) -> Result<Self, Error> {
        Socket::open_as(protocol, what, None)
    }

    /// As [`Socket::open`], with the address that another one has in another namespace, unless that is taken.
    pub fn open_as(
        protocol: isize,
        what: &'static str,
        wanted: Option<u32>,
    ) -> Result<Self, Error> {
        let failed = |e: io::Error| Error::system(format!("open a {what} socket"), e);
        let mut inner = netlink_sys::Socket::new(protocol).map_err(failed)?;
        let is_bound = |inner: &mut netlink_sys::Socket, port| {
            inner
                .bind(&SocketAddr::new(port, 0))
                .is_ok()
                .then_some(port)
        };
        let port = match wanted.and_then(|port| is_bound(&mut inner, port)) {
            Some(port) => port,
            None => inner.bind_auto().map_err(failed)?.port_number(),
        };
        inner.set_ext_ack(true).map_err(failed)?;
        inner.set_cap_ack(true).map_err(failed)?;
        if protocol == libc::NETLINK_ROUTE as isize {
            inner.set_netlink_get_strict_chk(true).map_err(failed)?;
        }
        inner.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        receive_buffer(&inner, RECEIVE_BUFFER);
        let mut socket = Socket {
            inner,
            port,
            seq: 1,
            buf: vec![0; 64 << 10],
            send_buffer: 0,
            only_undisturbed: false,
            what,
        };
        socket.grow_send_buffer(SEND_BUFFER);
        Ok(socket)
    }

    /// From now on a dump that others keep disturbing fails, instead of being taken as good.
    pub fn only_undisturbed(&mut self) {
        self.only_undisturbed = true;
    }

    /// Its address; notifications that its requests cause carry it.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// The number of the namespace that it is in, which no other has until the host starts anew.
    #[allow(unsafe_code)]
    pub fn netns_cookie(&self) -> Result<u64, Error> {
        let mut cookie = 0_u64;
        let mut len = size_of::<u64>() as libc::socklen_t;
        // SAFETY: the descriptor is ours and open, and both addresses are those of live variables, the first
        // with as many octets as the second says.
        let result = unsafe {
            libc::getsockopt(
                self.inner.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut len,
            )
        };
        match result {
            0 => Ok(cookie),
            _ => Err(Error::system(
                "ask for the network namespace's number",
                io::Error::last_os_error(),
            )),
        }
    }

    /// Sends requests that are independent of each other: one that fails stops no other.
    pub fn request(&mut self, batch: &mut Batch) -> Result<Outcome, Error> {
        self.query(batch, |_, _| ())
    }

    /// As [`Socket::request`], with `each(index, answer)` for every message that is no acknowledgement.
    pub fn query(
        &mut self,
        batch: &mut Batch,
        mut each: impl FnMut(usize, &Answer<'_>),
    ) -> Result<Outcome, Error> {
        let mut outcome = Vec::new();
        let first = self.seal(batch)?;
        let mut from = 0;
        while from < batch.len() {
            let mut to = from + 1;
            while to < batch.len()
                && to - from < SEND_REQUESTS
                && batch.span(from, to + 1).len() <= SEND_OCTETS
            {
                to += 1;
            }
            batch.add_flags(to - 1, flags::ACK);
            let span = Span {
                first,
                from,
                to,
                last: to - 1,
            };
            self.send_span(batch, span, &mut outcome, &mut each)?;
            from = to;
        }
        Ok(outcome)
    }

    /// Sends a batch in one piece, as an nf_tables transaction has to be. `last` is the index of the
    /// request that acknowledges. The send buffer grows to its size.
    pub fn transact(&mut self, batch: &mut Batch, last: usize) -> Result<Outcome, Error> {
        let mut outcome = Vec::new();
        self.grow_send_buffer(batch.octets() * 2 + SEND_BUFFER);
        batch.add_flags(last, flags::ACK);
        let span = Span {
            first: self.seal(batch)?,
            from: 0,
            to: batch.len(),
            last,
        };
        self.send_span(batch, span, &mut outcome, &mut |_, _| ())?;
        Ok(outcome)
    }

    /// Numbers a batch's requests; gives the first number.
    fn seal(&mut self, batch: &mut Batch) -> Result<u32, Error> {
        let first = self.seq;
        let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        self.seq = self.seq.wrapping_add(count);
        match batch.seal(first, self.port) {
            Some(_) => Ok(first),
            None => Err(Error::unfit(
                format!("send {}", self.what),
                "an attribute is longer than 65,531 octets",
            )),
        }
    }

    fn send_span(
        &mut self,
        batch: &Batch,
        span: Span,
        outcome: &mut Outcome,
        each: &mut dyn FnMut(usize, &Answer<'_>),
    ) -> Result<(), Error> {
        let Span {
            first,
            from,
            to,
            last,
        } = span;
        self.send(batch.span(from, to))?;
        let mut acknowledged = false;
        while let Some(len) = self.receive(libc::MSG_DONTWAIT)? {
            let octets = self.buf.get(..len).unwrap_or_default();
            for answer in answers(octets) {
                let index = answer.seq.wrapping_sub(first) as usize;
                if index < from || index >= to {
                    continue;
                }
                match answer.kind {
                    NLMSG_ERROR => match refusal(&answer) {
                        Some(refusal) => {
                            acknowledged |= index == last;
                            outcome.push((index, refusal));
                        }
                        None => acknowledged |= index == last,
                    },
                    NLMSG_NOOP | NLMSG_DONE => {}
                    _ => each(index, &answer),
                }
            }
        }
        if acknowledged || !outcome.is_empty() {
            return Ok(());
        }
        Err(Error::Lost {
            operation: format!("send {} {}", to - from, self.what),
        })
    }

    /// Asks for everything of a kind. A dump that was disturbed is taken again, so that what `parse`
    /// made of it is of one moment.
    pub fn dump<T>(
        &mut self,
        request: &mut Batch,
        mut parse: impl FnMut(&Answer<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut tries = 0;
        loop {
            let mut found = Vec::new();
            let disturbed = self.dump_each(request, |answer| found.extend(parse(answer)))?;
            tries += 1;
            if !disturbed {
                return Ok(found);
            }
            if tries == DUMP_TRIES {
                return match self.only_undisturbed {
                    false => Ok(found),
                    true => Err(Error::Lost {
                        operation: format!("dump {} while others write", self.what),
                    }),
                };
            }
        }
    }

    /// Asks for everything of a kind and keeps nothing; says whether it was disturbed on the way.
    pub fn dump_each(
        &mut self,
        request: &mut Batch,
        mut each: impl FnMut(&Answer<'_>),
    ) -> Result<bool, Error> {
        let what = self.what;
        let operation = || format!("dump {what}");
        let lost = Error::Lost {
            operation: operation(),
        };
        let unfit = Error::unfit(operation(), "an attribute is too long");
        let seq = self.seq;
        self.seq = self.seq.wrapping_add(1);
        request.add_flags(0, flags::DUMP);
        let octets = request.seal(seq, self.port).ok_or(unfit)?.to_vec();
        self.send(&octets)?;
        let mut disturbed = false;
        loop {
            let Some(len) = self.receive(0)? else {
                return Err(lost);
            };
            let octets = self.buf.get(..len).unwrap_or_default();
            for answer in answers(octets).filter(|answer| answer.seq == seq) {
                disturbed |= answer.flags & NLM_F_DUMP_INTR != 0;
                match answer.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return match refusal(&answer) {
                            Some(refusal) => Err(refusal.of(operation())),
                            None => Ok(disturbed),
                        };
                    }
                    NLMSG_NOOP => {}
                    _ => each(&answer),
                }
            }
        }
    }

    fn send(&self, octets: &[u8]) -> Result<(), Error> {
        loop {
            match self.inner.send(octets, 0) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::system(format!("send {}", self.what), e)),
            }
        }
    }

    /// Octets received; none, when there is nothing.
    fn receive(&mut self, recv_flags: i32) -> Result<Option<usize>, Error> {
        loop {
            let room = self.buf.len();
            let mut into = &mut self.buf[..];
            match self.inner.recv(&mut into, recv_flags | libc::MSG_TRUNC) {
                Ok(len) if len <= room => return Ok(Some(len)),
                Ok(_) => {
                    return Err(Error::Lost {
                        operation: format!("read {}", self.what),
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Err(Error::Lost {
                        operation: format!("read {}", self.what),
                    });
                }
                Err(e) => return Err(Error::system(format!("read {}", self.what), e)),
            }
        }
    }

    fn grow_send_buffer(&mut self, size: usize) {
        if size > self.send_buffer {
            let size = size.min(1 << 30);
            let forced = setsockopt(&self.inner.as_fd(), sockopt::SndBufForce, &size);
            if forced.is_err() {
                let _ = setsockopt(&self.inner.as_fd(), sockopt::SndBuf, &size);
            }
            self.send_buffer = size;
        }
    }
}

/// Raises a receive buffer, above the host's limit where we may.
pub(super) fn receive_buffer(socket: &netlink_sys::Socket, size: usize) {
    if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &size).is_err() {
        let _ = setsockopt(&socket.as_fd(), sockopt::RcvBuf, &size);
    }
}

/// Goes through the messages of one datagram; ends quietly at the first that is cut short.
pub fn answers(octets: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        let len = ne32(rest.get(..4)?)? as usize;
        let answer = Answer {
            kind: ne16(rest.get(4..6)?)?,
            flags: ne16(rest.get(6..8)?)?,
            seq: ne32(rest.get(8..12)?)?,
            port: ne32(rest.get(12..16)?)?,
            payload: rest.get(header_len()..len)?,
        };
        rest = rest.get(align(len)..).unwrap_or_default();
        Some(answer)
    })
}

/// The refusal in an NLMSG_ERROR or NLMSG_DONE; none, where it says that all is well.
fn refusal(answer: &Answer<'_>) -> Option<Refusal> {
    let code = ne32(answer.payload)?.cast_signed();
    if code == 0 {
        return None;
    }
    let mut message = None;
    if answer.flags & NLM_F_ACK_TLVS != 0 {
        let request = match answer.kind {
            NLMSG_DONE => 0,
            _ if answer.flags & NLM_F_CAPPED != 0 => header_len(),
            _ => ne32(answer.payload.get(4..)?)? as usize,
        };
        message = Attrs::after(answer.payload, 4 + request)
            .get(NLMSGERR_ATTR_MSG)
            .and_then(super::text)
            .map(str::to_owned);
    }
    Some(Refusal {
        errno: code.wrapping_neg(),
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extended_acknowledgement_gives_the_kernel_s_words() {
        let mut payload = (-libc::EINVAL).to_ne_bytes().to_vec();
        payload.extend_from_slice(&[0; 16]);
        payload.extend_from_slice(&[9, 0, 1, 0, b'n', b'o', b'p', b'e', 0, 0, 0, 0]);
        let flags = NLM_F_CAPPED | NLM_F_ACK_TLVS;
        let answer = Answer {
            kind: NLMSG_ERROR,
            flags,
            seq: 0,
            port: 0,
            payload: &payload,
        };
        let refusal = refusal(&answer).expect("an error");
        assert_eq!(refusal.errno, libc::EINVAL);
        assert_eq!(refusal.message.as_deref(), Some("nope"));
    }

    proptest::proptest! {
        #[test]
        fn no_octets_make_it_panic(bytes: Vec<u8>) {
            for answer in answers(&bytes) {
                let _ = refusal(&answer);
            }
        }
    }
}
