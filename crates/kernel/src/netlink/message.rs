//! Writing messages (`struct nlmsghdr`, netlink(7)), many into one buffer.

use std::net::IpAddr;

use super::attr::align;

/// The flags that requests use.
pub mod flags {
    /// It is a request.
    pub const REQUEST: u16 = 0x01;
    /// Answer also when all is well.
    pub const ACK: u16 = 0x04;
    /// Answer what is otherwise only told to listeners.
    pub const ECHO: u16 = 0x08;
    /// Show everything.
    pub const DUMP: u16 = 0x300;
    /// Put in place of what is there.
    pub const REPLACE: u16 = 0x100;
    /// Refuse when it is there.
    pub const EXCL: u16 = 0x200;
    /// Make it.
    pub const CREATE: u16 = 0x400;
    /// At the end.
    pub const APPEND: u16 = 0x800;
}

const HEADER: usize = 16;
const NESTED: u16 = 0x8000;

/// Requests, one behind another, as one sendmsg takes them.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    buf: Vec<u8>,
    starts: Vec<usize>,
    overlong: bool,
}

impl Batch {
    /// Opens a message; it ends where the next begins. `fixed` is the protocol's own header.
    pub fn message(&mut self, kind: u16, flags: u16, fixed: &[u8]) -> Message<'_> {
        self.starts.push(self.buf.len());
        self.buf.extend_from_slice(&[0; 4]);
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf
            .extend_from_slice(&(flags | flags::REQUEST).to_ne_bytes());
        self.buf.extend_from_slice(&[0; 8]);
        self.buf.extend_from_slice(fixed);
        self.pad();
        Message { batch: self }
    }

    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Octets of all its messages.
    pub fn octets(&self) -> usize {
        self.buf.len()
    }

    /// Sets more flags on a message.
    pub(super) fn add_flags(&mut self, index: usize, flags: u16) {
        let Some(at) = self.starts.get(index).map(|start| start + 6) else {
            return;
        };
        if let Some(field) = self.buf.get_mut(at..at + 2) {
            let now = u16::from_ne_bytes([field[0], field[1]]) | flags;
            field.copy_from_slice(&now.to_ne_bytes());
        }
    }

    /// Fills in lengths, sequence numbers from `first` on, and whose they are: XFRM names that in its
    /// notifications. None, when an attribute grew beyond what its length field can say.
    pub(super) fn seal(&mut self, first: u32, port: u32) -> Option<&[u8]> {
        if self.overlong {
            return None;
        }
        let ends = self.starts.iter().skip(1).copied().chain([self.buf.len()]);
        let spans: Vec<_> = self.starts.iter().copied().zip(ends).collect();
        let mut seq = first;
        for (start, end) in spans {
            let len = u32::try_from(end - start).ok()?;
            self.buf
                .get_mut(start..start + 4)?
                .copy_from_slice(&len.to_ne_bytes());
            self.buf
                .get_mut(start + 8..start + 12)?
                .copy_from_slice(&seq.to_ne_bytes());
            self.buf
                .get_mut(start + 12..start + 16)?
                .copy_from_slice(&port.to_ne_bytes());
            seq = seq.wrapping_add(1);
        }
        Some(&self.buf)
    }

    /// The octets of messages `from..to`.
    pub(super) fn span(&self, from: usize, to: usize) -> &[u8] {
        let at = |i: usize| self.starts.get(i).copied().unwrap_or(self.buf.len());
        self.buf.get(at(from)..at(to)).unwrap_or_default()
    }

    /// The last message behind its header.
    #[cfg(test)]
    pub(crate) fn octets_of_last(&self) -> &[u8] {
        &self.buf[self.starts[self.starts.len() - 1] + HEADER..]
    }

    fn pad(&mut self) {
        self.buf.resize(align(self.buf.len()), 0);
    }
}

/// The open message at the end of a batch.
#[derive(Debug)]
pub struct Message<'a> {
    batch: &'a mut Batch,
}

impl Message<'_> {
    /// Adds an attribute.
    pub fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        match u16::try_from(value.len() + 4) {
            Ok(len) => {
                self.batch.buf.extend_from_slice(&len.to_ne_bytes());
                self.batch.buf.extend_from_slice(&kind.to_ne_bytes());
                self.batch.buf.extend_from_slice(value);
                self.batch.pad();
            }
            Err(_) => self.batch.overlong = true,
        }
        self
    }

    /// One octet.
    pub fn octet(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attr(kind, &[value])
    }

    /// 32 bits in host order.
    pub fn ne32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// 16 bits in network order.
    pub fn be16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// 32 bits in network order.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// 64 bits in network order.
    pub fn be64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// A text with its NUL.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut octets = Vec::with_capacity(value.len() + 1);
        octets.extend_from_slice(value.as_bytes());
        octets.push(0);
        self.attr(kind, &octets)
    }

    /// An IP address.
    pub fn addr(&mut self, kind: u16, value: IpAddr) -> &mut Self {
        match value {
            IpAddr::V4(addr) => self.attr(kind, &addr.octets()),
            IpAddr::V6(addr) => self.attr(kind, &addr.octets()),
        }
    }

    /// Octets without an attribute header, as route next hops have them.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.batch.buf.extend_from_slice(value);
        self.batch.pad();
        self
    }

    /// An attribute that holds others.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.enclose(kind | NESTED, 4, fill)
    }

    /// A record of `header` octets whose first two say its length with what `fill` adds; the header's
    /// rest is zero. `struct nlattr` is one, `struct rtnexthop` another.
    fn enclose(&mut self, kind: u16, header: usize, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.batch.buf.len();
        self.batch.buf.resize(start + header, 0);
        fill(self);
        let len = u16::try_from(self.batch.buf.len() - start);
        let head = self.batch.buf.get_mut(start..start + 4);
        match (len, head) {
            (Ok(len), Some(head)) => {
                head[..2].copy_from_slice(&len.to_ne_bytes());
                head[2..].copy_from_slice(&kind.to_ne_bytes());
            }
            _ => self.batch.overlong = true,
        }
        self
    }

    /// A next hop of a route (`struct rtnexthop`), with weight 1.
    pub fn next_hop(&mut self, ifindex: u32, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.weighted_next_hop((ifindex, 1), fill)
    }

    /// The same with a weight, 1 to 255.
    pub fn weighted_next_hop(
        &mut self,
        (ifindex, weight): (u32, u8),
        fill: impl FnOnce(&mut Self),
    ) -> &mut Self {
        let flags_and_hops = u16::from_ne_bytes([0, weight.saturating_sub(1)]);
        self.enclose(flags_and_hops, 4, |m| {
            m.raw(&ifindex.to_ne_bytes());
            fill(m);
        })
    }
}

/// Octets of a message's header.
pub(super) const fn header_len() -> usize {
    HEADER
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Attrs;

    #[test]
    fn messages_carry_lengths_and_ascending_numbers() {
        let mut batch = Batch::default();
        batch.message(24, flags::CREATE, &[1; 5]).octet(1, 7);
        batch.message(25, 0, &[]).nest(2, |m| {
            m.be32(3, 0x0102_0304);
        });
        let sealed = batch.seal(9, 0).expect("short");
        assert_eq!(
            &sealed[..16],
            &[32, 0, 0, 0, 24, 0, 1, 4, 9, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            &sealed[16..32],
            &[1, 1, 1, 1, 1, 0, 0, 0, 5, 0, 1, 0, 7, 0, 0, 0]
        );
        assert_eq!(&sealed[32..44], &[28, 0, 0, 0, 25, 0, 1, 0, 10, 0, 0, 0]);
        let nested = Attrs(&sealed[48..]).nest(2);
        assert_eq!(nested.get(3), Some(&[1, 2, 3, 4][..]));
        assert_eq!(batch.span(1, 2).len(), 28);
    }

    #[test]
    fn an_attribute_beyond_64_kibibytes_is_refused() {
        let mut batch = Batch::default();
        batch.message(1, 0, &[]).nest(1, |m| {
            m.attr(1, &[0; 40_000]).attr(2, &[0; 40_000]);
        });
        assert!(batch.seal(0, 0).is_none());
    }
}
