//! Whatever a kernel may answer or tell: no panic in any reader of netlink messages.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| hextet_kernel::fuzzing::read_datagram(datagram));
