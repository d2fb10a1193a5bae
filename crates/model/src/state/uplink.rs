//! Answers on a physical network's link: the host gets what is sent there to workloads' addresses.

use std::net::IpAddr;

use hextet_types::IfName;
use serde::{Deserialize, Serialize};

/// The eBPF program on an uplink of the main namespace, which answers ARP and neighbour solicitations for the addresses in
/// its map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkProgram {
    /// The uplink.
    pub link: IfName,
}

/// An address for which the host answers on an uplink: an entry in that map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The uplink.
    pub link: IfName,
    /// The workload's address.
    pub addr: IpAddr,
}

/// A proxy neighbour (`ip neigh add proxy`): by it the kernel joins the group at which an IPv6 address is solicited (RFC 4861
/// §2.3), so that switches that snoop MLD (RFC 4541) hand the solicitations on. Others' on the same link stay theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// The uplink.
    pub link: IfName,
    /// The workload's address.
    pub addr: IpAddr,
}
