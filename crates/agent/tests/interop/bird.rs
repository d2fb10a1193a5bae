//! BIRD 2 on a host of a fabric.

use std::sync::Arc;

use hextet_lab::{Process, Ready, wait_until};

use crate::fabric::{Fabric, LIMIT, documented, wait_for};

/// A running BIRD.
pub struct Bird<'f> {
    fabric: &'f Fabric,
    host: String,
    process: Arc<Process>,
}

/// What a route reflector's configuration begins with.
pub fn preamble(fabric: &Fabric, host: &str) -> String {
    let (bfd, _) = documented("bird").split_once("protocol bgp").unwrap();
    format!(
        "log stderr all;\nrouter id {};\ndebug protocols {{ states, events }};\nprotocol device {{}}\n{bfd}",
        fabric.router_id(host)
    )
}

/// Static routes, which BIRD announces.
pub fn routes(v4: &[&str], v6: &[&str]) -> String {
    let list = |routes: &[&str]| -> String {
        routes
            .iter()
            .map(|route| format!("route {route} blackhole; "))
            .collect()
    };
    format!(
        "protocol static s4 {{ ipv4; {}}}\nprotocol static s6 {{ ipv6; {}}}\n",
        list(v4),
        list(v6)
    )
}

/// A client at the other end of a link, with that line for BFD.
pub fn client_with_bfd(fabric: &Fabric, host: &str, client: &str, bfd: &str) -> String {
    let (_, documented) = documented("bird").split_once("protocol bgp").unwrap();
    let protocol = format!("protocol bgp{documented}")
        .replace("fe80::2", &fabric.link_local(host))
        .replace("fe80::1%", &format!("{}%", fabric.link_local(client)))
        .replace("h1", client);
    assert_eq!(protocol.matches("bfd graceful;").count(), 1);
    protocol.replace("bfd graceful;", bfd)
}

/// A client at the other end of a link.
pub fn client(fabric: &Fabric, host: &str, client: &str) -> String {
    client_with_bfd(fabric, host, client, "bfd graceful;")
}

impl<'f> Bird<'f> {
    /// Starts it.
    pub fn start(fabric: &'f Fabric, host: &str, config: &str) -> Bird<'f> {
        Bird::start_with(fabric, host, config, &[])
    }

    /// Starts it after it was killed: `-R` makes it recover by graceful restart.
    pub fn restart(fabric: &'f Fabric, host: &str, config: &str) -> Bird<'f> {
        Bird::start_with(fabric, host, config, &["-R"])
    }

    fn start_with(fabric: &'f Fabric, host: &str, config: &str, more: &[&str]) -> Bird<'f> {
        let config = fabric.write(host, "bird.conf", config);
        let socket = fabric.path(host, "bird.ctl");
        let pid = fabric.path(host, "bird.pid");
        let [config, socket, pid] = [&config, &socket, &pid].map(|p| p.to_str().unwrap());
        let mut command = vec!["bird", "-f", "-c", config, "-s", socket, "-P", pid];
        command.extend(more);
        let ready = Some(Ready::Command(
            ["birdc", "-s", socket, "show", "status"]
                .map(str::to_owned)
                .to_vec(),
        ));
        let process = fabric.run(host, "bird", "bird2", &command, ready);
        Bird {
            fabric,
            host: host.to_owned(),
            process,
        }
    }

    /// Asks it something.
    pub fn ask(&self, question: &str) -> String {
        let socket = self.fabric.path(&self.host, "bird.ctl");
        let mut words = vec!["birdc", "-s", socket.to_str().unwrap()];
        words.extend(question.split(' '));
        let output = self.fabric.node(&self.host).output(&words).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Whether a session is up.
    pub fn established(&self, protocol: &str) -> bool {
        self.ask(&format!("show protocols {protocol}"))
            .contains("Established")
    }

    /// The lines that it has for a route, with their next hops.
    pub fn route(&self, prefix: &str) -> String {
        self.ask(&format!("show route {prefix} all"))
    }

    /// Waits until it has a route with these words in its lines.
    #[track_caller]
    pub fn wait_route(&self, prefix: &str, words: &[&str]) {
        let mut text = String::new();
        let found = wait_until(LIMIT, || {
            text = self.route(prefix);
            text.contains(prefix) && words.iter().all(|word| text.contains(word))
        });
        assert!(
            found,
            "BIRD has {prefix} with {words:?}; it has {text}\n{}",
            self.log()
        );
    }

    /// Waits until it has no such route.
    #[track_caller]
    pub fn wait_no_route(&self, prefix: &str) {
        wait_for(&format!("BIRD has no {prefix}"), || {
            !self.route(prefix).contains(prefix)
        });
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&self) {
        assert!(self.process.kill());
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
