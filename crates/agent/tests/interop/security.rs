//! TCP MD5 (RFC 2385) and GTSM (RFC 5082) with BIRD: who does not have them gets no session.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::{
    bird::{self, Bird},
    fabric::{ASN, Fabric, wait_for},
    speaker::{Peer, Speaker, peers},
};

/// The peers of h1 on their link with s1, by IPv4 and by IPv6; with those lines more for each.
fn over_both_families(fabric: &Fabric, more: [&str; 2]) -> String {
    let addresses = fabric.addresses("s1", "h1");
    peers(addresses.iter().zip(more).map(|(address, more)| Peer {
        name: address.clone(),
        address: address.clone(),
        interface: "s1".to_owned(),
        more: format!("asn = {ASN}\n{more}\n"),
    }))
}

/// The same for BIRD; the protocols are `ipv4` and `ipv6`.
fn bird_over_both_families(fabric: &Fabric, more: [&str; 2]) -> String {
    let (ours, theirs) = (fabric.addresses("s1", "h1"), fabric.addresses("h1", "s1"));
    let families = ["ipv4", "ipv6"].into_iter().zip(ours.iter().zip(&theirs));
    families.zip(more).fold(bird::preamble(fabric, "s1"), |config, ((family, (local, remote)), more)| {
        config
            + &format!(
                "protocol bgp {family}_ {{ local {local} as {ASN}; neighbor {remote} as {ASN}; direct; \
                 connect delay time 1; connect retry time 1; error wait time 1, 2; {more}; \
                 {family} {{ import all; export all; }}; }}\n"
            )
    })
}

fn password(fabric: &Fabric, name: &str, secret: &str) -> String {
    let path = fabric.write("h1", name, &format!("{secret}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    format!("password_file = '{}'", path.display())
}

/// Sessions with the right key come up, whoever connects; one with a wrong key does not.
#[test]
fn only_the_right_key_opens_a_session() {
    for passive in ["passive on", "passive off"] {
        let fabric = Fabric::new(&[("h1", "s1")]);
        let right = password(&fabric, "right", "correct horse battery staple");
        let wrong = password(&fabric, "wrong", "Tr0ub4dor&3");
        let theirs = format!("password \"correct horse battery staple\"; {passive}");
        for wrong_family in 0..2 {
            let mut keys = [right.as_str(), right.as_str()];
            keys[wrong_family] = &wrong;
            let s1 = Bird::start(
                &fabric,
                "s1",
                &bird_over_both_families(&fabric, [&theirs, &theirs]),
            );
            let h1 = Speaker::start(&fabric, "h1", &over_both_families(&fabric, keys), &[]);
            let addresses = fabric.addresses("s1", "h1");
            h1.wait_until("the session with the right key", |seen| {
                seen.established(&addresses[1 - wrong_family])
            });
            // The kernel counts what it threw away.
            wait_for("a segment with a wrong key", || {
                let counters = fabric
                    .node("s1")
                    .run(&["nstat", "-asz", "TcpExtTCPMD5Failure"])
                    .unwrap();
                let counter = counters
                    .lines()
                    .find_map(|l| l.strip_prefix("TcpExtTCPMD5Failure"));
                counter.is_some_and(|rest| rest.split_whitespace().next() != Some("0"))
            });
            assert!(h1.seen(|seen| !seen.established(&addresses[wrong_family])));
            h1.kill();
            s1.kill();
        }
    }
}

/// With GTSM at both ends sessions come up; a peer without it is not heard.
#[test]
fn gtsm_needs_both_ends() {
    for passive in ["passive on", "passive off"] {
        let fabric = Fabric::new(&[("h1", "s1")]);
        for without in 0..2 {
            let secured = format!("ttl security on; {passive}");
            let mut theirs = [secured.as_str(), secured.as_str()];
            theirs[without] = passive;
            let s1 = Bird::start(&fabric, "s1", &bird_over_both_families(&fabric, theirs));
            let ours = over_both_families(&fabric, ["gtsm = true", "gtsm = true"]);
            let h1 = Speaker::start(&fabric, "h1", &ours, &[]);
            let addresses = fabric.addresses("s1", "h1");
            h1.wait_until("the session with GTSM", |seen| {
                seen.established(&addresses[1 - without])
            });
            assert!(h1.seen(|seen| !seen.established(&addresses[without])));
            h1.kill();
            s1.kill();
        }
    }
}

/// A password that others can read is refused, with what to do.
#[test]
fn a_password_file_is_private() {
    let fabric = Fabric::new(&[("h1", "s1")]);
    let path = fabric.write("h1", "open", "secret");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let text = format!(
        "asn = 64512\nrouter_id = '192.0.2.1'\n[[peers]]\nname = 's1'\naddress = '192.0.2.2'\nasn = 64512\n\
         password_file = '{}'\n",
        path.display()
    );
    let config = toml::from_str(&text).unwrap();
    let (_announce, announcements) = tokio::sync::watch::channel(Default::default());
    let clock = hextet_agent::clock::Clock::start();
    let (_drain, drained) = tokio::sync::watch::channel(Default::default());
    let error =
        hextet_agent::bgp::start(&config, clock, false, announcements, drained).unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("can be read by others (mode 640): chmod 600 it"),
        "{error}"
    );
}
