//! Two hosts, and a tunnel between them.

use std::{
    env, fmt, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use hextet_bench::cpu;
use hextet_lab::{Lab, LabFile, LabGuard, Node, wait_until};

const DEVICE: &str = "hxb-wg0";
const PATIENCE: Duration = Duration::from_secs(10);
/// X25519: a private key, and its public one, for each host.
const KEYS: [(&str, &str); 2] = [
    (
        "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=",
        "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=",
    ),
    (
        "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=",
        "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=",
    ),
];

/// Who holds the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// There is none: the veth pair alone.
    Nothing,
    /// hextet's process.
    OursOverIpv4,
    /// The same.
    OursOverIpv6,
    /// wireguard-go.
    WireguardGo,
    /// OpenVPN with a TAP over UDP, as re6stnet has it where UDP is allowed.
    OpenVpn,
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rival::Nothing => "veth",
            Rival::OursOverIpv4 => "over IPv4",
            Rival::OursOverIpv6 => "over IPv6",
            Rival::WireguardGo => "wireguard-go",
            Rival::OpenVpn => "OpenVPN",
        })
    }
}

/// The hosts and processes; they go when this is dropped.
pub struct Site {
    processes: Vec<Running>,
    lab: LabGuard,
    tunnel: bool,
    /// Of wireguard-go, which leaves them behind.
    sockets: Vec<PathBuf>,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.processes.clear();
        for socket in &self.sockets {
            let _ = fs::remove_file(socket);
        }
    }
}

impl Site {
    /// Makes them, and waits until packets pass.
    ///
    /// # Errors
    ///
    /// A program is missing, or nothing passes within ten seconds.
    pub fn up(rival: Rival) -> Result<Site> {
        let name = format!("bench-mesh-{}", std::process::id());
        let text = format!(
            "name = '{name}'\n[node.a]\n[node.b]\n[[link]]\n\
             a = {{ node = 'a', dev = 'veth', addresses = ['192.0.2.1/24', '2001:db8::1/64'] }}\n\
             b = {{ node = 'b', dev = 'veth', addresses = ['192.0.2.2/24', '2001:db8::2/64'] }}\n"
        );
        let lab = Lab::up(LabFile::parse(&text, "bench".as_ref())?)?.guard();
        let mut site = Site {
            processes: Vec::new(),
            lab,
            tunnel: rival != Rival::Nothing,
            sockets: Vec::new(),
        };
        if rival == Rival::OpenVpn {
            for number in [1, 2] {
                site.certify(number)?;
            }
        }
        for number in [1, 2] {
            match rival {
                Rival::Nothing => {}
                Rival::OursOverIpv4 => site.ours(number, false)?,
                Rival::OursOverIpv6 => site.ours(number, true)?,
                Rival::WireguardGo => site.wireguard_go(number)?,
                Rival::OpenVpn => site.openvpn(number)?,
            }
        }
        let [from, to] = [site.node(1)?, site.node(2)?];
        for target in [site.addresses(2).0, site.addresses(2).1] {
            let passes = wait_until(PATIENCE, || from.ping(&target).unwrap_or(false));
            ensure!(passes, "nothing passes to {target} in {}", to.name());
        }
        Ok(site)
    }

    /// A host by its number, 1 or 2.
    pub fn node(&self, number: u8) -> Result<Node> {
        let name = if number == 1 { "a" } else { "b" };
        Ok(self.lab.node(name)?)
    }

    /// A host's addresses at the end of what is measured: IPv4, IPv6.
    pub fn addresses(&self, number: u8) -> (String, String) {
        if self.tunnel {
            (format!("10.9.0.{number}"), format!("fd00::{number}"))
        } else {
            (format!("192.0.2.{number}"), format!("2001:db8::{number}"))
        }
    }

    /// CPU seconds that the tunnels' processes have used.
    pub fn cpu(&self) -> Result<f64> {
        self.processes
            .iter()
            .map(|p| cpu::of_threads(p.0.id()))
            .sum()
    }

    /// MiB of the larger of the two.
    pub fn resident(&self) -> Result<f64> {
        let mut most = 0.0;
        for process in &self.processes {
            most = f64::max(most, cpu::resident(process.0.id())?);
        }
        Ok(most)
    }

    fn ours(&mut self, number: u8, over_ipv6: bool) -> Result<()> {
        let program = program()?;
        let node = self.node(number)?;
        let socket = self.file(number, "tunnels.sock");
        let mut command = Command::new(&program);
        command.arg("serve").arg(&socket).stdout(Stdio::piped());
        let mut process = node.spawn(&mut command)?;
        let said = process.stdout.take();
        self.processes.push(Running(process));
        let mut line = String::new();
        BufReader::new(said.context("no standard output")?).read_line(&mut line)?;
        let (key, peer) = keys(number);
        let (any, endpoint) = if over_ipv6 {
            ("[::]:5000", format!("[2001:db8::{}]:5000", 3 - number))
        } else {
            ("0.0.0.0:5000", format!("192.0.2.{}:5000", 3 - number))
        };
        let request = serde_json::json!({ "up": {
            "name": DEVICE, "private_key": key, "peer_key": peer, "listen": any,
            "endpoint": endpoint, "keepalive_secs": 25, "mtu": 1420,
        }});
        let answer = ask(&program, &socket, &request.to_string())?;
        ensure!(answer.trim() == "\"done\"", "hextet-tunnels: {answer}");
        self.address(number)
    }

    /// As many tunnels besides, of our first host's process, to peers that are not there.
    ///
    /// # Errors
    ///
    /// It refuses.
    pub fn more(&self, count: u8) -> Result<()> {
        let program = program()?;
        let socket = self.file(1, "tunnels.sock");
        let (key, peer) = keys(1);
        for number in 0..count {
            let request = serde_json::json!({ "up": {
                "name": format!("hxb-more{number}"), "private_key": key, "peer_key": peer,
                "listen": format!("0.0.0.0:{}", 6000 + u16::from(number)),
                "endpoint": "192.0.2.99:5000", "mtu": 1420,
            }});
            let answer = ask(&program, &socket, &request.to_string())?;
            ensure!(answer.trim() == "\"done\"", "hextet-tunnels: {answer}");
        }
        Ok(())
    }

    fn wireguard_go(&mut self, number: u8) -> Result<()> {
        let device = format!("hxg{number}-{}", std::process::id());
        let socket = PathBuf::from(format!("/var/run/wireguard/{device}.sock"));
        self.sockets.push(socket.clone());
        let node = self.node(number)?;
        let mut command = Command::new("wireguard-go");
        command
            .args(["-f", &device])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.processes.push(Running(node.spawn(&mut command)?));
        ensure!(
            wait_until(PATIENCE, || socket.exists()),
            "wireguard-go does not begin"
        );
        let (key, peer) = keys(number);
        let file = self.file(number, "key");
        fs::write(&file, key).context("write a key")?;
        let endpoint = format!("192.0.2.{}:5000", 3 - number);
        let status = Command::new("wg")
            .args(["set", &device, "listen-port", "5000", "private-key"])
            .arg(&file)
            .args([
                "peer",
                peer,
                "allowed-ips",
                "::/0,0.0.0.0/0",
                "endpoint",
                &endpoint,
            ])
            .status()
            .context("run wg")?;
        ensure!(status.success(), "wg set {device} failed");
        node.run(&[
            "ip", "link", "set", &device, "name", DEVICE, "mtu", "1420", "up",
        ])?;
        self.address(number)
    }

    /// Makes a certificate, whose fingerprint is all that the other trusts.
    fn certify(&self, number: u8) -> Result<()> {
        let output = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ])
            .args(["-nodes", "-days", "2", "-subj"])
            .arg(format!("/CN={number}"))
            .arg("-keyout")
            .arg(self.file(number, "key"))
            .arg("-out")
            .arg(self.file(number, "cert"))
            .output()
            .context("run openssl")?;
        ensure!(output.status.success(), "openssl req failed");
        Ok(())
    }

    fn fingerprint(&self, number: u8) -> Result<String> {
        let output = Command::new("openssl")
            .args(["x509", "-fingerprint", "-sha256", "-noout", "-in"])
            .arg(self.file(number, "cert"))
            .output()
            .context("run openssl")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let (_, fingerprint) = text.trim().split_once('=').context("no fingerprint")?;
        Ok(fingerprint.to_owned())
    }

    fn openvpn(&mut self, number: u8) -> Result<()> {
        let node = self.node(number)?;
        let mut command = Command::new("openvpn");
        command
            .args([
                "--dev-type",
                "tap",
                "--dev",
                DEVICE,
                "--proto",
                "udp4",
                "--port",
                "5000",
            ])
            .args([
                "--data-ciphers",
                "AES-256-GCM",
                "--dh",
                "none",
                "--auth-nocache",
            ])
            .args(["--txqueuelen", "2000", "--peer-fingerprint"])
            .arg(self.fingerprint(3 - number)?)
            .arg("--cert")
            .arg(self.file(number, "cert"))
            .arg("--key")
            .arg(self.file(number, "key"));
        if number == 1 {
            command.arg("--tls-server");
        } else {
            command.args(["--tls-client", "--remote", "192.0.2.1", "5000"]);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.processes.push(Running(node.spawn(&mut command)?));
        let made = || node.run(&["ip", "link", "set", DEVICE, "up"]).is_ok();
        ensure!(wait_until(PATIENCE, made), "openvpn does not begin");
        self.address(number)
    }

    fn address(&self, number: u8) -> Result<()> {
        let node = self.node(number)?;
        let (ipv4, ipv6) = self.addresses(number);
        node.run(&["ip", "address", "add", &format!("{ipv4}/24"), "dev", DEVICE])?;
        let ipv6 = format!("{ipv6}/64");
        node.run(&["ip", "address", "add", &ipv6, "dev", DEVICE, "nodad"])?;
        Ok(())
    }

    fn file(&self, number: u8, name: &str) -> PathBuf {
        self.lab.directory().join(format!("{number}.{name}"))
    }
}

fn program() -> Result<PathBuf> {
    let named = env::var_os("HEXTET_TUNNELS_BIN").map(PathBuf::from);
    let beside = || env::current_exe().map(|path| path.with_file_name("hextet-tunnels"));
    Ok(named.map_or_else(beside, Ok)?)
}

fn keys(number: u8) -> (&'static str, &'static str) {
    let [one, other] = KEYS;
    let (own, peer) = if number == 1 {
        (one, other)
    } else {
        (other, one)
    };
    (own.0, peer.1)
}

fn ask(program: &Path, socket: &Path, request: &str) -> Result<String> {
    let mut command = Command::new(program);
    command
        .arg("ask")
        .arg(socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut asking = command.spawn().context("run hextet-tunnels")?;
    if let Some(mut stdin) = asking.stdin.take() {
        writeln!(stdin, "{request}").context("ask")?;
    }
    let output = asking.wait_with_output().context("wait for the answer")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
