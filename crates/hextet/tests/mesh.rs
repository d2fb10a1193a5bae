//! A registry and its nodes, by the commands that people type.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// A registry's files; it goes with the test.
struct Place {
    directory: PathBuf,
    running: Option<Child>,
}

impl Place {
    fn new() -> Self {
        let name = format!("hextet-mesh-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let of = |file: &str| directory.join(file).display().to_string();
        let text = format!(
            "url = 'https://[::1]:{port}'\nlisten = '[::1]:{port}'\nstore = '{}'\nsocket = '{}'\n\
             prefix = '2001:db8::/40'\nipv4 = '10.64.0.0/16'\nstrangers = 'ask'\nsettle_secs = 0\n\
             communities = {{ europe = '2001:db8:40::/44' }}\n",
            of("store"),
            of("socket")
        );
        fs::write(directory.join("registry.toml"), text).unwrap();
        Place {
            directory,
            running: None,
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hextet"));
        command
            .args(arguments)
            .env("HEXTET_REGISTRY", self.path("socket"));
        command
    }

    fn start(&mut self) {
        let config = self.path("registry.toml");
        let mut command = self.command(&["registry", "--config"]);
        let child = command.arg(config).stderr(Stdio::null()).spawn();
        self.running = Some(child.unwrap());
        let end = Instant::now() + Duration::from_secs(60);
        while !self.run(&["mesh", "door"]).status.success() {
            assert!(Instant::now() < end, "the registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command prints that must succeed.
    fn told(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    fn join(&self, invitation: &str, node: &str) -> Output {
        let directory = self.path(node).display().to_string();
        let arguments = ["mesh", "join", invitation, "--name", node];
        self.run(
            &[
                &arguments[..],
                &["--directory", &directory, "--community", "fr,europe"],
            ]
            .concat(),
        )
    }

    fn nodes(&self) -> Value {
        serde_json::from_str(&self.told(&["mesh", "nodes", "--json"])).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn nodes_join_are_seen_and_revoked() {
    let mut place = Place::new();
    place.start();
    let invitation = place.told(&["mesh", "token", "--group", "web"]);
    let joined = place.join(&invitation, "paris");
    assert!(joined.status.success(), "{joined:?}");
    assert!(String::from_utf8_lossy(&joined.stdout).contains("2001:db8:40::/64, 10.64.0.0/32"));
    assert_eq!(
        place.join(&invitation, "paris").stdout,
        joined.stdout,
        "again"
    );
    assert!(
        !place.join(&invitation, "rome").status.success(),
        "another node"
    );
    assert_eq!(mode(&place.path("paris/key")), 0o600);
    assert_eq!(mode(&place.path("socket")), 0o600);

    let door = place.told(&["mesh", "door"]);
    assert_eq!(place.join(&door, "rome").status.code(), Some(2));
    let waiting = place.nodes()["waiting"][0]["key"]
        .as_str()
        .unwrap()
        .to_owned();
    place.told(&["mesh", "approve", &waiting]);
    assert!(place.join(&door, "rome").status.success());

    let seen = place.nodes();
    let paris = seen["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|n| n["name"] == "paris")
        .unwrap();
    assert_eq!(paris["groups"][0], "web");
    place.told(&["mesh", "revoke", paris["node"].as_str().unwrap()]);
    assert!(place.told(&["mesh", "nodes"]).contains("revoked"));
    let params = place.told(&["mesh", "params", "--hello-secs", "2"]);
    assert!(
        params
            .lines()
            .any(|l| l.contains("hello_secs") && l.contains('2')),
        "{params}"
    );

    let rules = place.path("rules.toml");
    let rules = rules.to_str().unwrap();
    fs::write(
        rules,
        "default = 'deny'\n[[rule]]\nprotocol = 'icmp'\naction = 'allow'\n",
    )
    .unwrap();
    let params = place.told(&["mesh", "params", "--json", "--rules", rules]);
    let params: Value = serde_json::from_str(&params).unwrap();
    assert_eq!(params["rules"]["default"], "deny");
    assert_eq!(params["rules"]["rule"][0]["protocol"], "icmp");

    let before = place.nodes();
    let backup = place.told(&["registry", "backup"]);
    place.stop();
    fs::remove_file(place.path("store")).unwrap();
    fs::write(place.path("backup"), backup + "\n").unwrap();
    let config = place.path("registry.toml").display().to_string();
    let mut restore = place.command(&["registry", "restore", "--config", &config]);
    restore.stdin(fs::File::open(place.path("backup")).unwrap());
    assert!(restore.status().unwrap().success());
    place.start();
    assert_eq!(place.nodes(), before);
    assert_eq!(place.told(&["mesh", "door"]), door);
}
