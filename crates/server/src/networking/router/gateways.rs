//! A router's places on external networks.
//!
//! The first one is `external_gateway_info`, for clients that know of one alone. Deviation: what
//! Neutron refuses with 500 (`UnableToMatchGateways` and its like) is 400 here, since the request is
//! what is wrong.

use std::{collections::BTreeSet, net::IpAddr, result::Result as Outcome, sync::Arc};

use hextet_api::error::{ApiError, Result};
use hextet_model::neutron::{Network, Port, Router, RouterGateway, Subnet};
use hextet_types::{NetworkId, ProjectId, QosPolicyId};
use serde::{Deserialize, Deserializer};

use super::{Attached, bad};
use crate::{
    keys,
    networking::{
        allocate::{Place, Wanted, allocate, reallocate},
        network::external,
        port::internal::{self, Purpose},
        qos,
    },
    write::Write,
};

/// Gateways of one router.
pub const MAX_GATEWAYS: usize = 16;

/// A gateway as a request asks for it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Wish {
    network_id: NetworkId,
    enable_snat: Option<bool>,
    external_fixed_ips: Option<Vec<Wanted>>,
    #[serde(default, deserialize_with = "named")]
    qos_policy_id: Option<Option<QosPolicyId>>,
}

/// What is named, be it null.
fn named<'de, D: Deserializer<'de>>(from: D) -> Outcome<Option<Option<QosPolicyId>>, D::Error> {
    Option::deserialize(from).map(Some)
}

impl Wish {
    fn fixed_ips(&self) -> Option<&[Wanted]> {
        self.external_fixed_ips.as_deref().filter(|f| !f.is_empty())
    }

    /// Whether the port has one of the addresses that are named, or none is.
    fn fits(&self, port: &Port) -> bool {
        let has = |w: &Wanted| {
            port.fixed_ips
                .iter()
                .any(|f| Some(f.ip_address) == w.ip_address)
        };
        port.network_id == self.network_id && self.fixed_ips().is_none_or(|f| f.iter().any(has))
    }
}

/// Whether there is SNAT, and by which address, an administrator says.
///
/// # Errors
///
/// 403.
pub(super) fn check_allowed(write: &Write<'_>, wish: &Wish, verb: &str) -> Result<()> {
    let named = [
        ("enable_snat", wish.enable_snat.is_some()),
        ("external_fixed_ips", wish.external_fixed_ips.is_some()),
    ];
    match named
        .iter()
        .find(|(_, named)| *named && !write.caller.admin)
    {
        None => Ok(()),
        Some((name, _)) => Err(ApiError::forbidden(format!(
            "{verb}_router:external_gateway_info:{name}"
        ))),
    }
}

/// Makes this the first gateway instead of the one that is; without it, the next one becomes it.
///
/// # Errors
///
/// As [`add`].
pub(super) fn set_first(
    write: &mut Write<'_>,
    router: &mut Router,
    attached: &mut Attached,
    wish: Option<&Wish>,
) -> Result<()> {
    router.enable_snat = wish.and_then(|w| w.enable_snat).unwrap_or(true);
    let first = router.gateways.first().map(|g| g.network_id);
    match wish {
        None => {
            remove_at(write, router, attached, 0);
            Ok(())
        }
        Some(wish) if first == Some(wish.network_id) => {
            network_for(write, wish)?;
            repolicy(write, router.gateways.first_mut(), wish)?;
            readdress(write, attached, 0, wish)
        }
        Some(wish) => {
            remove_at(write, router, attached, 0);
            add(write, router, attached, 0, wish)
        }
    }
}

/// Adds gateways behind those that are there.
///
/// # Errors
///
/// As [`add`].
pub(super) fn add_all(
    write: &mut Write<'_>,
    router: &mut Router,
    attached: &mut Attached,
    wishes: &[Wish],
) -> Result<()> {
    for wish in wishes {
        let at = router.gateways.len();
        if at == 0 {
            router.enable_snat = wish.enable_snat.unwrap_or(true);
        }
        add(write, router, attached, at, wish)?;
    }
    Ok(())
}

/// Makes these the router's gateways: those that are there stay, with the addresses that are named.
///
/// # Errors
///
/// As [`add`].
pub(super) fn replace_all(
    write: &mut Write<'_>,
    router: &mut Router,
    attached: &mut Attached,
    wishes: &[Wish],
) -> Result<()> {
    let mut left = Attached {
        interfaces: Vec::new(),
        gateways: std::mem::take(&mut attached.gateways),
    };
    let mut rest = std::mem::take(&mut router.gateways);
    let mut kept: Vec<Option<(RouterGateway, Arc<Port>)>> = Vec::new();
    for wish in wishes {
        let at = left.gateways.iter().position(|port| wish.fits(port));
        kept.push(at.map(|at| (rest.remove(at), left.gateways.remove(at))));
    }
    for gateway in rest {
        drop_gateway(write, gateway);
    }
    router.enable_snat = wishes.first().and_then(|w| w.enable_snat).unwrap_or(true);
    // New ones are to be apart from those that stay.
    for (gateway, port) in kept.iter().flatten() {
        router.gateways.push(*gateway);
        attached.gateways.push(Arc::clone(port));
    }
    for (at, (wish, kept)) in wishes.iter().zip(kept).enumerate() {
        match kept {
            Some(_) => {
                network_for(write, wish)?;
                repolicy(write, router.gateways.get_mut(at), wish)?;
                readdress(write, attached, at, wish)?;
            }
            None => add(write, router, attached, at, wish)?,
        }
    }
    Ok(())
}

/// Takes gateways away.
///
/// # Errors
///
/// 400: there is none like that, or there are several.
pub(super) fn remove_these(
    write: &mut Write<'_>,
    router: &mut Router,
    attached: &mut Attached,
    wishes: &[Wish],
) -> Result<()> {
    if wishes.is_empty() {
        return Ok(());
    }
    let refuse = |kind, text: String| Err(ApiError::new(400, kind, text));
    if router.gateways.is_empty() {
        return refuse(
            "UnableToRemoveGateways",
            format!(
                "Unable to remove extra gateways from a router {}",
                router.id
            ),
        );
    }
    for wish in wishes {
        let fitting = attached.gateways.iter().enumerate();
        let fitting: Vec<_> = fitting.filter(|(_, port)| wish.fits(port)).collect();
        match fitting.as_slice() {
            [(at, _)] => remove_at(write, router, attached, *at),
            _ => {
                return refuse(
                    "UnableToMatchGateways",
                    format!(
                        "Unable to match a requested gateway port to existing gateway ports for \
                         router {}: {} are on network {} with the addresses that are named",
                        router.id,
                        fitting.len(),
                        wish.network_id
                    ),
                );
            }
        }
    }
    Ok(())
}

/// Takes all gateways away.
pub(super) fn remove_all(write: &mut Write<'_>, router: &mut Router, attached: &mut Attached) {
    while !router.gateways.is_empty() {
        remove_at(write, router, attached, 0);
    }
}

fn remove_at(write: &mut Write<'_>, router: &mut Router, attached: &mut Attached, at: usize) {
    if at < router.gateways.len() {
        drop_gateway(write, router.gateways.remove(at));
    }
    if at < attached.gateways.len() {
        attached.gateways.remove(at);
    }
}

fn drop_gateway(write: &mut Write<'_>, gateway: RouterGateway) {
    qos::release(write, gateway.qos_policy_id, gateway.port_id.0);
    internal::delete(write, gateway.port_id);
}

/// Gives a gateway that is there the policy that is named, if one is.
fn repolicy(write: &mut Write<'_>, gateway: Option<&mut RouterGateway>, wish: &Wish) -> Result<()> {
    if let (Some(gateway), Some(policy)) = (gateway, wish.qos_policy_id) {
        qos::assign(write, gateway.qos_policy_id, policy, gateway.port_id.0)?;
        gateway.qos_policy_id = policy;
    }
    Ok(())
}

/// # Errors
///
/// 400: the network is not external for the caller, has a prefix in common with the router's others,
/// or not the addresses that are wanted. 404: no such network. 409: the addresses are in use.
fn add(
    write: &mut Write<'_>,
    router: &mut Router,
    attached: &mut Attached,
    at: usize,
    wish: &Wish,
) -> Result<()> {
    if router.gateways.len() >= MAX_GATEWAYS {
        return Err(bad(format!("a router has at most {MAX_GATEWAYS} gateways")));
    }
    let network = network_for(write, wish)?;
    let subnets: Vec<Arc<Subnet>> = write.state.subnets_of(network.id).cloned().collect();
    attached.check_apart(write.state, &subnets, true)?;
    let purpose = Purpose {
        project: ProjectId(String::new()),
        owner: Router::GATEWAY_OWNER,
        device: router.id.0,
    };
    let port = internal::create(write, &network, purpose, |write, place| {
        allocate(write, place, wish.fixed_ips())
    })?;
    let policy = wish.qos_policy_id.flatten();
    qos::assign(write, None, policy, port.id.0)?;
    let gateway = RouterGateway {
        network_id: network.id,
        port_id: port.id,
        qos_policy_id: policy,
    };
    router
        .gateways
        .insert(at.min(router.gateways.len()), gateway);
    attached
        .gateways
        .insert(at.min(attached.gateways.len()), port);
    Ok(())
}

fn network_for(write: &mut Write<'_>, wish: &Wish) -> Result<Arc<Network>> {
    let id = wish.network_id;
    let Some(row) = external(write, id)? else {
        return Err(bad(format!("Network {id} is not an external network")));
    };
    let wanted = wish.fixed_ips().unwrap_or_default();
    let wanted: BTreeSet<IpAddr> = wanted.iter().filter_map(|w| w.ip_address).collect();
    let mut gateways = write.state.subnets_of(id).filter_map(|s| s.gateway_ip);
    if let Some(taken) = gateways.find(|g| wanted.contains(g)) {
        return Err(bad(format!(
            "External IP {taken} is the same as the gateway IP"
        )));
    }
    Ok(Arc::clone(&row.value))
}

/// Gives a gateway the addresses that are named, where they are others.
fn readdress(write: &mut Write<'_>, attached: &mut Attached, at: usize, wish: &Wish) -> Result<()> {
    let (Some(wanted), Some(port)) = (wish.fixed_ips(), attached.gateways.get_mut(at)) else {
        return Ok(());
    };
    let state = write.state;
    let rows = (
        state.ports.row(&port.id),
        state.networks.get(&port.network_id),
    );
    let (Some(row), Some(network)) = rows else {
        return Ok(());
    };
    let place = Place {
        network,
        mac: port.mac_address,
        owner: Router::GATEWAY_OWNER,
        only_wanted: false,
    };
    let fixed_ips = reallocate(write, place, &row.value, Some(wanted))?;
    if fixed_ips != row.value.fixed_ips {
        *port = internal::change(write, row, |port| port.fixed_ips = fixed_ips)?;
    }
    Ok(())
}

/// Nobody depends on the gateways that go.
///
/// # Errors
///
/// 409 `RouterExternalGatewayInUseByFloatingIp`, `RouterGatewayInUseByNDPProxy`.
pub(super) fn check_losses(write: &mut Write<'_>, old: &Router, new: &Router) -> Result<()> {
    if old.gateways == new.gateways {
        return Ok(());
    }
    let stays = |id: NetworkId| new.gateways.iter().any(|g| g.network_id == id);
    let mut fips = write.state.layer3.floating_ips_through(old.id);
    if let Some(fip) = fips.find(|f| !stays(f.floating_network_id)) {
        return Err(ApiError::conflict(
            "RouterExternalGatewayInUseByFloatingIp",
            format!(
                "Gateway cannot be updated for router {}, since a gateway to external network {} \
                 is required by one or more floating IPs.",
                old.id, fip.floating_network_id
            ),
        ));
    }
    let first = |router: &Router| router.gateways.first().map(|g| g.network_id);
    let mut proxies = write.state.layer3.proxies_through(old.id);
    if first(old) != first(new) && proxies.next().is_some() {
        return Err(ApiError::conflict(
            "RouterGatewayInUseByNDPProxy",
            format!(
                "Unable to unset external gateway of router {}, There are one or more ndp proxies \
                 still in use on the router.",
                old.id
            ),
        ));
    }
    write.quiet(keys::router_uses(old.id));
    Ok(())
}
