//! `hextet doctor`: 2 when something is found.

use std::{io::IsTerminal, process::ExitCode};

use anyhow::{Context, Result};
use hextet_doctor::{Asked, Finding, Severity, findings, look};

use crate::cli::Doctor;

/// `hextet doctor`.
pub fn doctor(doctor: &Doctor) -> Result<ExitCode> {
    let asked = Asked {
        link: doctor.link.clone(),
        addresses: doctor.ask.clone(),
    };
    if !doctor.output.json && std::io::stdout().is_terminal() {
        eprintln!("Listening to routers for some seconds…");
    }
    let seen = look(&asked).context("look at this host, as root")?;
    let found = findings(&seen);
    if doctor.output.json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else if found.is_empty() {
        let links: Vec<&str> = seen.links.iter().map(|l| l.name.as_str()).collect();
        println!(
            "Nothing is wrong, as far as it shows on {}.",
            links.join(", ")
        );
    } else {
        found
            .iter()
            .for_each(|finding| print!("{}", words(finding)));
    }
    Ok(match found.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(2),
    })
}

fn words(finding: &Finding) -> String {
    let (word, shade) = match finding.severity {
        Severity::Fault => ("fault", 31),
        Severity::Warning => ("warning", 33),
    };
    let head = format!("{word}  {}  {}", finding.code.as_str(), finding.subject);
    let head = match std::io::stdout().is_terminal() {
        true => format!("\x1b[1;{shade}m{head}\x1b[0m"),
        false => head,
    };
    format!(
        "{head}\n  seen    {}\n  remedy  {}\n",
        finding.evidence, finding.remedy
    )
}
