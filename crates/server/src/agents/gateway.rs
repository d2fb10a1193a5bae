//! On which host a router with a gateway translates: chosen once, and kept as long as the host is fit for it and its
//! kernel answers those that watch it. An agent that is merely away moves nothing. Plans from the state, and may run
//! at any time.

mod silence;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use hextet_api::error::{ApiError, Result};
use hextet_model::neutron::Router;
use hextet_types::{HostId, RouterId};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use self::silence::{Record, Watchers, silent};
use super::{
    join::server,
    live::{FRESH, Live},
};
use crate::{
    cloud::Cloud,
    keys,
    networking::network::segment,
    state::{State, layer3::GatewayRecord, table::Row},
    write::Write,
};

/// Changes are collected for so long.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Looks again although nothing seems to have changed.
const AGAIN: Duration = Duration::from_secs(30);
/// The same, while a router waits for a host, whose agent may be heard of again; and while somebody is, or was lately,
/// silent.
const SOON: Duration = Duration::from_secs(2);
/// Routers in one transaction.
const CHUNK: usize = 200;

/// Whether routers may translate on the host.
pub fn is_fit(state: &State, host: &HostId) -> bool {
    let host_record = state.hosts.get(host);
    let willing = host_record.is_some_and(|h| h.gateway && h.admin_state_up);
    willing && state.tunnels.endpoint(host).is_some()
}

/// Whether something has to be done for the router.
fn is_due(state: &State, silent: &BTreeSet<HostId>, id: RouterId) -> bool {
    let record = state.layer3.gateways.get(&id);
    let router = state.layer3.routers.get(&id);
    if router.is_none_or(|r| r.gateways.is_empty()) {
        return record.is_some();
    }
    let host = record.and_then(|r| r.host.as_ref());
    host.is_none_or(|host| !is_fit(state, host) || silent.contains(host))
}

fn due(state: &State, silent: &BTreeSet<HostId>) -> Vec<RouterId> {
    let layer3 = &state.layer3;
    let routers = layer3.routers.ids().chain(layer3.gateways.ids());
    let routers: BTreeSet<RouterId> = routers.copied().collect();
    let due = routers.into_iter().filter(|id| is_due(state, silent, *id));
    due.collect()
}

/// Keeps them as they have to be, for ever.
pub async fn run(cloud: &Cloud, live: &Live) {
    let mut revisions = cloud.revisions();
    let mut pulses = live.pulses();
    let mut kernels = Kernels::new(Instant::now());
    loop {
        let now = cloud.state().gateway_changes;
        pulses.mark_unchanged();
        kernels.look(&cloud.state(), live, Instant::now());
        let done = reconcile(cloud, live, &kernels).await && kernels.lately.is_empty();
        let news = async {
            while cloud.state().gateway_changes == now && revisions.changed().await.is_ok() {}
        };
        let news = async {
            tokio::select! {
                () = news => sleep(DEBOUNCE).await,
                _ = pulses.changed() => {}
            }
        };
        let _ = timeout(if done { AGAIN } else { SOON }, news).await;
    }
}

/// How the hosts' kernels fare.
struct Kernels {
    since: Instant,
    silent: BTreeSet<HostId>,
    lately: Record,
}

impl Kernels {
    fn new(now: Instant) -> Kernels {
        Kernels {
            since: now,
            silent: BTreeSet::new(),
            lately: Record::default(),
        }
    }

    fn look(&mut self, state: &State, live: &Live, now: Instant) {
        let watchers = state.watches.all();
        let watchers: Watchers = watchers
            .map(|(host, by)| (host.clone(), by.cloned().collect()))
            .collect();
        let early = now.saturating_duration_since(self.since) < FRESH;
        let silent = silent(&watchers, &live.views(), early);
        for host in silent.difference(&self.silent) {
            warn!(%host, "a host's kernel answers those that watch it no longer");
        }
        for host in self.silent.difference(&silent) {
            info!(%host, "a host's kernel answers again");
        }
        self.lately.note(&silent, now);
        self.silent = silent;
    }
}

/// Does what has to be done; answers whether nothing is left.
async fn reconcile(cloud: &Cloud, live: &Live, kernels: &Kernels) -> bool {
    let silent = &kernels.silent;
    let due = due(&cloud.state(), silent);
    let is_alive = |host: &HostId| {
        !kernels.lately.distrusts(host) && live.heard(host).is_some_and(|h| h.is_fresh())
    };
    for chunk in due.chunks(CHUNK) {
        let caller = server();
        let result = cloud.write(&caller, |write| settle(write, chunk, silent, &is_alive));
        match result.await {
            Ok(chosen) => {
                for (router, host) in chosen {
                    info!(%router, %host, "a router translates there");
                }
            }
            Err(error) => warn!(%error, "choose routers' gateway hosts; trying again"),
        }
    }
    self::due(&cloud.state(), silent).is_empty()
}

/// Chooses anew, or gives up what nobody needs; answers what it has chosen. From a host that is merely silent
/// a router goes only where another takes it.
fn settle(
    write: &mut Write<'_>,
    routers: &[RouterId],
    silent: &BTreeSet<HostId>,
    is_alive: &impl Fn(&HostId) -> bool,
) -> Result<Vec<(RouterId, HostId)>> {
    let state = write.state;
    let fit = state.hosts.ids();
    let fit = fit.filter(|host| is_fit(state, host) && is_alive(host) && !silent.contains(*host));
    // How many routers each has, by now.
    let mut hosts: BTreeSet<(usize, &HostId)> = fit
        .map(|host| (state.layer3.gateways_by_host.count(host), host))
        .collect();
    let mut chosen = Vec::new();
    for id in routers.iter().filter(|id| is_due(state, silent, **id)) {
        let router = state.layer3.routers.row(id);
        let Some(row) = router.filter(|r| !r.value.gateways.is_empty()) else {
            release(write, *id);
            continue;
        };
        let least = hosts.first().copied();
        if least.is_none() && !is_due(state, &BTreeSet::new(), *id) {
            continue;
        }
        if let Err(error) = set(write, row, least.map(|(_, host)| host)) {
            warn!(router = %id, %error, "choose a router's gateway host; trying again");
            continue;
        }
        if let Some((count, host)) = least {
            hosts.remove(&(count, host));
            hosts.insert((count + 1, host));
            chosen.push((*id, host.clone()));
        }
    }
    Ok(chosen)
}

/// Lets a router with a gateway translate on the host, or for now on none.
///
/// # Errors
///
/// 503 `NoNetworkAvailable`: no VXLAN segment is left for it.
pub fn set(write: &mut Write<'_>, router: &Row<Router>, host: Option<&HostId>) -> Result<()> {
    let id = router.value.id;
    let row = write.state.layer3.gateways.row(&id);
    if row.map_or(host.is_none(), |r| r.value.host.as_ref() == host) {
        return Ok(());
    }
    write.unchanged(keys::router(id), router.mod_revision);
    if let Some(host) = host {
        write.exists(keys::host(host));
    }
    let host = host.cloned();
    match row {
        Some(row) => {
            let record = GatewayRecord {
                host,
                segment: row.value.segment,
                generation: row.value.generation + 1,
            };
            write.replace(keys::gateway(id), row.mod_revision, &record)
        }
        None => {
            let record = GatewayRecord {
                host,
                segment: segment::spare(write)?,
                generation: 1,
            };
            write.create(keys::gateway(id), &record)
        }
    }
}

/// A router that an administrator wants to translate on this host.
///
/// # Errors
///
/// 400: it cannot.
pub fn check(state: &State, router: &Router, host: &HostId) -> Result<()> {
    let refuse = |reason: &str| {
        Err(ApiError::invalid_input(format!(
            "hextet:gateway_host: {reason}"
        )))
    };
    if router.gateways.is_empty() {
        return refuse("the router has no external gateway");
    }
    let Some(record) = state.hosts.get(host) else {
        return refuse(&format!("no agent of a host {host} has joined"));
    };
    if !record.gateway {
        return refuse(&format!(
            "{host} is not to be one (gateway = false in its agent's configuration)"
        ));
    }
    if !record.admin_state_up {
        return refuse(&format!("the agent of {host} is set admin_state_up false"));
    }
    if state.tunnels.endpoint(host).is_none() {
        return refuse(&format!("{host} has no tunnel_address"));
    }
    Ok(())
}

/// A router has no gateway any more; who chooses a host for it at the same time notices.
pub fn release(write: &mut Write<'_>, id: RouterId) {
    let key = keys::gateway(id);
    match write.state.layer3.gateways.row(&id) {
        Some(row) => {
            write.release(keys::segment(row.value.segment));
            write.remove(key, row.mod_revision);
        }
        None => write.unchanged(key, 0),
    }
}

#[cfg(test)]
mod tests;
