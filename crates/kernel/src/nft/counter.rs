//! What the table's counters have counted.

use hextet_model::state::CounterName;

use super::{HEADER, OBJECT_COUNTER, msg, read};
use crate::{
    error::Error,
    netlink::{Answer, Attrs, Batch, Socket, be32, be64, text},
};

/// While somebody makes our table anew at the same time.
const TRIES: usize = 8;

/// A counter, and what it has counted since it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Its name.
    pub name: CounterName,
    /// The table's and its own number (`NFTA_TABLE_HANDLE`, `NFTA_OBJ_HANDLE`): in a namespace no other counter ever
    /// had both.
    pub handle: (u64, u64),
    /// Packets.
    pub packets: u64,
    /// Octets, from the IP header on.
    pub octets: u64,
}

/// All counters of our table; none, where there is no table.
pub fn read_counters(socket: &mut Socket) -> Result<Vec<Count>, Error> {
    let mut before = table_handle(socket)?;
    for _ in 0..TRIES {
        let Some(table) = before else {
            return Ok(Vec::new());
        };
        let mut request = read::request(msg::GETOBJ);
        let mut counts = socket.dump(&mut request, read_count)?;
        let after = table_handle(socket)?;
        if after == before {
            for count in &mut counts {
                count.handle.0 = table;
            }
            return Ok(counts);
        }
        before = after;
    }
    Err(Error::Lost {
        operation: "read counters of a table that others keep making anew".to_owned(),
    })
}

/// One counter; of its handle, its own number alone.
pub(super) fn read_count(answer: &Answer<'_>) -> Option<Count> {
    let attrs = read::ours(answer)?;
    if attrs.get(3).and_then(be32)? != OBJECT_COUNTER {
        return None;
    }
    let data = attrs.nest(4);
    let number = |kind| data.get(kind).and_then(be64);
    Some(Count {
        name: CounterName(attrs.get(2).and_then(text)?.to_owned()),
        handle: (0, attrs.get(6).and_then(be64)?),
        packets: number(2)?,
        octets: number(1)?,
    })
}

fn table_handle(socket: &mut Socket) -> Result<Option<u64>, Error> {
    let mut request = Batch::default();
    request.message(msg::GETTABLE, 0, &HEADER);
    let tables = socket.dump(&mut request, |answer| {
        read::ours(answer)?;
        Attrs::after(answer.payload, HEADER.len())
            .get(4)
            .and_then(be64)
    })?;
    Ok(tables.first().copied())
}
