//! The eBPF programs on a port's link: loading them, and hanging them on by tc; [`crate::tcx`] does that by TCX.
//!
//! All ports of a namespace share one tc block for each direction, and a block holds one filter with one
//! program, the same in all namespaces. So a port costs one `clsact` qdisc that names the two blocks, and a new version of a program
//! replaces the old one on every port at once, without a gap. Nothing is pinned: the filters, or the links,
//! keep the programs alive, without us too, and these the map of sources. Whoever starts anew finds that map
//! by the program that hangs there, and hangs the same program on other links. Where another version hangs,
//! its sources are in the new one's map before it takes the place.
//!
//! The gateway's Ethernet address is patched into the instructions before they are loaded, see [`edge`]. As
//! a global variable it would stand in a map, outside the program's tag, and a filter with another address
//! could not be told from ours; the device's own address a classifier cannot read before Linux 6.2.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{ProgramError, SchedClassifier},
};
use hextet_types::Mac;

use crate::{
    audiences::{self, Audiences},
    bpf::{DIRECTIONS, Direction, Program},
    edge::{self, Layout},
    error::{Error, chain},
    netlink::{Answer, Attrs, Batch, Socket, flags, ne32, text},
    sources::{self, Sources},
    tcx,
};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const HEADER: usize = 20;
const TC_H_CLSACT: u32 = 0xffff_fff1;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;
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
const TCA_BPF_ID: u16 = 11;
const DIRECT_ACTION: u32 = 1;
const ETH_P_ALL: u16 = 3;

/// Our filters' preference and handle, "hx".
const PREFERENCE: u32 = 10;
const FILTER: u32 = 0x6878;
/// A filter's preference, and of which protocol's packets: all.
const PLACE: u32 = (PREFERENCE << 16) | ETH_P_ALL.to_be() as u32;

/// The numbers of blocks, "hx" and 1 to 3.
const INGRESS_BLOCK: u32 = 0x6878_0001;
const EGRESS_BLOCK: u32 = 0x6878_0002;
const PATCH_BLOCK: u32 = 0x6878_0003;

/// How often loading a program is tried when something interrupts it.
const LOAD_TRIES: usize = 8;

/// The names of the programs of `bpf/port.c`.
pub const INGRESS: &str = "hextet_ingress";
pub const EGRESS: &str = "hextet_egress";

/// The name under which a program is loaded, by which we know it again.
pub fn name_of(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => INGRESS,
        Direction::Egress => EGRESS,
    }
}

/// The number of a direction's block.
fn block(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => INGRESS_BLOCK,
        Direction::Egress => EGRESS_BLOCK,
    }
}

/// What hangs on a link by tc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hung {
    /// Our blocks.
    Ours,
    /// The block of patched links.
    Patched,
    /// A `clsact` of somebody else.
    Foreign,
}

/// The loaded programs, and the maps that those in place look into.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
    tags: [[u8; 8]; 2],
    ids: [u32; 2],
    own: Sources,
    own_audiences: Audiences,
    /// Those of the programs in place, where these are not the ones that we loaded.
    theirs: Option<Sources>,
    /// Likewise, where they have one.
    their_audiences: Option<Audiences>,
    /// Those programs, if they are the same as ours.
    adopted: Option<[Program; 2]>,
    /// Whether we have looked what is in place.
    looked: bool,
}

/// The filters in the block of each direction.
#[derive(Debug)]
pub struct Filters([Vec<Filter>; 2]);

/// A filter in a block.
#[derive(Debug)]
pub struct Filter {
    place: (u32, u32, u32),
    /// Its program's number.
    pub program: u32,
}

impl Filter {
    /// Whether it stands where ours do.
    pub fn is_ours(&self) -> bool {
        self.place == (PREFERENCE, FILTER, DIRECT_ACTION)
    }
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
        let (mut tags, mut ids) = ([[0; 8]; 2], [0; 2]);
        for ((direction, tag), id) in DIRECTIONS.into_iter().zip(&mut tags).zip(&mut ids) {
            let program = ebpf.program_mut(name_of(direction));
            let program: &mut SchedClassifier = program
                .ok_or_else(|| Error::Program(format!("no program {}", name_of(direction))))?
                .try_into()
                .map_err(|e| failed(&e))?;
            load(program).map_err(|e| failed(&e))?;
            let info = program.info().map_err(|e| failed(&e))?;
            (*tag, *id) = (info.tag().to_be_bytes(), info.id());
        }
        let Some(Map::HashMap(own)) = ebpf.take_map(sources::NAME) else {
            return Err(Error::Program(format!("no map {}", sources::NAME)));
        };
        let Some(Map::HashMap(audiences)) = ebpf.take_map(audiences::NAME) else {
            return Err(Error::Program(format!("no map {}", audiences::NAME)));
        };
        Ok(Programs {
            ebpf,
            tags,
            ids,
            own: Sources::new(own)?,
            own_audiences: Audiences::new(audiences)?,
            theirs: None,
            their_audiences: None,
            adopted: None,
            looked: false,
        })
    }

    /// The map that the program in place looks into; as long as there is none, the one that ours will.
    pub fn sources(&self) -> &Sources {
        self.theirs.as_ref().unwrap_or(&self.own)
    }

    /// Likewise the map of who has joined groups.
    pub fn audiences(&self) -> &Audiences {
        self.their_audiences.as_ref().unwrap_or(&self.own_audiences)
    }

    /// The same, to be written.
    pub fn audiences_mut(&mut self) -> &mut Audiences {
        self.their_audiences
            .as_mut()
            .unwrap_or(&mut self.own_audiences)
    }

    /// Whether [`Programs::choose`] has been called.
    pub fn have_looked(&self) -> bool {
        self.looked
    }

    /// Decides which program to go by, of those of ours that are in place in any namespace: best one like ours,
    /// and best that which we went by before. Where none is in place, that does not change.
    pub fn choose<'a>(
        &mut self,
        in_place: impl IntoIterator<Item = (&'a Filters, &'a tcx::Ours)>,
    ) -> Result<(), Error> {
        self.looked = true;
        let mut ids = [BTreeSet::new(), BTreeSet::new()];
        for (filters, on_links) in in_place {
            for (ids, direction) in ids.iter_mut().zip(DIRECTIONS) {
                let named = |program: &&Program| program.is_named(name_of(direction));
                ids.extend(filters.program(direction));
                ids.extend(on_links.values().filter(named).map(Program::id));
            }
        }
        let [ingress, egress] = ids;
        let mut candidates = open_all(ingress)?;
        let (held, [tag, _]) = (self.sources().id(), self.tags);
        candidates.sort_by_key(|c| Reverse((c.tag() == tag, c.maps().contains(&held))));
        for candidate in candidates {
            if candidate.maps().contains(&self.own.id()) {
                (self.theirs, self.their_audiences, self.adopted) = (None, None, None);
                return Ok(());
            }
            let mut theirs = None;
            for map in candidate.maps() {
                theirs = theirs.or(self.own.alike(*map)?);
            }
            if theirs.is_some() {
                self.theirs = theirs;
                return self.adopt(candidate, egress);
            }
        }
        Ok(())
    }

    /// Goes by that ingress program, and by the one of these that shares maps with it: two that do not would not know of each
    /// other's packets.
    fn adopt(&mut self, ingress: Program, egress: BTreeSet<u32>) -> Result<(), Error> {
        self.their_audiences = None;
        for map in ingress.maps() {
            if let Some(theirs) = Audiences::alike(*map)? {
                self.their_audiences = Some(theirs);
            }
        }
        let [own, other] = self.tags;
        let fits = |egress: &Program| {
            let mut maps = egress.maps().iter();
            egress.tag() == other && maps.any(|map| ingress.maps().contains(map))
        };
        let egress = open_all(egress)?.into_iter().find(fits);
        let egress = egress.filter(|_| ingress.tag() == own);
        self.adopted = egress.map(|egress| [ingress, egress]);
        Ok(())
    }

    /// What the links of a namespace are to have; none, as long as another version's program is in place.
    pub fn pair(&self) -> Result<Option<tcx::Pair<'_>>, Error> {
        Ok(match (&self.theirs, &self.adopted) {
            (None, _) => {
                let [ingress, egress] = DIRECTIONS.map(|direction| self.fd(direction));
                let fds = [ingress?, egress?];
                Some(tcx::Pair { fds, ids: self.ids })
            }
            (Some(_), Some(adopted)) => Some(tcx::Pair {
                fds: adopted.each_ref().map(Program::fd),
                ids: adopted.each_ref().map(Program::id),
            }),
            (Some(_), None) => None,
        })
    }

    /// Gets ready to take the place of another version: with all that was in use.
    pub fn take_over(&mut self) -> Result<(), Error> {
        if let (Some(theirs), None) = (&self.theirs, &self.adopted) {
            self.own.copy(theirs)?;
            if let Some(theirs) = &self.their_audiences {
                self.own_audiences.copy(theirs)?;
            }
            (self.theirs, self.their_audiences) = (None, None);
        }
        Ok(())
    }

    /// Whether both blocks hold exactly what they are to hold.
    pub fn stand(&self, filters: &Filters) -> Result<bool, Error> {
        let Some(pair) = self.pair()? else {
            return Ok(false);
        };
        let one = |(filters, id): (&Vec<Filter>, u32)| matches!(filters.as_slice(), [one] if one.is_ours() && one.program == id);
        Ok(filters.0.iter().zip(pair.ids).all(one))
    }

    /// Hangs the programs into the blocks, in place of what stands there under our handle.
    pub fn hang(&self, socket: &mut Socket) -> Result<(), Error> {
        let Some(pair) = self.pair()? else {
            return Ok(());
        };
        let mut batch = Batch::default();
        for (direction, fd) in DIRECTIONS.into_iter().zip(pair.fds) {
            hang_in(&mut batch, block(direction), fd, name_of(direction));
        }
        match socket.request(&mut batch)?.into_iter().next() {
            Some((_, refusal)) => Err(refusal.of("hang the eBPF programs into tc blocks")),
            None => Ok(()),
        }
    }

    fn fd(&self, direction: Direction) -> Result<BorrowedFd<'_>, Error> {
        let program = self.ebpf.program(name_of(direction));
        let Some(aya::programs::Program::SchedClassifier(program)) = program else {
            return Err(Error::Program(format!(
                "{} is not loaded",
                name_of(direction)
            )));
        };
        let fd = program.fd().map_err(|e| Error::Program(chain(&e)))?;
        Ok(fd.as_fd())
    }
}

impl Filters {
    /// Looks into both blocks. A block that no port uses does not exist, and holds nothing.
    pub fn read(socket: &mut Socket) -> Result<Self, Error> {
        Ok(Filters([
            filters_of(socket, INGRESS_BLOCK)?,
            filters_of(socket, EGRESS_BLOCK)?,
        ]))
    }

    /// The program of ours in that direction, of whatever version.
    fn program(&self, direction: Direction) -> Option<u32> {
        let [ingress, egress] = &self.0;
        let filters = match direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        };
        Some(filters.iter().find(|filter| filter.is_ours())?.program)
    }
}

/// The filters in the block of patched links.
pub fn patch_filters(socket: &mut Socket) -> Result<Vec<Filter>, Error> {
    filters_of(socket, PATCH_BLOCK)
}

/// Hangs a program into the block of patched links, in place of what stands there under our handle.
pub fn hang_patch(socket: &mut Socket, fd: BorrowedFd<'_>, name: &str) -> Result<(), Error> {
    let mut batch = Batch::default();
    hang_in(&mut batch, PATCH_BLOCK, fd, name);
    match socket.request(&mut batch)?.into_iter().next() {
        Some((_, refusal)) => Err(refusal.of("hang the eBPF program of patches into its tc block")),
        None => Ok(()),
    }
}

/// The filters on what comes in by a link, of a `clsact` without blocks.
pub fn uplink_filters(socket: &mut Socket, index: u32) -> Result<Vec<Filter>, Error> {
    filters_at(socket, index, CLSACT_INGRESS)
}

/// Whether a link's `clsact` holds no filter.
pub fn is_empty_clsact(socket: &mut Socket, index: u32) -> Result<bool, Error> {
    Ok(filters_at(socket, index, CLSACT_INGRESS)?.is_empty()
        && filters_at(socket, index, CLSACT_EGRESS)?.is_empty())
}

/// Gives a link a `clsact`, and hangs a program on what comes in by it, in place of what stands there under our handle. Of
/// the two requests the first is refused where there is one.
pub fn hang_uplink(batch: &mut Batch, index: u32, fd: BorrowedFd<'_>, name: &str) {
    let clsact = header(index, CLSACT_HANDLE, TC_H_CLSACT, 0);
    batch
        .message(RTM_NEWQDISC, flags::CREATE | flags::EXCL, &clsact)
        .text(TCA_KIND, "clsact");
    hang_at(batch, (index, CLSACT_INGRESS), fd, name);
}

/// Takes that off again.
pub fn part_uplink(batch: &mut Batch, index: u32) {
    let filter = header(index, FILTER, CLSACT_INGRESS, PLACE);
    batch
        .message(RTM_DELTFILTER, 0, &filter)
        .text(TCA_KIND, "bpf");
}

fn filters_of(socket: &mut Socket, block: u32) -> Result<Vec<Filter>, Error> {
    filters_at(socket, BLOCK, block)
}

fn filters_at(socket: &mut Socket, index: u32, parent: u32) -> Result<Vec<Filter>, Error> {
    let mut request = Batch::default();
    request.message(RTM_GETTFILTER, 0, &header(index, 0, parent, 0));
    match socket.dump(&mut request, read_filter) {
        Err(e) if no_block(&e) => Ok(Vec::new()),
        filters => filters,
    }
}

fn hang_in(batch: &mut Batch, block: u32, fd: BorrowedFd<'_>, name: &str) {
    hang_at(batch, (BLOCK, block), fd, name);
}

fn hang_at(batch: &mut Batch, (index, parent): (u32, u32), fd: BorrowedFd<'_>, name: &str) {
    let filter = header(index, FILTER, parent, PLACE);
    batch
        .message(RTM_NEWTFILTER, flags::CREATE, &filter)
        .text(TCA_KIND, "bpf")
        .nest(TCA_OPTIONS, |m| {
            m.ne32(TCA_BPF_FD, fd.as_raw_fd().unsigned_abs())
                .text(TCA_BPF_NAME, name)
                .ne32(TCA_BPF_FLAGS, DIRECT_ACTION);
        });
}

pub(crate) fn open(id: u32) -> Result<Option<Program>, Error> {
    Program::open(id).map_err(|e| Error::system("look at an eBPF program", e))
}

fn open_all(ids: BTreeSet<u32>) -> Result<Vec<Program>, Error> {
    let mut all = Vec::new();
    for id in ids {
        all.extend(open(id)?);
    }
    Ok(all)
}

/// The kernel gives up checking a program when a signal comes (`EAGAIN`).
pub(crate) fn load(program: &mut SchedClassifier) -> Result<(), ProgramError> {
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

/// Asks for all qdiscs.
pub fn request_qdiscs(batch: &mut Batch) {
    batch.message(RTM_GETQDISC, 0, &header(0, 0, 0, 0));
}

/// Asks for a link's `clsact`; that there is none is an error.
pub fn request_clsact(batch: &mut Batch, index: u32) {
    let header = header(index, CLSACT_HANDLE, TC_H_CLSACT, 0);
    batch.message(RTM_GETQDISC, flags::ECHO, &header);
}

/// Reads a `clsact`: the link's index, and whose it is.
pub fn read_qdisc(answer: &Answer<'_>) -> Option<(u32, Hung)> {
    let attrs = Attrs::after(answer.payload, HEADER);
    if answer.kind != RTM_NEWQDISC || attrs.get(TCA_KIND).and_then(text) != Some("clsact") {
        return None;
    }
    let of = |kind| attrs.get(kind).and_then(ne32);
    let hung = match (of(TCA_INGRESS_BLOCK), of(TCA_EGRESS_BLOCK)) {
        (Some(INGRESS_BLOCK), Some(EGRESS_BLOCK)) => Hung::Ours,
        (Some(PATCH_BLOCK), None) => Hung::Patched,
        _ => Hung::Foreign,
    };
    Some((ne32(answer.payload.get(4..)?)?, hung))
}

/// Joins a link to the block of patched links.
pub fn join_patched(batch: &mut Batch, index: u32) {
    let header = header(index, CLSACT_HANDLE, TC_H_CLSACT, 0);
    batch
        .message(RTM_NEWQDISC, flags::CREATE | flags::EXCL, &header)
        .text(TCA_KIND, "clsact")
        .ne32(TCA_INGRESS_BLOCK, PATCH_BLOCK);
}

/// Joins a link to the blocks.
pub fn join(batch: &mut Batch, index: u32) {
    let header = header(index, CLSACT_HANDLE, TC_H_CLSACT, 0);
    batch
        .message(RTM_NEWQDISC, flags::CREATE | flags::EXCL, &header)
        .text(TCA_KIND, "clsact")
        .ne32(TCA_INGRESS_BLOCK, block(Direction::Ingress))
        .ne32(TCA_EGRESS_BLOCK, block(Direction::Egress));
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
    let info = ne32(answer.payload.get(16..)?)?;
    let number = |attribute| options.get(attribute).and_then(ne32).unwrap_or(0);
    Some(Filter {
        place: (info >> 16, handle, number(TCA_BPF_FLAGS)),
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
        let source = concat!(
            include_str!("../bpf/port.c"),
            include_str!("../bpf/flows.h"),
            include_str!("../bpf/multicast.h")
        );
        for (name, value) in [
            ("MARK_MASK", marks::MASK),
            ("MARK_FROM_PORT", marks::FROM_PORT),
            ("MARK_SOURCE_CHECKED", marks::SOURCE_CHECKED),
            ("MARK_ADMITTED", marks::ADMITTED),
            ("MARK_OWN_REPORT", marks::OWN_REPORT),
            ("MARK_HOP", marks::HOP_MASK),
            ("MARK_ALL_THE_WAY", marks::ALL_THE_WAY),
            ("MARK_COPY", marks::COPY),
            ("OWN_LINKS", crate::route::made::FIRST_INDEX),
            ("TUNNEL", crate::route::made::TUNNEL),
            ("LEG", crate::route::made::LEG),
        ] {
            assert!(
                source.contains(&format!("#define {name} {value:#010x}\n")),
                "{name}"
            );
        }
    }

    /// The kernel looks at so many instructions in some tens of milliseconds. What it looks at grows with the number of ways
    /// through a function, not with its length.
    const MOST_VERIFIED: u32 = 200_000;

    #[test]
    fn both_builds_pass_the_verifier_soon() {
        let gateway = Mac::new([2, 0x68, 0x78, 0, 0, 1]);
        let layout = Layout::of_this_kernel().expect("a kernel with BTF");
        for (build, layout) in [("helper", layout.without_cast()), ("cast", layout)] {
            let programs = Programs::load_for(gateway, layout).expect("a program that is verified");
            for (name, program) in programs.ebpf.programs() {
                let info = program.info().expect("a loaded program");
                let verified = info.verified_instruction_count();
                let verified = verified.expect("a kernel that tells, since Linux 5.16");
                println!("{build}, {name}: {verified} instructions verified");
                assert!(verified <= MOST_VERIFIED, "{build}, {name}: {verified}");
            }
        }
    }
}
