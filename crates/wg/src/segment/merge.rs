//! Puts neighbouring packets of one flow together.

use super::{
    Gso, Kind, Offload, Partial,
    headers::{ACK, DF, ECE, Layout, PSH, Protocol, flags, sequence, set_flags, set_word, word},
};

/// Octets of a packet at most; IP can't say more.
const MAX_PACKET: usize = 65_535;
/// Datagrams that the kernel takes as one packet.
const MAX_DATAGRAMS: usize = 64;

/// One packet for the device, which grows as long as the next ones belong to it.
///
/// A packet joins when it is of the same flow, says the same in all its headers, follows what is there without a gap, and its checksums
/// are right: the device will not look at them again. All others go on as they came.
#[derive(Debug)]
pub struct Merger {
    /// A device's note, then the packet.
    frame: Vec<u8>,
    open: Option<Open>,
    datagrams: bool,
}

/// How the frame may go on.
#[derive(Clone, Copy, Debug)]
struct Open {
    layout: Layout,
    /// Octets of payload in each.
    size: usize,
    count: usize,
    /// Of TCP.
    next_sequence: u32,
    /// The last one was shorter, or asked to be pushed.
    ended: bool,
}

impl Merger {
    /// An empty one. Without `datagrams` only TCP is merged: for kernels before 6.2, which take no UDP.
    pub fn new(datagrams: bool) -> Merger {
        Merger {
            frame: Vec::with_capacity(Offload::LEN + MAX_PACKET),
            open: None,
            datagrams,
        }
    }

    /// Takes in a packet, unless something else is there already that it doesn't belong to: then says no, and it is to be offered again
    /// when that was taken out. A packet that is empty or longer than 65,535 octets is dropped.
    #[must_use]
    pub fn push(&mut self, packet: &[u8]) -> bool {
        if packet.is_empty() || packet.len() > MAX_PACKET {
            return true;
        }
        if self.frame.is_empty() {
            self.frame.extend(Offload::default().encode());
            self.frame.extend(packet);
            self.open = self.begin(packet);
            return true;
        }
        self.open.is_some_and(|open| self.join(open, packet))
    }

    /// What was taken in, as the device takes it; then it is empty. Nothing when nothing was taken in.
    pub fn take(&mut self, into: &mut Vec<u8>) -> bool {
        into.clear();
        if self.frame.is_empty() {
            return false;
        }
        if let Some(open) = self.open.take().filter(|open| open.count > 1) {
            finish(&mut self.frame, &open);
        }
        std::mem::swap(&mut self.frame, into);
        true
    }

    fn begin(&self, packet: &[u8]) -> Option<Open> {
        let layout = Layout::of_plain(packet)?;
        let size = packet.len() - layout.payload;
        if size == 0 || !self.may_merge(packet, &layout) || !layout.is_sound(packet) {
            return None;
        }
        let tcp = layout.protocol == Protocol::Tcp;
        Some(Open {
            layout,
            size,
            count: 1,
            next_sequence: if tcp { after(packet, &layout) } else { 0 },
            ended: tcp && flags(packet, &layout) & PSH != 0,
        })
    }

    fn may_merge(&self, packet: &[u8], layout: &Layout) -> bool {
        match layout.protocol {
            Protocol::Udp => self.datagrams,
            Protocol::Tcp => {
                let flags = flags(packet, layout);
                let urgent = word(packet, layout.transport + 18);
                let reserved = packet[layout.transport + 12] & 15;
                flags & ACK != 0 && flags & !(ACK | PSH | ECE) == 0 && urgent == 0 && reserved == 0
            }
        }
    }

    fn join(&mut self, mut open: Open, packet: &[u8]) -> bool {
        let Some(layout) = Layout::of_plain(packet) else {
            return false;
        };
        let there = &self.frame[Offload::LEN..];
        let payload = packet.len() - layout.payload;
        let fits = !open.ended
            && (1..=open.size).contains(&payload)
            && there.len() + payload <= MAX_PACKET
            && (layout.protocol == Protocol::Tcp || open.count < MAX_DATAGRAMS);
        if layout != open.layout
            || !fits
            || !says_the_same(there, packet, &open)
            || !layout.is_sound(packet)
        {
            return false;
        }
        let mut pushed = false;
        if layout.protocol == Protocol::Tcp {
            open.next_sequence = after(packet, &layout);
            pushed = flags(packet, &layout) & PSH != 0;
        }
        open.count += 1;
        open.ended = pushed || payload < open.size;
        self.frame.extend(&packet[layout.payload..]);
        if pushed {
            let there = &mut self.frame[Offload::LEN..];
            let flags = flags(there, &layout) | PSH;
            set_flags(there, &layout, flags);
        }
        self.open = Some(open);
        true
    }
}

/// The sequence number that follows a packet.
fn after(packet: &[u8], layout: &Layout) -> u32 {
    sequence(packet, layout).wrapping_add((packet.len() - layout.payload) as u32)
}

/// Whether two packets of the same layout differ only in what cutting makes again.
fn says_the_same(first: &[u8], packet: &[u8], open: &Open) -> bool {
    let same = |from: usize, to: usize| first[from..to] == packet[from..to];
    let ip = if open.layout.ipv6 {
        same(0, 4) && same(6, 40)
    } else {
        let follows = word(packet, 4) == word(first, 4).wrapping_add(open.count as u16);
        same(0, 2) && same(6, 10) && same(12, 20) && (follows || word(first, 6) & DF != 0)
    };
    let at = open.layout.transport;
    let transport = match open.layout.protocol {
        Protocol::Udp => same(at, at + 4),
        Protocol::Tcp => {
            same(at, at + 4)
                && sequence(packet, &open.layout) == open.next_sequence
                && same(at + 8, at + 13)
                && flags(first, &open.layout) == flags(packet, &open.layout) & !PSH
                && same(at + 14, at + 16)
                && same(at + 18, open.layout.payload)
        }
    };
    ip && transport
}

/// Lengths, the pseudo-header's sum, and the device's note.
fn finish(frame: &mut [u8], open: &Open) {
    let Open { layout, size, .. } = *open;
    let (note, packet) = frame.split_at_mut(Offload::LEN);
    layout.set_lengths(packet);
    let field = layout.protocol.checksum_field();
    let sum = layout.pseudo_header(packet).fold();
    set_word(packet, layout.transport + field, sum);
    let kind = match (layout.protocol, layout.ipv6) {
        (Protocol::Udp, _) => Kind::Udp,
        (Protocol::Tcp, false) => Kind::Tcp4,
        (Protocol::Tcp, true) => Kind::Tcp6,
    };
    let offload = Offload {
        checksum: Some(Partial {
            start: layout.transport as u16,
            field: field as u16,
        }),
        gso: Some(Gso {
            kind,
            size: size as u16,
            ecn: false,
        }),
        headers: layout.payload as u16,
    };
    note.copy_from_slice(&offload.encode());
}
