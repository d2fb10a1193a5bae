//! The sources of ports, and the next hops that they may choose, as entries of the map that their programs look into.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
};

use hextet_model::state::{Hop, Key, Netns, Object, Receiver, Source, Speaker, SpeakerFact};
use hextet_types::IfName;

use super::{
    Kernel, Op, Standing,
    apply::{Fate, all_failed},
};
use crate::{
    error::Error,
    route::{Indexes, made::FIRST_INDEX},
    sources::{By, Entry, Place, Sender, To, What},
};

/// Where the sources of a namespace are.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The links that have sources, by their indexes when we wrote or read them.
    links: BTreeMap<IfName, u32>,
}

/// The owner of each index that a port may have: of a named namespace those that are unique on the host, and of the
/// main one all others.
pub(super) fn owners<'a>(
    links: impl Iterator<Item = (&'a Netns, &'a Indexes)> + Clone,
) -> HashMap<u32, (Netns, IfName)> {
    let mut owners = HashMap::new();
    for is_main in [true, false] {
        for (netns, links) in links
            .clone()
            .filter(|(n, _)| (**n == Netns::Main) == is_main)
        {
            let unique = links.all().filter(|(_, index)| is_unique(netns, *index));
            owners.extend(unique.map(|(name, index)| (index, (netns.clone(), name.clone()))));
        }
    }
    owners
}

/// Whether the index of a link tells it from all others that have sources.
fn is_unique(netns: &Netns, index: u32) -> bool {
    *netns == Netns::Main || index >= FIRST_INDEX
}

impl Kernel {
    pub(super) fn dump_sources(
        &mut self,
        netnses: impl Iterator<Item = Netns>,
        owners: &HashMap<u32, (Netns, IfName)>,
        found: &mut BTreeMap<Key, Standing>,
    ) -> Result<(), Error> {
        let none = |netns| (netns, Places::default());
        let mut all: BTreeMap<Netns, Places> = netnses.map(none).collect();
        self.stale_sources.clear();
        let entries = match &self.programs {
            Some(programs) => programs.sources().read()?,
            None => Vec::new(),
        };
        for entry in entries {
            let Some((netns, link)) = owners.get(&entry.link) else {
                self.stale_sources.push(entry);
                continue;
            };
            let places = all.entry(netns.clone()).or_default();
            if !places.links.contains_key(link) {
                places.links.insert(link.clone(), entry.link);
            }
            let (netns, link) = (netns.clone(), link.clone());
            let object = match entry.what {
                What::Source { mac, addr } => Object::Source(Source {
                    netns,
                    link,
                    mac,
                    addr,
                }),
                What::Hop(entry) => Object::Hop(Hop { netns, link, entry }),
                What::Speaker(fact, value) => Object::Speaker(Speaker {
                    netns,
                    link,
                    fact,
                    value: swapped(fact, value),
                }),
                What::Receiver { sender, to } => match owners.get(&to.link) {
                    Some((of, name)) if *of == netns => Object::Receiver(Receiver {
                        netns,
                        link,
                        from: sender.mac,
                        family: sender.family,
                        slot: sender.slot,
                        to: name.clone(),
                        host: to.host,
                        any_source: to.any_source,
                    }),
                    _ => {
                        self.stale_sources.push(entry);
                        continue;
                    }
                },
            };
            found.insert(object.key(), object.into());
        }
        self.places.extend(all);
        Ok(())
    }

    /// Takes over what a look saw of the map.
    pub(super) fn learn_sources(&mut self, places: BTreeMap<Netns, Places>, stale: Vec<Entry>) {
        for (netns, places) in places {
            self.places.entry(netns).or_default().learn(places);
        }
        let ours: BTreeSet<u32> = self
            .places
            .values()
            .flat_map(|places| places.links.values().copied())
            .collect();
        let stale = stale.into_iter();
        self.stale_sources
            .extend(stale.filter(|entry| !ours.contains(&entry.link)));
    }

    /// Those whose links were gone: their indexes might be given to others.
    pub(super) fn remove_stale_sources(&mut self) {
        let stale = mem::take(&mut self.stale_sources);
        let places: Vec<Place> = stale.iter().map(Entry::place).collect();
        self.remove_sources(&places);
    }

    /// What is forgotten of links that are gone must not be there for those that get their indexes.
    pub(super) fn forget_sources(&mut self, gone: &BTreeSet<Key>) {
        let place = |key: &Key| match key {
            Key::Source(netns, ..)
            | Key::Hop(netns, ..)
            | Key::Receiver(netns, ..)
            | Key::Speaker(netns, ..) => self.places.get(netns)?.place(key, None),
            _ => None,
        };
        let places: Vec<Place> = gone.iter().filter_map(place).collect();
        self.remove_sources(&places);
    }

    fn remove_sources(&mut self, places: &[Place]) {
        if places.is_empty() {
            return;
        }
        if let Some(programs) = &self.programs
            && let Err(e) = programs.sources().remove(places)
        {
            tracing::warn!(error = %e, "sources of links that are gone stay");
        }
    }

    /// Puts sources of links that are there into the map, as long as there is room, or takes them out.
    pub(super) fn apply_sources(
        &mut self,
        netns: &Netns,
        run: &[Op],
        links: &Indexes,
    ) -> Vec<Fate> {
        let places = self.places.entry(netns.clone()).or_default();
        let (mut put, mut remove) = (Vec::new(), Vec::new());
        let mut fates = Vec::with_capacity(run.len());
        for (place, op) in run.iter().enumerate() {
            let key = op.key();
            let index = key.link().and_then(|(_, link)| links.index(link));
            let fate = match (op.object(), places.place(&key, index)) {
                (None, place) => {
                    remove.extend(place);
                    Fate::Done
                }
                (_, Some(at)) if !is_unique(netns, at.link) => Fate::Failed(Error::unfit(
                    op.to_string(),
                    "in a named namespace only a veth has sources whose other end is in the main one",
                )),
                (Some(object), Some(at)) if index.is_some() => {
                    if let Some((_, link)) = key.link() {
                        places.links.insert(link.clone(), at.link);
                    }
                    match entry_of(object, at.link, links) {
                        Some(entry) => {
                            put.push((place, entry));
                            Fate::Done
                        }
                        None => Fate::Waiting,
                    }
                }
                _ => Fate::Waiting,
            };
            fates.push(fate);
        }
        match self.write_sources(run, &put, &remove) {
            Ok(refused) => {
                for ((place, _), error) in put.iter().rev().zip(refused) {
                    if let Some(fate) = fates.get_mut(*place) {
                        *fate = Fate::Failed(error);
                    }
                }
                fates
            }
            Err(e) => all_failed(run, e),
        }
    }

    /// Writes entries, with the places of their operations; what is said of those that there was no room for,
    /// from the last on.
    fn write_sources(
        &mut self,
        run: &[Op],
        put: &[(usize, Entry)],
        remove: &[Place],
    ) -> Result<Vec<Error>, Error> {
        if put.is_empty() && remove.is_empty() {
            return Ok(Vec::new());
        }
        self.know_programs()?;
        let Some(programs) = &self.programs else {
            return Ok(Vec::new());
        };
        let map = programs.sources();
        map.remove(remove)?;
        let entries: Vec<Entry> = put.iter().map(|(_, entry)| *entry).collect();
        let done = map.put(&entries)?;
        let refused = put.get(done..).unwrap_or_default().iter().rev();
        let refused = refused.filter_map(|(place, _)| run.get(*place));
        Ok(refused.map(|op| map.full(op.to_string())).collect())
    }
}

impl Places {
    /// Takes over what a look saw, which may be older than what we know of a link.
    fn learn(&mut self, seen: Places) {
        for (link, index) in seen.links {
            self.links.entry(link).or_insert(index);
        }
    }

    /// Where the entry is of what is on the link with that index; where there is none by now, with the index that
    /// it had.
    fn place(&self, key: &Key, index: Option<u32>) -> Option<Place> {
        let (name, by) = match key {
            Key::Source(_, link, mac, addr) => (link, By::Source(*mac, *addr)),
            Key::Hop(_, link, key) => (link, By::Hop(*key)),
            Key::Receiver(_, link, mac, family, slot) => {
                let (mac, family, slot) = (*mac, *family, *slot);
                (link, By::Receiver(Sender { mac, family, slot }))
            }
            Key::Speaker(_, link, fact) => (link, By::Speaker(*fact)),
            _ => return None,
        };
        let link = index.or_else(|| self.links.get(name).copied())?;
        Some(Place { link, by })
    }
}

/// A value as the map has it, and back: halves of addresses stand there in network order.
fn swapped(fact: SpeakerFact, value: u64) -> u64 {
    match fact {
        SpeakerFact::Network => value,
        SpeakerFact::OwnHigh | SpeakerFact::OwnLow => value.to_be(),
    }
}

/// None, as long as the link that it leads to is not there.
fn entry_of(object: &Object, link: u32, links: &Indexes) -> Option<Entry> {
    let what = match object {
        Object::Source(source) => What::Source {
            mac: source.mac,
            addr: source.addr,
        },
        Object::Hop(hop) => What::Hop(hop.entry),
        Object::Speaker(speaker) => {
            What::Speaker(speaker.fact, swapped(speaker.fact, speaker.value))
        }
        Object::Receiver(receiver) => What::Receiver {
            sender: Sender {
                mac: receiver.from,
                family: receiver.family,
                slot: receiver.slot,
            },
            to: To {
                link: links.index(&receiver.to)?,
                host: receiver.host,
                any_source: receiver.any_source,
            },
        },
        _ => return None,
    };
    Some(Entry { link, what })
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, thread};

    use hextet_types::Mac;
    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::reconcile::Config;

    const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 5]);
    /// As `bpf/port.c` says.
    const ROOM: u32 = 262_144;

    fn nth(n: u32) -> Ipv4Addr {
        Ipv4Addr::from(0x0b00_0000 + n)
    }

    fn source(n: u32) -> Object {
        Object::Source(Source {
            netns: Netns::Main,
            link: "lo".parse().expect("a name"),
            mac: MAC,
            addr: nth(n).into(),
        })
    }

    fn fill(kernel: &mut Kernel, entries: u32) {
        let programs = kernel.load_programs().expect("programs");
        let map = programs.sources();
        assert_eq!(map.room(), ROOM);
        let entry = |n| Entry {
            link: 1,
            what: What::Source {
                mac: MAC,
                addr: nth(n).into(),
            },
        };
        let entries: Vec<Entry> = (0..entries).map(entry).collect();
        assert_eq!(map.put(&entries).expect("to write"), entries.len());
    }

    fn a_full_map_refuses() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = Config {
            gateway_mac: Mac::new([2, 0x68, 0x78, 0, 0, 1]),
            sysctl_record: directory.path().join("sysctls"),
            sysctls: Vec::new(),
            tcx: false,
        };
        let mut kernel = Kernel::open(config).expect("a kernel");
        fill(&mut kernel, ROOM - 1);
        // The first has room; the one that is there already needs none.
        let four = [ROOM - 1, 7, ROOM, ROOM + 1];
        let report = kernel.apply(four.map(|n| Op::Create(source(n))).to_vec());
        assert_eq!(report.applied, 2);
        let refused: Vec<String> = report.failed.iter().map(|(_, e)| e.to_string()).collect();
        assert_eq!(refused.len(), 2, "{refused:?}");
        for (text, n) in refused.iter().zip([ROOM, ROOM + 1]) {
            let named = text.contains(&nth(n).to_string());
            assert!(named && text.contains("is full"), "{text}");
        }
        let ends = Op::Delete(source(0).key());
        let report = kernel.apply(vec![ends, Op::Create(source(ROOM))]);
        assert_eq!(report.applied, 2, "{:?}", report.failed);
    }

    #[test]
    fn a_full_map_refuses_by_name_and_takes_more_once_there_is_room() {
        let isolated = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests of the kernel run as root");
            a_full_map_refuses();
        };
        thread::spawn(isolated).join().expect("no panic");
    }
}
