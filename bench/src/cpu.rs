//! What processes, and the machine as a whole, have used.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use nix::{time::clock_getcpuclockid, unistd::Pid};

/// CPU seconds (user and system) that a process and the children that it has waited for have used
/// (proc_pid_stat(5), fields 14 to 17), in ticks of 10 ms.
pub fn of_process(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = behind_name
        .split_ascii_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(ticks / 100.0)
}

/// CPU seconds that a process has used, all threads together, those that have ended as well: finer than
/// [`of_process`], but without children.
pub fn of_threads(pid: u32) -> Result<f64> {
    let what = || format!("read the CPU clock of process {pid}");
    let id = Pid::from_raw(i32::try_from(pid).with_context(what)?);
    let clock = clock_getcpuclockid(id).with_context(what)?;
    let used = clock.now().with_context(what)?;
    Ok(Duration::from(used).as_secs_f64())
}

/// CPU seconds that the machine has worked: all but idle, waiting for disks, and stolen by others
/// (proc_stat(5)), in ticks of 10 ms.
pub fn of_machine() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    let worked = [0, 1, 2, 5, 6];
    let ticks: f64 = worked.iter().filter_map(|i| fields.get(*i)).sum();
    Ok(ticks / 100.0)
}

/// Resident memory of a process in MiB.
pub fn resident(pid: u32) -> Result<f64> {
    mebibytes(pid, "VmRSS")
}

/// The same in two parts: what is the process's own, and what it has of files, its program above all, which all who run it share.
pub fn memory(pid: u32) -> Result<(f64, f64)> {
    Ok((mebibytes(pid, "RssAnon")?, mebibytes(pid, "RssFile")?))
}

/// The most that has been resident of a process, in MiB.
pub fn peak_resident(pid: u32) -> Result<f64> {
    mebibytes(pid, "VmHWM")
}

fn mebibytes(pid: u32, field: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line
        .and_then(|rest| rest.strip_prefix(':')?.split_ascii_whitespace().next())
        .and_then(|n| n.parse::<f64>().ok())
        .with_context(|| format!("{path} tells no {field}"))?;
    Ok(kibibytes / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_used_stays_used_when_it_has_ended() {
        let pid = std::process::id();
        let before = of_threads(pid).unwrap();
        let work = || std::hint::black_box((0..5_000_000u64).fold(0, |a, b| a ^ b));
        let used = std::thread::spawn(move || {
            work();
            of_threads(pid).unwrap()
        });
        let within = used.join().unwrap();
        assert!(before < within && within <= of_threads(pid).unwrap());
    }

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        let before = of_threads(pid).unwrap();
        let mut sum = 0u64;
        for i in 0..5_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(i));
        }
        assert!(of_threads(pid).unwrap() > before, "{sum}");
        let resident = resident(pid).unwrap();
        assert!(resident > 0.1);
        assert!(peak_resident(pid).unwrap() >= resident);
        assert!(of_machine().unwrap() > 0.0);
        assert!(of_process(pid).unwrap() >= 0.0);
    }
}
