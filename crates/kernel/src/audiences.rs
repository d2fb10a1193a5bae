//! The eBPF map of who has joined groups on private networks, which ports' programs look into: (network, group), one entry each,
//! which changes at once.
//!
//! It lives as long as the program that is attached, or we. Networks are there by their numbers, so an entry means nothing
//! any more once its network is gone, and whoever takes networks away has to take these away too.

use std::net::{IpAddr, Ipv6Addr};

use aya::maps::{HashMap, Map, MapData, MapError, MapInfo};
use hextet_model::state::{Audience, Listener};
use hextet_types::Mac;

use crate::error::{Error, chain};

/// Its name in `bpf/audience.h`.
pub const NAME: &str = "audiences";

/// `struct audience_key`, `struct listener` and `struct audience` there.
const KEY: usize = 24;
const LISTENER: usize = 24;
const VALUE: usize = 8 + Audience::MOST * LISTENER;

type Key = [u8; KEY];
type Value = [u8; VALUE];

/// A group of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The network's number.
    pub network: u64,
    /// The group.
    pub group: IpAddr,
}

impl Place {
    fn octets(self) -> Key {
        let mut octets = [0; KEY];
        octets[..8].copy_from_slice(&self.network.to_ne_bytes());
        octets[8..].copy_from_slice(&mapped(self.group));
        octets
    }

    fn of([n0, n1, n2, n3, n4, n5, n6, n7, group @ ..]: Key) -> Self {
        Place {
            network: u64::from_ne_bytes([n0, n1, n2, n3, n4, n5, n6, n7]),
            group: unmapped(group),
        }
    }
}

/// The map.
#[derive(Debug)]
pub struct Audiences {
    map: HashMap<MapData, Key, Value>,
    room: u32,
}

impl Audiences {
    /// This map.
    pub fn new(map: MapData) -> Result<Self, Error> {
        let info = map.info().map_err(|e| failed(&e))?;
        let room = info.max_entries();
        let map = HashMap::try_from(Map::HashMap(map)).map_err(|e| failed(&e))?;
        Ok(Audiences { map, room })
    }

    /// The map of that identifier, if it is one like this.
    pub fn alike(id: u32) -> Result<Option<Self>, Error> {
        let info = MapInfo::from_id(id).map_err(|e| failed(&e))?;
        let shape = (info.key_size() as usize, info.value_size() as usize);
        if info.name() != NAME.as_bytes() || shape != (KEY, VALUE) {
            return Ok(None);
        }
        let map = MapData::from_id(id).map_err(|e| failed(&e))?;
        Self::new(map).map(Some)
    }

    /// All that is in it.
    pub fn read(&self) -> Result<Vec<(Place, Vec<Listener>)>, Error> {
        let entries = self.map.iter().map(|entry| {
            let (key, value) = entry.map_err(|e| failed(&e))?;
            Ok((Place::of(key), read(&value)))
        });
        // Who reads while others write may see one twice, but not for ever.
        entries.take(2 * self.room as usize).collect()
    }

    /// Puts an entry in, over the one that is there.
    ///
    /// # Errors
    ///
    /// There is no room for it.
    pub fn put(&mut self, place: Place, listeners: &[Listener]) -> Result<(), Error> {
        let outcome = self.map.insert(place.octets(), written(listeners), 0);
        match outcome {
            Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::E2BIG) => {
                let reason = format!(
                    "the map of multicast groups is full: there are {} at most on one host",
                    self.room
                );
                let operation = format!("let ports hear group {}", place.group);
                Err(Error::unfit(operation, reason))
            }
            outcome => outcome.map_err(|e| failed(&e)),
        }
    }

    /// Takes an entry out; one that is not there is no fault.
    pub fn remove(&mut self, place: Place) -> Result<(), Error> {
        match self.map.remove(&place.octets()) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(())
            }
            Err(e) => Err(failed(&e)),
        }
    }

    /// Makes what is in it equal to what is in another.
    pub fn copy(&mut self, other: &Audiences) -> Result<(), Error> {
        let wanted = other.read()?;
        for (place, _) in self.read()? {
            if !wanted.iter().any(|(kept, _)| *kept == place) {
                self.remove(place)?;
            }
        }
        let mut all = wanted.iter();
        all.try_for_each(|(place, listeners)| self.put(*place, listeners))
    }
}

fn mapped(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

fn unmapped(octets: [u8; 16]) -> IpAddr {
    let addr = Ipv6Addr::from(octets);
    addr.to_ipv4_mapped().map_or(IpAddr::V6(addr), IpAddr::V4)
}

fn written(listeners: &[Listener]) -> Value {
    let mut value = [0; VALUE];
    let (head, rest) = value.split_at_mut(8);
    let count = listeners.len().min(Audience::MOST) as u32;
    head[..4].copy_from_slice(&count.to_ne_bytes());
    for (octets, listener) in rest.chunks_exact_mut(LISTENER).zip(listeners) {
        octets[..16].copy_from_slice(&mapped(listener.addr));
        octets[16..22].copy_from_slice(&listener.mac.octets());
        octets[22..].copy_from_slice(&u16::from(listener.here).to_ne_bytes());
    }
    value
}

fn read(value: &Value) -> Vec<Listener> {
    let (head, rest) = value.split_at(8);
    let count = head.first_chunk().map_or(0, |c| u32::from_ne_bytes(*c));
    let all = rest.chunks_exact(LISTENER).take(count as usize);
    let listener = |octets: &[u8]| {
        Some(Listener {
            addr: unmapped(*octets.first_chunk()?),
            mac: Mac::new(*octets.get(16..)?.first_chunk()?),
            here: octets.get(22..) != Some(&[0, 0]),
        })
    };
    all.filter_map(listener).collect()
}

fn failed(error: &dyn std::error::Error) -> Error {
    Error::Program(chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_the_program_s() {
        let source = include_str!("../bpf/audience.h");
        assert!(source.contains(&format!("#define LISTENERS {}\n", Audience::MOST)));
        for (group, addr) in [("224.0.0.251", "10.0.0.5"), ("ff02::fb", "fd00::5")] {
            let place = Place {
                network: 0x12_3456_789a,
                group: group.parse().expect("a group"),
            };
            assert_eq!(Place::of(place.octets()), place);
            let listener = |here| Listener {
                addr: addr.parse().expect("an address"),
                mac: Mac::new([2, 3, 4, 5, 6, 7]),
                here,
            };
            for count in [0, 1, 2, Audience::MOST] {
                let all: Vec<Listener> = (0..count).map(|n| listener(n % 2 == 0)).collect();
                assert_eq!(read(&written(&all)), all);
            }
        }
    }
}
