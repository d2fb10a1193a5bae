//! The three ways to ask, by the libraries that speak them; each answer is waited for so long and no longer.
//!
//! All three are asked at once, but only PCP for the port itself: of the others it is asked first whether they are there. So never more than one
//! mapping is made, and none has to be taken back that the gateway may hold to be the same as the one that is kept.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crab_nat::{
    GatewayAddress, InternetProtocol, PortMapping, PortMappingOptions, PortMappingType,
    TimeoutConfig, natpmp, pcp,
};
use igd_next::{
    AddPortError, PortMappingProtocol, SearchOptions,
    aio::{
        Gateway as Device,
        tokio::{Tokio, search_gateway},
    },
};
use tokio::time::timeout;

use crate::{Granted, Mapping, Means, Transport, Wanted};

/// For an answer to a search, and for each answer of a device of UPnP.
const UPNP: Duration = Duration::from_secs(3);
/// For all that is asked of one means: UPnP may take a search and three requests.
const MEANS: Duration = Duration::from_secs(7);
/// Three datagrams within 2.1 s, of PCP and NAT-PMP.
const DATAGRAMS: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(300),
    max_retries: 2,
    max_retry_timeout: None,
};
/// Where devices of UPnP listen, and their port.
const SSDP: SocketAddr = SocketAddr::new(
    IpAddr::V4(std::net::Ipv4Addr::new(239, 255, 255, 250)),
    1_900,
);
/// What a device shows to people.
const NAME: &str = "hextet";

/// A port that is open, and by what it is kept so.
#[derive(Debug)]
pub enum Held {
    Datagrams(PortMapping),
    Upnp {
        device: Box<Device<Tokio>>,
        port: u16,
        /// 0 with a device that knows of no end.
        lease_secs: u32,
    },
}

/// Asks in all ways. The best that answers has opened the port then; within 14 s.
pub async fn open(wanted: &Wanted) -> Option<(Held, Granted)> {
    let pcp = timeout(MEANS, open_by_pcp(wanted));
    let others = async { tokio::join!(speaks_nat_pmp(wanted), find_device(wanted)) };
    tokio::pin!(pcp, others);
    let (nat_pmp, device) = tokio::select! {
        opened = &mut pcp => match opened {
            Ok(Some(opened)) => return Some(opened),
            _ => others.await,
        },
        found = &mut others => match pcp.await {
            Ok(Some(opened)) => return Some(opened),
            _ => found,
        },
    };
    if nat_pmp && let Ok(Some(opened)) = timeout(MEANS, open_by_nat_pmp(wanted)).await {
        return Some(opened);
    }
    timeout(MEANS, open_by_upnp(wanted, device?)).await.ok()?
}

async fn open_by_pcp(wanted: &Wanted) -> Option<(Held, Granted)> {
    let transport = transport(wanted);
    let request = pcp::BaseMapRequest::new(address(wanted), wanted.client, transport, wanted.port);
    let mapping = pcp::port_mapping(request, None, None, options(wanted)).await;
    hold_datagrams(wanted, said(Means::Pcp, mapping)?).await
}

async fn open_by_nat_pmp(wanted: &Wanted) -> Option<(Held, Granted)> {
    let (gateway, transport) = (address(wanted), transport(wanted));
    let mapping = natpmp::port_mapping(gateway, transport, wanted.port, options(wanted)).await;
    hold_datagrams(wanted, said(Means::NatPmp, mapping)?).await
}

async fn hold_datagrams(wanted: &Wanted, mapping: PortMapping) -> Option<(Held, Granted)> {
    let granted = granted_by_datagrams(wanted, &mapping).await;
    let held = Held::Datagrams(mapping);
    match granted {
        Some(granted) => Some((held, granted)),
        None => {
            held.give_back(wanted).await;
            None
        }
    }
}

/// Whether there is NAT-PMP: whoever speaks it says what its address is.
async fn speaks_nat_pmp(wanted: &Wanted) -> bool {
    if wanted.client.is_ipv6() {
        return false;
    }
    let address = natpmp::external_address(address(wanted), Some(DATAGRAMS)).await;
    said(Means::NatPmp, address).is_some()
}

/// A device of UPnP at the gateway's address, which is asked directly and with all others.
async fn find_device(wanted: &Wanted) -> Option<Device<Tokio>> {
    if wanted.client.is_ipv6() {
        return None;
    }
    let search = |to| {
        let mut options = SearchOptions::default();
        options.bind_addr = SocketAddr::new(wanted.client, 0);
        options.broadcast_address = to;
        options.timeout = Some(UPNP);
        options.single_search_timeout = Some(UPNP);
        search_gateway(options)
    };
    let directly = search(SocketAddr::new(wanted.gateway.address, SSDP.port()));
    let (direct, any) = (directly, search(SSDP));
    tokio::pin!(direct, any);
    let second = tokio::select! {
        found = &mut direct => match of_gateway(wanted, found) {
            Some(device) => return Some(device),
            None => any.await,
        },
        found = &mut any => match of_gateway(wanted, found) {
            Some(device) => return Some(device),
            None => direct.await,
        },
    };
    of_gateway(wanted, second)
}

fn of_gateway<E: std::fmt::Display>(
    wanted: &Wanted,
    found: Result<Device<Tokio>, E>,
) -> Option<Device<Tokio>> {
    said(Means::Upnp, found).filter(|device| device.addr.ip() == wanted.gateway.address)
}

async fn open_by_upnp(wanted: &Wanted, device: Device<Tokio>) -> Option<(Held, Granted)> {
    let ours = SocketAddr::new(wanted.client, wanted.port.get());
    let transport = upnp_transport(wanted);
    let mut lease_secs = wanted.lifetime_secs;
    // Ours outside as well, if nobody has it.
    let same = device.add_port(transport, ours.port(), ours, lease_secs, NAME);
    let mut port = match same.await {
        Ok(()) => Some(ours.port()),
        Err(AddPortError::OnlyPermanentLeasesSupported) => {
            lease_secs = 0;
            None
        }
        Err(error) => {
            tracing::debug!(%error, "UPnP: the same port");
            None
        }
    };
    if port.is_none() {
        let any = device.add_any_port(transport, ours, lease_secs, NAME);
        port = said(Means::Upnp, any.await);
    }
    let held = Held::Upnp {
        device: Box::new(device),
        port: port?,
        lease_secs,
    };
    match held.granted_by_device(wanted).await {
        Some(granted) => Some((held, granted)),
        None => {
            held.give_back(wanted).await;
            None
        }
    }
}

impl Held {
    /// Asks for the same again.
    pub async fn renew(&mut self, wanted: &Wanted) -> Option<Granted> {
        timeout(MEANS, self.ask_again(wanted)).await.ok()?
    }

    async fn ask_again(&mut self, wanted: &Wanted) -> Option<Granted> {
        match self {
            Held::Datagrams(mapping) => {
                let by = means(mapping);
                said(by, mapping.renew().await)?;
                granted_by_datagrams(wanted, mapping).await
            }
            Held::Upnp {
                device,
                port,
                lease_secs,
            } => {
                let ours = SocketAddr::new(wanted.client, wanted.port.get());
                let transport = upnp_transport(wanted);
                let again = device.add_port(transport, *port, ours, *lease_secs, NAME);
                said(Means::Upnp, again.await)?;
                self.granted_by_device(wanted).await
            }
        }
    }

    async fn granted_by_device(&self, wanted: &Wanted) -> Option<Granted> {
        let Held::Upnp { device, port, .. } = self else {
            return None;
        };
        let external = said(Means::Upnp, device.get_external_ip().await)?;
        // Devices do not say for how long; what is asked for is renewed at its half all the same.
        granted(wanted, Means::Upnp, external, *port, wanted.lifetime_secs)
    }

    /// Gives it back, as far as the gateway still answers.
    pub async fn give_back(self, wanted: &Wanted) {
        let given = async {
            match self {
                Held::Datagrams(mapping) => {
                    let by = means(&mapping);
                    said(by, mapping.try_drop().await.map_err(|(error, _)| error)).is_some()
                }
                Held::Upnp { device, port, .. } => {
                    let removed = device.remove_port(upnp_transport(wanted), port).await;
                    said(Means::Upnp, removed).is_some()
                }
            }
        };
        if timeout(MEANS, given).await != Ok(true) {
            tracing::debug!("a port is not given back, and ends by itself");
        }
    }
}

async fn granted_by_datagrams(wanted: &Wanted, mapping: &PortMapping) -> Option<Granted> {
    let external = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => external_ip,
        PortMappingType::NatPmp => {
            let address = natpmp::external_address(mapping.gateway(), Some(DATAGRAMS)).await;
            said(Means::NatPmp, address)?.into()
        }
    };
    let port = mapping.external_port().get();
    granted(wanted, means(mapping), external, port, mapping.lifetime())
}

/// What was said, if that can be an address of ours to anybody.
fn granted(wanted: &Wanted, by: Means, external: IpAddr, port: u16, secs: u32) -> Option<Granted> {
    let external = external.to_canonical();
    let is_one = external.is_ipv4() == wanted.client.is_ipv4()
        && !(external.is_unspecified() || external.is_loopback() || external.is_multicast());
    if !is_one || port == 0 || secs == 0 {
        tracing::debug!(%by, %external, port, secs, "no place where anybody could be reached");
        return None;
    }
    let external = SocketAddr::new(external, port);
    Some(Granted {
        mapping: Mapping { external, by },
        lifetime: Duration::from_secs(secs.into()),
    })
}

fn said<T, E: std::fmt::Display>(by: Means, answer: Result<T, E>) -> Option<T> {
    answer
        .inspect_err(|error| tracing::debug!(%by, %error, "a gateway was asked for a port"))
        .ok()
}

fn means(mapping: &PortMapping) -> Means {
    match mapping.mapping_type() {
        PortMappingType::NatPmp => Means::NatPmp,
        PortMappingType::Pcp { .. } => Means::Pcp,
    }
}

fn address(wanted: &Wanted) -> GatewayAddress {
    match wanted.gateway.address {
        IpAddr::V4(address) => GatewayAddress::IpV4(address),
        IpAddr::V6(address) => GatewayAddress::IpV6(address, wanted.gateway.scope),
    }
}

fn options(wanted: &Wanted) -> PortMappingOptions {
    PortMappingOptions {
        external_port: Some(wanted.port),
        lifetime_seconds: Some(wanted.lifetime_secs),
        timeout_config: Some(DATAGRAMS),
    }
}

const fn transport(wanted: &Wanted) -> InternetProtocol {
    match wanted.transport {
        Transport::Udp => InternetProtocol::Udp,
        Transport::Tcp => InternetProtocol::Tcp,
    }
}

const fn upnp_transport(wanted: &Wanted) -> PortMappingProtocol {
    match wanted.transport {
        Transport::Udp => PortMappingProtocol::UDP,
        Transport::Tcp => PortMappingProtocol::TCP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_could_reach_is_not_believed() {
        let wanted = |client: &str| Wanted {
            gateway: crate::Gateway {
                address: "192.0.2.1".parse().unwrap(),
                scope: None,
            },
            client: client.parse().unwrap(),
            port: 5_000.try_into().unwrap(),
            transport: Transport::Udp,
            lifetime_secs: 600,
        };
        let of = |client: &str, external: &str, port, secs| {
            let external = external.parse().unwrap();
            let granted = granted(&wanted(client), Means::Pcp, external, port, secs);
            granted.map(|granted| granted.mapping.external.to_string())
        };
        let (four, six) = ("192.0.2.2", "2001:db8::2");
        let good = Some("198.51.100.1:7".to_owned());
        assert_eq!(of(four, "198.51.100.1", 7, 60), good);
        assert_eq!(of(four, "::ffff:198.51.100.1", 7, 60), good);
        assert_eq!(of(six, six, 7, 60), Some("[2001:db8::2]:7".to_owned()));
        for bad in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "2001:db8::1"] {
            assert_eq!(of(four, bad, 7, 60), None, "{bad}");
        }
        for bad in ["::", "::1", "ff02::1", "192.0.2.1"] {
            assert_eq!(of(six, bad, 7, 60), None, "{bad}");
        }
        assert_eq!(of(four, "198.51.100.1", 0, 60), None);
        assert_eq!(of(four, "198.51.100.1", 7, 0), None);
    }
}
