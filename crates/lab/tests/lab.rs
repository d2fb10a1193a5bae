//! Labs on a real kernel: made, broken, found again, torn down.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, process::Command, time::Duration};

use hextet_lab::{Error, Fault, Lab, LabFile, LabGuard, ProcessSpec, Ready, list, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

const PAIR: &str = r#"
name = "pair"
description = "two hosts on a link, one behind a bridge"
vars = { word = "hello" }

[node.a]
role = "host"
sysctls = { "net.ipv4.ip_forward" = "1", "net.ipv6.conf.eth0.hop_limit" = "17" }
name_servers = ["2001:db8::53"]
routes = ["203.0.113.0/24 via 192.0.2.2", "2001:db8:1::/48 via fe80::2 dev eth0", "blackhole 10.0.0.0/8"]
[node.b]
bridges.br0 = { ports = ["eth1"], addresses = ["198.51.100.1/24"] }
[node.c]

[[link]]
mtu = 1400
a = { node = "a", dev = "eth0", mac = "02:00:00:00:00:0a", addresses = ["192.0.2.1/24", "fe80::1/64"] }
b = { node = "b", dev = "eth0", addresses = ["192.0.2.2/24", "fe80::2/64"] }
[[link]]
a = { node = "b", dev = "eth1" }
b = { node = "c", dev = "eth0", addresses = ["198.51.100.2/24"] }

[[process]]
node = "a"
name = "once"
once = true
command = ["sh", "-c", "echo @word@ from @node@ > once.txt"]

[[process]]
node = "a"
name = "daemon"
command = ["sh", "-c", "read word < once.txt; echo $word $GREETING; exec sleep 1000"]
env = { GREETING = "of @lab@" }
ready = { log = "hello from a of" }

[[process]]
node = "b"
name = "later"
manual = true
command = ["sleep", "1000"]
"#;

fn file(name: &str) -> LabFile {
    let file = LabFile::parse(PAIR, Path::new("/nowhere/pair.toml")).unwrap();
    file.named(&format!("{name}-{}", std::process::id()))
        .unwrap()
}

fn up(name: &str) -> LabGuard {
    Lab::up(file(name)).unwrap().guard()
}

fn left_over(lab: &str) -> bool {
    let namespaces = std::fs::read_dir("/run/netns").unwrap();
    let prefix = format!("hxlab-{lab}-");
    namespaces
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        || Path::new("/run/hextet/labs").join(lab).exists()
}

#[test]
fn a_lab_is_what_its_file_says() {
    let lab = up("says");
    let (a, b) = (lab.node("a").unwrap(), lab.node("b").unwrap());
    assert!(a.ping("192.0.2.2").unwrap());
    assert!(a.ping("fe80::2%eth0").unwrap());
    assert!(b.ping("198.51.100.2").unwrap(), "through the bridge");
    assert!(!a.ping("198.51.100.2").unwrap(), "no route there");
    assert_eq!(a.sysctl("net.ipv4.ip_forward").unwrap(), "1");
    assert_eq!(a.sysctl("net.ipv6.conf.eth0.hop_limit").unwrap(), "17");
    assert_eq!(b.sysctl("net.ipv4.ip_forward").unwrap(), "0");
    let link = a.run(&["ip", "link", "show", "eth0"]).unwrap();
    assert!(
        link.contains("mtu 1400") && link.contains("02:00:00:00:00:0a"),
        "{link}"
    );
    let routes = a.run(&["ip", "route"]).unwrap() + &a.run(&["ip", "-6", "route"]).unwrap();
    for route in [
        "203.0.113.0/24 via 192.0.2.2",
        "2001:db8:1::/48 via fe80::2",
        "blackhole 10.0.0.0/8",
    ] {
        assert!(routes.contains(route), "{routes}");
    }
    assert_eq!(
        a.run(&["cat", "/etc/resolv.conf"]).unwrap(),
        "nameserver 2001:db8::53\n"
    );
    assert!(
        !b.run(&["cat", "/etc/resolv.conf"])
            .unwrap()
            .contains("2001:db8::53")
    );
}

#[test]
fn programs_run_are_found_and_are_started_again() {
    let lab = up("runs");
    let daemon = lab.process("a/daemon").unwrap();
    assert!(daemon.runs());
    assert_eq!(
        daemon.log().trim(),
        format!("hello from a of {}", lab.name())
    );
    assert!(!lab.process("a/once").unwrap().runs());
    assert!(matches!(
        lab.process("b/later"),
        Err(Error::Unknown {
            kind: "process",
            ..
        })
    ));
    let later = lab.start("b/later").unwrap();
    assert_eq!(
        lab.start("b/later").unwrap().pid(),
        later.pid(),
        "left alone while it runs"
    );
    assert!(daemon.kill());
    assert!(!daemon.runs());
    let again = lab.start("a/daemon").unwrap();
    assert!(again.runs() && again.pid() != daemon.pid());
    // Another program sees the same.
    let other = Lab::open(lab.name()).unwrap();
    assert_eq!(other.process("a/daemon").unwrap().pid(), again.pid());
    assert!(other.node("a").unwrap().ping("192.0.2.2").unwrap());
    let summary = list()
        .into_iter()
        .find(|summary| summary.name == lab.name())
        .unwrap();
    assert_eq!(summary.nodes.len(), 3);
    assert_eq!(summary.nodes[0], ("a".to_owned(), "host".to_owned()));
    let running: Vec<&str> = summary
        .processes
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(running, ["b/later", "a/daemon"]);
}

#[test]
fn down_takes_everything_and_may_be_said_twice() {
    let lab = up("down");
    let name = lab.name().to_owned();
    let b = lab.node("b").unwrap();
    // What a program leaves behind in a session of its own is ended too.
    b.run(&["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & exit 0"])
        .unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "setsid sleep 1000 & exit 0"]);
    assert!(lab.spawn(&b, "leaver", &mut command).unwrap().wait(LIMIT));
    assert!(matches!(Lab::up(file("down")), Err(Error::AlreadyUp(_))));
    let downed = Lab::down(&name).unwrap();
    assert_eq!((downed.processes, downed.namespaces), (3, 3));
    assert!(!left_over(&name));
    assert_eq!(Lab::down(&name).unwrap(), hextet_lab::Downed::default());
    assert!(matches!(Lab::open(&name), Err(Error::NotUp { .. })));
}

#[test]
fn a_crash_leaves_nothing_that_down_would_not_find() {
    let lab = Lab::up(file("crash")).unwrap();
    let (name, daemon) = (lab.name().to_owned(), lab.process("a/daemon").unwrap());
    // As if our process had died: nobody holds anything, and the record is half gone.
    std::mem::forget(lab);
    std::fs::remove_file(Path::new("/run/hextet/labs").join(&name).join("lab.toml")).unwrap();
    assert!(list().iter().any(|summary| summary.name == name));
    Lab::down(&name).unwrap();
    assert!(!daemon.runs());
    assert!(!left_over(&name));
}

#[test]
fn a_lab_that_can_not_come_up_leaves_nothing() {
    let table = [
        (
            "command = [\"sleep\", \"1000\"]\nready = { file = \"@dir@/never\" }\nready_secs = 1",
            "was not ready within 1 s",
        ),
        (
            "command = [\"sh\", \"-c\", \"echo told why; exit 3\"]\nready = { file = \"x\" }",
            "told why",
        ),
        ("command = [\"false\"]\nonce = true", "exit status: 1"),
        (
            "command = [\"no-such-program\"]",
            "start 'no-such-program' on c",
        ),
        (
            "command = [\"echo\", \"@nothing@\"]",
            "no variable @nothing@",
        ),
        (
            "command = [\"true\"]\nfiles = { x = \"nowhere.conf\" }",
            "/nowhere/nowhere.conf",
        ),
    ];
    for (number, (process, message)) in table.into_iter().enumerate() {
        let name = format!("broken{number}-{}", std::process::id());
        let text = format!("{PAIR}\n[[process]]\nnode = \"c\"\nname = \"broken\"\n{process}\n");
        let file = LabFile::parse(&text, Path::new("/nowhere/pair.toml")).unwrap();
        let error = Lab::up(file.named(&name).unwrap()).unwrap_err();
        assert!(error.to_string().contains(message), "{process}\n→ {error}");
        assert!(!left_over(&name));
    }
}

#[test]
fn a_route_that_ip_refuses_is_named() {
    let name = format!("route-{}", std::process::id());
    let text = "name = \"x\"\n[node.a]\nroutes = [\"blackhole 192.0.2.0/24\", \"198.51.100.0/24 dev eth9\"]\n";
    let file = LabFile::parse(text, Path::new("x.toml"))
        .unwrap()
        .named(&name)
        .unwrap();
    let error = Lab::up(file).unwrap_err().to_string();
    assert!(
        error.contains("route add 198.51.100.0/24 dev eth9 on a"),
        "{error}"
    );
    assert!(error.contains("eth9"), "{error}");
    assert!(!left_over(&name));
}

#[test]
fn labs_side_by_side_do_not_meet() {
    let labs: Vec<LabGuard> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|n| scope.spawn(move || up(&format!("side{n}"))))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    labs[0].node("a").unwrap().set_link("eth0", false).unwrap();
    assert!(!labs[0].node("a").unwrap().ping("192.0.2.2").unwrap());
    for lab in &labs[1..] {
        assert!(lab.node("a").unwrap().ping("192.0.2.2").unwrap());
        assert!(lab.process("a/daemon").unwrap().runs());
    }
}

#[test]
fn faults_come_and_go_in_both_directions() {
    let lab = up("faults");
    let (a, b) = (lab.node("a").unwrap(), lab.node("b").unwrap());
    let stream = lab
        .ping_stream(&a, "stream", "192.0.2.2", Duration::from_millis(10))
        .unwrap();
    assert!(wait_until(LIMIT, || stream.received() >= 20));
    lab.break_link("a", "eth0", Fault::Silence).unwrap();
    assert!(!a.ping("192.0.2.2").unwrap() && !b.ping("192.0.2.1").unwrap());
    let link = a.run(&["ip", "link", "show", "eth0"]).unwrap();
    assert!(link.contains("LOWER_UP"), "the carrier stays: {link}");
    lab.mend_link("b", "eth0").unwrap();
    assert!(a.ping("192.0.2.2").unwrap() && b.ping("fe80::1%eth0").unwrap());
    let before = stream.received();
    assert!(wait_until(LIMIT, || stream.received() >= before + 20));
    let report = stream.finish().unwrap();
    assert!(report.lost() > 0 && report.received >= 40, "{report:?}");
    assert!(
        report.longest_gap > Duration::from_secs(1),
        "two pings of a second went unanswered: {report:?}"
    );
    lab.break_link("a", "eth0", Fault::Loss(50)).unwrap();
    let stream = lab
        .ping_stream(&a, "stream", "192.0.2.2", Duration::from_millis(10))
        .unwrap();
    assert!(wait_until(LIMIT, || stream.received() >= 20));
    assert!(stream.finish().unwrap().lost() > 0);
    lab.mend_link("a", "eth0").unwrap();
    lab.mend_link("a", "eth0").unwrap();
    let stream = lab
        .ping_stream(&a, "stream", "192.0.2.2", Duration::from_millis(10))
        .unwrap();
    assert!(wait_until(LIMIT, || stream.received() >= 50));
    assert_eq!(stream.finish().unwrap().lost(), 0);
    assert!(matches!(
        lab.mend_link("a", "eth9"),
        Err(Error::Unknown { kind: "link", .. })
    ));
}

#[test]
fn a_program_may_see_the_nodes_own_sys_and_sockets() {
    let lab = up("view");
    let mut spec = ProcessSpec::new("a", "look", &["sh", "-c", "ls /sys/class/net > seen"]);
    spec.once = true;
    spec.private_sys = true;
    lab.run_spec(&spec).unwrap();
    let seen = std::fs::read_to_string(lab.node_directory("a").join("seen")).unwrap();
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
    let mut listener = ProcessSpec::new("b", "listener", &["nc", "-lk", "192.0.2.2", "7"]);
    listener.ready = Some(Ready::Tcp("192.0.2.2:7".to_owned()));
    lab.run_spec(&listener).unwrap();
    let a = lab.node("a").unwrap();
    assert!(a.connects("192.0.2.2".parse().unwrap(), 7, LIMIT).unwrap());
    assert!(!a.connects("192.0.2.2".parse().unwrap(), 8, LIMIT).unwrap());
    assert!(
        !lab.node("c")
            .unwrap()
            .connects("192.0.2.2".parse().unwrap(), 7, LIMIT)
            .unwrap()
    );
}

#[test]
fn a_node_may_name_namespaces_that_nobody_else_sees() {
    let text = "name = \"own\"\n[node.a]\nown_netns = true\n[node.b]\nown_netns = true\n[node.c]\n";
    let file = LabFile::parse(text, Path::new("/nowhere/own.toml")).unwrap();
    let file = file.named(&format!("own-{}", std::process::id())).unwrap();
    let lab = Lab::up(file).unwrap().guard();
    let name = format!("same-{}", std::process::id());
    let [a, b, c] = ["a", "b", "c"].map(|node| lab.node(node).unwrap());
    // The same name on two nodes; each keeps its own from one program to the next.
    for (node, address) in [(&a, "192.0.2.1/32"), (&b, "192.0.2.2/32")] {
        node.run(&["ip", "netns", "add", &name]).unwrap();
        let inside = ["ip", "-n", &name];
        let add = ["addr", "add", address, "dev", "lo"];
        node.run(&[&inside[..], &add].concat()).unwrap();
    }
    let shown = b.run(&["ip", "-n", &name, "addr", "show"]).unwrap();
    assert!(
        shown.contains("192.0.2.2") && !shown.contains("192.0.2.1"),
        "{shown}"
    );
    let elsewhere = c.run(&["ip", "netns", "list"]).unwrap();
    assert!(!elsewhere.contains(&name), "{elsewhere}");
    // Who opens the lab again sees the same; and the lab's own namespaces are there.
    let again = Lab::open(lab.name()).unwrap().node("a").unwrap();
    let seen = again.run(&["ip", "netns", "list"]).unwrap();
    assert!(seen.contains(&name) && seen.contains(c.netns()), "{seen}");
}
