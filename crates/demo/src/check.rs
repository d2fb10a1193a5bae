//! Checks: what was looked at from outside, and what was seen.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde::Serialize;

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Its name, as documented.
    pub name: &'static str,
    /// Whether it held.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
}

/// All checks so far, each told as soon as it is known.
pub struct Checks {
    json: bool,
    colour: bool,
    only: Vec<String>,
    done: Vec<Check>,
}

impl Checks {
    /// Tells each check as a line of JSON, or for people. With names in `only`, those alone are made.
    pub fn new(json: bool, only: Vec<String>) -> Checks {
        Checks {
            json,
            colour: !json && std::io::stdout().is_terminal(),
            only,
            done: Vec::new(),
        }
    }

    /// Looks, unless other checks alone are wanted, and tells what was seen; a failure is a result, not the end.
    pub fn look(&mut self, name: &'static str, look: impl FnOnce() -> Result<String>) {
        if !self.only.is_empty() && self.only.iter().all(|only| only != name) {
            return;
        }
        let (ok, detail) = match look() {
            Ok(detail) => (true, detail),
            Err(error) => (false, format!("{error:#}")),
        };
        let check = Check { name, ok, detail };
        self.tell(&check);
        self.done.push(check);
    }

    /// Says what happens next; silent in JSON.
    pub fn narrate(&self, text: &str) {
        match (self.json, self.colour) {
            (true, _) => {}
            (false, true) => println!("\x1b[1m{text}\x1b[0m"),
            (false, false) => println!("{text}"),
        }
    }

    /// Shows something as it is; silent in JSON.
    pub fn show(&self, text: &str) {
        if !self.json {
            println!("{}", text.trim_end());
        }
    }

    /// Those that did not hold.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.done.iter().filter(|c| !c.ok)
    }

    /// How many were made.
    pub fn count(&self) -> usize {
        self.done.len()
    }

    fn tell(&self, check: &Check) {
        if self.json {
            println!("{}", serde_json::json!(check));
            return;
        }
        let word = match (check.ok, self.colour) {
            (true, true) => "\x1b[32mok\x1b[0m    ",
            (false, true) => "\x1b[31mFAILED\x1b[0m",
            (true, false) => "ok    ",
            (false, false) => "FAILED",
        };
        println!("  {word} {:<28} {}", check.name, check.detail);
    }
}

/// Tries until it works; gives the last failure after `limit`.
///
/// # Errors
///
/// It never worked.
pub fn wait_for<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if begin.elapsed() >= limit => {
                return Err(error.context(format!("still so after {} s", limit.as_secs_f32())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// An error unless it holds.
///
/// # Errors
///
/// It does not.
pub fn expect(holds: bool, otherwise: impl Into<String>) -> Result<()> {
    if holds {
        Ok(())
    } else {
        bail!(otherwise.into())
    }
}
