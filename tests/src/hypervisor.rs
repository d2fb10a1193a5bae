//! A host: its namespace, its uplink, the TAPs of its ports, and the state that planner and reconciler make.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    net::IpAddr,
    panic,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use hextet_kernel::{
    Config, Kernel, Report, Scope,
    conntrack::{Conntrack, Flow},
};
use hextet_model::{
    intent::{Change, Intent},
    plan::{HostConfig, Planner},
    state::{Changed, Key, Netns, Object},
};
use hextet_types::{IfName, Mac, PortId};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::{
    cloud::addr,
    defence::Defence,
    packet::Ether,
    wire::{Frame, Wire},
};

/// The uplink's name.
pub const UPLINK: &str = "up0";
/// The uplink's Ethernet address.
pub const UPLINK_MAC: Mac = Mac::new([0x02, 0, 0, 0, 0xaa, 1]);
/// The Ethernet address of the spine behind the uplink.
pub const SPINE_MAC: Mac = Mac::new([0x02, 0, 0, 0, 0xaa, 2]);
/// The host's addresses on the uplink, its service addresses on `lo`, then those of the spine.
pub const HOST_V4: &str = "203.0.113.1";
/// See [`HOST_V4`].
pub const HOST_V6: &str = "2001:db8:ffff::1";
/// A service address of the host on `lo`.
pub const SERVICE_V4: &str = "203.0.113.129";
/// A service address of the host on `lo`.
pub const SERVICE_V6: &str = "2001:db8:ffff:1::1";
/// The host's router.
pub const SPINE_V4: &str = "203.0.113.2";
/// The host's router.
pub const SPINE_V6: &str = "2001:db8:ffff::2";
/// Somebody on the Internet.
pub const INTERNET_V4: &str = "192.0.2.7";
/// Somebody on the Internet.
pub const INTERNET_V6: &str = "2001:db8:7777::7";

/// How long to wait for what has to happen; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Does something in a network namespace of its own, which ends with it. A panic inside is a panic here.
pub fn in_own_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace (needs root)");
            work()
        });
        worker.join().unwrap_or_else(|e| panic::resume_unwind(e))
    })
}

/// Runs a program in the namespace of the calling thread, with that on its standard input, and returns its
/// standard output.
pub fn run(program: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("start {program}: {e}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {}: {errors}",
        args.join(" ")
    );
    String::from_utf8(output.stdout).expect("text")
}

/// Writes a setting of the calling thread's namespace.
pub fn set_sysctl(path: &str, value: &str) {
    let file = format!("/proc/sys/{path}");
    std::fs::write(&file, value).unwrap_or_else(|e| panic!("write {file}: {e}"));
}

/// Waits for a condition of the kernel that it reaches by itself, in a moment.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the host listens at an IPv6 address that it was just given: the kernel gets ready in the
/// background.
pub fn wait_for_address(address: &str) {
    let local = format!("local {address} ");
    let table = || run("ip", &["-6", "route", "show", "table", "local"], "");
    wait_for(&format!("{address} is the host's"), || {
        table().contains(&local)
    });
}

/// One host, in the namespace of the thread that made it.
pub struct Hypervisor {
    /// What comes by the uplink and what leaves by it.
    pub uplink: Wire,
    planner: Planner,
    kernel: Kernel,
    left_out: BTreeSet<Defence>,
    ports: BTreeMap<PortId, Wire>,
    gateway_mac: Mac,
    _record: TempDir,
}

/// Ports' programs are attached by TCX where the kernel has it, unless `HEXTET_TEST_TC` is set.
fn wants_tcx() -> bool {
    std::env::var_os("HEXTET_TEST_TC").is_none()
}

impl Hypervisor {
    /// A host with an uplink and no ports, that has been told that, and lacks these defences. Nothing of
    /// its state stands before [`Hypervisor::settle`].
    pub fn new(config: HostConfig, intent: &Intent, left_out: &[Defence]) -> Hypervisor {
        let uplink = Wire::new(&uplink_name()).expect("make the uplink");
        set_up_fabric();
        let record = TempDir::new().expect("a directory");
        let gateway_mac = config.gateway_mac;
        let mut config = config;
        config.uplinks.insert(uplink_name());
        let mut planner = Planner::new(config);
        planner.replace(intent);
        let kernel = Kernel::open(Config {
            gateway_mac,
            sysctl_record: record.path().join("sysctls"),
            sysctls: vec!["net/".to_owned()],
            tcx: wants_tcx(),
        });
        Hypervisor {
            uplink,
            planner,
            kernel: kernel.expect("open the kernel"),
            left_out: left_out.iter().copied().collect(),
            ports: BTreeMap::new(),
            gateway_mac,
            _record: record,
        }
    }

    /// Makes the TAP of a port, as QEMU does, and turns it on, as Nova does.
    pub fn plug(&mut self, port: PortId) {
        let name = IfName::for_port(port);
        let wire = Wire::new(&name).unwrap_or_else(|e| panic!("make {name}: {e}"));
        run("ip", &["link", "set", name.as_str(), "up"], "");
        self.ports.insert(port, wire);
    }

    /// Makes the TAP of a port as QEMU does for a virtio device.
    pub fn plug_virtio(&mut self, port: PortId) {
        let name = IfName::for_port(port);
        let mut made = None;
        // A former TAP of that name may still be going.
        wait_for(&format!("make {name}"), || {
            made = Wire::virtio(&name).ok();
            made.is_some()
        });
        run("ip", &["link", "set", name.as_str(), "up"], "");
        self.ports.extend(made.map(|wire| (port, wire)));
    }

    /// Takes it away.
    pub fn unplug(&mut self, port: PortId) {
        self.ports.remove(&port);
    }

    /// Of what is to be left out, only what there is on this host; others may have the rest.
    pub fn leave_out_what_there_is(&mut self) {
        let objects = &self.planner.state().objects;
        self.left_out
            .retain(|defence| defence.take_out(&mut objects.clone()));
    }

    /// Whether that was left out.
    pub fn lacks(&self, defence: Defence) -> bool {
        self.left_out.contains(&defence)
    }

    /// What must stand, without what was left out.
    pub fn desired(&self) -> BTreeMap<Key, Object> {
        let mut objects = self.planner.state().objects.clone();
        for defence in &self.left_out {
            defence.leave_out(&mut objects);
        }
        objects
    }

    /// Makes the kernel equal to something else than what must stand.
    pub fn settle_to(&mut self, desired: &BTreeMap<Key, Object>) {
        let scope = Scope::of(desired);
        let report = self.kernel.reconcile(&scope).expect("look at the kernel");
        assert!(report.failed.is_empty(), "{}", failures(&report));
    }

    /// Makes the kernel equal to what must stand.
    pub fn settle(&mut self) {
        let report = self.reconcile();
        assert!(report.failed.is_empty(), "{}", failures(&report));
        while self.kernel.programs_to_move() > 0 {
            self.kernel.move_program().expect("move a port's programs");
        }
        if self.left_out.contains(&Defence::Isolation) {
            self.put_on_a_bridge();
        }
        self.uplink.clear();
        self.ports.values_mut().for_each(Wire::clear);
    }

    /// Reconciles once, for better or worse.
    pub fn reconcile(&mut self) -> Report {
        let desired = self.desired();
        self.kernel
            .reconcile(&Scope::of(&desired))
            .expect("look at the kernel")
    }

    /// Is told something new, and does what follows from it.
    pub fn tell(&mut self, change: Change) -> Changed {
        let changed = self.planner.apply(change);
        let desired = self.desired();
        let report = self.kernel.reconcile_keys(&changed.objects, &desired);
        assert!(report.failed.is_empty(), "{}", failures(&report));
        changed
    }

    /// Ends the connections from or to these addresses that are forbidden; gives how many.
    pub fn cut(&self, addresses: &BTreeSet<IpAddr>, forbidden: impl FnMut(&Flow) -> bool) -> usize {
        let mut table = Conntrack::open(&Netns::Main).expect("open the conntrack table");
        table.cut(addresses, forbidden).expect("cut connections")
    }

    /// What plans for it.
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// What it has been told.
    pub fn intent(&self) -> &Intent {
        self.planner.intent()
    }

    /// The other end of a port.
    pub fn port(&mut self, port: PortId) -> &mut Wire {
        self.ports.get_mut(&port).expect("it is plugged")
    }

    /// Sends from a port.
    pub fn send(&mut self, port: PortId, frame: &[u8]) {
        self.port(port).send(frame);
    }

    /// Sends an IP packet to the host by the uplink.
    pub fn send_from_fabric(&mut self, packet: &[u8]) {
        let addresses = Ether {
            src: SPINE_MAC,
            dst: UPLINK_MAC,
        };
        let frame = crate::packet::ether_ip(addresses, packet);
        self.uplink.send(&frame);
    }

    /// What a port received, once it is quiet.
    pub fn received(&mut self, port: PortId) -> Vec<Frame> {
        self.port(port).frames().iter().cloned().collect()
    }

    /// The addresses of a frame from a port to its gateway.
    pub fn to_gateway(&self, port: PortId) -> Ether {
        Ether {
            src: self.mac(port),
            dst: self.gateway_mac,
        }
    }

    /// The Ethernet address of the host's end of a port.
    pub fn host_end(&self, port: PortId) -> Mac {
        let link = run(
            "ip",
            &["-o", "link", "show", self.ports[&port].name().as_str()],
            "",
        );
        let mac = link
            .split_whitespace()
            .skip_while(|word| *word != "link/ether")
            .nth(1);
        mac.and_then(|mac| mac.parse().ok())
            .expect("an Ethernet address")
    }

    /// A port's own Ethernet address.
    pub fn mac(&self, port: PortId) -> Mac {
        self.planner.intent().ports[&port].mac_address
    }

    /// A port's address of a family.
    pub fn address(&self, port: PortId, family: hextet_types::Family) -> IpAddr {
        let port = &self.planner.intent().ports[&port];
        port.addresses(family).next().expect("it has one")
    }

    fn put_on_a_bridge(&self) {
        let mut batch = String::from("link add hxbridge type bridge mcast_snooping 0\n");
        for wire in self.ports.values() {
            batch.push_str(&format!("link set {} master hxbridge\n", wire.name()));
        }
        batch.push_str("link set hxbridge up\n");
        run("ip", &["-batch", "-"], &batch);
        for hook in ["arptables", "iptables", "ip6tables"] {
            let path = format!("net/bridge/bridge-nf-call-{hook}");
            if std::path::Path::new("/proc/sys").join(&path).exists() {
                set_sysctl(&path, "0");
            }
        }
    }
}

/// Loopback, the uplink and the way to the rest of the world: what the operator has set up before hextet
/// comes.
fn set_up_fabric() {
    set_sysctl("net/ipv6/conf/default/accept_dad", "0");
    let addresses = format!(
        "link set lo up\n\
         link set {UPLINK} address {UPLINK_MAC} addrgenmode none\n\
         link set {UPLINK} up\n\
         address add {SERVICE_V4}/32 dev lo\n\
         address add {SERVICE_V6}/128 dev lo nodad\n\
         address add {HOST_V4}/28 dev {UPLINK}\n\
         address add {HOST_V6}/64 dev {UPLINK} nodad\n\
         neighbour add {SPINE_V4} lladdr {SPINE_MAC} dev {UPLINK} nud permanent\n\
         neighbour add {SPINE_V6} lladdr {SPINE_MAC} dev {UPLINK} nud permanent\n\
         route add default via {SPINE_V4} dev {UPLINK}\n\
         -6 route add default via {SPINE_V6} dev {UPLINK}\n"
    );
    let (v6, others): (Vec<&str>, Vec<&str>) =
        addresses.lines().partition(|line| line.starts_with("-6 "));
    run("ip", &["-batch", "-"], &(others.join("\n") + "\n"));
    let v6: Vec<&str> = v6
        .iter()
        .filter_map(|line| line.strip_prefix("-6 "))
        .collect();
    run("ip", &["-6", "-batch", "-"], &(v6.join("\n") + "\n"));
    wait_for_address(HOST_V6);
    wait_for_address(SERVICE_V6);
}

fn uplink_name() -> IfName {
    UPLINK.parse().expect("a name")
}

fn failures(report: &Report) -> String {
    let lines = report
        .failed
        .iter()
        .map(|(op, error)| format!("{op}: {error}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Somebody outside the cloud.
pub fn internet(family: hextet_types::Family) -> IpAddr {
    match family {
        hextet_types::Family::V4 => addr(INTERNET_V4),
        hextet_types::Family::V6 => addr(INTERNET_V6),
    }
}
