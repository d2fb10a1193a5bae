//! Sockets towards the world.

use std::{io, net::SocketAddr};

use hextet_kernel::ways::UNDERLAY;
use hextet_types::IfName;
use socket2::{Domain, Socket, Type};

/// One for addresses of that one's family, by an interface or as routes say. What leaves by it is marked: it does not go by the mesh itself,
/// whatever routes lead there.
pub fn open(address: SocketAddr, kind: Type, uplink: Option<&IfName>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let Some(uplink) = uplink {
        socket.bind_device(Some(uplink.as_str().as_bytes()))?;
    }
    socket.set_mark(UNDERLAY)?;
    Ok(socket)
}
