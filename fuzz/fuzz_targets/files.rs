//! Files that people write, and the journal that a crash may have damaged, read as programs read them: no
//! panic, and a journal that was opened once is whole.
//!
//! The first octet says which file it is.

#![no_main]

use std::{
    fs::File,
    io::Write,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use hextet_agent::{config::AgentConfig, journal::Journal};
use hextet_lab::LabFile;
use hextet_server::ServerConfig;
use libfuzzer_sys::fuzz_target;

/// In memory, without a name: it goes with the process, however that ends.
static FILE: LazyLock<(File, PathBuf)> = LazyLock::new(|| {
    let file = tempfile::tempfile_in("/dev/shm");
    let file = file.unwrap_or_else(|error| panic!("a file in /dev/shm: {error}"));
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    (file, path.into())
});

fuzz_target!(|input: &[u8]| {
    let [which, text @ ..] = input else { return };
    let (file, path) = &*FILE;
    if let Err(error) = fill(file, path, text) {
        panic!("write {}: {error}", path.display());
    }
    match which % 4 {
        0 => drop(LabFile::read(path)),
        1 => drop(AgentConfig::load(path)),
        2 => drop(ServerConfig::load(path).is_ok_and(|config| config.check().is_ok())),
        _ => open_twice(path),
    }
});

fn fill(file: &File, path: &Path, text: &[u8]) -> std::io::Result<()> {
    file.set_len(0)?;
    File::options().write(true).open(path)?.write_all(text)
}

fn open_twice(path: &Path) {
    let open = || Journal::open(path).unwrap_or_else(|error| panic!("{error}"));
    let (_, intent, revision) = open();
    let (_, again, at) = open();
    assert_eq!((again, at), (intent, revision));
}
