//! The eBPF program of uplinks (`bpf/uplink.c`) and its map, which says for which addresses the host answers on them.
//!
//! It hangs on each uplink by TCX, before all others, or where the kernel has no TCX, in a filter on the link's `clsact`, beside
//! those of others. Nothing is pinned: the program lives on where it hangs, and its map with it. Whoever starts anew finds
//! the map by the program; another version's entries are taken over before its program is replaced.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, MapError, MapInfo},
    programs::SchedClassifier,
};
use hextet_types::Mac;

use crate::{
    bpf::{self, Direction, Program},
    error::{Error, chain},
    tc, tcx,
};

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/uplink.o"));
/// The program's name in `bpf/uplink.c`, by which it is known again.
pub const PROGRAM: &str = "hextet_uplink";
/// The map's name there.
const MAP: &str = "answers";
/// `struct answered` there.
const KEY: usize = 20;

type Octets = [u8; KEY];
type Answers = HashMap<MapData, Octets, u64>;

/// An entry of the map: an address on the link of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The link's index.
    pub link: u32,
    /// The address; the unspecified one of IPv6 is the link itself.
    pub addr: IpAddr,
}

impl Place {
    /// Under which the link's own Ethernet address is.
    pub fn of_link(link: u32) -> Self {
        let addr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        Place { link, addr }
    }

    /// Whether it is that.
    pub fn is_link(&self) -> bool {
        *self == Place::of_link(self.link)
    }

    fn octets(self) -> Octets {
        let addr = match self.addr {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut octets = [0; KEY];
        octets[..4].copy_from_slice(&self.link.to_ne_bytes());
        octets[4..].copy_from_slice(&addr.octets());
        octets
    }

    fn of([l0, l1, l2, l3, addr @ ..]: Octets) -> Self {
        let addr = Ipv6Addr::from(addr);
        Place {
            link: u32::from_ne_bytes([l0, l1, l2, l3]),
            addr: addr.to_ipv4_mapped().map_or(IpAddr::V6(addr), IpAddr::V4),
        }
    }
}

/// The value of an entry that says no Ethernet address.
const ANSWERED: u64 = 0;

fn value(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.octets();
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// The loaded program, and the map that the one in place looks into.
#[derive(Debug)]
pub struct Uplinks {
    ebpf: Ebpf,
    tag: [u8; 8],
    id: u32,
    own_info: MapInfo,
    own: Answers,
    /// That of the program in place, where it is not the one that we loaded.
    theirs: Option<Answers>,
    /// That program, if it is the same as ours.
    adopted: Option<Program>,
    looked: bool,
}

impl Uplinks {
    /// Loads the program.
    pub fn load() -> Result<Self, Error> {
        Self::load_from(OBJECT)
    }

    fn load_from(object: &[u8]) -> Result<Self, Error> {
        let failed = |e: &dyn std::error::Error| Error::Program(chain(e));
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .load(object)
            .map_err(|e| failed(&e))?;
        let program = ebpf.program_mut(PROGRAM);
        let program: &mut SchedClassifier = program
            .ok_or_else(|| Error::Program(format!("no program {PROGRAM}")))?
            .try_into()
            .map_err(|e| failed(&e))?;
        tc::load(program).map_err(|e| failed(&e))?;
        let info = program.info().map_err(|e| failed(&e))?;
        let Some(Map::HashMap(own)) = ebpf.take_map(MAP) else {
            return Err(Error::Program(format!("no map {MAP}")));
        };
        Ok(Uplinks {
            tag: info.tag().to_be_bytes(),
            id: info.id(),
            own_info: own.info().map_err(|e| failed(&e))?,
            own: typed(own)?,
            ebpf,
            theirs: None,
            adopted: None,
            looked: false,
        })
    }

    /// Whether [`Uplinks::choose`] has been called.
    pub fn have_looked(&self) -> bool {
        self.looked
    }

    /// Goes by the map of a program that hangs somewhere, best of one like ours. Where none does, nothing changes.
    pub fn choose(&mut self, in_place: &[u32]) -> Result<(), Error> {
        self.looked = true;
        let mut programs = Vec::new();
        for id in in_place {
            let program = tc::open(*id)?;
            programs.extend(program.filter(|program| program.is_named(PROGRAM)));
        }
        let is_held = |program: &Program| program.maps().contains(&self.own_info.id());
        if programs.iter().any(is_held) {
            (self.theirs, self.adopted) = (None, None);
            return Ok(());
        }
        programs.sort_by_key(|program| program.tag() != self.tag);
        for program in programs {
            for id in program.maps() {
                if let Some(map) = self.alike(*id)? {
                    self.theirs = Some(typed(map)?);
                    self.adopted = Some(program).filter(|program| program.tag() == self.tag);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn alike(&self, id: u32) -> Result<Option<MapData>, Error> {
        let failed = |e: &dyn std::error::Error| Error::Program(chain(e));
        let info = MapInfo::from_id(id).map_err(|e| failed(&e))?;
        let shape = |info: &MapInfo| (info.key_size(), info.value_size(), info.max_entries());
        if info.name() != MAP.as_bytes() || shape(&info) != shape(&self.own_info) {
            return Ok(None);
        }
        MapData::from_id(id).map(Some).map_err(|e| failed(&e))
    }

    /// The number of the program that links are to have; none, as long as another version's is in place.
    pub fn right(&self) -> Option<u32> {
        match (&self.theirs, &self.adopted) {
            (None, _) => Some(self.id),
            (Some(_), Some(adopted)) => Some(adopted.id()),
            (Some(_), None) => None,
        }
    }

    /// Gets ready to take the place of another version: with all that its map says.
    pub fn take_over(&mut self) -> Result<(), Error> {
        if let (Some(_), None) = (&self.theirs, &self.adopted) {
            let entries = self.read()?;
            self.theirs = None;
            for (place, mac) in entries {
                self.write(place, mac)?;
            }
        }
        Ok(())
    }

    /// Hangs the program on a link by TCX: in place of one of its name, or before all others.
    pub fn hang(&self, link: u32) -> Result<(), Error> {
        let right = |program: &Program| Some(program.id()) == self.right();
        let renewed = tcx::renew(link, Direction::Ingress, PROGRAM, right, self.fd()?);
        let hung = renewed.and_then(|there| match there {
            true => Ok(()),
            false => bpf::attach(
                link,
                Direction::Ingress,
                self.fd().map_err(io::Error::other)?,
            ),
        });
        hung.map_err(|e| changing(link, e))
    }

    /// To hang it somewhere.
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        if let Some(adopted) = &self.adopted {
            return Ok(adopted.fd());
        }
        let Some(aya::programs::Program::SchedClassifier(program)) = self.ebpf.program(PROGRAM)
        else {
            return Err(Error::Program(format!("{PROGRAM} is not loaded")));
        };
        let fd = program.fd().map_err(|e| Error::Program(chain(&e)))?;
        Ok(fd.as_fd())
    }

    /// All that the map says; of links, their Ethernet addresses as we write them.
    pub fn read(&self) -> Result<BTreeMap<Place, u64>, Error> {
        let map = self.theirs.as_ref().unwrap_or(&self.own);
        let entries = map
            .iter()
            .map(|entry| entry.map(|(place, mac)| (Place::of(place), mac)));
        // Who reads while others write may see one twice, but not for ever.
        let most = 2 * self.own_info.max_entries() as usize;
        entries
            .take(most)
            .collect::<Result<_, _>>()
            .map_err(|e| self.failed("read", e))
    }

    /// Whether the map has that Ethernet address for a link.
    pub fn knows(&self, link: u32, mac: Mac) -> Result<bool, Error> {
        let map = self.theirs.as_ref().unwrap_or(&self.own);
        match map.get(&Place::of_link(link).octets(), 0) {
            Ok(found) => Ok(found == value(mac)),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(e) => Err(self.failed("read", e)),
        }
    }

    /// The host answers on a link under that Ethernet address.
    pub fn put_link(&mut self, link: u32, mac: Mac) -> Result<(), Error> {
        self.write(Place::of_link(link), value(mac))
    }

    /// The host answers for an address.
    pub fn put(&mut self, place: Place) -> Result<(), Error> {
        self.write(place, ANSWERED)
    }

    fn write(&mut self, place: Place, mac: u64) -> Result<(), Error> {
        let map = self.theirs.as_mut().unwrap_or(&mut self.own);
        let outcome = map.insert(place.octets(), mac, 0);
        outcome.map_err(|e| self.failed("write to", e))
    }

    /// It does no longer.
    pub fn remove(&mut self, place: Place) -> Result<(), Error> {
        let map = self.theirs.as_mut().unwrap_or(&mut self.own);
        match map.remove(&place.octets()) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(())
            }
            Err(e) => Err(self.failed("delete from", e)),
        }
    }

    fn failed(&self, what: &str, error: MapError) -> Error {
        let operation = format!("{what} the map of answers");
        match error {
            MapError::SyscallError(e) if e.io_error.raw_os_error() == Some(libc::E2BIG) => {
                let most = self.own_info.max_entries();
                let reason = format!(
                    "it is full: a host answers for {most} addresses at most; move ports to other hosts"
                );
                Error::unfit(operation, reason)
            }
            MapError::SyscallError(e) => Error::system(operation, e.io_error),
            other => Error::Program(format!("{operation}: {}", chain(&other))),
        }
    }
}

/// Takes the program off a link where it hangs by TCX.
pub fn take_away(link: u32) -> Result<(), Error> {
    tcx::take_away_named(link, Direction::Ingress, PROGRAM).map_err(|e| changing(link, e))
}

fn changing(link: u32, error: io::Error) -> Error {
    Error::system(
        format!("change the eBPF program of uplinks on the link with index {link}"),
        error,
    )
}

fn typed(map: MapData) -> Result<Answers, Error> {
    HashMap::try_from(Map::HashMap(map)).map_err(|e| Error::Program(chain(&e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_as_they_are_read() {
        for addr in ["192.0.2.1", "2001:db8::1", "::"] {
            let place = Place {
                link: 7,
                addr: addr.parse().expect("an address"),
            };
            assert_eq!(Place::of(place.octets()), place, "{addr}");
            assert_eq!(place.is_link(), addr == "::");
        }
    }

    #[test]
    fn a_full_map_refuses_and_says_so() {
        let mut uplinks = Uplinks::load().expect("a program");
        let most = uplinks.own_info.max_entries();
        let nth = |n: u32| Place {
            link: 1,
            addr: IpAddr::V4(n.into()),
        };
        for n in 0..most {
            uplinks.put(nth(n)).expect("room");
        }
        uplinks.put(nth(7)).expect("what is there needs none");
        let full = uplinks.put(nth(most)).expect_err("no room");
        assert!(full.to_string().contains("full"), "{full}");
        uplinks.remove(nth(7)).expect("removed");
        uplinks.remove(nth(7)).expect("nothing there to remove");
        uplinks.put(nth(most)).expect("room again");
    }
}
