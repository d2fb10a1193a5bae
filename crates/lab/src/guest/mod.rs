//! Real virtual machines on a node: Debian's cloud kernel and BusyBox under QEMU, without KVM.
//!
//! A guest is up in some seconds. It configures itself as clouds' guests do (SLAAC by its kernel, DHCPv4
//! by udhcpc) or with fixed addresses, says on its console what it got, answers on TCP port 7 with its
//! name, and runs commands that are written to its console. QEMU makes the TAP in the node's namespace,
//! as Nova's would.

mod archive;
mod image;
mod migrate;
mod program;
mod tap;

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::IpAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hextet_types::{Family, IfName, Mac};

use crate::{Error, InterfaceAddress, Lab, Process, wait_until};

pub use image::Kernel;
pub use migrate::Migration;

/// The TCP port on which a guest answers with its name.
pub const PORT: u16 = 7;

/// How long after its start QEMU may take to open its sockets.
const STARTED: Duration = Duration::from_secs(20);

/// A guest to be.
#[derive(Clone, Debug)]
pub struct GuestSpec {
    /// Its host name, and the name of its process on the node.
    pub name: String,
    /// The TAP that QEMU makes, or takes if it is there.
    pub tap: IfName,
    /// The guest's own address.
    pub mac: Mac,
    /// How `eth0` is configured.
    pub network: GuestNetwork,
    /// Kernel modules beyond those for its network card, by name, such as `wireguard`.
    pub modules: Vec<String>,
    /// Programs of ours, to be found in its `/bin` with what they are linked to.
    pub programs: Vec<PathBuf>,
    /// MiB.
    pub memory: u32,
}

/// How a guest configures its network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestNetwork {
    /// SLAAC and DHCPv4; ready once it has an address of each of these families.
    Automatic(Vec<Family>),
    /// Fixed addresses, and default routes by way of these gateways.
    Fixed {
        /// Put on `eth0`.
        addresses: Vec<InterfaceAddress>,
        /// At most one for each family.
        gateways: Vec<IpAddr>,
    },
}

/// A guest that was started. The lab ends it with its other processes.
#[derive(Debug)]
pub struct Guest {
    name: String,
    process: Arc<Process>,
    console: PathBuf,
    socket: PathBuf,
    /// QEMU's monitor.
    monitor: PathBuf,
    /// Where it waits for a machine, if it does.
    incoming: Option<PathBuf>,
    /// How many were run.
    commands: Mutex<u32>,
}

impl GuestSpec {
    /// A guest that configures itself with addresses of both families.
    pub fn new(name: &str, tap: IfName, mac: Mac) -> GuestSpec {
        let network = GuestNetwork::Automatic(Family::BOTH.into());
        GuestSpec {
            name: name.to_owned(),
            tap,
            mac,
            network,
            modules: Vec::new(),
            programs: Vec::new(),
            memory: 160,
        }
    }

    /// What `/config` in the guest says.
    fn config(&self) -> String {
        let mut text = format!("NAME={}\n", self.name);
        let number = |family: &Family| if *family == Family::V4 { "4" } else { "6" };
        let mut say = |name: &str, values: Vec<String>| {
            let _ = writeln!(text, "{name}='{}'", values.join(" "));
        };
        match &self.network {
            GuestNetwork::Automatic(families) => {
                say(
                    "FAMILIES",
                    families
                        .iter()
                        .map(|family| number(family).to_owned())
                        .collect(),
                );
                let v4 = families.contains(&Family::V4);
                say("DHCPV4", v4.then(|| "yes".to_owned()).into_iter().collect());
            }
            GuestNetwork::Fixed {
                addresses,
                gateways,
            } => {
                let has = |family: &Family| addresses.iter().any(|a| a.family() == *family);
                let families = Family::BOTH.iter().filter(|family| has(family));
                say(
                    "FAMILIES",
                    families.map(|family| number(family).to_owned()).collect(),
                );
                say(
                    "ADDRESSES",
                    addresses.iter().map(ToString::to_string).collect(),
                );
                say(
                    "GATEWAYS",
                    gateways.iter().map(ToString::to_string).collect(),
                );
            }
        }
        text
    }
}

impl Lab {
    /// Starts a guest on a node; see [`Guest::wait_ready`].
    ///
    /// # Errors
    ///
    /// There is no such node, a Debian package is missing, or QEMU does not start.
    pub fn boot(&self, node: &str, kernel: &Kernel, spec: &GuestSpec) -> Result<Guest, Error> {
        self.launch(node, kernel, spec, false)
    }

    /// Makes the place for a machine that comes from another node ([`Guest::migrate`]), where it was started with the
    /// same kernel and specification.
    ///
    /// # Errors
    ///
    /// As of [`Lab::boot`].
    pub fn receive(&self, node: &str, kernel: &Kernel, spec: &GuestSpec) -> Result<Guest, Error> {
        self.launch(node, kernel, spec, true)
    }

    fn launch(
        &self,
        node: &str,
        kernel: &Kernel,
        spec: &GuestSpec,
        waits: bool,
    ) -> Result<Guest, Error> {
        let place = self.node(node)?;
        let file = |suffix: &str| {
            self.node_directory(node)
                .join(format!("{}.{suffix}", spec.name))
        };
        let (initrd, console, socket) = (file("initrd"), file("console"), file("socket"));
        let monitor = file("monitor");
        let incoming = waits.then(|| file("incoming"));
        kernel.write_initrd(&initrd, spec)?;
        let mut command = qemu(kernel, spec, &initrd, &console, &socket);
        let monitor_at = format!("unix:{},server=on,wait=off", monitor.display());
        command.arg("-qmp").arg(monitor_at);
        if let Some(path) = &incoming {
            command
                .arg("-incoming")
                .arg(format!("unix:{}", path.display()));
        }
        let process = self
            .spawn(&place, &spec.name, &mut command)
            .map_err(no_qemu)?;
        // Where a machine is waited for is listened at last, and only once may anybody connect.
        let waited = || incoming.as_ref().is_none_or(|path| path.exists());
        let listens = || UnixStream::connect(&socket).is_ok() && waited();
        let mut ready = false;
        wait_until(STARTED, || {
            ready = listens();
            ready || !process.runs()
        });
        if !ready {
            let log = process.log();
            return Err(Error::Guest(format!(
                "{}: QEMU did not start:\n{log}",
                spec.name
            )));
        }
        Ok(Guest {
            name: spec.name.clone(),
            process,
            console,
            socket,
            monitor,
            incoming,
            commands: Mutex::new(0),
        })
    }
}

fn qemu(
    kernel: &Kernel,
    spec: &GuestSpec,
    initrd: &Path,
    console: &Path,
    socket: &Path,
) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args([
        "-M",
        "pc",
        "-accel",
        "tcg",
        "-cpu",
        "max",
        "-nodefaults",
        "-no-reboot",
    ]);
    command.args(["-display", "none", "-m", &spec.memory.to_string()]);
    command
        .arg("-kernel")
        .arg(kernel.vmlinuz())
        .arg("-initrd")
        .arg(initrd);
    command.args(["-append", "console=ttyS0 quiet panic=-1"]);
    command.arg("-netdev").arg(format!(
        "tap,id=n0,ifname={},script=no,downscript=no",
        spec.tap
    ));
    command.arg("-device").arg(format!(
        "virtio-net-pci,netdev=n0,mac={},romfile=",
        spec.mac
    ));
    let (socket, console) = (socket.display(), console.display());
    command.arg("-chardev").arg(format!(
        "socket,id=c,path={socket},server=on,wait=off,logfile={console}"
    ));
    command.args(["-serial", "chardev:c"]);
    command
}

fn no_qemu(error: Error) -> Error {
    match error {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::NoProgram {
                program: "qemu-system-x86_64".to_owned(),
                package: "qemu-system-x86",
            }
        }
        other => other,
    }
}

impl Guest {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// QEMU.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// All that it said on its console.
    pub fn console(&self) -> String {
        let text = std::fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&text).replace('\r', "")
    }

    /// Waits until it has all addresses that it is to get.
    ///
    /// # Errors
    ///
    /// It does not come to that within `limit`; with the end of its console.
    pub fn wait_ready(&self, limit: Duration) -> Result<(), Error> {
        self.wait_for_line("hextet-guest: ready", limit, || self.console())
            .map(drop)
    }

    /// The global address of a family that it said it has.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        let mark = if family == Family::V4 {
            "hextet-guest: v4 "
        } else {
            "hextet-guest: v6 "
        };
        self.console()
            .lines()
            .find_map(|line| line.strip_prefix(mark)?.trim().parse().ok())
    }

    /// Runs a command in the guest's shell; gives its exit status and what it printed. One at a time.
    ///
    /// # Errors
    ///
    /// The guest does not answer within `limit`.
    pub fn run(&self, command: &str, limit: Duration) -> Result<(i32, String), Error> {
        let failed = |what: std::io::Error| {
            let state = self.state();
            Error::Guest(format!("{}: run '{command}': {what}; {state}", self.name))
        };
        let mut number = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        *number += 1;
        // The log is no place to read an answer: QEMU logs an octet again when the connection had no room
        // for it at first.
        let mut console = UnixStream::connect(&self.socket).map_err(failed)?;
        console
            .write_all(format!("{number} {command}\n").as_bytes())
            .map_err(failed)?;
        console.set_nonblocking(true).map_err(failed)?;
        let done = format!("hextet-guest: done {number} ");
        let mut heard = Vec::new();
        let text = self.wait_for_line(&done, limit, || {
            let mut chunk = [0; 4096];
            while let Ok(len @ 1..) = console.read(&mut chunk) {
                heard.extend_from_slice(&chunk[..len]);
            }
            String::from_utf8_lossy(&heard).replace('\r', "")
        })?;
        let begin = format!("hextet-guest: run {number}\n");
        let (_, rest) = text.split_once(&begin).unwrap_or_default();
        let (said, status) = rest.split_once(&done).unwrap_or_default();
        let status = status
            .lines()
            .next()
            .and_then(|status| status.trim().parse().ok());
        Ok((status.unwrap_or(-1), said.trim_end().to_owned()))
    }

    fn wait_for_line(
        &self,
        mark: &str,
        limit: Duration,
        mut said: impl FnMut() -> String,
    ) -> Result<String, Error> {
        let mut text = String::new();
        let found = wait_until(limit, || {
            text = said();
            // The line has to be whole.
            let whole = text
                .split_once(mark)
                .is_some_and(|(_, rest)| rest.contains('\n'));
            whole || !self.process.runs()
        });
        if found && text.contains(mark) {
            return Ok(text);
        }
        let limit = limit.as_secs();
        Err(Error::Guest(format!(
            "{} did not say '{mark}' within {limit} s; {}",
            self.name,
            self.state()
        )))
    }

    /// Whether it runs, and what it and its QEMU have said last.
    fn state(&self) -> String {
        let state = match self.process.ended() {
            Some(status) => format!("its QEMU has ended ({status})"),
            None if self.process.runs() => "its QEMU runs".to_owned(),
            None => "its QEMU has ended".to_owned(),
        };
        let last = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(20)..].join("\n")
        };
        let (console, log) = (last(self.console()), last(self.process.log()));
        format!("{state}; its console ends:\n{console}\nQEMU has said:\n{log}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_is_told() {
        let tap: IfName = "tap0".parse().unwrap();
        let mut spec = GuestSpec::new("web", tap, "02:00:00:00:00:01".parse().unwrap());
        assert_eq!(spec.config(), "NAME=web\nFAMILIES='4 6'\nDHCPV4='yes'\n");
        spec.network = GuestNetwork::Automatic(vec![Family::V6]);
        assert_eq!(spec.config(), "NAME=web\nFAMILIES='6'\nDHCPV4=''\n");
        spec.network = GuestNetwork::Fixed {
            addresses: vec!["2001:db8::2/64".parse().unwrap()],
            gateways: vec!["fe80::1".parse().unwrap()],
        };
        assert_eq!(
            spec.config(),
            "NAME=web\nFAMILIES='6'\nADDRESSES='2001:db8::2/64'\nGATEWAYS='fe80::1'\n"
        );
    }
}
