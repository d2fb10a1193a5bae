//! What a node of a mesh has in the kernel: ways to destinations, and its own addresses on the loopback interface.
//!
//! Both have a protocol number of their own ([`MESH_PROTOCOL`]), so that whoever else keeps routes on this host takes none of them for his,
//! nor a node theirs. Addresses are told by it from Linux 5.18 on.

mod rules;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hextet_types::{Family, Prefix};

use crate::{
    Error,
    netlink::{Answer, Attrs, Batch, Message, Socket, addr, flags, ne16, ne32, octet},
    route::{MESH_PROTOCOL, af, family},
};

pub use rules::{CARRIED, MANY, Out, UNDERLAY};

/// Of a way that a neighbour told: what is on a link itself, and what an operator sets without a metric for IPv4, comes first.
pub const METRIC: u32 = 300;
/// Of a way that is taken in place of a direct one that has failed.
pub const FIRST: u32 = 1;
/// Of what goes nowhere unless somebody knows better.
pub const LAST: u32 = u32::MAX;

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
const NEXT_HOP_HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;
const IFA_F_NODAD: u32 = 0x02;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_MARK: u16 = 16;
const RTA_VIA: u16 = 18;
/// The route itself is told, not what it does with one packet.
const RTM_F_FIB_MATCH: u32 = 0x2000;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const RT_SCOPE_NOWHERE: u8 = 255;
const RT_TABLE_MAIN: u8 = 254;
/// The loopback interface, in every namespace.
const LOOPBACK: u32 = 1;
/// To nobody's addresses in the world leads what leads to the world: those for benchmarks (RFC 2544, RFC 5180).
const WORLD: [(Family, IpAddr); 2] = [
    (Family::V4, IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1))),
    (
        Family::V6,
        IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1)),
    ),
];

/// For which packets a route is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// All.
    Main,
    /// Those that bear the mark [`MANY`].
    Many,
    /// Those that bear the mark [`CARRIED`], where the host has no route but a default one.
    Carried,
    /// Of these, those that bear the other mark, too.
    CarriedMany,
    /// Those from the network's own addresses, and perhaps others ([`Out`]), where the host has no route but a default one: the way out of the
    /// network.
    Out,
}

impl Table {
    const ALL: [Table; 5] = [
        Table::Main,
        Table::Many,
        Table::Carried,
        Table::CarriedMany,
        Table::Out,
    ];

    const fn number(self) -> u32 {
        match self {
            Table::Main => RT_TABLE_MAIN as u32,
            Table::Many => 0x6878,
            Table::Carried => 0x6879,
            Table::CarriedMany => 0x687a,
            Table::Out => 0x687b,
        }
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// For which packets.
    pub table: Table,
    /// Where to.
    pub to: Prefix,
    /// From where, if that matters (RFC 9079): IPv6 alone.
    pub from: Option<Prefix>,
    /// Lower comes first.
    pub metric: u32,
    /// How.
    pub hop: Hop,
    /// From which address the host itself sends this way.
    pub source: Option<IpAddr>,
}

/// Where a packet goes next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hop {
    /// To a neighbour.
    Via {
        /// The link's index.
        link: u32,
        /// Its address; of IPv6 for IPv4, too (RFC 9229).
        next_hop: IpAddr,
    },
    /// To one neighbour by several links, flow by flow: ascending.
    Shared(Vec<Share>),
    /// Nowhere, and the sender is told.
    Unreachable,
}

/// A link's share of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// Its index.
    pub link: u32,
    /// The neighbour's address there.
    pub next_hop: IpAddr,
    /// In proportion to the others': 1 to 255.
    pub weight: u8,
}

/// A route that the kernel would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Where to.
    pub to: Prefix,
    /// By which link; none, if by several or nowhere.
    pub link: Option<u32>,
    /// Lower comes first.
    pub metric: u32,
    /// Whether it is one of ours.
    pub is_ours: bool,
}

/// The host's own way to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Of what.
    pub family: Family,
    /// By which link.
    pub link: u32,
    /// To whom; the link itself leads there, if to nobody.
    pub gateway: Option<IpAddr>,
}

/// What tells one route from another.
pub type Key = (Table, Prefix, Option<Prefix>, u32);

impl Route {
    /// See [`Key`].
    pub const fn key(&self) -> Key {
        (self.table, self.to, self.from, self.metric)
    }
}

/// The kernel's routes and addresses of one mesh, in the namespace where it was opened.
#[derive(Debug)]
pub struct Ways(Socket);

impl Ways {
    /// In the thread's network namespace.
    ///
    /// # Errors
    ///
    /// No socket.
    pub fn open() -> Result<Ways, Error> {
        Socket::open(libc::NETLINK_ROUTE as isize, "rtnetlink").map(Ways)
    }

    /// All routes that bear the number, also those of an earlier run.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let mut all = Vec::new();
        for family in [Family::V4, Family::V6] {
            let mut request = Batch::default();
            let mut header = [0; ROUTE_HEADER];
            header[0] = af(family);
            header[5] = MESH_PROTOCOL;
            request.message(RTM_GETROUTE, 0, &header);
            all.extend(self.0.dump(&mut request, read_route)?);
        }
        Ok(all)
    }

    /// The route that would be taken to each of these addresses, if any; by that link alone, if one is named.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub fn taken(
        &mut self,
        targets: &[(IpAddr, Option<u32>)],
    ) -> Result<Vec<Option<Taken>>, Error> {
        let mut found = vec![None; targets.len()];
        if targets.is_empty() {
            return Ok(found);
        }
        let mut batch = Batch::default();
        for (target, link) in targets {
            let family = Family::of(*target);
            let mut header = [0; ROUTE_HEADER];
            (header[0], header[1]) = (af(family), family.bits());
            header[8..].copy_from_slice(&RTM_F_FIB_MATCH.to_ne_bytes());
            let mut message = batch.message(RTM_GETROUTE, 0, &header);
            message.addr(RTA_DST, *target);
            if let Some(link) = link {
                message.ne32(RTA_OIF, *link);
            }
        }
        self.0.query(&mut batch, |index, answer| {
            if let Some(found) = found.get_mut(index) {
                *found = read_taken(answer);
            }
        })?;
        Ok(found)
    }

    /// Sets routes, each in place of what has its [`Key`].
    ///
    /// # Errors
    ///
    /// Those that the kernel refused, each named; all others stand.
    pub fn set(&mut self, routes: &[Route]) -> Result<(), Vec<Error>> {
        let mut batch = Batch::default();
        for route in routes {
            put(&mut batch, route);
        }
        self.request(batch, |index| match routes.get(index) {
            Some(route) => format!("set the route to {}", route.to),
            None => "set a route".to_owned(),
        })
    }

    /// Deletes routes; one that is gone is deleted.
    ///
    /// # Errors
    ///
    /// Those that the kernel refused, each named; all others are gone.
    pub fn delete(&mut self, routes: &[Key]) -> Result<(), Vec<Error>> {
        let mut batch = Batch::default();
        for key in routes {
            let (_, to, from, _) = *key;
            let header = header(to, from, RT_SCOPE_NOWHERE, 0);
            let mut message = batch.message(RTM_DELROUTE, 0, &header);
            identity(&mut message, *key);
        }
        self.request(batch, |index| match routes.get(index) {
            Some((_, to, ..)) => format!("delete the route to {to}"),
            None => "delete a route".to_owned(),
        })
    }

    /// Packets go by the routes of the tables that are for them, where there are such. `out` says what goes by [`Table::Out`].
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn part(&mut self, out: &Out) -> Result<(), Error> {
        rules::set(&mut self.0, out)
    }

    /// How what is for the world leaves this host without the mesh, by family; by that link alone, if one is named.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub fn leaving(&mut self, link: Option<u32>) -> Result<Vec<Leaving>, Error> {
        let mut batch = Batch::default();
        for (family, target) in WORLD {
            let mut header = [0; ROUTE_HEADER];
            (header[0], header[1]) = (af(family), family.bits());
            header[8..].copy_from_slice(&RTM_F_FIB_MATCH.to_ne_bytes());
            let mut message = batch.message(RTM_GETROUTE, 0, &header);
            message.addr(RTA_DST, target).ne32(RTA_MARK, UNDERLAY);
            if let Some(link) = link {
                message.ne32(RTA_OIF, link);
            }
        }
        let mut found = Vec::new();
        self.0.query(&mut batch, |_, answer| {
            found.extend(read_leaving(answer));
        })?;
        Ok(found)
    }

    /// The loopback interface has these addresses, and no others with the number.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn own(&mut self, wanted: &[IpAddr]) -> Result<(), Error> {
        let mut request = Batch::default();
        request.message(RTM_GETADDR, 0, &[0; ADDRESS_HEADER]);
        let found = self.0.dump(&mut request, read_address)?;
        let mut batch = Batch::default();
        for gone in found.iter().filter(|found| !wanted.contains(found)) {
            let mut message = batch.message(RTM_DELADDR, 0, &address_header(*gone));
            message.addr(IFA_LOCAL, *gone);
        }
        for address in wanted {
            let how = flags::CREATE | flags::REPLACE;
            let mut message = batch.message(RTM_NEWADDR, how, &address_header(*address));
            message
                .addr(IFA_LOCAL, *address)
                .addr(IFA_ADDRESS, *address)
                .octet(IFA_PROTO, MESH_PROTOCOL);
            if address.is_ipv6() {
                message.ne32(IFA_FLAGS, IFA_F_NODAD);
            }
        }
        let done = self.request(batch, |_| "give the node its addresses".to_owned());
        done.map_err(|mut errors| errors.swap_remove(0))
    }

    fn request(
        &mut self,
        mut batch: Batch,
        operation: impl Fn(usize) -> String,
    ) -> Result<(), Vec<Error>> {
        if batch.is_empty() {
            return Ok(());
        }
        let outcome = self.0.request(&mut batch).map_err(|error| vec![error])?;
        let refused = outcome
            .into_iter()
            .filter(|(_, refusal)| ![libc::ESRCH, libc::EADDRNOTAVAIL].contains(&refusal.errno));
        let errors: Vec<Error> = refused
            .map(|(index, refusal)| refusal.of(operation(index)))
            .collect();
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors),
        }
    }
}

/// For its fuzz target.
#[cfg(feature = "fuzzing")]
pub fn read_any(answer: &Answer<'_>) {
    let _ = (
        read_route(answer),
        read_taken(answer),
        read_leaving(answer),
        read_address(answer),
        rules::read(answer),
    );
}

fn read_address(answer: &Answer<'_>) -> Option<IpAddr> {
    let attrs = Attrs::after(answer.payload, ADDRESS_HEADER);
    let is_ours = answer.kind == RTM_NEWADDR
        && ne32(answer.payload.get(4..)?)? == LOOPBACK
        && attrs.get(IFA_PROTO).and_then(octet) == Some(MESH_PROTOCOL);
    let own = attrs.get(IFA_LOCAL).or_else(|| attrs.get(IFA_ADDRESS))?;
    addr(own).filter(|_| is_ours)
}

fn address_header(address: IpAddr) -> [u8; ADDRESS_HEADER] {
    let family = Family::of(address);
    let mut header = [af(family), family.bits(), 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&LOOPBACK.to_ne_bytes());
    header
}

fn read_taken(answer: &Answer<'_>) -> Option<Taken> {
    let head = answer.payload.get(..ROUTE_HEADER)?;
    let family = family(head[0]).filter(|_| answer.kind == RTM_NEWROUTE)?;
    let attrs = Attrs::after(answer.payload, ROUTE_HEADER);
    let address = match attrs.get(RTA_DST) {
        Some(value) => addr(value)?,
        None => family.unspecified(),
    };
    Some(Taken {
        to: Prefix::new(address, head[1]).ok()?,
        link: attrs
            .get(RTA_OIF)
            .and_then(ne32)
            .filter(|_| head[7] == RTN_UNICAST),
        metric: attrs.get(RTA_PRIORITY).and_then(ne32).unwrap_or(0),
        is_ours: head[5] == MESH_PROTOCOL,
    })
}

fn read_leaving(answer: &Answer<'_>) -> Option<Leaving> {
    let head = answer.payload.get(..ROUTE_HEADER)?;
    let is_of_host = head[5] != MESH_PROTOCOL && head[7] == RTN_UNICAST;
    let family = family(head[0]).filter(|_| answer.kind == RTM_NEWROUTE && is_of_host)?;
    let attrs = Attrs::after(answer.payload, ROUTE_HEADER);
    let several = attrs.get(RTA_MULTIPATH).and_then(shares);
    let first = several.and_then(|shares| shares.first().copied());
    Some(match first {
        Some(share) => Leaving {
            family,
            link: share.link,
            gateway: Some(share.next_hop),
        },
        None => Leaving {
            family,
            link: attrs.get(RTA_OIF).and_then(ne32)?,
            gateway: next_hop(attrs),
        },
    })
}

fn read_route(answer: &Answer<'_>) -> Option<Route> {
    let head = answer.payload.get(..ROUTE_HEADER)?;
    if answer.kind != RTM_NEWROUTE || head[5] != MESH_PROTOCOL {
        return None;
    }
    let family = family(head[0])?;
    let attrs = Attrs::after(answer.payload, ROUTE_HEADER);
    let number = attrs.get(RTA_TABLE).and_then(ne32)?;
    let mut tables = Table::ALL.into_iter();
    let table = tables.find(|table| table.number() == number)?;
    let prefix = |attr: u16, len: u8| {
        let address = match attrs.get(attr) {
            Some(value) => addr(value)?,
            None => family.unspecified(),
        };
        Prefix::new(address, len).ok()
    };
    let hop = match head[7] {
        RTN_UNICAST => match attrs.get(RTA_MULTIPATH) {
            Some(hops) => Hop::Shared(shares(hops)?),
            None => Hop::Via {
                link: ne32(attrs.get(RTA_OIF)?)?,
                next_hop: next_hop(attrs)?,
            },
        },
        _ => Hop::Unreachable,
    };
    Some(Route {
        table,
        to: prefix(RTA_DST, head[1])?,
        from: match head[2] {
            0 => None,
            len => Some(prefix(RTA_SRC, len)?),
        },
        metric: attrs.get(RTA_PRIORITY).and_then(ne32).unwrap_or(0),
        hop,
        source: attrs.get(RTA_PREFSRC).and_then(addr),
    })
}

fn next_hop(attrs: Attrs<'_>) -> Option<IpAddr> {
    match (attrs.get(RTA_GATEWAY), attrs.get(RTA_VIA)) {
        (Some(value), _) => addr(value),
        (None, via) => addr(via?.get(2..)?),
    }
}

/// Of several `struct rtnexthop`.
fn shares(mut octets: &[u8]) -> Option<Vec<Share>> {
    let mut shares = Vec::new();
    while octets.len() >= NEXT_HOP_HEADER {
        let len = usize::from(ne16(octets.get(..2)?)?);
        let this = octets.get(..len)?;
        let (weight, link) = (this.get(3)?, ne32(this.get(4..NEXT_HOP_HEADER)?)?);
        shares.push(Share {
            link,
            next_hop: next_hop(Attrs::after(this, NEXT_HOP_HEADER))?,
            weight: weight.saturating_add(1),
        });
        octets = octets.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    shares.sort_unstable();
    Some(shares)
}

fn put(batch: &mut Batch, route: &Route) {
    let kind = match &route.hop {
        Hop::Via { .. } | Hop::Shared(_) => RTN_UNICAST,
        Hop::Unreachable => RTN_UNREACHABLE,
    };
    let header = header(route.to, route.from, 0, kind);
    let mut message = batch.message(RTM_NEWROUTE, flags::CREATE | flags::REPLACE, &header);
    identity(&mut message, route.key());
    if let Some(source) = route.source {
        message.addr(RTA_PREFSRC, source);
    }
    let family = route.to.family();
    match &route.hop {
        Hop::Via { link, next_hop } => {
            message.ne32(RTA_OIF, *link);
            put_next_hop(&mut message, family, *next_hop);
        }
        Hop::Shared(shares) => {
            message.nest(RTA_MULTIPATH, |message| {
                for share in shares {
                    message.weighted_next_hop((share.link, share.weight), |message| {
                        put_next_hop(message, family, share.next_hop);
                    });
                }
            });
        }
        Hop::Unreachable => {}
    }
}

fn put_next_hop(message: &mut Message<'_>, family: Family, next_hop: IpAddr) {
    match next_hop {
        IpAddr::V6(via) if family == Family::V4 => {
            let mut value = u16::from(af(Family::V6)).to_ne_bytes().to_vec();
            value.extend_from_slice(&via.octets());
            message.attr(RTA_VIA, &value);
        }
        next_hop => {
            message.addr(RTA_GATEWAY, next_hop);
        }
    }
}

fn header(to: Prefix, from: Option<Prefix>, scope: u8, kind: u8) -> [u8; ROUTE_HEADER] {
    let mut header = [0; ROUTE_HEADER];
    header[0] = af(to.family());
    header[1] = to.len();
    header[2] = from.map_or(0, |from| from.len());
    header[5] = MESH_PROTOCOL;
    header[6] = scope;
    header[7] = kind;
    header
}

fn identity(message: &mut Message<'_>, (table, to, from, metric): Key) {
    message
        .addr(RTA_DST, to.addr())
        .ne32(RTA_TABLE, table.number())
        .ne32(RTA_PRIORITY, metric);
    if let Some(from) = from {
        message.addr(RTA_SRC, from.addr());
    }
}
