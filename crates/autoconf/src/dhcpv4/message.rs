//! The DHCPv4 message: BOOTP's fixed part and DHCP's options (RFC 2131 §2, RFC 2132).
//!
//! Options stay octets: only what the responder needs is interpreted, and a client's malformed host
//! name costs it no address. What always holds: decoding ends, whatever the octets; an option in
//! several parts is one option (RFC 3396), also across `file` and `sname` (option 52);
//! `decode(encode(x)) == x` where there is room for all of x.

use std::net::Ipv4Addr;

use crate::{counters::Reason, reader::Reader};

/// `op` of a client's message.
pub const BOOT_REQUEST: u8 = 1;
/// `op` of a server's message.
pub const BOOT_REPLY: u8 = 2;
/// `htype` of Ethernet.
pub const ETHERNET: u8 = 1;

/// Of a whole message; old clients and relays drop shorter ones (RFC 951 §3, RFC 1542 §2.1).
pub const MIN_LEN: usize = 300;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const FIXED_LEN: usize = 236;
const FILE_LEN: usize = 128;
const SNAME_LEN: usize = 64;
const BROADCAST: u16 = 0x8000;

/// Numbers of options (RFC 2132, and as noted).
pub mod code {
    /// Filler.
    pub const PAD: u8 = 0;
    /// The subnet's mask.
    pub const SUBNET_MASK: u8 = 1;
    /// Default routers.
    pub const ROUTER: u8 = 3;
    /// DNS servers.
    pub const DNS_SERVER: u8 = 6;
    /// The client's name.
    pub const HOST_NAME: u8 = 12;
    /// The client's domain.
    pub const DOMAIN_NAME: u8 = 15;
    /// The link's MTU.
    pub const INTERFACE_MTU: u8 = 26;
    /// The subnet's broadcast address.
    pub const BROADCAST_ADDRESS: u8 = 28;
    /// NTP servers.
    pub const NTP_SERVER: u8 = 42;
    /// The address that a client wants.
    pub const REQUESTED_ADDRESS: u8 = 50;
    /// Seconds that an address may be kept.
    pub const LEASE_TIME: u8 = 51;
    /// More options are in `file` (1), `sname` (2), or both (3).
    pub const OVERLOAD: u8 = 52;
    /// What the message is.
    pub const MESSAGE_TYPE: u8 = 53;
    /// The server that a message comes from or is for.
    pub const SERVER_IDENTIFIER: u8 = 54;
    /// Options that a client wants, in its order of preference.
    pub const PARAMETER_REQUEST_LIST: u8 = 55;
    /// Text for people.
    pub const MESSAGE: u8 = 56;
    /// Octets of the longest message that a client takes, IP and UDP headers included.
    pub const MAX_MESSAGE_SIZE: u8 = 57;
    /// Seconds until a client renews with its server.
    pub const RENEWAL_TIME: u8 = 58;
    /// Seconds until a client renews with any server.
    pub const REBINDING_TIME: u8 = 59;
    /// Who the client is.
    pub const CLIENT_IDENTIFIER: u8 = 61;
    /// Host name of a TFTP server.
    pub const TFTP_SERVER: u8 = 66;
    /// What to boot.
    pub const BOOTFILE_NAME: u8 = 67;
    /// Two messages instead of four (RFC 4039).
    pub const RAPID_COMMIT: u8 = 80;
    /// Seconds without IPv4 (RFC 8925).
    pub const IPV6_ONLY_PREFERRED: u8 = 108;
    /// Domains to search (RFC 3397).
    pub const DOMAIN_SEARCH: u8 = 119;
    /// Routes (RFC 3442).
    pub const CLASSLESS_STATIC_ROUTE: u8 = 121;
    /// The same under the number that older Windows asks for.
    pub const MS_CLASSLESS_STATIC_ROUTE: u8 = 249;
    /// No more options.
    pub const END: u8 = 255;
}

/// Options by number, each once, in the order of the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(Vec<(u8, Vec<u8>)>);

impl Options {
    /// The octets of an option.
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        let found = self.0.iter().find(|(c, _)| *c == code);
        found.map(|(_, data)| data.as_slice())
    }

    /// Puts an option at the end, or in place of what has its number.
    pub fn set(&mut self, code: u8, data: &[u8]) {
        match self.0.iter_mut().find(|(c, _)| *c == code) {
            Some((_, old)) => data.clone_into(old),
            None => self.0.push((code, data.to_owned())),
        }
    }

    /// Each option, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.0.iter().map(|(code, data)| (*code, data.as_slice()))
    }

    /// An option with one address; malformed if it has anything else.
    pub(super) fn address(&self, code: u8) -> Result<Option<Ipv4Addr>, Reason> {
        self.get(code)
            .map(|data| <[u8; 4]>::try_from(data).map(Ipv4Addr::from))
            .transpose()
            .map_err(|_| Reason::Malformed)
    }

    /// Appends data to an option, which may be new (RFC 3396 §5).
    fn extend(&mut self, code: u8, data: &[u8]) {
        match self.0.iter_mut().find(|(c, _)| *c == code) {
            Some((_, all)) => all.extend_from_slice(data),
            None => self.0.push((code, data.to_owned())),
        }
    }

    fn read(&mut self, field: &[u8]) -> Option<()> {
        let mut reader = Reader::new(field);
        while let Some(code) = reader.u8() {
            match code {
                code::PAD => {}
                code::END => break,
                code => {
                    let len = reader.u8()?;
                    self.extend(code, reader.take(usize::from(len))?);
                }
            }
        }
        Some(())
    }
}

/// A DHCPv4 message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// [`BOOT_REQUEST`] or [`BOOT_REPLY`].
    pub op: u8,
    /// Type of the hardware address.
    pub htype: u8,
    /// Octets of the hardware address.
    pub hlen: u8,
    /// Relays on the way.
    pub hops: u8,
    /// The transaction, as the client numbers it.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// The client takes no unicast before it has an address.
    pub broadcast: bool,
    /// The client's address, if it has one.
    pub ciaddr: Ipv4Addr,
    /// The address that a server gives.
    pub yiaddr: Ipv4Addr,
    /// The server to boot from.
    pub siaddr: Ipv4Addr,
    /// The relay's address.
    pub giaddr: Ipv4Addr,
    /// The hardware address, with zeros behind it.
    pub chaddr: [u8; 16],
    /// The boot server's name, unless options stand there.
    pub sname: [u8; SNAME_LEN],
    /// The boot file, unless options stand there.
    pub file: [u8; FILE_LEN],
    /// All options.
    pub options: Options,
}

impl Default for Message {
    fn default() -> Self {
        Message {
            op: BOOT_REQUEST,
            htype: ETHERNET,
            hlen: 6,
            hops: 0,
            xid: 0,
            secs: 0,
            broadcast: false,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            chaddr: [0; 16],
            sname: [0; SNAME_LEN],
            file: [0; FILE_LEN],
            options: Options::default(),
        }
    }
}

impl Message {
    /// Reads a UDP payload; `None` if it is cut off or no DHCP. A missing end mark is forgiven.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let [op, htype, hlen, hops] = reader.array()?;
        let mut message = Message {
            op,
            htype,
            hlen,
            hops,
            xid: reader.u32()?,
            secs: reader.u16()?,
            broadcast: reader.u16()? & BROADCAST != 0,
            ciaddr: reader.ipv4()?,
            yiaddr: reader.ipv4()?,
            siaddr: reader.ipv4()?,
            giaddr: reader.ipv4()?,
            chaddr: reader.array()?,
            sname: reader.array()?,
            file: reader.array()?,
            options: Options::default(),
        };
        if reader.array() != Some(COOKIE) {
            return None;
        }
        message.options.read(reader.rest())?;
        message.read_overloaded()?;
        Some(message)
    }

    /// The hardware address, if it is an Ethernet address.
    pub fn hardware(&self) -> Option<[u8; 6]> {
        let ethernet = self.htype == ETHERNET && self.hlen == 6;
        self.chaddr.first_chunk().copied().filter(|_| ethernet)
    }

    /// Writes a UDP payload of at least [`MIN_LEN`] octets and, where `max_len` is more, at most
    /// `max_len`. Options that do not fit go into `file` and `sname` where those are empty; what does
    /// not fit there either is left out, the last first.
    pub fn encode(&self, max_len: usize) -> Vec<u8> {
        let room = max_len.max(MIN_LEN) - FIXED_LEN - COOKIE.len();
        let packed = Packed::new(self, room);
        let mut out = Vec::with_capacity(max_len);
        out.extend_from_slice(&[self.op, self.htype, self.hlen, self.hops]);
        out.extend_from_slice(&self.xid.to_be_bytes());
        out.extend_from_slice(&self.secs.to_be_bytes());
        let flags = if self.broadcast { BROADCAST } else { 0 };
        out.extend_from_slice(&flags.to_be_bytes());
        for addr in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            out.extend_from_slice(&addr.octets());
        }
        out.extend_from_slice(&self.chaddr);
        out.extend(filled(&packed.sname, &self.sname));
        out.extend(filled(&packed.file, &self.file));
        out.extend_from_slice(&COOKIE);
        out.extend_from_slice(&packed.options);
        out.resize(out.len().max(MIN_LEN), code::PAD);
        out
    }

    /// RFC 2132 §9.3: `file` before `sname` (RFC 3396 §5).
    fn read_overloaded(&mut self) -> Option<()> {
        let overload = match self.options.get(code::OVERLOAD) {
            None => return Some(()),
            Some([overload @ 1..=3]) => *overload,
            Some(_) => return None,
        };
        self.options.0.retain(|(c, _)| *c != code::OVERLOAD);
        if overload & 1 != 0 {
            let file = std::mem::replace(&mut self.file, [0; FILE_LEN]);
            self.options.read(&file)?;
        }
        if overload & 2 != 0 {
            let sname = std::mem::replace(&mut self.sname, [0; SNAME_LEN]);
            self.options.read(&sname)?;
        }
        Some(())
    }
}

/// Options on their way into a message's three fields; each ends with its end mark.
struct Packed {
    options: Vec<u8>,
    file: Vec<u8>,
    sname: Vec<u8>,
}

impl Packed {
    fn new(message: &Message, room: usize) -> Packed {
        let encoded: Vec<Vec<u8>> = message.options.iter().map(encode_option).collect();
        let needed: usize = encoded.iter().map(Vec::len).sum::<usize>() + 1;
        let overload = needed > room;
        // The overload option and the end mark.
        let reserved = if overload { 3 + 1 } else { 1 };
        let free = |field: &[u8]| overload && field.iter().all(|octet| *octet == 0);
        let mut fields = [
            (Vec::new(), room.saturating_sub(reserved)),
            (
                Vec::new(),
                if free(&message.file) { FILE_LEN - 1 } else { 0 },
            ),
            (
                Vec::new(),
                if free(&message.sname) {
                    SNAME_LEN - 1
                } else {
                    0
                },
            ),
        ];
        for option in encoded {
            let fits = |(field, room): &&mut (Vec<u8>, usize)| field.len() + option.len() <= *room;
            if let Some((field, _)) = fields.iter_mut().find(fits) {
                field.extend_from_slice(&option);
            }
        }
        let [(mut options, _), (mut file, _), (mut sname, _)] = fields;
        let bits = u8::from(!file.is_empty()) | u8::from(!sname.is_empty()) << 1;
        if bits != 0 {
            options.extend_from_slice(&[code::OVERLOAD, 1, bits]);
        }
        options.push(code::END);
        for field in [&mut file, &mut sname] {
            if !field.is_empty() {
                field.push(code::END);
            }
        }
        Packed {
            options,
            file,
            sname,
        }
    }
}

/// In parts of at most 255 octets (RFC 3396 §4).
fn encode_option((code, data): (u8, &[u8])) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 2);
    if data.is_empty() {
        out.extend_from_slice(&[code, 0]);
    }
    for part in data.chunks(255) {
        out.extend_from_slice(&[code, u8::try_from(part.len()).unwrap_or(u8::MAX)]);
        out.extend_from_slice(part);
    }
    out
}

/// The options that stand in a field, or else what the field is for.
fn filled<const N: usize>(options: &[u8], field: &[u8; N]) -> [u8; N] {
    if options.is_empty() {
        return *field;
    }
    let mut out = [code::PAD; N];
    for (to, from) in out.iter_mut().zip(options) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests;
