//! The rows of a store's file, for their fuzz target: what is read is written as it was.

use bytes::Bytes;

use crate::{
    change::Change,
    redb::tables::{decode, decode_lease, encode, encode_lease},
};

/// A row of the table of keys.
pub fn read_key(key: &[u8], row: &[u8]) {
    let Ok(read) = decode(key, row) else { return };
    let mut written = Vec::new();
    encode(&read, &mut written);
    assert_eq!((read.key.as_ref(), written.as_slice()), (key, row));
}

/// A row of the table of leases.
pub fn read_lease(key: &[u8], row: &[u8]) {
    let Ok(read) = decode_lease(key, row) else {
        return;
    };
    let mut written = Vec::new();
    encode_lease(read, &mut written);
    let id = read.id.get().to_be_bytes();
    assert_eq!((&id[..], written.as_slice()), (key, row));
}

/// A row of the log of changes.
pub fn read_change(revision: u64, row: &[u8]) {
    let Some(read) = Change::decode(revision, Bytes::copy_from_slice(row)) else {
        return;
    };
    let mut written = Vec::new();
    read.encode(&mut written);
    assert_eq!(written, row);
}
