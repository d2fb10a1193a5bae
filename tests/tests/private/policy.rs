//! Policy that narrows cuts what it no longer allows: in its own network, in both directions, and nowhere else.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use hextet_types::Family;

use super::{
    host::wait_for,
    world::{Guest, World},
};

/// An open connection between two guests, by the nth of their addresses.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    fn open(world: &World, from: &Guest, to: &Guest, nth: usize) -> Connection {
        let addr = (to.addrs[nth], 7);
        let inside = |guest: &Guest| (&world.hosts[guest.host], guest.name.clone());
        let (host, name) = inside(to);
        let listener = host.inside(Some(&name), || TcpListener::bind(addr).unwrap());
        let (host, name) = inside(from);
        let client = host.inside(Some(&name), || TcpStream::connect(addr).unwrap());
        let (server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            let limit = Some(Duration::from_millis(700));
            end.set_read_timeout(limit).unwrap();
        }
        Connection { client, server }
    }

    /// Whether an octet comes through within a moment, each way.
    fn passes(&self) -> [bool; 2] {
        let across = |mut from: &TcpStream, mut to: &TcpStream| {
            from.write_all(b"x").is_ok() && to.read_exact(&mut [0]).is_ok()
        };
        [
            across(&self.client, &self.server),
            across(&self.server, &self.client),
        ]
    }
}

#[test]
fn narrowed_policy_cuts_its_own_flows_only() {
    let mut world = World::new(2, Family::V6);
    let groups = [world.open_group(), world.open_group()];
    let networks = [world.network(), world.network()];
    let trios = [0, 1].map(|n| {
        [
            world.guest(0, networks[n], 11, groups[n]),
            world.guest(0, networks[n], 12, groups[n]),
            world.guest(1, networks[n], 13, groups[n]),
        ]
    });
    world.tell();
    let all = |trio: &[Guest; 3]| {
        let ways = [(0, 1), (0, 2), (2, 0)];
        let open =
            |nth| ways.map(|(from, to)| Connection::open(&world, &trio[from], &trio[to], nth));
        [0, 1].map(open)
    };
    let [cut, kept] = trios.each_ref().map(all);
    for connection in cut.iter().chain(&kept).flatten() {
        assert_eq!(connection.passes(), [true, true]);
    }
    let group = world.cloud.intent.groups.get_mut(&groups[0]).unwrap();
    group.rules.clear();
    world.tell();
    for connection in cut.iter().flatten() {
        wait_for("the connection is cut", || {
            connection.passes() == [false, false]
        });
    }
    for connection in kept.iter().flatten() {
        assert_eq!(connection.passes(), [true, true]);
    }
}
