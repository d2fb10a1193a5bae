//! The last intent, on disk: what the agent works from while the server is away.
//!
//! The file holds lines of the intent stream as they came. Reading it stops at the last `synced`, so a
//! group of changes that was cut off by a crash or a full disk is as if it had never come. The file is
//! rewritten whole (beside, then renamed) when a stream begins anew or when it has grown to several
//! times what the intent itself needs.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use hextet_api::agent::IntentMessage;
use hextet_model::intent::{Change, Intent};
use thiserror::Error;
use tracing::warn;

/// Appended octets beyond which the file is rewritten, when they also outweigh the snapshot.
const REWRITE_FLOOR: u64 = 1 << 20;

/// The journal could not be read or written.
#[derive(Debug, Error)]
#[error("{operation} {}: {source}", path.display())]
pub struct JournalError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The file, open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    snapshot_octets: u64,
    appended_octets: u64,
}

impl Journal {
    /// Opens the journal, or makes an empty one, and gives back what it holds: the intent and the
    /// revision of its last complete group (0 for none).
    ///
    /// # Errors
    ///
    /// The file can't be opened or read. A damaged line is no error: what stands before it counts.
    pub fn open(path: &Path) -> Result<(Journal, Intent, u64), JournalError> {
        let fail = |operation| {
            move |source| JournalError {
                operation,
                path: path.to_owned(),
                source,
            }
        };
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)
            .map_err(fail("open"))?;
        let (intent, revision, good_octets) = read(&file, path).map_err(fail("read"))?;
        file.set_len(good_octets)
            .map_err(fail("cut the incomplete end of"))?;
        let journal = Journal {
            path: path.to_owned(),
            file,
            snapshot_octets: good_octets,
            appended_octets: 0,
        };
        Ok((journal, intent, revision))
    }

    /// Adds a group of changes that ends at `revision`; `intent` is what they lead to.
    ///
    /// # Errors
    ///
    /// The file can't be written. It then still holds everything up to the former group.
    pub fn append(
        &mut self,
        changes: &[Change],
        revision: u64,
        intent: &Intent,
    ) -> Result<(), JournalError> {
        if self.appended_octets > REWRITE_FLOOR.max(3 * self.snapshot_octets) {
            return self.rewrite(intent, revision);
        }
        let mut group = Vec::new();
        for change in changes {
            write_line(&mut group, &IntentMessage::Change(change.clone()))
                .map_err(self.fail("encode a change for"))?;
        }
        write_line(&mut group, &IntentMessage::Synced { revision })
            .map_err(self.fail("encode a revision for"))?;
        self.file
            .write_all(&group)
            .map_err(self.fail("append to"))?;
        self.appended_octets += group.len() as u64;
        Ok(())
    }

    /// Replaces the whole content by this intent.
    ///
    /// # Errors
    ///
    /// The new file can't be written; the old one still stands.
    pub fn rewrite(&mut self, intent: &Intent, revision: u64) -> Result<(), JournalError> {
        let beside = self.path.with_extension("new");
        let mut out = BufWriter::new(File::create(&beside).map_err(self.fail("create beside"))?);
        let mut write = || -> io::Result<()> {
            write_line(&mut out, &IntentMessage::Reset)?;
            for change in intent.as_changes() {
                write_line(&mut out, &IntentMessage::Change(change))?;
            }
            write_line(&mut out, &IntentMessage::Synced { revision })?;
            out.flush()?;
            out.get_ref().sync_data()
        };
        write().map_err(self.fail("write beside"))?;
        fs::rename(&beside, &self.path).map_err(self.fail("rename over"))?;
        self.file = OpenOptions::new()
            .append(true)
            .open(&self.path)
            .map_err(self.fail("open the rewritten"))?;
        self.snapshot_octets = self.file.metadata().map_err(self.fail("look at"))?.len();
        self.appended_octets = 0;
        Ok(())
    }

    fn fail(&self, operation: &'static str) -> impl Fn(io::Error) -> JournalError + use<> {
        let path = self.path.clone();
        move |source| JournalError {
            operation,
            path: path.clone(),
            source,
        }
    }
}

fn write_line(out: &mut impl Write, message: &IntentMessage) -> io::Result<()> {
    serde_json::to_writer(&mut *out, message)?;
    out.write_all(b"\n")
}

/// The intent, its revision, and how many octets of the file led to it.
fn read(file: &File, path: &Path) -> io::Result<(Intent, u64, u64)> {
    let mut reader = BufReader::new(file);
    let (mut intent, mut revision, mut good_octets) = (Intent::default(), 0, 0);
    let mut group: Vec<Change> = Vec::new();
    let (mut reset, mut octets) = (false, 0);
    let mut line = String::new();
    loop {
        line.clear();
        let read = match reader.read_line(&mut line) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => 0,
            other => other?,
        };
        octets += read as u64;
        if read == 0 || !line.ends_with('\n') {
            break;
        }
        match serde_json::from_str(&line) {
            Ok(IntentMessage::Reset) => {
                reset = true;
                group.clear();
            }
            Ok(IntentMessage::Change(change)) => group.push(change),
            Ok(IntentMessage::Synced { revision: at }) => {
                if std::mem::take(&mut reset) {
                    intent = Intent::default();
                }
                group.drain(..).for_each(|change| intent.apply(change));
                (revision, good_octets) = (at, octets);
            }
            Err(error) => {
                warn!(path = %path.display(), %error, octets, "damaged line: working from what stands before it");
                break;
            }
        }
    }
    Ok((intent, revision, good_octets))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hextet_model::intent::RoutingDomain;
    use hextet_types::SecurityGroupId;
    use uuid::Uuid;

    use super::*;

    fn members(n: u8) -> Change {
        let addr = std::net::IpAddr::from([10, 0, 0, n]);
        Change::AddMembers(
            SecurityGroupId(Uuid::from_u128(1)),
            RoutingDomain::Routed,
            BTreeSet::from([addr]),
        )
    }

    fn filled(path: &Path) -> Intent {
        let (mut journal, mut intent, _) = Journal::open(path).unwrap();
        for n in 1..=3 {
            intent.apply(members(n));
            journal
                .append(&[members(n)], u64::from(n), &intent)
                .unwrap();
        }
        intent
    }

    #[test]
    fn what_was_appended_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("intent");
        let intent = filled(&path);
        let (mut journal, read, revision) = Journal::open(&path).unwrap();
        assert_eq!((&read, revision), (&intent, 3));
        journal.rewrite(&intent, 7).unwrap();
        let (_, read, revision) = Journal::open(&path).unwrap();
        assert_eq!((read, revision), (intent, 7));
    }

    #[test]
    fn a_cut_anywhere_leaves_the_last_whole_group() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("intent");
        filled(&path);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, mut intent, revision) = Journal::open(&path).unwrap();
            let groups = whole[..cut].split_inclusive(|b| *b == b'\n');
            let complete = groups
                .filter(|l| l.ends_with(b"\n") && l.starts_with(b"{\"synced"))
                .count();
            assert_eq!(revision, complete as u64, "cut at {cut}");
            intent.apply(members(9));
            journal.append(&[members(9)], 9, &intent).unwrap();
            assert_eq!(
                Journal::open(&path).unwrap().1,
                intent,
                "cut at {cut}, then appended"
            );
        }
    }

    #[test]
    fn damage_in_the_middle_keeps_what_stands_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("intent");
        filled(&path);
        let mut octets = fs::read(&path).unwrap();
        let last_group = octets.len() - 20;
        octets[last_group] = 0xff;
        fs::write(&path, &octets).unwrap();
        assert_eq!(Journal::open(&path).unwrap().2, 2);
    }

    #[test]
    fn a_journal_that_outgrew_its_intent_is_rewritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("intent");
        let (mut journal, mut intent, _) = Journal::open(&path).unwrap();
        intent.apply(members(1));
        let changes = vec![members(1); 1000];
        for revision in 1..=20 {
            journal.append(&changes, revision, &intent).unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() < 2 * REWRITE_FLOOR);
        assert_eq!(Journal::open(&path).unwrap().1, intent);
    }
}
