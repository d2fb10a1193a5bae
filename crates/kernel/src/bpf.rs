//! bpf(2), as far as it is about what is attached: looking at programs by their numbers, and hanging them on
//! links by TCX (Linux 6.6) without a BPF link, so that they stay when we go.
//!
//! Links are those of the calling thread's network namespace. A change here sends no netlink message.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd},
};

const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_F_REPLACE: u32 = 4;
const BPF_F_BEFORE: u32 = 8;

/// `BPF_MPROG_MAX`: the kernel takes no more on a link in one direction.
const MOST: usize = 64;
/// A program of ours has fewer maps than this.
const MAPS: usize = 16;
/// Loopback, in every namespace.
const LOOPBACK: u32 = 1;

/// A direction, as the host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// What comes in by the link.
    Ingress,
    /// What leaves by it.
    Egress,
}

/// Both.
pub const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

impl Direction {
    fn tcx(self) -> u32 {
        match self {
            Direction::Ingress => BPF_TCX_INGRESS,
            Direction::Egress => BPF_TCX_EGRESS,
        }
    }
}

/// `union bpf_attr` of attaching and detaching.
#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    link: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
    relative: u32,
    revision: u64,
}

/// `union bpf_attr` of a query.
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    link: u32,
    kind: u32,
    flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    zero: u32,
    program_flags: u64,
    bpf_links: u64,
    bpf_link_flags: u64,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct ByIdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    instructions: [u64; 2],
    load_time: u64,
    owner: u32,
    maps: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// A loaded program, held.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    id: u32,
    tag: [u8; 8],
    name: [u8; 16],
    maps: Vec<u32>,
}

impl Program {
    /// The program of that number; none, where there is none any more.
    pub fn open(id: u32) -> io::Result<Option<Self>> {
        let mut by_id = ByIdAttr {
            id,
            ..ByIdAttr::default()
        };
        let fd = match call(BPF_PROG_GET_FD_BY_ID, &mut by_id) {
            Ok(fd) => owned(fd),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut maps = [0_u32; MAPS];
        let mut info = Info {
            maps: MAPS as u32,
            map_ids: maps.as_mut_ptr().expose_provenance() as u64,
            ..Info::default()
        };
        let mut attr = InfoAttr {
            fd: fd.as_raw_fd().unsigned_abs(),
            length: size_of::<Info>() as u32,
            info: (&raw mut info).expose_provenance() as u64,
        };
        call(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
        let count = usize::try_from(info.maps).unwrap_or(MAPS).min(MAPS);
        Ok(Some(Program {
            fd,
            id,
            tag: info.tag,
            name: info.name,
            maps: maps.into_iter().take(count).collect(),
        }))
    }

    /// To hang it somewhere.
    pub fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd as _;
        self.fd.as_fd()
    }

    /// The kernel's number for it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// A digest of its instructions.
    pub fn tag(&self) -> [u8; 8] {
        self.tag
    }

    /// The kernel's numbers for its maps.
    pub fn maps(&self) -> &[u32] {
        &self.maps
    }

    /// Whether it was loaded under that name.
    pub fn is_named(&self, name: &str) -> bool {
        self.name.split(|octet| *octet == 0).next() == Some(name.as_bytes())
    }
}

/// Whether the kernel has TCX at all, asked of the kernel itself.
pub fn has_tcx() -> bool {
    on_link(LOOPBACK, Direction::Ingress).is_ok()
}

/// The numbers of the programs on a link, in the order in which they run; not those that a BPF link holds,
/// which are never ours. `ENODEV`: there is no such link.
pub fn on_link(link: u32, direction: Direction) -> io::Result<Vec<u32>> {
    let mut programs = [0_u32; MOST];
    let mut bpf_links = [0_u32; MOST];
    let mut attr = QueryAttr {
        link,
        kind: direction.tcx(),
        programs: programs.as_mut_ptr().expose_provenance() as u64,
        count: MOST as u32,
        bpf_links: bpf_links.as_mut_ptr().expose_provenance() as u64,
        ..QueryAttr::default()
    };
    call(BPF_PROG_QUERY, &mut attr)?;
    let count = usize::try_from(attr.count).unwrap_or(MOST).min(MOST);
    let all = programs.into_iter().zip(bpf_links).take(count);
    Ok(all
        .filter(|(_, bpf_link)| *bpf_link == 0)
        .map(|(program, _)| program)
        .collect())
}

/// Hangs a program on a link, before all that hang there. The kernel waits for all processors meanwhile, with
/// the lock of all links held: 10 ms and more.
pub fn attach(link: u32, direction: Direction, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = AttachAttr {
        link,
        program: number(program),
        kind: direction.tcx(),
        flags: BPF_F_BEFORE,
        ..AttachAttr::default()
    };
    call(BPF_PROG_ATTACH, &mut attr).map(drop)
}

/// Puts a program into the place of one that hangs on a link. No packet passes neither; nothing waits.
pub fn replace(
    link: u32,
    direction: Direction,
    old: BorrowedFd<'_>,
    new: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut attr = AttachAttr {
        link,
        program: number(new),
        kind: direction.tcx(),
        flags: BPF_F_REPLACE,
        replaced: number(old),
        ..AttachAttr::default()
    };
    call(BPF_PROG_ATTACH, &mut attr).map(drop)
}

/// Takes a program off a link. Waits as [`attach`] does.
pub fn detach(link: u32, direction: Direction, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = AttachAttr {
        link,
        program: number(program),
        kind: direction.tcx(),
        ..AttachAttr::default()
    };
    call(BPF_PROG_DETACH, &mut attr).map(drop)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

#[allow(unsafe_code)]
fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[allow(unsafe_code)]
fn call<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is one of the structures above, which begin as the kernel's `union bpf_attr` of that
    // command does, and is as long as we say; addresses in it are those of live buffers of the caller's with
    // room for as much as the counts beside them say.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    match i32::try_from(result) {
        Ok(fd @ 0..) => Ok(fd),
        _ => Err(io::Error::last_os_error()),
    }
}
