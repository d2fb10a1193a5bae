//! A TAP as a hypervisor holds one, and frames as a guest sends them.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::run;

/// A frame with IPv6, from the guest, its checksum right.
pub fn ipv6(source: [u8; 16], to: [u8; 16], extensions: &[u8], first: u8, icmp: &[u8]) -> Vec<u8> {
    let mut frame = vec![
        0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 5, 0x86, 0xdd, 0x60, 0, 0, 0,
    ];
    frame.extend(
        u16::try_from(extensions.len() + icmp.len())
            .expect("short")
            .to_be_bytes(),
    );
    frame.extend([first, 255]);
    frame.extend(source);
    frame.extend(to);
    frame.extend(extensions);
    let mut icmp = icmp.to_vec();
    let mut sum = 58 + u32::try_from(icmp.len()).expect("short");
    for pair in source.chunks(2).chain(to.chunks(2)).chain(icmp.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).expect("folded");
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(icmp);
    frame
}

pub fn v6(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>()
        .expect("an address")
        .octets()
}

/// A TAP as QEMU holds one.
pub struct Tap(File);

impl Tap {
    pub fn open(name: &str) -> Self {
        Self::open_with(name, libc::IFF_TAP | libc::IFF_NO_PI)
    }

    /// One whose frames begin with a header of virtio's.
    pub fn open_virtio(name: &str) -> Self {
        Self::open_with(name, libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR)
    }

    fn open_with(name: &str, flags: i32) -> Self {
        run(&format!("ip tuntap add {name} mode tap"));
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .expect("/dev/net/tun");
        let mut request = [0u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        request[16..18].copy_from_slice(&u16::try_from(flags).expect("16 bits").to_ne_bytes());
        // SAFETY: `request` is a struct ifreq with the name and flags that TUNSETIFF reads.
        #[allow(unsafe_code)]
        let done = unsafe { libc::ioctl(file.as_raw_fd(), 0x4004_54ca, request.as_mut_ptr()) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        Tap(file)
    }

    pub fn send(&mut self, frame: &[u8]) {
        assert_eq!(self.0.write(frame).expect("written"), frame.len());
    }

    /// The next frame that `wanted` takes, within a time.
    pub fn receive(&mut self, ms: u16, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let limit = Instant::now() + Duration::from_millis(ms.into());
        loop {
            let left = limit.saturating_duration_since(Instant::now()).as_millis();
            let timeout = PollTimeout::try_from(left).expect("short");
            let mut fds = [PollFd::new(
                std::os::fd::AsFd::as_fd(&self.0),
                PollFlags::POLLIN,
            )];
            if poll(&mut fds, timeout).expect("polled") == 0 {
                return None;
            }
            let mut frame = vec![0; 2048];
            let len = self.0.read(&mut frame).expect("read");
            frame.truncate(len);
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }
}
