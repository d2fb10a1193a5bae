//! Metadata that Nova tells, from end to end: guests that ask on their links, a real agent and a real server, and a
//! service that checks what is signed as Nova does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../cloud/mod.rs"]
mod cloud;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream},
    process::Command,
    time::Duration,
};

use cloud::{Cloud, Guest};
use nix::net::if_::if_nametoindex;
use serde_json::{Value, json};

const NOVA: &str = "8775";
const SECRET: &str = "shared by both";
const SERVERS: [&str; 2] = [
    "0c0a1f1e-8f2e-4b2a-9d5c-0a6f0a2b3c4d",
    "7d9b1c58-65a0-47cd-8a8e-5f6f1c7a2b10",
];
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);
const PATIENCE: Duration = Duration::from_secs(30);

/// The places where metadata is asked for; the number of the guest's link is known to the guest alone.
fn places() -> [SocketAddr; 3] {
    let zone = if_nametoindex("eth0").unwrap();
    [
        "169.254.169.254:80".parse().unwrap(),
        SocketAddr::V6(SocketAddrV6::new(LINK_LOCAL, 80, 0, zone)),
        "[fd00:ec2::254]:80".parse().unwrap(),
    ]
}

/// The status, and what follows the headers.
fn ask(guest: &Guest, place: usize, request: &str) -> std::io::Result<(u16, String)> {
    let asked = || {
        let mut stream = TcpStream::connect_timeout(&places()[place], PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        Ok((status.unwrap_or(0), body.to_owned()))
    };
    guest.place.enter(asked).unwrap()
}

fn get(guest: &Guest, place: usize, path: &str) -> (u16, String) {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\
         X-Instance-ID: {}\r\nX-Tenant-ID: another\r\nX-Forwarded-For: 192.0.2.1\r\n\
         X-Instance-ID-Signature: 00\r\n\r\n",
        SERVERS[1]
    );
    ask(guest, place, &request).unwrap_or_default()
}

fn is_told(guest: &Guest, place: usize, server: &str) -> bool {
    let (status, text) = get(guest, place, "/openstack/latest/meta_data.json");
    let told: Value = serde_json::from_str(&text).unwrap_or_default();
    status == 200 && told["uuid"] == server && told["address"] == json!(guest.own[0].to_string())
}

fn cloud() -> Cloud {
    Cloud::up_with(|directory| {
        let file = directory.join("secret");
        fs::write(&file, format!("{SECRET}\n")).unwrap();
        let file = file.display();
        format!(
            "[nova]\nurl = \"http://[::1]:8774/v2.1\"\nevents = false\nusername = \"nova\"\n\
             password_file = \"{file}\"\nmetadata_url = \"http://[::1]:{NOVA}\"\n\
             metadata_secret_file = \"{file}\"\n"
        )
    })
}

fn nova() -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nova_metadata/nova.py");
    let mut command = Command::new("python3");
    command.args([script, NOVA, SECRET]);
    command
}

/// As it would by DHCP and router advertisements.
fn configure(guest: &Guest) {
    for (family, addr, len, gateway) in [
        ("-4", guest.own[0], 24, "10.0.0.1"),
        ("-6", guest.own[1], 64, "fe80::1"),
    ] {
        let addr = format!("{addr}/{len}");
        let add = ["ip", family, "address", "replace", &addr, "dev", "eth0"];
        let more: &[&str] = if len == 64 { &["nodad"] } else { &[] };
        guest.place.run(&[&add, more].concat()).unwrap();
        let route = ["ip", family, "route", "replace", "default", "via", gateway];
        guest
            .place
            .run(&[&route, &["dev", "eth0"][..]].concat())
            .unwrap();
    }
}

#[test]
fn nova_tells_its_servers_of_themselves() {
    let mut cloud = cloud();
    let guests = [1, 2].map(|n| cloud.guest(n, n, &[]));
    let other = cloud.guest(3, 1, &[]);
    guests.iter().chain([&other]).for_each(configure);
    for (guest, server) in guests.iter().zip(SERVERS) {
        let server = json!({"device_owner": "compute:nova", "device_id": server});
        cloud.update(guest, &server);
    }
    // Nova is away, which is not the guest's fault.
    cloud.until("Nova is missed", || get(&guests[0], 0, "/").0 == 504);
    cloud.beside_server("nova", &mut nova());
    // Whatever they say of themselves, both are told who they are, at each place.
    for (guest, server) in guests.iter().zip(SERVERS) {
        for place in 0..3 {
            let what = format!("{server} is told of itself at place {place}");
            cloud.until(&what, || is_told(guest, place, server));
        }
    }
    // Who is no server of Nova's is told by hextet.
    let (status, id) = get(&other, 0, "/latest/meta-data/instance-id");
    assert_eq!((status, id), (200, other.port.clone()));

    assert_eq!(get(&guests[0], 2, "/nothing").0, 404);
    let (status, long) = get(&guests[0], 2, "/long");
    assert_eq!((status, long.len()), (200, 200_000));
    // What one says, another does not hear.
    let post = "POST /openstack/latest/password HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
                Content-Length: 6\r\n\r\nsecret";
    assert_eq!(ask(&guests[0], 1, post).unwrap().0, 200);
    let password = "/openstack/latest/password";
    assert_eq!(get(&guests[0], 0, password), (200, "secret".to_owned()));
    assert_eq!(get(&guests[1], 0, password), (200, String::new()));
}
