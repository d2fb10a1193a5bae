//! What a server says to a requesting router: an Advertise or a Reply (RFC 8415 §16.3, §16.10, §21.21, §21.22).

use std::net::{IpAddr, Ipv6Addr};

use hextet_types::Prefix;

use super::{Held, LENGTHS, MAX_PREFIXES};
use crate::{
    config::Delegation,
    dhcpv6::{
        Duid,
        message::{Message, Options, code, message_type, status},
    },
    reader::Reader,
};

/// How it went for the identity association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    /// The server knows of none such.
    NoBinding,
    /// The server has none to give.
    NoPrefix,
    /// It could not, for now.
    Failed,
}

/// An answer to what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) is_advertise: bool,
    pub(super) server: Vec<u8>,
    pub(super) preference: u8,
    pub(super) sol_max_rt: Option<u32>,
    pub(super) outcome: Outcome,
    /// T1 and T2, in seconds.
    pub(super) times: (u32, u32),
    /// Those that can be used, and those that end (lifetimes of 0).
    pub(super) leases: Vec<Delegation>,
}

impl Answer {
    /// Reads a UDP payload; `None` if it is no answer to this transaction, of this client and identity association.
    pub(super) fn decode(
        payload: &[u8],
        (transaction, client, iaid): ([u8; 3], &Duid, u32),
    ) -> Option<Answer> {
        let message = Message::decode(payload)?;
        let is_advertise = match message.message_type {
            message_type::ADVERTISE => true,
            message_type::REPLY => false,
            _ => return None,
        };
        let options = &message.options;
        let ours = options.get(code::CLIENT_ID)? == client.as_bytes();
        let server = options.get(code::SERVER_ID)?;
        if message.transaction_id != transaction || !ours || !Duid::is_len(server.len()) {
            return None;
        }
        let sol_max_rt = options.get(code::SOL_MAX_RT);
        let mut answer = Answer {
            is_advertise,
            server: server.to_owned(),
            preference: options
                .get(code::PREFERENCE)
                .and_then(|o| o.first().copied())
                .unwrap_or(0),
            sol_max_rt: sol_max_rt.and_then(|octets| Reader::new(octets).u32()),
            outcome: outcome(options),
            times: (0, 0),
            leases: Vec::new(),
        };
        let of_ours =
            |(c, data): &(u16, &[u8])| *c == code::IA_PD && Reader::new(data).u32() == Some(iaid);
        if let Some((_, data)) = options.iter().find(of_ours) {
            answer.read(data)?;
        }
        Some(answer)
    }

    fn read(&mut self, data: &[u8]) -> Option<()> {
        let mut reader = Reader::new(data);
        reader.u32()?;
        let (t1, t2) = (reader.u32()?, reader.u32()?);
        // RFC 8415 §21.21: such an identity association is invalid.
        if t1 > t2 && t2 > 0 {
            return None;
        }
        let options = Options::decode(reader.rest())?;
        self.times = (t1, t2);
        if self.outcome == Outcome::Success {
            self.outcome = outcome(&options);
        }
        let items = options.iter().filter(|(c, _)| *c == code::IA_PREFIX);
        let leases = items.filter_map(|(_, data)| lease(data));
        self.leases = leases.take(MAX_PREFIXES).collect();
        Some(())
    }

    /// What it would give.
    pub(super) fn prefixes(&self) -> Vec<Prefix> {
        let given = self
            .leases
            .iter()
            .filter(|lease| lease.valid_lifetime_secs > 0);
        given.map(|lease| lease.prefix).collect()
    }

    /// The same server, asked for what is held.
    pub(super) fn asking_for(self, held: &[Held]) -> Answer {
        let leases = held.iter().map(|held| Delegation {
            prefix: held.prefix,
            valid_lifetime_secs: 1,
            preferred_lifetime_secs: 1,
        });
        Answer {
            leases: leases.collect(),
            ..self
        }
    }
}

/// Success is not said.
fn outcome(options: &Options) -> Outcome {
    let octets = options.get(code::STATUS_CODE);
    let said = octets.and_then(|octets| Reader::new(octets).u16());
    match said.unwrap_or(status::SUCCESS.0) {
        said if said == status::SUCCESS.0 => Outcome::Success,
        said if said == status::NO_BINDING.0 => Outcome::NoBinding,
        said if said == status::NO_PREFIX_AVAIL.0 => Outcome::NoPrefix,
        _ => Outcome::Failed,
    }
}

/// RFC 8415 §21.22: one that is preferred for longer than it is valid says nothing.
fn lease(data: &[u8]) -> Option<Delegation> {
    let mut reader = Reader::new(data);
    let (preferred_lifetime_secs, valid_lifetime_secs) = (reader.u32()?, reader.u32()?);
    let len = reader.u8()?;
    let prefix = Prefix::new(IpAddr::V6(reader.ipv6()?), len).ok()?;
    let is_sound = preferred_lifetime_secs <= valid_lifetime_secs && is_usable(prefix);
    is_sound.then_some(Delegation {
        prefix,
        valid_lifetime_secs,
        preferred_lifetime_secs,
    })
}

/// Global unicast or unique local (RFC 4291 §2.5, RFC 4193), and subnets can be made of it.
pub(super) fn is_usable(prefix: Prefix) -> bool {
    let IpAddr::V6(addr) = prefix.addr() else {
        return false;
    };
    let first = addr.octets()[0];
    LENGTHS.contains(&prefix.len()) && (first >> 5 == 1 || first & 0xfe == 0xfc)
}

/// The option's octets, with what is asked for; a hint is a length without a prefix.
pub(super) fn encode_ia(iaid: u32, items: &[Prefix], hint: Option<u8>) -> Vec<u8> {
    let mut inner = Options::default();
    let hint = hint.map(|len| (Ipv6Addr::UNSPECIFIED, len));
    let items = items.iter().filter_map(|prefix| match prefix.addr() {
        IpAddr::V6(addr) => Some((addr, prefix.len())),
        IpAddr::V4(_) => None,
    });
    for (addr, len) in items.chain(hint) {
        let data = [&[0; 8][..], &[len], &addr.octets()].concat();
        inner.push(code::IA_PREFIX, &data);
    }
    [&iaid.to_be_bytes()[..], &[0; 8], &inner.encode()].concat()
}
