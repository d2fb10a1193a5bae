//! Settings under `/proc/sys`, of the calling thread's namespace, with a record of what they were.
//!
//! The former value is on disk before the first write, so that it can be put back whatever happens.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use crate::error::Error;

/// Settings that Linux has for each namespace since 6.12, and before that once for all, where only the first
/// namespace sees them.
const OF_ALL_NAMESPACES: [&str; 2] = ["net/ipv4/icmp_msgs_per_sec", "net/ipv4/icmp_msgs_burst"];

/// Whether it is no fault where a namespace does not have it: a link may come later.
pub fn may_be_missing(path: &str) -> bool {
    OF_ALL_NAMESPACES.contains(&path) || is_of_a_link(path)
}

fn is_of_a_link(path: &str) -> bool {
    let families = ["net/ipv4/conf/", "net/ipv6/conf/"];
    let mut of_links = families
        .iter()
        .filter_map(|family| path.strip_prefix(family));
    of_links.any(|rest| !rest.starts_with("all/") && !rest.starts_with("default/"))
}

/// Whether a link goes by router advertisements: Linux forgets what it learned from them when it begins to forward, unless this
/// says that it goes on.
pub fn is_about_routers(path: &str) -> bool {
    path.ends_with("/accept_ra")
}

/// Reads a setting, its white space reduced to single spaces.
pub fn read(path: &str) -> Result<String, Error> {
    let operation = || format!("read sysctl {path}");
    let text = fs::read_to_string(absolute(path)?).map_err(|e| Error::system(operation(), e))?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Writes a setting.
pub fn write(path: &str, value: &str) -> Result<(), Error> {
    let operation = || format!("write sysctl {path} = {value}");
    fs::write(absolute(path)?, value).map_err(|e| Error::system(operation(), e))
}

fn absolute(path: &str) -> Result<PathBuf, Error> {
    let sound = |part: &str| !part.is_empty() && part != "." && part != "..";
    if path.split('/').all(sound) {
        Ok(Path::new("/proc/sys").join(path))
    } else {
        Err(Error::SysctlNotAllowed(path.to_owned()))
    }
}

/// The former values of what we changed, in a file with a line for each: path, tab, value.
#[derive(Debug)]
pub struct Record {
    file: PathBuf,
    former: BTreeMap<String, String>,
}

impl Record {
    /// Reads the file; a missing one is empty.
    pub fn open(file: impl Into<PathBuf>) -> Result<Self, Error> {
        let file = file.into();
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => {
                let operation = format!("read the record of sysctls {}", file.display());
                return Err(Error::system(operation, e));
            }
        };
        let line = |line: &str| {
            let (path, value) = line.split_once('\t')?;
            Some((path.to_owned(), value.to_owned()))
        };
        Ok(Record {
            former: text.lines().filter_map(line).collect(),
            file,
        })
    }

    /// The paths that we changed and have not put back.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.former.keys().map(String::as_str)
    }

    /// What a setting was before we first wrote it.
    pub fn former(&self, path: &str) -> Option<&str> {
        self.former.get(path).map(String::as_str)
    }

    /// Writes a setting, with its present value recorded unless an older one is.
    pub fn set(&mut self, path: &str, value: &str) -> Result<(), Error> {
        if !self.former.contains_key(path) {
            let present = read(path)?;
            self.former.insert(path.to_owned(), present);
            self.save()?;
        }
        write(path, value)
    }

    /// Puts the former value back, and forgets it. What is not recorded is left alone, and so is what no
    /// longer exists.
    pub fn restore(&mut self, path: &str) -> Result<(), Error> {
        let Some(value) = self.former.get(path) else {
            return Ok(());
        };
        match write(path, value) {
            Err(e) if e.errno() != Some(libc::ENOENT) => return Err(e),
            _ => {}
        }
        self.former.remove(path);
        self.save()
    }

    fn save(&self) -> Result<(), Error> {
        let mut text = String::new();
        for (path, value) in &self.former {
            text.push_str(path);
            text.push('\t');
            text.push_str(value);
            text.push('\n');
        }
        let new = self.file.with_extension("new");
        let written = fs::File::create(&new)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())
                    .and_then(|()| file.sync_all())
            })
            .and_then(|()| fs::rename(&new, &self.file));
        written.map_err(|e| {
            let operation = format!("write the record of sysctls {}", self.file.display());
            Error::system(operation, e)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_proc_sys() {
        for bad in ["", "/etc/passwd", "net/../../etc", "net//ipv4", "."] {
            assert!(read(bad).is_err(), "{bad}");
            assert!(write(bad, "1").is_err(), "{bad}");
        }
    }
}
