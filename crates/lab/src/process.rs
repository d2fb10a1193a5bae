//! A program that runs on a node: started with a log, watched, ended.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Mutex,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    Error, Node, Ready,
    record::{Identity, Record},
    wait_until,
};

/// How much of a log an error shows.
const LOG_TAIL: u64 = 4096;
/// How long the kernel may take to end a process.
const KILLED: Duration = Duration::from_secs(10);

/// A program on a node, running or not.
#[derive(Debug)]
pub struct Process {
    /// NODE/NAME.
    name: String,
    identity: Identity,
    log: PathBuf,
    /// Ours to reap, unless another process started it.
    child: Mutex<Option<Child>>,
}

/// What is needed to start a program.
pub(crate) struct Start<'a> {
    pub node: &'a Node,
    pub name: &'a str,
    pub record: &'a Record,
}

impl Process {
    /// Starts a command in the node's directory, its output at the end of its log.
    pub(crate) fn start(start: &Start, command: &mut Command) -> Result<Process, Error> {
        let Start { node, name, record } = start;
        let directory = record.path().join(node.name());
        fs::create_dir_all(&directory)
            .map_err(Error::io(format!("make {}", directory.display())))?;
        let log = directory.join(format!("{name}.log"));
        let out = open_log(&log)?;
        let err = out
            .try_clone()
            .map_err(Error::io(format!("open {}", log.display())))?;
        command
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let mut child = node.spawn(command)?;
        let name = format!("{}/{name}", node.name());
        // Gone already: then nobody needs to find it either.
        let identity = Identity::of(child.id().cast_signed());
        let identity = identity.unwrap_or(Identity {
            pid: child.id().cast_signed(),
            start_ticks: 0,
        });
        if let Err(error) = record.note(identity, &name) {
            let _ = child.kill().and_then(|()| child.wait());
            return Err(error);
        }
        Ok(Process {
            name,
            identity,
            log,
            child: Mutex::new(Some(child)),
        })
    }

    /// A process that was noted by somebody else.
    pub(crate) fn noted(record: &Record, identity: Identity, name: &str) -> Process {
        let log = record.path().join(format!("{name}.log"));
        Process {
            name: name.to_owned(),
            identity,
            log,
            child: Mutex::new(None),
        }
    }

    /// NODE/NAME.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, which is its own only while it runs.
    pub fn pid(&self) -> u32 {
        self.identity.pid.unsigned_abs()
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        let mut child = self
            .child
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match child.as_mut().map(Child::try_wait) {
            Some(Ok(status)) => status.is_none(),
            _ => self.identity.runs(),
        }
    }

    /// How it ended; nothing while it runs, or when it was not ours to wait for.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.reap()
    }

    fn reap(&self) -> Option<ExitStatus> {
        let mut child = self
            .child
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        child.as_mut()?.try_wait().ok().flatten()
    }

    /// Waits for its end; false when it still runs after `limit`.
    pub fn wait(&self, limit: Duration) -> bool {
        wait_until(limit, || !self.runs())
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub fn kill(&self) -> bool {
        self.identity.signal(Signal::SIGKILL);
        self.wait(KILLED)
    }

    /// Asks it to end, and waits; false when it still runs after `limit`.
    pub fn terminate(&self, limit: Duration) -> bool {
        self.identity.signal(Signal::SIGTERM);
        self.wait(limit)
    }

    /// Stops it where it stands (`SIGSTOP`), or lets it go on.
    pub fn pause(&self, paused: bool) {
        self.identity.signal(if paused {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        });
    }

    pub(crate) fn interrupt(&self) {
        self.identity.signal(Signal::SIGINT);
    }

    /// Where it writes what it says.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All that it, and those before it of the same name, said.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).into_owned())
        };
        read().unwrap_or_default()
    }

    /// Waits until it is ready.
    pub(crate) fn wait_ready(
        &self,
        node: &Node,
        ready: &Ready,
        limit: Duration,
    ) -> Result<(), Error> {
        let mut done = false;
        wait_until(limit, || {
            done = is_ready(self, node, ready);
            done || !self.runs()
        });
        if done {
            Ok(())
        } else if self.runs() {
            let ready = format!("{ready:?}");
            Err(Error::NotReady {
                process: self.name.clone(),
                ready,
                limit,
                log: self.log_tail(),
            })
        } else {
            Err(self.ended_early())
        }
    }

    /// Waits for a program that has to end by itself, and well.
    pub(crate) fn wait_success(&self, limit: Duration) -> Result<(), Error> {
        if !self.wait(limit) {
            let (process, ready) = (self.name.clone(), "its end".to_owned());
            return Err(Error::NotReady {
                process,
                ready,
                limit,
                log: self.log_tail(),
            });
        }
        match self.ended() {
            Some(status) if status.success() => Ok(()),
            _ => Err(self.ended_early()),
        }
    }

    fn ended_early(&self) -> Error {
        let status = self
            .ended()
            .map_or("how is not known".to_owned(), |status| status.to_string());
        Error::Ended {
            process: self.name.clone(),
            status,
            log: self.log_tail(),
        }
    }
}

fn open_log(log: &Path) -> Result<File, Error> {
    let file = OpenOptions::new().create(true).append(true).open(log);
    file.map_err(Error::io(format!("open {}", log.display())))
}

fn is_ready(process: &Process, node: &Node, ready: &Ready) -> bool {
    match ready {
        Ready::Socket(path) => std::os::unix::net::UnixStream::connect(path).is_ok(),
        Ready::Tcp(addr) => node
            .enter(|| std::net::TcpStream::connect(addr).is_ok())
            .unwrap_or(false),
        Ready::File(path) => Path::new(path).exists(),
        Ready::Log(text) => process.log().contains(text),
        Ready::Command(words) => {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            node.output(&words)
                .is_ok_and(|output| output.status.success())
        }
    }
}
