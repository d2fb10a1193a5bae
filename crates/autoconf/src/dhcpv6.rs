//! DHCPv6 for one port (RFC 8415), stateless and stateful: the answer is a function of the port's
//! configuration, the server's DUID and the message alone.
//!
//! There is no lease database: a port has fixed addresses and prefixes, so that every question has one
//! right answer, whoever asks it and whenever, also after a restart or on another host with the same
//! DUID. It knows no frames and no time. What always holds: an address or prefix that is not the
//! port's is never given; a message that RFC 8415 §16 says to discard gets no answer; an answer is no
//! longer than the link takes.

mod duid;
mod ia;
pub mod message;

use std::net::Ipv6Addr;

pub use duid::{Duid, DuidError};

use crate::{
    config::{Ipv6Mode, PortConfig},
    counters::{Done, Reason},
    dhcpv6::{
        ia::{Binding, Ia, Purpose},
        message::{Message, Options, code, message_type, status},
    },
};
use hextet_types::Family;

/// Where clients send what every server shall see (`All_DHCP_Relay_Agents_and_Servers`).
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Identity associations of one message that are answered; the others are passed over.
pub const MAX_IAS: usize = 16;

/// Clients of the stateless service ask again after this time (RFC 8415 §7.6, `IRT_DEFAULT`).
const INFORMATION_REFRESH_SECS: u32 = 86_400;
/// Takes the first answer that it gets (RFC 8415 §18.2.1): there is no other server on a port.
const PREFERENCE: u8 = 255;
const IP_AND_UDP: usize = 48;

/// An answer; it goes back to where the message came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What it is.
    pub done: Done,
    /// UDP payload.
    pub payload: Vec<u8>,
}

/// Answers one message.
///
/// # Errors
///
/// Why it gets no answer.
pub fn respond(
    config: &PortConfig,
    server: &Duid,
    destination: Ipv6Addr,
    payload: &[u8],
) -> Result<Reply, Reason> {
    let unicast = destination == config.link_local;
    if destination != ALL_SERVERS && !unicast {
        return Err(Reason::NotForUs);
    }
    if !is_offered(config) {
        return Err(Reason::NotOffered);
    }
    match payload.first() {
        Some(&(message_type::RELAY_FORW | message_type::RELAY_REPL)) => {
            return Err(Reason::Relayed);
        }
        Some(_) => {}
        None => return Err(Reason::Malformed),
    }
    let request = Message::decode(payload).ok_or(Reason::Malformed)?;
    let kind = Kind::of(&request)?;
    kind.check(&request, server)?;
    let answer = Answer {
        config,
        server,
        request: &request,
        kind,
    };
    if unicast {
        return kind.takes_unicast().map(|()| answer.use_multicast());
    }
    match kind {
        Kind::Solicit => answer.solicit(),
        Kind::Request | Kind::Renew | Kind::Rebind => answer.lease(),
        Kind::Confirm => answer.confirm(),
        Kind::Release | Kind::Decline => answer.give_back(),
        Kind::InformationRequest => Ok(answer.information()),
    }
}

fn is_offered(config: &PortConfig) -> bool {
    let by_dhcp = |mode| matches!(mode, Ipv6Mode::Dhcpv6Stateless | Ipv6Mode::Dhcpv6Stateful);
    config.ipv6.iter().any(|s| by_dhcp(s.mode)) || !config.delegated.is_empty()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Solicit,
    Request,
    Confirm,
    Renew,
    Rebind,
    Release,
    Decline,
    InformationRequest,
}

impl Kind {
    /// RFC 8415 §16.3, §16.10, §16.11: what only servers send is discarded.
    fn of(request: &Message) -> Result<Kind, Reason> {
        Ok(match request.message_type {
            message_type::SOLICIT => Kind::Solicit,
            message_type::REQUEST => Kind::Request,
            message_type::CONFIRM => Kind::Confirm,
            message_type::RENEW => Kind::Renew,
            message_type::REBIND => Kind::Rebind,
            message_type::RELEASE => Kind::Release,
            message_type::DECLINE => Kind::Decline,
            message_type::INFORMATION_REQUEST => Kind::InformationRequest,
            _ => return Err(Reason::UnexpectedMessage),
        })
    }

    /// RFC 8415 §16.2 to §16.12.
    fn check(self, request: &Message, server: &Duid) -> Result<(), Reason> {
        let client_id = request.options.get(code::CLIENT_ID);
        let server_id = request.options.get(code::SERVER_ID);
        match client_id {
            Some(id) if !Duid::is_len(id.len()) => return Err(Reason::Malformed),
            None if self != Kind::InformationRequest => return Err(Reason::NoClientId),
            _ => {}
        }
        match (self, server_id) {
            (Kind::Solicit | Kind::Confirm | Kind::Rebind, Some(_)) => {
                Err(Reason::UnexpectedServerId)
            }
            (Kind::Request | Kind::Renew | Kind::Decline | Kind::Release, None) => {
                Err(Reason::NoServerId)
            }
            (_, Some(id)) if id != server.as_bytes() => Err(Reason::OtherServer),
            (Kind::InformationRequest, _) if request.has_ia() => Err(Reason::UnexpectedIa),
            _ => Ok(()),
        }
    }

    /// RFC 8415 §18.4: to one server these are an error to tell, all others are discarded.
    fn takes_unicast(self) -> Result<(), Reason> {
        match self {
            Kind::Request | Kind::Renew | Kind::Release | Kind::Decline => Ok(()),
            _ => Err(Reason::Unicast),
        }
    }
}

struct Answer<'a> {
    config: &'a PortConfig,
    server: &'a Duid,
    request: &'a Message,
    kind: Kind,
}

impl Answer<'_> {
    /// RFC 8415 §18.3.1, §18.3.9.
    fn solicit(&self) -> Result<Reply, Reason> {
        let ias = self.ias()?;
        let bindings = ia::bind(self.config, &ias);
        let rapid = self.request.options.get(code::RAPID_COMMIT).is_some()
            && bindings.iter().any(Binding::gives);
        let (done, message_type) = if rapid {
            (Done::Dhcpv6Reply, message_type::REPLY)
        } else {
            (Done::Dhcpv6Advertise, message_type::ADVERTISE)
        };
        let mut options = self.start();
        if rapid {
            options.push(code::RAPID_COMMIT, &[]);
        } else {
            options.push(code::PREFERENCE, &[PREFERENCE]);
        }
        for binding in &bindings {
            binding.encode_offer(&mut options);
        }
        self.add_configuration(&mut options);
        Ok(self.finish(done, message_type, options))
    }

    /// RFC 8415 §18.3.2, §18.3.4, §18.3.5.
    fn lease(&self) -> Result<Reply, Reason> {
        let ias = self.ias()?;
        let mut options = self.start();
        for binding in ia::bind(self.config, &ias) {
            if self.kind == Kind::Request {
                binding.encode_request(&mut options);
            } else {
                binding.encode_extension(&mut options);
            }
        }
        self.add_configuration(&mut options);
        Ok(self.finish(Done::Dhcpv6Reply, message_type::REPLY, options))
    }

    /// RFC 8415 §18.3.3. On a port only its own addresses are on the link, not all of the subnet.
    fn confirm(&self) -> Result<Reply, Reason> {
        let ias = self.ias()?;
        let mut held = ias
            .iter()
            .filter(|ia| ia.purpose != Purpose::Prefixes)
            .flat_map(|ia| &ia.items)
            .peekable();
        if held.peek().is_none() {
            return Err(Reason::Malformed);
        }
        let own = ia::leases(self.config, Purpose::Addresses);
        let status = if held.all(|item| own.iter().any(|lease| lease.item == *item)) {
            status::SUCCESS
        } else {
            status::NOT_ON_LINK
        };
        let mut options = self.start();
        options.push_status(status);
        Ok(self.finish(Done::Dhcpv6Reply, message_type::REPLY, options))
    }

    /// RFC 8415 §18.3.7, §18.3.8: there is nothing to forget, and the port keeps its address.
    fn give_back(&self) -> Result<Reply, Reason> {
        let ias = self.ias()?;
        let mut options = self.start();
        options.push_status(status::SUCCESS);
        for binding in ia::bind(self.config, &ias) {
            binding.encode_given_back(&mut options);
        }
        let done = if self.kind == Kind::Decline {
            Done::Dhcpv6Decline
        } else {
            Done::Dhcpv6Reply
        };
        Ok(self.finish(done, message_type::REPLY, options))
    }

    /// RFC 8415 §18.3.6.
    fn information(&self) -> Reply {
        let mut options = self.start();
        self.add_configuration(&mut options);
        self.finish(Done::Dhcpv6Reply, message_type::REPLY, options)
    }

    /// RFC 8415 §18.3.2: we never send the Server Unicast option.
    fn use_multicast(&self) -> Reply {
        let mut options = self.start();
        options.push_status(status::USE_MULTICAST);
        self.finish(Done::Dhcpv6Reply, message_type::REPLY, options)
    }

    fn ias(&self) -> Result<Vec<Ia>, Reason> {
        let all = self.request.options.iter().filter_map(Ia::decode);
        all.take(MAX_IAS)
            .collect::<Option<_>>()
            .ok_or(Reason::Malformed)
    }

    fn start(&self) -> Options {
        let mut options = Options::default();
        if let Some(id) = self.request.options.get(code::CLIENT_ID) {
            options.push(code::CLIENT_ID, id);
        }
        options.push(code::SERVER_ID, self.server.as_bytes());
        options
    }

    fn finish(&self, done: Done, message_type: u8, mut options: Options) -> Reply {
        let mtu = usize::from(self.config.mtu);
        options.fit(mtu.saturating_sub(IP_AND_UDP + Message::HEADER_LEN));
        let message = Message {
            message_type,
            transaction_id: self.request.transaction_id,
            options,
        };
        Reply {
            done,
            payload: message.encode(),
        }
    }

    /// DNS, NTP and extra options: what is asked for, and extra options in any case.
    fn add_configuration(&self, options: &mut Options) {
        let requested = self.request.requested();
        let asked_for = |code: u16| match &requested {
            Some(list) => list.contains(&code),
            None => matches!(code, code::DNS_SERVERS | code::DOMAIN_LIST),
        };
        let extra: Vec<(u16, &[u8])> = self
            .config
            .extra_dhcp_opts
            .iter()
            .filter(|option| option.family() == Family::V6)
            .map(|option| (option.code(), option.data()))
            .collect();
        let replaced = |code: u16| extra.iter().any(|(c, _)| *c == code);
        for (code, data) in self.configuration() {
            if asked_for(code) && !replaced(code) && !data.is_empty() {
                options.push(code, &data);
            }
        }
        for (code, data) in extra.iter().filter(|(_, data)| !data.is_empty()) {
            options.push(*code, data);
        }
    }

    fn configuration(&self) -> [(u16, Vec<u8>); 5] {
        let dns = self.config.dns_servers_v6().flat_map(|s| s.octets());
        let mut domains = Vec::new();
        for domain in self.config.search_list() {
            domain.encode(&mut domains);
        }
        let (sntp, ntp) = self.time_servers();
        // RFC 8415 §21.23: only in answers to Information-request.
        let refresh = if self.kind == Kind::InformationRequest {
            INFORMATION_REFRESH_SECS.to_be_bytes().to_vec()
        } else {
            Vec::new()
        };
        [
            (code::DNS_SERVERS, dns.collect()),
            (code::DOMAIN_LIST, domains),
            (code::SNTP_SERVERS, sntp),
            (code::NTP_SERVER, ntp),
            (code::INFORMATION_REFRESH_TIME, refresh),
        ]
    }

    /// As addresses (RFC 4075) and as suboptions (RFC 5908 §4.1).
    fn time_servers(&self) -> (Vec<u8>, Vec<u8>) {
        let mut sntp = Vec::new();
        let mut ntp = Vec::new();
        for server in &self.config.ntp_servers {
            if let std::net::IpAddr::V6(addr) = server {
                sntp.extend_from_slice(&addr.octets());
                ntp.extend_from_slice(&[0, 1, 0, 16]);
                ntp.extend_from_slice(&addr.octets());
            }
        }
        (sntp, ntp)
    }
}

#[cfg(test)]
mod tests;
