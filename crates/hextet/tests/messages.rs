//! What a newcomer is told who gets something wrong: the thing, the reason and the way out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("hextet-messages-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the program says on standard error; it must fail.
fn refused(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hextet"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who does not read has ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn check(arguments: &[&str], input: &str, words: &[&str]) {
    let said = refused(arguments, input);
    for word in words {
        assert_eq!(said.matches(word).count(), 1, "'{word}' once in: {said}");
    }
}

const PORT: &str = "345f39c3-b0bf-4356-8f0a-566a34d326a0";

#[test]
fn arguments_that_are_none() {
    let explain = ["explain", "--from", "web/1", "--to", "::1"];
    let neither = "neither a port's identifier, which is a UUID, nor an interface's name";
    check(&explain, "", &["'web/1'", "--from", neither]);
    let explain = ["explain", "--from", PORT, "--to", "::1"];
    check(
        &explain,
        "",
        &["Add --tcp PORT, --udp PORT, --icmp TYPE or --protocol NUMBER"],
    );
    let token = ["server", "join-token", "--minutes", "0"];
    check(&token, "", &["--minutes", "0 is not in 1..=43200"]);
}

#[test]
fn a_host_that_is_not_up_and_uplinks_that_are_none() {
    let directory = Directory::new("single");
    let state = directory.0.join("state").display().to_string();
    let at = ["--state-dir", &state];
    let way_out = ["hextet is not up on this host", "'hextet up'"];
    for command in [vec!["down"], vec!["run", "--name", "web"]] {
        let mut arguments = [command.clone(), at.to_vec()].concat();
        if command[0] == "run" {
            arguments.extend(["--", "true"]);
        }
        check(&arguments, "", &way_out);
    }
    check(
        &[&["expose", "web", "80"][..], &at].concat(),
        "",
        &["clouds.yaml", "is hextet up on this host?"],
    );
    let up = |more: &[&'static str]| [&["up", "--dry-run"], more].concat();
    let words = ["there is no link nowhere0 that is up", "'ip link'"];
    check(&up(&["--uplink", "nowhere0"]), "", &words);
    let routed = up(&["--uplink", "lo", "--routed", "2001:db8::/96"]);
    check(&routed, "", &["--routed 2001:db8::/96", "a /64 or more"]);
}

#[test]
fn configurations_that_are_not_there_or_wrong() {
    let directory = Directory::new("config");
    let absent = directory.0.join("absent.toml").display().to_string();
    let way_out = ["there is no configuration", "absent.toml", "--config"];
    for command in [vec!["server"], vec!["server", "dump"], vec!["agent"]] {
        let arguments = [command, vec!["--config", &absent]].concat();
        check(&arguments, "", &way_out);
    }
    let typo = directory.file("typo.toml", "lisen = \"[::1]:0\"\n");
    let words = ["typo.toml", "unknown field `lisen`", "`listen`"];
    check(&["server", "--config", &typo], "", &words);
    let file = directory.file("file", "");
    let text = format!("data_dir = \"{file}/store\"\n");
    let inside = directory.file("inside.toml", &text);
    let words = ["`data_dir` in the configuration", "Not a directory"];
    check(&["server", "--config", &inside], "", &words);
}

#[test]
fn addresses_that_others_have_and_certificates_that_are_none() {
    let directory = Directory::new("listen");
    let taken = std::net::TcpListener::bind("[::1]:0").unwrap();
    let address = taken.local_addr().unwrap();
    let base = format!(
        "store = \"memory\"\ndata_dir = \"{0}\"\nadmin_socket = \"{0}/s\"\n",
        directory.0.display()
    );
    let text = format!("{base}listen = \"{address}\"\n");
    let config = directory.file("server.toml", &text);
    let words = ["listen for clients", "`listen` in the", "already in use"];
    check(&["server", "--config", &config], "", &words);
    let tls = format!("{base}[tls]\ncertificate = \"{config}\"\nkey = \"{config}\"\n");
    let config = directory.file("tls.toml", &tls);
    let words = ["server.toml holds no certificate in PEM form"];
    check(&["server", "--config", &config], "", &words);
}

#[test]
fn a_server_that_does_not_run_and_dumps_that_are_none() {
    let directory = Directory::new("dump");
    let there = directory.0.display();
    let text = format!("data_dir = \"{there}/data\"\nadmin_socket = \"{there}/s\"\n");
    let config = directory.file("server.toml", &text);
    let token = ["server", "join-token", "--config", &config];
    check(&token, "", &["no server listens at", "No such file"]);
    // An empty dump would be taken for a backup.
    let dump = ["server", "dump", "--config", &config];
    check(&dump, "", &["no server listens at", "there is no store"]);
    assert!(!Path::new(&format!("{there}/data")).exists());
    let load = ["server", "load", "--config", &config];
    fs::create_dir(directory.0.join("data")).unwrap();
    let words = ["load dump, line 1:", "no dump of a hextet store"];
    check(&load, "what else is there?\n", &words);
}

#[test]
fn an_agent_that_is_not_there_or_is_none() {
    let directory = Directory::new("agent");
    let socket = directory.0.join("agent.sock").display().to_string();
    for command in ["status", "plan"] {
        let words = ["no agent listens at", "No such file", "--agent"];
        check(&[command, "--agent", &socket], "", &words);
    }
    drop(UnixListener::bind(&socket).unwrap());
    let words = ["no agent listens at", "Connection refused"];
    check(&["port", "list", "--agent", &socket], "", &words);
}

#[test]
fn a_server_that_does_not_answer_a_host_that_joins() {
    let directory = Directory::new("join");
    let there = directory.0.display();
    let free = std::net::TcpListener::bind("[::1]:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let text = format!(
        "server = \"{address}\"\nstate_dir = \"{there}\"\n[host]\nhost = \"h1\"\nuplinks = [\"lo\"]\n"
    );
    let config = directory.file("agent.toml", &text);
    let token = format!("id.secret.{}", "0".repeat(64));
    let words = ["cannot join h1", "`server` in", "agent.toml", "refused"];
    let join = ["agent", "join", "--config", &config, "--token", &token];
    check(&join, "", &words);
}
