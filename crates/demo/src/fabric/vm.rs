//! The workload that is a real virtual machine, on a TAP that QEMU makes.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use hextet_lab::guest::{Guest, GuestSpec, Kernel, PORT};
use hextet_types::{Family, IfName};

use super::{Fabric, INTERNET_V6};
use crate::{
    check::expect,
    probe::{Reach, greeting},
    workload::Workload,
};

/// An emulated machine on a busy one.
const BOOT: Duration = Duration::from_secs(90);
const COMMAND: Duration = Duration::from_secs(30);

/// The machine, and its port.
pub struct Vm {
    /// Its port; its commands run in the guest, not in a place.
    pub workload: Workload,
    guest: Guest,
}

impl Vm {
    /// Makes a port on that hypervisor and starts the machine behind it; does not wait.
    ///
    /// # Errors
    ///
    /// The cloud refuses, or QEMU does not start.
    pub fn start(f: &Fabric, host: usize) -> Result<Vm> {
        let host = f.hosts.get(host).context("no such host")?;
        let network = ("IPv6", f.network("IPv6")?);
        let workload = Workload::create(
            &f.cloud,
            host.place.clone(),
            "vm",
            network,
            host,
            &[f.group("vm")?],
        )?;
        let tap = IfName::for_port(workload.port.parse()?);
        let spec = GuestSpec::new("vm", tap, workload.mac.parse()?);
        let guest = f.lab.boot(&host.name, &Kernel::find_or_fetch()?, &spec)?;
        Ok(Vm { workload, guest })
    }
}

/// The machine has configured itself, and is reached from outside.
pub fn guest(f: &Fabric) -> Result<String> {
    let vm = f.vm.as_ref().context("there is no virtual machine")?;
    vm.guest.wait_ready(BOOT)?;
    let (v6, v4) = (vm.guest.address(Family::V6), vm.guest.address(Family::V4));
    expect(
        v6 == Some(IpAddr::V6(vm.workload.v6)),
        format!("by SLAAC it got {v6:?}"),
    )?;
    expect(
        v4 == Some(IpAddr::V4(vm.workload.v4)),
        format!("by DHCPv4 it got {v4:?}"),
    )?;
    f.internet.reaches(vm.workload.v6.into(), 5)?;
    let said = greeting(&f.internet, (vm.workload.v6, PORT).into())?;
    expect(
        said.trim() == "vm",
        format!("on TCP port {PORT} it says '{said}'"),
    )?;
    let (status, said) = vm
        .guest
        .run(&format!("ping -c 1 -w 5 {INTERNET_V6}"), COMMAND)?;
    expect(status == 0, format!("from inside: {said}"))?;
    Ok(format!(
        "a VM on a TAP of {} got {} and {}, answers the internet and reaches it",
        vm.workload.host, vm.workload.v6, vm.workload.v4
    ))
}
