//! Links' groups against a real kernel.

#![allow(clippy::expect_used, reason = "in a test, that is how it fails")]
#![allow(dead_code, reason = "the support is other tests' too")]

mod support;

use std::collections::BTreeMap;

use hextet_kernel::netns::Handle;
use hextet_model::state::{Key, Link, Netns, Object};
use support::{GATEWAY, Host, NamedNetns, isolated, name, run, states};

/// A port's link, up and in that group.
fn grouped(netns: &Netns, group: u32) -> BTreeMap<Key, Object> {
    states([Object::Link(Link {
        netns: netns.clone(),
        name: name("tap1"),
        mac: GATEWAY,
        mtu: 1400,
        group,
        up: true,
    })])
}

/// What a namespace's links tell.
struct Notices(netlink_sys::Socket);

impl Notices {
    const RTNLGRP_LINK: u32 = 1;

    fn open() -> Self {
        let protocol = netlink_sys::protocols::NETLINK_ROUTE;
        let mut socket = netlink_sys::Socket::new(protocol).expect("a socket");
        socket.bind_auto().expect("an address");
        socket
            .add_membership(Self::RTNLGRP_LINK)
            .expect("a membership");
        socket.set_non_blocking(true).expect("a socket");
        Notices(socket)
    }

    fn count(&self) -> usize {
        std::iter::from_fn(|| self.0.recv_from_full().ok()).count()
    }
}

/// By netlink a link's new group is told to all parts of the kernel, IPv6 among them, which goes through all routes
/// then.
fn changes_without_a_word(netns: &Netns, run: impl Fn(&str) -> String) {
    run("ip link add tap1 type veth peer name peer1");
    let mut host = Host::open();
    host.reconcile(&grouped(netns, 7));
    let there = Handle::open(netns).expect("a handle");
    let told = there.run(Notices::open).expect("a thread");
    for group in [70_000, 1 << 31 | 5] {
        assert_eq!(host.reconcile(&grouped(netns, group)), 1);
        assert_eq!(told.count(), 0, "group {group}");
    }
    run("ip link set tap1 group 9");
    assert!(told.count() > 0, "what netlink changes is told");
    assert_eq!(host.reconcile(&grouped(netns, 70_000)), 1);
    assert!(run("ip link show tap1").contains("group 70000"));
}

#[test]
fn a_link_that_is_up_changes_its_group_without_a_word() {
    isolated(|| changes_without_a_word(&Netns::Main, run));
}

#[test]
fn so_does_one_in_another_namespace() {
    isolated(|| {
        let there = NamedNetns::create();
        changes_without_a_word(&there.netns(), |command| there.run(command));
    });
}
