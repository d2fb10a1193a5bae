//! The writer: a thread of its own that owns the machine and commits.
//!
//! What arrives while a commit is being made durable waits, and is then committed together: one
//! write transaction, one fsync. Requests are done in their order, and each is whole or refused
//! by itself. After a failure of the medium the writer stops: nothing later could be trusted.

use std::sync::Arc;

use redb::Durability;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{
    file::StoreFile,
    tables::{WriteTables, write_error},
};
use crate::{Result, StoreError, machine::Machine, watch::Hub};

/// Requests that wait.
const QUEUE_JOBS: usize = 1024;
/// Octets that wait or are being committed, in KiB.
const QUEUE_KIB: usize = 64 * 1024;
/// Requests in one commit.
const BATCH_JOBS: usize = 256;

/// A request on its way to the writer.
trait Job: Send {
    /// Does it; an error here is the medium's, and everyone's.
    fn run(&mut self, machine: &mut Machine, tables: &mut WriteTables<'_>) -> Result<()>;
    /// Answers, once the commit is safe or has failed.
    fn answer(self: Box<Self>, commit: Result<()>);
}

struct Pending<F, T> {
    work: Option<F>,
    outcome: Result<T>,
    reply: oneshot::Sender<Result<T>>,
    _room: OwnedSemaphorePermit,
}

impl<F, T: Send> Job for Pending<F, T>
where
    F: FnOnce(&mut Machine, &mut WriteTables<'_>) -> Result<T> + Send,
{
    fn run(&mut self, machine: &mut Machine, tables: &mut WriteTables<'_>) -> Result<()> {
        if let Some(work) = self.work.take() {
            self.outcome = work(machine, tables);
        }
        match &self.outcome {
            Err(error) if is_fatal(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn answer(self: Box<Self>, commit: Result<()>) {
        // Nobody may be waiting any more: that is the caller's choice.
        let _ = self.reply.send(commit.and(self.outcome));
    }
}

fn is_fatal(error: &StoreError) -> bool {
    use StoreError::{Corrupt, Read, Write};
    matches!(error, Read { .. } | Write { .. } | Corrupt { .. })
}

/// The way to the writer. The writer ends when the last of these is gone.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Box<dyn Job>>,
    room: Arc<Semaphore>,
}

/// What the writer's thread runs on.
pub(super) struct WriterThread {
    file: Arc<StoreFile>,
    machine: Machine,
    hub: Arc<Hub>,
    jobs: mpsc::Receiver<Box<dyn Job>>,
}

impl Writer {
    pub(super) fn new(
        file: Arc<StoreFile>,
        machine: Machine,
        hub: Arc<Hub>,
    ) -> (Writer, WriterThread) {
        let (sender, jobs) = mpsc::channel(QUEUE_JOBS);
        let writer = Writer {
            jobs: sender,
            room: Arc::new(Semaphore::new(QUEUE_KIB)),
        };
        (
            writer,
            WriterThread {
                file,
                machine,
                hub,
                jobs,
            },
        )
    }

    /// Waits for room, queues the work, and waits until what it did is safe. `bytes` is what the
    /// request holds in memory.
    pub(super) async fn submit<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&mut Machine, &mut WriteTables<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let kib = (bytes / 1024 + 1).min(QUEUE_KIB);
        let permits = u32::try_from(kib).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(permits).await;
        let (reply, answer) = oneshot::channel();
        let job = Pending {
            work: Some(work),
            outcome: Err(StoreError::Closed),
            reply,
            _room: room.map_err(|_| StoreError::Closed)?,
        };
        self.jobs
            .send(Box::new(job))
            .await
            .map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

#[cfg(test)]
impl Writer {
    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        QUEUE_JOBS - self.jobs.capacity()
    }
}

impl WriterThread {
    /// Works until every [`Writer`] is gone or the medium fails.
    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(first) = self.jobs.blocking_recv() {
            batch.push(first);
            while batch.len() < BATCH_JOBS
                && let Ok(job) = self.jobs.try_recv()
            {
                batch.push(job);
            }
            let result = self.commit(&mut batch);
            if result.is_ok() {
                self.hub
                    .publish(self.machine.take_fresh(), self.machine.head());
            }
            for job in batch.drain(..) {
                job.answer(result.clone());
            }
            if let Err(error) = result {
                tracing::error!(%error, "the store stops");
                break;
            }
        }
    }

    fn commit(&mut self, batch: &mut [Box<dyn Job>]) -> Result<()> {
        let mut txn = self.file.db.begin_write().map_err(write_error)?;
        txn.set_durability(Durability::Immediate)
            .map_err(write_error)?;
        let mut tables = WriteTables::new(&txn)?;
        for job in batch {
            job.run(&mut self.machine, &mut tables)?;
        }
        self.machine.trim(&mut tables)?;
        let dirty = tables.is_dirty();
        drop(tables);
        if dirty {
            txn.commit().map_err(write_error)
        } else {
            txn.abort().map_err(write_error)
        }
    }
}

impl Drop for WriterThread {
    /// However the thread ends, nobody goes on waiting for it.
    fn drop(&mut self) {
        self.hub.close();
    }
}
