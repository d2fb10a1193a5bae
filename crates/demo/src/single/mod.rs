//! Single: a rented machine with one on-link /64 and one IPv4 address.

mod delegated;
mod docker;
mod failure;
mod reach;
mod renumbered;
mod sites;
mod vps;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    time::Instant,
};

use anyhow::Result;
use comfy_table::{Table, presets};
use hextet_lab::{Lab, LabFile, LabGuard, Node};

use crate::{check::Checks, leftovers::Leftovers};
use vps::{Container, Vps};

/// The host that stands for the internet.
pub const INTERNET_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The host that stands for the internet.
pub const INTERNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x10);
/// The machine's own address.
pub const VPS_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// The lab with everything that runs in it.
pub struct Single {
    /// The namespaces, and the provider's programs.
    pub lab: LabGuard,
    /// The host outside.
    pub internet: Node,
    /// The provider's router.
    pub provider: Node,
    /// The rented machine.
    pub vps: Vps,
    /// Another, whose addresses are set by hand.
    pub vps2: Vps,
    /// One that a prefix is delegated to.
    pub vps3: Vps,
    /// How the machine was before.
    pub before: failure::Machine,
    /// What runs on the first.
    pub containers: Vec<Container>,
}

/// Builds it, checks it, and takes it away again.
///
/// # Errors
///
/// It can't be built.
pub fn run(checks: &mut Checks, program: &Path, labs: &Path, keep: bool) -> Result<()> {
    let before = Leftovers::look()?;
    let name = {
        let mut single = Single::build(checks, program, labs)?;
        if keep {
            return single.keep(checks, program);
        }
        single.check(checks);
        checks.narrate("Tearing it down.");
        single.lab.name().to_owned()
    };
    checks.look("nothing-left-behind", || before.compare(&name));
    Ok(())
}

impl Single {
    fn build(checks: &mut Checks, program: &Path, labs: &Path) -> Result<Single> {
        let begin = Instant::now();
        checks.narrate(
            "A provider's router (radvd, Kea) with a /64 on the link, two rented machines there and one on a line of its own: labs/single.toml",
        );
        let lab = Lab::up(LabFile::read(&labs.join("single.toml"))?)?.guard();
        let vps = Vps::new(&lab, program, "vps")?;
        reach::own_address(&vps.place)?;
        let before = failure::Machine::look(&vps.place)?;
        checks.narrate("hextet up --dry-run; hextet up:");
        checks.show(&vps.hextet(&["up", "--dry-run", "--background"])?);
        vps.hextet(&["up", "--background"])?;
        let mut single = Single {
            internet: lab.node("internet")?,
            provider: lab.node("provider")?,
            vps2: Vps::new(&lab, program, "vps2")?,
            vps3: Vps::new(&lab, program, "vps3")?,
            vps,
            before,
            containers: Vec::new(),
            lab,
        };
        checks.narrate("hextet run --name web -- COMMAND, and another:");
        for name in ["web", "db"] {
            let container = single.vps.container(&single.lab, name)?;
            single.containers.push(container);
        }
        checks.narrate(&format!("Up after {} s:", begin.elapsed().as_secs()));
        checks.show(&single.table());
        Ok(single)
    }

    fn check(&mut self, checks: &mut Checks) {
        let s = &*self;
        checks.narrate("Who reaches whom:");
        checks.look("container-v6-inbound", || reach::inbound(s));
        checks.look("container-v6-outbound", || reach::outbound(s));
        checks.look("v4-nat-outbound", || reach::nat(s));
        checks.look("v4-expose", || reach::exposed(s));
        checks.look("v4-two-sites-one-443", || sites::two(s));
        checks.look("unallocated-silent", || reach::silent(s));
        checks.look("dad-defended", || reach::dad_defended(s));
        checks.look("provider-table-small", || reach::scan(s));
        checks.narrate("What is broken or changed, and what it costs:");
        checks.look("process-killed-still-reachable", || failure::killed(s));
        checks.look("docker-beside", || docker::beside(s));
        checks.look("renumbered", || renumbered::renumbered(s));
        checks.look("reboot", || failure::reboot(self));
        checks.look("slash-112", || reach::cut(self));
        checks.look("pd-preferred", || delegated::preferred(self));
        checks.look("prefix-delegated-to-workload", || {
            delegated::to_workload(self)
        });
        checks.look("down-restores", || failure::down(self));
    }

    /// The first workload.
    pub fn web(&self) -> &Container {
        &self.containers[0]
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["workload", "IPv6", "IPv4"]);
        for c in &self.containers {
            let v6: Vec<String> = c.v6.iter().map(ToString::to_string).collect();
            table.add_row([c.name.clone(), v6.join(" "), c.v4.to_string()]);
        }
        table.to_string()
    }

    fn keep(self, checks: &Checks, program: &Path) -> Result<()> {
        let (lab, program) = (self.lab.name().to_owned(), program.display());
        checks.show(&format!(
            "\nIt goes on running. Look around:\n  \
             {program} lab exec {lab} internet -- ping {}\n  \
             {program} lab exec {lab} provider -- ip -6 neigh\n  \
             {program} lab exec {lab} vps -- ip netns exec web ip addr\n\
             Take it away:\n  {program} lab down {lab}",
            self.web().v6[0],
        ));
        std::mem::forget(self);
        Ok(())
    }
}
