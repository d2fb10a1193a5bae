//! What a port's RA, DHCPv4 and DHCPv6 say.

use hextet_types::PortId;

use super::unit::View;
use crate::{
    neutron::Port,
    state::{Netns, Responder},
};

/// The responder of a port that is up.
pub fn of_port(_view: View<'_>, port: &Port) -> Option<(PortId, Responder)> {
    let responder = Responder {
        netns: Netns::Main,
        link: port.if_name(),
    };
    Some((port.id, responder))
}
