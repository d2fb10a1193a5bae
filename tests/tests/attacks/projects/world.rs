//! The hosts on which projects attack one another, and the underlay between them, which the suite carries.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use hextet_tests::{
    cloud::addr,
    defence::Defence,
    hypervisor::{SPINE_MAC, UPLINK},
    packet::{Ends, Ether, Ip, Payload, ether_ip, fragments, is_marked, parse, vxlan},
    site::{Entry, Site},
    told::{Whole, endpoint},
    wire::Frame,
};
use hextet_types::{Family, Mac, PortId};

use super::setting::{Cast, Setting};
use crate::world::{GATEWAY_MAC, marked_datagram};

/// How long what a defence ought to stop may take. Linux forwards within the call that sends, but for what waits for another
/// thread of its own.
const DEFENDED: Duration = Duration::from_millis(15);
/// How long to wait for what nothing stops; only a failing test waits so long.
const UNDEFENDED: Duration = Duration::from_secs(3);
/// From host to host, at most.
const MOST_ROUNDS: usize = 16;
/// The port of tunnels.
const VXLAN: u16 = 4789;

/// The hosts with their ports, and what has come out of them.
pub struct World {
    /// Who is there.
    pub cast: Cast,
    sites: Vec<Site>,
    whole: Whole,
    /// What has been tried in this world, and whether it has succeeded.
    tried: Vec<(String, bool)>,
    /// By port, what it got.
    got: BTreeMap<PortId, Vec<Frame>>,
    /// What left for outside.
    left: Vec<Frame>,
    /// What went from host to host.
    between: Vec<Frame>,
    patience: Duration,
}

impl World {
    /// All hosts, without those defences. `open` says that what is tried ought to succeed.
    pub fn new(setting: Setting, left_out: &[Defence], open: bool) -> World {
        let mut settings = setting.whole.settings();
        for host in &mut settings {
            if let Some(most) = setting.max_connections {
                host.config.max_connections_per_port = most;
            }
        }
        let sites = settings.iter().map(|host| Site::without(host, left_out));
        let sites: Vec<Site> = sites.collect();
        for defence in left_out {
            let somewhere = sites.iter().any(|site| site.lacks(*defence));
            assert!(somewhere, "there is no {defence:?} to leave out");
        }
        World {
            sites,
            cast: setting.cast,
            whole: setting.whole,
            tried: Vec::new(),
            got: BTreeMap::new(),
            left: Vec::new(),
            between: Vec::new(),
            patience: if open { UNDEFENDED } else { DEFENDED },
        }
    }

    /// One of several things that are tried in this world has succeeded, or has not.
    pub fn tried(&mut self, what: impl Into<String>, hit: bool) {
        self.tried.push((what.into(), hit));
        self.clear();
    }

    /// Whether what was tried has succeeded: all of it, where it ought to, and any of it, where it must not. Says what is not as
    /// it should be.
    pub fn outcome(&self) -> bool {
        let open = self.patience > DEFENDED;
        let odd = self.tried.iter().filter(|(_, hit)| *hit != open);
        let odd: Vec<&str> = odd.map(|(what, _)| what.as_str()).collect();
        if !odd.is_empty() {
            let verb = if open { "fail" } else { "succeed" };
            eprintln!("these {verb}: {}", odd.join("; "));
        }
        odd.is_empty() == open
    }

    /// A port's first address of a family.
    pub fn address(&self, port: PortId, family: Family) -> IpAddr {
        let port = &self.whole.cloud.ports[&port];
        port.addresses(family).next().expect("it has one")
    }

    /// A port's address that is reached from outside.
    pub fn public(&self, port: PortId, family: Family) -> IpAddr {
        let of_port = &self.whole.cloud.ports[&port];
        match family {
            Family::V4 => {
                let inside = self.address(port, Family::V4);
                let mut ips = self.whole.cloud.floating_ips.values();
                let ip = ips.find(|ip| {
                    ip.network_id == of_port.network_id && inside == ip.fixed_ip_address
                });
                ip.map_or(inside, |ip| ip.floating_ip_address.into())
            }
            Family::V6 => {
                let published = |a: &IpAddr| a.to_string().starts_with("2001:db8:");
                of_port
                    .addresses(family)
                    .find(published)
                    .expect("it has one")
            }
        }
    }

    /// What a port sends from to the outside.
    pub fn outside_source(&self, port: PortId, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.address(port, family),
            Family::V6 => self.public(port, family),
        }
    }

    /// A port's Ethernet address.
    pub fn mac(&self, port: PortId) -> Mac {
        self.whole.cloud.ports[&port].mac_address
    }

    /// Where a host is reached by tunnels.
    pub fn endpoint(&self, host: usize) -> IpAddr {
        endpoint(host, self.whole.underlay).address
    }

    /// The segment of a port's network.
    pub fn segment_of(&self, port: PortId) -> u32 {
        let network = self.whole.cloud.ports[&port].network_id;
        let segment = self.whole.cloud.networks[&network].segmentation_id;
        segment.expect("a private network")
    }

    /// How a host is known within private networks.
    pub fn host_mac(&self, host: usize) -> Mac {
        let [_, a, b, c] = endpoint(host, self.whole.underlay).number.to_be_bytes();
        Mac::new([0x06, 0x68, 0x78, a, b, c])
    }

    /// A frame from a port with that packet.
    pub fn frame(&self, from: PortId, to: Mac, packet: &[u8]) -> Frame {
        let src = self.mac(from);
        ether_ip(Ether { src, dst: to }, packet)
    }

    /// Sends a frame from a port, and carries what follows from it between hosts.
    pub fn send_frame(&mut self, from: PortId, frame: &[u8]) {
        let host = self.whole.bound[&from];
        self.sites[host].send_frame(Entry::Port(from), frame);
        self.carry();
    }

    /// Sends a packet from a port to its gateway.
    pub fn send(&mut self, from: PortId, packet: &[u8]) {
        let frame = self.frame(from, GATEWAY_MAC, packet);
        self.send_frame(from, &frame);
    }

    /// Sends a packet from a port to its gateway, with that between its ends.
    pub fn send_plain(&mut self, from: PortId, ends: Ends, payload: &Payload) {
        self.send(from, &Ip::default().packet(ends, payload));
    }

    /// Somebody outside sends a packet, which comes to a host by its uplink.
    pub fn send_from_outside(&mut self, host: usize, packet: &[u8]) {
        let gateway = [SPINE_MAC, GATEWAY_MAC];
        self.sites[host].send_to(Entry::Uplink, gateway, packet);
        self.carry();
    }

    /// Somebody in the underlay sends a tunnel's packet, which comes to the first host: from that outer source, in that
    /// segment, with that packet inside, as if it were for the host's own ports.
    pub fn send_by_tunnel(&mut self, source: IpAddr, segment: u32, inner: &[u8]) {
        let packet = self.in_tunnel(source, segment, inner);
        self.send_from_outside(0, &packet);
    }

    /// The same in two fragments.
    pub fn send_by_tunnel_in_fragments(&mut self, source: IpAddr, segment: u32, inner: &[u8]) {
        let ends = Ends::new(source, self.endpoint(0));
        let whole = self.tunnelled(ends, segment, inner);
        let halves = [(0, 32), (32, whole.octets.len())];
        for fragment in fragments(&Ip::default(), ends, &whole, &halves) {
            self.send_from_outside(0, &fragment);
        }
    }

    /// The outer packet of that.
    pub fn in_tunnel(&self, source: IpAddr, segment: u32, inner: &[u8]) -> Vec<u8> {
        let ends = Ends::new(source, self.endpoint(0));
        Ip::default().packet(ends, &self.tunnelled(ends, segment, inner))
    }

    /// What is in that.
    pub fn tunnelled(&self, ends: Ends, segment: u32, inner: &[u8]) -> Payload {
        let ether = Ether {
            src: self.host_mac(1),
            dst: self.host_mac(0),
        };
        vxlan(ends, segment, &ether_ip(ether, inner))
    }

    /// A datagram with the marker to the open port.
    pub fn marked(&self, ends: Ends) -> Vec<u8> {
        Ip::default().packet(ends, &marked_datagram(ends))
    }

    /// Takes in what has come out of all hosts, and what is for one of them goes there.
    fn carry(&mut self) {
        for _ in 0..MOST_ROUNDS {
            let mut any = false;
            for n in 0..self.sites.len() {
                for (by, frame) in self.sites[n].receive(None, |_| true) {
                    any = true;
                    match self.sites[n].port_of(&by) {
                        Some(port) => self.got.entry(port).or_default().push(frame),
                        None if by.as_str() == UPLINK => self.onwards(n, frame),
                        None => {}
                    }
                }
            }
            if !any {
                return;
            }
        }
    }

    fn onwards(&mut self, from: usize, frame: Frame) {
        let Some(seen) = parse(&frame) else { return };
        let to = seen.ends.dst;
        let tunnelled = seen.ports.is_some_and(|(_, port)| port == VXLAN);
        let mut others = (0..self.sites.len()).filter(|n| *n != from);
        let next = match others.clone().find(|n| self.sites[*n].endpoint == Some(to)) {
            Some(known) => Some(known),
            None => others.find(|n| {
                let mut announced = self.sites[*n].state.announce.keys();
                announced.any(|prefix| prefix.contains(to))
            }),
        };
        if let Some(next) = next {
            let gateway = [SPINE_MAC, GATEWAY_MAC];
            self.sites[next].send_to(Entry::Uplink, gateway, &frame[14..]);
        }
        match next.is_some() && tunnelled {
            true => self.between.push(frame),
            false => self.left.push(frame),
        }
    }

    /// Whether that comes true, as long as it may take.
    pub fn comes_true(&mut self, sign: impl Fn(&World) -> bool) -> bool {
        self.comes_true_within(self.patience, sign)
    }

    fn comes_true_within(&mut self, patience: Duration, sign: impl Fn(&World) -> bool) -> bool {
        let end = Instant::now() + patience;
        loop {
            self.carry();
            if sign(self) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// What a port got so far.
    pub fn got(&self, port: PortId) -> &[Frame] {
        self.got.get(&port).map_or(&[], Vec::as_slice)
    }

    /// What has left for outside so far.
    pub fn left(&self) -> &[Frame] {
        &self.left
    }

    /// Whether a port gets such a frame.
    pub fn gets(&mut self, port: PortId, is_it: impl Fn(&[u8]) -> bool) -> bool {
        self.comes_true(|world| world.got(port).iter().any(|frame| is_it(frame)))
    }

    /// Whether a port gets what carries the marker.
    pub fn is_hit(&mut self, port: PortId) -> bool {
        self.gets(port, is_marked)
    }

    /// Whether a port gets what carries the marker, which nothing ought to stop.
    pub fn gets_at_all(&mut self, port: PortId) -> bool {
        let is_it = |world: &World| world.got(port).iter().any(|frame| is_marked(frame));
        self.comes_true_within(UNDEFENDED, is_it)
    }

    /// Whether a port gets anything with those ends, be it a fragment.
    pub fn arrives(&mut self, port: PortId, ends: Ends) -> bool {
        self.gets(port, |frame| parse(frame).is_some_and(|p| p.ends == ends))
    }

    /// Whether such a frame leaves for outside.
    pub fn leaves(&mut self, is_it: impl Fn(&[u8]) -> bool) -> bool {
        self.comes_true(|world| world.left.iter().any(|frame| is_it(frame)))
    }

    /// Waits for what leaves for outside with those ends: no attack, but what one is about.
    pub fn must_leave(&mut self, ends: Ends) {
        let is_it = |frame: &Frame| parse(frame).is_some_and(|p| p.ends == ends);
        let leaves = self.comes_true_within(UNDEFENDED, |world| world.left.iter().any(is_it));
        assert!(leaves, "{ends:?} does not leave");
    }

    /// Whether such a frame goes from host to host by a tunnel.
    pub fn carries(&mut self, is_it: impl Fn(&[u8]) -> bool) -> bool {
        self.comes_true(|world| world.between.iter().any(|frame| is_it(frame)))
    }

    /// Forgets what has come out so far.
    pub fn clear(&mut self) {
        self.carry();
        self.got.clear();
        self.left.clear();
        self.between.clear();
    }

    /// Does something on a host, in its main namespace.
    pub fn on<T>(&self, host: usize, work: impl FnOnce() -> T) -> T {
        self.sites[host].inside(work)
    }

    /// Somebody outside of the cloud.
    pub fn internet(&self, family: Family) -> IpAddr {
        addr(match family {
            Family::V4 => "192.0.2.7",
            Family::V6 => "2001:db8:7777::7",
        })
    }
}
