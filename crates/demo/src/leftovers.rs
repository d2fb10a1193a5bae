//! What labs leave behind: nothing.

use std::{fs, time::Duration};

use anyhow::Result;

use crate::check::{expect, wait_for};

/// What a lab could leave behind on the machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Leftovers {
    namespaces: Vec<String>,
    links: Vec<String>,
    rules: String,
}

impl Leftovers {
    /// What is there now.
    ///
    /// # Errors
    ///
    /// `nft` can't be run.
    pub fn look() -> Result<Leftovers> {
        let names = |directory: &str| -> Vec<String> {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let mut names: Vec<String> = entries
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        let rules = std::process::Command::new("nft")
            .args(["-s", "list", "ruleset"])
            .output()?;
        Ok(Leftovers {
            namespaces: names("/run/netns"),
            links: names("/sys/class/net"),
            rules: String::from_utf8_lossy(&rules.stdout).into_owned(),
        })
    }

    /// Nothing more is there than was then, and nothing of that lab.
    ///
    /// # Errors
    ///
    /// Something is.
    pub fn compare(&self, lab: &str) -> Result<String> {
        let of_lab = |name: &String| name.contains(&format!("hxlab-{lab}-"));
        wait_for(Duration::from_secs(5), || {
            let now = Leftovers::look()?;
            expect(
                !now.namespaces.iter().any(of_lab),
                format!("namespaces: {:?}", now.namespaces),
            )?;
            expect(
                now.links == self.links,
                format!("links: {:?}, before {:?}", now.links, self.links),
            )?;
            expect(
                now.rules == self.rules,
                "the machine's own nftables rules have changed",
            )?;
            let labs = hextet_lab::list();
            expect(
                !labs.iter().any(|l| l.name == lab),
                "the lab is still listed",
            )?;
            let running = processes_of(lab);
            expect(running.is_empty(), format!("still running: {running:?}"))
        })?;
        Ok("no namespace, link, rule or process of the lab is left".to_owned())
    }
}

/// The command lines of processes that were told of the lab's files.
fn processes_of(lab: &str) -> Vec<String> {
    let directory = format!("/labs/{lab}/");
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&directory)).collect()
}
