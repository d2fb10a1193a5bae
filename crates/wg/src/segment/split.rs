//! Cuts a super-packet into slots.

use super::{
    Error, Kind, Offload, Partial,
    checksum::Sum,
    headers::{
        CWR, FIN, Layout, PSH, Protocol, flags, sequence, set_flags, set_sequence, set_word, word,
    },
};

/// What a slot has beside its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Octets before it.
    pub before: usize,
    /// Octets after it, and after what fills it up.
    pub after: usize,
    /// It is filled up with zeros to a multiple of this; not 0.
    pub unit: usize,
    /// But to no more octets than this.
    pub most: usize,
}

impl Room {
    /// Octets of a segment that is filled up.
    pub const fn filled(&self, len: usize) -> usize {
        let filled = len.next_multiple_of(self.unit);
        if filled <= self.most {
            filled
        } else if len <= self.most {
            self.most
        } else {
            len
        }
    }

    /// Octets of a slot for a segment.
    pub const fn slot(&self, len: usize) -> usize {
        self.before + self.filled(len) + self.after
    }
}

/// Slots that were filled: one behind the other, all but the last of the same length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How many; not 0.
    pub count: usize,
    /// Octets of each segment but the last.
    pub len: usize,
    /// Octets of the last segment.
    pub last: usize,
    /// Octets from one slot to the next.
    pub stride: usize,
}

impl Batch {
    /// Where each slot begins, and how long its segment is.
    pub fn slots(&self) -> impl Iterator<Item = (usize, usize)> {
        let Batch {
            count,
            len,
            last,
            stride,
        } = *self;
        (0..count).map(move |i| (i * stride, if i + 1 == count { last } else { len }))
    }

    /// Octets of all slots.
    pub const fn total(&self, room: &Room) -> usize {
        (self.count - 1) * self.stride + room.slot(self.last)
    }
}

/// A packet that is being cut.
#[derive(Debug)]
pub struct Split<'a> {
    packet: &'a [u8],
    how: How,
    next: usize,
    count: usize,
}

#[derive(Debug)]
enum How {
    Whole(Option<Partial>),
    Cut { layout: Layout, size: usize },
}

impl<'a> Split<'a> {
    /// Begins with a packet and what a device says of it.
    ///
    /// # Errors
    ///
    /// The packet is not what is said of it.
    pub fn of(offload: &Offload, packet: &'a [u8]) -> Result<Split<'a>, Error> {
        let (how, count) = match offload.gso {
            None => {
                let fits = |partial: &Partial| {
                    usize::from(partial.start) + usize::from(partial.field) + 2 <= packet.len()
                };
                if packet.is_empty() || !offload.checksum.as_ref().is_none_or(fits) {
                    return Err(Error::Packet);
                }
                (How::Whole(offload.checksum), 1)
            }
            Some(gso) => {
                let layout = Layout::of_super(offload, gso.kind, packet)?;
                let size = usize::from(gso.size.max(1));
                let count = (packet.len() - layout.payload).div_ceil(size).max(1);
                if gso.kind == Kind::Udp && packet.len() == layout.payload {
                    return Err(Error::Packet);
                }
                (How::Cut { layout, size }, count)
            }
        };
        Ok(Split {
            packet,
            how,
            next: 0,
            count,
        })
    }

    /// How many segments are still to come.
    pub const fn left(&self) -> usize {
        self.count - self.next
    }

    /// Fills slots with the next segments: as many as are left, as `most` says, and as `out` has room for. Nothing when all were
    /// given. What of a slot is not segment and not filled up is left as it is.
    ///
    /// # Errors
    ///
    /// Not one has room.
    pub fn fill(
        &mut self,
        room: &Room,
        most: usize,
        out: &mut [u8],
    ) -> Result<Option<Batch>, Error> {
        if self.left() == 0 {
            return Ok(None);
        }
        let len = self.segment_len(self.next);
        let stride = room.slot(len);
        let mut batch = Batch {
            count: 0,
            len,
            last: len,
            stride,
        };
        while batch.count < most && self.next < self.count {
            let len = self.segment_len(self.next);
            let at = batch.count * stride + room.before;
            let Some(slot) = out.get_mut(at..at + room.filled(len) + room.after) else {
                break;
            };
            let (segment, rest) = slot.split_at_mut(len);
            rest[..room.filled(len) - len].fill(0);
            self.write(segment);
            batch.count += 1;
            batch.last = len;
            self.next += 1;
        }
        if batch.count == 0 {
            return Err(Error::Room);
        }
        Ok(Some(batch))
    }

    fn segment_len(&self, index: usize) -> usize {
        match self.how {
            How::Whole(_) => self.packet.len(),
            How::Cut { layout, size } => {
                let from = layout.payload + index * size;
                layout.payload + size.min(self.packet.len() - from)
            }
        }
    }

    /// The next segment, into a slice of just its length.
    fn write(&self, segment: &mut [u8]) {
        match self.how {
            How::Whole(partial) => {
                segment.copy_from_slice(self.packet);
                if let Some(Partial { start, field }) = partial {
                    let start = usize::from(start);
                    let checksum = Sum::of(&segment[start..]).complement_of_transport();
                    set_word(segment, start + usize::from(field), checksum);
                }
            }
            How::Cut { layout, size } => {
                let (headers, payload) = segment.split_at_mut(layout.payload);
                let from = layout.payload + self.next * size;
                headers.copy_from_slice(&self.packet[..layout.payload]);
                payload.copy_from_slice(&self.packet[from..from + payload.len()]);
                self.finish(segment, &layout, size);
            }
        }
    }

    fn finish(&self, segment: &mut [u8], layout: &Layout, size: usize) {
        if !layout.ipv6 {
            let identification = word(segment, 4).wrapping_add(self.next as u16);
            set_word(segment, 4, identification);
        }
        layout.set_lengths(segment);
        if layout.protocol == Protocol::Tcp {
            let sent = (self.next * size) as u32;
            let number = sequence(segment, layout).wrapping_add(sent);
            set_sequence(segment, layout, number);
            let mut flags = flags(segment, layout);
            if self.next > 0 {
                flags &= !CWR;
            }
            if self.next + 1 < self.count {
                flags &= !(FIN | PSH);
            }
            set_flags(segment, layout, flags);
        }
        self.finish_checksum(segment, layout);
    }

    /// The field holds the pseudo-header's sum, with the length of the whole. Only the kernel knows the address in it where the packet
    /// has a routing header.
    fn finish_checksum(&self, segment: &mut [u8], layout: &Layout) {
        let field = layout.transport + layout.protocol.checksum_field();
        let whole = (self.packet.len() - layout.transport) as u16;
        let checksum = Sum::of(&segment[layout.transport..])
            .and(!whole)
            .and((segment.len() - layout.transport) as u16)
            .complement_of_transport();
        set_word(segment, field, checksum);
    }
}
