//! One feeder, and who is fed: their namespaces, their processes, and what being fed has cost.

use std::{
    env, fmt, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use hextet_bench::cpu;
use hextet_lab::{Lab, LabFile, LabGuard, Node};
use tempfile::TempDir;

use crate::{
    feed::{IPV4, IPV6},
    roles::{COMPLETE, FED, FEEDER, LISTENING},
};

/// The feeder's address, and the next hop of its IPv4 routes.
pub const FEEDER_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The next hop of its IPv6 routes.
pub const FEEDER_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 2);

const FED_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PORT: u16 = 179;
const STARTING: Duration = Duration::from_secs(10);
const FEEDING: Duration = Duration::from_secs(120);
/// How often BIRD is asked how many routes it has; it answers from counters.
const ASKING: Duration = Duration::from_millis(20);
/// A process that uses less than [`BUSY`] CPU seconds in this time is at rest.
const IDLE: Duration = Duration::from_millis(500);
const BUSY: f64 = 0.002;

/// Who is fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// hextet's speaker.
    Hextet,
    /// BIRD 2.
    Bird,
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rival::Hextet => "hextet",
            Rival::Bird => "BIRD",
        })
    }
}

/// What being fed has cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// CPU seconds, user and system, from before the session until it was at rest.
    pub cpu: f64,
    /// Seconds from the feeder's start until all routes were there.
    pub wall: f64,
    /// The most that was resident of the process, in MiB.
    pub peak: f64,
    /// What is resident once it has nothing left to do, in MiB.
    pub rest: f64,
}

/// The namespaces; they go when this is dropped.
pub struct Contest {
    lab: LabGuard,
    program: PathBuf,
}

impl Contest {
    /// Makes the namespaces and the link between them.
    pub fn new() -> Result<Contest> {
        let name = format!("bench-bgp-{}", std::process::id());
        let text = format!(
            "name = '{name}'\n[node.fed]\n[node.feeder]\n[[link]]\n\
             a = {{ node = 'fed', dev = 'feeder', addresses = ['{FED_IPV4}/24', '2001:db8:ffff::1/64'] }}\n\
             b = {{ node = 'feeder', dev = 'fed', addresses = ['{FEEDER_IPV4}/24', '{FEEDER_IPV6}/64'] }}\n"
        );
        let lab = Lab::up(LabFile::parse(&text, "bench".as_ref())?)?.guard();
        let program = env::current_exe().context("find this program")?;
        Ok(Contest { lab, program })
    }

    /// Starts one of them, feeds it, measures, and ends it again.
    ///
    /// # Errors
    ///
    /// A program can't be started, ends, or does not take all routes within two minutes.
    pub fn feed(&self, rival: Rival) -> Result<Cost> {
        let node = self.lab.node("fed")?;
        let mut fed = match rival {
            Rival::Hextet => Fed::hextet(&node, &self.program)?,
            Rival::Bird => Fed::bird(&node)?,
        };
        let pid = fed.process.0.id();
        let before = cpu::of_threads(pid)?;
        let begun = Instant::now();
        let mut command = Command::new(&self.program);
        command.args(["feed", &format!("{FED_IPV4}:{PORT}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut feeder = Running(self.lab.node("feeder")?.spawn(&mut command)?);
        fed.wait_complete(&mut feeder)?;
        let wall = begun.elapsed().as_secs_f64();
        wait_idle(pid)?;
        Ok(Cost {
            cpu: cpu::of_threads(pid)? - before,
            wall,
            peak: cpu::peak_resident(pid)?,
            rest: cpu::resident(pid)?,
        })
    }
}

/// Until a process does nothing for a while: what it puts off is a part of what being fed costs.
fn wait_idle(pid: u32) -> Result<()> {
    let begun = Instant::now();
    let mut used = cpu::of_threads(pid)?;
    loop {
        sleep(IDLE);
        let now = cpu::of_threads(pid)?;
        if now - used < BUSY {
            return Ok(());
        }
        used = now;
        ensure!(
            begun.elapsed() < FEEDING,
            "process {pid} does not come to rest"
        );
    }
}

/// A process that ends when this is dropped.
struct Running(Child);

impl Running {
    fn ensure_runs(&mut self, what: &str) -> Result<()> {
        if let Some(status) = self.0.try_wait().context("look at a process")? {
            bail!("{what} has ended, {status}");
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Fed {
    process: Running,
    progress: Progress,
}

/// How to learn that all routes are there.
enum Progress {
    Lines(mpsc::Receiver<String>),
    Bird(BirdSocket),
}

impl Fed {
    fn hextet(node: &Node, program: &Path) -> Result<Fed> {
        let mut command = Command::new(program);
        command.args(["serve", &format!("{FED_IPV4}:{PORT}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Running(node.spawn(&mut command)?);
        let stdout = process.0.stdout.take();
        let lines = lines_of(stdout.context("read what the speaker says")?);
        expect_line(&lines, LISTENING, &mut [&mut process])?;
        Ok(Fed {
            process,
            progress: Progress::Lines(lines),
        })
    }

    fn bird(node: &Node) -> Result<Fed> {
        let folder = TempDir::with_prefix("hextet-bench-bgp-").context("make a folder")?;
        let file = |name: &str| folder.path().join(name);
        let config = file("bird.conf");
        fs::write(&config, bird_config()).with_context(|| format!("write {}", config.display()))?;
        let log = fs::File::create(file("log")).context("make BIRD's log")?;
        let mut command = Command::new("bird");
        command.arg("-f").arg("-c").arg(&config);
        command.arg("-s").arg(file("bird.ctl"));
        command.arg("-P").arg(file("bird.pid"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = Running(node.spawn(command.stderr(log))?);
        let socket = BirdSocket { folder };
        let begun = Instant::now();
        while !socket
            .ask("show protocols feeder")
            .is_ok_and(|text| text.contains("Passive"))
        {
            let log = || socket.log();
            process.ensure_runs("BIRD").with_context(log)?;
            ensure!(
                begun.elapsed() < STARTING,
                "BIRD does not answer: {}",
                log()
            );
            sleep(ASKING);
        }
        Ok(Fed {
            process,
            progress: Progress::Bird(socket),
        })
    }

    fn wait_complete(&mut self, feeder: &mut Running) -> Result<()> {
        let socket = match &mut self.progress {
            Progress::Lines(lines) => {
                return expect_line(lines, COMPLETE, &mut [&mut self.process, feeder]);
            }
            Progress::Bird(socket) => socket,
        };
        let begun = Instant::now();
        loop {
            let text = socket.ask("show protocols all feeder")?;
            let has = |count: u32| text.contains(&format!(" {count} imported"));
            if has(IPV4) && has(IPV6) {
                return Ok(());
            }
            feeder
                .ensure_runs("the feeder")
                .with_context(|| socket.log())?;
            self.process
                .ensure_runs("BIRD")
                .with_context(|| socket.log())?;
            ensure!(
                begun.elapsed() < FEEDING,
                "BIRD lacks routes: {text}{}",
                socket.log()
            );
            sleep(ASKING);
        }
    }
}

/// What a process says, line by line, until it ends.
fn lines_of(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (tell, lines) = mpsc::channel();
    thread::spawn(move || {
        let said = BufReader::new(stdout).lines().map_while(Result::ok);
        said.map(|line| tell.send(line)).all(|told| told.is_ok())
    });
    lines
}

/// Waits for a line as long as those run who are to bring it about.
fn expect_line(
    lines: &mpsc::Receiver<String>,
    expected: &str,
    needed: &mut [&mut Running],
) -> Result<()> {
    let begun = Instant::now();
    loop {
        match lines.recv_timeout(ASKING) {
            Ok(line) if line == expected => return Ok(()),
            Ok(line) => bail!("the speaker says {line}"),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                bail!("the speaker ended before it was {expected}")
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        for process in &mut *needed {
            process.ensure_runs("the speaker or its feeder")?;
        }
        ensure!(
            begun.elapsed() < FEEDING,
            "the speaker is not {expected} in time"
        );
    }
}

/// BIRD with its routes in its tables alone.
fn bird_config() -> String {
    format!(
        "log stderr all;\nrouter id 10.0.0.1;\nprotocol device {{}}\n\
         protocol bgp feeder {{\n  local {FED_IPV4} as {};\n  neighbor {FEEDER_IPV4} as {};\n\
         \x20 passive;\n  hold time 240;\n\
         \x20 ipv4 {{ import all; export none; }};\n  ipv6 {{ import all; export none; }};\n}}\n",
        FED.0, FEEDER.0
    )
}

/// BIRD's control socket, in the folder with all its files.
struct BirdSocket {
    folder: TempDir,
}

impl BirdSocket {
    /// Asks as `birdc` does: a greeting, then the answer up to its code without more behind.
    fn ask(&self, question: &str) -> Result<String> {
        let mut stream = UnixStream::connect(self.folder.path().join("bird.ctl"))
            .context("connect to BIRD's control socket")?;
        stream.set_read_timeout(Some(FEEDING))?;
        writeln!(stream, "{question}").context("ask BIRD")?;
        let mut answer = String::new();
        let mut lines = BufReader::new(&mut stream).take(1 << 20);
        let mut greeted = false;
        loop {
            let begin = answer.len();
            let read = lines.read_line(&mut answer).context("read BIRD's answer")?;
            ensure!(read > 0, "BIRD's answer ends early");
            let line = answer.get(begin..).unwrap_or_default();
            let coded = line.len() > 4 && line.bytes().take(4).all(|b| b.is_ascii_digit());
            if coded && line.as_bytes().get(4) == Some(&b' ') {
                if greeted {
                    return Ok(answer);
                }
                greeted = true;
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}
