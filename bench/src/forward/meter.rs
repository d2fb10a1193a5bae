//! What a piece of work costs: the CPU time of the thread that does it, and of the kernel's thread for what
//! it put off.
//!
//! All links are veths, so the kernel forwards a packet within the system call that sends it, and charges
//! the sender. What it puts off runs in `ksoftirqd` of the same CPU. Other programs' time is not in it,
//! which `/proc/stat` could not tell apart. Needs a kernel that does not account for interrupts by
//! themselves (`CONFIG_IRQ_TIME_ACCOUNTING`): there, that time is nobody's.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// Measures on one CPU.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    cpu: usize,
    ksoftirqd: Option<u32>,
}

impl Meter {
    /// For the last CPU that this program may use.
    ///
    /// # Errors
    ///
    /// The kernel does not charge senders for forwarding.
    pub fn new() -> Result<Meter> {
        if accounts_for_interrupts() {
            bail!(
                "this kernel accounts for interrupts by themselves (CONFIG_IRQ_TIME_ACCOUNTING), so a \
                 sender's CPU time says nothing of forwarding; boot with tsc=noirqtime"
            );
        }
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("ask for our CPUs")?;
        let cpu = (0..CpuSet::count())
            .rev()
            .find(|cpu| allowed.is_set(*cpu).unwrap_or(false))
            .context("no CPU to run on")?;
        Ok(Meter {
            cpu,
            ksoftirqd: find(&format!("ksoftirqd/{cpu}")),
        })
    }

    /// Keeps the calling thread on the CPU that is measured.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn pin(&self) -> Result<()> {
        let mut only = CpuSet::new();
        only.set(self.cpu)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &only))
            .with_context(|| format!("stay on CPU {}", self.cpu))
    }

    /// CPU seconds used so far by the calling thread, and on its behalf.
    ///
    /// # Errors
    ///
    /// A clock can't be read.
    pub fn now(&self) -> Result<f64> {
        let clock = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("read a CPU clock")?;
        let put_off = match self.ksoftirqd {
            Some(pid) => crate::cpu::of_threads(pid)?,
            None => 0.0,
        };
        Ok(Duration::from(clock).as_secs_f64() + put_off)
    }
}

fn find(name: &str) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|entry| {
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        (comm.trim_end() == name)
            .then(|| entry.file_name().to_string_lossy().parse().ok())
            .flatten()
    })
}

/// As far as the kernel shows its configuration.
fn accounts_for_interrupts() -> bool {
    let said = |text: &str| text.lines().any(|l| l == "CONFIG_IRQ_TIME_ACCOUNTING=y");
    let off = fs::read_to_string("/proc/cmdline")
        .is_ok_and(|line| line.split_whitespace().any(|word| word == "tsc=noirqtime"));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let shown = Command::new("zcat").arg("/proc/config.gz").output();
    let shown = shown.is_ok_and(|out| said(&String::from_utf8_lossy(&out.stdout)));
    let installed = fs::read_to_string(format!("/boot/config-{}", release.trim()));
    !off && (shown || installed.is_ok_and(|text| said(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_charged() {
        let meter = Meter {
            cpu: 0,
            ksoftirqd: None,
        };
        let before = meter.now().unwrap();
        let sum: u64 = std::hint::black_box((0..1_000_000u64).map(|n| n ^ 3)).sum();
        assert!(meter.now().unwrap() > before, "{sum}");
    }
}
