//! What of ours stands in the kernel. The filter is here: what is not ours never leaves this module.

use std::collections::{BTreeMap, BTreeSet};

use hextet_model::state::{
    self, Address, EdgeProgram, Fdb, Key, Link, Neighbour, Netns, Object, RouteKey, Sysctl,
    XfrmPolicy,
};
use hextet_types::Family;

use super::{
    Kernel, Namespace, Scope, Standing,
    made::dump_made,
    namespaces::named_like_ours,
    programs::{Hung, OnLinks},
    sources::owners,
    uplinks::dump_proxies,
};
use crate::{
    error::Error,
    netlink::Batch,
    nft,
    route::{Indexes, address, entry, fdb, link, made, neighbour, rule},
    sysctl, xfrm,
};

type Standings = BTreeMap<Key, Standing>;

/// What of a namespace can only be judged when all have been looked at.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) links: Indexes,
    pub(super) programs: OnLinks,
    /// The numbers that it has for other namespaces.
    pub(super) numbers: BTreeMap<Netns, i32>,
}

pub(super) type Surveys = BTreeMap<Netns, Survey>;

impl Kernel {
    /// All that is ours in the scope's namespaces, and which namespaces are ours. Writes nothing.
    pub fn dump(&mut self, scope: &Scope<'_>) -> Result<BTreeMap<Key, Standing>, Error> {
        let mut found = self.dump_but_sysctls(scope)?;
        self.dump_sysctls(&Netns::Main, scope, &mut found)?;
        Ok(found)
    }

    /// As [`Kernel::dump`], without the main namespace's sysctls.
    pub(super) fn dump_but_sysctls(&mut self, scope: &Scope<'_>) -> Result<Standings, Error> {
        self.drop_stale_namespaces();
        let mut found = Standings::new();
        let mut surveys = Surveys::new();
        let pairs = pairs(scope);
        let scoped = scope.all();
        for netns in with_those_named_like_ours(&scoped)? {
            if let Netns::Named(name) = &netns
                && state::Namespace::may_be_ours(name)
                && let Some(standing) = self.dump_namespace(name)?
            {
                found.insert(Key::Namespace(name.clone()), standing);
            }
            if !scoped.contains(&netns) || self.namespace(&netns)?.is_none() {
                continue;
            }
            let peers = pairs.get(&netns).cloned().unwrap_or_default();
            let survey = self.survey(&netns, peers)?;
            self.dump_within(&netns, &survey.links, scope, &mut found)?;
            if netns != Netns::Main {
                self.dump_sysctls(&netns, scope, &mut found)?;
            }
            surveys.insert(netns, survey);
        }
        self.conclude(scope, &surveys, &mut found)?;
        Ok(found)
    }

    fn survey(&mut self, netns: &Netns, peers: BTreeSet<Netns>) -> Result<Survey, Error> {
        let mut links = Indexes::default();
        if let Some(namespace) = self.namespace(netns)? {
            let mut request = Batch::default();
            link::request_all(&mut request, false);
            for is in namespace.route.dump(&mut request, link::read)? {
                links.insert(is);
            }
        }
        let indexes: Vec<u32> = links.all().map(|(_, index)| index).collect();
        let programs = self.look_at_programs(netns, &indexes)?;
        let mut numbers = BTreeMap::new();
        for peer in peers {
            if let Some(number) = self.number_of(&peer, netns)? {
                numbers.insert(peer, number);
            }
        }
        Ok(Survey {
            links,
            programs,
            numbers,
        })
    }

    fn dump_within(
        &mut self,
        netns: &Netns,
        links: &Indexes,
        scope: &Scope<'_>,
        found: &mut Standings,
    ) -> Result<(), Error> {
        let Some(namespace) = self.namespace(netns)? else {
            return Ok(());
        };
        dump_addresses(namespace, netns, links, scope, found)?;
        dump_neighbours(namespace, netns, links, found)?;
        if *netns == Netns::Main {
            dump_proxies(namespace, links, found)?;
        }
        dump_fdb(namespace, netns, links, found)?;
        dump_routes(namespace, netns, links, scope, found)?;
        dump_rules(namespace, netns, scope, found)?;
        dump_xfrm_policies(namespace, netns, found)?;
        dump_table(namespace, netns, scope, found)
    }

    /// What goes by programs and pairs, which are the same in all namespaces, or join them.
    fn conclude(
        &mut self,
        scope: &Scope<'_>,
        surveys: &Surveys,
        found: &mut Standings,
    ) -> Result<(), Error> {
        self.choose_programs(surveys.values().map(|survey| &survey.programs))?;
        for (netns, survey) in surveys {
            let hung = self.judge_programs(&survey.programs)?;
            dump_links(netns, &survey.links, &hung, scope, found);
            self.note_moves(netns, &survey.links, &hung);
            self.note_indexes(&survey.links);
            dump_made(netns, surveys, found);
        }
        let places = surveys.iter().map(|(netns, survey)| (netns, &survey.links));
        let owners = owners(places);
        self.dump_sources(surveys.keys().cloned(), &owners, found)?;
        self.dump_audiences(surveys.keys(), found)?;
        let Some(main) = surveys.get(&Netns::Main) else {
            return Ok(());
        };
        self.dump_patches(&main.links, &main.programs, found)?;
        self.dump_uplinks(&main.links, &main.programs, scope, found)
    }

    pub(super) fn dump_sysctls(
        &mut self,
        netns: &Netns,
        scope: &Scope<'_>,
        found: &mut Standings,
    ) -> Result<(), Error> {
        let from = Key::Sysctl(netns.clone(), String::new());
        let mut paths: BTreeSet<String> = scope
            .expected
            .range(from..)
            .map_while(|(key, _)| match key {
                Key::Sysctl(of, path) if of == netns => Some(path.clone()),
                _ => None,
            })
            .collect();
        if *netns == Netns::Main {
            paths.extend(self.record.paths().map(str::to_owned));
        }
        if paths.is_empty() {
            return Ok(());
        }
        let Some(namespace) = self.namespace(netns)? else {
            return Ok(());
        };
        let values = namespace.handle.run(|| {
            let read = |path: &str| (path.to_owned(), sysctl::read(path));
            paths.iter().map(|path| read(path)).collect::<Vec<_>>()
        })?;
        for (path, value) in values {
            match value {
                Ok(value) => {
                    let object = Object::Sysctl(Sysctl {
                        netns: netns.clone(),
                        path,
                        value,
                    });
                    found.insert(object.key(), object.into());
                }
                Err(e) if e.errno() == Some(libc::ENOENT) => {
                    let key = Key::Sysctl(netns.clone(), path);
                    found.extend(elsewhere(scope, &key).map(|object| (key, object.into())));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn with_those_named_like_ours(scoped: &BTreeSet<Netns>) -> Result<BTreeSet<Netns>, Error> {
    let named = named_like_ours()?.into_iter().map(Netns::Named);
    Ok(named.chain(scoped.iter().cloned()).collect())
}

/// The namespaces into which pairs lead, by that of their first end, and the main one, which VXLAN needs.
fn pairs(scope: &Scope<'_>) -> BTreeMap<Netns, BTreeSet<Netns>> {
    let mut pairs = BTreeMap::<Netns, BTreeSet<Netns>>::new();
    let made = |key: &Key| matches!(key, Key::Namespace(_) | Key::Vxlan(..) | Key::Veth(..));
    for (_, object) in scope.expected.iter().take_while(|(key, _)| made(key)) {
        let (netns, other) = match object {
            Object::Veth(veth) => (&veth.netns, &veth.peer_netns),
            Object::Vxlan(vxlan) => (&vxlan.netns, &Netns::Main),
            _ => continue,
        };
        let others = pairs.entry(netns.clone()).or_default();
        if netns != other && !others.contains(other) {
            others.insert(other.clone());
        }
    }
    pairs
}

fn dump_links(
    netns: &Netns,
    links: &Indexes,
    hung: &Hung,
    scope: &Scope<'_>,
    found: &mut Standings,
) {
    for is in links.found() {
        let key = Key::Link(netns.clone(), is.name.clone());
        let made_by_us = is.group == made::OURS || made::may_be_our_end(is);
        if scope.expected.contains_key(&key) || (hung.is_ours(is.index) && !made_by_us) {
            found.insert(key, link_standing(netns, is));
        }
        let key = Key::EdgeProgram(netns.clone(), is.name.clone());
        let expected = scope.expected.contains_key(&key);
        let standing = match hung.judge(is.index, expected) {
            Some(Ok(())) => Object::EdgeProgram(EdgeProgram {
                netns: netns.clone(),
                link: is.name.clone(),
            })
            .into(),
            Some(Err(what)) => Standing::otherwise(what),
            None => continue,
        };
        found.insert(key, standing);
    }
}

fn link_standing(netns: &Netns, is: &link::Found) -> Standing {
    if is.generates_addresses {
        return Standing::otherwise("makes link-local addresses by itself");
    }
    match (is.mac, u16::try_from(is.mtu)) {
        (Some(mac), Ok(mtu)) => {
            let (netns, name) = (netns.clone(), is.name.clone());
            Object::Link(Link {
                netns,
                name,
                mac,
                mtu,
                group: is.group,
                up: is.up,
            })
            .into()
        }
        _ => Standing::otherwise(format!("mtu {}, or no Ethernet link", is.mtu)),
    }
}

fn dump_addresses(
    namespace: &mut Namespace,
    netns: &Netns,
    links: &Indexes,
    scope: &Scope<'_>,
    found: &mut Standings,
) -> Result<(), Error> {
    let mut request = Batch::default();
    address::request_all(&mut request);
    for is in namespace.route.dump(&mut request, address::read)? {
        let Some(link) = links.name(is.index) else {
            continue;
        };
        let object = Object::Address(Address {
            netns: netns.clone(),
            link: link.clone(),
            addr: is.addr,
            prefix_len: is.prefix_len,
        });
        let key = object.key();
        if is.ours || scope.expected.contains_key(&key) {
            found.insert(key, object.into());
        }
    }
    Ok(())
}

fn dump_neighbours(
    namespace: &mut Namespace,
    netns: &Netns,
    links: &Indexes,
    found: &mut Standings,
) -> Result<(), Error> {
    let mut request = Batch::default();
    neighbour::request_all(&mut request);
    for is in namespace.route.dump(&mut request, neighbour::read)? {
        let Some(link) = links.name(is.index) else {
            continue;
        };
        let key = Key::Neighbour(netns.clone(), link.clone(), is.addr);
        let standing = match is.mac {
            Some(mac) => {
                let (netns, link) = (netns.clone(), link.clone());
                Object::Neighbour(Neighbour {
                    netns,
                    link,
                    addr: is.addr,
                    mac,
                })
                .into()
            }
            None => Standing::otherwise("not permanent"),
        };
        found.insert(key, standing);
    }
    Ok(())
}

fn dump_fdb(
    namespace: &mut Namespace,
    netns: &Netns,
    links: &Indexes,
    found: &mut Standings,
) -> Result<(), Error> {
    for is in links.found().filter(|is| made::is_our_vxlan(is)) {
        let mut request = Batch::default();
        fdb::request_all(&mut request, is.index);
        let entries = namespace.route.dump(&mut request, fdb::read)?;
        for entry in entries.into_iter().filter(|entry| entry.index == is.index) {
            let key = Key::Fdb(netns.clone(), is.name.clone(), entry.mac);
            let standing = match entry.dst {
                _ if found.contains_key(&key) => Standing::otherwise("several entries"),
                Some(dst) if entry.permanent => Object::Fdb(Fdb {
                    netns: netns.clone(),
                    link: is.name.clone(),
                    mac: entry.mac,
                    dst,
                })
                .into(),
                _ => Standing::otherwise("not permanent"),
            };
            found.insert(key, standing);
        }
    }
    Ok(())
}

fn dump_routes(
    namespace: &mut Namespace,
    netns: &Netns,
    links: &Indexes,
    scope: &Scope<'_>,
    found: &mut Standings,
) -> Result<(), Error> {
    for family in Family::BOTH {
        let mut request = Batch::default();
        entry::request_all(&mut request, family);
        let routes = namespace
            .route
            .dump(&mut request, |a| entry::read(a, netns, links))?;
        for (key, route) in routes {
            let wanted = as_asked_for(key, scope);
            let standing = match route {
                Ok(mut route) => {
                    route.key = wanted.clone();
                    Object::Route(route).into()
                }
                Err(what) => Standing::otherwise(what),
            };
            found.insert(Key::Route(wanted), standing);
        }
    }
    Ok(())
}

/// The kernel gives an IPv6 route without a metric its default one; who asked for none finds it as asked.
fn as_asked_for(key: RouteKey, scope: &Scope<'_>) -> RouteKey {
    let default = key.prefix.family() == Family::V6 && key.metric == entry::DEFAULT_METRIC_V6;
    if !default || scope.expected.contains_key(&Key::Route(key.clone())) {
        return key;
    }
    let without = RouteKey {
        metric: 0,
        ..key.clone()
    };
    match scope.expected.contains_key(&Key::Route(without.clone())) {
        true => without,
        false => key,
    }
}

fn dump_rules(
    namespace: &mut Namespace,
    netns: &Netns,
    scope: &Scope<'_>,
    found: &mut Standings,
) -> Result<(), Error> {
    for family in Family::BOTH {
        let mut request = Batch::default();
        rule::request_all(&mut request, family);
        for is in namespace.route.dump(&mut request, rule::read)? {
            let key = Key::Rule(
                netns.clone(),
                family,
                is.priority,
                is.fwmark,
                is.iif.clone(),
            );
            let rule = is.rule(netns).map(Object::Rule);
            if is.ours {
                let standing = match rule {
                    Some(_) if found.contains_key(&key) => Standing::otherwise("several rules"),
                    Some(rule) => rule.into(),
                    None => Standing::otherwise("a rule of another kind"),
                };
                found.insert(key, standing);
            } else if let Some(rule) = rule.filter(|rule| scope.expected.get(&key) == Some(rule)) {
                found.entry(key).or_insert(rule.into());
            }
        }
    }
    Ok(())
}

pub(super) fn xfrm_policies(namespace: &mut Namespace) -> Result<Vec<xfrm::Found>, Error> {
    let mut request = Batch::default();
    xfrm::request_all(&mut request);
    namespace.xfrm.dump(&mut request, xfrm::read)
}

fn dump_xfrm_policies(
    namespace: &mut Namespace,
    netns: &Netns,
    found: &mut Standings,
) -> Result<(), Error> {
    for is in xfrm_policies(namespace)? {
        let policy = XfrmPolicy {
            netns: netns.clone(),
            family: is.family,
            mark: is.mark,
            priority: is.priority,
        };
        let key = Key::XfrmPolicy(netns.clone(), is.family, is.mark);
        let standing = match is.discards {
            _ if found.contains_key(&key) => Standing::otherwise("several policies"),
            true => Object::XfrmPolicy(policy).into(),
            false => Standing::otherwise("a policy of another kind"),
        };
        found.insert(key, standing);
    }
    Ok(())
}

fn dump_table(
    namespace: &mut Namespace,
    netns: &Netns,
    scope: &Scope<'_>,
    found: &mut Standings,
) -> Result<(), Error> {
    let table = nft::read_table(&mut namespace.nft)?;
    namespace.sets.clear();
    for (name, limiter) in table.limiters {
        let key = Key::Limiter(netns.clone(), name);
        let standing = match limiter {
            Some(limiter) => Object::Limiter(netns.clone(), limiter).into(),
            None => Standing::otherwise("a limit of another kind"),
        };
        found.insert(key, standing);
    }
    for name in table.counters {
        let object = Object::Counter(netns.clone(), name);
        found.insert(object.key(), object.into());
    }
    for (name, set) in table.sets {
        let standing = match set {
            Ok(set) => {
                namespace.sets.insert(name.clone(), set.key.clone());
                Object::Set(netns.clone(), set).into()
            }
            Err(what) => Standing::otherwise(what),
        };
        found.insert(Key::Set(netns.clone(), name), standing);
    }
    for (name, is) in table.chains {
        let key = Key::Chain(netns.clone(), name);
        let standing = match scope.expected.get(&key) {
            Some(Object::Chain(_, chain)) if is.is(chain) && !table.dormant => {
                Object::Chain(netns.clone(), chain.clone()).into()
            }
            Some(Object::Chain(_, chain)) => Standing::Otherwise {
                what: is.summary(),
                remake: !is.has_hook(chain),
            },
            _ => Standing::otherwise(is.summary()),
        };
        found.insert(key, standing);
    }
    for element in table.elements {
        let object = Object::Element(netns.clone(), element);
        found.insert(object.key(), object.into());
    }
    Ok(())
}

/// A setting that this namespace does not have, and need not, counts as what it should be.
fn elsewhere(scope: &Scope<'_>, key: &Key) -> Option<Object> {
    match key {
        Key::Sysctl(_, path) if sysctl::may_be_missing(path) => scope.expected.get(key).cloned(),
        _ => None,
    }
}
