//! DHCPv4 for one port (RFC 2131): the answer is a function of the port's configuration and the
//! message alone.
//!
//! There is no lease database: a port has fixed addresses and one client, so that every question has
//! one right answer, whoever asks it and whenever, also after a restart or on another host. It knows
//! no frames and no time. What always holds: an address that is not the port's is never offered nor
//! confirmed; an answer is no longer than the client and the link take.

pub mod message;
mod parameters;

use std::net::Ipv4Addr;

use crate::{
    config::{Ipv4Subnet, PortConfig},
    counters::{Done, Reason},
};
use message::{BOOT_REPLY, BOOT_REQUEST, ETHERNET, Message, Options, code};
use parameters::Parameters;

/// DHCP message types (RFC 2132 §9.6) that clients and servers use.
pub mod message_type {
    /// A client looks for servers.
    pub const DISCOVER: u8 = 1;
    /// A server offers an address.
    pub const OFFER: u8 = 2;
    /// A client wants, confirms or extends an address.
    pub const REQUEST: u8 = 3;
    /// A client found that somebody else has the address.
    pub const DECLINE: u8 = 4;
    /// A server agrees.
    pub const ACK: u8 = 5;
    /// A server does not agree.
    pub const NAK: u8 = 6;
    /// A client gives an address back.
    pub const RELEASE: u8 = 7;
    /// A client has an address and wants the rest.
    pub const INFORM: u8 = 8;
}

/// The shortest limit that a client may have: 576 octets with IP and UDP headers (RFC 2132 §9.10).
const MIN_MAX_SIZE: u16 = 576;
const IP_AND_UDP: usize = 28;

/// An answer and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What it is.
    pub done: Done,
    /// IPv4 source: the server's address.
    pub source: Ipv4Addr,
    /// IPv4 destination; the limited broadcast address goes to the Ethernet broadcast address, all
    /// others to the workload's (RFC 2131 §4.1).
    pub destination: Ipv4Addr,
    /// UDP payload.
    pub payload: Vec<u8>,
}

/// What to do about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Send this.
    Reply(Reply),
    /// Nothing to send: RELEASE and DECLINE.
    Noted(Done),
}

/// Answers one message.
///
/// # Errors
///
/// Why it gets no answer.
pub fn respond(
    config: &PortConfig,
    destination: Ipv4Addr,
    payload: &[u8],
) -> Result<Response, Reason> {
    let first = config.ipv4.first().ok_or(Reason::NotOffered)?;
    let is_server = |addr: Ipv4Addr| config.ipv4.iter().any(|s| s.server() == addr);
    if destination != Ipv4Addr::BROADCAST && !is_server(destination) {
        return Err(Reason::NotForUs);
    }
    let request = Message::decode(payload).ok_or(Reason::Malformed)?;
    check(config, &request)?;
    let asked = Asked::new(&request)?;
    if asked.server.is_some_and(|server| !is_server(server)) {
        return Err(Reason::OtherServer);
    }
    let lease = |addr: Ipv4Addr| config.ipv4.iter().find(|s| s.address == addr);
    let answer = Answer {
        config,
        request: &request,
    };
    Ok(match asked.kind {
        Kind::Discover => {
            let subnet = asked.address.and_then(lease).unwrap_or(first);
            Response::Reply(if request.options.get(code::RAPID_COMMIT).is_some() {
                answer.lease(Done::Dhcpv4Ack, subnet)
            } else {
                answer.lease(Done::Dhcpv4Offer, subnet)
            })
        }
        Kind::Request => Response::Reply(match asked.address.and_then(lease) {
            Some(subnet) => answer.lease(Done::Dhcpv4Ack, subnet),
            None => answer.refusal(asked.server.unwrap_or_else(|| first.server())),
        }),
        Kind::Inform => Response::Reply(answer.inform(lease(request.ciaddr).unwrap_or(first))),
        Kind::Release => Response::Noted(Done::Dhcpv4Release),
        Kind::Decline => Response::Noted(Done::Dhcpv4Decline),
    })
}

/// What holds for every message that we take.
fn check(config: &PortConfig, request: &Message) -> Result<(), Reason> {
    if request.op != BOOT_REQUEST {
        return Err(Reason::UnexpectedMessage);
    }
    if request.giaddr != Ipv4Addr::UNSPECIFIED || request.hops != 0 {
        return Err(Reason::Relayed);
    }
    if request.hardware() != Some(config.guest_mac.octets()) {
        return Err(Reason::ForeignMac);
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Discover,
    Request,
    Inform,
    Release,
    Decline,
}

/// What a client wants, of which address, of which server.
#[derive(Clone, Copy, Debug)]
struct Asked {
    kind: Kind,
    address: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
}

impl Asked {
    /// RFC 2131 §4.3.6 tells the states of a client apart by these fields:
    ///
    /// | state | server identifier | requested address | `ciaddr` |
    /// |---|---|---|---|
    /// | SELECTING | set | set | 0 |
    /// | INIT-REBOOT | not set | set | 0 |
    /// | RENEWING, REBINDING | not set | not set | set |
    fn new(request: &Message) -> Result<Self, Reason> {
        let kind = match request.options.get(code::MESSAGE_TYPE) {
            Some([message_type::DISCOVER]) => Kind::Discover,
            Some([message_type::REQUEST]) => Kind::Request,
            Some([message_type::DECLINE]) => Kind::Decline,
            Some([message_type::RELEASE]) => Kind::Release,
            Some([message_type::INFORM]) => Kind::Inform,
            Some([_]) => return Err(Reason::UnexpectedMessage),
            // BOOTP without DHCP has no message type; it is not served.
            Some(_) | None => return Err(Reason::Malformed),
        };
        let current = Some(request.ciaddr).filter(|addr| !addr.is_unspecified());
        let asked = Asked {
            kind,
            address: request
                .options
                .address(code::REQUESTED_ADDRESS)?
                .or(current),
            server: request.options.address(code::SERVER_IDENTIFIER)?,
        };
        match kind {
            Kind::Request if asked.address.is_none() => Err(Reason::Malformed),
            Kind::Inform if current.is_none() => Err(Reason::Malformed),
            _ => Ok(asked),
        }
    }
}

struct Answer<'a> {
    config: &'a PortConfig,
    request: &'a Message,
}

impl Answer<'_> {
    /// An OFFER or ACK of a subnet's address.
    fn lease(&self, done: Done, subnet: &Ipv4Subnet) -> Reply {
        let parameters = Parameters::new(self.config, subnet, self.request);
        let mut reply = self.start(done, subnet.server());
        reply.yiaddr = subnet.address;
        reply.ciaddr = self.current(done);
        parameters.add_times(&mut reply.options);
        // RFC 4039 §3.1: an ACK to a DISCOVER says that it is one.
        if done == Done::Dhcpv4Ack && self.request.options.get(code::RAPID_COMMIT).is_some() {
            let asked = self.request.options.get(code::MESSAGE_TYPE);
            if asked == Some(&[message_type::DISCOVER]) {
                reply.options.set(code::RAPID_COMMIT, &[]);
            }
        }
        parameters.add_requested(&mut reply);
        let destination = self.destination(subnet.address);
        self.finish(reply, done, subnet.server(), destination)
    }

    /// The rest of the configuration, for an address that the client has (RFC 2131 §4.3.5).
    fn inform(&self, subnet: &Ipv4Subnet) -> Reply {
        let done = Done::Dhcpv4Ack;
        let mut reply = self.start(done, subnet.server());
        reply.ciaddr = self.request.ciaddr;
        Parameters::new(self.config, subnet, self.request).add_requested(&mut reply);
        self.finish(reply, done, subnet.server(), self.request.ciaddr)
    }

    /// A NAK: broadcast, whatever the client asked for (RFC 2131 §4.1).
    fn refusal(&self, server: Ipv4Addr) -> Reply {
        let mut reply = self.start(Done::Dhcpv4Nak, server);
        reply
            .options
            .set(code::MESSAGE, b"this address is not the port's");
        self.finish(reply, Done::Dhcpv4Nak, server, Ipv4Addr::BROADCAST)
    }

    /// `ciaddr` is repeated in an ACK and zero in an OFFER (RFC 2131 table 3).
    fn current(&self, done: Done) -> Ipv4Addr {
        if done == Done::Dhcpv4Ack {
            self.request.ciaddr
        } else {
            Ipv4Addr::UNSPECIFIED
        }
    }

    /// RFC 2131 §4.1.
    fn destination(&self, yours: Ipv4Addr) -> Ipv4Addr {
        if !self.request.ciaddr.is_unspecified() {
            self.request.ciaddr
        } else if self.request.broadcast {
            Ipv4Addr::BROADCAST
        } else {
            yours
        }
    }

    fn start(&self, done: Done, server: Ipv4Addr) -> Message {
        let message_type = match done {
            Done::Dhcpv4Offer => message_type::OFFER,
            Done::Dhcpv4Ack => message_type::ACK,
            _ => message_type::NAK,
        };
        let mut options = Options::default();
        options.set(code::MESSAGE_TYPE, &[message_type]);
        options.set(code::SERVER_IDENTIFIER, &server.octets());
        // RFC 6842 §3: the client's identifier is repeated in every answer.
        if let Some(id) = self.request.options.get(code::CLIENT_IDENTIFIER) {
            options.set(code::CLIENT_IDENTIFIER, id);
        }
        Message {
            op: BOOT_REPLY,
            htype: ETHERNET,
            hlen: 6,
            xid: self.request.xid,
            broadcast: self.request.broadcast,
            chaddr: self.request.chaddr,
            options,
            ..Message::default()
        }
    }

    fn finish(&self, reply: Message, done: Done, source: Ipv4Addr, destination: Ipv4Addr) -> Reply {
        let accepted = self.request.options.get(code::MAX_MESSAGE_SIZE);
        let accepted = accepted
            .and_then(|octets| octets.try_into().ok())
            .map_or(MIN_MAX_SIZE, u16::from_be_bytes)
            .clamp(MIN_MAX_SIZE, self.config.mtu.max(MIN_MAX_SIZE));
        Reply {
            done,
            source,
            destination,
            payload: reply.encode(usize::from(accepted) - IP_AND_UDP),
        }
    }
}

#[cfg(test)]
mod tests;
