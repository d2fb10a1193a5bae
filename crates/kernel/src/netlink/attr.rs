//! Reading attributes (`struct nlattr`, netlink(7)).

use std::net::IpAddr;

/// The attributes in some octets; ends quietly at the first that is cut short.
#[derive(Clone, Copy, Debug)]
pub struct Attrs<'a>(pub &'a [u8]);

impl<'a> Attrs<'a> {
    /// The attributes behind a fixed header.
    pub fn after(payload: &'a [u8], header: usize) -> Self {
        Attrs(payload.get(align(header)..).unwrap_or_default())
    }

    /// The first attribute of a kind.
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter()
            .find(|(k, _)| *k == kind)
            .map(|(_, value)| value)
    }

    /// The attributes inside the first attribute of a kind; none, where it is missing.
    pub fn nest(self, kind: u16) -> Attrs<'a> {
        Attrs(self.get(kind).unwrap_or_default())
    }
}

impl<'a> IntoIterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        Iter(self.0)
    }
}

/// Goes through attributes as (kind without flags, value).
#[derive(Debug)]
pub struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const FLAGS: u16 = 0xc000;
        let len = usize::from(ne16(self.0.get(..2)?)?);
        let kind = ne16(self.0.get(2..4)?)? & !FLAGS;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Rounds up to four octets.
pub(super) const fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// One octet.
pub fn u8(value: &[u8]) -> Option<u8> {
    value.first().copied()
}

/// 16 bits in host order.
pub fn ne16(value: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(value.get(..2)?.try_into().ok()?))
}

/// 32 bits in host order.
pub fn ne32(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}

/// 16 bits in network order.
pub fn be16(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(value.get(..2)?.try_into().ok()?))
}

/// 32 bits in network order.
pub fn be32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

/// 64 bits in network order.
pub fn be64(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.get(..8)?.try_into().ok()?))
}

/// A text up to its NUL.
pub fn text(value: &[u8]) -> Option<&str> {
    let end = value
        .iter()
        .position(|octet| *octet == 0)
        .unwrap_or(value.len());
    std::str::from_utf8(value.get(..end)?).ok()
}

/// An IP address, its family told by its length.
pub fn addr(value: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_up_to_the_first_that_is_cut_short() {
        let bytes = [
            5, 0, 1, 0, 7, 0, 0, 0, // kind 1: one octet and padding
            8, 0, 2, 0x80, 1, 2, 3, 4, // kind 2, nested
            9, 0, 3, 0, 1, // kind 3 says more than there is
        ];
        let read: Vec<_> = Attrs(&bytes).into_iter().collect();
        assert_eq!(read, [(1, &[7][..]), (2, &[1, 2, 3, 4][..])]);
        assert_eq!(Attrs(&bytes).get(3), None);
    }

    #[test]
    fn lengths_below_the_header_end_the_reading() {
        for len in 0..4 {
            assert_eq!(Attrs(&[len, 0, 1, 0, 9, 9]).into_iter().count(), 0, "{len}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_octets_make_it_panic(bytes: Vec<u8>) {
            for (kind, value) in Attrs(&bytes) {
                let _ = (kind, text(value), addr(value), Attrs(value).into_iter().count());
            }
        }
    }
}
