//! The unmodified `openstack` client against a server: `clouds.yaml` as the first start wrote it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "openstack_client/addressing.rs"]
mod addressing;
mod cloud;
#[path = "openstack_client/metering.rs"]
mod metering;
#[path = "openstack_client/qos.rs"]
mod qos;
#[path = "openstack_client/routing.rs"]
mod routing;

use std::{
    fs,
    io::{BufRead, BufReader, Lines, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use cloud::TestCloud;
use hextet_server::StoreKind;
use serde::Deserialize;
use serde_json::{Value, json};

const CLIENT: &str = "python-openstackclient==10.5.0";
const SDK: &str = "openstacksdk==4.22.0";

/// The client in a virtual environment, made once and kept under `~/.cache/hextet/venvs`.
fn client() -> PathBuf {
    let home = std::env::var_os("HOME").expect("HOME is set");
    let venvs = Path::new(&home).join(".cache/hextet/venvs");
    let venv = venvs.join("openstackclient-10.5.0-4.22.0");
    let program = venv.join("bin/openstack");
    if program.exists() {
        return program;
    }
    fs::create_dir_all(&venvs).unwrap();
    let made = run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&venv));
    assert!(
        made.status.success(),
        "this test needs Python's venv: `apt-get install python3-venv` (or run `cargo xtask test`, \
         which does)\n{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let pip = ["-m", "pip", "install", "--quiet", CLIENT, SDK];
    let installed = run(Command::new(venv.join("bin/python")).args(pip));
    if !installed.status.success() {
        let _ = fs::remove_dir_all(&venv);
        panic!(
            "install {CLIENT} from PyPI: {}",
            String::from_utf8_lossy(&installed.stderr)
        );
    }
    program
}

fn run(command: &mut Command) -> std::process::Output {
    command
        .output()
        .unwrap_or_else(|e| panic!("run {command:?}: {e}"))
}

/// The client's shell, started once for many commands: its start costs more than all of them.
struct Session {
    process: Child,
    words: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// What a command left behind.
#[derive(Deserialize)]
struct Output {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Session {
    fn start(program: &Path, clouds: &Path, cloud: &str) -> Session {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openstack_client/session.py");
        let mut process = Command::new(program.with_file_name("python"))
            .arg(script)
            .env("OS_CLIENT_CONFIG_FILE", clouds)
            .env("OS_CLOUD", cloud)
            .env("NO_PROXY", "*")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let words = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        Session {
            process,
            words,
            answers,
        }
    }

    fn output(&mut self, command: &str) -> Output {
        let words: Vec<_> = command.split_whitespace().collect();
        writeln!(self.words, "{}", json!(words)).unwrap();
        let line = self
            .answers
            .next()
            .unwrap_or_else(|| panic!("openstack {command}: no answer"));
        serde_json::from_str(&line.unwrap()).unwrap()
    }

    fn json(&mut self, command: &str) -> Value {
        let output = self.output(&format!("{command} -f json"));
        assert_eq!(output.status, 0, "openstack {command}: {}", output.stderr);
        serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("openstack {command}: {e}"))
    }

    /// How many of a list are such.
    fn list(&mut self, command: &str, such: impl Fn(&Value) -> bool) -> usize {
        self.json(command)
            .as_array()
            .unwrap()
            .iter()
            .filter(|item| such(item))
            .count()
    }

    fn quiet(&mut self, command: &str) {
        let output = self.output(command);
        assert_eq!(output.status, 0, "openstack {command}: {}", output.stderr);
    }

    /// The words of a command that must fail.
    fn fails(&mut self, command: &str) -> String {
        let output = self.output(command);
        assert_ne!(output.status, 0, "openstack {command} should fail");
        output.stderr
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Another cloud in the file: the same, by another user.
fn with_ann(clouds: &str) -> String {
    let url = clouds
        .lines()
        .find(|l| l.trim().starts_with("auth_url:"))
        .unwrap()
        .trim();
    format!(
        "{clouds}  ann:\n    auth:\n      {url}\n      username: ann\n      password: a-secret\n      \
         user_domain_id: default\n      project_name: alpha\n      project_domain_id: default\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openstack_client_works() {
    let cloud = TestCloud::start(StoreKind::Redb).await;
    let clouds = cloud.directory.path().join("ours.yaml");
    let theirs = fs::read_to_string(cloud.clouds_yaml()).unwrap();
    fs::write(&clouds, with_ann(&theirs)).unwrap();
    let work = tokio::task::spawn_blocking(move || {
        let program = client();
        // As a user runs it.
        let output = run(Command::new(&program)
            .args([
                "--os-cloud",
                "hextet",
                "token",
                "issue",
                "-f",
                "value",
                "-c",
                "id",
            ])
            .env("OS_CLIENT_CONFIG_FILE", &clouds)
            .env("NO_PROXY", "*"));
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut session = Session::start(&program, &clouds, "hextet");
        // The client keeps its connection to the networking API, so another user needs another one.
        let mut ann = Session::start(&program, &clouds, "ann");
        networking(&mut session);
        private_networks(&mut session);
        security_groups(&mut session);
        ports(&mut session);
        identity(&mut session, &mut ann);
        addressing::pools(&mut session);
        addressing::scopes(&mut session);
        addressing::sharing(&mut session);
        addressing::groups(&mut session);
        routing::routers(&mut session);
        routing::several_gateways(&mut session);
        routing::floating_ips(&mut session);
        routing::ndp_proxies(&mut session);
        qos::policies(&mut session);
        metering::meters(&mut session);
        bindings(&program, &clouds);
    });
    work.await.unwrap();
    cloud.server.stop().await.unwrap();
}

/// The client has no commands for them, but what Nova and it are made of has.
fn bindings(program: &Path, clouds: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openstack_client/bindings.py");
    let output = run(Command::new(program.with_file_name("python"))
        .arg(script)
        .env("OS_CLIENT_CONFIG_FILE", clouds)
        .env("OS_CLOUD", "hextet")
        .env("NO_PROXY", "*"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
}

fn networking(os: &mut Session) {
    let network = os.json(
        "network create IPv6 --share --external --mtu 1450 --provider-network-type routed --tag blue",
    );
    assert_eq!(network["provider:network_type"], "routed");
    assert_eq!(
        (&network["mtu"], &network["shared"]),
        (&json!(1450), &json!(true))
    );
    let v6 = os.json(
        "subnet create v6 --network IPv6 --ip-version 6 --subnet-range 2001:db8:7::/64 \
         --ipv6-ra-mode slaac --ipv6-address-mode slaac --dns-nameserver 2001:db8::53",
    );
    assert_eq!(v6["ipv6_address_mode"], "slaac");
    os.json(
        "subnet create v4 --network IPv6 --subnet-range 10.7.0.0/24 \
         --allocation-pool start=10.7.0.100,end=10.7.0.200",
    );
    assert_eq!(
        os.list("extension list --network", |e| e["Alias"]
            == "port-security"),
        1
    );
    assert_eq!(os.json("network agent list"), json!([]));
    assert_eq!(os.list("availability zone list --network", |_| true), 2);
}

fn private_networks(os: &mut Session) {
    let network = os.json(
        "network create inner --provider-network-type vxlan --provider-segment 4711 --mtu 1400",
    );
    assert_eq!(
        (
            &network["provider:network_type"],
            &network["provider:segmentation_id"],
            &network["mtu"]
        ),
        (&json!("vxlan"), &json!(4711), &json!(1400))
    );
    let words =
        os.fails("network create twin --provider-network-type vxlan --provider-segment 4711");
    assert!(words.contains("tunnel ID 4711 is in use"), "{words}");
    let words =
        os.fails("network create far --provider-network-type vxlan --provider-physical-network x");
    assert!(words.contains("physical_network"), "{words}");
    os.json("subnet create inner-v4 --network inner --subnet-range 10.7.0.0/24");
    let port = os.json("port create inner-port --network inner --host h7");
    assert_eq!(port["binding_vif_type"], "binding_failed");
    for command in [
        "port delete inner-port",
        "network set --mtu 1300 inner",
        "network delete inner",
    ] {
        os.quiet(command);
    }
    let again =
        os.json("network create inner --provider-network-type vxlan --provider-segment 4711");
    os.quiet(&format!("network delete {}", again["id"].as_str().unwrap()));
}

fn security_groups(os: &mut Session) {
    os.json("security group create web --description web");
    let rule = os.json(
        "security group rule create web --protocol tcp --dst-port 80:81 --remote-ip 10.0.0.0/8",
    );
    assert_eq!(rule["port_range_max"], json!(81));
    os.json(
        "security group rule create web --protocol icmpv6 --ethertype IPv6 --remote-group web --egress",
    );
    assert_eq!(os.list("security group rule list web", |_| true), 4);
    let id = rule["id"].as_str().unwrap();
    let shown = os.json(&format!("security group rule show {id}"));
    assert_eq!(shown["port_range_min"], json!(80));
    os.quiet(&format!("security group rule delete {id}"));
    assert_eq!(os.list("security group rule list web", |_| true), 3);
    os.quiet("security group set web --description sites --stateless");
    let shown = os.json("security group show web");
    assert_eq!(
        (&shown["description"], &shown["stateful"]),
        (&json!("sites"), &json!(false))
    );
    assert_eq!(os.list("security group list", |g| g["Name"] == "web"), 1);
}

fn ports(os: &mut Session) {
    let port = os.json(
        "port create p1 --network IPv6 --security-group web --device vm-1 \
         --fixed-ip subnet=v4,ip-address=10.7.0.150 \
         --extra-dhcp-option name=bootfile-name,value=x",
    );
    let addresses = cloud::addresses(&port);
    assert_eq!(addresses[0], "10.7.0.150");
    assert!(addresses[1].starts_with("2001:db8:7:"), "{addresses:?}");
    let group = os.json("security group show web");
    assert_eq!(port["security_group_ids"], json!([group["id"]]));
    os.quiet("port set p1 --name p2 --host h1 --device-owner compute:nova");
    let shown = os.json("port show p2");
    assert_eq!(
        (&shown["binding_vif_type"], &shown["status"]),
        (&json!("tap"), &json!("DOWN"))
    );
    assert_eq!(
        os.list(
            "port list --network IPv6 --fixed-ip ip-address=10.7.0.150",
            |_| true
        ),
        1
    );
    os.quiet("port set p2 --tag green");
    assert_eq!(os.list("port list --tags green", |_| true), 1);
    assert_eq!(os.json("ip availability show IPv6")["used_ips"], json!(2));
    let words = os.fails("network delete IPv6");
    assert!(words.contains("one or more ports still in use"), "{words}");
    for words in [
        "port delete p2",
        "security group delete web",
        "subnet delete v4",
        "network delete IPv6",
    ] {
        os.quiet(words);
    }
    assert_eq!(os.json("network list"), json!([]));
}

fn identity(os: &mut Session, ann: &mut Session) {
    let project = os.json("project create alpha");
    let id = project["id"].as_str().unwrap();
    os.json("user create ann --password a-secret --project alpha");
    os.quiet("role add --project alpha --user ann member");
    let assigned = os.json("role assignment list --user ann --names");
    assert_eq!(assigned[0]["Role"], "member");
    os.quiet("quota set alpha --ports 7 --networks 3");
    let limit = |q: &Value| q["Resource"] == "ports" && q["Limit"] == json!(7);
    assert_eq!(os.list("quota show alpha --network", limit), 1);
    let token = os.json("token issue");
    os.quiet(&format!("token revoke {}", token["id"].as_str().unwrap()));
    assert_eq!(os.list("catalog list", |_| true), 2);
    let mine = ann.json("network create mine");
    assert_eq!(
        mine["provider:network_type"],
        Value::Null,
        "how it is built is not hers to know"
    );
    assert_eq!(mine["project_id"], json!(id));
    let credential = ann.json("application credential create robot");
    assert!(credential["Secret"].as_str().unwrap().len() > 40);
    let words = ann.fails("user list");
    assert!(words.contains("403"), "{words}");
    for words in [
        "network delete mine",
        "user delete ann",
        "project delete alpha",
    ] {
        os.quiet(words);
    }
}
