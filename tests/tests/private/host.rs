//! A host: a network namespace with its own `/run/netns`, held by a process that ends with the test.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};

/// Everything that is waited for comes within this time, or not at all; generous, since tests share a machine.
pub const LIMIT: Duration = Duration::from_secs(40);

/// Waits for a condition, and fails with what was waited for.
#[track_caller]
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command line where the test is.
pub fn run(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    succeeded(line, &output)
}

fn succeeded(line: &str, output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A host; all that is in it goes with it.
pub struct Host {
    holder: Child,
}

impl Host {
    pub fn new() -> Host {
        let inside =
            "mount -t tmpfs none /run/netns && ip link set lo up && echo ready && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c"])
            .arg(format!("mkdir -p /run/netns && {inside}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let stdout = holder.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        Host { holder }
    }

    /// Of the process that holds its namespaces.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A program that will run in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.pid().to_string();
        command.args(["--target", &pid, "--net", "--mount", "--", program]);
        command
    }

    /// Runs a command line.
    pub fn run(&self, line: &str) -> String {
        succeeded(line, &self.output(line))
    }

    /// Whether a command line succeeds.
    pub fn tries(&self, line: &str) -> bool {
        self.output(line).status.success()
    }

    fn output(&self, line: &str) -> Output {
        self.command("sh").args(["-c", line]).output().unwrap()
    }

    /// Does something on a thread in its network namespace, or in that of a guest.
    pub fn inside<T: Send>(&self, guest: Option<&str>, work: impl FnOnce() -> T + Send) -> T {
        let path = match guest {
            None => format!("/proc/{}/ns/net", self.pid()),
            Some(guest) => format!("/proc/{}/root/run/netns/{guest}", self.pid()),
        };
        let netns = File::open(path).unwrap();
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            worker.join().unwrap()
        })
    }

    /// The namespaces that an agent has made.
    pub fn networks(&self) -> Vec<String> {
        let names = self.run("ls /run/netns");
        let names = names.lines().filter(|name| name.starts_with("hx-"));
        names.map(str::to_owned).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
