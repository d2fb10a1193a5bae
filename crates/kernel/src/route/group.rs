//! Links' groups, set by sysfs.
//!
//! By netlink, a new group of a link that is up is told to all parts of the kernel as if anything might have changed,
//! and IPv6 goes through all routes of all links then. Sysfs sets just the group, and tells nobody.

use std::{io, os::fd::OwnedFd, sync::OnceLock};

use hextet_types::IfName;
use rustix::{
    fs::{Mode, OFlags, openat},
    io::write,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

use crate::netns::Handle;

/// The links of one namespace, as its sysfs shows them. Opened when first used, and without a place in any directory
/// tree: which sysfs is mounted on `/sys`, and whether it may be written, is no matter.
#[derive(Debug, Default)]
pub struct Groups(OnceLock<Option<OwnedFd>>);

impl Groups {
    /// Sets a link's group; false, where that has to be done by netlink.
    pub fn set(&self, handle: &Handle, link: &IfName, group: u32) -> bool {
        let sysfs = self.0.get_or_init(|| {
            let opened = handle
                .run(open)
                .unwrap_or_else(|e| Err(io::Error::other(e)));
            opened
                .inspect_err(
                    |error| tracing::debug!(%error, "no sysfs; links' groups are set by netlink"),
                )
                .ok()
        });
        let Some(sysfs) = sysfs else { return false };
        let path = format!("class/net/{link}/netdev_group");
        let written = openat(sysfs, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| write(&file, group.to_string().as_bytes()));
        written.is_ok()
    }
}

/// The sysfs of the namespace in which the calling thread is.
fn open() -> io::Result<OwnedFd> {
    let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}
