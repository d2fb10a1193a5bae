//! What the server wants to be otherwise; and what the kernel says has changed, in the main namespace and in those that are ours: what was lost is
//! made anew at once, anything else is looked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use hextet_autoconf::Upstream;
use hextet_kernel::netlink::{Heard, LinkSettings, Wake};
use hextet_model::{
    intent::{Change, Intent},
    neutron::Port,
    plan::outer_end,
    state::{Key, Netns, Object, Veth},
};
use hextet_types::{IfName, Mac, PortId};
use tracing::{debug, error};

use super::{Reconciler, tell};
use crate::{announcement::Announcement, doubt::Doubt, subscription::Update};

/// The links concerned, by namespace.
type Links = BTreeMap<Netns, BTreeSet<IfName>>;

/// What the server does not know of what a port's workload has said, if that is for it to say: addresses that it may
/// use besides its own and that another has, as far as anybody knows.
fn news(intent: &Intent, port: &Port, said: &Announcement) -> Option<BTreeSet<IpAddr>> {
    let pairs = &port.allowed_address_pairs;
    let is_its = |mac: Mac| mac == port.mac_address || pairs.iter().any(|p| p.mac_address == mac);
    if port.port_security_enabled && !is_its(said.mac) {
        return None;
    }
    let allows = |addr: &IpAddr| {
        let paired = || pairs.iter().any(|pair| pair.ip_address.contains(*addr));
        let own = port.fixed_ips.iter().any(|f| f.ip_address == *addr);
        !own && (!port.port_security_enabled || paired())
    };
    let held = |addr: &IpAddr| intent.holders.get(&(port.network_id, *addr)) == Some(&port.id);
    let said = said.addresses.iter();
    let news: BTreeSet<IpAddr> = said.filter(|a| allows(a) && !held(a)).copied().collect();
    (!news.is_empty()).then_some(news)
}

impl Reconciler {
    pub(super) fn hear_intent(&mut self, update: Update) {
        self.server_heard = Some(Instant::now());
        let changes_inside = tell::changes_inside(&update);
        let (changed, revision, kept) = match update {
            Update::StillAt(revision) => {
                self.revision = revision;
                self.set_doubt(Doubt::None);
                return;
            }
            Update::Whole(mut intent, revision) => {
                intent
                    .upstreams
                    .clone_from(&self.planner.intent().upstreams);
                let changed = self.planner.replace_with(*intent);
                let kept = self.journal.rewrite(self.planner.intent(), revision);
                (changed, revision, kept)
            }
            Update::Group(changes, revision) => {
                let changed = self.planner.apply_all(changes.iter().cloned());
                let kept = self
                    .journal
                    .append(&changes, revision, self.planner.intent());
                (changed, revision, kept)
            }
        };
        if let Err(error) = kept {
            error!(%error, "the intent is not on disk: after a restart without a server an older one counts");
        }
        self.revision = revision;
        debug!(
            revision,
            keys = changed.objects.len(),
            "the intent is another"
        );
        self.take(changed);
        self.set_doubt(Doubt::None);
        if changes_inside {
            self.tell_inside();
        }
        self.tell_watched();
        self.tell_standbys();
    }

    /// Routers on a physical network say something else, which is kept beside what the server says.
    pub(super) fn hear_upstream(&mut self, on: String, said: Box<Upstream>) {
        let change = Change::PutUpstream(on, said);
        let changed = self.planner.apply(change.clone());
        let intent = self.planner.intent();
        if let Err(error) = self.journal.append(&[change], self.revision, intent) {
            error!(%error, "what routers say is not on disk");
        }
        self.take(changed);
    }

    /// A workload says that it is there, or that it has addresses: what of that is news goes to the server.
    pub(super) fn hear_announcement(&mut self, id: PortId, said: &Announcement) {
        let intent = self.planner.intent();
        let news = intent
            .ports
            .get(&id)
            .and_then(|port| news(intent, port, said));
        if let Some(news) = news {
            // Whoever holds an address says so again and again.
            let _ = self.outputs.heard.try_send((id, news));
        }
    }

    /// A port's link that came, went or is set otherwise than we set it has lost what stood on it; anything
    /// else is looked for.
    pub(super) fn hear_kernel(&mut self, heard: Heard) {
        let mut links = Links::new();
        let mut gone = BTreeSet::new();
        for wake in heard.here {
            match wake {
                Wake::NewLink(link) => drop(of(&mut links, &Netns::Main).insert(link)),
                Wake::Addresses => self.next_hops.refresh(),
                Wake::Namespace(name) => drop(gone.insert(Netns::Named(name))),
                other => self.hear_wake(&Netns::Main, other, &mut links),
            }
        }
        for (number, wake) in heard.elsewhere {
            if let Some(netns) = self.kernel.numbered(number).cloned() {
                self.hear_wake(&netns, wake, &mut links);
            }
        }
        self.dirty.extend(self.kernel.forget_namespaces(gone));
        for (netns, links) in links {
            match netns {
                Netns::Main => self.hear_links(links),
                Netns::Named(_) => self.dirty.extend(self.kernel.forget_links(&netns, &links)),
            }
        }
    }

    fn hear_wake(&mut self, netns: &Netns, wake: Wake, links: &mut Links) {
        match wake {
            Wake::Link(link) if link.as_str() == "lo" => self.looks.soon(),
            Wake::Link(link) => drop(of(links, netns).insert(link)),
            Wake::LinkSettings(is) => {
                if *netns == Netns::Main && is.running {
                    self.hear_opened(&is.name);
                }
                if !self.is_as_desired(netns, &is) {
                    of(links, netns).insert(is.name);
                }
            }
            Wake::Settings => self.look_at_settings(netns),
            // In a namespace of ours only we make links, and what came before went before.
            Wake::NewLink(_) | Wake::Addresses => {}
            Wake::Program(_)
            | Wake::Neighbours
            | Wake::Routes(_)
            | Wake::Rules(_)
            | Wake::XfrmPolicies
            | Wake::Table
            | Wake::Namespace(_)
            | Wake::Resync => self.looks.soon(),
        }
    }

    fn hear_opened(&mut self, link: &IfName) {
        if let Some(port) = self.links.get(link).copied()
            && *link == IfName::for_port(port)
            && self.found.remove(&port)
        {
            self.touched_ports.insert(port);
        }
    }

    /// Whether these are the settings that we give to the link, and nothing waits for it.
    fn is_as_desired(&self, netns: &Netns, is: &LinkSettings) -> bool {
        let settings = (is.up, is.mtu, is.mac);
        match self.settings_of(netns, &is.name) {
            Some((up, mtu, mac)) => {
                !self.waiting.contains_key(&is.name) && (up, u32::from(mtu), Some(mac)) == settings
            }
            None => *netns != Netns::Main && is.name.as_str() == "lo",
        }
    }

    fn settings_of(&self, netns: &Netns, name: &IfName) -> Option<(bool, u16, Mac)> {
        let object = |key| self.desired.get(&key);
        match netns {
            Netns::Main => match object(Key::Link(Netns::Main, name.clone())) {
                Some(Object::Link(link)) => Some((link.up, link.mtu, link.mac)),
                _ => match object(Key::Veth(Netns::Main, name.clone()))? {
                    Object::Veth(veth) => Some((true, veth.mtu, veth.mac)),
                    _ => None,
                },
            },
            Netns::Named(_) => match object(Key::Vxlan(netns.clone(), name.clone())) {
                Some(Object::Vxlan(vxlan)) => Some((true, vxlan.mtu, vxlan.mac)),
                _ => {
                    let veth = self
                        .pair_of(name)
                        .filter(|veth| veth.peer_netns == *netns)?;
                    Some((true, veth.mtu, veth.peer_mac))
                }
            },
        }
    }

    /// The pair that leads to the port with that interface.
    fn pair_of(&self, name: &IfName) -> Option<&Veth> {
        let outer = outer_end(*self.links.get(name)?)?;
        match self.desired.get(&Key::Veth(Netns::Main, outer))? {
            Object::Veth(veth) => Some(veth),
            _ => None,
        }
    }

    fn hear_links(&mut self, mut links: BTreeSet<IfName>) {
        for link in &links {
            let waiting = self.waiting.remove(link);
            self.dirty.extend(waiting.unwrap_or_default());
        }
        links.retain(|link| self.links.contains_key(link));
        self.dirty
            .extend(self.kernel.forget_links(&Netns::Main, &links));
        for link in links {
            if let Some(port) = self.links.get(&link).copied() {
                if self.note_link(port) {
                    self.found.remove(&port);
                }
                self.tell_responder(port);
            }
        }
    }

    /// Settings are few, and the kernel does not tell whether it was we who changed one.
    fn look_at_settings(&mut self, netns: &Netns) {
        match self.kernel.reconcile_sysctls(netns, &self.desired) {
            Ok(report) => {
                self.mended += report.applied as u64;
                self.note(report);
            }
            Err(error) => {
                error!(%error, "the settings can't be read");
                self.looks.soon();
            }
        }
    }
}

fn of<'a>(links: &'a mut Links, netns: &Netns) -> &'a mut BTreeSet<IfName> {
    links.entry(netns.clone()).or_default()
}
