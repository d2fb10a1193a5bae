//! What metering labels' counters have counted, until the server has been told.
//!
//! Of each counter the last reading waits, in the order in which they were read; so the last one of a counter that is
//! gone is told before the first one of that which takes its place. What the server can't be told is on disk, and so is what a
//! counter had counted before it goes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hextet_api::agent::{Epoch, Metered, Reading};
use hextet_kernel::Counted;
use hextet_model::{neutron::Direction, plan::metered};
use hextet_types::{MeteringLabelId, RouterId};
use nix::time::{ClockId, clock_gettime};
use tokio::{sync::Notify, time::sleep};
use tracing::{debug, error, warn};
use uuid::Uuid;

use crate::{
    client::{self, Connection},
    identity::Identity,
};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Readings in one report, as the server has it.
const MAX_READINGS: usize = 1_000;
/// Readings that wait; of more, the oldest are lost.
const MAX_WAITING: usize = 100_000;
/// After a failed attempt.
const RETRY: Duration = Duration::from_secs(2);
/// While the server is away, what waits is written no more often: counters live on without us.
const SAVE: Duration = Duration::from_secs(60);

type Counter = (MeteringLabelId, RouterId, Direction, Epoch);

fn counter(reading: &Reading) -> Counter {
    let Reading {
        label,
        router,
        direction,
        epoch,
        ..
    } = *reading;
    (label, router, direction, epoch)
}

/// What waits, and what the server knows.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    in_order: BTreeMap<u64, Reading>,
    numbers: BTreeMap<Counter, u64>,
    told: BTreeMap<Counter, (u64, u64)>,
    /// Whether the file holds anything.
    on_disk: bool,
    /// When it was written.
    saved: Option<Instant>,
}

impl Waiting {
    fn add(&mut self, reading: Reading) {
        let of = counter(&reading);
        if self.told.get(&of) == Some(&(reading.packets, reading.octets)) {
            return;
        }
        if let Some(old) = self.numbers.insert(of, self.next) {
            self.in_order.remove(&old);
        }
        self.in_order.insert(self.next, reading);
        self.next += 1;
        while self.in_order.len() > MAX_WAITING {
            if let Some((_, lost)) = self.in_order.pop_first() {
                warn!(label = %lost.label, router = %lost.router, "too many readings wait; one is lost");
                self.numbers.remove(&counter(&lost));
            }
        }
    }

    fn first(&self) -> Vec<Reading> {
        self.in_order.values().take(MAX_READINGS).cloned().collect()
    }

    /// What has been read anew meanwhile goes on waiting.
    fn tell(&mut self, readings: &[Reading]) {
        for reading in readings {
            let of = counter(reading);
            self.told.insert(of, (reading.packets, reading.octets));
            let number = self.numbers.get(&of).copied();
            if let Some(number) = number.filter(|n| self.in_order.get(n) == Some(reading)) {
                self.in_order.remove(&number);
                self.numbers.remove(&of);
            }
        }
    }

    /// Of what is not there any more nothing need be known.
    fn forget_others(&mut self, there: &[Reading]) {
        let there: std::collections::BTreeSet<Counter> = there.iter().map(counter).collect();
        self.told.retain(|of, _| there.contains(of));
    }
}

/// What waits, as the reconciler's thread and the task that tells share it.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    boot: Uuid,
    waiting: Mutex<Waiting>,
    news: Notify,
}

impl Ledger {
    /// With what an earlier run could not tell.
    ///
    /// # Errors
    ///
    /// The file can't be read, or the host's start is not known.
    pub fn open(path: &Path) -> Result<Arc<Ledger>> {
        let boot = fs::read_to_string(BOOT_ID).with_context(|| format!("read {BOOT_ID}"))?;
        let boot = boot.trim().parse().context("understand the boot id")?;
        let mut waiting = Waiting::default();
        for reading in load(path).with_context(|| format!("read {}", path.display()))? {
            waiting.on_disk = true;
            waiting.add(reading);
        }
        Ok(Arc::new(Ledger {
            path: path.to_owned(),
            boot,
            waiting: Mutex::new(waiting),
            news: Notify::new(),
        }))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readings(&self, counted: Vec<Counted>) -> Vec<Reading> {
        let at_ns = since_boot();
        let read = counted.into_iter().filter_map(|count| {
            let (label, router, direction) = metered(&count.name)?;
            Some(Reading {
                label,
                router,
                direction,
                epoch: Epoch {
                    boot: self.boot,
                    counter: count.identity,
                },
                at_ns,
                packets: count.packets,
                octets: count.octets,
            })
        });
        read.collect()
    }

    /// All counters of this host have been read.
    pub fn take(&self, counted: Vec<Counted>) {
        let readings = self.readings(counted);
        let mut waiting = self.waiting();
        waiting.forget_others(&readings);
        readings
            .into_iter()
            .for_each(|reading| waiting.add(reading));
        self.news.notify_one();
    }

    /// These counters have been read, and go as soon as this returns.
    pub fn take_last(&self, counted: Vec<Counted>) {
        let readings = self.readings(counted);
        let mut waiting = self.waiting();
        readings
            .into_iter()
            .for_each(|reading| waiting.add(reading));
        self.save(&mut waiting, true);
        self.news.notify_one();
    }

    fn save_now_and_then(&self) {
        let mut waiting = self.waiting();
        if waiting.saved.is_none_or(|at| at.elapsed() >= SAVE) {
            self.save(&mut waiting, false);
        }
    }

    fn save(&self, waiting: &mut Waiting, for_good: bool) {
        if waiting.in_order.is_empty() && !waiting.on_disk {
            return;
        }
        match write(&self.path, waiting.in_order.values(), for_good) {
            Ok(()) => {
                waiting.on_disk = !waiting.in_order.is_empty();
                waiting.saved = Some(Instant::now());
            }
            Err(error) => {
                error!(%error, path = %self.path.display(), "what was metered is not on disk");
            }
        }
    }
}

/// The same for all processes, and for as long as the host runs; also while it sleeps.
fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// What can't be understood is as if it were not there.
fn load(path: &Path) -> io::Result<Vec<Reading>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let mut readings = Vec::new();
    for line in BufReader::new(file).split(b'\n').take(MAX_WAITING) {
        match serde_json::from_slice(&line?) {
            Ok(reading) => readings.push(reading),
            Err(error) => warn!(%error, "a line of what was metered can't be understood"),
        }
    }
    Ok(readings)
}

fn write<'a>(
    path: &Path,
    readings: impl Iterator<Item = &'a Reading>,
    for_good: bool,
) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut out = BufWriter::new(File::create(&beside)?);
    for reading in readings {
        serde_json::to_writer(&mut out, reading)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    if for_good {
        out.get_ref().sync_data()?;
    }
    fs::rename(&beside, path)
}

/// Tells the server what waits, for ever.
pub async fn run(server: String, identity: Identity, ledger: Arc<Ledger>) {
    let mut connection = None;
    loop {
        let first = ledger.waiting().first();
        if first.is_empty() {
            ledger.news.notified().await;
            continue;
        }
        let metered = Metered { readings: first };
        match tell(&server, &identity, &mut connection, &metered).await {
            Ok(()) => {
                let mut waiting = ledger.waiting();
                waiting.tell(&metered.readings);
                if waiting.on_disk && waiting.in_order.is_empty() {
                    ledger.save(&mut waiting, false);
                }
            }
            Err(error) => {
                debug!(
                    error = format!("{error:#}"),
                    "what was metered is told once more"
                );
                ledger.save_now_and_then();
                sleep(RETRY).await;
            }
        }
    }
}

async fn tell(
    server: &str,
    identity: &Identity,
    connection: &mut Option<Connection>,
    metered: &Metered,
) -> Result<()> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => client::connect(server, identity.tls()?).await?,
    };
    open.metered(metered).await?;
    *connection = Some(open);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(n: u128, counter: u64, packets: u64) -> Reading {
        Reading {
            label: MeteringLabelId(Uuid::from_u128(n)),
            router: RouterId(Uuid::from_u128(7)),
            direction: Direction::Ingress,
            epoch: Epoch {
                boot: Uuid::from_u128(1),
                counter: [0, 0, counter],
            },
            at_ns: packets,
            packets,
            octets: packets * 10,
        }
    }

    #[test]
    fn the_last_reading_of_each_counter_waits_in_order() {
        let mut waiting = Waiting::default();
        waiting.add(reading(1, 1, 5));
        waiting.add(reading(2, 1, 5));
        waiting.add(reading(1, 1, 6));
        waiting.add(reading(1, 2, 1));
        let expected = vec![reading(2, 1, 5), reading(1, 1, 6), reading(1, 2, 1)];
        assert_eq!(waiting.first(), expected);
        // One is read anew while it is told.
        let told = waiting.first();
        waiting.add(reading(1, 2, 4));
        waiting.tell(&told);
        assert_eq!(waiting.first(), [reading(1, 2, 4)]);
        waiting.tell(&[reading(1, 2, 4)]);
        waiting.add(reading(1, 2, 4));
        assert!(waiting.first().is_empty(), "the server knows");
        waiting.forget_others(&[reading(1, 2, 4)]);
        assert_eq!(waiting.told.len(), 1);
        assert_eq!(waiting.numbers.len(), 0);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut waiting = Waiting::default();
        for n in 0..=MAX_WAITING as u64 {
            waiting.add(reading(1, n, 1));
        }
        assert_eq!(waiting.in_order.len(), MAX_WAITING);
        assert_eq!(waiting.numbers.len(), MAX_WAITING);
        assert_eq!(waiting.first()[0], reading(1, 1, 1), "the oldest is lost");
    }

    #[test]
    fn what_was_not_told_is_there_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("metered");
        let ledger = Ledger::open(&path).expect("a new one");
        let counted = |counter, packets| Counted {
            name: hextet_model::plan::meter(
                MeteringLabelId(Uuid::from_u128(1)),
                RouterId(Uuid::from_u128(2)),
                Direction::Egress,
            ),
            identity: [1, 2, counter],
            packets,
            octets: packets,
        };
        ledger.take(vec![counted(1, 5)]);
        ledger.take_last(vec![counted(1, 6)]);
        drop(ledger);
        let again = Ledger::open(&path).expect("the same");
        let waits = again.waiting().first();
        assert_eq!(waits.len(), 1);
        assert_eq!(waits[0].packets, 6);
        let mut waiting = again.waiting();
        waiting.tell(&waits);
        again.save(&mut waiting, false);
        drop(waiting);
        assert!(load(&path).expect("a file").is_empty());
        // A name that is no label's is left out.
        let other = Counted {
            name: "other".into(),
            ..counted(1, 1)
        };
        again.take(vec![other]);
        assert!(again.waiting().first().is_empty());
        fs::write(&path, "no reading\n").expect("write");
        assert!(load(&path).expect("a file").is_empty());
    }
}
