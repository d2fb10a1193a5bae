//! What a lab leaves on disk so that anybody can find and end it: its directory and its processes.
//!
//! A process is recorded as its id and the time it started. An id alone may by then be somebody else's;
//! the two together never are. Descendants that a program left behind are found by a variable in their
//! environment that carries the lab's name and the time it came up. Nothing else is ever ended.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Error, wait_until};

/// Where labs keep their files.
pub const ROOT: &str = "/run/hextet/labs";

/// The environment variable by which a lab's processes are known.
pub const MARK: &str = "HEXTET_LAB_RUN";

/// How long a program may take to end by itself.
const GRACE: Duration = Duration::from_secs(3);
/// How long the kernel may take to end one.
const KILLED: Duration = Duration::from_secs(10);

/// A process that can't be mistaken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Its id.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

impl Identity {
    /// The process that has this id now.
    pub fn of(pid: i32) -> Option<Identity> {
        let (state, start_ticks) = stat(pid)?;
        (state != 'Z').then_some(Identity { pid, start_ticks })
    }

    /// Whether it still runs; a zombie does not.
    pub fn runs(self) -> bool {
        Identity::of(self.pid) == Some(self)
    }

    /// Sends a signal, unless it is gone.
    pub fn signal(self, signal: Signal) {
        if self.runs() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

/// State and start time from `/proc/PID/stat`; the name in it may hold anything, even parentheses.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// The directory of a lab.
#[derive(Clone, Debug)]
pub struct Record {
    directory: PathBuf,
}

impl Record {
    /// The directory for a lab of this name, there or not.
    pub fn of(lab: &str) -> Record {
        Record {
            directory: Path::new(ROOT).join(lab),
        }
    }

    /// The names of all labs that have a directory.
    pub fn labs() -> Vec<String> {
        let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Makes the directory; `Ok(false)` when somebody else has made it.
    pub fn create(&self) -> Result<bool, Error> {
        fs::create_dir_all(ROOT).map_err(Error::io(format!("make {ROOT}")))?;
        match fs::create_dir(&self.directory) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Error::io(format!("make {}", self.directory.display()))(
                error,
            )),
        }
    }

    /// Whether the directory is there.
    pub fn exists(&self) -> bool {
        self.directory.is_dir()
    }

    /// Removes the directory.
    pub fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(format!(
                "remove {}",
                self.directory.display()
            ))(error)),
            _ => Ok(()),
        }
    }

    /// The lab's directory.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Reads a file of the lab.
    pub fn read(&self, name: &str) -> Result<String, Error> {
        let path = self.directory.join(name);
        fs::read_to_string(&path).map_err(Error::io(format!("read {}", path.display())))
    }

    /// Writes a file of the lab, with the directories above it.
    pub fn write(&self, name: &Path, text: &str) -> Result<(), Error> {
        let path = self.directory.join(name);
        let parent = path.parent().unwrap_or(&self.directory);
        fs::create_dir_all(parent).map_err(Error::io(format!("make {}", parent.display())))?;
        fs::write(&path, text).map_err(Error::io(format!("write {}", path.display())))
    }

    /// Notes a process, as `PID TICKS NODE/NAME`.
    pub fn note(&self, identity: Identity, name: &str) -> Result<(), Error> {
        let path = self.directory.join("processes");
        let line = format!("{} {} {name}\n", identity.pid, identity.start_ticks);
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(Error::io(format!("write {}", path.display())))
    }

    /// The processes noted, newest last; those that ended are among them.
    pub fn noted(&self) -> Vec<(Identity, String)> {
        let text = self.read("processes").unwrap_or_default();
        text.lines().filter_map(noted_line).collect()
    }

    /// What the lab's processes have in their environment.
    pub fn mark(&self) -> Option<String> {
        self.read("mark")
            .ok()
            .map(|mark| mark.trim().to_owned())
            .filter(|mark| !mark.is_empty())
    }

    /// Ends all of the lab's processes, gently first; gives how many there were.
    pub fn end_processes(&self) -> usize {
        let mark = self.mark();
        let find = || -> Vec<Identity> {
            let noted = self.noted().into_iter().map(|(identity, _)| identity);
            let mut found: Vec<Identity> = noted.filter(|identity| identity.runs()).collect();
            found.extend(mark.as_deref().map(marked).unwrap_or_default());
            found.sort();
            found.dedup();
            found
        };
        let first = find();
        for (signal, limit) in [(Signal::SIGTERM, GRACE), (Signal::SIGKILL, KILLED)] {
            // Twice over, for what they started meanwhile.
            for identity in find() {
                identity.signal(signal);
            }
            if wait_until(limit, || find().is_empty()) {
                break;
            }
        }
        first.len()
    }
}

fn noted_line(line: &str) -> Option<(Identity, String)> {
    let mut fields = line.splitn(3, ' ');
    let pid = fields.next()?.parse().ok()?;
    let start_ticks = fields.next()?.parse().ok()?;
    Some((Identity { pid, start_ticks }, fields.next()?.to_owned()))
}

/// The processes, other than this one, that carry a mark in their environment.
fn marked(mark: &str) -> Vec<Identity> {
    let wanted = format!("{MARK}={mark}");
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own)
        .filter_map(|pid| {
            // The identity first: should the id change hands in between, the environment is not its own.
            let identity = Identity::of(pid)?;
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let carries = environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == wanted.as_bytes());
            (carries && identity.runs()).then_some(identity)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn record(name: &str) -> Record {
        Record {
            directory: std::env::temp_dir().join(format!("{name}-{}", std::process::id())),
        }
    }

    #[test]
    fn only_the_very_process_is_ended() {
        let record = record("lab-identity");
        fs::create_dir_all(record.path()).unwrap();
        let mut ours = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut theirs = Command::new("sleep").arg("1000").spawn().unwrap();
        let identity =
            |child: &std::process::Child| Identity::of(child.id().cast_signed()).unwrap();
        let recycled = Identity {
            start_ticks: identity(&theirs).start_ticks - 1,
            ..identity(&theirs)
        };
        record.note(identity(&ours), "a/ours").unwrap();
        record.note(recycled, "a/recycled").unwrap();
        assert_eq!(record.noted().len(), 2);
        assert_eq!(record.end_processes(), 1);
        assert!(!ours.wait().unwrap().success());
        assert!(
            theirs.try_wait().unwrap().is_none(),
            "the process with a recycled id lives"
        );
        theirs.kill().unwrap();
        theirs.wait().unwrap();
        record.remove().unwrap();
        record.remove().unwrap();
    }

    #[test]
    fn what_programs_leave_behind_is_found_by_its_mark() {
        let record = record("lab-mark");
        fs::create_dir_all(record.path()).unwrap();
        let mark = format!("test/{}", std::process::id());
        record.write(Path::new("mark"), &mark).unwrap();
        // The shell ends at once; its child, in a session of its own that ignores SIGTERM, stays.
        let script = "trap '' TERM; setsid sh -c 'while :; do sleep 1; done' >/dev/null 2>&1 &";
        let status = Command::new("sh")
            .args(["-c", script])
            .env(MARK, &mark)
            .status()
            .unwrap();
        assert!(status.success());
        assert!(wait_until(Duration::from_secs(10), || !marked(&mark).is_empty()));
        assert!(record.end_processes() >= 1);
        assert!(marked(&mark).is_empty());
        record.remove().unwrap();
    }

    #[test]
    fn odd_lines_are_no_processes() {
        for line in ["", "x", "1", "1 2", "a b c", "-"] {
            assert_eq!(noted_line(line), None, "{line}");
        }
    }
}
