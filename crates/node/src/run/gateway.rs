//! Where this host's own way to the world leads, and what follows: a port at its gateway, and a way out for others.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use hextet_babel::number::Metric;
use hextet_kernel::filter::Filter;
use hextet_types::Family;
use tracing::{info, warn};

use super::Runner;
use crate::{
    babel::Order,
    gateway::{self, WayOut, table, ways_out},
    host, mapping,
};

/// What others have been told.
#[derive(Debug, Default)]
pub(super) struct Told {
    ways: Vec<WayOut>,
    /// As the table has been written.
    is_written: bool,
}

impl Runner {
    /// Where others reach `local` by the gateway.
    pub(super) fn mapped(&mut self, local: &[SocketAddr]) -> Vec<SocketAddr> {
        if !self.config.port_mapping {
            return Vec::new();
        }
        let uplink = self.config.uplinks.first();
        let link = uplink.and_then(host::index);
        if uplink.is_some() && link.is_none() {
            return Vec::new();
        }
        let leaving = self.ways.leaving(link);
        self.mappings.look(local, &leaving)
    }

    /// Tells others of the way out, while there is one.
    pub(super) async fn lead_out(&mut self) -> Result<()> {
        let ways = match self.config.gateway {
            true => self.ways_out(),
            false => Vec::new(),
        };
        if self.told_out.is_written && self.told_out.ways == ways {
            return Ok(());
        }
        // Nobody comes before his source is translated.
        if let Err(error) = write(&ways) {
            warn!("{error:#}");
            return Ok(());
        }
        let before = std::mem::replace(&mut self.told_out.ways, ways.clone());
        self.told_out.is_written = true;
        let [before, now] = [&before, &ways].map(|ways| {
            let destinations = ways.iter().filter_map(WayOut::destination);
            destinations.collect::<Vec<_>>()
        });
        for gone in before.iter().filter(|to| !now.contains(to)) {
            info!(to = %gone.prefix(), "no way out of the network any more");
            self.order(Order::Withdraw(*gone)).await?;
        }
        for new in now.iter().filter(|to| !before.contains(to)) {
            info!(to = %new.prefix(), "others leave the network by this node");
            self.order(Order::Originate(*new, Metric::ZERO)).await?;
        }
        Ok(())
    }

    fn ways_out(&mut self) -> Vec<WayOut> {
        let leaving = self.ways.leaving(None);
        let network = &self.node.trust().parameters().body;
        let name = |link| host::name(link)?.parse().ok();
        let source = |family: Family| {
            let gateway = leaving.iter().find(|way| way.family == family);
            let link_local = |address: &IpAddr| match address {
                IpAddr::V4(_) => false,
                IpAddr::V6(address) => address.is_unicast_link_local(),
            };
            // A link-local next hop would be written to from a link-local address.
            let next = gateway.and_then(|way| way.gateway);
            let next = next.filter(|next| !link_local(next));
            mapping::towards(next.unwrap_or_else(|| world(family)))
        };
        ways_out(network, &leaving, name, source)
    }
}

/// Nobody's address in the world: those for benchmarks (RFC 2544, RFC 5180).
fn world(family: Family) -> IpAddr {
    match family {
        Family::V4 => [198, 18, 0, 1].into(),
        Family::V6 => [0x2001, 2, 0, 0, 0, 0, 0, 1].into(),
    }
}

fn write(ways: &[WayOut]) -> Result<()> {
    let mut filter = Filter::open(gateway::TABLE)?;
    match table(ways) {
        Some(table) => filter.replace(&table)?,
        None => filter.remove()?,
    }
    Ok(())
}
