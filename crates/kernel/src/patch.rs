//! The eBPF program of patches (`bpf/patch.c`) and its map, which says which links are joined.
//!
//! As with the ports' programs, all patched links share one tc block with one filter, and run the program by TCX, too,
//! in time; nothing is pinned, and whoever starts anew finds the map by the program that hangs in the block. Another version's map is taken over before its
//! program is replaced.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, MapError, MapInfo},
    programs::SchedClassifier,
};

use crate::{
    bpf::{self, Direction, Program},
    error::{Error, chain},
    netlink::Socket,
    tc::{self, Filter},
    tcx,
};

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/patch.o"));
/// The program's name in `bpf/patch.c`, by which it is known again.
pub const PROGRAM: &str = "hextet_patch";
/// The map's name there.
const MAP: &str = "patches";
/// As `bpf/patch.c` says.
const FAR_END: u32 = 0x8000_0000;

/// Half of the map's entries: a patch has one for each of its links.
const MOST: u32 = 32_768;

/// Where packets that come in by a link go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Out of the link of this index.
    Link(u32),
    /// To the far end of the pair whose near end has this index.
    FarEndOf(u32),
}

impl To {
    fn value(self) -> u32 {
        match self {
            To::Link(index) => index,
            To::FarEndOf(index) => index | FAR_END,
        }
    }

    fn of(value: u32) -> Self {
        match value & FAR_END {
            0 => To::Link(value),
            _ => To::FarEndOf(value & !FAR_END),
        }
    }
}

/// The loaded program, and the map that the one in place looks into.
#[derive(Debug)]
pub struct Patches {
    ebpf: Ebpf,
    tag: [u8; 8],
    id: u32,
    own_info: MapInfo,
    own: HashMap<MapData, u32, u32>,
    /// That of the program in place, where it is not the one that we loaded.
    theirs: Option<HashMap<MapData, u32, u32>>,
    /// That program, if it is the same as ours.
    adopted: Option<Program>,
}

impl Patches {
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
        let own_info = own.info().map_err(|e| failed(&e))?;
        Ok(Patches {
            tag: info.tag().to_be_bytes(),
            id: info.id(),
            own_info,
            own: typed(own)?,
            ebpf,
            theirs: None,
            adopted: None,
        })
    }

    /// Finds the program in place, and goes by its map.
    pub fn choose(&mut self, filters: &[Filter]) -> Result<(), Error> {
        let Some(filter) = filters.iter().find(|filter| filter.is_ours()) else {
            return Ok(());
        };
        let Some(program) = tc::open(filter.program)? else {
            return Ok(());
        };
        if program.maps().contains(&self.own_info.id()) {
            (self.theirs, self.adopted) = (None, None);
            return Ok(());
        }
        for id in program.maps() {
            if let Some(map) = self.alike(*id)? {
                self.theirs = Some(typed(map)?);
                self.adopted = Some(program).filter(|program| program.tag() == self.tag);
                return Ok(());
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

    /// Whether the block holds exactly what it is to hold.
    pub fn stand(&self, filters: &[Filter]) -> bool {
        matches!(filters, [one] if one.is_ours() && Some(one.program) == self.right())
    }

    /// The number of the program that links are to have; none, as long as another version's is in place.
    pub fn right(&self) -> Option<u32> {
        match (&self.theirs, &self.adopted) {
            (None, _) => Some(self.id),
            (Some(_), Some(adopted)) => Some(adopted.id()),
            (Some(_), None) => None,
        }
    }

    /// Puts the program into the place of others of its name on a link by TCX; whether it hangs there so now.
    pub fn renew(&self, link: u32) -> Result<bool, Error> {
        let right = |program: &Program| Some(program.id()) == self.right();
        match tcx::renew(link, Direction::Ingress, PROGRAM, right, self.fd()?) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            outcome => outcome.map_err(|e| changing(link, e)),
        }
    }

    /// Hangs the program on a link by TCX, before all others.
    pub fn hang_by_tcx(&self, link: u32) -> Result<(), Error> {
        if self.renew(link)? {
            return Ok(());
        }
        match bpf::attach(link, Direction::Ingress, self.fd()?) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            outcome => outcome.map_err(|e| changing(link, e)),
        }
    }

    /// Hangs the program into the block; where another version hangs there, with all that its map says.
    pub fn hang(&mut self, socket: &mut Socket) -> Result<(), Error> {
        if let (Some(_), None) = (&self.theirs, &self.adopted) {
            let entries = self.read()?;
            self.theirs = None;
            for (link, to) in entries {
                self.put(link, to)?;
            }
        }
        tc::hang_patch(socket, self.fd()?, PROGRAM)
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
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

    /// All that the map says, by the index of the link.
    pub fn read(&self) -> Result<BTreeMap<u32, To>, Error> {
        let map = self.theirs.as_ref().unwrap_or(&self.own);
        let entries = map
            .iter()
            .map(|entry| entry.map(|(link, to)| (link, To::of(to))));
        entries
            .collect::<Result<_, _>>()
            .map_err(|e| failed("read", e))
    }

    /// Has what comes in by a link go there.
    pub fn put(&mut self, link: u32, to: To) -> Result<(), Error> {
        let map = self.theirs.as_mut().unwrap_or(&mut self.own);
        map.insert(link, to.value(), 0)
            .map_err(|e| failed("write to", e))
    }

    /// Closes a link.
    pub fn remove(&mut self, link: u32) -> Result<(), Error> {
        let map = self.theirs.as_mut().unwrap_or(&mut self.own);
        match map.remove(&link) {
            Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(())
            }
            outcome => outcome.map_err(|e| failed("delete from", e)),
        }
    }
}

/// Takes the program off a link by TCX.
pub fn take_away(link: u32) -> Result<(), Error> {
    tcx::take_away_named(link, Direction::Ingress, PROGRAM).map_err(|e| changing(link, e))
}

fn changing(link: u32, error: io::Error) -> Error {
    Error::system(
        format!("change the eBPF program of patches on the link with index {link}"),
        error,
    )
}

fn typed(map: MapData) -> Result<HashMap<MapData, u32, u32>, Error> {
    HashMap::try_from(Map::HashMap(map)).map_err(|e| Error::Program(chain(&e)))
}

fn failed(what: &str, error: MapError) -> Error {
    let operation = format!("{what} the map of patches");
    match error {
        MapError::SyscallError(e) if e.io_error.raw_os_error() == Some(libc::E2BIG) => {
            Error::unfit(
                operation,
                format!("it is full: a host has {MOST} patches at most; move ports to other hosts"),
            )
        }
        MapError::SyscallError(e) => Error::system(operation, e.io_error),
        other => Error::Program(format!("{operation}: {}", chain(&other))),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::{netlink::Batch, tc::join_patched};

    /// `return TC_ACT_SHOT`, by whatever register, and how another version might have it: `return TC_ACT_STOLEN`.
    const SHOT: [u8; 6] = [0, 0, 2, 0, 0, 0];
    const STOLEN: u8 = 4;
    const LO: u32 = 1;

    fn another_version() -> Vec<u8> {
        let mut object = OBJECT.to_vec();
        let moves = |window: &[u8]| matches!(window[0], 0xb4 | 0xb7) && window[2..] == SHOT;
        let places: Vec<usize> = (0..object.len() - 8)
            .filter(|at| moves(&object[*at..*at + 8]))
            .collect();
        assert!(!places.is_empty());
        places.iter().for_each(|at| object[at + 4] = STOLEN);
        object
    }

    fn takes_over() {
        let mut socket = Socket::open(libc::NETLINK_ROUTE as isize, "rtnetlink").expect("a socket");
        let mut batch = Batch::default();
        join_patched(&mut batch, LO);
        assert_eq!(socket.request(&mut batch).expect("asked"), []);
        let mut old = Patches::load_from(&another_version()).expect("another version");
        old.hang(&mut socket).expect("hung");
        old.put(7, To::FarEndOf(9)).expect("written");
        old.put(9, To::Link(7)).expect("written");
        drop(old);
        // One that starts finds what the other said, and takes it along when it takes its place.
        let mut new = Patches::load().expect("a program");
        let all = BTreeMap::from([(7, To::FarEndOf(9)), (9, To::Link(7))]);
        let filters = tc::patch_filters(&mut socket).expect("filters");
        new.choose(&filters).expect("chosen");
        assert!(!new.stand(&filters));
        assert_eq!(new.read().expect("entries"), all);
        new.hang(&mut socket).expect("hung");
        let filters = tc::patch_filters(&mut socket).expect("filters");
        assert!(new.stand(&filters));
        assert_eq!(new.read().expect("entries"), all);
        // The next one, of the same version, leaves it where it is.
        let mut next = Patches::load().expect("a program");
        next.choose(&filters).expect("chosen");
        assert!(next.stand(&filters));
        next.remove(7).expect("removed");
        next.remove(7).expect("nothing there to remove");
        assert_eq!(new.read().expect("entries").len(), 1);
    }

    #[test]
    fn a_full_map_refuses_and_says_so() {
        let mut patches = Patches::load().expect("a program");
        assert_eq!(patches.own_info.max_entries(), 2 * MOST);
        for link in 0..2 * MOST {
            patches.put(link, To::Link(1)).expect("room");
        }
        patches
            .put(7, To::Link(2))
            .expect("what is there needs none");
        let full = patches.put(2 * MOST, To::Link(1)).expect_err("no room");
        assert!(full.to_string().contains("full"), "{full}");
        patches.remove(7).expect("removed");
        patches.put(2 * MOST, To::Link(1)).expect("room again");
    }

    #[test]
    fn another_version_s_patches_are_taken_over() {
        let isolated = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests of the kernel run as root");
            takes_over();
        };
        thread::spawn(isolated).join().expect("no panic");
    }
}
