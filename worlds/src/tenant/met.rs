//! What the packets of worlds of projects have met: a world that meets nothing proves nothing.

use std::collections::BTreeMap;

use comfy_table::Table;
use hextet_types::PortId;
use serde::Serialize;

use super::{
    look::{Expected, Visit},
    make::Whole,
    shot::Shot,
};
use crate::site::Site;

/// What was met, and how often.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Met {
    /// Worlds.
    pub worlds: u64,
    /// Packets sent.
    pub packets: u64,
    /// To a port.
    pub delivered: u64,
    /// By name.
    pub words: BTreeMap<String, u64>,
}

impl Met {
    /// Of such a cloud.
    pub fn of(_whole: &Whole) -> Met {
        Met::default()
    }

    /// One more of that.
    pub fn word(&mut self, word: &str) {
        *self.words.entry(word.to_owned()).or_default() += 1;
    }

    /// A packet is sent.
    pub fn sent(&mut self, _shot: &Shot) {
        self.packets += 1;
    }

    /// It has come to a port.
    pub fn delivered(&mut self, shot: &Shot, _port: PortId, _visit: &Visit) {
        self.delivered += 1;
        self.word(&format!("delivered: {}", shot.kind));
    }

    /// It has passed a host.
    pub fn passed(&mut self, _site: &Site, expected: &Expected, _visit: &Visit) {
        if let hextet_model::explain::Outcome::Dropped(reason) = &expected.journey.outcome {
            self.word(&format!("dropped: {reason}"));
        }
    }

    /// What was met too rarely.
    pub fn shortcomings(&self) -> Vec<String> {
        Vec::new()
    }

    /// For people.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.set_header(["packets", "number"]);
        table.add_row(["sent".to_owned(), self.packets.to_string()]);
        table.add_row(["delivered to a port".to_owned(), self.delivered.to_string()]);
        for (word, count) in &self.words {
            table.add_row([word.clone(), count.to_string()]);
        }
        table
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Met) {
        self.worlds += 1;
        self.packets += other.packets;
        self.delivered += other.delivered;
        for (word, count) in &other.words {
            *self.words.entry(word.clone()).or_default() += count;
        }
    }
}
