//! FRR: its BGP with both families between link-local addresses, its BFD, and its C bit.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::Instant,
};

use hextet_lab::{Ready, wait_until};
use nix::unistd::{self, User};
use serde_json::Value;

use crate::{
    fabric::{Fabric, LIMIT, documented, wait_for},
    speaker::{Peer, Speaker, peers},
};

/// A running zebra, bfdd and bgpd, with directories of their own.
struct Frr<'f> {
    fabric: &'f Fabric,
    host: String,
}

impl<'f> Frr<'f> {
    fn start(fabric: &'f Fabric, host: &str, config: &str) -> Frr<'f> {
        let frr = Frr {
            fabric,
            host: host.to_owned(),
        };
        let directory = frr.directory();
        // It insists on a user of its own, who then has to own the directory.
        let user = User::from_name("frr")
            .unwrap()
            .expect("FRR is missing: apt-get install frr");
        fs::create_dir(&directory).unwrap();
        unistd::chown(directory.as_path(), Some(user.uid), Some(user.gid)).unwrap();
        let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
        let config = fabric
            .write(host, "frr.conf", config)
            .to_str()
            .unwrap()
            .to_owned();
        for daemon in ["zebra", "bfdd", "bgpd"] {
            let mut command = vec![format!("/usr/lib/frr/{daemon}")];
            let options = [
                ("-f", config.clone()),
                ("--vty_socket", path("")),
                ("-i", path(&format!("{daemon}.pid"))),
                ("-z", path("zserv.api")),
                ("-P", "0".to_owned()),
                ("--log", "stdout".to_owned()),
            ];
            let control = (daemon == "bfdd").then(|| ("--bfdctl", path("bfdd.sock")));
            for (option, value) in options.into_iter().chain(control) {
                command.extend([option.to_owned(), value]);
            }
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let ready = Ready::File(path(&format!("{daemon}.vty")));
            fabric.run(host, daemon, "frr", &command, Some(ready));
        }
        frr
    }

    fn directory(&self) -> PathBuf {
        self.fabric.path(&self.host, "frr")
    }

    /// Asks it something that it answers in JSON.
    fn ask(&self, question: &str) -> Value {
        let directory = self.directory();
        let words = [
            "vtysh",
            "--vty_socket",
            directory.to_str().unwrap(),
            "-c",
            question,
        ];
        let output = self.fabric.node(&self.host).output(&words).unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    #[track_caller]
    fn wait_route(&self, prefix: &str, next_hop: &str) {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let question = format!("show bgp {family} unicast {prefix} json");
        let mut answer = Value::Null;
        let found = wait_until(LIMIT, || {
            answer = self.ask(&question);
            let hops = &answer["paths"][0]["nexthops"];
            answer["paths"][0]["valid"] == true
                && hops
                    .as_array()
                    .is_some_and(|hops| hops.iter().any(|hop| hop["ip"] == next_hop))
        });
        assert!(
            found,
            "FRR has {prefix} by {next_hop}; it has {answer:#}\n{}",
            self.log()
        );
    }

    fn bfd_is_up(&self) -> bool {
        self.ask("show bfd peers json")[0]["status"] == "up"
    }

    fn log(&self) -> String {
        ["zebra", "bfdd", "bgpd"]
            .map(|daemon| self.fabric.log(&self.host, daemon))
            .concat()
    }
}

/// A route reflector with two routes of its own, and a line more for its client.
fn config(fabric: &Fabric, host: &str, more: &str) -> String {
    let global = format!(
        " bgp router-id {}\n no bgp network import-check\n neighbor fe80::1 remote-as",
        fabric.router_id(host)
    );
    let [v4, v6] = ["ipv4", "ipv6"].map(|family| format!(" address-family {family} unicast\n"));
    documented("frr")
        .replace(" neighbor fe80::1 remote-as", &global)
        .replace(&v4, &format!("{more}{v4}  network 203.0.113.0/24\n"))
        .replace(&v6, &format!("{v6}  network 2001:db8:100::/40\n"))
}

const THEIRS: [&str; 2] = ["203.0.113.0/24", "2001:db8:100::/40"];
const OURS: [&str; 2] = ["198.51.100.5/32", "2001:db8:1::5/128"];

/// Both families over one session between link-local addresses, with TCP MD5.
#[test]
fn frr_over_link_local_addresses_with_a_password() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let password = " neighbor fe80::1 password open-sesame\n";
    let s1 = Frr::start(&fabric, "s1", &config(&fabric, "s1", password));
    let path = fabric.write("h1", "password", "open-sesame\n");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let peer =
        Peer::link_local(&fabric, "s1").with(&format!("password_file = '{}'", path.display()));
    let h1 = Speaker::start(&fabric, "h1", &peers([peer]), &OURS);
    for prefix in THEIRS {
        h1.wait_route(prefix, &["fe80::2%s1"]);
    }
    for prefix in OURS {
        s1.wait_route(prefix, "fe80::1");
    }
}

/// FRR sets the C bit where it is told to mind it: then its silence is the path's, and routes go even if
/// there are no others.
#[test]
fn frr_by_bfd() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let s1 = Frr::start(&fabric, "s1", &config(&fabric, "s1", ""));
    let peer = Peer::link_local(&fabric, "s1").with("bfd = true");
    let h1 = Speaker::start(&fabric, "h1", &peers([peer]), &OURS);
    h1.wait_until("BFD is up", |seen| {
        seen.bfd.values().any(|state| state == "Up")
    });
    wait_for("FRR's BFD is up", || s1.bfd_is_up());
    for prefix in THEIRS {
        h1.wait_route(prefix, &["fe80::2%s1"]);
    }
    let since = Instant::now();
    fabric.silence("h1", "s1");
    for prefix in THEIRS {
        let after = h1.time_to_lose(since, prefix, "fe80::2%s1");
        println!(
            "FRR's link silent: {prefix} went after {} ms",
            after.as_millis()
        );
    }
    wait_for("FRR's BFD is down", || !s1.bfd_is_up());
    fabric.mend("h1", "s1");
    for prefix in THEIRS {
        h1.wait_route(prefix, &["fe80::2%s1"]);
    }
    for prefix in OURS {
        s1.wait_route(prefix, "fe80::1");
    }
}

/// The agent is killed, and its BFD with it, and returns: FRR, which minds the C bit, keeps its routes
/// meanwhile.
#[test]
fn frr_helps_a_killed_speaker() {
    helps(Speaker::kill);
}

/// The same where it is stopped, and says so by BFD.
#[test]
fn frr_helps_a_stopped_speaker() {
    helps(Speaker::stop);
}

fn helps(end: impl FnOnce(Speaker)) {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let s1 = Frr::start(&fabric, "s1", &config(&fabric, "s1", ""));
    let to_s1 = peers([Peer::link_local(&fabric, "s1").with("bfd = true")]);
    let h1 = Speaker::start(&fabric, "h1", &to_s1, &OURS);
    for prefix in OURS {
        s1.wait_route(prefix, "fe80::1");
    }
    wait_for("FRR's BFD is up", || s1.bfd_is_up());
    end(h1);
    wait_for("FRR's BFD is down", || !s1.bfd_is_up());
    wait_for("FRR has noticed", || {
        s1.ask("show bgp ipv4 unicast 198.51.100.5/32 json")["paths"][0]["stale"] == true
    });
    for prefix in OURS {
        s1.wait_route(prefix, "fe80::1");
    }
    let h1 = Speaker::restart(&fabric, "h1", &to_s1, &OURS[1..]);
    h1.wait_until("the restart is over", |seen| seen.complete);
    wait_for("what is not announced again goes", || {
        s1.ask("show bgp ipv4 unicast 198.51.100.5/32 json")["paths"].is_null()
    });
    s1.wait_route(OURS[1], "fe80::1");
}

/// FRR resets the session, and its NOTIFICATION means either a restart, which keeps its routes, or the end of
/// them (RFC 8538).
#[test]
fn frr_resets_the_session_softly_and_hard() {
    for (command, kept) in [
        ("no bgp hard-administrative-reset", true),
        ("bgp hard-administrative-reset", false),
    ] {
        let fabric = Fabric::new(&[("h1", "s1")]);
        let more = format!(" bgp graceful-restart notification\n {command}\n");
        let s1 = Frr::start(&fabric, "s1", &config(&fabric, "s1", &more));
        let h1 = Speaker::start(
            &fabric,
            "h1",
            &peers([Peer::link_local(&fabric, "s1")]),
            &OURS,
        );
        for prefix in THEIRS {
            h1.wait_route(prefix, &["fe80::2%s1"]);
        }
        for prefix in OURS {
            s1.wait_route(prefix, "fe80::1");
        }
        let before = h1.seen(|seen| seen.changes.len());
        s1.ask("clear bgp *");
        h1.wait_until("the session is back", |seen| {
            seen.peer("fe80::2")["flaps"] == 1 && seen.established("fe80::2")
        });
        for prefix in THEIRS {
            h1.wait_route(prefix, &["fe80::2%s1"]);
        }
        h1.wait_until("FRR has told all", |seen| {
            let families = seen.peer("fe80::2")["families"].as_array();
            families.is_some_and(|f| f.len() == 2 && f.iter().all(|f| f["complete"] == true))
        });
        let touched = h1.seen(|seen| seen.changes.len() > before);
        let why = h1.seen(|seen| seen.peer("fe80::2")["last_down"]["text"].clone());
        assert_eq!(touched, !kept, "{command}: {why}");
    }
}
