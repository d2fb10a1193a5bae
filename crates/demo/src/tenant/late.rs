//! Subnets that a network gets when its ports are there already.

use anyhow::Result;
use hextet_types::Family;
use serde_json::json;

use super::{Tenant, guest::Guest};
use crate::{clients, probe::Reach, rest::addresses};

/// A SLAAC subnet gives an address to the ports of a network of IPv4 alone, and an IPv4 subnet to those of one of IPv6
/// alone; guests that ask get them, without being plugged anew.
pub fn subnet(t: &Tenant) -> Result<String> {
    let project = &t.projects[1];
    let mut told = Vec::new();
    for (names, first, later) in [
        (["late1", "late2"], "10.5.0.0/24", "fd00:5::/64"),
        (["late3", "late4"], "fd00:6::/64", "10.6.0.0/24"),
    ] {
        let network = project.network(names[0], &[first])?;
        let start = |name, host| t.start(project, &network, (name, host), &json!({}));
        let mut guests = [start(names[0], 0)?, start(names[1], 1)?];
        project.subnet(&network, json!({"cidr": later}))?;
        let looked = guests
            .iter_mut()
            .try_for_each(|guest| gets_another(t, guest, later))
            .and_then(|()| reach_each_other(&guests, later));
        for guest in &guests {
            guest.delete(&t.admin, &t.hosts[guest.host])?;
        }
        looked?;
        told.push(format!("{} beside {first}", guests[0].within(later)?));
    }
    Ok(format!(
        "{}: given to ports that were there, got by their guests, and reached",
        told.join(", ")
    ))
}

/// The port has an address of the later subnet, and the guest gets it as it would any: by RA, or by asking by DHCP.
fn gets_another(t: &Tenant, guest: &mut Guest, later: &str) -> Result<()> {
    guest.addresses = addresses(&t.admin.show("port", &guest.port)?)?;
    let address = guest.within(later)?;
    if address.is_ipv4() {
        clients::dhclient(&guest.place, Family::V4, &t.lab.node_directory(&guest.name))?;
    }
    clients::has(&guest.place, address)
}

fn reach_each_other([a, b]: &[Guest; 2], later: &str) -> Result<()> {
    a.place.reaches(b.within(later)?, 10)?;
    b.place.reaches(a.within(later)?, 10)
}
