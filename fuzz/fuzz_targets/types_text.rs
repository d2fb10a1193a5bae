//! Texts that stand for one thing: no panic, and what was read is read the same after it was shown.

#![no_main]

use std::{
    fmt::{Debug, Display},
    str::FromStr,
};

use hextet_autoconf::DomainName;
use hextet_bgp::packet::Community;
use hextet_lab::InterfaceAddress;
use hextet_model::neutron::Protocol;
use hextet_types::{Asn, HostId, IfName, Mac, PortId, Prefix};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    show_again::<Asn>(text);
    show_again::<Community>(text);
    show_again::<DomainName>(text);
    show_again::<HostId>(text);
    show_again::<IfName>(text);
    show_again::<InterfaceAddress>(text);
    show_again::<Mac>(text);
    show_again::<PortId>(text);
    show_again::<Prefix>(text);
    show_again::<Protocol>(text);
});

fn show_again<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        assert_eq!(read.to_string().parse::<T>().ok(), Some(read));
    }
}
