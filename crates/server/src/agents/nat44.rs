//! Source addresses for NAT44: a port of owner `network:nat44` for each host that has joined and each
//! subnet with NAT44, out of the subnet's pool. Plans from the state, and may run at any time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use hextet_api::error::{ApiError, Result};
use hextet_model::neutron::{Binding, Port, Standard, Status, Subnet};
use hextet_types::{HostId, Mac, PortId, ProjectId, SubnetId};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use uuid::Uuid;

use super::join::server;
use crate::{
    cloud::Cloud,
    keys,
    networking::{
        allocate::{Place, Wanted, allocate},
        entity::Entity,
        port,
    },
    state::{NAT44_OWNER, State},
    write::Write,
};

/// Changes are collected for so long.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Looks again although nothing seems to have changed: a pool may have addresses again.
const AGAIN: Duration = Duration::from_secs(30);

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Job {
    /// Give the host sources for the subnet.
    Add(HostId, SubnetId),
    /// Take this port away.
    Remove(PortId),
}

fn plan(state: &State) -> Vec<Job> {
    let mut jobs = Vec::new();
    let pooled = |s: &Subnet| s.nat44.is_some_and(|nat| nat.pool_subnet_id.is_some());
    let subnets: Vec<_> = state.subnets.values().filter(|s| pooled(s)).collect();
    let mut good: BTreeSet<PortId> = BTreeSet::new();
    for host in state.hosts.ids() {
        for subnet in &subnets {
            match source(state, host, subnet.id) {
                Some(port) if fits(port, subnet) => drop(good.insert(port.id)),
                Some(_) => {}
                None => jobs.push(Job::Add(host.clone(), subnet.id)),
            }
        }
    }
    let all = state.views.all_sources().filter(|id| !good.contains(id));
    jobs.extend(all.map(|id| Job::Remove(*id)));
    jobs
}

fn source<'s>(state: &'s State, host: &HostId, subnet: SubnetId) -> Option<&'s Arc<Port>> {
    let device = subnet.to_string();
    let mut ports = state
        .views
        .sources_of(host)
        .filter_map(|id| state.ports.get(id));
    ports.find(|p| p.device_id == device)
}

fn fits(port: &Port, subnet: &Subnet) -> bool {
    subnet.nat44.is_some_and(|nat| {
        port.fixed_ips.len() == usize::from(nat.addresses_per_host)
            && port
                .fixed_ips
                .iter()
                .all(|f| Some(f.subnet_id) == nat.pool_subnet_id)
    })
}

/// Keeps sources as they have to be, for ever.
pub async fn run(cloud: &Cloud) {
    let mut revisions = cloud.revisions();
    let mut seen = None;
    loop {
        let now = cloud.state().nat44_changes;
        let done = if seen == Some(now) {
            true
        } else {
            reconcile(cloud).await
        };
        seen = done.then_some(now);
        let news = async {
            while cloud.state().nat44_changes == now && revisions.changed().await.is_ok() {}
        };
        let _ = timeout(AGAIN, news).await;
        sleep(DEBOUNCE).await;
    }
}

/// Does what has to be done; answers whether nothing is left.
async fn reconcile(cloud: &Cloud) -> bool {
    let jobs = plan(&cloud.state());
    let mut done = true;
    for job in jobs {
        let result = cloud.write(&server(), |write| act(write, &job)).await;
        match result {
            Ok(()) => info!(?job, "NAT44 sources"),
            Err(error) => {
                warn!(?job, %error, "NAT44 sources; trying again");
                done = false;
            }
        }
    }
    done
}

fn act(write: &mut Write<'_>, job: &Job) -> Result<()> {
    let state = write.state;
    match job {
        Job::Remove(id) => {
            if let Some(row) = state.ports.row(id) {
                remove(write, &row.value.clone());
            }
            Ok(())
        }
        Job::Add(host, subnet) => {
            let there = source(state, host, *subnet).is_some() || state.hosts.get(host).is_none();
            match state.subnets.row(subnet) {
                Some(row) if !there => {
                    write.unchanged(row.value.key(), row.mod_revision);
                    write.exists(keys::host(host));
                    add(write, host, &row.value)
                }
                _ => Ok(()),
            }
        }
    }
}

fn remove(write: &mut Write<'_>, port: &Port) {
    if let (Some(host), Ok(subnet)) = (&port.binding.host_id, port.device_id.parse()) {
        write.release(keys::nat44(subnet, host));
    }
    if let Some(row) = write.state.ports.row(&port.id) {
        port::remove(write, row);
    }
}

/// Takes all of a host's sources away.
pub fn remove_sources(write: &mut Write<'_>, host: &HostId) {
    let state = write.state;
    let ports: Vec<_> = state
        .views
        .sources_of(host)
        .filter_map(|id| state.ports.get(id))
        .collect();
    for port in ports {
        remove(write, port);
    }
}

fn add(write: &mut Write<'_>, host: &HostId, subnet: &Subnet) -> Result<()> {
    let gone = || ApiError::conflict("SubnetInUse", "the pool of NAT44 sources is gone");
    let Some(nat) = subnet.nat44 else {
        return Ok(());
    };
    let Some(pool) = nat.pool_subnet_id else {
        return Ok(());
    };
    let pool = write.state.subnets.get(&pool).ok_or_else(gone)?;
    let row = write
        .state
        .networks
        .row(&pool.network_id)
        .ok_or_else(gone)?;
    let network = Arc::clone(&row.value);
    write.unchanged(network.key(), row.mod_revision);
    if !write.claim(keys::nat44(subnet.id, host), Bytes::new()) {
        return Ok(());
    }
    let id = PortId(Uuid::new_v4());
    let [a, b, c, d, ..] = *id.0.as_bytes();
    // Nobody ever sends from it; it only has to be the port's own.
    let mac = Mac::new([0x02, 0x16, a, b, c, d]);
    let wanted = Wanted {
        subnet_id: nat.pool_subnet_id,
        ip_address: None,
    };
    let wanted = vec![wanted; usize::from(nat.addresses_per_host)];
    let place = Place {
        network: &network,
        mac,
        owner: NAT44_OWNER,
        only_wanted: true,
    };
    let fixed_ips = allocate(write, place, Some(&wanted))?;
    let port = Port {
        id,
        standard: Standard {
            project_id: ProjectId(String::new()),
            name: format!("nat44 {host}"),
            description: String::new(),
            tags: Vec::new(),
            revision_number: 1,
            created_at: write.now,
            updated_at: write.now,
        },
        network_id: network.id,
        mac_address: mac,
        fixed_ips,
        device_id: subnet.id.to_string(),
        device_owner: NAT44_OWNER.to_owned(),
        admin_state_up: true,
        status: Status::Active,
        security_groups: Vec::new(),
        port_security_enabled: true,
        allowed_address_pairs: Vec::new(),
        extra_dhcp_opts: Vec::new(),
        dns_name: String::new(),
        metadata: None,
        exposed: Vec::new(),
        delegated_prefixes: Vec::new(),
        qos_policy_id: None,
        binding: Binding {
            host_id: Some(host.clone()),
            ..Binding::default()
        },
    };
    port::finish_create(write, &network, port).map(drop)
}
