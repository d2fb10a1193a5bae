//! What hangs on a link by TCX, seen and changed by somebody else than the code under test.

#![allow(unsafe_code, reason = "there is no other way to bpf(2)")]

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd, FromRawFd as _, OwnedFd},
};

use aya::programs::{SchedClassifier, TcAttachType};

const LOAD: libc::c_long = 5;
const ATTACH: libc::c_long = 8;
const DETACH: libc::c_long = 9;

fn kind(ingress: bool) -> TcAttachType {
    match ingress {
        true => TcAttachType::Ingress,
        false => TcAttachType::Egress,
    }
}

/// Whether the kernel has TCX.
pub fn is_there() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}

/// Numbers and names of the programs on a link, in their order.
pub fn on(link: &str, ingress: bool) -> Vec<(u32, String)> {
    let (_, programs) = SchedClassifier::query_tcx(link, kind(ingress)).expect("a query");
    let name = |name: Option<&str>| name.unwrap_or_default().to_owned();
    let programs = programs.iter();
    programs.map(|p| (p.id(), name(p.name_as_str()))).collect()
}

/// Takes a program off a link by force.
pub fn detach(link: &str, ingress: bool, name: &str) {
    let (_, programs) = SchedClassifier::query_tcx(link, kind(ingress)).expect("a query");
    let program = programs.iter().find(|p| p.name_as_str() == Some(name));
    let fd = program
        .expect("it hangs there")
        .fd()
        .expect("its descriptor");
    change(DETACH, link, ingress, fd.as_fd().as_raw_fd(), 0);
}

/// Hangs a program of somebody else on a link, which does nothing, before or after all others.
pub fn attach_foreign(link: &str, ingress: bool, before: bool) {
    let flags = if before { 8 } else { 16 };
    let program = foreign();
    change(ATTACH, link, ingress, program.as_raw_fd(), flags);
}

fn change(command: libc::c_long, link: &str, ingress: bool, program: i32, flags: u32) {
    let index = nix::net::if_::if_nametoindex(link).expect("the link");
    let kind = if ingress { 46 } else { 47 };
    let mut attr = [index, program as u32, kind, flags, 0, 0, 0, 0];
    // SAFETY: these are the attributes of both commands, as long as we say.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of_val(&attr)) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// `return TCX_NEXT`, as "foreign".
fn foreign() -> OwnedFd {
    let code: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
    let mut name = [0; 16];
    name[..7].copy_from_slice(b"foreign");
    #[repr(C)]
    struct Attr {
        kind: u32,
        count: u32,
        code: u64,
        license: u64,
        log: [u64; 2],
        version: u32,
        flags: u32,
        name: [u8; 16],
    }
    let mut attr = Attr {
        kind: 3,
        count: 2,
        code: code.as_ptr().expose_provenance() as u64,
        license: c"GPL".as_ptr().expose_provenance() as u64,
        log: [0; 2],
        version: 0,
        flags: 0,
        name,
    };
    // SAFETY: these are the attributes of BPF_PROG_LOAD, as long as we say, and what they point to is alive.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, LOAD, &raw mut attr, size_of::<Attr>()) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}
