//! Files that people write, and the journal that a crash may have damaged, read as programs read them: no
//! panic, and a journal that was opened once is whole.
//!
//! The first octet says which file it is.

#![no_main]

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::LazyLock,
};

use hextet_agent::{config::AgentConfig, journal::Journal};
use hextet_lab::LabFile;
use hextet_server::ServerConfig;
use libfuzzer_sys::fuzz_target;

/// In memory.
static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| Path::new("/dev/shm").join(format!("hextet-fuzz-{}", process::id())));

fuzz_target!(|input: &[u8]| {
    let [which, text @ ..] = input else { return };
    let path = FILE.as_path();
    if let Err(error) = fs::write(path, text) {
        panic!("write {}: {error}", path.display());
    }
    match which % 4 {
        0 => drop(LabFile::read(path)),
        1 => drop(AgentConfig::load(path)),
        2 => drop(ServerConfig::load(path).is_ok_and(|config| config.check().is_ok())),
        _ => open_twice(path),
    }
});

fn open_twice(path: &Path) {
    let open = || Journal::open(path).unwrap_or_else(|error| panic!("{error}"));
    let (_, intent, revision) = open();
    let (_, again, at) = open();
    assert_eq!((again, at), (intent, revision));
}
