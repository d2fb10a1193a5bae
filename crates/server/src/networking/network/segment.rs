//! What a network is made of: nothing of its own (routed), a physical network (flat), or a VXLAN segment (private). Physical
//! networks, segments and the names of namespaces on hosts are keys in the store, so no two networks ever have one.

use hextet_api::{
    error::{ApiError, Result},
    request::Input,
};
use hextet_model::neutron::{Network, NetworkType};
use hextet_types::NetworkId;
use rand::Rng;
use uuid::Uuid;

use crate::{keys, write::Write};

/// Identifiers drawn for one network; of a million networks one in a million draws is taken.
const DRAWS: usize = 16;

/// What a network is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// How it is built.
    pub network_type: NetworkType,
    /// A private network's VXLAN segment.
    pub id: Option<u32>,
    /// The physical network that it is.
    pub physical_network: Option<String>,
}

impl Segment {
    const ROUTED: Segment = Segment {
        network_type: NetworkType::Routed,
        id: None,
        physical_network: None,
    };

    fn vxlan(vni: u32) -> Segment {
        Segment {
            network_type: NetworkType::Vxlan,
            id: Some(vni),
            physical_network: None,
        }
    }
}

/// Chooses and claims what a new network is made of, and its identifier.
///
/// # Errors
///
/// 400: the request contradicts itself. 409 `TunnelIdInUse`: the segment is another network's. 503
/// `NoNetworkAvailable`: no segment is left.
pub fn choose(write: &mut Write<'_>, input: &Input) -> Result<(NetworkId, Segment)> {
    let network_type: Option<NetworkType> = input.get("provider:network_type")?;
    let physical: Option<String> = input.get("provider:physical_network")?;
    let id: Option<u32> = input.get("provider:segmentation_id")?;
    let external: bool = input.take("router:external")?;
    let segment = match (network_type, id) {
        (None, None) if physical.is_none() && external => Segment::ROUTED,
        (None, None) if physical.is_none() => any(write)?,
        (None, _) => return Err(ApiError::invalid_input("network_type required")),
        (Some(NetworkType::Routed), None) if physical.is_none() => Segment::ROUTED,
        (Some(NetworkType::Routed), _) => {
            return Err(ApiError::invalid_input(
                "a routed network has neither provider:physical_network nor \
                 provider:segmentation_id: it is not tied to a link",
            ));
        }
        (Some(NetworkType::Flat), Some(_)) => {
            return Err(ApiError::invalid_input(
                "segmentation_id prohibited for flat provider network",
            ));
        }
        (Some(NetworkType::Flat), None) => flat(write, physical)?,
        (Some(NetworkType::Vxlan), _) if physical.is_some() => {
            return Err(ApiError::invalid_input(
                "provider:physical_network specified for vxlan network",
            ));
        }
        (Some(NetworkType::Vxlan), Some(vni)) => this_one(write, vni)?,
        (Some(NetworkType::Vxlan), None) => free(write).ok_or_else(none_available)?,
    };
    Ok((identifier(write, &segment)?, segment))
}

/// A physical network is one network at most.
fn flat(write: &mut Write<'_>, physical: Option<String>) -> Result<Segment> {
    let Some(physical) = physical else {
        return Err(ApiError::invalid_input(
            "physical_network required for flat provider network",
        ));
    };
    let known = &write.policy.physical_networks;
    if !known.is_empty() && !known.contains(&physical) {
        return Err(ApiError::invalid_input(format!(
            "physical_network '{physical}' unknown for flat provider network"
        )));
    }
    let networks = &write.state.networks;
    let is_it = |n: &Network| {
        let named = n.physical_network.as_ref();
        n.network_type == NetworkType::Flat && named == Some(&physical)
    };
    let taken = networks.values().any(|n| is_it(n));
    if taken || !write.claim(keys::flat_network(&physical), "") {
        return Err(ApiError::conflict(
            "FlatNetworkInUse",
            format!("Unable to create the flat network. Physical network {physical} is in use."),
        ));
    }
    Ok(Segment {
        network_type: NetworkType::Flat,
        id: None,
        physical_network: Some(physical),
    })
}

/// What somebody gets who does not choose.
fn any(write: &mut Write<'_>) -> Result<Segment> {
    for network_type in &write.policy.tenant_network_types {
        match network_type {
            NetworkType::Routed => return Ok(Segment::ROUTED),
            NetworkType::Flat => {}
            NetworkType::Vxlan => {
                if let Some(segment) = free(write) {
                    return Ok(segment);
                }
            }
        }
    }
    Err(none_available())
}

fn none_available() -> ApiError {
    ApiError::new(
        503,
        "NoNetworkAvailable",
        "Unable to create the network. No tenant network is available for allocation.",
    )
}

fn this_one(write: &mut Write<'_>, vni: u32) -> Result<Segment> {
    if !write.state.segments.contains(vni.into()) && claim(write, vni) {
        return Ok(Segment::vxlan(vni));
    }
    Err(ApiError::conflict(
        "TunnelIdInUse",
        format!("Unable to create the network. The tunnel ID {vni} is in use."),
    ))
}

/// Claims a free segment. The search begins anywhere, so that writers at the same time want different ones.
fn free(write: &mut Write<'_>) -> Option<Segment> {
    let ranges = write.policy.vni_ranges.iter();
    let total: u64 = ranges.map(|range| u64::from(range.size())).sum();
    if total == 0 {
        return None;
    }
    let mut skip = rand::rng().random_range(0..total);
    let (mut before, mut from) = (Vec::new(), Vec::new());
    for range in &write.policy.vni_ranges {
        let (first, last) = range.ends();
        let size = u64::from(range.size());
        match u32::try_from(skip).ok().filter(|_| skip < size) {
            Some(within) if from.is_empty() => {
                from.push((first + within, last));
                before.push((first, first + within));
                skip = 0;
            }
            _ if from.is_empty() => {
                before.push((first, last));
                skip -= size;
            }
            _ => from.push((first, last)),
        }
    }
    let mut parts = from.into_iter().chain(before);
    parts
        .find_map(|part| free_within(write, part))
        .map(Segment::vxlan)
}

/// Claims a free segment for something else than a network.
///
/// # Errors
///
/// 503 `NoNetworkAvailable`.
pub fn spare(write: &mut Write<'_>) -> Result<u32> {
    let free = free(write).and_then(|segment| segment.id);
    free.ok_or_else(none_available)
}

fn free_within(write: &mut Write<'_>, (first, last): (u32, u32)) -> Option<u32> {
    let segments = &write.state.segments;
    let mut at = u128::from(first);
    while let Some(free) = segments.free_from(at, last.into()) {
        let vni = u32::try_from(free).ok()?;
        if claim(write, vni) {
            return Some(vni);
        }
        at = free + 1;
    }
    None
}

fn claim(write: &mut Write<'_>, vni: u32) -> bool {
    write.claim(keys::segment(vni), "")
}

/// An identifier whose namespace on hosts is no other network's: if it is, the commit fails and the write is
/// decided anew, with another one.
fn identifier(write: &mut Write<'_>, segment: &Segment) -> Result<NetworkId> {
    let mut drawn = (0..DRAWS).map(|_| NetworkId(Uuid::new_v4()));
    let found = match segment.network_type {
        NetworkType::Routed | NetworkType::Flat => drawn.next(),
        NetworkType::Vxlan => drawn.find(|id| write.claim(keys::namespace(*id), "")),
    };
    found.ok_or_else(none_available)
}

/// Gives up what a network that is deleted is made of.
pub fn release(write: &mut Write<'_>, network: &Network) {
    if network.network_type == NetworkType::Flat
        && let Some(physical) = &network.physical_network
    {
        write.release(keys::flat_network(physical));
    }
    if network.network_type == NetworkType::Vxlan {
        write.release(keys::namespace(network.id));
        if let Some(vni) = network.segmentation_id {
            write.release(keys::segment(vni));
        }
    }
}

/// What a private network cannot be, or come to be.
///
/// # Errors
///
/// 400: its packets are larger than tunnels carry, or it is to be what only routed networks are.
pub fn check_private(write: &Write<'_>, network: &Network, old: Option<&Network>) -> Result<()> {
    if network.network_type != NetworkType::Vxlan {
        return Ok(());
    }
    let max = write.policy.max_mtu(network.network_type);
    // What it has stays, although the configuration says something else by now.
    if network.mtu > max && old.is_none_or(|old| old.mtu != network.mtu) {
        return Err(ApiError::invalid_input(format!(
            "Requested MTU is too big, maximum is {max}"
        )));
    }
    if network.external {
        return Err(not_external());
    }
    if network.single_homed {
        return Err(ApiError::invalid_input(
            "hextet:single_homed is for routed networks: private ones have addresses of their own anyway",
        ));
    }
    Ok(())
}

/// The refusal to make a private network external.
pub fn not_external() -> ApiError {
    ApiError::invalid_input(
        "router:external is for routed networks: nobody outside reaches a private network's addresses",
    )
}
