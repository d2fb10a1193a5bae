//! One stream, and the thread that moves its octets. Whoever sends only leaves datagrams here, and waits for nobody.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use hextet_types::{IfName, Way};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        socket::{setsockopt, sockopt},
    },
};
use rustls::Connection;
use socket2::{SockAddr, Type};

use super::frames::{self, Frames};
use crate::{reception::Reception, sockets};

/// Octets that wait at most until the other end takes them.
const MAX_WAITING: usize = 256 << 10;
/// From the connection to the first datagram that is for somebody.
const FIRST: Duration = Duration::from_secs(10);
/// For a connection.
const CONNECTING: Duration = Duration::from_secs(5);
/// Without a datagram that is for somebody, or one that is sent.
const IDLE: Duration = Duration::from_secs(60);
/// Octets that nobody takes, or that nobody says have come.
const STUCK: Duration = Duration::from_secs(15);
/// How often it is looked whether our own address is another.
const LOOK: Duration = Duration::from_secs(2);
/// Records that are read until something is written.
const READS: usize = 16;
/// Octets of a record of TLS at most.
const RECORD: usize = 16 << 10;

/// A stream to somebody, as those see it who send.
pub struct Stream {
    /// No other has it.
    pub number: u64,
    /// Whether we have opened it.
    pub ours: bool,
    agreed: AtomicBool,
    waiting: Mutex<Vec<u8>>,
    wake: EventFd,
}

impl Stream {
    pub fn new(number: u64, ours: bool) -> nix::Result<Stream> {
        Ok(Stream {
            number,
            ours,
            agreed: AtomicBool::new(false),
            waiting: Mutex::default(),
            wake: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
        })
    }

    /// Whether TLS's handshake is done.
    pub fn is_agreed(&self) -> bool {
        self.agreed.load(SeqCst)
    }

    /// Leaves a datagram to be sent: whether there is room for it.
    pub fn put(&self, datagram: &[u8]) -> bool {
        let mut waiting = self.waiting();
        if waiting.len() + datagram.len() > MAX_WAITING {
            return false;
        }
        let first = waiting.is_empty();
        let put = frames::push(&mut waiting, datagram);
        if put && first {
            let _ = self.wake.write(1);
        }
        put
    }

    fn take(&self) -> Vec<u8> {
        let mut waiting = self.waiting();
        let _ = self.wake.read();
        std::mem::take(&mut *waiting)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// A connection to somebody, by an interface or as routes say.
pub fn connect(to: SocketAddr, uplink: Option<&IfName>) -> io::Result<TcpStream> {
    let socket = sockets::open(to, Type::STREAM, uplink)?;
    socket.connect_timeout(&SockAddr::from(to), CONNECTING)?;
    Ok(socket.into())
}

/// The thread of a stream.
pub struct Worker<'a> {
    pub stream: &'a Stream,
    pub reception: &'a Reception,
    pub from: SocketAddr,
    pub uplink: Option<IfName>,
    socket: TcpStream,
    tls: Connection,
    frames: Frames,
    record: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    began: Instant,
    /// When a datagram came that was for somebody.
    heard: Option<Instant>,
    sent: Instant,
    stuck: Option<Instant>,
    looked: Instant,
}

impl<'a> Worker<'a> {
    pub fn new(
        stream: &'a Stream,
        reception: &'a Reception,
        from: SocketAddr,
        socket: TcpStream,
        tls: Connection,
    ) -> io::Result<Worker<'a>> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let millis = STUCK.as_millis() as u32;
        setsockopt(&socket, sockopt::TcpUserTimeout, &millis)?;
        let now = Instant::now();
        Ok(Worker {
            stream,
            reception,
            from,
            uplink: None,
            socket,
            tls,
            frames: Frames::default(),
            record: vec![0; RECORD],
            out: Vec::new(),
            written: 0,
            began: now,
            heard: None,
            sent: now,
            stuck: None,
            looked: now,
        })
    }

    /// Until it ends: whether anything came that was for somebody.
    pub fn run(mut self) -> bool {
        // Whatever the end was, the next stream is another.
        while let Ok(true) = self.turn() {}
        self.tls.send_close_notify();
        let _ = self.tls.write_tls(&mut self.socket);
        self.heard.is_some()
    }

    fn turn(&mut self) -> io::Result<bool> {
        self.write()?;
        if !self.read()? || self.has_moved()? {
            return Ok(false);
        }
        if !self.tls.is_handshaking() {
            self.stream.agreed.store(true, SeqCst);
        }
        let left = self.limit().saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        self.wait(left.min(LOOK));
        Ok(true)
    }

    /// When it is cut off, if nothing happens until then.
    fn limit(&self) -> Instant {
        let idle = match self.heard {
            None => self.began + FIRST,
            Some(heard) => heard.max(self.sent) + IDLE,
        };
        self.stuck.map_or(idle, |stuck| idle.min(stuck + STUCK))
    }

    /// What waited when it began; more is left for the next turn.
    fn write(&mut self) -> io::Result<()> {
        loop {
            if !self.flush()? || self.tls.is_handshaking() {
                return Ok(());
            }
            if self.written == self.out.len() {
                break;
            }
            self.fill()?;
        }
        self.out = self.stream.take();
        self.written = 0;
        if !self.out.is_empty() {
            self.sent = Instant::now();
            self.fill()?;
            self.flush()?;
        }
        Ok(())
    }

    /// The next record.
    fn fill(&mut self) -> io::Result<()> {
        let rest = self.out.get(self.written..).unwrap_or_default();
        let record = rest.get(..RECORD).unwrap_or(rest);
        self.written += self.tls.writer().write(record)?;
        Ok(())
    }

    /// Whether all is written.
    fn flush(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => self.stuck = None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck.get_or_insert_with(Instant::now);
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether it goes on.
    fn read(&mut self) -> io::Result<bool> {
        for _ in 0..READS {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let state = self.tls.process_new_packets().map_err(io::Error::other)?;
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let len = self.tls.reader().read(&mut self.record)?;
                self.frames.push(self.record.get(..len).unwrap_or_default());
                self.take()?;
                left = left.saturating_sub(len.max(1));
            }
            if state.peer_has_closed() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take(&mut self) -> io::Result<()> {
        let from = Way::Tls(self.from);
        while let Some(datagram) = self.frames.next().map_err(io::Error::other)? {
            if self.reception.take(from, datagram) {
                self.heard = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// Whether one that we have opened would leave from another address by now.
    fn has_moved(&mut self) -> io::Result<bool> {
        if !self.stream.ours || self.looked.elapsed() < LOOK {
            return Ok(false);
        }
        self.looked = Instant::now();
        let before = self.socket.local_addr()?;
        let Ok(now) = own_address(self.from, self.uplink.as_ref()) else {
            // There is no way at all: it may come again.
            return Ok(false);
        };
        Ok(now.ip() != before.ip())
    }

    fn wait(&self, limit: Duration) {
        let mut events = PollFlags::POLLIN;
        let blocked = self.tls.wants_write();
        if blocked {
            events |= PollFlags::POLLOUT;
        }
        let mut fds = vec![PollFd::new(self.socket.as_fd(), events)];
        if !blocked && !self.tls.is_handshaking() {
            fds.push(PollFd::new(self.stream.wake.as_fd(), PollFlags::POLLIN));
        }
        let millis = u16::try_from(limit.as_millis().saturating_add(1));
        let _ = poll(&mut fds, PollTimeout::from(millis.unwrap_or(u16::MAX)));
    }
}

/// The address from which something would leave now; nothing is sent.
fn own_address(to: SocketAddr, uplink: Option<&IfName>) -> io::Result<SocketAddr> {
    let socket = sockets::open(to, Type::DGRAM, uplink)?;
    socket.connect(&SockAddr::from(to))?;
    UdpSocket::from(socket).local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_lost_and_nobody_waits() {
        let stream = Stream::new(1, true).unwrap();
        let put = (0..10_000).filter(|_| stream.put(&[4; 1_000])).count();
        assert_eq!(put, (MAX_WAITING - 1_000) / 1_002 + 1);
        assert!(stream.waiting().len() <= MAX_WAITING + 2);
        assert_eq!(stream.take().len(), put * 1_002);
        assert!(stream.take().is_empty() && stream.put(&[4; 1_000]));
        assert!(!stream.put(&[]));
    }
}
