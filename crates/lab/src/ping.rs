//! A stream of pings, to count what a fault costs.

use std::{sync::Arc, time::Duration};

use crate::{Error, Lab, Node, Process};

/// How long `ping` may take to end after it was asked to.
const END: Duration = Duration::from_secs(5);

/// Echo requests going out at a steady rate until [`PingStream::finish`].
#[derive(Debug)]
pub struct PingStream {
    process: Arc<Process>,
    from: usize,
    interval: Duration,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PingReport {
    /// Requests sent, not counting one that may have been under way at the end.
    pub sent: u64,
    /// Requests answered.
    pub received: u64,
    /// The longest time without an answer: from one to the next, or to the end.
    pub longest_gap: Duration,
}

impl PingReport {
    /// Requests without an answer.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

impl Lab {
    /// Starts pinging `target` (an address, with `%dev` for link-local ones) at this interval; `name`
    /// names its log.
    ///
    /// # Errors
    ///
    /// `ping` can't be started.
    pub fn ping_stream(
        &self,
        node: &Node,
        name: &str,
        target: &str,
        interval: Duration,
    ) -> Result<PingStream, Error> {
        let seconds = format!("{:.3}", interval.as_secs_f64());
        let mut command = std::process::Command::new("ping");
        command
            .args(["-n", "-D", "-i", &seconds, target])
            .env("LC_ALL", "C");
        let from = std::fs::metadata(self.node_directory(node.name()).join(format!("{name}.log")))
            .map_or(0, |log| usize::try_from(log.len()).unwrap_or(usize::MAX));
        Ok(PingStream {
            process: self.spawn(node, name, &mut command)?,
            from,
            interval,
        })
    }
}

impl PingStream {
    /// The answers so far.
    pub fn received(&self) -> u64 {
        let log = self.process.log();
        read(log.get(self.from..).unwrap_or_default(), self.interval).received
    }

    /// Ends the stream and counts.
    ///
    /// # Errors
    ///
    /// `ping` ended by itself, or does not end.
    pub fn finish(self) -> Result<PingReport, Error> {
        let ran = self.process.runs();
        self.process.interrupt();
        let ended = self.process.wait(END);
        let log = self.process.log();
        let log = log.get(self.from..).unwrap_or_default();
        if !ran || !ended {
            let status = if ran {
                "does not end"
            } else {
                "before it was asked to"
            }
            .to_owned();
            let process = self.process.name().to_owned();
            return Err(Error::Ended {
                process,
                status,
                log: log.to_owned(),
            });
        }
        Ok(read(log, self.interval))
    }
}

/// Reads what `ping -D` prints: `[1700000000.123456] 64 bytes from … icmp_seq=7 …`, and at the end
/// `12 packets transmitted, 11 received, …`.
fn read(log: &str, interval: Duration) -> PingReport {
    let mut report = PingReport::default();
    let mut before: Option<f64> = None;
    let mut last_answered = 0;
    for line in log.lines() {
        if let Some(stamp) = answer(line) {
            report.received += 1;
            let gap = before.map_or(0.0, |before| (stamp - before).max(0.0));
            report.longest_gap = report.longest_gap.max(Duration::from_secs_f64(gap));
            before = Some(stamp);
            last_answered = sequence(line).unwrap_or(last_answered);
        } else if let Some((sent, _)) = line.split_once(" packets transmitted, ") {
            report.sent = sent.parse().unwrap_or(0);
        }
    }
    // The last request may have been answered after ping stopped listening.
    let under_way = report.sent > 0 && report.sent & 0xffff == (last_answered + 1) & 0xffff;
    report.sent -= u64::from(under_way);
    // Numbers begin anew behind 65,535.
    let silent = (report.sent & 0xffff).wrapping_sub(last_answered) & 0xffff;
    let silent = u32::try_from(silent.min(report.lost())).unwrap_or(u32::MAX);
    report.longest_gap = report.longest_gap.max(interval * silent);
    report
}

fn answer(line: &str) -> Option<f64> {
    let (stamp, rest) = line.strip_prefix('[')?.split_once("] ")?;
    (rest.contains(" bytes from ") && !rest.ends_with("(DUP!)")).then(|| stamp.parse().ok())?
}

fn sequence(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("icmp_seq=")?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(10);
    const HEAD: &str = "PING ::1(::1) 56 data bytes\n\
        [10.000] 64 bytes from ::1: icmp_seq=1 ttl=64 time=0.02 ms\n\
        [10.500] 64 bytes from ::1: icmp_seq=3 ttl=64 time=0.02 ms\n\
        [10.500] 64 bytes from ::1: icmp_seq=3 ttl=64 time=0.02 ms (DUP!)\n\
        [10.600] From ::2 icmp_seq=4 Destination unreachable: No route\n\n--- ::1 ping statistics ---\n";

    #[test]
    fn answers_losses_and_gaps() {
        let log = format!("{HEAD}5 packets transmitted, 2 received, 60% packet loss\n");
        let report = read(&log, Duration::from_millis(100));
        assert_eq!((report.sent, report.received, report.lost()), (5, 2, 3));
        assert_eq!(report.longest_gap, Duration::from_millis(500));
        let slower = read(&log, Duration::from_millis(400));
        assert_eq!(slower.longest_gap, Duration::from_millis(800), "to the end");
        let none = read(
            "9 packets transmitted, 0 received, 100% packet loss\n",
            INTERVAL,
        );
        assert_eq!(none.longest_gap, INTERVAL * 9);
    }

    #[test]
    fn the_one_under_way_at_the_end_is_not_lost() {
        let log = format!("{HEAD}4 packets transmitted, 2 received, 60% packet loss\n");
        let report = read(&log, INTERVAL);
        assert_eq!((report.sent, report.lost()), (3, 1));
        assert_eq!(read("", INTERVAL), PingReport::default());
    }
}
