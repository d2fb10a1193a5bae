//! What keeps workloads apart, each piece with a way to leave it out. An attack that fails against a host
//! proves something only if it succeeds against the host without the piece that is meant to stop it.

use std::collections::BTreeMap;

use hextet_model::{
    neutron::Direction,
    state::{
        Chain, ChainName, DynOp, Element, Field, Hook, Key, KeyPart, KeyType, Lookup, Netns,
        NftRule, Object, Policy, Set, SetName, Statement, Value, Verdict,
    },
};
use hextet_types::Family;

/// After the kernel has put fragments together.
const BEFORE_TRACKING: i32 = -300;

/// A piece of a host's state that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defence {
    /// A port is a link of its own. Without it all ports are on one bridge, as in a cloud of layer 2
    /// (without the edge programs, that would not let a bridge work).
    Isolation,
    /// The eBPF programs on ports and uplinks.
    Edge,
    /// Sources are checked.
    SourceCheck,
    /// Groups judge what a port sends.
    EgressGroups,
    /// Groups judge what a port receives.
    IngressGroups,
    /// What no group may allow.
    Guard,
    /// What belongs to no connection that makes sense is dropped.
    Invalid,
    /// Forwarded packets are judged at all.
    Forward,
    /// ICMP errors are about the sender's own connections.
    Errors,
    /// The host's own services are not for workloads.
    HostShield,
    /// What nothing has admitted to the host itself is discarded.
    HostPolicy,
    /// What no chain accepts is not forwarded.
    ForwardPolicy,
    /// Private addresses are translated or dropped.
    Translation,
    /// Connections through the translator are counted.
    ConnectionLimit,
    /// Those of them that go to one destination.
    SourcePortShare,
    /// Interfaces that are named like ports are ports, also while nobody knows them.
    UnknownPorts,
    /// Prefixes of the cloud end in black holes.
    BlackHoles,
    /// Neighbours of ports are entered by hand.
    Neighbours,
    /// What a port opens, and others open to it, is counted.
    Floods,
    /// A chain of the table, by name.
    Chain(&'static str),
    /// A setting, by its path below `/proc/sys`.
    Sysctl(&'static str),
    /// Each port may ask for its configuration so often; see [`crate::responder`].
    RequestLimit,
    /// Sources are checked of each fragment, not of what they make up.
    EachFragment,
    /// Tunnel packets are taken from known hosts.
    KnownHosts,
    /// What comes by a tunnel has no source that lives here.
    LocalSources,
    /// What is not public does not pass a router's way outside.
    NotPublic,
    /// What comes from a router has a source that is public.
    RouterSources,
    /// QoS policies.
    Limits,
    /// The host's own services are not for those behind routers.
    RouterShield,
    /// The whole table.
    Table,
}

impl Defence {
    /// Leaves it out.
    ///
    /// # Panics
    ///
    /// There was nothing to leave out: the name of a chain has changed, or the planner does without.
    pub fn leave_out(self, objects: &mut BTreeMap<Key, Object>) {
        // It is none of the kernel's objects.
        let left_out = self == Defence::RequestLimit || self.take_out(objects);
        assert!(left_out, "there is no {self:?} to leave out");
    }

    /// Leaves it out, where it is; gives whether it was.
    pub fn take_out(self, objects: &mut BTreeMap<Key, Object>) -> bool {
        let before = objects.clone();
        match self {
            Defence::RequestLimit => {}
            Defence::Isolation | Defence::Edge => {
                objects.retain(|_, object| !matches!(object, Object::EdgeProgram(_)));
                // What comes from a port without its program would be dropped as that.
                checked_by_rules(objects);
            }
            Defence::SourceCheck => rewrite(objects, "from-port", vec![goto("checked")]),
            Defence::EgressGroups => judged_by(objects, Direction::Egress, "to-port"),
            Defence::IngressGroups => judged_by(objects, Direction::Ingress, "admit"),
            Defence::Guard => {
                rewrite(objects, "guard", Vec::new());
                let invalid = Statement::Verdict(Verdict::Jump("invalid".into()));
                each_chain(objects, |chain| {
                    chain.rules.retain(|r| !r.statements.contains(&invalid));
                });
            }
            Defence::Invalid => rewrite(objects, "invalid", Vec::new()),
            Defence::Forward => rewrite(objects, "forward", vec![goto("admit")]),
            Defence::Errors => rewrite(objects, "errors", vec![goto("admit")]),
            Defence::HostShield => rewrite(objects, "to-host", vec![goto("admit")]),
            Defence::HostPolicy => {
                objects.retain(|_, object| !matches!(object, Object::XfrmPolicy(_)));
            }
            Defence::ForwardPolicy => each_chain(objects, |chain| {
                if let Some(hook) = &mut chain.hook {
                    hook.policy = Policy::Accept;
                }
            }),
            Defence::Translation => rewrite(objects, "postrouting", Vec::new()),
            Defence::ConnectionLimit => each_chain(objects, |chain| {
                chain.rules.retain(|rule| !limits_connections(rule));
            }),
            Defence::SourcePortShare => each_chain(objects, |chain| {
                chain.rules.retain(|rule| !limits_source_ports(rule));
            }),
            Defence::UnknownPorts => each_chain(objects, |chain| {
                chain.rules.retain(|rule| !is_about_unknown_ports(rule));
            }),
            Defence::Floods => {
                for name in ["flood", "flood-from"] {
                    rewrite(objects, name, Vec::new());
                }
            }
            Defence::Chain(name) => rewrite(objects, name, Vec::new()),
            Defence::Sysctl(path) => {
                objects.retain(|key, _| !matches!(key, Key::Sysctl(_, p) if p == path));
            }
            Defence::BlackHoles => objects.retain(|_, object| {
                use hextet_model::state::RouteKind::Blackhole;
                !matches!(object, Object::Route(route) if route.kind == Blackhole)
            }),
            Defence::Neighbours => {
                objects.retain(|_, object| !matches!(object, Object::Neighbour(_)));
            }
            Defence::Table => objects.retain(|_, object| {
                !matches!(
                    object,
                    Object::Set(..) | Object::Chain(..) | Object::Element(..)
                )
            }),
            of_projects => of_projects.take_out_between(objects),
        }
        before != *objects
    }

    /// Leaves out what keeps projects apart, and what else is in their namespaces.
    fn take_out_between(self, objects: &mut BTreeMap<Key, Object>) {
        match self {
            Defence::EachFragment => each_chain(objects, |chain| {
                if let Some(hook) = &mut chain.hook
                    && hook.priority < BEFORE_TRACKING
                {
                    hook.priority = BEFORE_TRACKING;
                }
            }),
            Defence::KnownHosts => {
                for name in ["plain-tunnels", "tunnels"] {
                    rewrite(objects, name, Vec::new());
                }
            }
            Defence::LocalSources => each_chain(objects, |chain| {
                if chain.name.0 == "underlay"
                    && chain.hook.is_some_and(|h| h.hook == Hook::Prerouting)
                {
                    chain.rules.clear();
                }
            }),
            Defence::NotPublic => {
                for name in ["enter", "leave"] {
                    rewrite(objects, name, vec![verdict(Verdict::Accept)]);
                }
            }
            Defence::RouterSources => rewrite(objects, "from-routers", Vec::new()),
            Defence::Limits => rewrite(objects, "limits", vec![verdict(Verdict::Accept)]),
            Defence::RouterShield => rewrite(objects, "routers-to-host", Vec::new()),
            _ => {}
        }
    }
}

fn verdict(verdict: Verdict) -> NftRule {
    NftRule {
        statements: vec![Statement::Verdict(verdict)],
        comment: None,
    }
}

fn goto(chain: &str) -> NftRule {
    verdict(Verdict::Goto(chain.into()))
}

fn each_chain(objects: &mut BTreeMap<Key, Object>, change: impl Fn(&mut Chain)) {
    for object in objects.values_mut() {
        if let Object::Chain(_, chain) = object {
            change(chain);
        }
    }
}

fn rewrite(objects: &mut BTreeMap<Key, Object>, name: &str, rules: Vec<NftRule>) {
    let name = ChainName::from(name);
    each_chain(objects, |chain| {
        if chain.name == name {
            chain.rules.clone_from(&rules);
        }
    });
}

/// Sends all ports of a direction past their profiles.
fn judged_by(objects: &mut BTreeMap<Key, Object>, direction: Direction, chain: &str) {
    let map = match direction {
        Direction::Egress => "profile-egress",
        Direction::Ingress => "profile-ingress",
    };
    for object in objects.values_mut() {
        if let Object::Element(
            _,
            Element {
                set,
                verdict: Some(to),
                ..
            },
        ) = object
            && set.0 == map
        {
            *to = Verdict::Goto(chain.into());
        }
    }
}

/// Has the rules check the sources that a port's program does otherwise.
fn checked_by_rules(objects: &mut BTreeMap<Key, Object>) {
    let key = |address| {
        let fields = [Field::IifName, Field::EtherSaddr, address];
        fields.map(KeyPart::from).to_vec()
    };
    let rule = |key, set: &str, chain: &str| {
        let (set, negate) = (set.into(), false);
        let lookup = Statement::Lookup(Lookup { key, set, negate });
        NftRule {
            statements: vec![lookup, Statement::Verdict(Verdict::Goto(chain.into()))],
            comment: None,
        }
    };
    let sets = Family::BOTH.map(|family| {
        let name: SetName = format!("exact-{family}").as_str().into();
        (family, name)
    });
    let mut from_port = Vec::new();
    let mut new = Vec::new();
    for (family, name) in &sets {
        from_port.push(rule(key(Field::Saddr(*family)), &name.0, "checked"));
        let set = Set {
            name: name.clone(),
            key: vec![KeyType::IfName, KeyType::EtherAddr, KeyType::Addr(*family)],
            verdicts: false,
            data: Vec::new(),
            dynamic: None,
        };
        new.push(Object::Set(Netns::Main, set));
    }
    objects.retain(|_, object| {
        if let Object::Source(source) = object {
            let family = Family::of(source.addr);
            let of_family = sets.iter().find(|(of, _)| *of == family);
            new.extend(of_family.map(|(_, set)| {
                let key = vec![
                    Value::IfName(source.link.clone()),
                    Value::Mac(source.mac),
                    Value::Addr(source.addr),
                ];
                let (set, verdict) = (set.clone(), None);
                Object::Element(
                    Netns::Main,
                    Element {
                        set,
                        key,
                        verdict,
                        data: Vec::new(),
                    },
                )
            }));
        }
        !matches!(object, Object::Source(_))
    });
    objects.extend(new.into_iter().map(|object| (object.key(), object)));
    let of_port = rule(vec![Field::IifName.into()], "ports", "from-port");
    each_chain(objects, |chain| match chain.name.0.as_str() {
        "prerouting" => chain.rules.insert(0, of_port.clone()),
        "from-port" => chain.rules.splice(0..0, from_port.clone()).for_each(drop),
        _ => {}
    });
}

fn limits_connections(rule: &NftRule) -> bool {
    let mut statements = rule.statements.iter();
    statements.any(|s| matches!(s, Statement::Dynamic(_, _, DynOp::CtCountOver(_))))
}

fn limits_source_ports(rule: &NftRule) -> bool {
    let mut statements = rule.statements.iter();
    statements
        .any(|s| matches!(s, Statement::Dynamic(_, set, _) if set.0.starts_with("nat44-share-")))
}

fn is_about_unknown_ports(rule: &NftRule) -> bool {
    let mut statements = rule.statements.iter();
    statements.any(|s| matches!(s, Statement::Lookup(l) if l.negate && l.set.0 == "ports"))
}
