//! A node in a virtual machine whose kernel has WireGuard, and one on its host, whose kernel has none; needs root.

#![allow(clippy::unwrap_used, reason = "in a test, that is how it fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use hextet_lab::{
    Lab, LabFile, LabGuard, Node,
    guest::{Guest, GuestNetwork, GuestSpec, Kernel},
    wait_until,
};
use serde_json::Value;

/// Emulated on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(180);
const PROGRAM: &str = env!("CARGO_BIN_EXE_hextet");
/// The strand that is a kernel's.
const STRAND: u64 = 3;

struct World {
    lab: LabGuard,
    host: Node,
    guest: Guest,
    directory: PathBuf,
}

impl World {
    fn new() -> World {
        let name = format!("meshk-{}", std::process::id());
        let file = LabFile::parse("name = \"meshk\"\n[node.host]\n", Path::new("meshk.toml"));
        let lab = Lab::up(file.unwrap().named(&name).unwrap())
            .unwrap()
            .guard();
        let directory = lab.node_directory("host");
        // What the debugger needs would not fit.
        let program = directory.join("hextet");
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&program).arg(PROGRAM);
        assert!(strip.status().unwrap().success());
        let guest = boot(&lab, program);
        let host = lab.node("host").unwrap();
        World {
            lab,
            host,
            guest,
            directory,
        }
    }

    fn run(&self, command: &str) -> String {
        let (status, said) = self.guest.run(command, LIMIT).unwrap();
        assert_eq!(status, 0, "{command}: {said}");
        said
    }

    /// On the host.
    fn hextet(&self, words: &[&str]) -> String {
        self.host
            .run(&[&[PROGRAM, "mesh"], words].concat())
            .unwrap()
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn begin_registry(&self) {
        let text = format!(
            "url = \"https://192.0.2.1:8443\"\nlisten = \"192.0.2.1:8443\"\nstore = \"{}\"\nsocket = \"{}\"\nipv4 = \"10.64.0.0/16\"\n",
            self.file("store"),
            self.file("registry.sock"),
        );
        fs::write(self.directory.join("registry.toml"), text).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["registry", "--config"]);
        command.arg(self.directory.join("registry.toml"));
        self.lab
            .spawn(&self.host, "registry", &mut command)
            .unwrap();
        let socket = self.directory.join("registry.sock");
        assert!(wait_until(LIMIT, || socket.exists()));
    }

    fn invitation(&self) -> String {
        let socket = self.file("registry.sock");
        let said = self.hextet(&["token", "--registry", &socket]);
        said.trim().to_owned()
    }

    fn begin_host(&self) {
        let kept = self.file("mesh");
        self.hextet(&["join", &self.invitation(), "--directory", &kept]);
        let text = format!(
            "directory = \"{kept}\"\nsocket = \"{}\"\ntunnels = \"{}\"\n",
            self.file("mesh.sock"),
            self.file("tunnels.sock")
        );
        fs::write(self.directory.join("mesh.toml"), text).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["mesh", "run", "--config"]);
        command.arg(self.directory.join("mesh.toml"));
        self.lab.spawn(&self.host, "mesh", &mut command).unwrap();
    }

    fn begin_guest(&self) {
        self.run(&format!(
            "mkdir -p /run /var/lib; hextet mesh join '{}' --directory /mesh",
            self.invitation()
        ));
        let lines = [
            "directory = \"/mesh\"",
            "socket = \"/run/mesh.sock\"",
            "tunnels = \"/run/tunnels.sock\"",
        ];
        for line in lines {
            self.run(&format!("echo '{line}' >>/mesh.toml"));
        }
        self.start_guest();
    }

    fn start_guest(&self) {
        self.run("hextet mesh run --config /mesh.toml >>/log 2>&1 </dev/null &");
    }

    /// What the host's node says.
    fn status(&self) -> Value {
        let socket = self.file("mesh.sock");
        let said = self
            .host
            .run(&[PROGRAM, "mesh", "status", "--json", "--socket", &socket]);
        said.map_or(Value::Null, |said| serde_json::from_str(&said).unwrap())
    }

    /// The interfaces of strands that carry, as the host's node says, by number.
    fn strand(&self, number: u64) -> Option<String> {
        let status = self.status();
        let mut tunnels = status["tunnels"].as_array()?.iter();
        let tunnel = tunnels.find(|tunnel| tunnel["strand"] == number && tunnel["up"] == true);
        Some(tunnel?["interface"].as_str()?.to_owned())
    }

    fn log(&self) -> String {
        let (_, said) = self.guest.run("tail -n 60 /log", LIMIT).unwrap();
        said
    }

    /// By which interface the host goes to the guest.
    fn leaves_by(&self, home: &str) -> String {
        self.host.run(&["ip", "route", "get", home]).unwrap()
    }
}

fn boot(lab: &Lab, program: PathBuf) -> Guest {
    let mut spec = GuestSpec::new(
        "vm",
        "tap0".parse().unwrap(),
        "02:00:00:00:00:02".parse().unwrap(),
    );
    spec.network = GuestNetwork::Fixed {
        addresses: vec!["192.0.2.2/24".parse().unwrap()],
        gateways: Vec::new(),
    };
    spec.modules = ["wireguard", "tun", "nf_tables"].map(str::to_owned).into();
    spec.programs = vec![program];
    spec.memory = 1_024;
    let guest = lab
        .boot("host", &Kernel::find_or_fetch().unwrap(), &spec)
        .unwrap();
    let host = lab.node("host").unwrap();
    let up = || host.run(&["ip", "link", "set", "tap0", "up"]).is_ok();
    assert!(wait_until(LIMIT, up), "QEMU made no tap0");
    host.run(&["ip", "addr", "add", "192.0.2.1/24", "dev", "tap0"])
        .unwrap();
    guest.wait_ready(LIMIT).unwrap();
    guest
}

/// The kernel's strand carries everything, also while all of the machine's programs are dead, and theirs is taken over by the next run.
#[test]
fn a_kernel_with_wireguard_carries_and_needs_nobody_measured() {
    let world = World::new();
    world.begin_registry();
    world.begin_host();
    world.begin_guest();
    let by_kernel = || world.strand(STRAND).is_some();
    assert!(
        wait_until(LIMIT, by_kernel),
        "{}\n{}",
        world.status(),
        world.log()
    );
    let interface = world.strand(STRAND).unwrap();
    let said = world.run("hextet mesh status --json --socket /run/mesh.sock");
    let guest: Value = serde_json::from_str(&said).unwrap();
    let home = guest["home"].as_str().unwrap().to_owned();
    let prefixes = guest["prefixes"].as_array().unwrap().iter();
    let v4 = prefixes.filter_map(|prefix| prefix.as_str()?.strip_suffix("/32"));
    let homes: Vec<String> = [home].into_iter().chain(v4.map(str::to_owned)).collect();
    assert_eq!(homes.len(), 2, "{homes:?}");
    for home in &homes {
        let goes = || world.leaves_by(home).contains(&format!("dev {interface} "));
        assert!(wait_until(LIMIT, goes), "{}", world.leaves_by(home));
    }
    // Of the kernel is what the kernel calls so.
    world.run("ls -d /sys/class/net/hxmz*");
    world.run("grep -q DEVTYPE=wireguard /sys/class/net/hxmz*/uevent");

    world.run("kill -9 $(pidof hextet)");
    thread::sleep(Duration::from_secs(1));
    for home in &homes {
        let words = [
            "ping", "-n", "-q", "-c", "100", "-i", "0.05", "-W", "30", home,
        ];
        let said = world.host.run(&words).unwrap();
        assert!(said.contains(" 100 received"), "{said}");
    }
    world.start_guest();
    let taken_over = || {
        world
            .log()
            .contains("a tunnel of an earlier run is taken over")
    };
    assert!(wait_until(LIMIT, taken_over), "{}", world.log());
    for home in &homes {
        world
            .host
            .run(&["ping", "-c", "3", "-W", "30", home])
            .unwrap();
    }
}
