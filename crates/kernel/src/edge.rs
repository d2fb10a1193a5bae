//! The eBPF programs of a port as the kernel is to have them: with the gateway's Ethernet address in their
//! instructions, and with the places in the running kernel's `struct sk_buff` that they look at.
//!
//! There are two builds of them. One looks into the struct itself, which a verifier allows once a function of
//! the kernel (`bpf_cast_to_kern_ctx`, Linux 6.2) has said what it is; the other, for kernels without that,
//! asks a helper. aya links no functions of the kernel, so the call gets its number here.

use std::{fs, sync::OnceLock};

use hextet_types::Mac;

use crate::{btf::Btf, error::Error};

const BTF: &str = "/sys/kernel/btf/vmlinux";
const BY_CAST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/port.o"));
const BY_HELPER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/port-helper.o"));

/// The high half of all placeholders of `bpf/port.c`, and the low half of the first, the gateway's.
const PLACEHOLDER: u32 = 0x6865_7874;
const FIRST: u32 = 0x6574_0000;
/// The function's number, as long as it has none.
const CAST: u32 = 0x6878_6b66;
const LOAD_64: u8 = 0x18;
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL` as a source register: the number is that of a function in the kernel's BTF.
const OF_THE_KERNEL: u8 = 2 << 4;
const INSTRUCTION: usize = 8;

/// `STRETCH_LEN` of `bpf/port.c`: what the programs look at stands in so many octets of `struct sk_buff`.
const STRETCH_LEN: u32 = 96;

/// Places in `struct sk_buff`, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    ip_summed: u32,
    /// The bits of `ip_summed` in its octet.
    ip_summed_bits: u8,
    csum_start: u32,
    csum_offset: u32,
    mac_header: u32,
    /// The number of `bpf_cast_to_kern_ctx`, where there is one.
    cast: Option<u32>,
}

impl Layout {
    /// The running kernel's.
    pub fn of_this_kernel() -> Result<Self, Error> {
        static LAYOUT: OnceLock<Layout> = OnceLock::new();
        if let Some(layout) = LAYOUT.get() {
            return Ok(*layout);
        }
        let octets = fs::read(BTF).map_err(|e| {
            Error::Program(format!(
                "{BTF}: {e}; it is there with CONFIG_DEBUG_INFO_BTF"
            ))
        })?;
        let layout = Btf::parse(&octets).and_then(|btf| Layout::of(&btf));
        let layout = layout.ok_or_else(|| {
            Error::Program(format!("{BTF} does not say where a packet's checksum goes"))
        })?;
        Ok(*LAYOUT.get_or_init(|| layout))
    }

    fn of(btf: &Btf<'_>) -> Option<Self> {
        let octet = |name| {
            let member = btf.member("sk_buff", name)?;
            (member.bits == 0 && member.offset % 8 == 0).then_some(member.offset / 8)
        };
        let summed = btf.member("sk_buff", "ip_summed")?;
        let first = summed.offset % 8;
        if summed.bits != 2 || first > 6 {
            return None;
        }
        // BTF counts bits as they stand in memory.
        let ip_summed_bits = match cfg!(target_endian = "little") {
            true => 0b11 << first,
            false => 0b1100_0000 >> first,
        };
        let layout = Layout {
            ip_summed: summed.offset / 8,
            ip_summed_bits,
            csum_start: octet("csum_start")?,
            csum_offset: octet("csum_offset")?,
            mac_header: octet("mac_header")?,
            cast: btf.function("bpf_cast_to_kern_ctx"),
        };
        let last = layout.places().into_iter().max()?;
        (last + 2 <= layout.stretch() + STRETCH_LEN).then_some(layout)
    }

    fn places(self) -> [u32; 4] {
        let Layout {
            ip_summed,
            csum_start,
            csum_offset,
            mac_header,
            ..
        } = self;
        [ip_summed, csum_start, csum_offset, mac_header]
    }

    /// Where what the programs look at begins: eight octets at a time are copied fastest.
    fn stretch(self) -> u32 {
        self.places().into_iter().min().unwrap_or(0) & !7
    }

    /// As on a kernel in which no program may look into the struct itself.
    #[cfg(test)]
    pub fn without_cast(self) -> Self {
        Layout { cast: None, ..self }
    }

    /// What belongs in the place of each placeholder, that of the address first.
    fn constants(self, gateway: Mac) -> [u64; 7] {
        let [a, b, c, d, e, f] = gateway.octets();
        let stretch = self.stretch();
        let [ip_summed, csum_start, csum_offset, mac_header] =
            self.places().map(|place| u64::from(place - stretch));
        [
            u64::from_le_bytes([a, b, c, d, e, f, 0, 0]),
            stretch.into(),
            ip_summed,
            self.ip_summed_bits.into(),
            csum_start,
            csum_offset,
            mac_header,
        ]
    }
}

/// The object file to load on such a kernel.
pub fn object(gateway: Mac, layout: Layout) -> Result<Vec<u8>, Error> {
    let mut object = match layout.cast {
        Some(_) => BY_CAST.to_vec(),
        None => BY_HELPER.to_vec(),
    };
    let constants = layout.constants(gateway);
    let mut missing: Vec<usize> = (0..constants.len()).collect();
    let mut at = 0;
    while let Some(instructions) = object.get_mut(at..at + 2 * INSTRUCTION) {
        let (one, next) = instructions.split_at_mut(INSTRUCTION);
        let constant = placeholder(one, next).and_then(|n| Some((n, constants.get(n)?)));
        if let Some((number, value)) = constant {
            let [low, high] = halves(*value).map(u32::to_ne_bytes);
            one[4..].copy_from_slice(&low);
            next[4..].copy_from_slice(&high);
            missing.retain(|n| *n != number);
        }
        if let Some(function) = layout.cast
            && one[0] == CALL
            && one[4..] == CAST.to_ne_bytes()
        {
            one[1] = OF_THE_KERNEL;
            one[4..].copy_from_slice(&function.to_ne_bytes());
        }
        at += INSTRUCTION;
    }
    match missing.first() {
        None => Ok(object),
        Some(n) => Err(Error::Program(format!(
            "the object has no place for constant {n}"
        ))),
    }
}

/// The number of the placeholder that is loaded there, in two instructions.
fn placeholder(one: &[u8], next: &[u8]) -> Option<usize> {
    let half = |instruction: &[u8]| {
        let half = instruction.get(4..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*half))
    };
    if one.first() != Some(&LOAD_64) || half(next)? != PLACEHOLDER {
        return None;
    }
    usize::try_from(half(one)?.checked_sub(FIRST)?).ok()
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: Mac = Mac::new([2, 0x68, 0x78, 0, 0, 1]);
    const STRETCH: u32 = 0x1111_0000;
    const LAYOUT: Layout = Layout {
        ip_summed: STRETCH + 0x5a5a_0001,
        ip_summed_bits: 0x60,
        csum_start: STRETCH + 0x5a5a_0003,
        csum_offset: STRETCH + 0x5a5a_0004,
        mac_header: STRETCH,
        cast: Some(0x1111_0006),
    };

    fn count(octets: &[u8], of: u32) -> usize {
        let aligned = octets.chunks(4);
        aligned.filter(|four| *four == of.to_ne_bytes()).count()
    }

    #[test]
    fn constants_reach_every_place() {
        for (layout, former) in [(LAYOUT, BY_CAST), (LAYOUT.without_cast(), BY_HELPER)] {
            let object = object(GATEWAY, layout).expect("places for all");
            assert_eq!(count(&object, PLACEHOLDER), 0);
            let first = u32::from_le_bytes([2, 0x68, 0x78, 0]);
            for (number, value) in [
                (0, first),
                (1, STRETCH),
                (2, 0x5a5a_0001),
                (4, 0x5a5a_0003),
                (5, 0x5a5a_0004),
            ] {
                let places = count(former, FIRST + number);
                assert!(places > 0, "{number}");
                assert_eq!(count(&object, value), places, "{number}");
            }
            assert_eq!(count(&object, CAST), 0);
            let calls = count(&object, 0x1111_0006);
            assert_eq!(calls > 0, layout.cast.is_some());
            assert_eq!(calls, count(former, CAST));
        }
    }
}
