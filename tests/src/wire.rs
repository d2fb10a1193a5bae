//! A TAP that the test holds: writing a frame is what a guest, or the fabric, sends; reading is what it
//! receives.

use std::{
    collections::VecDeque,
    io,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use hextet_types::IfName;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// A frame as it stands on the wire, from its destination address to its last octet.
pub type Frame = Vec<u8>;

/// How long to wait for what has to come; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nothing may have come before a wire counts as quiet. What the kernel forwards is there when
/// the sending call returns; this is for what it does later (an error that it sends, a reply of its own).
const QUIET: Duration = Duration::from_millis(3);
/// Frames that are kept before the first are thrown away.
const BACKLOG: usize = 65_536;

/// What a virtio network device says of a frame (virtio 1.2 §5.1.6.1), ahead of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioHeader {
    /// 1: the checksum is not complete yet.
    pub flags: u8,
    /// 0 for none, 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP; 0x80 with congestion notification.
    pub gso_type: u8,
    /// Octets of all headers.
    pub hdr_len: u16,
    /// Octets of payload in each segment.
    pub gso_size: u16,
    /// Where the checksum begins, from the frame's first octet.
    pub csum_start: u16,
    /// Where it is put, from there.
    pub csum_offset: u16,
}

impl VirtioHeader {
    const LEN: usize = 10;

    /// The checksum is not complete yet.
    pub const NEEDS_CHECKSUM: u8 = 1;
    /// TCP over IPv4, to be cut into segments.
    pub const TCP_V4: u8 = 1;
    /// TCP over IPv6, to be cut into segments.
    pub const TCP_V6: u8 = 4;

    fn octets(self) -> [u8; VirtioHeader::LEN] {
        let mut octets = [0; VirtioHeader::LEN];
        octets[..2].copy_from_slice(&[self.flags, self.gso_type]);
        let words = [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
        ];
        for (place, word) in octets[2..].chunks_mut(2).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        octets
    }
}

/// One end of a wire; the other is the link of that name in the namespace.
pub struct Wire {
    name: IfName,
    device: SyncDevice,
    /// Octets ahead of each frame.
    header: usize,
    seen: VecDeque<Frame>,
}

impl Wire {
    /// Makes the TAP, down, in the namespace of the calling thread. It ends when this is dropped.
    pub fn new(name: &IfName) -> io::Result<Wire> {
        Wire::make(name, false)
    }

    /// The same for a virtio device, which says something of each frame.
    pub fn virtio(name: &IfName) -> io::Result<Wire> {
        Wire::make(name, true)
    }

    fn make(name: &IfName, virtio: bool) -> io::Result<Wire> {
        let device = DeviceBuilder::new()
            .name(name.as_str())
            .layer(Layer::L2)
            .offload(virtio)
            .inherit_enable_state()
            .build_sync()?;
        device.set_nonblocking(true)?;
        Ok(Wire {
            name: name.clone(),
            device,
            header: if virtio { VirtioHeader::LEN } else { 0 },
            seen: VecDeque::new(),
        })
    }

    /// The link's name.
    pub fn name(&self) -> &IfName {
        &self.name
    }

    /// Sends a frame. One that the link does not take (it is down, or the frame is too short to be one)
    /// is lost, as on any wire.
    pub fn send(&self, frame: &[u8]) {
        match self.header {
            0 => self.write(frame),
            _ => self.send_virtio(VirtioHeader::default(), frame),
        }
    }

    /// Sends a frame with what a virtio device says of it.
    ///
    /// # Panics
    ///
    /// It is the wire of no virtio device.
    pub fn send_virtio(&self, header: VirtioHeader, frame: &[u8]) {
        assert_eq!(self.header, VirtioHeader::LEN, "{} is plain", self.name);
        self.write(&[&header.octets(), frame].concat());
    }

    fn write(&self, frame: &[u8]) {
        match self.device.send(frame) {
            Ok(_) => {}
            Err(e) if matches!(e.raw_os_error(), Some(nix::libc::EIO | nix::libc::EINVAL)) => {}
            Err(e) => panic!("send {} octets into {}: {e}", frame.len(), self.name),
        }
    }

    /// Takes in what has come, without waiting.
    pub fn collect(&mut self) {
        let mut buffer = vec![0; 65_600];
        loop {
            match self.device.recv(&mut buffer) {
                Ok(len) => self
                    .seen
                    .push_back(buffer[self.header.min(len)..len].to_vec()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // The link is down.
                Err(e) if e.raw_os_error() == Some(nix::libc::EIO) => break,
                Err(e) => panic!("receive from {}: {e}", self.name),
            }
        }
        let excess = self.seen.len().saturating_sub(BACKLOG);
        self.seen.drain(..excess);
    }

    /// Takes what has come so far off the wire, without waiting.
    pub fn take(&mut self) -> Vec<Frame> {
        self.collect();
        self.seen.drain(..).collect()
    }

    /// Throws away what has come so far.
    pub fn clear(&mut self) {
        self.collect();
        self.seen.clear();
    }

    /// What has come since the last [`Wire::clear`], once the wire is quiet.
    pub fn frames(&mut self) -> &VecDeque<Frame> {
        loop {
            self.collect();
            if !self.wait(QUIET) {
                return &self.seen;
            }
        }
    }

    /// Whether such a frame has come, once the wire is quiet.
    pub fn has(&mut self, is_it: impl Fn(&[u8]) -> bool) -> bool {
        self.frames().iter().any(|frame| is_it(frame))
    }

    /// Takes the first such frame and all before it off the wire, waiting for it.
    pub fn expect(&mut self, what: &str, is_it: impl Fn(&[u8]) -> bool) -> Frame {
        let end = Instant::now() + PATIENCE;
        loop {
            self.collect();
            if let Some(at) = self.seen.iter().position(|frame| is_it(frame)) {
                let mut taken = self.seen.drain(..=at);
                return taken.next_back().expect("it is the last of them");
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} did not come by {}", self.name);
            self.wait(left);
        }
    }

    /// Whether a frame came within that time.
    fn wait(&self, time: Duration) -> bool {
        let mut fds = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(ready) => {
                let events = fds[0].revents().unwrap_or(PollFlags::empty());
                ready > 0 && events.contains(PollFlags::POLLIN)
            }
            Err(_) => true,
        }
    }
}
