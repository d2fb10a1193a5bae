//! How large packets may be is found out, whatever carries the tunnel, and found out again when it becomes less and nobody says so.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use hextet_lab::wait_until;
use hextet_tunnels::Mtu;

use crate::{
    nat::inside,
    pair::{Pair, Side, ip, transfer},
};

/// A path that has become narrower is noticed within fifteen seconds; then sizes are tried, three times each.
const NOTICED: Duration = Duration::from_secs(60);

/// What is longer than that is lost, and nobody is told.
const NARROW: &str = "table netdev narrow {
    chain ingress { type filter hook ingress device veth0 priority 0; meta length > 1400 drop; }
}
";

/// Something is sent all the time.
struct Pings(Child);

impl Drop for Pings {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pings(side: &Side) -> Pings {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", &side.netns])
        .args(["ping", "-q", "-i", "0.2", "fd00::2"])
        .stdout(Stdio::null());
    Pings(command.spawn().unwrap())
}

fn finds(pair: &Pair, mtu: u16) {
    for side in &pair.sides {
        let found = wait_until(NOTICED, || u16::from(side.status().mtu) == mtu);
        assert!(found, "{}: {:?}, not {mtu}", side.netns, side.status().mtu);
    }
}

fn tell(over_ipv6: bool, link: u16, [wide, narrow]: [u16; 2]) {
    let pair = Pair::new(&format!("m{}{link}", u8::from(over_ipv6)));
    for side in &pair.sides {
        // Each datagram passes by itself, or what counts lengths would see many as one.
        ip(&format!(
            "-n {} link set veth0 mtu {link} gso_max_segs 1",
            side.netns
        ));
    }
    pair.connect(over_ipv6, |spec| {
        spec.mtu = Mtu::try_from(1_280).unwrap();
        spec.most_mtu = Mtu::try_from(9_000).ok();
    });
    finds(&pair, wide);
    transfer(&pair, "[fd00::2]:0", 1_000_000);
    let _pings = pair.sides.each_ref().map(pings);
    for side in &pair.sides {
        inside(&side.netns, "nft -f -", NARROW);
    }
    finds(&pair, narrow);
    transfer(&pair, "[fd00::2]:0", 1_000_000);
    transfer(&pair, "10.9.0.2:0", 1_000_000);
}

#[test]
fn what_a_path_carries_is_found_and_found_again_when_it_is_less() {
    // By IPv6 there is more around a packet.
    let cases = [
        (false, 1_500, [1_440, 1_340]),
        (false, 9_000, [8_940, 1_340]),
        (true, 1_500, [1_420, 1_320]),
        (true, 9_000, [8_920, 1_320]),
    ];
    thread::scope(|scope| {
        for (over_ipv6, link, sizes) in cases {
            scope.spawn(move || tell(over_ipv6, link, sizes));
        }
    });
}
