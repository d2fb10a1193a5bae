//! What starts the process, and starts it again: systemd, where that is what runs the machine; otherwise nobody.

use std::{
    env, fs,
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{getsockopt, sockopt::PeerCredentials},
    },
    unistd::Pid,
};

use crate::places::Places;

const UNIT: &str = "/etc/systemd/system/hextet.service";
/// Where systemd is what runs the machine (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";
/// For the process to answer, and to end.
const STARTING: Duration = Duration::from_secs(30);
const ENDING: Duration = Duration::from_secs(40);
const BETWEEN: Duration = Duration::from_millis(20);

/// Whether systemd runs this machine.
pub fn is_systemd() -> bool {
    Path::new(BOOTED).is_dir()
}

/// The process that runs for these places.
pub fn running(places: &Places) -> Option<Pid> {
    let stream = UnixStream::connect(places.agent_socket()).ok()?;
    let peer = getsockopt(&stream, PeerCredentials).ok()?;
    Some(Pid::from_raw(peer.pid()))
}

/// Starts it, now and after reboots, and waits until it answers.
///
/// # Errors
///
/// It does not; with the end of what it said.
pub fn start(places: &Places, by_systemd: bool) -> Result<()> {
    let program = env::current_exe().context("find this program")?;
    match by_systemd {
        true => {
            let unit = unit(&program, places);
            fs::write(UNIT, unit).with_context(|| format!("write {UNIT}"))?;
            systemctl(&["daemon-reload"])?;
            systemctl(&["enable", "hextet.service"])?;
            systemctl(&["restart", "hextet.service"])?;
        }
        false => background(&program, places)?,
    }
    let end = Instant::now() + STARTING;
    while running(places).is_none() {
        if Instant::now() > end {
            bail!(
                "it does not answer after {} s: {}",
                STARTING.as_secs(),
                last_words(places)
            );
        }
        sleep(BETWEEN);
    }
    Ok(())
}

fn unit(program: &Path, places: &Places) -> String {
    format!(
        "# Written by 'hextet up', removed by 'hextet down'.\n[Unit]\n\
         Description=hextet: IPv6 addresses for this host's workloads\nAfter=network-online.target\n\
         Wants=network-online.target\n\n[Service]\n\
         Environment=HEXTET_STATE_DIR={} HEXTET_RUN_DIR={}\n\
         ExecStart={} up --foreground\nRestart=always\nRestartSec=1\n\
         KillMode=process\nLimitNOFILE=65536\n\n[Install]\nWantedBy=multi-user.target\n",
        places.state.display(),
        places.run.display(),
        program.display()
    )
}

fn systemctl(words: &[&str]) -> Result<()> {
    let done = Command::new("systemctl").args(words).output();
    let done = done.context("run systemctl")?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        bail!("systemctl {}: {}", words.join(" "), said.trim());
    }
    Ok(())
}

fn background(program: &Path, places: &Places) -> Result<()> {
    let path = places.log();
    let log = fs::File::create(&path).with_context(|| format!("write {}", path.display()))?;
    let errors = log.try_clone()?;
    let mut command = Command::new(program);
    command
        .args(["up", "--foreground"])
        .env("HEXTET_STATE_DIR", &places.state)
        .env("HEXTET_RUN_DIR", &places.run)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // The terminal's signals are for others.
        .process_group(0);
    let started = command.spawn().map(drop);
    started.context("start the process in the background")
}

/// Ends the process, and has it start no more.
///
/// # Errors
///
/// It does not end.
pub fn stop(places: &Places) -> Result<()> {
    if Path::new(UNIT).exists() && is_systemd() && is_for(places) {
        systemctl(&["disable", "--now", "hextet.service"])?;
        fs::remove_file(UNIT).with_context(|| format!("remove {UNIT}"))?;
        systemctl(&["daemon-reload"])?;
    }
    let end = Instant::now() + ENDING;
    if let Some(pid) = running(places) {
        kill(pid, Signal::SIGTERM).with_context(|| format!("end process {pid}"))?;
        while kill(pid, None).is_ok() && !is_zombie(pid) {
            if Instant::now() > end {
                bail!("process {pid} does not end within {} s", ENDING.as_secs());
            }
            sleep(BETWEEN);
        }
    }
    Ok(())
}

fn is_for(places: &Places) -> bool {
    let state = format!("HEXTET_STATE_DIR={} ", places.state.display());
    fs::read_to_string(UNIT).is_ok_and(|unit| unit.contains(&state))
}

fn is_zombie(pid: Pid) -> bool {
    let stat = PathBuf::from(format!("/proc/{pid}/stat"));
    let stat = fs::read_to_string(stat).unwrap_or_default();
    let after = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    after.is_empty() || after.starts_with('Z')
}

fn last_words(places: &Places) -> String {
    let log = fs::read_to_string(places.log()).unwrap_or_default();
    let said: Vec<&str> = log.lines().rev().take(3).collect();
    match said.is_empty() {
        true => "see 'journalctl -u hextet'".to_owned(),
        false => said.into_iter().rev().collect::<Vec<_>>().join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_starts_the_same_program_with_the_same_places() {
        let places = Places {
            state: "/srv/hextet".into(),
            run: "/run/hextet".into(),
        };
        let unit = unit(Path::new("/usr/bin/hextet"), &places);
        assert!(unit.contains("ExecStart=/usr/bin/hextet up --foreground\n"));
        assert!(unit.contains("HEXTET_STATE_DIR=/srv/hextet HEXTET_RUN_DIR=/run/hextet\n"));
        assert!(unit.contains("KillMode=process\n"));
    }
}
