//! The kernel's description of its own types (BTF, Documentation/bpf/btf.rst), as far as loading a program
//! needs it: the number of a function, and where a member stands in a struct.
//!
//! What cannot be read is not found; nothing here is taken on trust from the octets.

/// Types are numbered from 1; 0 is `void`.
const FIRST: u32 = 1;
const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
const TYPE: usize = 12;
const MEMBER: usize = 12;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNCTION: u32 = 12;
/// Structs without a name in one another, of which a member is looked for.
const MAX_DEPTH: usize = 8;

/// Types and their names.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    names: &'a [u8],
    /// Where each type begins, that of number 1 first.
    places: Vec<u32>,
}

/// Where a member stands, in bits from the beginning of its struct, as the machine counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The first.
    pub offset: u32,
    /// How many, where it is a bit field.
    pub bits: u32,
}

/// What stands ahead of every type.
struct Type {
    name: u32,
    kind: u32,
    /// How many members.
    count: usize,
    /// Whether the members' offsets have the sizes of bit fields in them.
    bit_fields: bool,
    place: usize,
}

impl<'a> Btf<'a> {
    /// Finds all types in there; none, where it makes no sense.
    pub fn parse(octets: &'a [u8]) -> Option<Self> {
        let magic = octets.first_chunk().copied().map(u16::from_ne_bytes);
        if magic != Some(MAGIC) || octets.len() < HEADER {
            return None;
        }
        let body = octets.get(usize_at(octets, 4)?..)?;
        let section = |offset, len| {
            let from: usize = usize_at(octets, offset)?;
            body.get(from..from.checked_add(usize_at(octets, len)?)?)
        };
        let mut btf = Btf {
            types: section(8, 12)?,
            names: section(16, 20)?,
            places: Vec::new(),
        };
        let mut place = 0;
        while place < btf.types.len() {
            btf.places.push(u32::try_from(place).ok()?);
            let of = btf.type_at(place)?;
            place += TYPE + of.rest()?;
        }
        Some(btf)
    }

    /// The number of a function.
    pub fn function(&self, name: &str) -> Option<u32> {
        self.number(FUNCTION, name)
    }

    /// A member of a struct, also where it stands in one without a name inside.
    pub fn member(&self, of: &str, name: &str) -> Option<Member> {
        self.member_of(self.number(STRUCT, of)?, name, MAX_DEPTH)
    }

    fn number(&self, kind: u32, name: &str) -> Option<u32> {
        let is_it = |place: &u32| {
            let found = self.type_at(*place as usize);
            found.is_some_and(|t| t.kind == kind && self.name(t.name) == Some(name.as_bytes()))
        };
        let index = self.places.iter().position(is_it)?;
        u32::try_from(index).ok()?.checked_add(FIRST)
    }

    fn member_of(&self, number: u32, name: &str, depth: usize) -> Option<Member> {
        let index = number.checked_sub(FIRST)? as usize;
        let of = self.type_at(*self.places.get(index)? as usize)?;
        if !matches!(of.kind, STRUCT | UNION) || depth == 0 {
            return None;
        }
        for index in 0..of.count {
            let place = of.place + TYPE + index * MEMBER;
            let [called, kind, at] = [0, 4, 8].map(|word| u32_at(self.types, place + word));
            let (offset, bits) = match of.bit_fields {
                true => (at? & 0x00ff_ffff, at? >> 24),
                false => (at?, 0),
            };
            let called = self.name(called?)?;
            if called == name.as_bytes() {
                return Some(Member { offset, bits });
            }
            if called.is_empty()
                && let Some(inner) = self.member_of(kind?, name, depth - 1)
            {
                let offset = offset.checked_add(inner.offset)?;
                return Some(Member { offset, ..inner });
            }
        }
        None
    }

    fn type_at(&self, place: usize) -> Option<Type> {
        let info = u32_at(self.types, place + 4)?;
        Some(Type {
            name: u32_at(self.types, place)?,
            kind: info >> 24 & 0x1f,
            count: (info & 0xffff) as usize,
            bit_fields: info >> 31 == 1,
            place,
        })
    }

    fn name(&self, offset: u32) -> Option<&'a [u8]> {
        self.names
            .get(offset as usize..)?
            .split(|octet| *octet == 0)
            .next()
    }
}

impl Type {
    /// How many octets follow; none for a kind that is not known.
    fn rest(&self) -> Option<usize> {
        Some(match self.kind {
            // Integers, variables, tags of declarations.
            1 | 14 | 17 => 4,
            // Arrays.
            3 => 12,
            // Members; what stands in a section; values of 64 bits.
            STRUCT | UNION | 15 | 19 => self.count * MEMBER,
            // Values of 32 bits, parameters.
            6 | 13 => self.count * 8,
            // Pointers, names for types, functions and so on.
            2 | 7..=FUNCTION | 16 | 18 => 0,
            _ => return None,
        })
    }
}

fn u32_at(octets: &[u8], place: usize) -> Option<u32> {
    let octets = octets.get(place..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*octets))
}

fn usize_at(octets: &[u8], place: usize) -> Option<usize> {
    usize::try_from(u32_at(octets, place)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: &[u8] = b"\0packet\0first\0second\0third\0look\0";

    fn word(info: (u32, u32, bool)) -> u32 {
        let (kind, count, bit_fields) = info;
        kind << 24 | count | u32::from(bit_fields) << 31
    }

    /// `struct packet { u32 first; union { u32 second; struct { u8 : 3, third : 2; }; }; }` and a function.
    fn described() -> Vec<u8> {
        let types = [
            // 1: an integer; 2: struct packet.
            [0, word((1, 0, false)), 4].as_slice(),
            &[32],
            &[1, word((STRUCT, 2, false)), 8, 8, 1, 0, 0, 4, 32],
            // 3: struct packet's last; 4: its union; 5: a function.
            &[0, word((STRUCT, 1, true)), 1, 21, 1, 2 << 24 | 3],
            &[0, word((UNION, 2, false)), 4, 14, 1, 0, 0, 3, 0],
            &[27, word((FUNCTION, 1, false)), 0],
        ]
        .concat();
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let lengths = [types.len(), NAMES.len()].map(|len| u32::try_from(len).expect("short"));
        let mut octets = MAGIC.to_ne_bytes().to_vec();
        octets.extend([1, 0]);
        for word in [24, 0, lengths[0], lengths[0], lengths[1]] {
            octets.extend(word.to_ne_bytes());
        }
        [octets, types, NAMES.to_vec()].concat()
    }

    #[test]
    fn members_are_found_in_structs_without_names() {
        let octets = described();
        let btf = Btf::parse(&octets).expect("sound");
        let at = |offset, bits| Some(Member { offset, bits });
        assert_eq!(btf.member("packet", "first"), at(0, 0));
        assert_eq!(btf.member("packet", "second"), at(32, 0));
        assert_eq!(btf.member("packet", "third"), at(35, 2));
        assert_eq!(btf.member("packet", "fourth"), None);
        assert_eq!(btf.member("look", "first"), None, "that is a function");
        assert_eq!(btf.function("look"), Some(5));
        assert_eq!(btf.function("packet"), None, "that is a struct");
    }

    #[test]
    fn a_struct_in_itself_has_an_end() {
        let mut octets = described();
        let own = octets.len() - NAMES.len() - 3 * 4 - 4;
        assert_eq!(u32_at(&octets, own - 4), Some(3), "the union's last member");
        octets[own - 4..own].copy_from_slice(&4_u32.to_ne_bytes());
        let btf = Btf::parse(&octets).expect("sound");
        assert_eq!(btf.member("packet", "third"), None);
    }

    #[test]
    fn this_kernel_s_is_read() {
        let octets = std::fs::read("/sys/kernel/btf/vmlinux").expect("a kernel with BTF");
        let btf = Btf::parse(&octets).expect("sound");
        let summed = btf.member("sk_buff", "ip_summed").expect("it is there");
        assert_eq!(summed.bits, 2);
        let [start, offset] = ["csum_start", "csum_offset"].map(|m| btf.member("sk_buff", m));
        let [start, offset] = [start, offset].map(|m| m.expect("it is there").offset);
        assert_eq!(offset, start + 16);
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_ends_it(at in 0..200_usize, octet: u8, len in 0..240_usize) {
            let mut octets = described();
            if let Some(place) = octets.get_mut(at) {
                *place = octet;
            }
            octets.truncate(len);
            if let Some(btf) = Btf::parse(&octets) {
                for name in ["first", "third", "no such"] {
                    let _ = btf.member("packet", name);
                }
                let _ = btf.function("look");
            }
        }
    }
}
