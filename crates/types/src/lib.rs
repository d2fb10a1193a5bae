//! The words every other crate speaks: addresses, prefixes, identifiers, time; and the octets that they come in.
//!
//! Each type is parsed once, at the edge, and is valid from then on: fields are private, `FromStr` and
//! serde go through the same check. This crate knows no I/O, no clock and no randomness, and depends
//! on neither tokio nor netlink.

mod addr;
mod bucket;
mod id;
mod mac;
mod number;
pub mod octets;
mod time;
mod way;

pub use addr::{Family, Prefix, PrefixError};
pub use bucket::Bucket;
pub use id::{
    AddressGroupId, AddressScopeId, FloatingIpId, HostId, HostIdError, IfName, IfNameError,
    MeteringLabelId, MeteringRuleId, NdpProxyId, NetworkId, PortForwardingId, PortId, ProjectId,
    QosPolicyId, QosRuleId, RbacPolicyId, RouterId, SecurityGroupId, SecurityGroupRuleId, SubnetId,
    SubnetPoolId, UserId,
};
pub use mac::{Mac, MacError};
pub use number::{Asn, Vni, VniError};
pub use time::Time;
pub use way::{Way, WayError};
