//! The bounds that every back end keeps; above them, an error and no change.

/// Octets in a key.
pub const KEY_BYTES: usize = 1024;
/// Octets in a value.
pub const VALUE_BYTES: usize = 1024 * 1024;
/// Compares of a transaction; operations in each of its branches.
pub const TXN_OPS: usize = 4096;
/// Octets in all keys and values of a transaction.
pub const TXN_BYTES: usize = 16 * 1024 * 1024;
/// Keys that a transaction may change, those that it deletes by range included.
pub const TXN_CHANGES: usize = 16_384;
/// Octets of keys and values in one answer; a scan has no such bound.
pub const ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Leases at one time.
pub const LEASES: usize = 16_384;
/// Keys on one lease.
pub const LEASE_KEYS: u32 = 4096;
/// Longest time to live of a lease, in seconds.
pub const LEASE_TTL_SECS: u64 = 86_400;
