//! Flows between two workloads: fresh ones, each with a source port of its own, and one that goes on.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::world::{Workload, wait_for};

/// Where fresh flows go.
pub const FRESH: u16 = 7000;
/// Where the flow goes that began before a change.
pub const LASTING: u16 = 7001;
/// Where the flows go that fill the table, and how many source ports each of those uses.
pub const FILLING: u16 = 53;
const SOURCES: u16 = 50_000;
const FIRST_SOURCE: u16 = 1025;
/// Between two packets of a flow, and between two fresh flows.
const INTERVAL: Duration = Duration::from_millis(1);
/// How long a change may take before it counts as without effect.
const PATIENCE: Duration = Duration::from_secs(5);
/// No packet for so long: what was sent before has arrived or never will.
const SILENCE: Duration = Duration::from_millis(120);

/// The number of a packet, and when it was sent or arrived.
type Seen = (u64, Instant);
type Arrivals = Mutex<Vec<Seen>>;

/// Two workloads, one that sends and one that counts what arrives.
pub struct Probe {
    from: Workload,
    to: Workload,
    fresh: Arc<Arrivals>,
    lasting: Arc<Arrivals>,
    ended: Arc<AtomicBool>,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// When a change took effect, counted from the API's answer.
pub struct Effect {
    /// For fresh flows.
    pub fresh: Duration,
    /// For the flow that was there before; only where a rule was taken away.
    pub lasting: Option<Duration>,
}

impl Probe {
    /// Listens in the second workload.
    ///
    /// # Errors
    ///
    /// The sockets can't be made.
    pub fn new(from: &Workload, to: &Workload) -> Result<Probe> {
        let probe = Probe {
            from: from.clone(),
            to: to.clone(),
            fresh: Arc::default(),
            lasting: Arc::default(),
            ended: Arc::default(),
        };
        for v6 in [false, true] {
            probe.listen(v6, FRESH, &probe.fresh)?;
            probe.listen(v6, LASTING, &probe.lasting)?;
        }
        Ok(probe)
    }

    fn listen(&self, v6: bool, port: u16, arrivals: &Arc<Arrivals>) -> Result<()> {
        let at = SocketAddr::new(self.to.address(v6), port);
        let socket = self.to.place.enter(|| UdpSocket::bind(at))?;
        let socket = socket.with_context(|| format!("listen on {at}"))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (arrivals, ended) = (Arc::clone(arrivals), Arc::clone(&self.ended));
        thread::spawn(move || {
            let mut number = [0; 8];
            while !ended.load(Ordering::Relaxed) {
                let Ok((8, peer)) = socket.recv_from(&mut number) else {
                    continue;
                };
                let arrival = (u64::from_be_bytes(number), Instant::now());
                lock(&arrivals).push(arrival);
                if port == LASTING {
                    // An echo makes the flow one of both directions; a lost one does not matter.
                    let _ = socket.send_to(&number, peer);
                }
            }
        });
        Ok(())
    }

    /// Fills the host's connection table with so many flows, half of each family.
    ///
    /// # Errors
    ///
    /// The sockets can't be made.
    pub fn fill(&self, flows: usize) -> Result<()> {
        let destinations = flows.div_ceil(2).div_ceil(usize::from(SOURCES));
        let mut sinks = Vec::new();
        for v6 in [false, true] {
            for n in 0..destinations {
                let at = (self.to.address(v6), FILLING + u16::try_from(n)?);
                sinks.push(self.to.place.enter(|| UdpSocket::bind(at))??);
            }
        }
        self.from.place.enter(|| {
            for n in 0..flows {
                let (v6, n) = (n % 2 == 0, n / 2);
                let source = FIRST_SOURCE + u16::try_from(n % usize::from(SOURCES))?;
                let port = FILLING + u16::try_from(n / usize::from(SOURCES))?;
                send_fresh(
                    self.from.address(v6),
                    source,
                    (self.to.address(v6), port),
                    0,
                )?;
            }
            Ok(())
        })?
    }

    /// Allows by `change`, and tells when fresh flows came to pass.
    ///
    /// # Errors
    ///
    /// The change fails, or has no effect.
    pub fn allowed<T>(&self, v6: bool, change: impl FnOnce() -> Result<T>) -> Result<(T, Effect)> {
        lock(&self.fresh).clear();
        let all = || {
            let last = lock(&self.fresh).len();
            if last < 30 {
                bail!("{last} fresh flows pass")
            } else {
                Ok(())
            }
        };
        let (made, answered, sent) = self.while_sending(v6, || Ok(()), change, all)?;
        let fresh = lock(&self.fresh);
        let arrived = |number: u64| fresh.iter().any(|(n, _)| *n == number);
        let lost = sent.iter().rposition(|(number, _)| !arrived(*number));
        let first = lost.map_or(0, |lost| lost + 1);
        let (_, when) = sent
            .get(first)
            .context("the last fresh flow did not pass")?;
        let fresh = when.saturating_duration_since(answered);
        Ok((
            made,
            Effect {
                fresh,
                lasting: None,
            },
        ))
    }

    /// Forbids by `change`, and tells when fresh flows and one that was there came to an end.
    ///
    /// # Errors
    ///
    /// The change fails, or has no effect.
    pub fn forbidden<T>(
        &self,
        v6: bool,
        change: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Effect)> {
        lock(&self.fresh).clear();
        lock(&self.lasting).clear();
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let lasting = scope.spawn(|| self.last(v6, &ended));
            let result = wait_for(PATIENCE, || {
                let echoes = lock(&self.lasting).len();
                if echoes < 3 {
                    bail!("no flow passes before the change")
                } else {
                    Ok(())
                }
            })
            .and_then(|()| self.end_of_flows(v6, change));
            ended.store(true, Ordering::Relaxed);
            lasting
                .join()
                .unwrap_or_else(|e| std::panic::resume_unwind(e))?;
            result
        })
    }

    fn end_of_flows<T>(&self, v6: bool, change: impl FnOnce() -> Result<T>) -> Result<(T, Effect)> {
        let quiet = || {
            let last = |arrivals: &Arrivals| lock(arrivals).last().map(|(_, at)| at.elapsed());
            let passes = |at: Option<Duration>| at.is_some_and(|at| at < SILENCE);
            match (passes(last(&self.fresh)), passes(last(&self.lasting))) {
                (false, false) => Ok(()),
                (true, _) => bail!("fresh flows pass"),
                (false, true) => bail!("the flow from before passes"),
            }
        };
        let passing = || {
            let any = lock(&self.fresh).last().is_some();
            any.then_some(())
                .context("no fresh flow passes before the change")
        };
        let (made, answered, sent) = self.while_sending(v6, passing, change, quiet)?;
        let (fresh, lasting) = (lock(&self.fresh), lock(&self.lasting));
        let (last, _) = fresh
            .last()
            .context("no fresh flow passed before the change")?;
        let first = sent.iter().find(|(number, _)| number > last);
        let (_, when) = first.context("the last fresh flow passed")?;
        let (_, end) = lasting
            .last()
            .context("the flow did not pass before the change")?;
        let effect = Effect {
            fresh: when.saturating_duration_since(answered),
            lasting: Some(end.saturating_duration_since(answered)),
        };
        Ok((made, effect))
    }

    /// Sends fresh flows from before the change, which comes once `before` holds, until `seen` does; gives when
    /// the change was answered, and when each flow was sent.
    fn while_sending<T>(
        &self,
        v6: bool,
        before: impl FnMut() -> Result<()>,
        change: impl FnOnce() -> Result<T>,
        seen: impl FnMut() -> Result<()>,
    ) -> Result<(T, Instant, Vec<Seen>)> {
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let sender = scope.spawn(|| self.send_fresh_flows(v6, &ended));
            thread::sleep(20 * INTERVAL);
            let ready = wait_for(PATIENCE, before);
            let made = ready.and_then(|()| change());
            let answered = Instant::now();
            let seen = made.as_ref().map_or(Ok(()), |_| wait_for(PATIENCE, seen));
            ended.store(true, Ordering::Relaxed);
            let sent = sender
                .join()
                .unwrap_or_else(|e| std::panic::resume_unwind(e))?;
            thread::sleep(20 * INTERVAL);
            let made = made?;
            seen?;
            Ok((made, answered, sent))
        })
    }

    fn send_fresh_flows(&self, v6: bool, ended: &AtomicBool) -> Result<Vec<Seen>> {
        let to = (self.to.address(v6), FRESH);
        let mut sent = Vec::new();
        self.from.place.enter(|| {
            while !ended.load(Ordering::Relaxed) {
                let number = sent.len() as u64;
                let source = FIRST_SOURCE + u16::try_from(number % u64::from(SOURCES))?;
                sent.push((number, Instant::now()));
                send_fresh(self.from.address(v6), source, to, number)?;
                thread::sleep(INTERVAL);
            }
            anyhow::Ok(())
        })??;
        Ok(sent)
    }

    fn last(&self, v6: bool, ended: &AtomicBool) -> Result<()> {
        self.from.place.enter(|| {
            let socket = UdpSocket::bind((self.from.address(v6), 0))?;
            socket.connect((self.to.address(v6), LASTING))?;
            let mut number = 0u64;
            while !ended.load(Ordering::Relaxed) {
                tolerate(socket.send(&number.to_be_bytes()))?;
                number += 1;
                thread::sleep(INTERVAL);
            }
            Ok(())
        })?
    }
}

fn send_fresh(from: IpAddr, source: u16, to: (IpAddr, u16), number: u64) -> Result<()> {
    let socket = UdpSocket::bind((from, source))
        .with_context(|| format!("a socket at {from} port {source}"))?;
    tolerate(socket.send_to(&number.to_be_bytes(), to))
        .with_context(|| format!("send to {} port {}", to.0, to.1))
}

/// What the network answers to a packet is told with the next one; only our own failures count.
fn tolerate(sent: std::io::Result<usize>) -> std::io::Result<()> {
    match sent {
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::ConnectionRefused
                    | ErrorKind::HostUnreachable
                    | ErrorKind::PermissionDenied
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

fn lock(arrivals: &Arrivals) -> std::sync::MutexGuard<'_, Vec<Seen>> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}
