//! A workload's namespace, a host's namespace, a veth pair between them, and the driver at its host end.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{self, Receiver, Sender, TryRecvError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hextet_autoconf::{Action, Counters, Duid, Event, PortConfig, PortKey, Responder};
use hextet_types::Time;
use nix::{
    ifaddrs::getifaddrs,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns},
    sys::{
        signal::{Signal, kill},
        socket::{
            AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send,
            socket,
        },
    },
    unistd::Pid,
};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);
const PORT: PortKey = PortKey(1);

/// Asks until there is an answer; panics with what was waited for after half a minute.
pub fn wait_for<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = f() {
            return found;
        }
        assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A client that is ended with the test, also when the test fails.
pub struct Client(Child);

impl Client {
    /// Ends it and waits for that.
    pub fn end(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        if matches!(self.0.try_wait(), Ok(None)) {
            kill(pid, Signal::SIGKILL).ok();
        }
        self.0.wait().ok();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end();
    }
}

/// A namespace that goes away with its owner.
struct Netns(String);

impl Netns {
    fn new(role: &str) -> Netns {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hxac-{}-{n}-{role}", std::process::id());
        run(&["ip", "netns", "add", &name]);
        Netns(name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        Command::new("ip")
            .args(["netns", "del", &self.0])
            .status()
            .ok();
    }
}

enum Order {
    Configure(Box<PortConfig>),
    Count(Sender<Counters>),
}

/// What a test has.
pub struct Lab {
    orders: Option<Sender<Order>>,
    driver: Option<JoinHandle<Counters>>,
    files: TempDir,
    guest: Netns,
    _host: Netns,
}

impl Lab {
    /// Namespaces with a link that is down at the workload's end, and a running responder.
    pub fn new(config: PortConfig) -> Lab {
        needs("iproute2", "ip");
        let host = Netns::new("h");
        let guest = Netns::new("g");
        run(&[
            "ip",
            "link",
            "add",
            "port",
            "netns",
            &host.0,
            "address",
            &config.host_mac.to_string(),
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            &guest.0,
            "address",
            &config.guest_mac.to_string(),
        ]);
        run(&["ip", "-n", &host.0, "link", "set", "port", "up"]);
        run(&["ip", "-n", &guest.0, "link", "set", "lo", "up"]);
        let (orders, inbox) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let netns = host.0.clone();
        let driver = thread::spawn(move || drive(&netns, config, &inbox, &ready));
        is_ready.recv_timeout(LIMIT).expect("driver is ready");
        let lab = Lab {
            orders: Some(orders),
            driver: Some(driver),
            files: TempDir::new().expect("temporary directory"),
            guest,
            _host: host,
        };
        lab.guest_sysctl("accept_ra", "0");
        lab.guest_sysctl("accept_dad", "0");
        lab.guest_sysctl("addr_gen_mode", "0");
        lab
    }

    /// Sets `net.ipv6.conf.eth0.NAME` of the workload.
    pub fn guest_sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/net/ipv6/conf/eth0/{name}");
        self.guest(&["sh", "-c", &format!("echo {value} > {path}")]);
    }

    /// Brings the workload's link up and waits for its link-local address.
    pub fn guest_up(&self) {
        self.guest(&["ip", "link", "set", "eth0", "up"]);
        wait_for("a link-local address", || {
            let shown = self.guest(&["ip", "-6", "addr", "show", "dev", "eth0", "scope", "link"]);
            (shown.contains("fe80::") && !shown.contains("tentative")).then_some(())
        });
    }

    /// Runs a command in the workload's namespace to its end; gives its output.
    pub fn guest(&self, command: &[&str]) -> String {
        run(&[&["ip", "netns", "exec", &self.guest.0], command].concat())
    }

    /// The same with a client out of a Debian package.
    pub fn client(&self, package: &str, command: &[&str]) -> String {
        needs(package, command[0]);
        self.guest(command)
    }

    /// The port shall be told something else.
    pub fn reconfigure(&mut self, config: PortConfig) {
        let orders = self.orders.as_ref().expect("driver runs");
        orders
            .send(Order::Configure(Box::new(config)))
            .expect("driver runs");
        // Orders are taken one after the other.
        self.counters();
    }

    /// The port's numbers.
    pub fn counters(&self) -> Option<Counters> {
        let (reply, numbers) = mpsc::channel();
        self.orders.as_ref()?.send(Order::Count(reply)).ok()?;
        numbers.recv_timeout(LIMIT).ok()
    }

    /// Ends the responder; gives the port's numbers.
    pub fn stop(mut self) -> Counters {
        self.orders = None;
        self.driver.take().unwrap().join().expect("driver")
    }

    /// Runs ISC dhclient until its script is called for `reason`; gives the script's environment. Its
    /// leases are kept for the next run.
    pub fn dhclient(&self, args: &[&str], reason: &str) -> BTreeMap<String, String> {
        needs("isc-dhcp-client", "dhclient");
        let out = self.script();
        fs::remove_file(&out).ok();
        let conf = self.file("dhclient.conf");
        fs::write(&conf, DHCLIENT_CONF).unwrap();
        let (script, leases, pid) = (self.file("script"), self.file("leases"), self.file("pid"));
        let paths = [
            "-sf",
            script.to_str().unwrap(),
            "-lf",
            leases.to_str().unwrap(),
            "-pf",
            pid.to_str().unwrap(),
            "-cf",
            conf.to_str().unwrap(),
        ];
        let command = [&["dhclient", "-d"], args, &paths, &["eth0"]].concat();
        let mut client = self.start(&command);
        let found = wait_for(reason, || {
            read_env(&out).filter(|env| env.get("reason").is_some_and(|r| r == reason))
        });
        client.end();
        found
    }

    /// Runs BusyBox udhcpc until it has an address; gives its script's environment.
    pub fn udhcpc(&self) -> BTreeMap<String, String> {
        let out = self.script();
        let mut client = self.start_udhcpc();
        let found = wait_for("bound", || {
            read_env(&out).filter(|env| env.contains_key("lease"))
        });
        client.end();
        found
    }

    /// Starts BusyBox udhcpc.
    pub fn start_udhcpc(&self) -> Client {
        needs("udhcpc", "udhcpc");
        self.script();
        let script = self.file("script");
        let options = [
            "mtu",
            "search",
            "staticroutes",
            "domain",
            "dns",
            "router",
            "subnet",
        ];
        let asked = options.iter().flat_map(|option| ["-O", option]);
        let command = ["udhcpc", "-f", "-i", "eth0", "-s", script.to_str().unwrap()];
        self.start(&command.into_iter().chain(asked).collect::<Vec<_>>())
    }

    fn start(&self, command: &[&str]) -> Client {
        let log = File::create(self.file("client.log")).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.guest.0])
            .args(command)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        Client(child.unwrap_or_else(|e| panic!("start {command:?}: {e}")))
    }

    /// A script that keeps its environment when it is told something; gives the file.
    fn script(&self) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let (script, out) = (self.file("script"), self.file("environment"));
        let shown = out.to_str().unwrap();
        let text = format!(
            "#!/bin/sh\n\
             case \"${{reason:-$1}}\" in PREINIT*|MEDIUM|deconfig) exit 0;; esac\n\
             env > {shown}.new && mv {shown}.new {shown}\n"
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        out
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(driver) = self.driver.take() {
            driver.join().ok();
        }
    }
}

const DHCLIENT_CONF: &str = "
option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;
timeout 20;
request subnet-mask, broadcast-address, rfc3442-classless-static-routes, routers, domain-name,
    domain-name-servers, domain-search, host-name, interface-mtu, ntp-servers,
    dhcp6.name-servers, dhcp6.domain-search, dhcp6.sntp-servers;
";

fn read_env(path: &PathBuf) -> Option<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).ok()?;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let unquoted = |v: &str| v.trim_matches('\'').to_owned();
    Some(pairs.map(|(k, v)| (k.to_owned(), unquoted(v))).collect())
}

/// Fails if a program is missing, and says where it comes from.
fn needs(package: &str, program: &str) {
    let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .iter()
        .any(|dir| PathBuf::from(dir).join(program).exists());
    assert!(
        found,
        "{program} is not installed: apt-get install {package}"
    );
}

fn run(command: &[&str]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .unwrap_or_else(|e| panic!("run {command:?}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}{error}",
        output.status
    );
    text
}

fn drive(netns: &str, config: PortConfig, inbox: &Receiver<Order>, ready: &Sender<()>) -> Counters {
    let socket = packet_socket(netns);
    let start = Instant::now();
    let now = || Time::from_nanos(u64::try_from(start.elapsed().as_nanos()).unwrap());
    let mut responder = Responder::new(1, Duid::link_layer(config.host_mac));
    responder
        .set_port(PORT, config, now())
        .expect("configuration");
    ready.send(()).expect("test waits");
    loop {
        match inbox.try_recv() {
            Ok(Order::Configure(config)) => {
                let actions = responder
                    .set_port(PORT, *config, now())
                    .expect("configuration");
                perform(&socket, actions);
            }
            Ok(Order::Count(reply)) => {
                reply.send(responder.counters(PORT).unwrap().clone()).ok();
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return responder.counters(PORT).unwrap().clone(),
        }
        let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        let mut buffer = [0; 2_048];
        if poll(&mut waiting, PollTimeout::from(20_u8)).unwrap_or(0) > 0 {
            let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap_or(0);
            let bytes = &buffer[..len];
            perform(
                &socket,
                responder.handle(Event::Frame { port: PORT, bytes }, now()),
            );
        }
        if responder.next_wakeup().is_some_and(|at| at <= now()) {
            perform(&socket, responder.handle(Event::Timer, now()));
        }
    }
}

fn perform(socket: &OwnedFd, actions: Vec<Action>) {
    for Action::Send { frame, .. } in actions {
        // Lost while the workload's end is down, like on any link.
        send(socket.as_raw_fd(), &frame, MsgFlags::empty()).ok();
    }
}

/// On the link `port` of that namespace, in which the calling thread stays.
fn packet_socket(netns: &str) -> OwnedFd {
    let netns = File::open(format!("/run/netns/{netns}")).expect("namespace");
    setns(&netns, CloneFlags::CLONE_NEWNET).expect("setns: tests run as root");
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .expect("packet socket");
    let link: LinkAddr = getifaddrs()
        .expect("interfaces")
        .filter(|i| i.interface_name == "port")
        .find_map(|i| i.address?.as_link_addr().copied())
        .expect("the port");
    bind(socket.as_raw_fd(), &link).expect("bind packet socket");
    socket
}
