//! Network namespaces: naming them as iproute2 does (`/run/netns`), and doing things inside them.
//!
//! A thread that changed its namespace never goes back: it ends. The caller's thread stays where it is.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    thread,
};

use hextet_model::state::Netns;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};

use crate::error::Error;

/// Where namespaces have their names.
pub(crate) const DIRECTORY: &str = "/run/netns";
const NONE: Option<&str> = None;

/// A namespace held open: it stays, and stays the same, as long as this does.
#[derive(Debug)]
pub struct Handle {
    name: Netns,
    file: File,
}

impl Handle {
    /// Opens one; `Main` is the one in which the calling thread is.
    pub fn open(name: &Netns) -> Result<Self, Error> {
        let path = match name {
            Netns::Main => PathBuf::from("/proc/thread-self/ns/net"),
            Netns::Named(name) => path_of(name)?,
        };
        match File::open(&path).and_then(only_namespace) {
            Ok(file) => Ok(Handle {
                name: name.clone(),
                file,
            }),
            Err(e) => Err(Error::system(format!("open network namespace {name}"), e)),
        }
    }

    /// Another handle on the same namespace.
    pub(crate) fn another(&self) -> Result<Self, Error> {
        let file = self
            .file
            .try_clone()
            .map_err(|e| Error::system(format!("keep network namespace {} open", self.name), e))?;
        Ok(Handle {
            name: self.name.clone(),
            file,
        })
    }

    /// To name it to the kernel.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Its name.
    pub fn name(&self) -> &Netns {
        &self.name
    }

    /// Whether the name still means this namespace.
    pub fn is_current(&self) -> bool {
        let inode = |file: &File| file.metadata().map(|m| (m.dev(), m.ino())).ok();
        let now = Handle::open(&self.name)
            .ok()
            .and_then(|now| inode(&now.file));
        now.is_some() && now == inode(&self.file)
    }

    /// Runs something inside, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let operation = || format!("enter network namespace {}", self.name);
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET)
                    .map_err(|e| Error::system(operation(), e))?;
                Ok(work())
            });
            worker.join().unwrap_or_else(|_| {
                Err(Error::system(
                    operation(),
                    io::Error::other("the work inside it panicked"),
                ))
            })
        })
    }
}

/// Makes a namespace of that name.
pub fn create(name: &str) -> Result<(), Error> {
    create_with(name, || Ok(()))
}

/// Makes a namespace of that name, which it gets once `prepare` has run inside.
pub(crate) fn create_with(
    name: &str,
    prepare: impl FnOnce() -> Result<(), Error> + Send,
) -> Result<(), Error> {
    let path = path_of(name)?;
    let operation = || format!("create network namespace {name}");
    let failed = |e: nix::Error| Error::system(operation(), e);
    share_directory().map_err(failed)?;
    take_name(&path).map_err(|e| Error::system(operation(), e))?;
    let made = thread::scope(|scope| {
        let worker = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(failed)?;
            prepare()?;
            let own = Path::new("/proc/thread-self/ns/net");
            mount(Some(own), &path, NONE, MsFlags::MS_BIND, NONE).map_err(failed)
        });
        let panicked = Err(failed(nix::errno::Errno::EIO));
        worker.join().unwrap_or(panicked)
    });
    made.inspect_err(|_| {
        let _ = fs::remove_file(&path);
    })
}

/// A file of that name, which there may be already if no namespace is mounted on it: somebody who was making one
/// has died.
fn take_name(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            match File::open(path).and_then(only_namespace) {
                Err(not_one) if not_one.kind() == io::ErrorKind::NotFound => Ok(()),
                _ => Err(e),
            }
        }
        outcome => outcome.map(drop),
    }
}

/// A file that is no namespace is as good as none.
fn only_namespace(file: File) -> io::Result<File> {
    match fstatfs(&file)?.filesystem_type() {
        NSFS_MAGIC => Ok(file),
        _ => Err(io::Error::from_raw_os_error(libc::ENOENT)),
    }
}

/// Takes a namespace's name away; it ends once nobody is in it. What is not there needs no deletion.
///
/// TAPs and VXLAN devices inside are destroyed with it.
pub fn delete(name: &str) -> Result<(), Error> {
    let path = path_of(name)?;
    let operation = || format!("delete network namespace {name}");
    let _ = umount2(&path, MntFlags::MNT_DETACH);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::system(operation(), e)),
        _ => Ok(()),
    }
}

/// The names of all namespaces that have one.
pub fn list() -> Result<Vec<String>, Error> {
    let operation = || "list network namespaces".to_owned();
    let entries = match fs::read_dir(DIRECTORY) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::system(operation(), e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::system(operation(), e))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Makes `/run/netns` a shared mount, as `ip netns add` does, so that every mount namespace sees what is
/// bound there.
fn share_directory() -> nix::Result<()> {
    let directory = Path::new(DIRECTORY);
    if fs::create_dir_all(directory).is_err() {
        return Err(nix::errno::Errno::last());
    }
    let share = || {
        mount(
            NONE,
            directory,
            NONE,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            NONE,
        )
    };
    if share().is_ok() {
        return Ok(());
    }
    mount(
        Some(directory),
        directory,
        NONE,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        NONE,
    )?;
    share()
}

fn path_of(name: &str) -> Result<PathBuf, Error> {
    if name.is_empty() || name.len() > 255 || name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(Error::unfit(
            format!("use network namespace '{name}'"),
            "a name has 1 to 255 characters, no '/', and does not begin with a dot",
        ));
    }
    Ok(Path::new(DIRECTORY).join(name))
}
