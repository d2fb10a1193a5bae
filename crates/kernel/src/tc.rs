//! The eBPF programs on a port's link: loading them, and hanging them on by tc.
//!
//! All ports of a namespace share one tc block for each direction, and a block holds one filter with one
//! program. So a port costs one `clsact` qdisc that names the two blocks, and a new version of a program
//! replaces the old one on every port at once, without a gap. Nothing is pinned: the filters keep the
//! programs alive, without us too, and these the map of sources. Whoever starts anew finds that map by the
//! program that hangs there; where another version hangs, its sources are in the new one's map before it
//! takes the place.
//!
//! The gateway's Ethernet address is patched into the instructions before they are loaded, see [`edge`]. As
//! a global variable it would stand in a map, outside the program's tag, and a filter with another address
//! could not be told from ours; the device's own address a classifier cannot read before Linux 6.2.

use std::os::fd::{AsFd, AsRawFd};

use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{ProgramError, SchedClassifier, loaded_programs},
};
use hextet_types::Mac;

use crate::{
    edge::{self, Layout},
    error::{Error, chain},
    netlink::{Answer, Attrs, Batch, Socket, flags, ne32, text},
    sources::{self, Sources},
};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
const HEADER: usize = 20;
const TC_H_CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// `TCM_IFINDEX_MAGIC_BLOCK`: the parent field names a block.
const BLOCK: u32 = u32::MAX;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_INGRESS_BLOCK: u16 = 13;
const TCA_EGRESS_BLOCK: u16 = 14;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_TAG: u16 = 10;
const TCA_BPF_ID: u16 = 11;
const DIRECT_ACTION: u32 = 1;
const ETH_P_ALL: u16 = 3;

/// Our filters' preference and handle, "hx".
const PREFERENCE: u32 = 10;
const FILTER: u32 = 0x6878;

/// How often loading a program is tried when something interrupts it.
const LOAD_TRIES: usize = 8;

/// A direction, as the host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

impl Direction {
    fn program(self) -> &'static str {
        match self {
            Direction::Ingress => "port_ingress",
            Direction::Egress => "port_egress",
        }
    }

    /// The number of the block, "hx" and 1 or 2.
    fn block(self) -> u32 {
        match self {
            Direction::Ingress => 0x6878_0001,
            Direction::Egress => 0x6878_0002,
        }
    }
}

/// What hangs on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hung {
    /// Our blocks.
    Ours,
    /// A `clsact` of somebody else.
    Foreign,
}

/// The loaded programs of a namespace, and the map of sources that the one in place looks into.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
    tags: [[u8; 8]; 2],
    own: Sources,
    /// That of the program in place, where it is not the one that we loaded.
    theirs: Option<Sources>,
    /// Whether we have looked whose map that is.
    looked: bool,
}

/// A filter of ours in a block.
#[derive(Debug)]
struct Filter {
    place: (u32, u32, u32),
    tag: [u8; 8],
    program: u32,
}

impl Programs {
    /// Loads both, with this address as the gateway's.
    pub fn load(gateway: Mac) -> Result<Self, Error> {
        Self::load_for(gateway, Layout::of_this_kernel()?)
    }

    fn load_for(gateway: Mac, layout: Layout) -> Result<Self, Error> {
        let failed = |e: &dyn std::error::Error| Error::Program(chain(e));
        let object = edge::object(gateway, layout)?;
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .load(&object)
            .map_err(|e| failed(&e))?;
        let mut tags = [[0; 8]; 2];
        for (direction, tag) in DIRECTIONS.into_iter().zip(&mut tags) {
            let program = ebpf.program_mut(direction.program());
            let program: &mut SchedClassifier = program
                .ok_or_else(|| Error::Program(format!("no program {}", direction.program())))?
                .try_into()
                .map_err(|e| failed(&e))?;
            load(program).map_err(|e| failed(&e))?;
            *tag = program.info().map_err(|e| failed(&e))?.tag().to_be_bytes();
        }
        let Some(Map::HashMap(own)) = ebpf.take_map(sources::NAME) else {
            return Err(Error::Program(format!("no map {}", sources::NAME)));
        };
        Ok(Programs {
            ebpf,
            tags,
            own: Sources::new(own)?,
            theirs: None,
            looked: false,
        })
    }

    /// The map that the program in place looks into; as long as there is none, the one that ours will.
    pub fn sources(&mut self, socket: &mut Socket) -> Result<&Sources, Error> {
        if !self.looked {
            self.stand(socket)?;
        }
        Ok(self.theirs.as_ref().unwrap_or(&self.own))
    }

    /// Whether both blocks of a namespace hold exactly these programs, with a map of sources like ours. A
    /// block that no port uses does not exist, and holds nothing.
    pub fn stand(&mut self, socket: &mut Socket) -> Result<bool, Error> {
        let mut stand = true;
        for (direction, tag) in DIRECTIONS.into_iter().zip(self.tags) {
            let mut request = Batch::default();
            request.message(RTM_GETTFILTER, 0, &header(BLOCK, 0, direction.block(), 0));
            let filters = match socket.dump(&mut request, read_filter) {
                Ok(filters) => filters,
                Err(e) if no_block(&e) => Vec::new(),
                Err(e) => return Err(e),
            };
            let ours = |filter: &Filter| filter.place == (PREFERENCE, FILTER, DIRECT_ACTION);
            stand &= matches!(&filters[..], [one] if ours(one) && one.tag == tag);
            if let (Direction::Ingress, Some(one)) = (direction, filters.iter().find(|f| ours(f))) {
                stand &= self.look_into(one.program)?;
            }
        }
        self.looked = true;
        Ok(stand)
    }

    /// Finds the map of sources of a program that is in place; whether there is one like ours.
    fn look_into(&mut self, program: u32) -> Result<bool, Error> {
        let maps = maps_of(program)?;
        if maps.contains(&self.own.id()) {
            self.theirs = None;
            return Ok(true);
        }
        for id in maps {
            if let Some(theirs) = self.own.alike(id)? {
                self.theirs = Some(theirs);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Hangs the programs into the blocks, in place of what stands there under our handle, with all the
    /// sources that were in use.
    pub fn hang(&mut self, socket: &mut Socket) -> Result<(), Error> {
        if let Some(theirs) = &self.theirs {
            self.own.copy(theirs)?;
        }
        let mut batch = Batch::default();
        for direction in DIRECTIONS {
            let fd = self.fd(direction)?;
            let info = (PREFERENCE << 16) | u32::from(ETH_P_ALL.to_be());
            let header = header(BLOCK, FILTER, direction.block(), info);
            batch
                .message(RTM_NEWTFILTER, flags::CREATE, &header)
                .text(TCA_KIND, "bpf")
                .nest(TCA_OPTIONS, |m| {
                    m.ne32(TCA_BPF_FD, fd)
                        .text(TCA_BPF_NAME, direction.program())
                        .ne32(TCA_BPF_FLAGS, DIRECT_ACTION);
                });
        }
        match socket.request(&mut batch)?.into_iter().next() {
            Some((_, refusal)) => Err(refusal.of("hang the eBPF programs into tc blocks")),
            None => {
                self.theirs = None;
                self.looked = true;
                Ok(())
            }
        }
    }

    fn fd(&self, direction: Direction) -> Result<u32, Error> {
        let program = self.ebpf.program(direction.program());
        let fd = program.and_then(|program| program.fd().ok());
        fd.and_then(|fd| u32::try_from(fd.as_fd().as_raw_fd()).ok())
            .ok_or_else(|| Error::Program(format!("{} is not loaded", direction.program())))
    }
}

/// The kernel gives up checking a program when a signal comes (`EAGAIN`).
fn load(program: &mut SchedClassifier) -> Result<(), ProgramError> {
    let interrupted = |outcome: &Result<(), ProgramError>| {
        matches!(outcome, Err(ProgramError::LoadError { io_error, .. })
            if io_error.raw_os_error() == Some(libc::EAGAIN))
    };
    let mut outcome = program.load();
    for _ in 1..LOAD_TRIES {
        if !interrupted(&outcome) {
            break;
        }
        outcome = program.load();
    }
    outcome
}

/// Asks for all qdiscs, or those of one link (index 0 is all).
pub fn request_qdiscs(batch: &mut Batch, index: u32) {
    batch.message(RTM_GETQDISC, 0, &header(index, 0, 0, 0));
}

/// Reads a `clsact`: the link's index, and whose it is.
pub fn read_qdisc(answer: &Answer<'_>) -> Option<(u32, Hung)> {
    let attrs = Attrs::after(answer.payload, HEADER);
    if answer.kind != RTM_NEWQDISC || attrs.get(TCA_KIND).and_then(text) != Some("clsact") {
        return None;
    }
    let block = |kind| attrs.get(kind).and_then(ne32);
    let ours = block(TCA_INGRESS_BLOCK) == Some(Direction::Ingress.block())
        && block(TCA_EGRESS_BLOCK) == Some(Direction::Egress.block());
    let index = ne32(answer.payload.get(4..)?)?;
    Some((index, if ours { Hung::Ours } else { Hung::Foreign }))
}

/// Joins a link to the blocks.
pub fn join(batch: &mut Batch, index: u32) {
    let header = header(index, CLSACT_HANDLE, TC_H_CLSACT, 0);
    batch
        .message(RTM_NEWQDISC, flags::CREATE | flags::EXCL, &header)
        .text(TCA_KIND, "clsact")
        .ne32(TCA_INGRESS_BLOCK, Direction::Ingress.block())
        .ne32(TCA_EGRESS_BLOCK, Direction::Egress.block());
}

/// Takes a link's `clsact` away, and with it all filters on it that are not in blocks.
pub fn part(batch: &mut Batch, index: u32) {
    batch.message(
        RTM_DELQDISC,
        0,
        &header(index, CLSACT_HANDLE, TC_H_CLSACT, 0),
    );
}

/// The link of a message about a qdisc or filter.
pub fn link_index(answer: &Answer<'_>) -> Option<u32> {
    ne32(answer.payload.get(4..)?)
}

/// The identifiers of a program's maps; none, where it has gone.
fn maps_of(program: u32) -> Result<Vec<u32>, Error> {
    let failed = |e: &dyn std::error::Error| Error::Program(chain(e));
    for info in loaded_programs() {
        let Ok(info) = info else { continue };
        if info.id() == program {
            let maps = info.map_ids().map_err(|e| failed(&e))?;
            return Ok(maps.unwrap_or_default());
        }
    }
    Ok(Vec::new())
}

fn read_filter(answer: &Answer<'_>) -> Option<Filter> {
    let attrs = Attrs::after(answer.payload, HEADER);
    if answer.kind != RTM_NEWTFILTER {
        return None;
    }
    let handle = ne32(answer.payload.get(8..)?)?;
    // Each preference is shown once more with handle 0, for itself.
    if handle == 0 {
        return None;
    }
    let options = attrs.nest(TCA_OPTIONS);
    let tag = options
        .get(TCA_BPF_TAG)
        .and_then(|tag| tag.try_into().ok())
        .unwrap_or_default();
    let info = ne32(answer.payload.get(16..)?)?;
    let number = |attribute| options.get(attribute).and_then(ne32).unwrap_or(0);
    Some(Filter {
        place: (info >> 16, handle, number(TCA_BPF_FLAGS)),
        tag,
        program: number(TCA_BPF_ID),
    })
}

/// Asking for the filters of a block that does not exist is an error of the request.
fn no_block(error: &Error) -> bool {
    matches!(
        error.errno(),
        Some(libc::EINVAL | libc::ENOENT | libc::ENODEV)
    )
}

fn header(index: u32, handle: u32, parent: u32, info: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&handle.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    header[16..].copy_from_slice(&info.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests {
    use hextet_model::state::marks;

    use super::*;

    #[test]
    fn the_program_s_marks_are_the_model_s() {
        let source = include_str!("../bpf/port.c");
        for (name, value) in [
            ("MARK_MASK", marks::MASK),
            ("MARK_FROM_PORT", marks::FROM_PORT),
            ("MARK_SOURCE_CHECKED", marks::SOURCE_CHECKED),
            ("MARK_ADMITTED", marks::ADMITTED),
            ("MARK_OWN_REPORT", marks::OWN_REPORT),
        ] {
            assert!(
                source.contains(&format!("#define {name} {value:#010x}\n")),
                "{name}"
            );
        }
    }

    #[test]
    fn both_builds_pass_the_verifier() {
        let gateway = Mac::new([2, 0x68, 0x78, 0, 0, 1]);
        let layout = Layout::of_this_kernel().expect("a kernel with BTF");
        Programs::load_for(gateway, layout.without_cast()).expect("the one that asks a helper");
        Programs::load_for(gateway, layout).expect("the one for this kernel");
    }
}
