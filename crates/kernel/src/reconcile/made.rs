//! Veth pairs and VXLAN devices: what stands of them, making them, changing them, and taking them away.
//!
//! Whether one that is to stand is there already is looked at when it is to be made, so that nothing is made anew
//! that can stay: what stands on a link goes with it.

use std::collections::{BTreeMap, BTreeSet};

use hextet_model::state::{Key, Link, Netns, Object, Veth, Vxlan};
use hextet_types::{IfName, Mac};

use super::{
    Kernel, Op, Standing,
    apply::Fate,
    dump::{Survey, Surveys},
};
use crate::{
    error::{Error, Refusal},
    netlink::Batch,
    netns,
    route::{
        Indexes,
        link::{self, Found, Kind},
        made::{self, FIRST_INDEX, LEG, TUNNEL},
    },
};

/// So many indexes in a row that are taken are passed by.
const TRIES: usize = 64;

/// An end of a link that is to be.
struct End<'a> {
    netns: &'a Netns,
    name: &'a IfName,
    mac: Mac,
    mtu: u16,
    group: u32,
}

/// What is to be made.
#[derive(Clone, Copy)]
enum Made<'a> {
    Veth(&'a Veth),
    Vxlan(&'a Vxlan),
}

impl<'a> Made<'a> {
    fn of(object: &'a Object) -> Option<Self> {
        match object {
            Object::Veth(veth) => Some(Made::Veth(veth)),
            Object::Vxlan(vxlan) => Some(Made::Vxlan(vxlan)),
            _ => None,
        }
    }

    fn first(self) -> End<'a> {
        let (netns, name, mac, mtu) = match self {
            Made::Veth(o) => (&o.netns, &o.name, o.mac, o.mtu),
            Made::Vxlan(o) => (&o.netns, &o.name, o.mac, o.mtu),
        };
        End {
            netns,
            name,
            mac,
            mtu,
            group: made::OURS,
        }
    }

    fn other(self) -> Option<End<'a>> {
        match self {
            Made::Veth(o) => Some(End {
                netns: &o.peer_netns,
                name: &o.peer,
                mac: o.peer_mac,
                mtu: o.mtu,
                group: o.peer_group,
            }),
            Made::Vxlan(_) => None,
        }
    }
}

impl Kernel {
    /// The number that one namespace has for another; none, where it has none yet.
    pub(super) fn number_of(&mut self, of: &Netns, within: &Netns) -> Result<Option<i32>, Error> {
        let Some(handle) = self.handle_of(of)? else {
            return Ok(None);
        };
        let Some(namespace) = self.namespace(within)? else {
            return Ok(None);
        };
        let mut request = Batch::default();
        made::request_nsid(&mut request, handle.fd());
        let mut number = None;
        namespace.route.query(&mut request, |_, answer| {
            number = made::read_nsid(answer).or(number);
        })?;
        Ok(number)
    }

    /// A handle of one's own on a namespace that is there, and ours if its name is.
    fn handle_of(&mut self, netns: &Netns) -> Result<Option<netns::Handle>, Error> {
        match self.namespace(netns)? {
            Some(namespace) => namespace.handle.another().map(Some),
            None => Ok(None),
        }
    }

    /// Which indexes of ours are taken.
    pub(super) fn note_indexes(&mut self, links: &Indexes) {
        let ours = links.all().map(|(_, index)| index & !(TUNNEL | LEG));
        let last = ours.filter(|index| *index >= FIRST_INDEX).max();
        if let Some(last) = last {
            self.next_index = self.next_index.max(after(last));
        }
    }

    pub(super) fn apply_made(&mut self, op: &Op) -> Fate {
        match (op.object().and_then(Made::of), op.key().link()) {
            (Some(made), _) => self.make(op, made),
            (None, Some((netns, name))) => match self.link_in(netns, name) {
                Ok(Some(is)) if is.group == made::OURS => self.delete_link(netns, is.index).into(),
                Ok(_) => Fate::Done,
                Err(e) => Fate::Failed(e),
            },
            (None, None) => Fate::Done,
        }
    }

    fn make(&mut self, op: &Op, made: Made<'_>) -> Fate {
        let outcome = self.try_to_make(op, made);
        outcome.unwrap_or_else(Fate::Failed)
    }

    fn try_to_make(&mut self, op: &Op, made: Made<'_>) -> Result<Fate, Error> {
        let first = made.first();
        let ends = [Some(first), made.other()];
        for end in ends.iter().flatten() {
            if self.namespace(end.netns)?.is_none() {
                return Ok(Fate::Waiting);
            }
        }
        if !self.is_there(op, made)? {
            self.create(op, made)?;
        }
        for end in ends.iter().flatten() {
            self.settle_end(op, end)?;
        }
        Ok(Fate::Done)
    }

    /// Whether it stands, as far as that cannot be changed. What stands in its place, if it is ours, is taken away.
    fn is_there(&mut self, op: &Op, made: Made<'_>) -> Result<bool, Error> {
        let first = made.first();
        let Some(is) = self.link_in(first.netns, first.name)? else {
            return Ok(false);
        };
        if is.group != made::OURS {
            return Err(somebody_elses(op, &first));
        }
        let right = match made {
            Made::Veth(veth) => self.is_pair(veth, &is)?,
            Made::Vxlan(vxlan) => {
                let number = self.number_of(&Netns::Main, &vxlan.netns)?;
                is_vxlan(vxlan, &is, number)
            }
        };
        if !right {
            self.delete_link(first.netns, is.index)?;
            let links = BTreeSet::from([first.name.clone()]);
            let mut lost = self.forget_links(first.netns, &links);
            if let Some(other) = made.other() {
                let links = BTreeSet::from([other.name.clone()]);
                lost.append(&mut self.forget_links(other.netns, &links));
            }
            lost.remove(&op.key());
            self.lost.append(&mut lost);
        }
        Ok(right)
    }

    fn is_pair(&mut self, veth: &Veth, is: &Found) -> Result<bool, Error> {
        let Some(other) = self.link_in(&veth.peer_netns, &veth.peer)? else {
            return Ok(false);
        };
        let number = match veth.peer_netns == veth.netns {
            true => None,
            false => match self.number_of(&veth.peer_netns, &veth.netns)? {
                None => return Ok(false),
                number => number,
            },
        };
        Ok(is.of_netns == number && are_a_pair(is, &other) && has_right_index(veth, is, &other))
    }

    /// Makes it, with an index that no other link has in its namespaces.
    fn create(&mut self, op: &Op, made: Made<'_>) -> Result<(), Error> {
        let (first, other) = (made.first(), made.other());
        let (Some(netns), Some(peer_netns)) = (
            self.handle_of(first.netns)?,
            self.handle_of(other.as_ref().map_or(&Netns::Main, |end| end.netns))?,
        ) else {
            return Err(Error::unfit(op.to_string(), "its namespace has gone"));
        };
        if self.next_index == FIRST_INDEX {
            self.learn_indexes()?;
        }
        let mut refused = None;
        for _ in 0..TRIES {
            let index = self.next_index;
            self.next_index = after(index);
            let mut batch = Batch::default();
            match made {
                Made::Veth(veth) => {
                    let index = index | if is_to_main(veth) { 0 } else { LEG };
                    made::veth(&mut batch, veth, index, netns.fd(), peer_netns.fd());
                }
                Made::Vxlan(vxlan) => {
                    made::vxlan(&mut batch, vxlan, index | TUNNEL, netns.fd());
                }
            }
            let Some(main) = self.namespace(&Netns::Main)? else {
                break;
            };
            let Some((_, refusal)) = main.route.request(&mut batch)?.into_iter().next() else {
                return Ok(());
            };
            if !self.is_way_cleared(op, other.as_ref(), &refusal)? {
                return Err(refusal.of(op.to_string()));
            }
            refused = Some(refusal);
        }
        let tried = Refusal {
            errno: libc::EBUSY,
            message: None,
        };
        Err(refused.unwrap_or(tried).of(op.to_string()))
    }

    /// Looks which indexes are taken in the main namespace, where nobody has looked yet.
    fn learn_indexes(&mut self) -> Result<(), Error> {
        let mut links = Indexes::default();
        if let Some(main) = self.namespace(&Netns::Main)? {
            let mut request = Batch::default();
            link::request_all(&mut request, false);
            for is in main.route.dump(&mut request, link::read)? {
                links.insert(is);
            }
        }
        self.note_indexes(&links);
        Ok(())
    }

    /// Whether it may be tried again: another index, or a pair of ours that was in the way is gone.
    fn is_way_cleared(
        &mut self,
        op: &Op,
        other: Option<&End<'_>>,
        refusal: &Refusal,
    ) -> Result<bool, Error> {
        match refusal.errno {
            libc::EBUSY => return Ok(true),
            libc::EEXIST => {}
            _ => return Ok(false),
        }
        let Some(other) = other else {
            return Ok(false);
        };
        match self.link_in(other.netns, other.name)? {
            Some(is) if is.group == made::OURS || made::may_be_our_end(&is) => {
                self.delete_link(other.netns, is.index)?;
                Ok(true)
            }
            Some(_) => Err(somebody_elses(op, other)),
            None => Ok(true),
        }
    }

    /// Gives an end its address and size, and sets it up.
    fn settle_end(&mut self, op: &Op, end: &End<'_>) -> Result<(), Error> {
        let Some(is) = self.link_in(end.netns, end.name)? else {
            return Err(Error::unfit(op.to_string(), "it has gone meanwhile"));
        };
        let wanted = Link {
            netns: end.netns.clone(),
            name: end.name.clone(),
            mac: end.mac,
            mtu: end.mtu,
            group: end.group,
            up: true,
        };
        let mut batch = Batch::default();
        link::set(&mut batch, &is, &wanted, || false);
        if batch.is_empty() {
            return Ok(());
        }
        let Some(namespace) = self.namespace(end.netns)? else {
            return Ok(());
        };
        match namespace.route.request(&mut batch)?.into_iter().next() {
            Some((_, refusal)) => Err(refusal.of(op.to_string())),
            None => Ok(()),
        }
    }

    fn link_in(&mut self, netns: &Netns, name: &IfName) -> Result<Option<Found>, Error> {
        match self.namespace(netns)? {
            Some(namespace) => namespace.link(name.as_str()),
            None => Ok(None),
        }
    }

    fn delete_link(&mut self, netns: &Netns, index: u32) -> Result<(), Error> {
        let Some(namespace) = self.namespace(netns)? else {
            return Ok(());
        };
        let mut batch = Batch::default();
        link::delete(&mut batch, index);
        match namespace.route.request(&mut batch)?.into_iter().next() {
            Some((_, refusal)) if refusal.errno != libc::ENODEV => {
                Err(refusal.of(format!("delete the link with index {index} in {netns}")))
            }
            _ => Ok(()),
        }
    }
}

fn after(index: u32) -> u32 {
    match index.checked_add(1) {
        Some(next) if next < LEG => next,
        _ => FIRST_INDEX,
    }
}

fn somebody_elses(op: &Op, end: &End<'_>) -> Error {
    Error::unfit(
        op.to_string(),
        format!(
            "somebody else has made a link {} in {}; it has to go first",
            end.name, end.netns
        ),
    )
}

fn are_a_pair(is: &Found, other: &Found) -> bool {
    (&is.kind, is.of) == (&Kind::Veth, Some(other.index))
        && (&other.kind, other.of) == (&Kind::Veth, Some(is.index))
}

fn is_to_main(veth: &Veth) -> bool {
    [&veth.netns, &veth.peer_netns].contains(&&Netns::Main)
}

/// Where one end is in the main namespace, both have the same index.
fn has_right_index(veth: &Veth, is: &Found, other: &Found) -> bool {
    match is_to_main(veth) {
        true => is.index == other.index,
        false => is.index & LEG != 0,
    }
}

fn is_vxlan(vxlan: &Vxlan, is: &Found, main: Option<i32>) -> bool {
    let right_index = is.index & TUNNEL != 0;
    let outside = vxlan.netns == Netns::Main || (is.of_netns.is_some() && is.of_netns == main);
    match &is.kind {
        Kind::Vxlan(kind) => {
            let right = (kind.vni, kind.local, kind.port);
            right_index
                && outside
                && kind.plain
                && right == (vxlan.vni, Some(vxlan.local), vxlan.port)
        }
        _ => false,
    }
}

/// What of ours was made in a namespace.
pub(super) fn dump_made(netns: &Netns, all: &Surveys, found: &mut BTreeMap<Key, Standing>) {
    let Some(survey) = all.get(netns) else {
        return;
    };
    for is in survey.links.found().filter(|is| is.group == made::OURS) {
        let (key, object) = match &is.kind {
            Kind::Vxlan(_) => (
                Key::Vxlan(netns.clone(), is.name.clone()),
                read_vxlan(netns, is, survey),
            ),
            Kind::Veth => (
                Key::Veth(netns.clone(), is.name.clone()),
                read_veth(netns, is, all),
            ),
            Kind::WireGuard | Kind::Other => continue,
        };
        let standing = match object {
            Some((object, true)) if is_set_up(is) => object.into(),
            Some(_) => Standing::otherwise("not set up"),
            None => Standing::Otherwise {
                what: "of another kind".to_owned(),
                remake: true,
            },
        };
        found.insert(key, standing);
    }
}

fn is_set_up(is: &Found) -> bool {
    is.up && !is.generates_addresses
}

fn read_vxlan(netns: &Netns, is: &Found, survey: &Survey) -> Option<(Object, bool)> {
    let Kind::Vxlan(kind) = &is.kind else {
        return None;
    };
    let vxlan = Vxlan {
        netns: netns.clone(),
        name: is.name.clone(),
        vni: kind.vni,
        local: kind.local?,
        port: kind.port,
        mtu: u16::try_from(is.mtu).ok()?,
        mac: is.mac?,
    };
    let number = survey.numbers.get(&Netns::Main).copied();
    is_vxlan(&vxlan, is, number).then_some((Object::Vxlan(vxlan), true))
}

/// The pair, and whether its other end, found by the number of its namespace and its index, is set up.
fn read_veth(netns: &Netns, is: &Found, all: &Surveys) -> Option<(Object, bool)> {
    let survey = all.get(netns)?;
    let peer_netns = match is.of_netns {
        None => netns,
        Some(number) => {
            let mut numbers = survey.numbers.iter();
            numbers.find(|(_, of)| **of == number)?.0
        }
    };
    let other = all.get(peer_netns)?.links.at(is.of?)?;
    let veth = Veth {
        netns: netns.clone(),
        name: is.name.clone(),
        mac: is.mac?,
        mtu: u16::try_from(is.mtu).ok()?,
        peer_netns: peer_netns.clone(),
        peer: other.name.clone(),
        peer_mac: other.mac?,
        peer_group: other.group,
    };
    let right = are_a_pair(is, other) && has_right_index(&veth, is, other);
    right.then_some((Object::Veth(veth), is_set_up(other) && other.mtu == is.mtu))
}
