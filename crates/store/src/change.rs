//! What a revision changed, and its form in the change log.

use bytes::{Buf, BufMut, Bytes};

use crate::{KeyRange, KeyValue, LeaseId};

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key was written, and stands so now.
    Put(KeyValue),
    /// The key was deleted.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Event::Put(kv) => &kv.key,
            Event::Delete { key } => key,
        }
    }

    fn size(&self) -> usize {
        match self {
            Event::Put(kv) => kv.size(),
            Event::Delete { key } => key.len(),
        }
    }
}

/// Everything that one revision changed, each key once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) events: Vec<Event>,
}

const PUT: u8 = 1;
const DELETE: u8 = 2;
const PUT_HEAD: usize = 28;

impl Change {
    /// About the memory it takes.
    pub(crate) fn size(&self) -> usize {
        let each = size_of::<Event>();
        self.events.iter().map(|event| event.size() + each).sum()
    }

    pub(crate) fn within(&self, range: &KeyRange) -> Vec<Event> {
        self.events
            .iter()
            .filter(|event| range.contains(event.key()))
            .cloned()
            .collect()
    }

    /// `tag u8, key length u16, key`, and for a put `create u64, version u64, lease u64, value
    /// length u32, value`, for each event; little endian. The revision is the row's key.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for event in &self.events {
            let key = event.key();
            out.put_u8(if matches!(event, Event::Put(_)) {
                PUT
            } else {
                DELETE
            });
            out.put_u16_le(u16::try_from(key.len()).unwrap_or(u16::MAX));
            out.put_slice(key);
            if let Event::Put(kv) = event {
                out.put_u64_le(kv.create_revision);
                out.put_u64_le(kv.version);
                out.put_u64_le(kv.lease.map_or(0, LeaseId::get));
                out.put_u32_le(u32::try_from(kv.value.len()).unwrap_or(u32::MAX));
                out.put_slice(&kv.value);
            }
        }
    }

    /// `None` for what [`Change::encode`] does not write.
    pub(crate) fn decode(revision: u64, mut row: Bytes) -> Option<Self> {
        let mut events = Vec::new();
        while row.has_remaining() {
            events.push(decode_event(revision, &mut row)?);
        }
        Some(Change { revision, events })
    }
}

fn decode_event(revision: u64, row: &mut Bytes) -> Option<Event> {
    let tag = row.try_get_u8().ok()?;
    let len = usize::from(row.try_get_u16_le().ok()?);
    let key = split(row, len)?;
    match tag {
        DELETE => Some(Event::Delete { key }),
        PUT if row.len() >= PUT_HEAD => {
            let (create_revision, version) = (row.get_u64_le(), row.get_u64_le());
            let lease = LeaseId::new(row.get_u64_le());
            let len = usize::try_from(row.get_u32_le()).ok()?;
            let value = split(row, len)?;
            let mod_revision = revision;
            let kv = KeyValue {
                key,
                value,
                create_revision,
                mod_revision,
                version,
                lease,
            };
            Some(Event::Put(kv))
        }
        _ => None,
    }
}

fn split(row: &mut Bytes, len: usize) -> Option<Bytes> {
    (row.len() >= len).then(|| row.split_to(len))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn event(revision: u64) -> impl Strategy<Value = Event> {
        let bytes = |n| vec(any::<u8>(), 0..n).prop_map(Bytes::from);
        let put = (bytes(40), bytes(40), any::<[u64; 3]>()).prop_map(move |(key, value, n)| {
            let [create_revision, version, lease] = n;
            let lease = LeaseId::new(lease);
            let mod_revision = revision;
            Event::Put(KeyValue {
                key,
                value,
                create_revision,
                mod_revision,
                version,
                lease,
            })
        });
        prop_oneof![put, bytes(40).prop_map(|key| Event::Delete { key })]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(events in vec(event(7), 0..5)) {
            let change = Change { revision: 7, events };
            let mut row = Vec::new();
            change.encode(&mut row);
            prop_assert_eq!(Change::decode(7, row.into()), Some(change));
        }

        #[test]
        fn no_octets_make_it_panic(row in vec(any::<u8>(), 0..80)) {
            let _ = Change::decode(1, row.into());
        }

        #[test]
        fn a_row_cut_short_is_refused(change in event(7), cut in 1usize..28) {
            let mut row = Vec::new();
            Change { revision: 7, events: vec![change] }.encode(&mut row);
            row.truncate(row.len().saturating_sub(cut));
            if !row.is_empty() {
                prop_assert_eq!(Change::decode(7, row.into()), None);
            }
        }
    }
}
