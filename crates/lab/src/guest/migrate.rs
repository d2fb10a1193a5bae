//! Live migration between two nodes, driven by QEMU's machine protocol (QMP) as Nova's libvirt does it.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::Guest;
use crate::{Error, wait_until};

/// How long QEMU may take for an answer.
const ANSWER: Duration = Duration::from_secs(20);

/// What a migration cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The machine's pause, as QEMU measured it where it came from.
    pub downtime: Duration,
    /// From its stop there to its going on here, as both QEMUs tell it.
    pub paused: Duration,
    /// From the request to the end.
    pub took: Duration,
}

impl Guest {
    /// Sends the running machine to one that waits for it ([`crate::Lab::receive`]), and ends it here.
    ///
    /// # Errors
    ///
    /// The other one does not wait, QEMU gives up, or it takes longer than `limit`.
    pub fn migrate(&self, to: &Guest, limit: Duration) -> Result<Migration, Error> {
        let failed = |what: String| Error::Guest(format!("{}: migrate: {what}", self.name));
        let incoming = to.incoming.as_ref();
        let incoming = incoming.ok_or_else(|| failed("nobody waits for it there".to_owned()))?;
        let mut monitor = Monitor::open(&self.monitor).map_err(failed)?;
        let mut there = Monitor::open(&to.monitor).map_err(failed)?;
        let begin = Instant::now();
        let uri = format!("unix:{}", incoming.display());
        monitor
            .ask("migrate", &json!({ "uri": uri }))
            .map_err(failed)?;
        let mut last = Ok(Value::Null);
        let ended = wait_until(limit, || {
            last = monitor.ask("query-migrate", &json!({}));
            let state = last.as_ref().map(|is| is["status"].as_str().unwrap_or(""));
            !matches!(
                state,
                Ok("setup" | "active" | "device" | "pre-switchover" | "")
            )
        });
        let last = last.map_err(failed)?;
        let downtime = last["downtime"].as_u64();
        match (ended, last["status"].as_str(), downtime) {
            (true, Some("completed"), Some(millis)) => {
                let took = begin.elapsed();
                self.process.kill();
                let resumed = there.event("RESUME").map_err(failed)?;
                let stopped = monitor.event("STOP").map_err(failed)?;
                Ok(Migration {
                    downtime: Duration::from_millis(millis),
                    paused: resumed.saturating_sub(stopped),
                    took,
                })
            }
            _ => Err(failed(format!(
                "after {} s: {last}",
                begin.elapsed().as_secs()
            ))),
        }
    }
}

/// A connection to QEMU's monitor.
struct Monitor {
    stream: BufReader<UnixStream>,
    /// What has happened since, each with the time since 1970.
    events: Vec<(String, Duration)>,
}

impl Monitor {
    fn open(path: &Path) -> Result<Monitor, String> {
        let stream = UnixStream::connect(path).map_err(|e| format!("reach QEMU: {e}"))?;
        let patience = stream.set_read_timeout(Some(ANSWER));
        patience.map_err(|e| format!("reach QEMU: {e}"))?;
        let mut monitor = Monitor {
            stream: BufReader::new(stream),
            events: Vec::new(),
        };
        monitor.read()?;
        monitor.ask("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value, String> {
        let request = json!({"execute": command, "arguments": arguments});
        let sent = self
            .stream
            .get_mut()
            .write_all(format!("{request}\n").as_bytes());
        sent.map_err(|e| format!("{command}: {e}"))?;
        loop {
            let mut answer = self.read()?;
            if let Some(error) = answer.get("error") {
                return Err(format!("{command}: {}", error["desc"]));
            }
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
        }
    }

    /// When that happened for the last time; waits for it where it has not.
    fn event(&mut self, name: &str) -> Result<Duration, String> {
        loop {
            if let Some((_, at)) = self.events.iter().rfind(|(event, _)| event == name) {
                return Ok(*at);
            }
            self.read().map_err(|e| format!("wait for {name}: {e}"))?;
        }
    }

    fn read(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        let octets = self.stream.read_line(&mut line);
        let said: Value = match octets.map_err(|e| format!("hear QEMU: {e}"))? {
            0 => return Err("QEMU has ended".to_owned()),
            _ => {
                serde_json::from_str(&line).map_err(|e| format!("understand QEMU: {e}: {line}"))?
            }
        };
        if let Some(event) = said["event"].as_str() {
            let part = |unit: &str| said["timestamp"][unit].as_u64().unwrap_or_default();
            let at =
                Duration::from_secs(part("seconds")) + Duration::from_micros(part("microseconds"));
            self.events.push((event.to_owned(), at));
        }
        Ok(said)
    }
}
