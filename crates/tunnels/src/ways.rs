//! How a tunnel's datagrams come and go: by a port of its own, or by doors.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use hextet_types::{IfName, Way};

use crate::{door::Door, inbox::Inbox, streams::Streams};

/// The ways of a tunnel.
#[derive(Debug)]
pub enum Ways {
    /// A socket that no other tunnel has, connected to nobody.
    Own(UdpSocket),
    /// Doors, one of each family at most, streams, and what came there.
    Doors(Vec<Arc<Door>>, Arc<Inbox>, Arc<Streams>),
}

impl Ways {
    /// By which something to that address leaves.
    pub fn socket_to(&self, to: SocketAddr) -> Option<&UdpSocket> {
        match self {
            Ways::Own(socket) => Some(socket),
            Ways::Doors(..) => self.door_to(to).map(|door| door.socket()),
        }
    }

    /// The door of an address's family.
    pub fn door_to(&self, to: SocketAddr) -> Option<&Arc<Door>> {
        match self {
            Ways::Own(_) => None,
            Ways::Doors(doors, ..) => doors
                .iter()
                .find(|door| door.address().is_ipv4() == to.is_ipv4()),
        }
    }

    /// Whether the tunnel can have a peer there.
    pub fn reach(&self, to: Way) -> bool {
        let Way::Udp(to) = to else {
            return self.streams().is_some();
        };
        self.addresses()
            .iter()
            .any(|address| address.is_ipv4() == to.is_ipv4())
    }

    /// Where datagrams come.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Ways::Own(socket) => socket.local_addr().into_iter().collect(),
            Ways::Doors(doors, ..) => doors.iter().map(|door| door.address()).collect(),
        }
    }

    /// What came at doors.
    pub const fn inbox(&self) -> Option<&Arc<Inbox>> {
        match self {
            Ways::Own(_) => None,
            Ways::Doors(_, inbox, _) => Some(inbox),
        }
    }

    /// Streams, if it may have some.
    pub const fn streams(&self) -> Option<&Arc<Streams>> {
        match self {
            Ways::Own(_) => None,
            Ways::Doors(_, _, streams) => Some(streams),
        }
    }

    /// There is to be a stream to that address, by the doors' uplink.
    pub fn dial(&self, to: SocketAddr) {
        if let Ways::Doors(doors, _, streams) = self {
            let uplink: Option<&IfName> = doors.iter().find_map(|door| door.uplink());
            streams.dial(to, uplink);
        }
    }

    /// Begins to hear.
    pub fn open(&self) {
        if let Ways::Doors(doors, inbox, streams) = self {
            doors.iter().for_each(|door| door.reception().admit(inbox));
            streams.reception().admit(inbox);
        }
    }

    /// Ends to hear.
    pub fn close(&self) {
        if let Ways::Doors(doors, inbox, streams) = self {
            doors
                .iter()
                .for_each(|door| door.reception().dismiss(inbox));
            streams.reception().dismiss(inbox);
        }
    }
}
