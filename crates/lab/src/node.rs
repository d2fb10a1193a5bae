//! A node of a lab: a network namespace in which commands run.
//!
//! Entering is done on a thread of its own, so that the caller's thread stays where it is; what the
//! thread starts inherits its namespaces. A `Node` is a name only and may outlive what it names.

use std::{
    fs::{self, File},
    net::IpAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

use crate::{
    Error,
    record::{MARK, Record},
};

/// A network namespace that belongs to a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    lab: String,
    name: String,
    netns: String,
    view: View,
}

/// What of the file system a program sees otherwise than we do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Stands in for `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// Whether `/sys` shows the node's interfaces.
    pub sys: bool,
    /// Everything as this process sees it, by its id; the rest on top of that.
    pub mounts_of: Option<u32>,
}

impl Node {
    pub(crate) fn new(lab: &str, name: &str, view: View) -> Node {
        Node {
            lab: lab.to_owned(),
            name: name.to_owned(),
            netns: netns(lab, name),
            view,
        }
    }

    pub(crate) fn with_private_sys(mut self, sys: bool) -> Node {
        self.view.sys = sys;
        self
    }

    /// Its name in the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its network namespace, below `/run/netns`.
    pub fn netns(&self) -> &str {
        &self.netns
    }

    /// Runs a function on a thread inside the node; sockets that it makes stay there.
    ///
    /// # Errors
    ///
    /// The namespace can't be entered.
    pub fn enter<T: Send>(&self, function: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let inside = || -> Result<T, Error> {
            self.step_in()?;
            Ok(function())
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn step_in(&self) -> Result<(), Error> {
        let path = Path::new("/run/netns").join(&self.netns);
        let operation = || format!("enter node {} ({})", self.name, path.display());
        let file = File::open(&path).map_err(Error::io(operation()))?;
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(Error::errno(operation()))
    }

    /// Gives this thread, and what it starts, its own view of the file system where one is wanted.
    fn change_view(&self) -> Result<(), Error> {
        if self.view == View::default() {
            return Ok(());
        }
        let failed = |what: &str| Error::errno(format!("{what} for node {}", self.name));
        if let Some(process) = self.view.mounts_of {
            let path = format!("/proc/{process}/ns/mnt");
            let file = File::open(&path).map_err(Error::io(format!("open {path}")))?;
            // A thread that shares its working directory with others can't change its mounts.
            unshare(CloneFlags::CLONE_FS).map_err(failed("have a working directory of its own"))?;
            setns(file.as_fd(), CloneFlags::CLONE_NEWNS)
                .map_err(failed("enter the mount namespace"))?;
        }
        if !self.view.sys && self.view.resolv_conf.is_none() {
            return Ok(());
        }
        unshare(CloneFlags::CLONE_NEWNS).map_err(failed("make a mount namespace"))?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
            .map_err(failed("keep mounts to itself"))?;
        if self.view.sys {
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)
                .map_err(failed("mount /sys"))?;
        }
        if let Some(resolv_conf) = &self.view.resolv_conf {
            mount(
                Some(resolv_conf),
                "/etc/resolv.conf",
                none,
                MsFlags::MS_BIND,
                none,
            )
            .map_err(failed("mount /etc/resolv.conf"))?;
        }
        Ok(())
    }

    /// Starts a command inside the node. Its streams are the command's own business. What it leaves behind ends
    /// with the lab.
    ///
    /// # Errors
    ///
    /// The namespace can't be entered, or the program can't be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child, Error> {
        let line = command_line(command);
        if let Some(mark) = Record::of(&self.lab).mark() {
            command.env(MARK, mark);
        }
        self.enter(|| {
            self.change_view()?;
            command
                .spawn()
                .map_err(Error::io(format!("start '{line}' on {}", self.name)))
        })?
    }

    /// Runs a command inside the node to its end, with our own streams.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn status(&self, command: &mut Command) -> Result<ExitStatus, Error> {
        let line = command_line(command);
        let mut child = self.spawn(command)?;
        child
            .wait()
            .map_err(Error::io(format!("wait for '{line}' on {}", self.name)))
    }

    /// Runs a command inside the node to its end, and gives what it printed.
    ///
    /// # Errors
    ///
    /// It can't be started.
    pub fn output(&self, words: &[&str]) -> Result<Output, Error> {
        let mut command = command(words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.spawn(&mut command)?;
        let failed = Error::io(format!("wait for '{}' on {}", words.join(" "), self.name));
        child.wait_with_output().map_err(failed)
    }

    /// Runs a command that has to succeed, and gives its standard output.
    ///
    /// # Errors
    ///
    /// It can't be started, or fails: with all that it printed.
    pub fn run(&self, words: &[&str]) -> Result<String, Error> {
        succeed(words, Some(&self.name), self.output(words)?)
    }

    /// Writes a setting below `/proc/sys`, such as `net.ipv4.ip_forward`. A name with slashes is taken as
    /// a path, for interfaces whose names have dots.
    ///
    /// # Errors
    ///
    /// There is no such setting, or it does not take the value.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<(), Error> {
        let path = sysctl_path(name);
        self.enter(|| fs::write(&path, value))?
            .map_err(Error::io(format!("set {name} to {value} on {}", self.name)))
    }

    /// Reads a setting below `/proc/sys`.
    ///
    /// # Errors
    ///
    /// There is no such setting.
    pub fn sysctl(&self, name: &str) -> Result<String, Error> {
        let path = sysctl_path(name);
        let text = self.enter(|| fs::read_to_string(&path))?;
        let text = text.map_err(Error::io(format!("read {name} on {}", self.name)))?;
        Ok(text.trim().to_owned())
    }

    /// Whether one echo request to `target` (an address, with `%dev` for link-local ones) is answered
    /// within a second.
    ///
    /// # Errors
    ///
    /// `ping` can't be run.
    pub fn ping(&self, target: &str) -> Result<bool, Error> {
        let output = self.output(&["ping", "-n", "-c", "1", "-W", "1", target])?;
        Ok(output.status.success())
    }

    /// Whether a TCP connection to this address opens within `limit`.
    ///
    /// # Errors
    ///
    /// The node can't be entered.
    pub fn connects(
        &self,
        addr: IpAddr,
        port: u16,
        limit: std::time::Duration,
    ) -> Result<bool, Error> {
        self.enter(|| std::net::TcpStream::connect_timeout(&(addr, port).into(), limit).is_ok())
    }

    /// Takes an interface down or up. Down, it loses its IPv6 addresses and its routes.
    ///
    /// # Errors
    ///
    /// There is no such interface.
    pub fn set_link(&self, dev: &str, up: bool) -> Result<(), Error> {
        self.run(&["ip", "link", "set", dev, if up { "up" } else { "down" }])
            .map(drop)
    }
}

/// The namespace's name for a node; neither part has what would make it ambiguous.
pub(crate) fn netns(lab: &str, node: &str) -> String {
    format!("hxlab-{lab}-{node}")
}

fn sysctl_path(name: &str) -> PathBuf {
    let relative = if name.contains('/') {
        name.to_owned()
    } else {
        name.replace('.', "/")
    };
    Path::new("/proc/sys").join(relative)
}

pub(crate) fn command(words: &[&str]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().unwrap_or(&""));
    command.args(words);
    command
}

pub(crate) fn succeed(words: &[&str], node: Option<&str>, output: Output) -> Result<String, Error> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Error::Command {
        command: words.join(" "),
        node: node.map(str::to_owned),
        status: output.status,
        output: String::from_utf8_lossy(&said).trim().to_owned(),
    })
}

fn command_line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_by_dots_or_slashes() {
        assert_eq!(
            sysctl_path("net.ipv4.ip_forward"),
            Path::new("/proc/sys/net/ipv4/ip_forward")
        );
        assert_eq!(
            sysctl_path("net/ipv6/conf/eth0.7/mtu"),
            Path::new("/proc/sys/net/ipv6/conf/eth0.7/mtu")
        );
    }

    #[test]
    fn a_node_that_is_not_there_can_not_be_entered() {
        let error = Node::new("none", "such", View::default())
            .enter(|| ())
            .unwrap_err();
        assert!(error.to_string().contains("enter node such"), "{error}");
    }
}
