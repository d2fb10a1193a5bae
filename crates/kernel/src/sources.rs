//! The eBPF map of exact sources, which a port's program looks into: (link, Ethernet address, IP address). Next hops
//! besides the gateway are in it, too.
//!
//! It is written and read many entries at a time. It lives as long as the program that is attached, or we.
//! Links are there by their index, so an entry means nothing any more once its link is gone, and whoever
//! takes links away has to take these away too.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd},
};

use aya::maps::{MapData, MapInfo};
use hextet_model::state::{HopEntry, HopKey, SpeakerFact};
use hextet_types::{Family, Mac};

use crate::error::{Error, chain};

/// Its name in `bpf/port.c`.
pub const NAME: &str = "sources";

/// `struct source` of `bpf/port.c`.
const KEY: usize = 28;
const VALUE: u64 = 1;
/// Entries read or written in one call.
const BATCH: usize = 4096;

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;

/// `union bpf_attr` of these commands (bpf(2)).
#[repr(C)]
#[derive(Default)]
struct Attr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

type Octets = [u8; KEY];

/// `enum kind` of `bpf/port.c`.
const SOURCE: u16 = 0;
const ANSWER: u16 = 1;
const WAY: u16 = 2;
const RECEIVER: u16 = 3;
const NETWORK: u16 = 4;
const OWN_HIGH: u16 = 5;
const OWN_LOW: u16 = 6;
/// In a receiver's value: any source will do.
const ANY_SOURCE: u64 = 1 << 63;
const NO_MAC: Mac = Mac::new([0; 6]);

/// The bits of a host's number.
const HOST: u32 = 0x00ff_ffff;

/// In place of an address, in network order: the number, and 4 or 6.
fn slot_of(family: Family, slot: u8) -> IpAddr {
    let digit = match family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    let mut octets = [0; 16];
    octets[3] = slot;
    octets[7] = digit;
    IpAddr::V6(octets.into())
}

/// An entry of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The link's index.
    pub link: u32,
    /// What it says.
    pub what: What,
}

/// What an entry says of its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A source that a port may use.
    Source {
        /// The Ethernet source.
        mac: Mac,
        /// The IP source.
        addr: IpAddr,
    },
    /// A next hop besides the gateway.
    Hop(HopEntry),
    /// Who gets VRRP.
    Receiver {
        /// From whom.
        sender: Sender,
        /// Where it goes.
        to: To,
    },
    /// What is known of a link whose multicast is copied.
    Speaker(SpeakerFact, u64),
}

/// One of the receivers of a sender's VRRP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender {
    /// The sender.
    pub mac: Mac,
    /// Of the advertisements.
    pub family: Family,
    /// Which receiver it is.
    pub slot: u8,
}

/// Where VRRP goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct To {
    /// The index of the link.
    pub link: u32,
    /// The host behind it, 24 bits.
    pub host: Option<u32>,
    /// Whether any source will do.
    pub any_source: bool,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The link's index.
    pub link: u32,
    /// What it is found by.
    pub by: By,
}

/// What an entry is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// A source.
    Source(Mac, IpAddr),
    /// A next hop.
    Hop(HopKey),
    /// A receiver.
    Receiver(Sender),
    /// A link.
    Speaker(SpeakerFact),
}

fn kind_of(fact: SpeakerFact) -> u16 {
    match fact {
        SpeakerFact::Network => NETWORK,
        SpeakerFact::OwnHigh => OWN_HIGH,
        SpeakerFact::OwnLow => OWN_LOW,
    }
}

impl Place {
    fn octets(&self) -> Octets {
        let none = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let (kind, mac, addr) = match self.by {
            By::Source(mac, addr) => (SOURCE, mac, addr),
            By::Hop(HopKey::Answer(addr)) => (ANSWER, NO_MAC, addr),
            By::Hop(HopKey::Way(mac)) => (WAY, mac, none),
            By::Receiver(Sender { mac, family, slot }) => (RECEIVER, mac, slot_of(family, slot)),
            By::Speaker(fact) => (kind_of(fact), NO_MAC, none),
        };
        let addr = match addr {
            IpAddr::V4(addr) => addr.to_ipv6_mapped(),
            IpAddr::V6(addr) => addr,
        };
        let mut octets = [0; KEY];
        octets[..4].copy_from_slice(&self.link.to_ne_bytes());
        octets[4..10].copy_from_slice(&mac.octets());
        octets[10..12].copy_from_slice(&kind.to_ne_bytes());
        octets[12..].copy_from_slice(&addr.octets());
        octets
    }
}

impl Entry {
    /// Where it is.
    pub fn place(&self) -> Place {
        let by = match self.what {
            What::Source { mac, addr } => By::Source(mac, addr),
            What::Hop(HopEntry::Answer { addr, .. }) => By::Hop(HopKey::Answer(addr)),
            What::Hop(HopEntry::Way { mac, .. }) => By::Hop(HopKey::Way(mac)),
            What::Receiver { sender, .. } => By::Receiver(sender),
            What::Speaker(fact, _) => By::Speaker(fact),
        };
        let link = self.link;
        Place { link, by }
    }

    /// The first octet of an Ethernet address in the lowest bits.
    fn value(&self) -> u64 {
        match self.what {
            What::Source { .. } => VALUE,
            What::Hop(HopEntry::Answer { mac, .. }) => {
                let [a, b, c, d, e, f] = mac.octets();
                u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
            }
            What::Hop(HopEntry::Way { mark, .. }) => mark.into(),
            What::Receiver { to, .. } => {
                let host = u64::from(to.host.unwrap_or(0)) << 32;
                let any = if to.any_source { ANY_SOURCE } else { 0 };
                u64::from(to.link) | host | any
            }
            What::Speaker(_, value) => value,
        }
    }

    /// None, where it is of a kind that no version of ours writes.
    fn of((octets, value): (Octets, u64)) -> Option<Self> {
        let [l0, l1, l2, l3, m0, m1, m2, m3, m4, m5, k0, k1, addr @ ..] = octets;
        let addr = Ipv6Addr::from(addr);
        let addr = addr
            .to_ipv4_mapped()
            .map_or(IpAddr::V6(addr), |addr: Ipv4Addr| IpAddr::V4(addr));
        let mac = Mac::new([m0, m1, m2, m3, m4, m5]);
        let what = match u16::from_ne_bytes([k0, k1]) {
            SOURCE => What::Source { mac, addr },
            ANSWER => {
                let [a, b, c, d, e, f, ..] = value.to_le_bytes();
                let mac = Mac::new([a, b, c, d, e, f]);
                What::Hop(HopEntry::Answer { addr, mac })
            }
            WAY => What::Hop(HopEntry::Way {
                mac,
                mark: u32::try_from(value).ok()?,
            }),
            RECEIVER => {
                let family = match octets[19] {
                    4 => Family::V4,
                    _ => Family::V6,
                };
                let sender = Sender {
                    mac,
                    family,
                    slot: octets[15],
                };
                let host = (value >> 32) as u32 & HOST;
                let to = To {
                    link: value as u32,
                    host: (host != 0).then_some(host),
                    any_source: value & ANY_SOURCE != 0,
                };
                What::Receiver { sender, to }
            }
            NETWORK => What::Speaker(SpeakerFact::Network, value),
            OWN_HIGH => What::Speaker(SpeakerFact::OwnHigh, value),
            OWN_LOW => What::Speaker(SpeakerFact::OwnLow, value),
            _ => return None,
        };
        let link = u32::from_ne_bytes([l0, l1, l2, l3]);
        Some(Entry { link, what })
    }
}

/// The map.
#[derive(Debug)]
pub struct Sources {
    map: MapData,
    info: MapInfo,
}

impl Sources {
    /// This map.
    pub fn new(map: MapData) -> Result<Self, Error> {
        let info = map.info().map_err(|e| Error::Program(chain(&e)))?;
        Ok(Sources { map, info })
    }

    /// The map of that identifier, if it is one like this.
    pub fn alike(&self, id: u32) -> Result<Option<Self>, Error> {
        let failed = |e: &dyn std::error::Error| Error::Program(chain(e));
        let info = MapInfo::from_id(id).map_err(|e| failed(&e))?;
        let shape = |info: &MapInfo| (info.key_size(), info.value_size(), info.max_entries());
        if info.name() != NAME.as_bytes() || shape(&info) != shape(&self.info) {
            return Ok(None);
        }
        let map = MapData::from_id(id).map_err(|e| failed(&e))?;
        Ok(Some(Sources { map, info }))
    }

    /// The kernel's number for it.
    pub fn id(&self) -> u32 {
        self.info.id()
    }

    /// All that is in it.
    pub fn read(&self) -> Result<Vec<Entry>, Error> {
        let mut found = Vec::new();
        let mut room = BATCH;
        let (mut next, mut from) = (0_u32, None::<u32>);
        loop {
            let mut keys = vec![[0; KEY]; room];
            let mut values = vec![0_u64; room];
            let mut attr = Attr {
                in_batch: from.as_ref().map_or(0, |from| address(from)),
                out_batch: address_mut(&mut next),
                keys: address_mut(keys.as_mut_ptr()),
                values: address_mut(values.as_mut_ptr()),
                count: room as u32,
                ..Attr::default()
            };
            let outcome = self.call(BPF_MAP_LOOKUP_BATCH, &mut attr);
            let code = outcome.as_ref().err().and_then(io::Error::raw_os_error);
            match (outcome, code) {
                (Ok(()), _) | (_, Some(libc::ENOENT)) => {}
                // One bucket has more than there was room for.
                (_, Some(libc::ENOSPC)) => {
                    room = room.saturating_mul(2);
                    continue;
                }
                (Err(e), _) => return Err(failed("read", e)),
            }
            keys.truncate(attr.count as usize);
            found.extend(keys.into_iter().zip(values).filter_map(Entry::of));
            if code == Some(libc::ENOENT) {
                return Ok(found);
            }
            from = Some(next);
        }
    }

    /// How many entries it has room for.
    pub fn room(&self) -> u32 {
        self.info.max_entries()
    }

    /// Puts entries in, over any that are there, one after another until it is full; how many there was room
    /// for.
    pub fn put(&self, entries: &[Entry]) -> Result<usize, Error> {
        let mut done = 0;
        for some in entries.chunks(BATCH) {
            let keys: Vec<Octets> = some.iter().map(|entry| entry.place().octets()).collect();
            let values: Vec<u64> = some.iter().map(Entry::value).collect();
            let mut attr = Attr {
                keys: address(keys.as_ptr()),
                values: address(values.as_ptr()),
                count: keys.len() as u32,
                ..Attr::default()
            };
            match self.call(BPF_MAP_UPDATE_BATCH, &mut attr) {
                Ok(()) => done += some.len(),
                Err(e) if e.raw_os_error() == Some(libc::E2BIG) => {
                    return Ok(done + some.len().min(attr.count as usize));
                }
                Err(e) => return Err(failed("write to", e)),
            }
        }
        Ok(done)
    }

    /// Takes entries out; those that are not there are no fault.
    pub fn remove(&self, places: &[Place]) -> Result<(), Error> {
        let keys: Vec<Octets> = places.iter().map(Place::octets).collect();
        let mut left = keys.as_slice();
        while !left.is_empty() {
            let mut attr = Attr {
                keys: address(left.as_ptr()),
                count: left.len().min(BATCH) as u32,
                ..Attr::default()
            };
            let asked = attr.count as usize;
            let done = match self.call(BPF_MAP_DELETE_BATCH, &mut attr) {
                Ok(()) => asked,
                // The one after those that it took was not there.
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => attr.count as usize + 1,
                Err(e) => return Err(failed("delete from", e)),
            };
            left = left.get(done..).unwrap_or_default();
        }
        Ok(())
    }

    /// Makes what is in it equal to what is in another.
    pub fn copy(&self, other: &Sources) -> Result<(), Error> {
        let wanted = other.read()?;
        let kept: BTreeSet<Place> = wanted.iter().map(Entry::place).collect();
        let mut surplus: Vec<Place> = self.read()?.iter().map(Entry::place).collect();
        surplus.retain(|place| !kept.contains(place));
        self.remove(&surplus)?;
        match self.put(&wanted)? {
            done if done == wanted.len() => Ok(()),
            done => Err(self.full(format!("take over {} sources", wanted.len() - done))),
        }
    }

    /// That there is no room for more.
    pub fn full(&self, operation: impl Into<String>) -> Error {
        let reason = format!(
            "the map of sources is full: on one host, ports have {} fixed addresses and pairs of single addresses \
             at most; move ports to other hosts, or make prefixes of their pairs",
            self.room()
        );
        Error::unfit(operation, reason)
    }

    #[allow(unsafe_code)]
    fn call(&self, command: libc::c_long, attr: &mut Attr) -> io::Result<()> {
        attr.map = self.map.fd().as_fd().as_raw_fd().unsigned_abs();
        // SAFETY: the attributes are as long as we say, and each address in them is that of a buffer of the
        // caller's that is alive and has room for `count` keys, or values of the map's size.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<Attr>()) };
        match result {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn address<T>(of: *const T) -> u64 {
    of.expose_provenance() as u64
}

fn address_mut<T>(of: *mut T) -> u64 {
    of.expose_provenance() as u64
}

fn failed(what: &str, error: io::Error) -> Error {
    Error::system(format!("{what} the map of sources"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_the_program_s() {
        let mac = Mac::new([2, 3, 4, 5, 6, 7]);
        for addr in ["192.0.2.5", "2001:db8::5"] {
            let addr = addr.parse().expect("an address");
            let entries = [
                (What::Source { mac, addr }, [2, 3, 4, 5, 6, 7], SOURCE),
                (What::Hop(HopEntry::Answer { addr, mac }), [0; 6], ANSWER),
                (
                    What::Hop(HopEntry::Way { mac, mark: 9 }),
                    [2, 3, 4, 5, 6, 7],
                    WAY,
                ),
                (
                    What::Receiver {
                        sender: Sender {
                            mac,
                            family: Family::of(addr),
                            slot: 5,
                        },
                        to: To {
                            link: 0x4100_0001,
                            host: Some(0x00ab_cdef),
                            any_source: true,
                        },
                    },
                    [2, 3, 4, 5, 6, 7],
                    RECEIVER,
                ),
                (
                    What::Speaker(SpeakerFact::Network, 1 << 39),
                    [0; 6],
                    NETWORK,
                ),
                (
                    What::Speaker(SpeakerFact::OwnHigh, u64::MAX),
                    [0; 6],
                    OWN_HIGH,
                ),
                (What::Speaker(SpeakerFact::OwnLow, 7), [0; 6], OWN_LOW),
            ];
            for (what, by, kind) in entries {
                let entry = Entry { link: 7, what };
                let octets = entry.place().octets();
                assert_eq!(octets[..4], 7_u32.to_ne_bytes());
                assert_eq!(octets[4..10], by);
                assert_eq!(octets[10..12], kind.to_ne_bytes());
                assert_eq!(Entry::of((octets, entry.value())), Some(entry));
            }
        }
        let v4 = Place {
            link: 1,
            by: By::Source(mac, IpAddr::from([192, 0, 2, 5])),
        };
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[255, 255, 192, 0, 2, 5]);
        assert_eq!(v4.octets()[12..], mapped);
    }
}
