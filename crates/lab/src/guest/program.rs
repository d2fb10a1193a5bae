//! Programs of the host in a guest: each with the libraries that the dynamic linker names (ldd(1)), where it looks for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::archive::Archive;
use crate::{Error, node::succeed};

/// What the guest's shell has there already.
const THERE: &[&str] = &["bin"];

/// Puts programs into `/bin`, and what they need where they look for it.
pub fn add(archive: &mut Archive, programs: &[PathBuf]) -> Result<(), Error> {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for program in programs {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        files.insert(format!("bin/{name}"), program.clone());
        for library in libraries(program)? {
            let place = library.trim_start_matches('/').to_owned();
            files.insert(place, PathBuf::from(library));
        }
    }
    for directory in directories(files.keys()) {
        archive.directory(&directory);
    }
    for (place, from) in files {
        let octets = fs::read(&from).map_err(Error::io(format!("read {}", from.display())))?;
        archive.file(&place, &octets);
    }
    Ok(())
}

/// All directories above these files that are not there, each after those above it.
fn directories<'a>(files: impl Iterator<Item = &'a String>) -> BTreeSet<String> {
    let above = files.flat_map(|file| Path::new(file).ancestors().skip(1));
    let above = above.map(|path| path.to_string_lossy().into_owned());
    above
        .filter(|path| !path.is_empty() && !THERE.contains(&path.as_str()))
        .collect()
}

fn libraries(program: &Path) -> Result<Vec<String>, Error> {
    let words = ["ldd", &program.display().to_string()];
    let output = Command::new("ldd")
        .arg(program)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(Error::io(format!("run {}", words.join(" "))))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    succeed(&words, None, output).map(|listing| named(&listing))
}

/// The paths that a listing names: `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)` for the linker itself.
fn named(listing: &str) -> Vec<String> {
    let paths = listing.lines().filter_map(|line| {
        let path = line.split_once("=>").map_or(line, |(_, path)| path);
        path.split_whitespace().next()
    });
    paths
        .filter(|path| path.starts_with('/'))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_their_directories() {
        let listing = "\tlinux-vdso.so.1 (0x00007f)\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \tgone.so => not found\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = named(listing);
        assert_eq!(
            found,
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
        let places = ["bin/a", "lib/b/c.so", "lib64/d.so"].map(str::to_owned);
        let made = directories(places.iter());
        assert_eq!(
            made.into_iter().collect::<Vec<_>>(),
            ["lib", "lib/b", "lib64"]
        );
    }
}
