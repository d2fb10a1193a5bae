//! Identity associations (RFC 8415 §12): what a client holds or wants, and what the port has for it.
//!
//! One identity association gets all the port's addresses, one all its prefixes; temporary addresses
//! are not offered. Which one depends on the message alone: the one that already holds something of
//! ours, or else the first of its kind.

use std::net::{IpAddr, Ipv6Addr};

use hextet_types::Prefix;

use super::message::{Options, code, status};
use crate::{
    config::{Ipv6Mode, PortConfig},
    reader::Reader,
};

/// What an identity association is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// IA_NA.
    Addresses,
    /// IA_TA.
    Temporary,
    /// IA_PD.
    Prefixes,
}

/// An identity association of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ia {
    pub(super) purpose: Purpose,
    id: u32,
    /// Addresses as prefixes of 128 bits; without prefixes that only hint at a length (`::/56`).
    pub(super) items: Vec<Prefix>,
}

/// An address or prefix of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) item: Prefix,
    preferred_secs: u32,
    valid_secs: u32,
}

/// An identity association and what it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binding<'a> {
    ia: &'a Ia,
    leases: Vec<Lease>,
}

/// All that the port has for a purpose.
pub(super) fn leases(config: &PortConfig, purpose: Purpose) -> Vec<Lease> {
    match purpose {
        Purpose::Addresses => config
            .ipv6
            .iter()
            .filter(|subnet| subnet.mode == Ipv6Mode::Dhcpv6Stateful)
            .filter_map(|subnet| {
                Some(Lease {
                    item: Prefix::host(IpAddr::V6(subnet.address?)),
                    preferred_secs: subnet.preferred_lifetime_secs,
                    valid_secs: subnet.valid_lifetime_secs,
                })
            })
            .collect(),
        Purpose::Temporary => Vec::new(),
        Purpose::Prefixes => config
            .delegated
            .iter()
            .map(|delegation| Lease {
                item: delegation.prefix,
                preferred_secs: delegation.preferred_lifetime_secs,
                valid_secs: delegation.valid_lifetime_secs,
            })
            .collect(),
    }
}

/// Decides which identity association gets what.
pub(super) fn bind<'a>(config: &PortConfig, ias: &'a [Ia]) -> Vec<Binding<'a>> {
    let chosen = |purpose: Purpose| {
        let own = leases(config, purpose);
        let held = |ia: &Ia| ia.items.iter().any(|i| own.iter().any(|l| l.item == *i));
        let of_purpose = |ia: &Ia| ia.purpose == purpose;
        let holder = ias.iter().position(|ia| of_purpose(ia) && held(ia));
        (holder.or_else(|| ias.iter().position(of_purpose)), own)
    };
    let (addresses_to, addresses) = chosen(Purpose::Addresses);
    let (prefixes_to, prefixes) = chosen(Purpose::Prefixes);
    ias.iter()
        .enumerate()
        .map(|(i, ia)| {
            let leases = if Some(i) == addresses_to {
                addresses.clone()
            } else if Some(i) == prefixes_to {
                prefixes.clone()
            } else {
                Vec::new()
            };
            Binding { ia, leases }
        })
        .collect()
}

impl Ia {
    /// Reads an option; outer `None` if it is no identity association, inner if it is malformed.
    #[expect(
        clippy::option_option,
        reason = "an option that is none of ours is no error"
    )]
    pub(super) fn decode((code, data): (u16, &[u8])) -> Option<Option<Ia>> {
        let (purpose, times_len, item_code) = match code {
            code::IA_NA => (Purpose::Addresses, 8, code::IA_ADDR),
            code::IA_TA => (Purpose::Temporary, 0, code::IA_ADDR),
            code::IA_PD => (Purpose::Prefixes, 8, code::IA_PREFIX),
            _ => return None,
        };
        Some(Self::decode_body(purpose, times_len, item_code, data))
    }

    fn decode_body(purpose: Purpose, times_len: usize, item_code: u16, data: &[u8]) -> Option<Ia> {
        let mut reader = Reader::new(data);
        let id = reader.u32()?;
        reader.take(times_len)?;
        let options = Options::decode(reader.rest())?;
        let mut items = Vec::new();
        for (_, data) in options.iter().filter(|(code, _)| *code == item_code) {
            let item = if purpose == Purpose::Prefixes {
                decode_prefix(data)?
            } else {
                Prefix::host(IpAddr::V6(Reader::new(data).ipv6()?))
            };
            if item.addr() != IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
                items.push(item);
            }
        }
        Some(Ia { purpose, id, items })
    }

    const fn nothing_left(&self) -> status::Status {
        match self.purpose {
            Purpose::Addresses | Purpose::Temporary => status::NO_ADDRS_AVAIL,
            Purpose::Prefixes => status::NO_PREFIX_AVAIL,
        }
    }
}

/// Lifetimes, then length and prefix (RFC 8415 §21.22).
fn decode_prefix(data: &[u8]) -> Option<Prefix> {
    let mut reader = Reader::new(data);
    reader.take(8)?;
    let len = reader.u8()?;
    Prefix::new(IpAddr::V6(reader.ipv6()?), len).ok()
}

impl Lease {
    const fn ended(item: Prefix) -> Lease {
        Lease {
            item,
            preferred_secs: 0,
            valid_secs: 0,
        }
    }
}

impl Binding<'_> {
    /// Whether it gets anything.
    pub(super) fn gives(&self) -> bool {
        !self.leases.is_empty()
    }

    /// In an Advertise, or a Reply to a Solicit (RFC 8415 §18.3.9).
    pub(super) fn encode_offer(&self, options: &mut Options) {
        let status = (!self.gives()).then(|| self.ia.nothing_left());
        self.encode(&self.leases, status, options);
    }

    /// In a Reply to a Request (RFC 8415 §18.3.2).
    pub(super) fn encode_request(&self, options: &mut Options) {
        let foreign_address = self.ia.purpose == Purpose::Addresses && self.foreign().count() > 0;
        if foreign_address && self.gives() {
            self.encode(&[], Some(status::NOT_ON_LINK), options);
        } else {
            self.encode_offer(options);
        }
    }

    /// In a Reply to a Renew or Rebind (RFC 8415 §18.3.4, §18.3.5): what is not the port's ends.
    pub(super) fn encode_extension(&self, options: &mut Options) {
        let mut leases = self.leases.clone();
        leases.extend(self.foreign().map(Lease::ended));
        let status = (!self.gives()).then_some(status::NO_BINDING);
        self.encode(&leases, status, options);
    }

    /// In a Reply to a Release or Decline (RFC 8415 §18.3.7, §18.3.8): only what was never held is
    /// mentioned.
    pub(super) fn encode_given_back(&self, options: &mut Options) {
        if !self.gives() || self.foreign().count() > 0 {
            self.encode(&[], Some(status::NO_BINDING), options);
        }
    }

    fn foreign(&self) -> impl Iterator<Item = Prefix> + '_ {
        let own = |item: &Prefix| self.leases.iter().any(|lease| lease.item == *item);
        self.ia.items.iter().copied().filter(move |item| !own(item))
    }

    fn encode(&self, leases: &[Lease], status: Option<status::Status>, options: &mut Options) {
        let mut inner = Options::default();
        for lease in leases {
            encode_lease(self.ia.purpose, lease, &mut inner);
        }
        if let Some(status) = status {
            inner.push_status(status);
        }
        let mut data = self.ia.id.to_be_bytes().to_vec();
        let code = match self.ia.purpose {
            Purpose::Addresses => code::IA_NA,
            Purpose::Temporary => code::IA_TA,
            Purpose::Prefixes => code::IA_PD,
        };
        if self.ia.purpose != Purpose::Temporary {
            let [t1, t2] = times(leases);
            data.extend_from_slice(&t1.to_be_bytes());
            data.extend_from_slice(&t2.to_be_bytes());
        }
        data.extend(inner.encode());
        options.push(code, &data);
    }
}

/// T1 and T2: half and four fifths of the shortest preferred lifetime (RFC 8415 §21.4).
fn times(leases: &[Lease]) -> [u32; 2] {
    let going_on = leases.iter().filter(|lease| lease.valid_secs > 0);
    match going_on.map(|lease| lease.preferred_secs).min() {
        None => [0, 0],
        Some(u32::MAX) => [u32::MAX, u32::MAX],
        Some(shortest) => [shortest / 2, shortest / 5 * 4],
    }
}

fn encode_lease(purpose: Purpose, lease: &Lease, options: &mut Options) {
    let IpAddr::V6(addr) = lease.item.addr() else {
        return;
    };
    let preferred = lease.preferred_secs.to_be_bytes();
    let valid = lease.valid_secs.to_be_bytes();
    if purpose == Purpose::Prefixes {
        let len = [lease.item.len()];
        let data = [&preferred[..], &valid, &len, &addr.octets()].concat();
        options.push(code::IA_PREFIX, &data);
    } else {
        let data = [&addr.octets()[..], &preferred, &valid].concat();
        options.push(code::IA_ADDR, &data);
    }
}
