//! The clock on the wall.

use std::time::{SystemTime, UNIX_EPOCH};

use hextet_mesh::certificate::UnixTime;

/// Now; 1970 where the clock stands before it.
pub fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixTime(since.map_or(0, |since| since.as_secs()))
}
