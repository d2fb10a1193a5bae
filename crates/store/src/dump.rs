//! Dumps: all that a store holds as lines of JSON, to read, keep, edit and load again.
//!
//! ```text
//! {"format":"hextet-store","version":1,"revision":42}
//! {"lease":7,"ttl_secs":30}
//! {"key":"ports/1","json":{"name":"a"},"create_revision":3,"mod_revision":9,"version":2}
//! {"key":"hosts/a","text":"up","create_revision":40,"mod_revision":40,"version":1,"lease":7}
//! {"key_base64":"AP8=","base64":"/w==","create_revision":4,"mod_revision":4,"version":1}
//! {"end":true,"leases":1,"keys":3}
//! ```
//!
//! A value stands as `json` where it is JSON on one line (kept octet for octet), else as `text`
//! where it is UTF-8, else as `base64`. Leases come before the keys on them, the last line says
//! how much there was, so that half a dump is known as such. The change log is not in it.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead, Read, Write},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{
    KeyRange, KeyValue, Lease, LeaseId, Store, StoreError,
    key::{check_key, check_value},
    lease::check_ttl,
    limits,
};

const FORMAT: &str = "hextet-store";
const VERSION: u32 = 1;
/// A value takes at most six octets for each of its own (`\u0001`), and some stand around it.
const LINE_BYTES: usize = 8 * limits::VALUE_BYTES;

/// Everything that a store holds at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The revision.
    pub revision: u64,
    /// The leases; their `keys` are counted anew.
    pub leases: Vec<Lease>,
    /// The keys, in their order.
    pub kvs: Vec<KeyValue>,
}

/// What was dumped or loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpSummary {
    /// The store's revision: of the dump, or after the load.
    pub revision: u64,
    /// Keys.
    pub keys: u64,
    /// Leases.
    pub leases: u64,
}

/// Why a dump could not be written or loaded. A load that fails has changed nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DumpError {
    /// The dump cannot be written.
    #[error("write dump: {0}")]
    Write(#[source] io::Error),
    /// The dump cannot be read.
    #[error("read dump, line {line}: {source}")]
    Read {
        /// Where, from 1.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// A line is not what it should be.
    #[error("load dump, line {line}: {problem}")]
    Line {
        /// Which, from 1.
        line: u64,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "raw")]
    json: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mod_revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_secs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leases: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<u64>,
}

/// `null` is a value here, not the lack of one.
fn raw<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

/// Writes all that a store holds at its current revision. Blocks in `out`.
///
/// # Errors
///
/// The store cannot be read, or `out` not be written.
pub async fn dump(store: &dyn Store, mut out: impl Write) -> Result<DumpSummary, DumpError> {
    let mut scan = store.scan(KeyRange::all()).await?;
    let revision = scan.revision();
    let format = Some(FORMAT.to_owned());
    let version = Some(u64::from(VERSION));
    write(
        &mut out,
        &Line {
            format,
            version,
            revision: Some(revision),
            ..Line::default()
        },
    )?;
    for lease in scan.leases() {
        let (lease, ttl_secs) = (Some(lease.id.get()), Some(lease.ttl.as_secs()));
        write(
            &mut out,
            &Line {
                lease,
                ttl_secs,
                ..Line::default()
            },
        )?;
    }
    let leases = scan.leases().len() as u64;
    let mut keys = 0;
    loop {
        let kvs = scan.next().await?;
        if kvs.is_empty() {
            break;
        }
        for kv in &kvs {
            write(&mut out, &key_line(kv))?;
        }
        keys += kvs.len() as u64;
    }
    let (end, count) = (Some(true), (Some(leases), Some(keys)));
    write(
        &mut out,
        &Line {
            end,
            leases: count.0,
            keys: count.1,
            ..Line::default()
        },
    )?;
    out.flush().map_err(DumpError::Write)?;
    Ok(DumpSummary {
        revision,
        keys,
        leases,
    })
}

/// Reads a dump whole, checks it, and puts it into an empty store, or with `overwrite` in the
/// place of what a store holds; nothing of it, or all. Blocks in `from`.
///
/// # Errors
///
/// What is wrong with the dump, with its line; [`StoreError::NotEmpty`].
pub async fn load(
    store: &dyn Store,
    from: impl BufRead,
    overwrite: bool,
) -> Result<DumpSummary, DumpError> {
    let image = read_image(from)?;
    let (keys, leases) = (image.kvs.len() as u64, image.leases.len() as u64);
    let revision = store.restore(image, overwrite).await?;
    Ok(DumpSummary {
        revision,
        keys,
        leases,
    })
}

/// Reads a dump and checks all of it.
///
/// # Errors
///
/// What is wrong with the dump, with its line.
pub fn read_image(mut from: impl BufRead) -> Result<Image, DumpError> {
    let mut reader = Reader::default();
    let mut text = Vec::new();
    loop {
        reader.line += 1;
        let line = reader.line;
        text.clear();
        let mut part = from.by_ref().take(LINE_BYTES as u64 + 1);
        let read = part.read_until(b'\n', &mut text);
        if read.map_err(|source| DumpError::Read { line, source })? == 0 {
            return reader.finish();
        }
        reader
            .take(&text)
            .map_err(|problem| DumpError::Line { line, problem })?;
    }
}

fn write(out: &mut impl Write, line: &Line) -> Result<(), DumpError> {
    let written = serde_json::to_writer(&mut *out, line).map_err(io::Error::from);
    written
        .and_then(|()| out.write_all(b"\n"))
        .map_err(DumpError::Write)
}

fn key_line(kv: &KeyValue) -> Line {
    let mut line = Line {
        create_revision: Some(kv.create_revision),
        mod_revision: Some(kv.mod_revision),
        version: Some(kv.version),
        lease: kv.lease.map(LeaseId::get),
        ..Line::default()
    };
    match std::str::from_utf8(&kv.key) {
        Ok(key) => line.key = Some(key.to_owned()),
        Err(_) => line.key_base64 = Some(BASE64.encode(&kv.key)),
    }
    match std::str::from_utf8(&kv.value) {
        Ok(text) => match one_line_json(text) {
            Some(json) => line.json = Some(json),
            None => line.text = Some(text.to_owned()),
        },
        Err(_) => line.base64 = Some(BASE64.encode(&kv.value)),
    }
    line
}

/// The text as JSON, if it is, and will be read back as the very same octets.
fn one_line_json(text: &str) -> Option<Box<RawValue>> {
    if text.contains(['\n', '\r']) {
        return None;
    }
    let json: Box<RawValue> = serde_json::from_str(text).ok()?;
    (json.get() == text).then_some(json)
}

fn no_dump() -> String {
    format!(
        "no dump of a hextet store: it starts with \
         {{\"format\":\"{FORMAT}\",\"version\":{VERSION},\"revision\":…}}"
    )
}

/// A dump as far as it has been read.
#[derive(Default)]
struct Reader {
    line: u64,
    revision: Option<u64>,
    ended: bool,
    leases: BTreeMap<LeaseId, Lease>,
    kvs: BTreeMap<Bytes, KeyValue>,
    /// The lines of the keys.
    lines: HashMap<Bytes, u64>,
}

impl Reader {
    fn take(&mut self, text: &[u8]) -> Result<(), String> {
        if text.len() > LINE_BYTES {
            return Err(format!("longer than {LINE_BYTES} octets"));
        }
        if self.ended {
            return Err("something follows the end line: remove it".to_owned());
        }
        let line: Result<Line, _> = serde_json::from_slice(text);
        let Some(revision) = self.revision else {
            let line = line.map_err(|error| format!("{}; {error}", no_dump()))?;
            return self.header(&line);
        };
        let line = line.map_err(|error| error.to_string())?;
        if line.end.is_some() {
            return self.end(&line);
        }
        if line.key.is_some() || line.key_base64.is_some() {
            let kv = self.key(line, revision)?;
            if let Some(first) = self.lines.insert(kv.key.clone(), self.line) {
                let key = kv.key.escape_ascii();
                return Err(format!("key '{key}' was in line {first} already"));
            }
            self.kvs.insert(kv.key.clone(), kv);
            return Ok(());
        }
        let lease = lease(&line)?;
        match self.leases.insert(lease.id, lease) {
            None if self.leases.len() <= limits::LEASES => Ok(()),
            None => Err(StoreError::TooManyLeases.to_string()),
            Some(_) => Err(format!("lease {} was there already", lease.id)),
        }
    }

    fn header(&mut self, line: &Line) -> Result<(), String> {
        match (line.format.as_deref(), line.version, line.revision) {
            (Some(FORMAT), Some(version), _) if version > u64::from(VERSION) => Err(format!(
                "dump format {version}, this program knows up to {VERSION}: use a newer hextet"
            )),
            (Some(FORMAT), Some(1), Some(revision)) => {
                self.revision = Some(revision);
                Ok(())
            }
            _ => Err(no_dump()),
        }
    }

    fn key(&self, line: Line, revision: u64) -> Result<KeyValue, String> {
        let key = match (line.key, line.key_base64) {
            (Some(key), None) => Bytes::from(key),
            (None, Some(key)) => decode("key_base64", &key)?,
            _ => return Err("give one of key and key_base64".to_owned()),
        };
        let value = match (line.json, line.text, line.base64) {
            (Some(json), None, None) => Bytes::copy_from_slice(json.get().as_bytes()),
            (None, Some(text), None) => Bytes::from(text),
            (None, None, Some(octets)) => decode("base64", &octets)?,
            _ => return Err("give one of json, text and base64".to_owned()),
        };
        check_key(&key).map_err(|error| error.to_string())?;
        check_value(&key, &value).map_err(|error| error.to_string())?;
        let number = |name, number: Option<u64>| number.ok_or(format!("{name} is missing"));
        let create_revision = number("create_revision", line.create_revision)?;
        let mod_revision = number("mod_revision", line.mod_revision)?;
        let version = number("version", line.version)?;
        if !(1..=mod_revision).contains(&create_revision) || mod_revision > revision {
            return Err(format!(
                "it must be that 1 ≤ create_revision ≤ mod_revision ≤ {revision}, the dump's"
            ));
        }
        if !(1..=mod_revision - create_revision + 1).contains(&version) {
            return Err("version is not from 1 to the revisions that the key lived".to_owned());
        }
        let lease = match line.lease.map(LeaseId::new) {
            None => None,
            Some(Some(id)) if self.leases.contains_key(&id) => Some(id),
            Some(_) => return Err("no line above has this lease".to_owned()),
        };
        Ok(KeyValue {
            key,
            value,
            create_revision,
            mod_revision,
            version,
            lease,
        })
    }

    fn end(&mut self, line: &Line) -> Result<(), String> {
        let read = (self.leases.len() as u64, self.kvs.len() as u64);
        if (line.leases, line.keys) != (Some(read.0), Some(read.1)) {
            return Err(format!(
                "there were {} leases and {} keys, which is not what the end line says: \
                 something is missing, or correct it if you changed the dump",
                read.0, read.1
            ));
        }
        self.ended = true;
        Ok(())
    }

    fn finish(self) -> Result<Image, DumpError> {
        let problem = "the dump has no end line: it was cut off";
        match (self.revision, self.ended) {
            (Some(revision), true) => {
                let leases = self.leases.into_values().collect();
                Ok(Image {
                    revision,
                    leases,
                    kvs: self.kvs.into_values().collect(),
                })
            }
            _ => Err(DumpError::Line {
                line: self.line,
                problem: problem.to_owned(),
            }),
        }
    }
}

fn lease(line: &Line) -> Result<Lease, String> {
    let Some((id, secs)) = line.lease.zip(line.ttl_secs) else {
        return Err("neither a key, nor a lease with ttl_secs, nor the end".to_owned());
    };
    let id = LeaseId::new(id).ok_or("no lease has the number 0")?;
    let ttl = check_ttl(Duration::from_secs(secs)).map_err(|error| error.to_string())?;
    Ok(Lease { id, ttl, keys: 0 })
}

fn decode(field: &str, text: &str) -> Result<Bytes, String> {
    BASE64
        .decode(text)
        .map(Bytes::from)
        .map_err(|error| format!("{field}: {error}"))
}
