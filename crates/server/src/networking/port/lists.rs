//! The lists of a port's request: address pairs and DHCP options.

use hextet_api::{
    error::{ApiError, Result},
    request::Input,
};
use hextet_autoconf::ExtraOption;
use hextet_model::neutron::{AddressPair, DhcpOption};
use hextet_types::{Mac, Prefix};
use serde::Deserialize;

/// DHCP options of one port; more than these are not sent (`hextet_autoconf::PortConfig`).
const MAX_OPTIONS: usize = 64;
/// Allowed address pairs of one port.
const MAX_PAIRS: usize = 10;

/// An address pair as a request has it: without an Ethernet address it has the port's.
#[derive(Deserialize)]
struct Pair {
    ip_address: Prefix,
    mac_address: Option<Mac>,
}

pub fn pairs(input: &Input, mac: Mac) -> Result<Vec<AddressPair>> {
    let given: Vec<Pair> = input.get("allowed_address_pairs")?.unwrap_or_default();
    if given.len() > MAX_PAIRS {
        return Err(ApiError::new(
            400,
            "AllowedAddressPairExhausted",
            format!("The number of allowed address pair exceeds the maximum {MAX_PAIRS}."),
        ));
    }
    let mut pairs: Vec<AddressPair> = Vec::with_capacity(given.len());
    for Pair {
        ip_address,
        mac_address,
    } in given
    {
        let pair = AddressPair {
            ip_address,
            mac_address: mac_address.unwrap_or(mac),
        };
        if pairs.contains(&pair) {
            return Err(ApiError::new(
                400,
                "DuplicateAddressPairInRequest",
                format!(
                    "Request contains duplicate address pair: mac_address {} ip_address {}.",
                    pair.mac_address, pair.ip_address
                ),
            ));
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

/// A DHCP option as a request has it: without a value it takes the option away.
#[derive(Deserialize)]
struct Option_ {
    opt_name: String,
    opt_value: Option<String>,
    ip_version: u8,
}

pub fn dhcp_options(input: &Input, present: &[DhcpOption]) -> Result<Vec<DhcpOption>> {
    let given: Vec<Option_> = input.get("extra_dhcp_opts")?.unwrap_or_default();
    let mut options = present.to_vec();
    for Option_ {
        opt_name,
        opt_value,
        ip_version,
    } in given
    {
        options.retain(|o| (&o.opt_name, o.ip_version) != (&opt_name, ip_version));
        if let Some(opt_value) = opt_value {
            ExtraOption::parse(&opt_name, &opt_value, ip_version)
                .map_err(|e| ApiError::new(400, "InvalidInput", e.to_string()))?;
            options.push(DhcpOption {
                opt_name,
                opt_value,
                ip_version,
            });
        }
    }
    if options.len() > MAX_OPTIONS {
        return Err(ApiError::invalid_input(format!(
            "a port has at most {MAX_OPTIONS} extra_dhcp_opts"
        )));
    }
    Ok(options)
}
